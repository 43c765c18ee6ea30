"""Both ends of a channel: what is delivered, and under which name everything else is dropped."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from aif.errors import LocalProtocolError
from aif.protocol.aif1 import (
    HOST_LIMITS,
    MCU_LIMITS,
    AuthMode,
    BundlePolicy,
    Bundler,
    Cause,
    ChannelReceiver,
    ChannelSender,
    CloneSuspected,
    ControlCode,
    ControlReceived,
    LossReport,
    RosterSender,
)
from aif.protocol.frame import FrameSealer
from aif.protocol.numbers import FrameType

CHANNEL = b"channel-id-of-16"
SEED = b"\x05" * 32
VERIFY_KEY = bytes(SigningKey(SEED).verify_key)
MODES = pytest.mark.parametrize("mode", list(AuthMode))


def key_of(sender: int, epoch: int = 1) -> bytes:
    return bytes([sender, epoch]) * 16


def make_sender(
    mode: AuthMode,
    *,
    sender: int = 7,
    epoch: int = 1,
    max_frame_bytes: int = 65_536,
    max_frames: int = 1 << 20,
) -> ChannelSender:
    return ChannelSender(
        CHANNEL,
        epoch,
        sender,
        key_of(sender, epoch),
        mode,
        sign_key=SEED,
        max_frames=max_frames,
        max_frame_bytes=max_frame_bytes,
    )


def row(sender: int = 7, epoch: int = 1) -> RosterSender:
    return RosterSender(sender, key_of(sender, epoch), VERIFY_KEY)


def make_receiver(mode: AuthMode, *senders: int, max_frame_bytes: int = 65_536) -> ChannelReceiver:
    receiver = ChannelReceiver(CHANNEL, mode, limits=replace(HOST_LIMITS, max_frame_bytes=max_frame_bytes))
    receiver.install_epoch(1, [row(sender) for sender in senders or (7,)], now_ms=0)
    return receiver


def raw_sealer(*, epoch: int = 1, sender: int = 7, channel: bytes = CHANNEL) -> FrameSealer:
    """A member that holds the keys but does not keep the rules."""
    return FrameSealer(channel, epoch, sender, key_of(sender, epoch), SEED)


def causes(receiver: ChannelReceiver) -> dict[str, int]:
    return {str(cause): count for cause, count in receiver.statistics().causes.items()}


# --- what arrives ---------------------------------------------------------------------------------


@MODES
def test_every_kind_of_traffic_arrives_in_order(mode: AuthMode) -> None:
    sender, receiver = make_sender(mode, max_frame_bytes=400), make_receiver(mode, max_frame_bytes=400)
    big = random.Random(1).randbytes(5_000)
    frames = [
        sender.seal(b""),
        sender.seal(memoryview(b"view")),
        sender.seal_bundle([b"a", bytearray(b"bc"), b""]),
        sender.seal_control(ControlCode.PORT_RESET, b"\xa0"),
        *sender.seal_fragments(big),
        sender.seal_watermark(),
        sender.seal(b"last"),
        sender.seal_watermark(final=True),
    ]
    assert all(len(frame) <= 400 for frame in frames)
    got = [message for frame in frames for message in receiver.receive(memoryview(frame), now_ms=5)]
    assert got == [b"", b"view", b"a", b"bc", b"", big, b"last"]
    assert receiver.poll(6) == [ControlReceived(CHANNEL, 7, 1, ControlCode.PORT_RESET, b"\xa0")]
    statistics = receiver.statistics()
    assert statistics.verified_frames == sender.frames == len(frames)
    assert statistics.delivered_messages == sender.messages == 7
    assert statistics.causes == {}
    assert receiver.poll(100_000) == [], "after the final watermark there is nothing to report"


@MODES
def test_batches_of_the_bundler_use_the_fitting_frames(mode: AuthMode) -> None:
    sender, receiver = make_sender(mode, max_frame_bytes=1_000), make_receiver(mode, max_frame_bytes=1_000)
    bundler = Bundler(BundlePolicy(max_messages=4, max_message_bytes=500), 1_000)
    messages = [bytes([i]) * size for i, size in enumerate([5, 6, 7, 3_000, 8, 9, 10, 11, 600])]
    batches = [batch for message in messages for batch in bundler.add(message, 0)] + bundler.flush()
    frames = [frame for batch in batches for frame in sender.seal_batch(batch)]
    assert [m for frame in frames for m in receiver.receive(frame, now_ms=1)] == messages
    assert len(frames) < len(messages) + 3
    assert sender.seal_batch([]) == []


@MODES
def test_one_modified_message_in_a_stream_is_the_only_one_missing(mode: AuthMode) -> None:
    sender, receiver = make_sender(mode), make_receiver(mode)
    frames = [sender.seal(bytes([i])) for i in range(9)]
    frames[4] = frames[4][:10] + bytes([frames[4][10] ^ 1]) + frames[4][11:]
    got = [m for frame in frames for m in receiver.receive(frame, now_ms=0)]
    assert got == [bytes([i]) for i in range(9) if i != 4]
    assert causes(receiver) == {"frame.tag": 1}
    assert receiver.statistics().provisional_gap_frames == 1


# --- the order of checks --------------------------------------------------------------------------


def test_each_cheap_check_has_its_own_name_and_comes_in_its_order() -> None:
    sender = make_sender(AuthMode.AEAD)
    receiver = make_receiver(AuthMode.AEAD, max_frame_bytes=200)
    frame = sender.seal(b"payload")
    long = b"\x10\1\0\7" + bytes(300)

    def refused(data: bytes, *, retained: bool = False) -> str:
        before = causes(receiver)
        assert receiver.receive(data, now_ms=0, retained=retained) == []
        after = causes(receiver)
        (name,) = [cause for cause in after if after[cause] != before.get(cause, 0)]
        return name

    assert refused(b"", retained=True) == "frame.retained"
    assert refused(frame, retained=True) == "frame.retained"
    assert refused(b"") == "frame.short"
    assert refused(b"\xff") == "frame.short"
    assert refused(b"\xff" * 25) == "frame.short"
    assert refused(b"\x11\1\0\7" + bytes(85)) == "frame.short", "a signed type needs 90 bytes in any mode"
    assert refused(b"\xff" + long) == "frame.size"
    assert refused(raw_sealer().seal(FrameType.DATA, 0, bytes(175))) == "frame.size"
    assert refused(b"\x20" + frame[1:]) == "frame.version"
    assert refused(b"\x1a" + frame[1:]) == "frame.type"
    assert refused(b"\x11\1\0\7" + bytes(86)) == "frame.mode"
    assert refused(b"\x10\xfe" + frame[2:]) == "frame.epoch"
    assert refused(frame[:-1] + b"\0") == "frame.tag"
    assert receiver.receive(frame, now_ms=0) == [b"payload"]
    assert refused(frame) == "dup.redelivery"
    assert refused(raw_sealer().seal(FrameType.DATA, 0, b"another")) == "replay.window"
    assert receiver.receive(raw_sealer().seal(FrameType.DATA, 100, b"jump"), now_ms=0) == [b"jump"]
    assert refused(raw_sealer().seal(FrameType.DATA, 36, b"old")) == "replay.stale"
    assert receiver.receive(raw_sealer().seal(FrameType.DATA, 37, b"edge"), now_ms=0) == [b"edge"]
    assert receiver.statistics().rejected_frames == 15


def test_a_forged_frame_changes_no_state() -> None:
    sender, receiver = make_sender(AuthMode.SIGNED), make_receiver(AuthMode.SIGNED)
    genuine = sender.seal(b"genuine")
    # a consumer knows the AEAD key but not the sign key
    forger = FrameSealer(CHANNEL, 1, 7, key_of(7), b"\x66" * 32)
    for counter in (0, 2**48 - 2):
        body = forger.seal(FrameType.DATA_SIGNED, counter, b"forged")
        assert receiver.receive(body + forger.signature(body), now_ms=0) == []
    assert causes(receiver) == {"frame.signature": 2}
    assert receiver.receive(genuine, now_ms=0) == [b"genuine"], "neither counter nor window was consumed"


def test_unsigned_data_is_refused_where_signatures_are_required() -> None:
    receiver = make_receiver(AuthMode.SIGNED)
    for kind in (FrameType.DATA, FrameType.BUNDLE, FrameType.WATERMARK, FrameType.CONTROL):
        assert receiver.receive(raw_sealer().seal(kind, 0, b"\0\1\0\1x"), now_ms=0) == []
    assert causes(receiver) == {"frame.mode": 4}


def test_frames_moved_to_another_channel_sender_or_epoch_do_not_open() -> None:
    frame = make_sender(AuthMode.AEAD).seal(b"x")
    elsewhere = ChannelReceiver(b"another-channel!", AuthMode.AEAD)
    elsewhere.install_epoch(1, [row()], now_ms=0)
    assert elsewhere.receive(frame, now_ms=0) == []
    assert causes(elsewhere) == {"frame.tag": 1}

    receiver = make_receiver(AuthMode.AEAD, 7, 8)
    receiver.install_epoch(2, [row(epoch=2), row(8, 2)], now_ms=0)
    for moved in (frame[:2] + b"\0\x08" + frame[4:], frame[:1] + b"\2" + frame[2:]):
        assert receiver.receive(moved, now_ms=0) == []
    assert causes(receiver) == {"frame.tag": 2}
    assert receiver.receive(frame, now_ms=0) == [b"x"]


def test_senders_do_not_share_a_window() -> None:
    receiver = make_receiver(AuthMode.AEAD, 7, 8)
    for index in (7, 8):
        assert receiver.receive(make_sender(AuthMode.AEAD, sender=index).seal(b"x"), now_ms=0) == [b"x"]


def test_a_second_frame_under_one_counter_raises_one_alarm() -> None:
    receiver = make_receiver(AuthMode.AEAD)
    for text in (b"original", b"clone", b"clone of clone"):
        receiver.receive(make_sender(AuthMode.AEAD).seal(text), now_ms=0)
    assert receiver.poll(0) == [CloneSuspected(CHANNEL, 7, 1, 0)]
    assert causes(receiver) == {"replay.window": 2}


# --- plaintexts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "plaintext", "cause"),
    [
        (FrameType.BUNDLE, b"\0\0", "bundle.malformed"),
        (FrameType.CONTROL, b"", "frame.type"),
        (FrameType.CONTROL, b"\4\xa0", "frame.type"),
        (FrameType.CONTROL, b"\1" + bytes(257), "frame.type"),
        (FrameType.WATERMARK, b"\0" * 16, "frame.type"),
        (FrameType.FRAGMENT, b"\0" * 11, "fragment.size"),
    ],
)
def test_a_malformed_plaintext_consumes_its_counter(kind: FrameType, plaintext: bytes, cause: str) -> None:
    receiver = make_receiver(AuthMode.AEAD)
    frame = raw_sealer().seal(kind, 0, plaintext)
    assert receiver.receive(frame, now_ms=0) == []
    assert receiver.receive(frame, now_ms=0) == []
    assert causes(receiver) == {cause: 1, "dup.redelivery": 1}
    assert receiver.poll(0) == []


@MODES
def test_fragments_arrive_in_any_order_and_once(mode: AuthMode) -> None:
    message = random.Random(2).randbytes(1_000)
    for seed in range(20):
        sender, receiver = make_sender(mode, max_frame_bytes=250), make_receiver(mode)
        frames = sender.seal_fragments(message)
        random.Random(seed).shuffle(frames)
        got = [receiver.receive(frame, now_ms=0) for frame in [*frames, *frames]]
        assert [m for messages in got for m in messages] == [message]
        assert len(got[len(frames) - 1]) == 1, "delivered with the last missing piece, not before"
        assert causes(receiver) == {"dup.redelivery": len(frames)}


def test_a_fragment_forged_by_a_member_costs_the_genuine_message_nothing() -> None:
    """It comes first, under the counter, message id and index of a genuine piece."""
    sender, receiver = make_sender(AuthMode.SIGNED, max_frame_bytes=250), make_receiver(AuthMode.SIGNED)
    frames = sender.seal_fragments(bytes(400))
    assert {frame[0] & 15 for frame in frames} == {FrameType.FRAGMENT_SIGNED}
    head = b"\0\0\0\0" + b"\0\0" + len(frames).to_bytes(2, "big") + (400).to_bytes(4, "big")
    forger = FrameSealer(CHANNEL, 1, 7, key_of(7), b"\x66" * 32)
    unsigned = forger.seal(FrameType.FRAGMENT, 0, head + b"\xff" * 100)
    body = forger.seal(FrameType.FRAGMENT_SIGNED, 0, head + b"\xff" * 100)
    frames[:0] = [unsigned, body + forger.signature(body)]
    assert [m for frame in frames for m in receiver.receive(frame, now_ms=0)] == [bytes(400)]
    assert causes(receiver) == {"frame.mode": 1, "frame.signature": 1}


def test_partial_messages_are_capped_and_expire() -> None:
    sender, receiver = make_sender(AuthMode.AEAD, max_frame_bytes=250), make_receiver(AuthMode.AEAD)
    firsts = [sender.seal_fragments(bytes(300))[0] for _ in range(9)]
    assert [m for frame in firsts for m in receiver.receive(frame, now_ms=0)] == []
    assert causes(receiver) == {"fragment.size": 1}
    receiver.poll(5_000)
    assert causes(receiver)["fragment.timeout"] == 8
    small = ChannelReceiver(CHANNEL, AuthMode.AEAD, limits=MCU_LIMITS)
    small.install_epoch(1, [row()], now_ms=0)
    large = make_sender(AuthMode.AEAD, max_frame_bytes=4_096).seal_fragments(bytes(16 * 1024 + 1))
    assert [m for frame in large for m in small.receive(frame, now_ms=0)] == []
    assert causes(small) == {"fragment.size": len(large)}


# --- epochs and senders ---------------------------------------------------------------------------


def test_frames_wait_for_their_epoch_or_sender_and_are_delivered_once() -> None:
    receiver = ChannelReceiver(CHANNEL, AuthMode.AEAD)
    first = make_sender(AuthMode.AEAD).seal(b"before any roster")
    assert receiver.receive(first, now_ms=0) == []
    assert receiver.install_epoch(1, [row()], now_ms=999) == [b"before any roster"]
    new_sender = make_sender(AuthMode.AEAD, sender=9).seal(b"new sender")
    assert receiver.receive(new_sender, now_ms=1_000) == []
    assert receiver.install_epoch(1, [row(), row(9)], now_ms=1_100) == [b"new sender"]
    next_epoch = make_sender(AuthMode.AEAD, epoch=2).seal(b"next epoch")
    assert receiver.receive(next_epoch, now_ms=2_000) == []
    assert receiver.install_epoch(2, [row(epoch=2)], now_ms=2_100) == [b"next epoch"]
    assert causes(receiver) == {}
    for frame in (first, new_sender, next_epoch):
        assert receiver.receive(frame, now_ms=2_200) == []
    assert causes(receiver) == {"dup.redelivery": 3}


def test_waiting_is_bounded_in_time_number_and_bytes() -> None:
    receiver = make_receiver(AuthMode.AEAD)
    frame = make_sender(AuthMode.AEAD, sender=9).seal(b"x")
    for _ in range(70):
        receiver.receive(frame, now_ms=0)
    assert causes(receiver) == {"frame.sender": 6}
    assert receiver.install_epoch(1, [row(9)], now_ms=1_000) == [], "too late"
    assert causes(receiver) == {"frame.sender": 70}

    receiver = make_receiver(AuthMode.AEAD)
    big = make_sender(AuthMode.AEAD, epoch=2).seal(bytes(40_000))
    for _ in range(2):
        receiver.receive(big, now_ms=0)
    assert causes(receiver) == {"frame.epoch": 1}
    receiver.poll(1_000)
    assert causes(receiver) == {"frame.epoch": 2}
    # a roster that does not explain a frame does not prolong its life
    receiver.receive(big, now_ms=1_000)
    assert causes(receiver) == {"frame.epoch": 2}, "there is room again"
    receiver.install_epoch(1, [row(8)], now_ms=1_900)
    receiver.poll(2_000)
    assert causes(receiver) == {"frame.epoch": 3}


def test_the_previous_epoch_lives_thirty_seconds_and_the_one_before_not() -> None:
    receiver = make_receiver(AuthMode.AEAD)
    old = make_sender(AuthMode.AEAD)
    receiver.install_epoch(2, [row(epoch=2)], now_ms=1_000)
    receiver.receive(make_sender(AuthMode.AEAD, sender=9).seal(b"x"), now_ms=1_000)
    assert causes(receiver) == {"frame.sender": 1}, (
        "the roster of a past epoch is closed: nothing waits for it"
    )
    assert receiver.receive(old.seal(b"late"), now_ms=30_999) == [b"late"]
    receiver.poll(31_000)
    assert receiver.receive(old.seal(b"too late"), now_ms=31_000) == []
    assert causes(receiver)["frame.epoch"] == 1
    receiver.install_epoch(3, [row(epoch=3)], now_ms=31_000)
    receiver.install_epoch(4, [row(epoch=4)], now_ms=31_001)
    assert receiver.receive(make_sender(AuthMode.AEAD, epoch=2).seal(b"x"), now_ms=31_002) == []
    assert receiver.receive(make_sender(AuthMode.AEAD, epoch=3).seal(b"y"), now_ms=31_002) == [b"y"]


def test_epochs_the_header_cannot_tell_apart_never_live_together() -> None:
    receiver = make_receiver(AuthMode.AEAD, 7, 8)
    receiver.install_epoch(257, [RosterSender(7, key_of(7, 99))], now_ms=0)
    for index in (7, 8):
        old = make_sender(AuthMode.AEAD, sender=index).seal(b"old")
        assert receiver.receive(old, now_ms=0) == []
    fresh = ChannelSender(CHANNEL, 257, 7, key_of(7, 99), AuthMode.AEAD)
    assert receiver.receive(fresh.seal(b"new"), now_ms=0) == [b"new"]


def test_a_repeated_roster_never_resets_a_window() -> None:
    receiver = make_receiver(AuthMode.AEAD)
    frame = make_sender(AuthMode.AEAD).seal(b"x")
    receiver.receive(frame, now_ms=0)
    receiver.install_epoch(1, [row(), row(8)], now_ms=1)
    assert receiver.receive(frame, now_ms=2) == []
    assert causes(receiver) == {"dup.redelivery": 1}
    with pytest.raises(LocalProtocolError, match="another key"):
        receiver.install_epoch(1, [RosterSender(7, bytes(32), VERIFY_KEY)], now_ms=2)
    with pytest.raises(LocalProtocolError, match="older"):
        receiver.install_epoch(0, [row()], now_ms=2)


def test_rosters_are_checked() -> None:
    receiver = ChannelReceiver(CHANNEL, AuthMode.SIGNED)
    with pytest.raises(LocalProtocolError, match="verify key"):
        receiver.install_epoch(1, [RosterSender(7, bytes(32))], now_ms=0)
    with pytest.raises(LocalProtocolError, match="at most 256"):
        receiver.install_epoch(1, [row(i % 256, 1 + i // 256) for i in range(256)] + [
            RosterSender(256, bytes(32), VERIFY_KEY)
        ], now_ms=0)  # fmt: skip


def test_what_a_dead_sender_left_half_sent_is_given_up() -> None:
    receiver = make_receiver(AuthMode.AEAD)
    receiver.receive(make_sender(AuthMode.AEAD, max_frame_bytes=250).seal_fragments(bytes(300))[0], now_ms=0)
    receiver.retire_sender(7, now_ms=0, at_once=True)
    assert causes(receiver) == {"fragment.timeout": 1, "loss.tail": 1}


def test_events_that_nobody_fetches_are_bounded_and_the_dropped_ones_counted() -> None:
    sender, receiver = make_sender(AuthMode.AEAD), make_receiver(AuthMode.AEAD)
    for number in range(1_030):
        receiver.receive(sender.seal_control(ControlCode.PORT_RESET, number.to_bytes(2, "big")), now_ms=0)
    events = receiver.poll(0)
    assert len(events) == 1_024
    assert events[0] == ControlReceived(CHANNEL, 7, 1, ControlCode.PORT_RESET, b"\0\6")
    assert receiver.statistics().dropped_events == 6


def test_a_dead_sender_is_refused_at_once_and_a_leaving_one_after_its_grace() -> None:
    receiver = make_receiver(AuthMode.AEAD, 7, 8)
    seven, eight = make_sender(AuthMode.AEAD), make_sender(AuthMode.AEAD, sender=8)
    receiver.receive(seven.seal(b"x"), now_ms=0)
    receiver.retire_sender(7, now_ms=10, at_once=True)
    receiver.retire_sender(8, now_ms=10)
    assert receiver.receive(seven.seal(b"y"), now_ms=11) == []
    assert causes(receiver)["frame.sender"] == 1
    assert receiver.poll(11) == [LossReport(CHANNEL, 7, 1, 0, 0, 0, None, Cause.LOSS_TAIL)]
    assert receiver.receive(eight.seal(b"bye"), now_ms=2_009) == [b"bye"]
    receiver.receive(eight.seal_watermark(final=True), now_ms=2_009)
    assert receiver.poll(2_009) == [], "reconciled: nothing lost"
    assert receiver.receive(eight.seal(b"after final"), now_ms=2_009) == []


# --- the sending end ------------------------------------------------------------------------------


@MODES
def test_a_grant_ends_after_its_frames_and_no_counter_repeats(mode: AuthMode) -> None:
    sender = make_sender(mode, max_frames=4, max_frame_bytes=250)
    counters = [sender.seal(b"x")[4:10], sender.seal_watermark()[4:10], sender.seal_bundle([b"a"])[4:10]]
    with pytest.raises(LocalProtocolError, match=r"grant\.exhausted"):
        sender.seal_fragments(bytes(1_000))
    assert sender.remaining_frames == 1, "a message that does not fit takes no counter"
    counters.append(sender.seal(b"y")[4:10])
    assert [int.from_bytes(counter, "big") for counter in counters] == [0, 1, 2, 3]
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match=r"grant\.exhausted"):
            sender.seal(b"z")
    assert sender.messages == 3


def test_the_sender_refuses_what_no_receiver_would_take() -> None:
    sender = make_sender(AuthMode.SIGNED, max_frame_bytes=200)
    assert len(sender.seal(bytes(110))) == 200
    for refused in (
        lambda: sender.seal(bytes(111)),
        lambda: sender.seal_bundle([bytes(60), bytes(60)]),
        lambda: sender.seal_fragments(bytes(4 * 1024 * 1024 + 1)),
        lambda: sender.seal_control(ControlCode.EPOCH_SWITCH, bytes(257)),
        lambda: make_sender(AuthMode.AEAD, max_frame_bytes=100),
        lambda: ChannelSender(CHANNEL, 1, 7, key_of(7), AuthMode.CHECKPOINT),
        lambda: ChannelSender(CHANNEL, 1 << 32, 7, key_of(7), AuthMode.AEAD),
        lambda: ChannelSender(CHANNEL[1:], 1, 7, key_of(7), AuthMode.AEAD),
    ):
        with pytest.raises(LocalProtocolError):
            refused()
    assert sender.frames == 1


# --- hostile input --------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.sampled_from(list(AuthMode)),
    st.lists(
        st.binary(max_size=200)
        | st.tuples(st.integers(0, 255), st.binary(min_size=6, max_size=200)).map(
            lambda parts: bytes([parts[0]]) + b"\1\0\7" + parts[1]
        ),
        max_size=20,
    ),
)
def test_random_bytes_never_raise_and_never_deliver(mode: AuthMode, frames: list[bytes]) -> None:
    receiver = make_receiver(mode)
    for frame in frames:
        assert receiver.receive(frame, now_ms=0) == []
    receiver.poll(1_000)
    statistics = receiver.statistics()
    assert statistics.verified_frames == 0
    assert statistics.rejected_frames == len(frames)


@settings(deadline=None)
@given(
    st.sampled_from(list(AuthMode)),
    st.lists(
        st.tuples(
            st.sampled_from(list(FrameType)),
            st.integers(0, 200) | st.just(2**48 - 1),
            st.binary(max_size=60),
            st.integers(0, 3_000),
        ),
        max_size=30,
    ),
)
def test_a_member_sending_nonsense_never_raises(
    mode: AuthMode, steps: list[tuple[FrameType, int, bytes, int]]
) -> None:
    """Authenticated plaintexts are as untrusted as the rest: only one counter may be used once."""
    receiver, sealer = make_receiver(mode), raw_sealer()
    now, used = 0, set[int]()
    for kind, counter, plaintext, pause in steps:
        now += pause
        body = sealer.seal(kind, counter, plaintext)
        signed = kind in {1, 6, 7, 8, 9}
        before = receiver.statistics().verified_frames
        receiver.receive(body + sealer.signature(body) if signed else body, now_ms=now)
        if receiver.statistics().verified_frames > before:
            assert counter not in used
            used.add(counter)
        receiver.poll(now)
