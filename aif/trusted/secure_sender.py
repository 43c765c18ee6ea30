"""The sending end of a sealed channel: what leaves when, under which grant, and what waits for the transport.

Decides when a bundle or a watermark leaves; opens no socket, reads no clock and owns no task. Frames are made
by ``protocol.channel_sender``. A watermark that is due by count leaves when whatever runs now has run, or
before the next frame: its signature costs more than all else about a message, and nobody shall wait for it.

Invariants: without a grant nothing is sent; no (key, counter) is used twice, whatever grants come; a message
that ``send`` accepted is sealed once, and leaves in order or with its epoch's loss report.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aif.errors import GrantExhausted, LocalProtocolError, MessageTooLarge, NotConnected, TransportError
from aif.model.packed import Packed
from aif.protocol.bundle import BundlePolicy, Bundler
from aif.protocol.channel_sender import ChannelSender
from aif.protocol.frame import Buffer, sender_key
from aif.protocol.grant import Grant, Role, RosterRow
from aif.protocol.numbers import (
    CHECKPOINT_FRAMES,
    FRAGMENT_HEADER_BYTES,
    FRAGMENT_LIMIT,
    HOST_LIMITS,
    SIGNED_OVERHEAD_BYTES,
    AuthMode,
    Cause,
    ControlCode,
)
from aif.protocol.watermark import WatermarkSchedule, interval_frames

Publish = Callable[[str, bytes, int], None]
"""``publish(topic, frame, qos)``; it never blocks and may raise TransportError."""

CallLater = Callable[[float, Callable[[], None]], None]
"""``call_later(delay_ms, function)``; a delay of 0: when whatever runs now has run."""

END_QOS = 1
"""The end of a stream travels once more at this QoS. Watermarks travel at the channel's own: at another they
would arrive out of order with the data they count, and each one repeats the totals of those before it."""

_FRAMES_TO_END = 5
"""Kept of every grant, so that an epoch can end: what waits, the watermark it may make due, the end of the
stream twice, and the final watermark."""


@dataclass(frozen=True, slots=True)
class SealedChannel:
    """What both ends know about one channel before any key exists."""

    channel_id: bytes
    topic: str
    auth: AuthMode
    qos: int = 0
    policy: BundlePolicy = field(default_factory=BundlePolicy)
    within_host: bool = False
    """Both ends are here: frames go straight from one to the other."""
    max_message_bytes: int = HOST_LIMITS.max_message_bytes
    """Longest message that every receiver puts together."""


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """Figures of one channel end. Frames may carry many messages; ``causes`` counts drops by reason."""

    sealed_messages: int = 0
    sealed_frames: int = 0
    verified_messages: int = 0
    verified_frames: int = 0
    rejected_frames: int = 0
    lost_messages: int = 0
    unknown_losses: int = 0
    """Losses that are certain but of unknown size: their sender's last watermark was lost too."""
    causes: Mapping[str, int] = field(default_factory=dict)


