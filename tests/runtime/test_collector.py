"""Messages do not set off the garbage collector in processes that handle them."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from aif.runtime.processes import collect_rarely


@pytest.fixture
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


def test_the_largest_bundle_is_too_small_to_be_noticed(thresholds: tuple[int, int, int]) -> None:
    collect_rarely()
    gc.collect()
    before = gc.get_stats()[0]["collections"]
    records = [(number, memoryview(b"data")) for number in range(1_024)]
    assert gc.get_stats()[0]["collections"] == before
    assert len(records) == 1_024
    assert gc.get_threshold()[1:] == thresholds[1:]  # cycles are still found
