"""Communication Service: sealed channels between AIMs that cannot tell a near peer from a far one.

Turns messages into AIF1 frames and back, once a grant has brought the keys. Decides when a bundle or a
watermark leaves; opens no socket, reads no clock and owns no task: publishing, time and timers are injected.

Invariants: without a grant nothing is sent and nothing is delivered; nothing ever leaves in clear; a bad
frame is counted and answered with silence; trouble on one channel leaves the others alone.

Source: MPAI-AIF V2 trusted services (Communication Service); frames as in ``protocol.frame``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from aif.errors import LocalProtocolError
from aif.protocol.channel_receiver import ChannelReceiver
from aif.protocol.events import AuthFailure, ChannelEvent, ForgeriesRefused
from aif.protocol.grant import Grant, Role
from aif.protocol.numbers import HOST_LIMITS, Cause, ChannelLimits
from aif.protocol.peer import RosterSender
from aif.trusted.secure_sender import (
    CallLater,
    ChannelStatistics,
    Publish,
    SealedChannel,
    SecureSender,
    key_of,
)

LOOK_MS = 1_000
"""Forged frames are told once in this time: whoever sends them shall not fill the log."""

Deliver = Callable[[Sequence[bytes]], None]
"""Takes the messages of one frame, at least one, in order."""


class SecureReceiver:
    """The receiving end of a channel on this host."""

    def __init__(
        self,
        channel: SealedChannel,
        deliver: Deliver,
        on_event: Callable[[ChannelEvent], None],
        now_ms: Callable[[], float],
        limits: ChannelLimits = HOST_LIMITS,
    ) -> None:
        self.channel = channel
        self._deliver, self._on_event, self._now_ms = deliver, on_event, now_ms
        # the longest frame is the grant's to say, which every sender keeps to
        self._receiver = ChannelReceiver(
            channel.channel_id, channel.auth,
            limits=replace(limits, max_frame_bytes=HOST_LIMITS.max_frame_bytes),
        )  # fmt: skip
        self._budget_per_s = limits.tag_failures_per_s
        self._forgeries, self._look_ms = 0, now_ms()
        self._granted_bytes = 0
        self._longest_bytes = HOST_LIMITS.max_frame_bytes
        self._oversized = 0
        self._senders: frozenset[int] = frozenset()
        self._epoch = -1
        self.keyed = False
        self.stopped_epoch: int | None = None
        """The epoch in force, once its checkpoints have shown that its sender cannot be heard any more."""

    def install(self, grant: Grant) -> None:
        """Accept the senders of a grant, and frames of the length it allows.

        A sender that is not in it any more has 2 s to come to its end, or none if the grant refuses it.

        Raises:
            LocalProtocolError: the grant gives no right to receive or no key, is in another mode than the
                deployment named, or is older than the last one.
        """
        fits = Role.RECEIVE in grant.roles and grant.auth_mode is self.channel.auth
        if grant.k_epoch is None or not fits:
            raise LocalProtocolError(f"the grant for {self.channel.topic} does not fit its deployment")
        k_epoch = grant.k_epoch
        senders = [RosterSender(row.index, key_of(k_epoch, row), row.sign_pk) for row in grant.roster]
        now_ms = self._now_ms()
        waiting = self._receiver.install_epoch(grant.epoch, senders, now_ms=now_ms)
        roster = frozenset(row.index for row in grant.roster)
        for index in self._senders - roster:
            self._receiver.retire_sender(index, now_ms=now_ms, at_once=index in grant.refused)
        self._senders = roster
        if grant.epoch > self._epoch:
            self._epoch, self.stopped_epoch = grant.epoch, None
        self._longest_bytes = max(self._granted_bytes, grant.max_frame_bytes)
        self._granted_bytes = grant.max_frame_bytes
        self.keyed = True
        if waiting:
            self._deliver(waiting)

    def receive(self, frame: bytes, *, retained: bool) -> None:
        """Take one frame as it came; what it holds is delivered, or dropped and counted."""
        if len(frame) > self._longest_bytes:
            self._oversized += 1
            return
        payloads = self._receiver.receive(frame, now_ms=self._now_ms(), retained=retained)
        if payloads:
            self._deliver(payloads)

    def poll(self, now_ms: float) -> None:
        for event in self._receiver.poll(now_ms):
            if isinstance(event, AuthFailure) and event.stopped and event.epoch == self._epoch:
                self.stopped_epoch = event.epoch
            self._on_event(event)
        if now_ms - self._look_ms >= LOOK_MS:
            self._tell_forgeries(now_ms)

    def _tell_forgeries(self, now_ms: float) -> None:
        causes = self._receiver.statistics().causes
        seen = causes.get(Cause.FRAME_TAG, 0) + causes.get(Cause.FRAME_SIGNATURE, 0)
        fresh, self._forgeries = seen - self._forgeries, seen
        budget = self._budget_per_s * (now_ms - self._look_ms) / 1000
        self._look_ms = now_ms
        if fresh:
            self._on_event(ForgeriesRefused(self.channel.channel_id, fresh, fresh > budget))

    def close(self) -> None:
        """Take nothing more, and report what is missing now."""
        for event in self._receiver.close():
            self._on_event(event)

    def statistics(self) -> ChannelStatistics:
        seen = self._receiver.statistics()
        causes = Counter({str(cause): n for cause, n in seen.causes.items()})
        if self._oversized:
            causes[str(Cause.FRAME_SIZE)] += self._oversized
        return ChannelStatistics(
            verified_messages=seen.delivered_messages,
            verified_frames=seen.verified_frames,
            rejected_frames=seen.rejected_frames + self._oversized,
            lost_messages=seen.lost_messages,
            unknown_losses=seen.unknown_losses,
            causes=dict(causes),
        )


class CommunicationService:
    """All sealed channels of one process."""

    def __init__(
        self,
        *,
        publish: Publish,
        now_ms: Callable[[], float],
        call_later: CallLater,
        limits: ChannelLimits = HOST_LIMITS,
    ) -> None:
        self._limits = limits
        self._publish, self._now_ms, self._call_later = publish, now_ms, call_later
        self._senders: dict[bytes, SecureSender] = {}
        self._receivers: dict[bytes, SecureReceiver] = {}
        self._closed: Counter[str] = Counter()
        self._closed_causes: Counter[str] = Counter()

    def open_sender(self, channel: SealedChannel) -> SecureSender:
        """The sending end of a channel; one that was open before is closed."""
        self._forget(self._senders.pop(channel.channel_id, None))
        publish = self._hand_over(channel.channel_id) if channel.within_host else self._publish
        sender = SecureSender(channel, publish, self._now_ms, self._call_later)
        self._senders[channel.channel_id] = sender
        return sender

    def open_receiver(
        self,
        channel: SealedChannel,
        deliver: Deliver,
        on_event: Callable[[ChannelEvent], None],
    ) -> SecureReceiver:
        """The receiving end of a channel; one that was open before is closed."""
        self._forget(self._receivers.pop(channel.channel_id, None))
        receiver = SecureReceiver(channel, deliver, on_event, self._now_ms, self._limits)
        self._receivers[channel.channel_id] = receiver
        return receiver

    def _hand_over(self, channel_id: bytes) -> Publish:
        """Bring frames to the receiving end of the same channel here; without one they are lost."""

        def publish(_topic: str, frame: bytes, _qos: int) -> None:
            receiver = self._receivers.get(channel_id)
            if receiver is not None:
                receiver.receive(frame, retained=False)

        return publish

    def apply_grant(self, grant: Grant, frame_sign_seed: bytes) -> None:
        """Hand an opened grant to the channel ends it is for.

        Raises:
            LocalProtocolError: this host has no such channel end, or the grant does not fit it.
        """
        sender = self._senders.get(grant.channel_id) if Role.SEND in grant.roles else None
        receiver = self._receivers.get(grant.channel_id) if Role.RECEIVE in grant.roles else None
        if receiver is not None:
            receiver.install(grant)
        if sender is not None:
            sender.install(grant, frame_sign_seed)
        if sender is None and receiver is None:
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

    def stopped(self) -> dict[bytes, int]:
        """Channels that deliver nothing more under the epoch that they have, with that epoch."""
        return {
            channel_id: receiver.stopped_epoch
            for channel_id, receiver in self._receivers.items()
            if receiver.stopped_epoch is not None
        }

    def close(self, channel_id: bytes) -> None:
        """Forget a channel; its figures stay in the totals."""
        self._forget(self._senders.pop(channel_id, None))
        self._forget(self._receivers.pop(channel_id, None))

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

    def _forget(self, end: SecureSender | SecureReceiver | None) -> None:
        if end is None:
            return
        if isinstance(end, SecureReceiver):
            end.close()
        part = end.statistics()
        self._closed.update({name: getattr(part, name) for name in _FIGURES})
        self._closed_causes.update(part.causes)


_FIGURES = (
    "sealed_messages", "sealed_frames", "verified_messages", "verified_frames",
    "rejected_frames", "lost_messages", "unknown_losses",
)  # fmt: skip


__all__ = [
    "Cause", "ChannelStatistics", "CommunicationService", "SealedChannel", "SecureReceiver", "SecureSender",
]  # fmt: skip
