"""Losses are found and counted, silence is noticed, checkpoints catch what is not the producer's."""

from collections.abc import Iterable

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from aif.protocol.aif1 import (
    AuthFailure,
    AuthMode,
    Cause,
    ChannelEvent,
    ChannelReceiver,
    ChannelSender,
    ChannelSilent,
    ControlCode,
    ControlReceived,
    LossReport,
    RosterSender,
)
from aif.protocol.frame import FrameSealer
from aif.protocol.numbers import FrameType
from aif.protocol.watermark import Watermark

CHANNEL = b"channel-id-of-16"
KEY = b"\x07" * 32
SEED = b"\x05" * 32
VERIFY_KEY = bytes(SigningKey(SEED).verify_key)
GRACE_MS = 2_000
MODES = pytest.mark.parametrize("mode", list(AuthMode))


def pair(mode: AuthMode) -> tuple[ChannelSender, ChannelReceiver]:
    receiver = ChannelReceiver(CHANNEL, mode)
    receiver.install_epoch(1, [RosterSender(7, KEY, VERIFY_KEY)], now_ms=0)
    return ChannelSender(CHANNEL, 1, 7, KEY, mode, sign_key=SEED), receiver


def feed(receiver: ChannelReceiver, frames: Iterable[bytes], now_ms: float = 0) -> list[bytes]:
    return [message for frame in frames for message in receiver.receive(frame, now_ms=now_ms)]


def losses(events: Iterable[ChannelEvent]) -> list[LossReport]:
    return [event for event in events if isinstance(event, LossReport)]


def loss(first: int, last: int, frames: int, messages: int | None, reason: Cause) -> LossReport:
    return LossReport(CHANNEL, 7, 1, first, last, frames, messages, reason)


@MODES
def test_a_gap_is_reported_after_the_grace_with_its_messages(mode: AuthMode) -> None:
    sender, receiver = pair(mode)
    frames = [
        sender.seal(b"0"),
        sender.seal_bundle([b"1", b"2", b"3"]),
        sender.seal(b"4"),
        sender.seal_watermark(),
    ]
    feed(receiver, [frames[0], *frames[2:]])
    assert receiver.statistics().provisional_gap_frames == 1
    assert receiver.poll(GRACE_MS - 1) == []
    assert losses(receiver.poll(GRACE_MS)) == [loss(0, 2, 1, 3, Cause.LOSS_GAP)]
    assert receiver.statistics().lost_messages == 3
    assert receiver.statistics().provisional_gap_frames == 0
    assert losses(receiver.poll(2 * GRACE_MS)) == []


@MODES
def test_a_dropped_tail_is_reported_as_such(mode: AuthMode) -> None:
    sender, receiver = pair(mode)
    frames = [sender.seal(bytes([i])) for i in range(5)] + [sender.seal_watermark(final=True)]
    feed(receiver, [*frames[:2], frames[5]])
    assert losses(receiver.poll(GRACE_MS)) == [loss(2, 4, 3, 3, Cause.LOSS_TAIL)]
    statistics = receiver.statistics()
    assert (statistics.lost_frames, statistics.lost_messages) == (3, 3)
    assert statistics.causes[Cause.LOSS_TAIL] == 1


@MODES
def test_everything_dropped_but_the_watermark_is_a_tail(mode: AuthMode) -> None:
    sender, receiver = pair(mode)
    for i in range(200):
        sender.seal(bytes([i]))
    feed(receiver, [sender.seal_watermark()])
    assert losses(receiver.poll(GRACE_MS)) == [loss(0, 199, 200, 200, Cause.LOSS_TAIL)]


@MODES
def test_frames_that_come_within_the_grace_are_no_loss(mode: AuthMode) -> None:
    sender, receiver = pair(mode)
    frames = [sender.seal(bytes([i])) for i in range(4)]
    mark = sender.seal_watermark()
    assert feed(receiver, [frames[3], mark, frames[1]]) == [b"\3", b"\1"]
    assert feed(receiver, [frames[2], frames[0]], GRACE_MS - 1) == [b"\2", b"\0"]
    assert receiver.poll(10 * GRACE_MS) == []


