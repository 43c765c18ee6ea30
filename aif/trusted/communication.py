"""Communication Service: sealed channels between AIMs that cannot tell a near peer from a far one.

Turns messages into AIF1 frames and back, once a grant has brought the keys. Decides when a bundle or a
watermark leaves; opens no socket, reads no clock and owns no task: publishing, time and timers are injected.

Invariants: without a grant nothing is sent and nothing is delivered; nothing ever leaves in clear; a bad
frame is counted and answered with silence; trouble on one channel leaves the others alone.

Source: MPAI-AIF V2 trusted services (Communication Service); frames as in ``protocol.frame``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aif.errors import LocalProtocolError
from aif.protocol.bundle import BundlePolicy, Bundler
from aif.protocol.channel_receiver import ChannelReceiver
from aif.protocol.channel_sender import ChannelSender
from aif.protocol.events import ChannelEvent
from aif.protocol.frame import sender_key
from aif.protocol.grant import Grant, Role, RosterRow
from aif.protocol.numbers import AuthMode, Cause, ControlCode
from aif.protocol.peer import RosterSender
from aif.protocol.watermark import WatermarkSchedule

Publish = Callable[[str, bytes, int], None]
"""``publish(topic, frame, qos)``; it never blocks and may raise TransportError."""

CallLater = Callable[[float, Callable[[], None]], None]
"""``call_later(delay_ms, function)``."""

CONTROL_QOS = 1
"""Watermarks travel at QoS 1: they are what makes a loss at QoS 0 visible."""


@dataclass(frozen=True, slots=True)
class SealedChannel:
    """What both ends know about one channel before any key exists."""

    channel_id: bytes
    topic: str
    auth: AuthMode
    qos: int = 0
    policy: BundlePolicy = field(default_factory=BundlePolicy)


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """Figures of one channel end. Frames may carry many messages; ``causes`` counts drops by reason."""

    sealed_messages: int = 0
    sealed_frames: int = 0
    verified_messages: int = 0
    verified_frames: int = 0
    rejected_frames: int = 0
    lost_messages: int = 0
    causes: Mapping[str, int] = field(default_factory=dict)


class SecureSender:
    """The sending end of a channel on this host."""

    def __init__(
        self, channel: SealedChannel, publish: Publish, now_ms: Callable[[], float], call_later: CallLater
    ) -> None:
        self.channel = channel
        self._publish, self._now_ms, self._call_later = publish, now_ms, call_later
        self._sender: ChannelSender | None = None
        self._bundler: Bundler | None = None
        self._schedule: WatermarkSchedule | None = None
        self._timer_armed = False
        self._closed_messages = self._closed_frames = 0

    @property
    def keyed(self) -> bool:
        return self._sender is not None

    def install(self, grant: Grant, frame_sign_seed: bytes) -> None:
        """Start sending under a grant; an earlier one ends with a final watermark.

        Raises:
            LocalProtocolError: the grant gives no right to send, or no key.
        """
        row = next((r for r in grant.roster if r.index == grant.sender_index), None)
        if row is None or grant.k_epoch is None:
            raise LocalProtocolError(f"the grant for {self.channel.topic} does not let this host send")
        if self._sender is not None:
            self._end_epoch()
        key = _key_of(grant.k_epoch, row)
        seed = None if grant.auth_mode is AuthMode.AEAD else frame_sign_seed
        self._sender = ChannelSender(
            grant.channel_id, grant.epoch, row.index, key, grant.auth_mode,
            sign_key=seed, max_frames=grant.max_frames, max_frame_bytes=grant.max_frame_bytes,
        )  # fmt: skip
        self._bundler = Bundler(self.channel.policy, grant.max_frame_bytes)
        self._schedule = WatermarkSchedule(grant.auth_mode, self._now_ms())

    def send(self, payload: bytes) -> None:
        """Seal and publish, now or with the next bundle.

        Raises:
            LocalProtocolError: no grant yet, or the grant is used up.
            TransportError: the transport cannot take it.
        """
        if self._bundler is None:
            raise LocalProtocolError(f"channel {self.channel.topic} has no key yet")
        batches = self._bundler.add(payload, self._now_ms())
        self._seal(batches)
        due = self._bundler.due_ms()
        if due is not None and not self._timer_armed:
            self._timer_armed = True
            self._call_later(max(0.0, due - self._now_ms()), self._flush_due)

    def _flush_due(self) -> None:
        self._timer_armed = False
        if self._bundler is not None:
            self._seal(self._bundler.flush(self._now_ms()))

    def flush(self) -> None:
        if self._bundler is not None:
            self._seal(self._bundler.flush(self._now_ms()))

    def _seal(self, batches: list[list[bytes | bytearray | memoryview]]) -> None:
        sender = self._sender
        if sender is None:
            return
        for batch in batches:
            for frame in sender.seal_batch(batch):
                self._publish(self.channel.topic, frame, self.channel.qos)

    def poll(self, now_ms: float) -> None:
        """Send the watermark that is due, if one is."""
        if self._sender is None or self._schedule is None or self._bundler is None:
            return
        if self._schedule.due_ms(self._sender.open_frames) <= now_ms:
            self._seal(self._bundler.flush(now_ms))
            self._publish(self.channel.topic, self._sender.seal_watermark(), CONTROL_QOS)
            self._schedule.sent(now_ms)

    def finish(self) -> None:
        """Flush, say that the stream has ended, and forget the key.

        The end travels at the channel's own QoS, so that it cannot overtake data, and once more at QoS 1.
        """
        if self._sender is None:
            return
        self.flush()
        for qos in {self.channel.qos, CONTROL_QOS}:
            end = self._sender.seal_control(ControlCode.END_OF_STREAM, b"")
            self._publish(self.channel.topic, end, qos)
        self._end_epoch()

    def _end_epoch(self) -> None:
        if self._sender is None:
            return
        self.flush()
        self._publish(self.channel.topic, self._sender.seal_watermark(final=True), CONTROL_QOS)
        self._closed_messages += self._sender.messages
        self._closed_frames += self._sender.frames
        self._sender = self._bundler = self._schedule = None

    def statistics(self) -> ChannelStatistics:
        messages = self._closed_messages + (self._sender.messages if self._sender else 0)
        frames = self._closed_frames + (self._sender.frames if self._sender else 0)
        return ChannelStatistics(sealed_messages=messages, sealed_frames=frames)


class SecureReceiver:
    """The receiving end of a channel on this host."""

    def __init__(
        self,
        channel: SealedChannel,
        deliver: Callable[[bytes], None],
        on_event: Callable[[ChannelEvent], None],
        now_ms: Callable[[], float],
    ) -> None:
        self.channel = channel
        self._deliver, self._on_event, self._now_ms = deliver, on_event, now_ms
        self._receiver = ChannelReceiver(channel.channel_id, channel.auth)
        self.keyed = False

    def install(self, grant: Grant) -> None:
        """Accept the senders of a grant.

        Raises:
            LocalProtocolError: the grant gives no key, or another mode than the deployment named.
        """
        if grant.k_epoch is None or grant.auth_mode is not self.channel.auth:
            raise LocalProtocolError(f"the grant for {self.channel.topic} does not fit its deployment")
        k_epoch = grant.k_epoch
        senders = [RosterSender(row.index, _key_of(k_epoch, row), row.sign_pk) for row in grant.roster]
        for payload in self._receiver.install_epoch(grant.epoch, senders, now_ms=self._now_ms()):
            self._deliver(payload)
        self.keyed = True

    def receive(self, frame: bytes, *, retained: bool) -> None:
        for payload in self._receiver.receive(frame, now_ms=self._now_ms(), retained=retained):
            self._deliver(payload)

    def poll(self, now_ms: float) -> None:
        for event in self._receiver.poll(now_ms):
            self._on_event(event)

    def statistics(self) -> ChannelStatistics:
        seen = self._receiver.statistics()
        return ChannelStatistics(
            verified_messages=seen.delivered_messages,
            verified_frames=seen.verified_frames,
            rejected_frames=seen.rejected_frames,
            lost_messages=seen.lost_messages,
            causes={str(cause): n for cause, n in seen.causes.items()},
        )


class CommunicationService:
    """All sealed channels of one process."""

    def __init__(self, *, publish: Publish, now_ms: Callable[[], float], call_later: CallLater) -> None:
        self._publish, self._now_ms, self._call_later = publish, now_ms, call_later
        self._senders: dict[bytes, SecureSender] = {}
        self._receivers: dict[bytes, SecureReceiver] = {}
        self._closed: Counter[str] = Counter()
        self._closed_causes: Counter[str] = Counter()

    def open_sender(self, channel: SealedChannel) -> SecureSender:
        sender = SecureSender(channel, self._publish, self._now_ms, self._call_later)
        self._senders[channel.channel_id] = sender
        return sender

    def open_receiver(
        self,
        channel: SealedChannel,
        deliver: Callable[[bytes], None],
        on_event: Callable[[ChannelEvent], None],
    ) -> SecureReceiver:
        receiver = SecureReceiver(channel, deliver, on_event, self._now_ms)
        self._receivers[channel.channel_id] = receiver
        return receiver

    def apply_grant(self, grant: Grant, frame_sign_seed: bytes) -> None:
        """Hand an opened grant to the channel ends it is for.

        Raises:
            LocalProtocolError: this host has no such channel end.
        """
        known = False
        if Role.SEND in grant.roles and (sender := self._senders.get(grant.channel_id)):
            sender.install(grant, frame_sign_seed)
            known = True
        if Role.RECEIVE in grant.roles and (receiver := self._receivers.get(grant.channel_id)):
            receiver.install(grant)
            known = True
        if not known:
            raise LocalProtocolError("a grant arrived for a channel that is not deployed here")

    def keyed(self, channel_id: bytes) -> bool:
        """Every end of this channel on this host has its key."""
        ends = [e for e in (self._senders.get(channel_id), self._receivers.get(channel_id)) if e is not None]
        return bool(ends) and all(end.keyed for end in ends)

    def poll(self) -> None:
        """Watermarks that are due, losses that are certain. Call several times a second."""
        now = self._now_ms()
        for sender in list(self._senders.values()):
            sender.poll(now)
        for receiver in list(self._receivers.values()):
            receiver.poll(now)

    def close(self, channel_id: bytes) -> None:
        """Forget a channel; its figures stay in the totals."""
        for end in (self._senders.pop(channel_id, None), self._receivers.pop(channel_id, None)):
            if end is not None:
                self._add(end.statistics())

    def statistics(self, channel_ids: set[bytes] | None = None) -> ChannelStatistics:
        """Totals over all channels (with closed ones), or over the given open ones."""
        if channel_ids is None:
            total, causes = Counter(self._closed), Counter(self._closed_causes)
        else:
            total, causes = Counter(), Counter()
        ends: list[SecureSender | SecureReceiver] = [*self._senders.values(), *self._receivers.values()]
        for end in ends:
            if channel_ids is None or end.channel.channel_id in channel_ids:
                part = end.statistics()
                total.update({name: getattr(part, name) for name in _FIGURES})
                causes.update(part.causes)
        return ChannelStatistics(**{name: total[name] for name in _FIGURES}, causes=dict(causes))

    def _add(self, part: ChannelStatistics) -> None:
        self._closed.update({name: getattr(part, name) for name in _FIGURES})
        self._closed_causes.update(part.causes)


_FIGURES = (
    "sealed_messages", "sealed_frames", "verified_messages", "verified_frames", "rejected_frames", "lost_messages",
)  # fmt: skip


def _key_of(k_epoch: bytes, row: RosterRow) -> bytes:
    return sender_key(k_epoch, row.index, row.aim_instance_id, row.host_id, row.grant_nonce)


__all__ = [
    "Cause", "ChannelStatistics", "CommunicationService", "SealedChannel", "SecureReceiver", "SecureSender",
]  # fmt: skip
