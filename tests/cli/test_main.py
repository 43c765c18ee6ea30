"""What every verb has in common: no trace on the screen for a file that the machine refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aif.cli.main import main


@pytest.mark.parametrize(
    "verb",
    [
        ("device", "list"),
        ("trust", "audit"),
        ("site", "key"),
        ("site", "policy"),
        ("store", "init"),
        ("store", "publish"),
        ("train",),
        ("controller", "--store", "http://127.0.0.1:9"),
    ],
)
def test_a_home_that_is_a_file_is_named(
    verb: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    home.write_bytes(b"x")
    code = main([*verb, "--home", str(home)])
    shown = capsys.readouterr().err
    assert code in (2, 7), shown
    assert shown.startswith("error[AIF-E")
    assert str(home) in shown.splitlines()[0]
    assert "   = help: " in shown
    assert home.read_bytes() == b"x"


@pytest.mark.parametrize(
    "verb",
    [
        ("device", "list"),
        ("device", "show", "gw-1"),
        ("device", "revoke", "gw-1"),
        ("device", "remove", "gw-1"),
        ("device", "undrain", "gw-1"),
        ("trust", "audit"),
        ("trust", "audit", "verify"),
    ],
)
def test_a_mistyped_home_is_no_new_site(
    verb: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "typo"
    assert main([*verb, "--home", str(home)]) == 7
    assert capsys.readouterr().err.startswith(f"error[AIF-E0601]: there is no site in {home}/site\n")
    assert not home.exists()


@pytest.mark.parametrize(
    "verb", [("device", "factory-reset", "gw-1"), ("broker", "check", "--device", "gw-1")]
)
def test_a_device_that_was_never_added_is_named(
    verb: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "typo"
    assert main([*verb, "--home", str(home)]) == 7
    assert f"gw-1 has no identity in {home}/devices/gw-1" in capsys.readouterr().err
    assert not home.exists()


def test_help_after_a_misuse_is_that_of_the_very_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "withdraw", "a/b"]) == 2
    assert capsys.readouterr().err == (
        "error: Missing option '--reason'.\n  = help: aif store withdraw --help\n"
    )
    assert main(["device", "list", "--jsn"]) == 2
    assert capsys.readouterr().err.endswith("  = help: aif device list --help\n")


def test_ctrl_c_is_one_word_and_its_exit_code(tmp_path: Path) -> None:
    pipe = tmp_path / "never-written.aiw.yaml"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "aif.cli.main", "validate", str(pipe)]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as verb,
        pipe.open("wb"),  # returns when the verb reads
    ):
        verb.send_signal(signal.SIGINT)
        shown = verb.communicate(timeout=60)
    assert (verb.returncode, *shown) == (130, "", "stopped\n")