def test_a_tail_that_comes_in_part_within_the_grace_is_reported_for_the_rest() -> None:
    sender, receiver = pair(AuthMode.AEAD)
    frames = [sender.seal(bytes([i])) for i in range(4)]
    feed(receiver, [frames[0], sender.seal_watermark(), frames[2]])
    assert losses(receiver.poll(GRACE_MS)) == [loss(1, 3, 2, 2, Cause.LOSS_TAIL)]


def test_frames_that_overtake_the_watermark_do_not_hide_a_loss_before_it() -> None:
    sender, receiver = pair(AuthMode.AEAD)
    sender.seal(b"lost")
    mark, newer = sender.seal_watermark(), sender.seal(b"newer")
    feed(receiver, [newer, mark])
    assert losses(receiver.poll(GRACE_MS)) == [loss(0, 0, 1, 1, Cause.LOSS_GAP)]


def test_a_sender_that_counts_too_few_messages_yields_no_negative_loss() -> None:
    _, receiver = pair(AuthMode.AEAD)
    sealer = FrameSealer(CHANNEL, 1, 7, KEY, None)
    mark = Watermark(first=0, count=3, messages=0)
    feed(receiver, [sealer.seal(FrameType.DATA, 1, b"x"), sealer.seal(FrameType.WATERMARK, 3, mark.encode())])
    assert losses(receiver.poll(GRACE_MS)) == [loss(0, 2, 2, 0, Cause.LOSS_GAP)]


def test_intervals_that_wait_for_a_late_frame_are_bounded() -> None:
    sender, receiver = pair(AuthMode.AEAD)
    sender.seal(b"lost")
    feed(receiver, [sender.seal_watermark() for _ in range(1_024)])
    assert receiver.poll(0) == []
    feed(receiver, [sender.seal_watermark()])
    assert losses(receiver.poll(0)) == [loss(0, 0, 1, 1, Cause.LOSS_TAIL)]


def test_a_frame_reported_as_lost_is_not_delivered_afterwards() -> None:
    sender, receiver = pair(AuthMode.AEAD)
    late, on_time, mark = sender.seal(b"late"), sender.seal(b"on time"), sender.seal_watermark()
    feed(receiver, [on_time, mark])
    assert losses(receiver.poll(GRACE_MS)) == [loss(0, 1, 1, 1, Cause.LOSS_GAP)]
    assert feed(receiver, [late], GRACE_MS) == []
    assert receiver.statistics().causes[Cause.REPLAY_STALE] == 1


def test_a_lost_watermark_is_covered_by_the_next_one() -> None:
    sender, receiver = pair(AuthMode.AEAD)
    first, lost, _ = sender.seal(b"a"), sender.seal(b"b"), sender.seal_watermark()
    second, mark = sender.seal(b"c"), sender.seal_watermark()
    feed(receiver, [first, second, mark])
    assert losses(receiver.poll(GRACE_MS)) == [loss(0, 3, 2, 1, Cause.LOSS_GAP)]
    assert lost != mark


@MODES
def test_watermarks_that_overtake_each_other_or_their_frames(mode: AuthMode) -> None:
    sender, receiver = pair(mode)
    a, mark_a = sender.seal(b"a"), sender.seal_watermark()
    b, mark_b = sender.seal(b"b"), sender.seal_watermark()
    c, mark_c = sender.seal(b"c"), sender.seal_watermark(final=True)
    assert feed(receiver, [b, c, mark_a, a, mark_c, mark_b]) == [b"b", b"c", b"a"]
    assert losses(receiver.poll(10 * GRACE_MS)) == []
    assert receiver.statistics().lost_frames == 0


