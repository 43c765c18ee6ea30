from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aif.cli import _wiring as wiring
from aif.cli._publishing import publish_everything, train_motion_models


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with trained models and a store that has them; nobody writes into it."""
    home = wiring.Home(tmp_path_factory.mktemp("trained"))
    train_motion_models(home, lambda _step, _share: None)
    publish_everything(home, wiring.catalogue([]))
    return home.root


@pytest.fixture
def home(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder of a test's own; its path is short, as that of a socket must be."""
    folder = tmp_path_factory.mktemp("h")
    shutil.copytree(trained_home, folder, dirs_exist_ok=True)
    return folder
