"""Two Communication Services wired back to back, with a wire that may lose, repeat, reorder and break."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from nacl.signing import SigningKey

from aif.errors import GrantExhausted, LocalProtocolError, MessageTooLarge, NotConnected, TransportError
from aif.protocol.bundle import BundlePolicy
from aif.protocol.events import AuthFailure, ChannelEvent, ControlReceived, ForgeriesRefused, LossReport
from aif.protocol.grant import Grant, Role, RosterRow
from aif.protocol.numbers import HOST_LIMITS, MCU_LIMITS, AuthMode, ChannelLimits, ControlCode, FrameType
from aif.trusted.communication import CommunicationService, SealedChannel, SecureReceiver, SecureSender

CHANNEL_ID = b"channel-id-of-16"
TOPIC = "aif/ch/w/a/out"
FRAME_SEED = b"\x05" * 32
FRAME_PK = bytes(SigningKey(FRAME_SEED).verify_key)
MODES = pytest.mark.parametrize("mode", list(AuthMode))


def channel(
    mode: AuthMode = AuthMode.AEAD, *, qos: int = 0, policy: BundlePolicy | None = None
) -> SealedChannel:
    return SealedChannel(CHANNEL_ID, TOPIC, mode, qos, policy or BundlePolicy())


def grant(role: Role, epoch: int = 1, mode: AuthMode = AuthMode.AEAD, **changes: Any) -> Grant:
    row = RosterRow(3, b"a" * 16, b"h" * 16, bytes([epoch]) * 16, FRAME_PK)
    made = Grant(
        CHANNEL_ID, epoch, role, 3 if Role.SEND in role else None, bytes([epoch, 7]) * 16,
        0, 1 << 40, 1 << 20, 1, 1, mode, 65_536, (row,),
    )  # fmt: skip
    return replace(made, **changes)


class Wire:
    """Time, timers, and a wire between one sending and one receiving service."""

    def __init__(
        self,
        sealed: SealedChannel,
        *,
        lossy: random.Random | None = None,
        limits: ChannelLimits = HOST_LIMITS,
    ) -> None:
        self.now_ms = 0.0
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.frames: list[tuple[bytes, int]] = []
        self.error: TransportError | None = None
        self.received: list[bytes] = []
        self.events: list[ChannelEvent] = []
        self.lossy = lossy
        self.sending = CommunicationService(publish=self.publish, now_ms=self.now, call_later=self.call_later)
        self.receiving = CommunicationService(
            publish=self.publish, now_ms=self.now, call_later=self.call_later, limits=limits
        )
        self.sender: SecureSender = self.sending.open_sender(sealed)
        self.receiver: SecureReceiver = self.receiving.open_receiver(
            sealed, self.received.extend, self.events.append
        )

    def now(self) -> float:
        return self.now_ms

    def call_later(self, delay_ms: float, function: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (self.now_ms + delay_ms, len(self.timers), function))

    def publish(self, topic: str, frame: bytes, qos: int) -> None:
        assert topic == TOPIC
        if self.error is not None:
            raise self.error
        self.frames.append((frame, qos))

    def key(self, epoch: int = 1, mode: AuthMode = AuthMode.AEAD, **changes: Any) -> None:
        self.receiving.apply_grant(grant(Role.RECEIVE, epoch, mode, **changes), b"")
        self.sending.apply_grant(grant(Role.SEND, epoch, mode, **changes), FRAME_SEED)

    def end_turn(self) -> None:
        """Run what is due now."""
        while self.timers and self.timers[0][0] <= self.now_ms:
            heapq.heappop(self.timers)[2]()

    def idle(self, milliseconds: float) -> None:
        """Let time pass in which nothing travels."""
        self.now_ms += milliseconds
        self.end_turn()

    def wait_for_timer(self) -> None:
        """Let the next timer fire at its time."""
        self.now_ms = self.timers[0][0]
        self.end_turn()

    def carry(self) -> None:
        """Deliver what is on the wire, well or badly."""
        frames, self.frames = [frame for frame, _ in self.frames], []
        if self.lossy is not None:
            frames = [f for frame in frames for f in [frame] * self.lossy.choice((0, 1, 1, 1, 2))]
            for at in range(len(frames) - 1):
                if self.lossy.random() < 0.3:
                    frames[at], frames[at + 1] = frames[at + 1], frames[at]
        for frame in frames:
            self.receiver.receive(frame, retained=False)

    def wait(self, milliseconds: float) -> None:
        """Let time pass: timers fire, both ends are polled, frames travel."""
        until = self.now_ms + milliseconds
        while self.now_ms < until:
            self.now_ms = min(until, self.timers[0][0] if self.timers else until, self.now_ms + 100.0)
            self.end_turn()
            self.carry()
            self.sending.poll()
            self.carry()
            self.receiving.poll()

    @property
    def lost(self) -> int:
        return self.receiving.statistics().lost_messages

    @property
    def ends(self) -> int:
        return sum(
            isinstance(e, ControlReceived) and e.code is ControlCode.END_OF_STREAM for e in self.events
        )


def payloads(count: int, start: int = 0) -> list[bytes]:
    return [b"message %d" % n for n in range(start, start + count)]


@MODES
def test_messages_arrive_in_order_once(mode: AuthMode) -> None:
    wire = Wire(channel(mode))
    wire.key(mode=mode)
    for payload in payloads(200):
        wire.sender.send(payload)
    wire.wait(5_000)
    assert wire.received == payloads(200)
    sent, seen = wire.sending.statistics(), wire.receiving.statistics()
    assert (sent.sealed_messages, seen.verified_messages, seen.lost_messages) == (200, 200, 0)
    assert sent.sealed_frames == seen.verified_frames < 30  # bundles
    assert (seen.rejected_frames, dict(seen.causes)) == (0, {})


@pytest.mark.parametrize("mode", AuthMode)
def test_messages_sent_together_share_frames(mode: AuthMode) -> None:
    wire = Wire(channel(mode))
    wire.key(mode=mode)
    sent = [bytes([n % 251]) * (n % 7) for n in range(200)]
    wire.sender.send_all(sent[:150])
    wire.sender.send_all([])
    wire.sender.send(sent[150])
    wire.sender.send_all(sent[151:])
    assert len(wire.frames) <= 5
    wire.wait(20)
    assert wire.received == sent
    assert wire.sending.statistics().sealed_messages == 200


def test_of_messages_sent_together_all_are_taken_or_none() -> None:
    wire = Wire(channel())
    wire.key(max_frames=100)
    with pytest.raises(MessageTooLarge):
        wire.sender.send_all([b"x", bytes(HOST_LIMITS.max_message_bytes + 1)])
    with pytest.raises(GrantExhausted, match="has used up the 100 frames"):
        wire.sender.send_all([b"x"] * 100)
    wire.error = NotConnected("gone")
    wire.sender.send_all([b"a", b"b"])  # taken: sealed, and sent when the transport is back
    with pytest.raises(NotConnected, match="waits for the transport"):
        wire.sender.send_all([b"c"])
    wire.error = None
    wire.wait(20)
    assert wire.received == [b"a", b"b"]


def test_nothing_is_sent_without_a_grant() -> None:
    wire = Wire(channel())
    with pytest.raises(LocalProtocolError, match=f"channel {TOPIC} has no key yet"):
        wire.sender.send(b"secret")
    wire.wait(20_000)
    assert wire.frames == []
    assert not wire.sending.keyed(CHANNEL_ID)


def test_nothing_leaves_in_clear() -> None:
    wire = Wire(channel(AuthMode.SIGNED))
    wire.key(mode=AuthMode.SIGNED)
    wire.sender.send(b"a secret of some length")
    assert len(wire.frames) == 1
    assert b"secret" not in wire.frames[0][0]


def test_a_receiver_waits_a_second_for_its_grant() -> None:
    wire = Wire(channel())
    wire.sending.apply_grant(grant(Role.SEND), b"")
    wire.sender.send(b"early")
    wire.carry()
    assert wire.received == []
    wire.now_ms += 900
    wire.receiving.apply_grant(grant(Role.RECEIVE), b"")
    assert wire.received == [b"early"]
    late = Wire(channel())
    late.sending.apply_grant(grant(Role.SEND), b"")
    late.sender.send(b"early")
    late.carry()
    late.now_ms += 1_100
    late.receiving.apply_grant(grant(Role.RECEIVE), b"")
    assert late.received == []
    assert dict(late.receiving.statistics().causes) == {"frame.epoch": 1}


def test_a_lone_message_leaves_at_once_and_a_crowd_at_the_end_of_the_turn() -> None:
    wire = Wire(channel())
    wire.key()
    wire.sender.send(b"first")
    assert len(wire.frames) == 1
    for payload in payloads(5):
        wire.sender.send(payload)
    assert len(wire.frames) == len(wire.timers) == 1
    wire.end_turn()
    assert len(wire.frames) == 2
    assert wire.frames[1][0][0] & 15 == FrameType.BUNDLE
    wire.carry()
    assert wire.received == [b"first", *payloads(5)]


def test_a_burst_makes_as_few_frames_as_its_bundles_need() -> None:
    wire = Wire(channel())
    wire.key()
    for payload in payloads(10_000):
        wire.sender.send(payload)
    wire.end_turn()
    assert len(wire.frames) == 1 + math.ceil(9_999 / 64)
    wire.carry()
    assert wire.received == payloads(10_000)
    assert wire.now_ms == 0, "no timer ran"


@pytest.mark.parametrize("round_trip_ms", [0.13, 0.2, 0.5, 0.99, 3.0])
def test_ping_pong_never_waits_for_the_timer(round_trip_ms: float) -> None:
    wire = Wire(channel())
    wire.key()
    for turn in range(1_000):
        wire.sender.send(b"ping")
        assert len(wire.frames) == turn + 1
        wire.end_turn()
        wire.now_ms += round_trip_ms
    assert wire.timers == []


@pytest.mark.parametrize("round_trip_ms", [0.001, 0.01, 0.05, 0.1])
def test_ping_pong_faster_than_any_broker_waits_a_few_times_and_learns(round_trip_ms: float) -> None:
    wire = Wire(channel())
    wire.key()
    waits = 0
    for turn in range(5_000):
        wire.sender.send(b"ping")
        wire.end_turn()
        if len(wire.frames) == turn:
            waits += 1
            wire.wait_for_timer()
        wire.now_ms += round_trip_ms
    assert 0 < waits <= math.log2(1 / round_trip_ms)
    assert len(wire.frames) == 5_000


def test_a_steady_stream_of_single_messages_is_bundled_within_a_millisecond() -> None:
    wire = Wire(channel())
    wire.key()
    sent_ms: dict[bytes, float] = {}
    for payload in payloads(2_000):
        wire.sender.send(payload)
        sent_ms[payload] = wire.now_ms
        wire.wait(0.05)
        for arrived in wire.received:
            assert wire.now_ms - sent_ms.pop(arrived) <= 1.0 + 0.06
        wire.received.clear()
    wire.wait(1)
    assert set(sent_ms) == set(wire.received)
    assert wire.sending.statistics().sealed_frames < 2_000 / 19 + 20


def test_flush_does_not_wait() -> None:
    wire = Wire(channel())
    wire.key()
    wire.sender.send(b"first")
    wire.sender.send(b"second")
    wire.sender.flush()
    wire.carry()
    assert wire.received == [b"first", b"second"]


@MODES
def test_a_new_epoch_loses_and_repeats_nothing(mode: AuthMode) -> None:
    wire = Wire(channel(mode))
    for epoch in (1, 2, 3):
        wire.key(epoch, mode)
        wire.carry()  # what was on its way when the epoch changed
        for payload in payloads(70, start=epoch * 1000):
            wire.sender.send(payload)
    wire.wait(40_000)
    assert wire.received == [p for epoch in (1, 2, 3) for p in payloads(70, start=epoch * 1000)]
    assert wire.sending.statistics().sealed_messages == wire.receiving.statistics().verified_messages == 210
    assert wire.lost == 0


def test_figures_stay_when_a_channel_is_closed_or_opened_again() -> None:
    wire = Wire(channel())
    wire.key()
    wire.sender.send(b"x")
    wire.carry()
    wire.sending.close(CHANNEL_ID)
    wire.receiving.open_receiver(channel(), wire.received.extend, wire.events.append)
    assert wire.sending.statistics().sealed_messages == 1
    assert wire.receiving.statistics().verified_messages == 1
    assert wire.receiving.statistics({CHANNEL_ID}).verified_messages == 0
    assert wire.sending.statistics({b"x" * 16}).sealed_messages == 0
    wire.sending.close(CHANNEL_ID)  # again, without harm


def test_a_burst_on_a_checkpoint_channel_is_verified_without_a_poll() -> None:
    mode = AuthMode.CHECKPOINT
    wire = Wire(channel(mode, policy=BundlePolicy(max_messages=1)))
    wire.key(mode=mode)
    for payload in payloads(5_000):
        wire.sender.send(payload)
    kinds = bytes(frame[0] & 15 for frame, _ in wire.frames)
    between = kinds.split(bytes([FrameType.WATERMARK_SIGNED]))
    assert {len(frames) for frames in between[1:-1]} == {32}
    assert max(len(between[0]), len(between[-1])) <= 32
    wire.wait(10_000)
    assert wire.received == payloads(5_000)
    assert not any(isinstance(event, AuthFailure) for event in wire.events)


@pytest.mark.parametrize("bundling", [BundlePolicy(), BundlePolicy(max_messages=1)])
def test_a_message_never_waits_for_the_watermark_that_it_makes_due(bundling: BundlePolicy) -> None:
    mode = AuthMode.CHECKPOINT
    wire = Wire(channel(mode, policy=bundling))
    wire.key(mode=mode)
    kinds = list[int]()
    for payload in payloads(100):
        wire.sender.send(payload)
        (frame, _), wire.frames = wire.frames[0], wire.frames[1:]
        assert frame[0] & 15 == FrameType.DATA
        assert wire.frames == []
        wire.idle(1)
        kinds += [later[0] & 15 for later, _ in wire.frames]
        wire.frames = []
    assert kinds == [FrameType.WATERMARK_SIGNED] * 4  # 32 messages apart, the first where the channel id says


def test_a_watermark_that_is_due_waits_for_no_turn_that_does_not_end() -> None:
    mode = AuthMode.CHECKPOINT
    wire = Wire(channel(mode, policy=BundlePolicy(max_messages=1)))
    wire.key(mode=mode)
    while not wire.timers:
        wire.sender.send(b"makes it due")
    sent = len(wire.frames)
    wire.sender.send(b"the next")
    wire.end_turn()
    kinds = [frame[0] & 15 for frame, _ in wire.frames[sent:]]
    assert kinds == [FrameType.WATERMARK_SIGNED, FrameType.DATA], "before the next frame, and not once more"


def test_closing_a_channel_reports_what_is_missing_there() -> None:
    wire = Wire(channel(policy=BundlePolicy(max_messages=1)))
    wire.key()
    for payload in payloads(3):
        wire.sender.send(payload)
    del wire.frames[1]
    wire.carry()
    wire.receiving.close(CHANNEL_ID)
    assert [(e.frames, e.messages) for e in wire.events if isinstance(e, LossReport)] == [(1, None)]
    assert wire.receiving.statistics().unknown_losses == 1


@MODES
def test_a_channel_within_a_host_is_sealed_and_opened_without_the_transport(mode: AuthMode) -> None:
    wire = Wire(channel())
    wire.error = NotConnected("no broker at all")
    sealed = replace(channel(mode), within_host=True)
    sender = wire.sending.open_sender(sealed)
    received: list[bytes] = []
    wire.sending.open_receiver(sealed, received.extend, wire.events.append)
    with pytest.raises(LocalProtocolError, match="has no key yet"):
        sender.send(b"secret")
    wire.sending.apply_grant(grant(Role.SEND | Role.RECEIVE, mode=mode), FRAME_SEED)
    for payload in payloads(100):
        sender.send(payload)
    sender.finish()
    wire.wait(5_000)
    assert received == payloads(100)
    assert (wire.frames, wire.ends) == ([], 2)
    seen = wire.sending.statistics({CHANNEL_ID})
    assert seen.sealed_messages == seen.verified_messages == 100
    assert seen.sealed_frames == seen.verified_frames > 2
    wire.sending.close(CHANNEL_ID)


# --- grants ----------------------------------------------------------------------------------------


def test_a_repeated_or_older_grant_never_starts_the_counter_again() -> None:
    wire = Wire(channel())
    wire.key(epoch=2)
    wire.sender.send(b"one")
    for epoch in (2, 1):
        with pytest.raises(LocalProtocolError, match=f"epoch {epoch} of {TOPIC} is not newer than 2"):
            wire.sending.apply_grant(grant(Role.SEND, epoch), b"")
    wire.idle(10)
    wire.sender.send(b"two")
    counters = [frame[4:10] for frame, _ in wire.frames]
    assert len(set(counters)) == 2
    wire.carry()
    assert wire.received == [b"one", b"two"]


@pytest.mark.parametrize(
    "changes",
    [
        {"auth_mode": AuthMode.AEAD},
        {"k_epoch": None},
        {"roster": ()},
        {"roles": Role.RECEIVE, "sender_index": None},
        {"max_frame_bytes": 100},
    ],
)
def test_a_grant_that_does_not_fit_changes_nothing(changes: dict[str, Any]) -> None:
    mode = AuthMode.SIGNED
    wire = Wire(channel(mode))
    wire.key(mode=mode)
    wire.sender.send(b"before")
    with pytest.raises(LocalProtocolError):
        wire.sender.install(grant(Role.SEND, 2, mode, **changes), FRAME_SEED)
    wire.idle(10)
    wire.sender.send(b"after")
    wire.carry()
    assert wire.received == [b"before", b"after"]


@pytest.mark.parametrize(
    "changes",
    [
        {"auth_mode": AuthMode.AEAD},
        {"k_epoch": None},
        {"epoch": 0},
        {"roles": Role.SEND, "sender_index": 3},
    ],
)
def test_a_receiver_takes_no_grant_that_does_not_fit(changes: dict[str, Any]) -> None:
    wire = Wire(channel(AuthMode.SIGNED))
    wire.key(mode=AuthMode.SIGNED)
    with pytest.raises(LocalProtocolError):
        wire.receiver.install(replace(grant(Role.RECEIVE, 2, AuthMode.SIGNED), **changes))
    wire.sender.send(b"still")
    wire.carry()
    assert wire.received == [b"still"]


def test_a_grant_for_a_channel_that_is_not_here_is_refused() -> None:
    wire = Wire(channel())
    for one in (grant(Role.SEND, channel_id=b"x" * 16), grant(Role.RECEIVE)):
        with pytest.raises(LocalProtocolError, match="not deployed here"):
            wire.sending.apply_grant(one, b"")


def test_a_used_up_grant_is_one_error_and_one_count_until_the_next() -> None:
    wire = Wire(channel(policy=BundlePolicy(max_messages=1)))
    wire.key(max_frames=20)
    for payload in payloads(15):  # the rest is kept for the end of the epoch
        wire.sender.send(payload)
    with pytest.raises(GrantExhausted, match=f"channel {TOPIC} has used up the 20 frames of its grant"):
        wire.sender.send(b"one too many")
    for _ in range(50):
        with pytest.raises(GrantExhausted):
            wire.sender.send(b"more")
        wire.wait(1_000)
    assert dict(wire.sending.statistics().causes) == {"grant.exhausted": 1}
    wire.key(epoch=2)
    wire.sender.send(b"with the next grant")
    wire.sender.finish()
    wire.wait(5_000)
    assert wire.received == [*payloads(15), b"with the next grant"]
    assert (wire.lost, wire.ends) == (0, 2)


def test_even_a_used_up_grant_can_end_its_stream() -> None:
    wire = Wire(channel())
    wire.key(max_frames=6)
    with suppress(GrantExhausted):
        for payload in payloads(10_000):
            wire.sender.send(payload)
    with pytest.raises(GrantExhausted):
        wire.sender.send(b"one too many")
    wire.wait(30_000)
    wire.sender.finish()
    wire.wait(5_000)
    assert wire.ends == 2
    assert wire.lost == 0
    assert len(wire.received) == wire.sending.statistics().sealed_messages


# --- the end of a stream ---------------------------------------------------------------------------


@pytest.mark.parametrize(("qos", "ends"), [(0, 2), (1, 1)])
@MODES
def test_finish_sends_what_waits_and_then_the_end(mode: AuthMode, qos: int, ends: int) -> None:
    wire = Wire(channel(mode, qos=qos))
    wire.key(mode=mode)
    for payload in payloads(5):
        wire.sender.send(payload)
    wire.sender.finish()
    assert not wire.sender.keyed
    assert [q for _, q in wire.frames][-1] == qos  # the final watermark keeps its place behind the data
    wire.wait(200)
    assert wire.received == payloads(5)
    assert wire.ends == ends
    wire.wait(60_000)
    assert (wire.lost, wire.frames) == (0, [])
    with pytest.raises(LocalProtocolError):
        wire.sender.send(b"too late")


def test_a_renewed_key_does_not_wake_a_finished_stream() -> None:
    wire = Wire(channel())
    wire.key()
    wire.sender.finish()
    wire.carry()
    wire.key(epoch=2)
    wire.wait(60_000)
    assert not wire.sender.keyed
    assert wire.frames == []


# --- lengths ---------------------------------------------------------------------------------------


def test_frames_keep_to_the_length_of_the_grant() -> None:
    wire = Wire(channel())
    wire.key(max_frame_bytes=1_024)
    wire.sender.send(bytes(10_000))
    assert len(wire.frames) > 9
    assert max(len(frame) for frame, _ in wire.frames) <= 1_024
    wire.carry()
    assert wire.received == [bytes(10_000)]


def test_a_receiver_refuses_frames_longer_than_its_grant_allows() -> None:
    wire = Wire(channel())
    wire.sending.apply_grant(grant(Role.SEND), b"")
    wire.receiving.apply_grant(grant(Role.RECEIVE, max_frame_bytes=1_024), b"")
    wire.sender.send(bytes(2_000))
    wire.carry()
    assert wire.received == []
    seen = wire.receiving.statistics()
    assert (seen.rejected_frames, dict(seen.causes)) == (1, {"frame.size": 1})


def test_after_a_switch_frames_of_the_old_length_still_pass() -> None:
    wire = Wire(channel())
    wire.key(max_frame_bytes=4_096)
    wire.sender.send(bytes(3_000))
    wire.receiving.apply_grant(grant(Role.RECEIVE, 2, max_frame_bytes=1_024), b"")
    wire.carry()
    assert wire.received == [bytes(3_000)]
    wire.receiving.apply_grant(grant(Role.RECEIVE, 3, max_frame_bytes=1_024), b"")
    wire.receiver.receive(bytes(3_000), retained=False)
    assert wire.receiving.statistics().causes["frame.size"] == 1


def test_a_message_that_nobody_puts_together_is_refused_at_once() -> None:
    wire = Wire(channel())
    wire.key()
    with pytest.raises(MessageTooLarge, match="exceeds the limit of 4,194,304 B"):
        wire.sender.send(bytes((4 << 20) + 1))
    wire.key(epoch=2, max_frame_bytes=140)
    with pytest.raises(MessageTooLarge, match="needs too many frames of 140 B") as refused:
        wire.sender.send(bytes(4 << 20))
    assert refused.value.hint == "raise max_frame_bytes of the receivers"
    wire.sender.send(b"goes on")
    wire.carry()
    assert wire.received == [b"goes on"]


# --- a transport that fails ------------------------------------------------------------------------


@pytest.mark.parametrize("error", [NotConnected("gone"), TransportError("full")])
def test_what_was_accepted_survives_a_break_and_arrives_once(error: TransportError) -> None:
    wire = Wire(channel())
    wire.key()
    wire.sender.send(b"before")
    wire.carry()
    wire.idle(10)
    wire.error = error
    wire.sender.send(b"accepted")  # it waits here, sealed
    for _ in range(3):
        with pytest.raises(NotConnected, match="waits for the transport"):
            wire.sender.send(b"refused")
    wire.wait(5_000)  # timers and polls raise nothing
    wire.error = None
    wire.wait(100)
    wire.sender.send(b"after")
    wire.wait(10_000)
    assert wire.received == [b"before", b"accepted", b"after"]
    assert wire.lost == 0


def test_a_bundle_that_could_not_leave_in_time_leaves_later_and_first() -> None:
    wire = Wire(channel())
    wire.key()
    accepted = []
    for payload in payloads(10):
        wire.sender.send(payload)
        accepted.append(payload)
    wire.error = NotConnected("gone")
    wire.wait(10)
    wire.error = None
    wire.sender.send(b"last")
    wire.wait(100)
    assert wire.received == [*accepted, b"last"]


def test_the_end_of_a_stream_waits_for_the_connection() -> None:
    wire = Wire(channel())
    wire.key()
    wire.error = NotConnected("gone")
    wire.sender.send(b"x")
    wire.sender.finish()
    wire.wait(3_000)
    wire.error = None
    wire.wait(3_000)
    assert wire.received == [b"x"]
    assert (wire.ends, wire.lost) == (2, 0)


def test_an_epoch_switch_while_the_transport_is_away() -> None:
    wire = Wire(channel())
    wire.key()
    wire.error = NotConnected("gone")
    wire.sender.send(b"old")
    wire.key(epoch=2)
    wire.error = None
    wire.sender.send(b"new")
    wire.wait(40_000)
    assert wire.received == [b"old", b"new"]
    assert wire.lost == 0


def test_a_frame_that_the_transport_never_takes_is_dropped_and_counted() -> None:
    wire = Wire(channel())
    wire.key()
    wire.error = MessageTooLarge("too large")
    with pytest.raises(MessageTooLarge):
        wire.sender.send(b"x")
    wire.error = None
    wire.sender.send(b"y")
    wire.wait(10_000)
    assert wire.received == [b"y"]
    assert dict(wire.sending.statistics().causes) == {"frame.size": 1}
    assert wire.lost == 1  # and the receiver knows


# --- a wire that lies ------------------------------------------------------------------------------


@MODES
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=25, deadline=None)
def test_every_message_is_delivered_once_or_reported_lost(mode: AuthMode, seed: int) -> None:
    chance = random.Random(seed)
    wire = Wire(channel(mode, policy=BundlePolicy(max_messages=chance.choice((1, 4, 64)))), lossy=chance)
    wire.key(mode=mode)
    wire.wait(1)
    for payload in payloads(60):
        wire.sender.send(payload)
        wire.wait(chance.choice((0.0, 0.5, 20.0)))
    wire.wait(3_000)
    assert len(wire.received) == len(set(wire.received))
    assert set(wire.received) <= set(payloads(60))
    wire.lossy = None
    wire.wait(60_000)  # the wire heals, and the next watermarks tell
    if mode is not AuthMode.CHECKPOINT:  # there two unverified intervals end the delivery
        reported = sum(e.messages or 0 for e in wire.events if isinstance(e, LossReport))
        assert reported == wire.lost
        assert len(wire.received) + wire.lost == 60


def test_frames_that_were_tampered_with_are_counted_and_answered_with_silence() -> None:
    wire = Wire(channel())
    wire.key()
    wire.sender.send(b"x")
    (frame, _), wire.frames = wire.frames[0], []
    for at in range(10, len(frame)):
        wire.receiver.receive(frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :], retained=False)
    wire.receiver.receive(frame, retained=True)
    assert wire.received == []
    assert wire.frames == []
    assert dict(wire.receiving.statistics().causes) == {"frame.tag": len(frame) - 10, "frame.retained": 1}
    wire.receiver.receive(frame, retained=False)
    assert wire.received == [b"x"]


@pytest.mark.parametrize(("limits", "flood"), [(HOST_LIMITS, False), (MCU_LIMITS, True)])
def test_forgeries_are_told_once_a_second_and_judged_by_the_class_of_device(
    limits: ChannelLimits, flood: bool
) -> None:
    wire = Wire(channel(), limits=limits)
    wire.key()
    wire.sender.send(b"x")
    (frame, _), wire.frames = wire.frames[0], []
    for number in range(60):
        wire.receiver.receive(frame[:-1] + bytes([frame[-1] ^ 1 + number]), retained=False)
        wire.wait(10)
    assert not wire.events
    wire.wait(1_000)
    assert wire.events == [ForgeriesRefused(CHANNEL_ID, 60, flood)]
    wire.wait(5_000)
    assert sum(isinstance(event, ForgeriesRefused) for event in wire.events) == 1


def test_a_microcontroller_puts_together_what_its_memory_holds() -> None:
    wire = Wire(channel(), limits=MCU_LIMITS)
    wire.key(max_frame_bytes=4_096)
    wire.sender.send(bytes(16 * 1024))
    wire.sender.send(bytes(16 * 1024 + 1))
    wire.sender.send(b"after")
    wire.wait(10_000)
    assert wire.received == [bytes(16 * 1024), b"after"]
    assert wire.receiving.statistics().causes["fragment.size"] > 0
    assert wire.lost == 1


def test_trouble_on_one_channel_leaves_the_others_alone() -> None:
    wire = Wire(channel())
    other = replace(channel(), channel_id=b"another-channel!", topic=TOPIC)
    sender = wire.sending.open_sender(other)
    wire.key()
    with pytest.raises(LocalProtocolError):
        sender.send(b"x")
    wire.sender.send(b"y")
    wire.carry()
    assert wire.received == [b"y"]
    assert wire.sending.keyed(CHANNEL_ID)
    assert not wire.sending.keyed(other.channel_id)


class ChannelMachine(RuleBasedStateMachine):
    """Sends, breaks, renewals and time in any order: accepted messages arrive once, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire(channel(policy=BundlePolicy(max_messages=4)))
        self.epoch = 1
        self.wire.key(1, max_frames=40)
        self.accepted: list[bytes] = []
        self.finished = False

    @rule(length=st.sampled_from([0, 3, 200, 5_000]))
    def send(self, length: int) -> None:
        payload = b"%d " % len(self.accepted) + bytes(length)
        try:
            self.wire.sender.send(payload)
        except NotConnected:
            return
        except LocalProtocolError:
            assert self.finished
            return
        self.accepted.append(payload)

    @rule()
    def break_off(self) -> None:
        self.wire.error = NotConnected("gone")

    @rule()
    def come_back(self) -> None:
        self.wire.error = None

    @precondition(lambda self: self.epoch < 250)
    @rule(max_frame_bytes=st.sampled_from([1_024, 65_536]))
    def renew(self, max_frame_bytes: int) -> None:
        self.wire.wait(0.5)
        self.epoch += 1
        if not self.wire.error:  # the receiver forgets an epoch after 30 s
            self.wire.key(self.epoch, max_frames=40, max_frame_bytes=max_frame_bytes)

    @rule(milliseconds=st.sampled_from([0.2, 5.0, 2_000.0]))
    def wait(self, milliseconds: float) -> None:
        self.wire.wait(milliseconds)

    @rule()
    def finish(self) -> None:
        self.wire.sender.finish()
        self.finished = True

    @invariant()
    def delivered_is_a_beginning_of_what_was_accepted(self) -> None:
        assert self.wire.received == self.accepted[: len(self.wire.received)]

    def teardown(self) -> None:
        self.wire.error = None
        self.wire.sender.finish()
        self.wire.wait(5_000)
        assert self.wire.received == self.accepted
        assert self.wire.lost == 0
        assert self.wire.ends


TestChannelMachine = ChannelMachine.TestCase
TestChannelMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
