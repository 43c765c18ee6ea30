"""A small store on disk, signed at a fixed moment."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from store.keys import RoleKeys
from store.repository import Repository

_NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once; every test changes a copy of its own."""
    base = tmp_path_factory.mktemp("original")
    Repository.create(base / "repository", RoleKeys.create(base / "keys", ["acme", "globex"]), now=_NOW)
    return base


@pytest.fixture
def now() -> datetime:
    return _NOW


@pytest.fixture
def keys(original: Path, tmp_path: Path) -> RoleKeys:
    shutil.copytree(original / "keys", tmp_path / "keys")
    return RoleKeys.load(tmp_path / "keys")


@pytest.fixture
def repository(original: Path, keys: RoleKeys, tmp_path: Path) -> Repository:
    shutil.copytree(original / "repository", tmp_path / "repository")
    return Repository.open(tmp_path / "repository", keys)
