from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from aif.authoring.int8 import build
from aif.authoring.layers import Dense, Layer, Softmax
from aif.authoring.recording import UNSEEN, Recording, write_recording


class VirtualClock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_ms = 5_000.0
        self.slept_ms: list[float] = []

    def monotonic_ms(self) -> float:
        return self.now_ms

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)  # a cancellation arrives here, before time has passed
        self.slept_ms.append(seconds * 1000.0)
        self.now_ms += seconds * 1000.0


@pytest.fixture(scope="session")
def clock_type() -> type[VirtualClock]:
    return VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(scope="session")
def recording() -> Recording:
    """Four windows, not evenly spaced (1 s, 1 s, 2 s); the third is of an unseen kind."""
    samples = np.arange(4 * 100 * 6, dtype=np.int16).reshape(4, 100, 6)
    return Recording(
        samples=samples,
        t_us=np.array([2_000_000, 3_000_000, 4_000_000, 6_000_000], np.uint64),
        label=np.array([0, 1, UNSEEN, 0], np.int8),
        subject=np.array([6, 6, 7, 7], np.int16),
        labels=("pendulum", "row"),
    )


@pytest.fixture
def recordings(tmp_path: Path, recording: Recording) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    write_recording(folder / "imu_held_out.npz", recording)
    return folder


@pytest.fixture(scope="session")
def model() -> bytes:
    """Int8, (1, 8) to (1, 4): 1.5 kB that needs about 1.8 kB of arena."""
    rng = np.random.default_rng(1)
    layers: list[Layer] = [
        Dense(rng.normal(size=(8, 16)), rng.normal(size=16), relu=True),
        Dense(rng.normal(size=(16, 4)), rng.normal(size=4)),
        Softmax(),
    ]
    return build(layers, rng.normal(size=(100, 8)))
