from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import RemoteProtocolError
from aif.model.packed import Packed, pack
from aif.protocol import message

U64 = (1 << 64) - 1


def test_the_layout() -> None:
    packed = message.pack(0x0102030405060708, 0x0102030405060708 + 5, b"record")
    assert packed.hex() == "0102030405060708" + "00000005" + b"record".hex()


@given(st.integers(0, U64), st.integers(0, message.MAX_AGE_US), st.binary(max_size=64))
def test_a_message_comes_back_as_it_was(origin_us: int, age_us: int, record: bytes) -> None:
    seen = message.unpack(message.pack(origin_us, origin_us + age_us, record))
    assert seen[:2] == (origin_us, origin_us + age_us)
    assert bytes(seen[2]) == record


@given(st.integers(), st.integers())
def test_no_time_breaks_the_header(origin_us: int, now_us: int) -> None:
    origin, sent, record = message.unpack(message.pack(origin_us, now_us, memoryview(b"x")))
    assert 0 <= origin <= U64
    assert 0 <= sent - origin <= message.MAX_AGE_US
    assert bytes(record) == b"x"


def test_a_record_from_the_future_has_no_age() -> None:
    assert message.unpack(message.pack(1000, 10, b""))[:2] == (1000, 1000)


@pytest.mark.parametrize("length", range(12))
def test_less_than_a_header_is_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"a message of {length} B is shorter than its header"):
        message.unpack(bytes(length))


def test_the_record_is_not_copied() -> None:
    payload = message.pack(1, 2, b"record")
    assert message.unpack(payload)[2].obj is payload


def test_neighbours_with_one_header_are_a_run() -> None:
    early, late = message.header(1000, 1005), message.header(2000, 2007)
    assert message.runs([]) == []
    assert message.runs([early + b"a", early + b"b"]) == [(1000, 1005, [early + b"a", early + b"b"])]
    assert message.runs([early + b"a", late, late + b"c", early]) == [
        (1000, 1005, [early + b"a"]), (2000, 2007, [late, late + b"c"]), (1000, 1005, [early]),
    ]  # fmt: skip
    with pytest.raises(RemoteProtocolError):
        message.runs([early + b"a", late[:-1]])
    with pytest.raises(RemoteProtocolError):
        message.runs([b"", b""])


@given(st.lists(st.tuples(st.integers(0, 1), st.binary(min_size=3, max_size=3)), min_size=2, max_size=9))
def test_messages_side_by_side_are_in_the_same_runs(made: list[tuple[int, bytes]]) -> None:
    headers = message.header(1000, 1005), message.header(1000, 1006)
    payloads = [headers[which] + record for which, record in made]
    found = [(origin, sent, list(run)) for origin, sent, run in message.runs(pack(payloads))]
    assert found == message.runs(payloads)


def test_messages_side_by_side_that_are_too_short_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="11 B is shorter"):
        message.runs(Packed(bytes(33), 11))
