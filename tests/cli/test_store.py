"""Withdrawing releases and replacing keys, as a publisher does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aif.authoring.publication import StoredModel
from aif.cli import _wiring as wiring
from aif.cli import main as cli
from aif.cli._publishing import open_publisher


def aif(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = cli.main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return code, told.out + told.err


def test_a_stolen_key_is_replaced_and_its_releases_are_withdrawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = StoredModel("kws", bytes(5000), 4096, 1, 1.0, 1.0, 1, ("a",), {}, {})
    release = open_publisher(wiring.Home(tmp_path)).model(model)
    vendor = release.path.split("/")[1]
    code, told = aif(capsys, "store", "replace-key", vendor, "--home", tmp_path)
    assert (code, release.path in told) == (0, True), told
    assert f"publisher {vendor} has a new key" in told
    code, told = aif(capsys, "store", "withdraw", release.path, "--reason", "not ours", "--home", tmp_path)
    assert (code, told) == (0, f"{release.path} is withdrawn: not ours\n")
    code, told = aif(capsys, "store", "list", "--home", tmp_path)
    assert "withdrawn: not ours" in told
    assert aif(capsys, "store", "replace-key", "nobody", "--home", tmp_path)[0] == 7
    code, told = aif(capsys, "store", "withdraw", "aim/x/y/1", "--reason", "r", "--home", tmp_path)
    assert (code, "error[AIF-E06" in told) == (7, True)
