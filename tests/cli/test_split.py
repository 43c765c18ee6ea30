"""``aif split`` as a person types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aif.cli.main import main
from aif.config import load_catalogue
from tests.authoring.models import random_model

pytestmark = pytest.mark.integration


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "shaker.tflite"
    file.write_bytes(random_model(1, length=3))
    return file


def test_without_options_the_cuts_are_listed_and_nothing_is_made(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["split", str(model)]) == 0
    told = capsys.readouterr().out
    first, *rows = [line for line in told.splitlines() if line.strip()]
    assert first.startswith("shaker: ")
    assert [row.split()[0] for row in rows[2:]] == ["1", "2", "3"][: len(rows) - 2]
    assert "CONV_2D" in rows[2]
    assert [file.name for file in tmp_path.iterdir()] == ["shaker.tflite"]


def test_a_split_is_made_checked_and_never_overwritten(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "aims"
    assert main(["split", str(model), "--at", "1", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "ShakerAt1@1.0 stands for Shaker@1.0" in told
    names = {"shaker", "shaker_at_1", "shaker_at_1_part_1", "shaker_at_1_part_2"}
    assert {folder.name for folder in out.iterdir()} == names
    command = told.splitlines()[-1].removeprefix("check it: aif ").split()
    assert main(command) == 0
    assert "composite AIM ShakerAt1@1.0" in capsys.readouterr().out
    assert main(["split", str(model), "--at", "1", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_another_cut_of_the_same_aim_is_a_further_choice(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "aims"
    assert main(["split", str(model), "--at", "1", "--out", str(out)]) == 0
    whole = ["--aim", str(out / "shaker"), "--out", str(out)]
    assert main(["split", str(model), "--at", "2", *whole]) == 0
    standing = [one.reference for one in load_catalogue([out]).values() if one.stands_for == "Shaker@1.0"]
    assert sorted(standing) == ["ShakerAt1@1.0", "ShakerAt2@1.0"]


def test_each_makes_every_chain_of_two(model: Path, tmp_path: Path) -> None:
    assert main(["split", str(model), "--each", "--out", str(tmp_path / "aims")]) == 0
    standing = [one for one in load_catalogue([tmp_path / "aims"]).values() if one.stands_for]
    assert len(standing) >= 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--at", "1", "--parts", "2"], "exclude each other"),
        (["--max-ram", "20 apples"], "--max-ram '20 apples'"),
        (["--max-flash", "0B"], "is not positive"),
        (["--max-ram", "16B"], "alone take"),
        (["--at", "77"], "there is no cut 77"),
        (["--parts", "9"], "9 parts are not possible"),
    ],
)
def test_wrong_options_say_what_to_do(
    model: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["split", str(model), *options, "--out", str(tmp_path / "aims")]) == 2
    told = capsys.readouterr().err
    assert reason in told
    assert "help: " in told
    assert not (tmp_path / "aims").exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("Kws V2.tflite", b"", "does not name a model"),
        ("kws.tflite", b"nothing", "not a .tflite file"),
        ("missing.tflite", None, "cannot read"),
    ],
)
def test_what_is_no_model_is_refused(
    name: str, content: bytes | None, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["split", str(tmp_path / name)]) == 2
    assert reason in capsys.readouterr().err
