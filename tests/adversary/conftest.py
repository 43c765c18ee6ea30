"""Marks the attacks on a running site, which take many minutes, and lets tests say what they tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adversary.count import PROPERTY

QUICK = frozenset({"test_broker_rules", "test_packets", "test_count"})

Report = Callable[..., None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem not in QUICK:
            item.add_marker(pytest.mark.adversary)


@pytest.fixture
def attacks(record_property: Callable[[str, object], None]) -> Report:
    """``attacks(kind, tried, refused)``: what this test tried; all of it refused unless it says otherwise."""

    def report(kind: str, tried: int, refused: int | None = None) -> None:
        record_property(PROPERTY, (kind, tried, tried if refused is None else refused))

    return report
