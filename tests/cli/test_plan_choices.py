"""``aif plan``: suppositions, objectives, comparisons, choices and pictures as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from aif.cli import main as cli
from partitioner.report.written import from_json

GESTURE = Path(__file__).resolve().parents[2] / "workflows" / "gesture"


def run(*options: str) -> int:
    return cli.main(["plan", str(GESTURE), *options])


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = tmp_path_factory.mktemp("plans") / "now.json"
    assert run("-o", str(plan)) == 0
    return plan


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("p.json", '{\n  "schema": 4,'),
        ("p.mmd", "flowchart LR"),
        ("p.dot", "digraph placement {"),
        ("p.gv", "digraph placement {"),
        ("p.svg", "<svg "),
        ("p.html", "<!DOCTYPE html>"),
        ("p.txt", "GestureRecognition@1.0 on inventory wristband v1"),
    ],
)
def test_the_ending_of_the_output_names_the_format(tmp_path: Path, name: str, beginning: str) -> None:
    assert run("--output", str(tmp_path / name)) == 0
    assert (tmp_path / name).read_text().startswith(beginning)


def test_the_format_wins_over_the_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--format", "svg", "--output", str(tmp_path / "p.txt")) == 0
    ET.fromstring((tmp_path / "p.txt").read_text())  # noqa: S314  drawn here
    capsys.readouterr()
    assert run("--format", "svg") == 0
    assert capsys.readouterr().out == (tmp_path / "p.txt").read_text()


def test_the_table_shows_the_traffic_of_links(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert "radio gw-1, mcu-1, mcu-2 4.25 kbit/s of 175 kbit/s" in shown(capsys)


def test_a_supposition_changes_the_plan_and_not_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    file = (GESTURE / "inventory.yaml").read_bytes()
    assert run("--what-if", "mcu-1.ram=32KiB", "--format", "json") == 0
    assert from_json(capsys.readouterr().out).device_of("classifier") == "mcu-1"
    assert (GESTURE / "inventory.yaml").read_bytes() == file


def test_a_missing_device_that_nothing_replaces_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--without", "mcu-2") == 4
    error = capsys.readouterr().err
    assert "mcu-1 has 16,384 B RAM" in error
    assert "help: any one of these makes it possible: +662 B RAM on mcu-1" in error
    assert run("--without", "mcu-2", "--what-if", f"mcu-1.ram={16384 + 662}") == 0
    assert run("--without", "mcu-2", "--what-if", f"mcu-1.ram={16384 + 661}") == 4


def test_a_comparison_says_what_moves_and_what_it_costs(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--what-if", "mcu-1.ram=32KiB", "--compare", str(before)) == 0
    out = shown(capsys)
    assert "compared with GestureRecognition@1.0 on wristband v1: 4 AIMs stayed" in out
    assert "classifier mcu-2 (mcu) mcu-1 (mcu)" in out
    assert "path gesture" in out
    assert run("--what-if", "mcu-1.ram=32KiB", "--compare", str(before), "--format", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert {m["aim"] for m in document["comparison"]["moves"]} == {"classifier", "decision"}


def test_a_price_on_moves_keeps_models_where_they_are(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gesture_classifier.tflite").write_bytes(bytes(4000))
    options = (
        "--releases",
        str(tmp_path),
        "--what-if",
        "mcu-1.ram=32KiB",
        "--compare",
        str(before),
        "--format",
        "json",
    )
    assert run(*options, "--objective", "latency=1,migration=1000") == 0
    moves = json.loads(capsys.readouterr().out)["comparison"]["moves"]
    assert "classifier" not in {m["aim"] for m in moves}


def test_objectives_replace_those_of_the_workflow(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--objective", "devices", "--format", "json") == 0
    found = from_json(capsys.readouterr().out)
    assert found.terms == {"devices": 3.0}
    assert run("--lexicographic", "devices,latency") == 0
    assert "planned in order as --objective devices=100,latency=" in shown(capsys)


def test_the_choice_between_energy_and_latency(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    supposed = [
        *("--what-if", "mcu-1.ram=24KiB", "--what-if", "mcu-1.energy.active_mw=400"),
        *(f"--what-if=mcu-{n}.energy.{way}=0.1" for n in (1, 2) for way in ("tx", "rx")),
    ]
    assert run("--pareto", *supposed) == 0
    assert "4 plans; " in shown(capsys)
    for name in ("f.svg", "f.html", "f.json"):
        assert run("--pareto", *supposed, "-o", str(tmp_path / name)) == 0
    plans = json.loads((tmp_path / "f.json").read_text())["plans"]
    assert (tmp_path / "f.svg").read_text().count("<circle") == len(plans) == 4
    capsys.readouterr()
    assert run(*supposed, "--objective", plans[1]["objective"], "--format", "json") == 0
    assert {a.aim: a.device for a in from_json(capsys.readouterr().out).assignments} == plans[1]["where"]


@pytest.mark.parametrize(
    ("options", "code", "message", "hint"),
    [
        (["--what-if", "mcu-9.ram=1"], 2, "no device 'mcu-9'", "did you mean"),
        (["--without", "gw-9"], 2, "no device 'gw-9'", "did you mean"),
        (["--objective", "speed"], 4, "no objective 'speed'", "known"),
        (["--objective", "migration"], 4, "what runs now", "--compare PLAN.json"),
        (["--lexicographic", "energy,energy"], 4, "given twice", "once"),
        (["--objective", "energy", "--lexicographic", "energy"], 4, "exclude each other", "one of them"),
        (["--pareto", "--objective", "energy"], 4, "--pareto chooses", "leave out"),
        (["--pareto", "--format", "dot"], 4, "--pareto has no dot form", "svg"),
        (["--compare", "none.json"], 4, "cannot read none.json", "--format json"),
        (["--compare", "none.json", "--format", "svg"], 4, "a comparison has no svg form", "html"),
        (["--pareto", "--points", "1"], 2, "--points", "--help"),
        (["--format", "pdf"], 2, "--format", "--help"),
        (["--time-limit", "0"], 2, "--time-limit", "--help"),
        (["--seed", "-1"], 2, "--seed", "--help"),
    ],
)
def test_wrong_options_are_explained(
    options: list[str], code: int, message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*options) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert hint in printed.err.partition("= help:")[2]


def test_a_comparison_needs_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    assert run("--compare", str(wrong)) == 4
    assert "schema None, schema 4 is read" in capsys.readouterr().err


def test_wrong_options_are_found_before_a_solver_is_loaded() -> None:
    code = (
        "import sys; from aif.cli.main import main; main(['plan', 'none', '--objective', 'speed']); "
        "assert 'ortools' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
