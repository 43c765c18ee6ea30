from pathlib import Path

import pytest

from aif.cli.main import main
from aif.model.placement import Assignment, Placement
from partitioner.report.written import to_json

EXAMPLES = Path(__file__).parents[1] / "config/examples"
CALL = ["graph", str(EXAMPLES / "gesture"), "--aims", str(EXAMPLES / "aims")]
AIMS = ("imu", "extract", "classifier", "sink")


def plan(folder: Path, workflow: str) -> str:
    rows = tuple(Assignment(aim, "wrist" if aim != "sink" else "gw", "any") for aim in AIMS)
    (folder / "plan.json").write_text(to_json(Placement(workflow, "1.0", "lab", 3, rows)))
    return str(folder / "plan.json")


def test_mermaid_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(CALL) == 0
    assert capsys.readouterr().out.startswith('flowchart LR\n  n0["imu<br/>IMUSource@1.0"]\n')


def test_the_ending_decides_the_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CALL, "-o", str(tmp_path / "g.svg")]) == 0
    assert (tmp_path / "g.svg").read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg" ')
    assert main([*CALL, "-o", str(tmp_path / "g.mmd")]) == 0
    assert (tmp_path / "g.mmd").read_text().startswith("flowchart LR\n")
    assert capsys.readouterr().out == ""


def test_a_plan_colours_the_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CALL, "--format", "svg", "--placement", plan(tmp_path, "GestureRecognition")]) == 0
    drawn = capsys.readouterr().out
    assert drawn.count('class="line remote"') == 1
    assert "classifier: GestureClassifier@1.0 on wrist" in drawn


def test_a_plan_of_another_workflow_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CALL, "--placement", plan(tmp_path, "Other")]) == 4
    assert "places Other, not GestureRecognition" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (None, "cannot read {}: No such file or directory"),
        (b"\0", "{}: the placement document is not JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_file_that_is_no_plan_is_named(
    held: bytes | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plan.json"
    if held is not None:
        file.write_bytes(held)
    assert main([*CALL, "--placement", str(file)]) == 4
    assert capsys.readouterr().err == (
        f"error[AIF-E0300]: {said.format(file)}\n   = help: write it with aif plan --format json\n"
    )