class SecureSender:
    """The sending end of a channel on this host.

    A frame that the transport cannot take stays here, sealed, and goes out before anything else: nothing that
    ``send`` has accepted is sealed twice or overtaken. Until it is gone, ``send`` accepts no more.
    """

    def __init__(
        self, channel: SealedChannel, publish: Publish, now_ms: Callable[[], float], call_later: CallLater
    ) -> None:
        self.channel = channel
        self._publish, self._now_ms, self._call_later = publish, now_ms, call_later
        self._epoch: _SendingEpoch | None = None
        self._newest_epoch = -1
        self._finished = False
        self._outgoing: deque[tuple[bytes, int]] = deque()
        self._timer_armed = self._mark_armed = False
        self._closed_messages = self._closed_frames = 0
        self._causes: Counter[Cause] = Counter()

    @property
    def keyed(self) -> bool:
        return self._epoch is not None

    @property
    def epoch(self) -> int:
        """Of the newest grant; -1 before the first."""
        return self._newest_epoch

    def install(self, grant: Grant, frame_sign_seed: bytes) -> None:
        """Start sending under a grant; an earlier one ends with a final watermark.

        A channel whose stream has ended stays silent: a grant that renews its key changes nothing.

        Raises:
            LocalProtocolError: the grant gives no right to send or no key, is in another mode than the
                deployment named, or is not newer than the last one. The current grant stays in force.
        """
        row = next((r for r in grant.roster if r.index == grant.sender_index), None)
        if row is None or grant.k_epoch is None or Role.SEND not in grant.roles:
            raise LocalProtocolError(f"the grant for {self.channel.topic} does not let this host send")
        if grant.auth_mode is not self.channel.auth:
            raise LocalProtocolError(f"the grant for {self.channel.topic} does not fit its deployment")
        if grant.epoch <= self._newest_epoch:
            raise LocalProtocolError(
                f"epoch {grant.epoch} of {self.channel.topic} is not newer than {self._newest_epoch}"
            )
        if self._finished:
            return
        fresh = _SendingEpoch(self.channel, grant, row, frame_sign_seed, self._now_ms())
        self._end_epoch()
        self._epoch, self._newest_epoch = fresh, grant.epoch
        self._drain()

    def send(self, payload: bytes) -> None:
        """Seal and publish, now or with the next bundle; errors as in `send_all`.

        Most single messages need no more than what stands here, and they are what somebody waits for.
        """
        epoch = self._epoch
        if epoch is None or self._outgoing or len(payload) >= epoch.short_bytes:
            self._send_batch((payload,))
            return
        sender = epoch.sender
        if (
            sender.frames >= sender.watermark_at
            or sender.frames >= epoch.plenty_until
            or not epoch.bundler.leaves_alone(self._now_ms())
        ):
            self._send_batch((payload,))
            return
        frame = sender.seal(payload)
        if sender.frames >= sender.watermark_at:
            self._arm_mark()
        try:
            self._publish(self.channel.topic, frame, self.channel.qos)
        except MessageTooLarge:
            self._causes[Cause.FRAME_SIZE] += 1
            raise
        except TransportError:
            self._outgoing.append((frame, self.channel.qos))

    def send_all(self, payloads: Sequence[bytes]) -> None:
        """Seal and publish messages that belong together: one look at the clock, few frames, one order.

        Raises:
            NotConnected: no frame can be sent at present, because there is no connection or no room; no
                payload was taken and all may be sent again later.
            GrantExhausted: too few frames are left in the grant; no payload was taken and all may be sent
                again under the next one.
            MessageTooLarge: one is longer than the receivers put together, or than the transport carries.
            LocalProtocolError: no grant yet, or the stream has ended.
        """
        if len(payloads) == 1:
            self.send(payloads[0])
        else:
            self._send_batch(payloads)

    def _send_batch(self, payloads: Sequence[bytes]) -> None:
        epoch = self._epoch
        if epoch is None:
            raise LocalProtocolError(f"channel {self.channel.topic} has no key yet")
        count = len(payloads)
        alike = count == 1 or type(payloads) is Packed
        longest = len(payloads[0]) if alike else max(map(len, payloads), default=0)
        if (
            longest >= epoch.short_bytes
            or self._outgoing
            or epoch.sender.remaining_frames < 2 * count + _FRAMES_TO_END
        ):
            self._check(epoch, longest, count)
        now_ms, bundler = self._now_ms(), epoch.bundler
        refused = self._seal(epoch, bundler.add_all(payloads, now_ms))
        if not self._timer_armed and (wait_ms := bundler.wait_ms(now_ms)) is not None:
            self._timer_armed = True
            self._call_later(wait_ms, self._flush_due)
        if refused is not None:
            raise refused

    def _check(self, epoch: _SendingEpoch, longest: int, count: int) -> None:
        """Look closely where not every message surely fits a frame that is left: refuse all, or none."""
        limit = self.channel.max_message_bytes
        if longest > limit:
            raise MessageTooLarge(
                f"a message of {longest:,} B on {self.channel.topic} exceeds the limit of {limit:,} B of its "
                "receivers",
                hint="send smaller records, or place the AIM that reads them elsewhere",
            )
        if epoch.too_long(longest):
            raise MessageTooLarge(
                f"a message of {longest:,} B needs too many frames of {epoch.max_frame_bytes:,} B",
                hint="raise max_frame_bytes of the receivers",
            )
        if self._outgoing:
            self._drain()
            if self._outgoing:
                raise NotConnected(
                    f"channel {self.channel.topic} waits for the transport ({len(self._outgoing)} frames)"
                )
        if epoch.exhausted_by(longest, count):
            if not epoch.exhausted:
                epoch.exhausted = True
                self._causes[Cause.GRANT_EXHAUSTED] += 1
            raise GrantExhausted(
                f"channel {self.channel.topic} has used up the {epoch.max_frames:,} frames of its grant",
                hint="it goes on with the next grant; larger bundles need fewer frames",
            )

    def _flush_due(self) -> None:
        self._timer_armed = False
        self.flush()

    def flush(self) -> None:
        """Send what waits for company, without waiting longer."""
        if self._epoch is not None:
            self._seal(self._epoch, self._epoch.bundler.flush())

    def _seal(self, epoch: _SendingEpoch, batches: Iterable[Sequence[Buffer]]) -> MessageTooLarge | None:
        qos = self.channel.qos
        for batch in batches:
            for frame in epoch.sender.seal_batch(batch):
                self._outgoing.append((frame, qos))
        if epoch.sender.frames >= epoch.sender.watermark_at:
            self._arm_mark()
        return self._drain()

    def _arm_mark(self) -> None:
        if not self._mark_armed:
            self._mark_armed = True
            self._call_later(0, self._mark_due)

    def _mark_due(self) -> None:
        """Whatever ran has run: send the watermark, unless the next frame or the next epoch did."""
        self._mark_armed = False
        sender = self._epoch.sender if self._epoch is not None else None
        if sender is not None and sender.frames >= sender.watermark_at:
            self._outgoing.append((sender.seal_watermark(), self.channel.qos))
            self._drain()

    def _drain(self) -> MessageTooLarge | None:
        """Publish sealed frames in order, as far as the transport takes them.

        A frame that it will never take is dropped and counted, and the error returned; the receivers see it
        as a loss.
        """
        refused = None
        while self._outgoing:
            frame, qos = self._outgoing[0]
            try:
                self._publish(self.channel.topic, frame, qos)
            except MessageTooLarge as error:
                self._causes[Cause.FRAME_SIZE] += 1
                refused = error
            except TransportError:
                break
            self._outgoing.popleft()
        return refused

    def poll(self, now_ms: float) -> None:
        """Send what the transport could not take before, and the watermark that is due, if one is."""
        self._drain()
        epoch = self._epoch
        if epoch is None or self._outgoing or epoch.sender.remaining_frames <= _FRAMES_TO_END:
            return
        if epoch.schedule.due_ms(epoch.sender.open_frames) <= now_ms:
            self._seal(epoch, epoch.bundler.flush())
            self._outgoing.append((epoch.sender.seal_watermark(), self.channel.qos))
            epoch.schedule.sent(now_ms)
            self._drain()

    def finish(self) -> None:
        """Flush, say that the stream has ended, and forget the key.

        The end travels at the channel's own QoS, so that it cannot overtake data, and once more at QoS 1.
        """
        epoch = self._epoch
        self._finished = True
        if epoch is None:
            return
        self.flush()
        for qos in sorted({self.channel.qos, END_QOS}):
            self._outgoing.append((epoch.sender.seal_control(ControlCode.END_OF_STREAM, b""), qos))
        self._end_epoch()

    def _end_epoch(self) -> None:
        epoch = self._epoch
        if epoch is None:
            return
        self.flush()
        self._outgoing.append((epoch.sender.seal_watermark(final=True), self.channel.qos))
        self._closed_messages += epoch.sender.messages
        self._closed_frames += epoch.sender.frames
        self._epoch = None
        self._drain()

    def statistics(self) -> ChannelStatistics:
        sender = self._epoch.sender if self._epoch is not None else None
        return ChannelStatistics(
            sealed_messages=self._closed_messages + (sender.messages if sender else 0),
            sealed_frames=self._closed_frames + (sender.frames if sender else 0),
            causes={str(cause): n for cause, n in self._causes.items()},
        )