def test_a_dropped_malformed_bundle_is_reported_by_its_messages() -> None:
    """The frame came, its messages did not: the running total of the watermark tells."""
    sender, receiver = pair(AuthMode.AEAD)
    sealer = FrameSealer(CHANNEL, 1, 7, KEY, None)
    sender.seal_bundle([b"1", b"2"])
    feed(receiver, [sealer.seal(FrameType.BUNDLE, 0, b"\0\0"), sender.seal_watermark()])
    assert losses(receiver.poll(GRACE_MS)) == [loss(0, 0, 0, 2, Cause.LOSS_GAP)]
    assert receiver.statistics().causes[Cause.BUNDLE_MALFORMED] == 1


def test_a_watermark_that_contradicts_an_earlier_one_is_dropped() -> None:
    sender, receiver = pair(AuthMode.AEAD)
    feed(receiver, [sender.seal(b"a"), sender.seal_watermark()])
    liar = ChannelSender(CHANNEL, 1, 7, KEY, AuthMode.AEAD)
    for _ in range(3):
        liar.seal(b"x")
    feed(receiver, [liar.seal_watermark()])
    assert receiver.statistics().causes == {Cause.FRAME_TYPE: 1}


def test_an_epoch_that_ends_without_final_watermark_has_an_unknown_tail() -> None:
    sender, receiver = pair(AuthMode.AEAD)
    feed(receiver, [sender.seal(b"a"), sender.seal_watermark(), sender.seal(b"b")])
    sender.seal(b"lost")
    feed(receiver, [sender.seal(b"c")])
    receiver.install_epoch(2, [], now_ms=0)
    assert receiver.poll(2_999) == []
    assert losses(receiver.poll(30_000)) == [loss(2, 4, 1, None, Cause.LOSS_TAIL)]
    assert receiver.statistics().lost_frames == 1


def test_an_epoch_that_ends_with_a_final_watermark_has_no_unknown_tail() -> None:
    sender, receiver = pair(AuthMode.AEAD)
    feed(receiver, [sender.seal(b"a"), sender.seal_watermark(final=True)])
    receiver.install_epoch(2, [], now_ms=0)
    receiver.install_epoch(3, [], now_ms=0)
    assert receiver.poll(0) == []


@MODES
def test_an_end_of_stream_without_its_final_watermark_has_an_unknown_tail(mode: AuthMode) -> None:
    sender, receiver = pair(mode)
    frames = [sender.seal(b"%d" % n) for n in range(5)]
    end = sender.seal_control(ControlCode.END_OF_STREAM, b"")
    assert feed(receiver, [*frames[:2], *frames[4:], end]) == [b"0", b"1", b"4"]
    assert losses(receiver.poll(GRACE_MS - 1)) == []
    assert losses(receiver.poll(GRACE_MS)) == [loss(0, 5, 2, None, Cause.LOSS_TAIL)]
    assert feed(receiver, frames[2:3], GRACE_MS) == [], "what was reported as lost is not delivered"
    statistics = receiver.statistics()
    assert (statistics.lost_frames, statistics.lost_messages, statistics.unknown_losses) == (2, 0, 1)


def test_a_stream_that_has_ended_is_not_missed_in_later_epochs() -> None:
    sender, receiver = pair(AuthMode.AEAD)
    feed(receiver, [sender.seal_control(ControlCode.END_OF_STREAM, b""), sender.seal_watermark(final=True)])
    receiver.install_epoch(2, [RosterSender(7, b"\x08" * 32)], now_ms=10)
    receiver.install_epoch(3, [RosterSender(7, b"\x09" * 32)], now_ms=20)
    events = [event for now in range(0, 100_000, 1_000) for event in receiver.poll(now)]
    assert [type(event) for event in events + receiver.close()] == [ControlReceived]


@pytest.mark.parametrize(("heard", "told"), [(5_000, False), (40_000, True)])
def test_a_receiver_that_leaves_tells_of_silence_but_misses_nothing_of_a_living_sender(
    heard: float, told: bool
) -> None:
    sender, receiver = pair(AuthMode.AEAD)
    assert feed(receiver, [sender.seal(b"0"), sender.seal_watermark()]) == [b"0"]
    receiver.poll(heard)
    assert losses(receiver.close()) == [loss(2, 1, 0, None, Cause.LOSS_TAIL)] * told
    assert feed(receiver, [sender.seal(b"1")]) == []
    assert receiver.close() == []


