from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from aif.authoring.int8 import build
from aif.authoring.layers import Conv1D, Dense, GlobalAveragePool, Layer, Softmax


@pytest.fixture(scope="session")
def model() -> bytes:
    """Int8, (1, 8) to (1, 4): 1 kB that needs about 2 kB of arena."""
    rng = np.random.default_rng(1)
    layers: list[Layer] = [
        Dense(rng.normal(size=(8, 16)), rng.normal(size=16), relu=True),
        Dense(rng.normal(size=(16, 4)), rng.normal(size=4)),
        Softmax(),
    ]
    return build(layers, rng.normal(size=(100, 8)))


@pytest.fixture(scope="session")
def large_model() -> bytes:
    """Int8, (1, 64, 4) to (1, 8): activations that need a larger arena than its weights."""
    rng = np.random.default_rng(2)
    layers: list[Layer] = [
        Conv1D(rng.normal(size=(5, 4, 32)), np.zeros(32)),
        Conv1D(rng.normal(size=(3, 32, 8)), np.zeros(8), stride=2),
        GlobalAveragePool(),
    ]
    return build(layers, rng.normal(size=(20, 64, 4)))


@pytest.fixture(scope="session")
def equal_model() -> bytes:
    """Int8, (1, 24) to (1, 6): ReLU everywhere, so no negative value is ever rounded."""
    rng = np.random.default_rng(5)
    layers: list[Layer] = [
        Dense(rng.normal(size=(24, 16)), rng.normal(size=16), relu=True),
        Dense(rng.normal(size=(16, 6)), rng.normal(size=6), relu=True),
    ]
    return build(layers, rng.normal(size=(100, 24)))


@pytest.fixture(scope="session")
def digest(model: bytes) -> str:
    return sha256(model).hexdigest()
