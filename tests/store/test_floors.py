from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aif.errors import RollbackDetected, TrustError
from store.floors import Floors

versions = st.integers(0, 2**31)
floors = st.builds(
    Floors,
    versions,
    versions,
    versions,
    st.dictionaries(st.text(min_size=1, max_size=8), versions, max_size=4),
)
SEEN = Floors(1, 9, 5, {"targets": 2, "publisher.acme": 4})


@settings(deadline=None)
@given(floors)
def test_floors_survive_storage_as_json(value: Floors) -> None:
    assert Floors.from_document(json.loads(json.dumps(value.to_document()))) == value


def test_newer_or_equal_versions_become_the_new_floors() -> None:
    newer = Floors(1, 10, 6, {"targets": 2, "publisher.acme": 5, "publisher.new": 1})
    assert Floors().raised_to(SEEN) == SEEN
    assert SEEN.raised_to(SEEN) == SEEN
    assert SEEN.raised_to(newer) == newer


@pytest.mark.parametrize(
    ("change", "role"),
    [
        ({"root": 0}, "root"),
        ({"timestamp": 8}, "timestamp"),
        ({"snapshot": 4}, "snapshot"),
        ({"targets": {"targets": 1, "publisher.acme": 4}}, "targets"),
        ({"targets": {"targets": 2, "publisher.acme": 3}}, r"publisher\.acme"),
        ({"targets": {"targets": 2}}, r"publisher\.acme"),
    ],
)
def test_any_single_older_version_is_a_rollback(change: dict[str, object], role: str) -> None:
    offered = Floors.from_document(dataclasses.asdict(SEEN) | change)
    with pytest.raises(RollbackDetected, match=rf"of role {role}"):
        SEEN.raised_to(offered)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"root": 1, "timestamp": 1, "snapshot": 1},
        SEEN.to_document() | {"more": 1},
        SEEN.to_document() | {"root": -1},
        SEEN.to_document() | {"root": True},
        SEEN.to_document() | {"root": "1"},
        SEEN.to_document() | {"targets": [1]},
        SEEN.to_document() | {"targets": {"targets": 1.5}},
        SEEN.to_document() | {"targets": {1: 1}},
    ],
)
def test_damaged_floors_are_not_taken_for_none_seen(document: object) -> None:
    with pytest.raises(TrustError, match="damaged"):
        Floors.from_document(document)
