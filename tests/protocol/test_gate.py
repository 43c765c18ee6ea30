"""The gate: garbage takes nothing from anybody, and recordings never keep a fresh word out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import RemoteProtocolError
from aif.protocol.gate import FRESH, STALE, Budget, Gate, StampNumbers, TokenBucket
from aif.protocol.numbers import Cause
from aif.protocol.stamp import stamp

KEY, TOPIC = bytes(32), "aif/att/mcu-1/req"


def word(number: int) -> bytes:
    return stamp(KEY, TOPIC, b"word", number)


def passes(gate: Gate, data: bytes, now_ms: float = 0.0) -> bool:
    try:
        gate.admit(KEY, data, now_ms)
    except RemoteProtocolError as error:
        return error.counter not in {Cause.GATE_STAMP, Cause.GATE_RATE}
    return True


def test_garbage_takes_nothing_from_anybody() -> None:
    gate = Gate(TOPIC, fresh=FRESH)
    assert not any(passes(gate, number.to_bytes(60)) for number in range(10_000))
    assert gate.refused == {"gate.stamp": 10_000}
    assert all(passes(gate, word(number)) for number in range(1, FRESH.burst + 1))


def test_recordings_pass_rarely_and_never_keep_a_fresh_word_out() -> None:
    gate = Gate(TOPIC, fresh=FRESH, newest=1_000)
    passed = sum(passes(gate, word(number), now_ms=n) for n, number in enumerate([*range(1_000)] * 10))
    assert passed == STALE.burst + STALE.per_s * 9  # 10 s
    assert passes(gate, word(1_001), now_ms=9_999.0)
    assert not passes(gate, word(1_001), now_ms=9_999.0)  # the same once more is not new


def test_a_clock_that_was_set_back_is_heard_all_the_same() -> None:
    gate = Gate(TOPIC, fresh=FRESH, newest=10**15)
    assert passes(gate, word(5))


def test_the_holder_of_the_key_is_bounded_too() -> None:
    gate = Gate(TOPIC, fresh=Budget(per_s=2.0, burst=3))
    assert [passes(gate, word(n)) for n in range(1, 6)] == [True, True, True, False, False]
    assert [passes(gate, word(n), now_ms=1_000.0) for n in range(6, 9)] == [True, True, False]


def test_a_refused_word_is_still_new_when_it_is_sent_again() -> None:
    gate = Gate(TOPIC, fresh=Budget(per_s=1.0, burst=1))
    assert passes(gate, word(1))
    assert not passes(gate, word(2))
    assert passes(gate, word(2), now_ms=1_000.0)


@given(st.lists(st.floats(0.0, 500.0), max_size=200), st.floats(0.1, 50.0), st.integers(1, 20))
def test_no_more_passes_than_the_budget_says(pauses_ms: list[float], per_s: float, burst: int) -> None:
    bucket, now_ms, passed = TokenBucket(Budget(per_s, burst)), 0.0, 0
    for pause in pauses_ms:
        now_ms += pause
        passed += bucket.take(now_ms)
    assert passed <= burst + per_s * now_ms / 1000.0 + 1e-6


def test_time_that_goes_back_earns_nothing() -> None:
    bucket = TokenBucket(Budget(per_s=1.0, burst=1))
    assert bucket.take(5_000.0)
    assert not bucket.take(1_000.0)


@given(st.lists(st.integers(0, 2**40), min_size=1))
def test_numbers_grow_whatever_the_clock_does(times: list[int]) -> None:
    numbers = StampNumbers()
    found = [numbers.next(time_us) for time_us in times]
    assert found == sorted(set(found))


def test_another_key_has_no_way_through() -> None:
    gate = Gate(TOPIC, fresh=FRESH)
    with pytest.raises(RemoteProtocolError):
        gate.admit(bytes([1] * 32), word(1), 0.0)