class _SendingEpoch:
    """What one grant lets this host send."""

    __slots__ = (
        "_interval", "bundler", "exhausted", "max_frame_bytes", "max_frames", "one_frame_bytes",
        "plenty_until", "schedule", "sender", "short_bytes",
    )  # fmt: skip

    def __init__(
        self, channel: SealedChannel, grant: Grant, row: RosterRow, frame_sign_seed: bytes, now_ms: float
    ) -> None:
        if grant.k_epoch is None:
            raise LocalProtocolError(f"the grant for {channel.topic} holds no key")
        key = key_of(grant.k_epoch, row)
        seed = None if grant.auth_mode is AuthMode.AEAD else frame_sign_seed
        # channels that work at one rate, such as question and answer, shall not sign in the same turn
        checkpoint = grant.auth_mode is AuthMode.CHECKPOINT
        first = 1 + grant.channel_id[0] % CHECKPOINT_FRAMES if checkpoint else 0
        self.sender = ChannelSender(
            grant.channel_id, grant.epoch, row.index, key, grant.auth_mode, sign_key=seed,
            max_frames=grant.max_frames, max_frame_bytes=grant.max_frame_bytes, first_interval=first,
        )  # fmt: skip
        self.max_frames, self.max_frame_bytes = grant.max_frames, grant.max_frame_bytes
        self.one_frame_bytes = grant.max_frame_bytes - SIGNED_OVERHEAD_BYTES - FRAGMENT_HEADER_BYTES
        self.short_bytes = min(self.one_frame_bytes, channel.max_message_bytes + 1)
        """Messages below this length need no closer look: one frame carries them, receivers take them."""
        self.plenty_until = self.sender.remaining_frames - 2 - _FRAMES_TO_END
        """Frames up to which the grant surely allows one more short message, and its watermark."""
        self.bundler = Bundler(channel.policy, grant.max_frame_bytes)
        self.schedule = WatermarkSchedule(now_ms)
        self._interval = interval_frames(grant.auth_mode)
        self.exhausted = False

    def exhausted_by(self, longest_bytes: int, messages: int) -> bool:
        """Whether the frames left are needed for the end of the epoch, once these messages are sent."""
        frames = messages * self._frames(longest_bytes)
        return self.sender.remaining_frames < frames + frames // self._interval + _FRAMES_TO_END

    def too_long(self, size_bytes: int) -> bool:
        """Whether no number of frames carries a message of this size."""
        return self._frames(size_bytes) > FRAGMENT_LIMIT

    def _frames(self, size_bytes: int) -> int:
        """Frames that such a message takes at most, watermarks aside."""
        return 1 + size_bytes // self.one_frame_bytes


def key_of(k_epoch: bytes, row: RosterRow) -> bytes:
    """The 32-byte key of one sender of an epoch."""
    return sender_key(k_epoch, row.index, row.aim_instance_id, row.host_id, row.grant_nonce)


__all__ = ["CallLater", "ChannelStatistics", "Publish", "SealedChannel", "SecureSender", "key_of"]
