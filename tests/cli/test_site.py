"""Keys between a publisher and a site on other machines, and the site's policy, as people meet them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aif.authoring.publication import StoredModel
from aif.cli import _wiring as wiring
from aif.cli import main as cli
from aif.cli._publishing import open_publisher
from aif.trusted.content_keys import SiteVault


def aif(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = cli.main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return code, told.out + told.err


def test_keys_go_from_a_publisher_to_a_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there, file = tmp_path / "publisher", tmp_path / "site", tmp_path / "keys.sealed"
    model = StoredModel("kws", bytes(5000), 4096, 1, 1.0, 1.0, 1, ("a",), {}, {})
    release = open_publisher(wiring.Home(here)).model(model)
    code, key = aif(capsys, "site", "key", "--home", there)
    assert code == 0
    code, told = aif(capsys, "store", "hand-over", key.strip(), file, "--home", here)
    assert (code, file.stat().st_mode & 0o777) == (0, 0o600), told
    assert aif(capsys, "site", "take", file, "--home", there) == (0, f"{release.path}\n1 new content keys\n")
    assert aif(capsys, "site", "take", file, "--home", there) == (0, "0 new content keys\n")
    assert len(SiteVault(there / "site", os.urandom).key(release.path)) == 32
    code, told = aif(capsys, "site", "take", file, "--home", tmp_path / "stranger")
    assert (code, "error[AIF-E0505]" in told) == (6, True)


@pytest.mark.parametrize("key", ["", "0g", "ab" * 31, "ab" * 33])
def test_what_is_no_key_of_a_site_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    aif(capsys, "store", "init", "--home", tmp_path)
    code, told = aif(capsys, "store", "hand-over", key, tmp_path / "keys", "--home", tmp_path)
    assert code == 6
    assert "aif site key" in told
    assert not (tmp_path / "keys").exists()


def test_a_file_that_is_not_there_or_no_hand_over_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = aif(capsys, "site", "take", tmp_path / "keys", "--home", tmp_path)
    assert (code, "cannot be read: No such file" in told) == (7, True)
    (tmp_path / "keys").write_bytes(b"no keys")
    code, told = aif(capsys, "site", "take", tmp_path / "keys", "--home", tmp_path)
    assert (code, "error[AIF-E0402]" in told) == (5, True)


def test_the_policy_is_shown_and_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, shown in (((), "refuse"), (("--plain-models", "allow"), "allow"), ((), "allow")):
        assert aif(capsys, "site", "policy", *arguments, "--home", tmp_path) == (
            0,
            f"plain models: {shown}\n",
        )
    code, _ = aif(capsys, "site", "policy", "--plain-models", "maybe", "--home", tmp_path)
    assert code == 2
