from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aif.cli.main import main
from aif.cli.new import MAX_NAME_CHARACTERS, aim_files
from aif.config import load_aim
from aif.config.format import format_file
from store.targets import pack


def made(into: Path, name: str = "moving_average") -> Path:
    assert main(["new", "aim", name, "--in", str(into)]) == 0
    return into / name


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["new", "aim", *arguments]) == 2
    return capsys.readouterr().err


def test_the_new_folder_is_named_after_the_aim_and_the_next_steps_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(tmp_path)
    names = ["README.md", "aim.yaml", "module.py", "test_moving_average.py"]
    assert sorted(file.name for file in folder.iterdir()) == names
    shown = folder.as_posix()
    assert (
        capsys.readouterr().out == f"made {shown}\ntry it: pytest {shown}\ncheck it: aif validate {shown}\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["moving_average"]


@pytest.mark.parametrize(
    ("name", "reference"),
    [("moving_average", "MovingAverage@1.0"), ("a", "A@1.0"), ("fft_256", "Fft256@1.0"), ("x2y", "X2y@1.0")],
)
def test_the_contract_is_valid_and_in_canonical_form(
    name: str, reference: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(tmp_path, name)
    assert load_aim(folder).reference == reference
    before, after = format_file(folder / "aim.yaml")
    assert before == after
    assert main(["validate", str(folder)]) == 0
    assert f"AIM {reference}: 1 input, 1 output, 1 implementation" in capsys.readouterr().out


@pytest.mark.integration
def test_the_new_aim_passes_its_own_test_as_it_is(tmp_path: Path) -> None:
    folder = made(tmp_path)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_new_folder_can_be_packed_for_the_store(tmp_path: Path) -> None:
    assert pack(made(tmp_path))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MovingAverage", "did you mean 'moving_average'?"),
        ("moving-average", "did you mean 'moving_average'?"),
        ("FFT256", "did you mean 'fft_256'?"),
        ("_x", "did you mean 'x'?"),
        ("a__b", "did you mean 'a_b'?"),
        ("../evil", "did you mean 'evil'?"),
        ("a/b", "did you mean 'a_b'?"),
        ("Ä", "such as moving_average"),
        ("", "such as moving_average"),
    ],
)
def test_a_name_that_no_folder_and_module_can_have_is_refused(
    name: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refused(capsys, name, "--in", str(tmp_path))
    assert f"{name!r} is not a name for an AIM folder: lower-case words joined by underscores" in text
    assert f"= help: {hint}" in text
    assert list(tmp_path.iterdir()) == []


def test_words_of_python_and_very_long_names_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "'class' is a word of Python and cannot name a module" in refused(capsys, "class")
    long = "a" * (MAX_NAME_CHARACTERS + 1)
    assert "is too long a name: at most 48 characters" in refused(capsys, long, "--in", str(tmp_path))
    assert made(tmp_path, long[1:]).is_dir()


def test_what_exists_is_never_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.py").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("mine", "link"):
        text = refused(capsys, name, "--in", str(tmp_path))
        assert f"{(tmp_path / name).as_posix()} exists already" in text
    assert (tmp_path / "mine" / "work.py").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "mine"]


def test_a_place_that_does_not_exist_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "nowhere"
    text = refused(capsys, "mine", "--in", str(place))
    assert f"cannot make a folder in {place.as_posix()}: No such file or directory" in text


def test_nothing_is_left_to_fill_in() -> None:
    files = aim_files("moving_average")
    assert not [name for name, text in files.items() if "@NAME@" in text or "@CLASS@" in text]
