"""Watermark layout, hash chain and schedule."""

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import RemoteProtocolError
from aif.protocol.numbers import AuthMode
from aif.protocol.watermark import Watermark, WatermarkSchedule, chain_link, chain_start, decode_watermark


@given(
    first=st.integers(0, 2**47),
    count=st.integers(0, 2**32 - 1),
    messages=st.integers(0, 2**48 - 1),
    final=st.booleans(),
    chain=st.none() | st.binary(min_size=32, max_size=32),
)
def test_round_trip(first: int, count: int, messages: int, final: bool, chain: bytes | None) -> None:
    mark = Watermark(first, count, messages, final, chain)
    plaintext = mark.encode()
    assert len(plaintext) == (17 if chain is None else 49)
    mode = AuthMode.AEAD if chain is None else AuthMode.CHECKPOINT
    assert decode_watermark(plaintext, counter=first + count, mode=mode) == mark


GOOD = Watermark(5, 3, 9).encode()
HASHED = Watermark(5, 3, 9, hash=bytes(32)).encode()


@pytest.mark.parametrize(
    ("plaintext", "counter", "mode"),
    [
        (GOOD, 9, AuthMode.AEAD),  # does not end at its own counter
        (GOOD[:-1], 8, AuthMode.AEAD),
        (GOOD + b"\0", 8, AuthMode.AEAD),
        (b"", 0, AuthMode.AEAD),
        (b"\4" + GOOD[1:], 8, AuthMode.AEAD),  # unknown flag
        (b"\2" + GOOD[1:], 8, AuthMode.AEAD),  # hash announced, absent
        (GOOD, 8, AuthMode.CHECKPOINT),  # hash missing
        (HASHED, 8, AuthMode.SIGNED),  # hash unexpected
        (b"\0" + HASHED[1:], 8, AuthMode.CHECKPOINT),  # hash present, not announced
    ],
)
def test_a_malformed_watermark_is_refused(plaintext: bytes, counter: int, mode: AuthMode) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_watermark(plaintext, counter=counter, mode=mode)
    assert caught.value.counter == "frame.type"


def test_the_hash_chain_is_the_one_of_the_format() -> None:
    channel, first, second = b"c" * 16, b"1" * 32, b"2" * 32
    start = blake2b(b"AIF1-WM" + channel + b"\0\7" + b"\0\0\1\2", digest_size=32).digest()
    assert chain_start(channel, 7, 258) == start
    link = blake2b(b"AIF1-WM" + start + first + second, digest_size=32).digest()
    assert chain_link(start, [first, second]) == link


def test_a_watermark_is_due_after_a_second_of_traffic_or_ten_idle() -> None:
    schedule = WatermarkSchedule(500)
    assert schedule.due_ms(0) == 10_500
    assert schedule.due_ms(1) == 1_500
    schedule.sent(2_000)
    assert schedule.due_ms(0) == 12_000
