"""Messages of one length, side by side: the same as a list of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.model.packed import Packed, pack

ALIKE = st.integers(1, 20).flatmap(
    lambda size: st.lists(st.binary(min_size=size, max_size=size), min_size=1, max_size=9)
)


@given(ALIKE, st.slices(9))
def test_they_are_a_sequence_of_bytes(messages: list[bytes], part: slice) -> None:
    packed = pack(messages)
    assert len(packed) == len(messages)
    assert list(packed) == messages
    assert [packed[at] for at in range(-len(messages), len(messages))] == messages * 2
    assert list(packed[part]) == messages[part]
    assert messages[-1] in packed
    for outside in (len(messages), -len(messages) - 1):
        with pytest.raises(IndexError):
            packed[outside]


def test_a_part_without_gaps_lies_side_by_side_again() -> None:
    packed = pack([b"ab", b"cd", b"ef"])
    assert packed[1:] == Packed(b"cdef", 2)
    assert packed[::2] == [b"ab", b"ef"]
    assert packed[:] == packed
    assert list(packed[2:1]) == []


def test_only_messages_of_one_length_pack_together() -> None:
    assert pack([b"ab"]) + pack([b"cd", b"ef"]) == Packed(b"abcdef", 2)
    with pytest.raises(ValueError, match="2 B and 3 B do not pack together"):
        pack([b"ab"]) + pack([b"abc"])


@given(ALIKE, st.integers(0, 20))
def test_whether_they_begin_alike(messages: list[bytes], lead_bytes: int) -> None:
    lead_bytes = min(lead_bytes, len(messages[0]))
    assert pack(messages).share(lead_bytes) == (len({one[:lead_bytes] for one in messages}) == 1)
