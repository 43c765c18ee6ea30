from pathlib import Path

import pytest

from aif.cli.main import main

EXAMPLES = Path(__file__).parents[1] / "config/examples"
AIMS = str(EXAMPLES / "aims")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["validate", *arguments])
    return code, capsys.readouterr().out


def test_valid_files_are_summed_up_in_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    folder = EXAMPLES / "gesture"
    code, out = run(capsys, str(folder), str(EXAMPLES / "aims/motion_classifier"), "--aims", AIMS)
    assert code == 0
    assert out == (
        f"{folder}/gesture.aiw.yaml: workflow GestureRecognition@1.0: 4 AIMs, 4 channels, 53 records/s\n"
        f"{folder}/inventory.yaml: inventory lab, version 3: 3 devices (1 gateway, 2 mcus), 2 links\n"
        f"{EXAMPLES}/aims/motion_classifier/aim.yaml: composite AIM MotionClassifier@1.0:"
        " 1 input, 1 output, 2 AIMs\n"
    )


def test_every_finding_is_one_screen_and_the_exit_code_is_two(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (EXAMPLES / "gesture/gesture.aiw.yaml").read_text()
    Path("g.aiw.yaml").write_text(text.replace("imu.samples}", "imu.sampels}").replace("paths:", "path:"))
    code, out = run(capsys, "g.aiw.yaml", "--aims", AIMS)
    assert code == 2
    assert out == (
        "error[AIF-E0204]: imu (IMUSource@1.0) has no output port 'sampels'\n"
        "  --> g.aiw.yaml:7:62\n"
        "7 |   - {id: extract, use: MotionFeatures@1.0, inputs: {samples: imu.sampels},"
        "   # window 100, hop 50: consumes 50, emits 1\n"
        "  |" + " " * 62 + "^^^^^^^^^^^\n"
        "   = help: did you mean 'samples'?\n"
        "\n"
        "error[AIF-E0102]: unknown key 'path'\n"
        "  --> g.aiw.yaml:12:1\n"
        "12 | path: [{id: gesture, from: imu.samples, to: sink.event, deadline_ms: 400, percentile: 0.99}]\n"
        "   | ^^^^\n"
        "   = help: did you mean 'paths'?\n"
        "\n"
        "2 errors\n"
    )


def test_a_missing_file_and_a_broken_library_are_findings(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out = run(capsys, str(tmp_path / "none.yaml"), "--aims", AIMS)
    assert code == 2
    assert out.startswith(f"error[AIF-E0109]: cannot read {tmp_path}/none.yaml: No such file or directory\n")
    (tmp_path / "aim.yaml").write_text("schema: 1\naim: {name: X}\n")
    code, out = run(capsys, str(EXAMPLES / "gesture/gesture.aiw.yaml"), "--aims", str(tmp_path))
    assert code == 2
    assert "missing key 'version' of aim" in out


def test_a_warning_is_shown_and_does_not_fail(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = (EXAMPLES / "gesture/gesture.aiw.yaml").read_text()
    file = tmp_path / "g.aiw.yaml"
    file.write_text(text.replace("imu.samples},", "[imu.samples, imu_b.samples]},").replace(
        "  - {id: extract", "  - {id: imu_b, use: IMUSource@1.0}\n  - {id: extract"
    ))  # fmt: skip
    code, out = run(capsys, str(file), "--aims", AIMS)
    assert code == 0
    assert out.startswith(
        "warning[AIF-W0201]: two writers on extract.samples: imu.samples and imu_b.samples\n"
    )
    assert out.endswith("g.aiw.yaml: workflow GestureRecognition@1.0: 5 AIMs, 5 channels, 106 records/s\n")


def test_a_file_without_a_known_top_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("schema: 1\nworkflow: {}\n")
    code, out = run(capsys, str(tmp_path / "x.yaml"), "--aims", AIMS)
    assert code == 2
    assert "error[AIF-E0109]: this is a file without a known top key, not a workflow file" in out