def test_a_receiver_that_leaves_tells_of_the_holes_it_saw() -> None:
    sender, receiver = pair(AuthMode.AEAD)
    frames = [sender.seal(b"%d" % n) for n in range(4)]
    feed(receiver, [frames[0], frames[3]])
    assert losses(receiver.close()) == [loss(0, 3, 2, None, Cause.LOSS_TAIL)]


def test_silence_is_noticed_once_and_again_after_the_next_heartbeat() -> None:
    sender, receiver = pair(AuthMode.AEAD)
    assert receiver.poll(29_999) == []
    assert receiver.poll(30_000) == [ChannelSilent(CHANNEL, 7, 1, 30_000)]
    assert receiver.poll(60_000) == []
    feed(receiver, [sender.seal_watermark()], 60_000)
    assert receiver.poll(89_999) == []
    assert receiver.poll(90_000) == [ChannelSilent(CHANNEL, 7, 1, 30_000)]
    assert receiver.statistics().causes == {Cause.CHANNEL_SILENT: 2}


def test_traffic_without_heartbeats_is_silence_after_three_seconds() -> None:
    sender, receiver = pair(AuthMode.AEAD)
    feed(receiver, [sender.seal(b"x")], 20_000)
    assert receiver.poll(22_999) == []
    feed(receiver, [sender.seal(b"y")], 22_999)
    assert receiver.poll(23_000) == [ChannelSilent(CHANNEL, 7, 1, 23_000)]


# --- checkpoints ----------------------------------------------------------------------------------


def auth(first: int, last: int, cause: Cause, *, stopped: bool) -> AuthFailure:
    return AuthFailure(CHANNEL, 7, 1, first, last, cause, stopped)


def test_a_forged_frame_is_found_by_the_checkpoint_and_delivery_ends() -> None:
    sender, receiver = pair(AuthMode.CHECKPOINT)
    forger = FrameSealer(CHANNEL, 1, 7, KEY, None)
    a, b, mark = sender.seal(b"a"), sender.seal(b"b"), sender.seal_watermark()
    forged = forger.seal(FrameType.DATA, 1, b"forged")
    assert feed(receiver, [a, forged, b]) == [b"a", b"forged"], "late detection is what this mode means"
    feed(receiver, [mark])
    assert auth(0, 1, Cause.AUTH_MISMATCH, stopped=True) in receiver.poll(0)
    assert feed(receiver, [sender.seal(b"c"), sender.seal_watermark()]) == []
    assert receiver.statistics().causes == {Cause.REPLAY_WINDOW: 1, Cause.AUTH_MISMATCH: 3}
    assert receiver.poll(100_000) == []


