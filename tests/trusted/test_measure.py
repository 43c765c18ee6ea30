from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from aif.trusted.measure import runtime_digest, runtime_manifest


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.py").write_bytes(b"a = 1\n")
    (folder / "inner" / "b.py").write_bytes(b"")
    (folder / "inner" / "__pycache__").mkdir()
    (folder / "inner" / "__pycache__" / "b.cpython-311.pyc").write_bytes(b"cache")
    (folder / "notes.txt").write_bytes(b"no code")
    return folder


def test_the_manifest_names_every_source_file_and_its_digest(package: Path) -> None:
    assert json.loads(runtime_manifest(package)) == {
        "package": "demo",
        "files": {
            "a.py": hashlib.sha256(b"a = 1\n").hexdigest(),
            "inner/b.py": hashlib.sha256(b"").hexdigest(),
        },
    }
    assert runtime_digest(package) == hashlib.sha256(runtime_manifest(package)).digest()


def test_the_place_of_a_package_does_not_matter(package: Path, tmp_path: Path) -> None:
    before = runtime_digest(package)
    moved = tmp_path / "elsewhere" / "demo"
    moved.parent.mkdir()
    package.rename(moved)
    assert runtime_digest(moved) == before


@pytest.mark.parametrize("change", ["a = 2\n", "a = 1\n\n", ""])
def test_any_change_of_the_code_changes_the_measurement(package: Path, change: str) -> None:
    before = runtime_digest(package)
    (package / "a.py").write_text(change)
    assert runtime_digest(package) != before


def test_a_file_more_or_under_another_name_changes_the_measurement(package: Path) -> None:
    digests = {runtime_digest(package)}
    (package / "a.py").rename(package / "c.py")
    digests.add(runtime_digest(package))
    (package / "inner" / "d.py").write_bytes(b"")
    digests.add(runtime_digest(package))
    assert len(digests) == 3
