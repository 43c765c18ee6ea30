"""Marks the attacks on a running site: they take many minutes and have a target of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

QUICK = frozenset({"test_broker_rules", "test_packets"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem not in QUICK:
            item.add_marker(pytest.mark.adversary)
