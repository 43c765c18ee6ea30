"""Bundle layout and the flush policy."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.model.packed import Packed, pack
from aif.protocol.bundle import BundlePolicy, Bundler, bundle_bytes, decode_bundle, encode_bundle
from aif.protocol.frame import Buffer

FRAME = 64 * 1024


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=100))
def test_round_trip_and_size(payloads: list[bytes]) -> None:
    plaintext = encode_bundle(payloads)
    assert list(decode_bundle(plaintext)) == payloads
    assert len(plaintext) == bundle_bytes(payloads) == 2 + 2 * len(payloads) + sum(map(len, payloads))


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda tail: b"\0\2" + tail)))
def test_any_bytes_are_a_bundle_or_malformed(plaintext: bytes) -> None:
    cause = ""
    payloads: Sequence[bytes] = ()
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


def test_the_first_message_of_a_turn_leaves_at_once_and_those_behind_it_together() -> None:
    bundler = Bundler(BundlePolicy(), FRAME)
    assert bundler.wait_ms(0) is None
    assert bundler.add(b"ping", 0) == [[b"ping"]]
    assert bundler.wait_ms(0) is None, "nothing waits, so nobody has to come back"
    assert bundler.add(b"1", 0.01) == []
    assert bundler.add(b"2", 0.02) == []
    assert bundler.wait_ms(0.02) == 0
    assert bundler.flush() == [[b"1", b"2"]]
    assert bundler.wait_ms(0.02) is None
    assert bundler.flush() == []
    assert bundler.add(b"3", 0.03) == [[b"3"]], "another turn"
    assert bundler.add(b"4", 0.08) == [[b"4"]], "too late for that turn"
    assert bundler.add(b"5", 0.10) == []
    assert bundler.add(b"6", 0.20) == [], "the turn lasts as long as something waits"
    assert bundler.flush() == [[b"5", b"6"]]


def turns(bundler: Bundler, count: int, *, pause_ms: float, begin_ms: float) -> list[float | None]:
    """That many turns of one message each; how long each of them waits."""
    waits = []
    for number in range(count):
        bundler.add(b"x", begin_ms + number * pause_ms)
        waits.append(bundler.wait_ms(begin_ms + number * pause_ms))
        bundler.flush()
    return waits


def test_only_a_stream_of_turns_makes_a_sender_wait_and_only_while_it_lasts() -> None:
    bundler = Bundler(BundlePolicy(), FRAME)
    assert turns(bundler, 40, pause_ms=0.125, begin_ms=0) == [None] * 40, "eight a ms"
    assert turns(bundler, 8, pause_ms=0.05, begin_ms=100) == [None] * 8
    for number in range(20):
        assert bundler.add(b"%d" % number, 100.4 + number * 0.03) == []
        assert bundler.wait_ms(100.4 + number * 0.03) == pytest.approx(1 - number * 0.03)
    assert bundler.add(b"late", 101.4) == [[*(b"%d" % number for number in range(20)), b"late"]]
    assert bundler.flush() == []
    assert bundler.add(b"still busy", 101.5) == []
    assert bundler.add(b"but not for long", 101.6) == []
    assert bundler.flush() == [[b"still busy", b"but not for long"]]
    assert turns(bundler, 8, pause_ms=0.05, begin_ms=102.6) == [None] * 8


def test_one_message_found_alone_makes_the_next_guess_harder() -> None:
    bundler = Bundler(BundlePolicy(), FRAME)
    assert turns(bundler, 100, pause_ms=0.01, begin_ms=0) == [
        *[None] * 8, 1.0, *[None] * 16, 1.0, *[None] * 32, 1.0, *[None] * 41
    ]  # fmt: skip


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


def test_without_bundling_every_message_leaves_at_once() -> None:
    bundler = Bundler(BundlePolicy(max_messages=1), FRAME)
    assert [bundler.add(b"x", 0) for _ in range(50)] == [[[b"x"]]] * 50
    assert bundler.wait_ms(0) is None


@given(
    st.lists(st.tuples(st.integers(0, 90), st.sampled_from([0.0, 0.1, 0.6, 1.0, 5.0])), max_size=200),
    st.integers(1, 9),
    st.integers(100, 300),
)
def test_nothing_is_lost_reordered_or_oversized(
    steps: list[tuple[int, float]], max_messages: int, frame_bytes: int
) -> None:
    bundler = Bundler(BundlePolicy(max_messages=max_messages, max_message_bytes=60), frame_bytes)
    now, due, sent = 0.0, None, list[Sequence[Buffer]]()
    messages = [bytes([i % 251]) * size for i, (size, _) in enumerate(steps)]
    for message, (_, pause) in zip(messages, steps, strict=True):
        now += pause
        if due is not None and due <= now:
            sent += bundler.flush()
        sent += bundler.add(message, now)
        wait_ms = bundler.wait_ms(now)
        assert wait_ms is None or 0 <= wait_ms <= 1
        due = None if wait_ms is None else now + wait_ms
    sent += bundler.flush()
    assert [message for batch in sent for message in batch] == messages
    for batch in sent:
        assert 1 <= len(batch) <= max_messages
        assert len(batch) == 1 or bundle_bytes(batch) <= frame_bytes - 90


@given(st.integers(1, 60), st.integers(0, 40), st.integers(0, 200))
def test_payloads_of_one_length_come_apart_as_any_others(count: int, size: int, cut: int) -> None:
    payloads = [bytes([n]) * size for n in range(count)]
    plaintext = encode_bundle(payloads)
    decoded = decode_bundle(plaintext)
    assert list(decoded) == payloads
    assert isinstance(decoded, Packed) == (size > 0)
    if size:
        side_by_side = pack(payloads)
        assert encode_bundle(side_by_side) == plaintext
        assert bundle_bytes(side_by_side) == len(plaintext)
    for wrong in (plaintext + b"x", plaintext[: cut % len(plaintext)]):
        with pytest.raises(RemoteProtocolError):
            decode_bundle(wrong)


@given(
    st.lists(st.lists(st.binary(max_size=40), max_size=12), max_size=8),
    st.lists(st.sampled_from([0.0, 0.4, 2.0]), min_size=8, max_size=8),
    st.integers(1, 5), st.integers(0, 120), st.integers(0, 50),
)  # fmt: skip
def test_messages_written_together_keep_order_and_limits(
    written: list[list[bytes]], pauses_ms: list[float], max_messages: int, max_bytes: int, longest: int
) -> None:
    policy = BundlePolicy(max_messages, 1.0, max_bytes, longest)
    bundler = Bundler(policy, 10_000)
    now_ms, batches = 0.0, list[Sequence[Buffer]]()
    for together, pause_ms in zip(written, pauses_ms, strict=False):
        now_ms += pause_ms
        wait_ms = bundler.wait_ms(now_ms)
        if wait_ms == 0.0 and pause_ms:
            batches += bundler.flush()
        batches += bundler.add_all(together, now_ms)
        wait_ms = bundler.wait_ms(now_ms)
        assert wait_ms is None or 0.0 <= wait_ms <= 1.0
    batches += bundler.flush()
    assert [payload for batch in batches for payload in batch] == [p for some in written for p in some]
    for batch in batches:
        assert batch
        assert len(batch) == 1 or (len(batch) <= max_messages and bundle_bytes(batch) <= max_bytes)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20), st.sampled_from([0.0, 0.4, 2.0])), max_size=8),
    st.integers(1, 5), st.integers(0, 120), st.integers(0, 50),
)  # fmt: skip
def test_messages_side_by_side_bundle_as_any_others(
    written: list[tuple[int, int, float]], max_messages: int, max_bytes: int, longest: int
) -> None:
    policy, now_ms = BundlePolicy(max_messages, 1.0, max_bytes, longest), 0.0
    plain, packed = Bundler(policy, 10_000), Bundler(policy, 10_000)
    for count, size, pause_ms in written:
        now_ms += pause_ms
        together = [bytes([n]) * size for n in range(count)]
        for expected, found in (
            (plain.flush(), packed.flush()) if pause_ms > 1.0 else ([], []),
            (plain.add_all(together, now_ms), packed.add_all(pack(together), now_ms)),
            (plain.add(b"one", now_ms), packed.add(b"one", now_ms)),
        ):
            assert list(map(list, found)) == list(map(list, expected))
    assert list(map(list, packed.flush())) == list(map(list, plain.flush()))


def test_small_batches_side_by_side_stay_so_in_a_larger_one() -> None:
    bundler = Bundler(BundlePolicy(8), FRAME)
    bundler.add(b"first", 0)
    assert bundler.add_all(pack([b"ab"] * 3), 0.01) == []
    assert bundler.add_all(pack([b"cd"] * 5), 0.02) == [pack([b"ab"] * 3 + [b"cd"] * 5)]
    bundler.add_all(pack([b"ab"] * 2), 0.03)
    bundler.add_all(pack([b"abc"] * 2), 0.04)
    bundler.add(b"x", 0.05)
    assert bundler.flush() == [[b"ab", b"ab", b"abc", b"abc", b"x"]]


def test_a_message_too_long_for_a_bundle_is_refused_side_by_side_too() -> None:
    with pytest.raises(LocalProtocolError, match="at most 65535 bytes"):
        encode_bundle(pack([bytes(65_536)] * 2))


def test_an_idle_channel_sends_all_that_was_written_together() -> None:
    bundler = Bundler(BundlePolicy(4, 1.0), 10_000)
    assert list(map(len, bundler.add_all([b"x"] * 10, 5.0))) == [4, 4, 2]
    assert bundler.wait_ms(5.0) is None
    assert list(map(len, bundler.add_all([b"x"] * 10, 5.04))) == [4, 4]
    assert bundler.wait_ms(5.2) == 0.0
    assert bundler.add_all([], 5.2) == []
    assert list(map(len, bundler.flush())) == [2]
    assert bundler.wait_ms(5.3) is None
