"""Bundle layout and the flush policy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.protocol.bundle import BundlePolicy, Bundler, bundle_bytes, decode_bundle, encode_bundle
from aif.protocol.frame import Buffer

FRAME = 64 * 1024


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=100))
def test_round_trip_and_size(payloads: list[bytes]) -> None:
    plaintext = encode_bundle(payloads)
    assert decode_bundle(plaintext) == payloads
    assert len(plaintext) == bundle_bytes(payloads) == 2 + 2 * len(payloads) + sum(map(len, payloads))


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda tail: b"\0\2" + tail)))
def test_any_bytes_are_a_bundle_or_malformed(plaintext: bytes) -> None:
    cause, payloads = "", list[bytes]()
    try:
        payloads = decode_bundle(plaintext)
    except RemoteProtocolError as error:
        cause = error.counter
    assert cause == "bundle.malformed" or encode_bundle(payloads) == plaintext


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\0",
        b"\0\0",  # n = 0
        b"\0\1",  # table missing
        b"\0\1\0",
        b"\0\1\0\2a",  # shorter than announced
        b"\0\1\0\2abc",  # longer than announced
        b"\4\1" + bytes(2 * 1025),  # n = 1 025, otherwise whole
    ],
)
def test_malformed_bundles_are_refused(plaintext: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_bundle(plaintext)
    assert caught.value.counter == "bundle.malformed"


def test_the_wire_limits_hold_for_the_sender_too() -> None:
    assert len(decode_bundle(encode_bundle([b""] * 1024))) == 1024
    for payloads in ([], [b""] * 1025, [bytes(65_536)]):
        with pytest.raises(LocalProtocolError):
            encode_bundle(payloads)


@pytest.mark.parametrize(
    "policy",
    [{"max_messages": 0}, {"max_messages": 1025}, {"max_message_bytes": 65_536}, {"max_bytes": -1},
     {"max_delay_ms": -1}],
)  # fmt: skip
def test_a_policy_outside_the_wire_limits_is_refused(policy: dict[str, int]) -> None:
    with pytest.raises(LocalProtocolError):
        BundlePolicy(**policy)


def test_an_idle_channel_sends_at_once_and_a_busy_one_collects() -> None:
    bundler = Bundler(BundlePolicy(), FRAME)
    assert bundler.add(b"ping", 0) == [[b"ping"]]
    assert bundler.due_ms() is None
    assert bundler.add(b"1", 0.25) == []
    assert bundler.add(b"2", 0.5) == []
    assert bundler.due_ms() == 1.25
    assert bundler.flush(1.25) == [[b"1", b"2"]]
    assert bundler.flush(1.25) == []
    assert bundler.add(b"3", 2.0) == []
    assert bundler.flush(3.0) == [[b"3"]]
    assert bundler.add(b"4", 4.0) == [[b"4"]]


def test_a_full_batch_leaves_without_waiting() -> None:
    bundler = Bundler(BundlePolicy(max_messages=3), FRAME)
    out = [bundler.add(bytes([i]), 0) for i in range(4)]
    assert out == [[[b"\0"]], [], [], [[b"\1", b"\2", b"\3"]]]


def test_a_large_message_flushes_what_waits_and_travels_alone() -> None:
    bundler = Bundler(BundlePolicy(max_message_bytes=10), FRAME)
    bundler.add(b"idle", 0)
    bundler.add(b"small", 0)
    assert bundler.add(b"x" * 11, 0) == [[b"small"], [b"x" * 11]]
    assert bundler.add(b"y" * 11, 0) == [[b"y" * 11]]


@given(
    st.lists(st.tuples(st.integers(0, 90), st.sampled_from([0.0, 0.1, 0.6, 1.0, 5.0])), max_size=200),
    st.integers(1, 9),
    st.integers(100, 300),
)
def test_nothing_is_lost_reordered_or_oversized(
    steps: list[tuple[int, float]], max_messages: int, frame_bytes: int
) -> None:
    bundler = Bundler(BundlePolicy(max_messages=max_messages, max_message_bytes=60), frame_bytes)
    now, sent = 0.0, list[list[Buffer]]()
    messages = [bytes([i % 251]) * size for i, (size, _) in enumerate(steps)]
    for message, (_, pause) in zip(messages, steps, strict=True):
        now += pause
        due = bundler.due_ms()
        if due is not None and due <= now:
            sent += bundler.flush(now)
        sent += bundler.add(message, now)
        due = bundler.due_ms()
        assert due is None or due > now
    sent += bundler.flush(now)
    assert [message for batch in sent for message in batch] == messages
    for batch in sent:
        assert 1 <= len(batch) <= max_messages
        assert len(batch) == 1 or bundle_bytes(batch) <= frame_bytes - 90