def same_tag_other_ciphertext(frame: bytes) -> bytes:
    """What a member can do: change both blocks of a 32-byte ciphertext so that its Poly1305 tag stays.

    RFC 8439 §2.5: the two blocks enter as b1 r^3 + b2 r^2 mod 2^130 - 5, so b2 makes up for a change of b1.
    """
    nonce = b"\0\0" + frame[2:4] + b"\0\0" + frame[4:10]
    stream = Cipher(algorithms.ChaCha20(KEY, bytes(4) + nonce), mode=None).encryptor().update(bytes(32))
    r = int.from_bytes(stream[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    prime, high = 2**130 - 5, 2**128
    first, second = (int.from_bytes(frame[at : at + 16], "little") for at in (10, 26))
    for change in range(1, 1000):
        other = (second + high - change * r) % prime
        if high <= other < 2 * high and first + change < high:
            blocks = (first + change, other - high)
            return frame[:10] + b"".join(block.to_bytes(16, "little") for block in blocks) + frame[42:]
    raise AssertionError


def test_another_ciphertext_with_the_same_tag_is_found_by_the_checkpoint() -> None:
    sender, receiver = pair(AuthMode.CHECKPOINT)
    genuine = sender.seal(b"thirty-two bytes of true payload")
    forged = same_tag_other_ciphertext(genuine)
    assert forged != genuine
    assert forged[-16:] == genuine[-16:]
    (delivered,) = feed(receiver, [forged, genuine])
    assert delivered != b"thirty-two bytes of true payload"
    feed(receiver, [sender.seal_watermark()])
    assert auth(0, 0, Cause.AUTH_MISMATCH, stopped=True) in receiver.poll(0)


def test_another_ciphertext_with_the_same_tag_is_refused_by_the_signature() -> None:
    sender, receiver = pair(AuthMode.SIGNED)
    genuine = sender.seal(b"thirty-two bytes of true payload")
    forged = same_tag_other_ciphertext(genuine[:-64]) + genuine[-64:]
    assert feed(receiver, [forged, genuine]) == [b"thirty-two bytes of true payload"]
    assert receiver.statistics().causes == {Cause.FRAME_SIGNATURE: 1}


def test_a_loss_spoils_one_interval_and_the_chain_goes_on() -> None:
    sender, receiver = pair(AuthMode.CHECKPOINT)
    sender.seal(b"lost")
    feed(receiver, [sender.seal(b"a"), sender.seal_watermark(), sender.seal(b"b"), sender.seal_watermark()])
    assert receiver.poll(GRACE_MS) == [
        loss(0, 1, 1, 1, Cause.LOSS_GAP),
        auth(0, 1, Cause.AUTH_UNVERIFIED, stopped=False),
    ]
    assert feed(receiver, [sender.seal(b"c"), sender.seal_watermark()], GRACE_MS) == [b"c"]
    assert receiver.poll(2 * GRACE_MS) == []
    sender.seal(b"lost")
    feed(receiver, [sender.seal_watermark()], 2 * GRACE_MS)
    assert auth(7, 7, Cause.AUTH_UNVERIFIED, stopped=False) in receiver.poll(3 * GRACE_MS), "not in a row"


def test_two_unverified_intervals_in_a_row_end_delivery() -> None:
    sender, receiver = pair(AuthMode.CHECKPOINT)
    for _ in range(2):
        sender.seal(b"lost")
        feed(receiver, [sender.seal(b"a"), sender.seal_watermark()])
    events = receiver.poll(GRACE_MS)
    assert [event.stopped for event in events if isinstance(event, AuthFailure)] == [False, True]
    assert feed(receiver, [sender.seal(b"b")], GRACE_MS) == []
    assert receiver.statistics().causes[Cause.AUTH_UNVERIFIED] == 3


def test_a_watermark_lost_on_its_own_leaves_the_interval_unverified() -> None:
    sender, receiver = pair(AuthMode.CHECKPOINT)
    a, _ = sender.seal(b"a"), sender.seal_watermark()
    feed(receiver, [a, sender.seal(b"b"), sender.seal_watermark()])
    assert receiver.poll(GRACE_MS) == [
        loss(0, 2, 1, 0, Cause.LOSS_GAP),
        auth(0, 2, Cause.AUTH_UNVERIFIED, stopped=False),
    ]


def test_a_frame_forged_in_the_place_of_a_watermark_leaves_the_interval_unverified() -> None:
    sender, receiver = pair(AuthMode.CHECKPOINT)
    a, dropped, b = sender.seal(b"a"), sender.seal_watermark(), sender.seal(b"b")
    forged = FrameSealer(CHANNEL, 1, 7, KEY, None).seal(FrameType.DATA, 1, b"forged")
    feed(receiver, [a, forged, dropped, b, sender.seal_watermark()])
    assert auth(0, 2, Cause.AUTH_UNVERIFIED, stopped=False) in receiver.poll(0)


def test_an_interval_too_long_to_check_is_unverified_and_costs_bounded_memory() -> None:
    sender, receiver = pair(AuthMode.CHECKPOINT)
    feed(receiver, [sender.seal(b"x") for _ in range(4_097)])
    (peer,) = receiver._peers.values()
    assert len(peer.ledger._digests) == 4_096
    feed(receiver, [sender.seal_watermark()])
    assert receiver.poll(0) == [auth(0, 4_096, Cause.AUTH_UNVERIFIED, stopped=False)]
    assert not peer.ledger._digests
    feed(receiver, [sender.seal(b"x"), sender.seal_watermark()])
    assert receiver.poll(0) == []


def test_a_sender_checkpoints_by_itself_before_a_receiver_loses_count() -> None:
    """No timer runs: batches and fragments bring their watermarks along."""
    sender, receiver = pair(AuthMode.CHECKPOINT)
    large = ChannelSender(CHANNEL, 1, 8, KEY, AuthMode.CHECKPOINT, sign_key=SEED, max_frame_bytes=1_024)
    receiver.install_epoch(1, [RosterSender(7, KEY, VERIFY_KEY), RosterSender(8, KEY, VERIFY_KEY)], now_ms=0)
    frames = [frame for n in range(5_000) for frame in sender.seal_batch([b"%d" % n])]
    assert [frame[0] & 15 == FrameType.WATERMARK_SIGNED for frame in frames[:66]] == (
        ([False] * 32 + [True]) * 2
    )
    frames += large.seal_fragments(bytes(4 << 20))
    assert len(feed(receiver, frames)) == 5_001
    feed(receiver, [sender.seal_watermark(), large.seal_watermark()])
    assert receiver.poll(GRACE_MS) == []
    assert receiver.statistics().causes == {}


def test_every_frame_type_is_part_of_the_checkpoint() -> None:
    sender, receiver = pair(AuthMode.CHECKPOINT)
    signed = FrameSealer(CHANNEL, 1, 7, KEY, SEED)
    frames = [sender.seal(b"a"), sender.seal_bundle([b"b", b"c"]), *sender.seal_fragments(bytes(100_000))]
    feed(receiver, frames)
    feed(receiver, [sender.seal_watermark(), sender.seal_watermark()])
    assert receiver.poll(GRACE_MS) == []
    assert receiver.statistics().delivered_messages == 4
    body = signed.seal(FrameType.DATA_SIGNED, sender.frames, b"also allowed")
    assert feed(receiver, [body + signed.signature(body)]) == [b"also allowed"]


# --- everything at once ---------------------------------------------------------------------------


@settings(deadline=None)
@given(
    mode=st.sampled_from([AuthMode.AEAD, AuthMode.SIGNED]),
    kinds=st.lists(st.sampled_from(["data", "bundle", "fragments", "watermark"]), max_size=25),
    data=st.data(),
)
def test_whatever_a_broker_does_messages_are_delivered_once_or_reported(
    mode: AuthMode, kinds: list[str], data: st.DataObject
) -> None:
    """Drop, repeat and reorder within the window: delivered + lost = sent, and nothing twice."""
    sender, receiver = pair(mode)
    frames: list[bytes] = []
    for number, kind in enumerate(kinds):
        text = number.to_bytes(2, "big")
        if kind == "data":
            frames.append(sender.seal(text))
        elif kind == "bundle":
            frames.append(sender.seal_bundle([text + b"x", text + b"y"]))
        elif kind == "fragments":
            frames += sender.seal_fragments(text * 40_000)
        else:
            frames.append(sender.seal_watermark())
    fates = data.draw(st.lists(st.integers(0, 3), min_size=len(frames), max_size=len(frames)))
    arriving = [frame for frame, fate in zip(frames, fates, strict=True) for _ in range(min(fate, 2))]
    order = data.draw(st.lists(st.integers(0, 12), min_size=len(arriving), max_size=len(arriving)))
    arriving = [arriving[i] for i in sorted(range(len(arriving)), key=lambda i: i + order[i])]
    got = feed(receiver, arriving)
    got += feed(receiver, [sender.seal_watermark(final=True)])
    reports = losses(receiver.poll(GRACE_MS))
    assert len(got) == len(set(got))
    assert sum(report.messages or 0 for report in reports) == sender.messages - len(got)
    assert sum(report.frames for report in reports) == sum(fate == 0 for fate in fates)
    assert receiver.statistics().lost_messages == sender.messages - len(got)
