"""The receiving end of one channel: frames in, messages and events out.

Decides what is delivered, in the order cheap checks first, state last: retained, length, version and type,
epoch, sender, window, AEAD, signature, window update, plaintext, delivery. Does no I/O, reads no clock and
never answers a frame. Not safe for concurrent use.

Invariants: nothing is raised for a bad frame, every drop has exactly one counter; a frame changes state only
after its tag and signature were good (frames that wait for their roster aside, which are bounded), so in
signed mode nobody but the producer can change any; no counter is delivered twice; every loss a watermark
shows is reported once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aif.errors import DecryptionFailed, LocalProtocolError, RemoteProtocolError, SignatureInvalid
from aif.protocol.bundle import decode_bundle
from aif.protocol.events import (
    AuthFailure,
    ChannelEvent,
    ChannelSilent,
    CloneSuspected,
    ControlReceived,
    LossReport,
)
from aif.protocol.fragment import Reassembler, decode_fragment
from aif.protocol.frame import MINIMUM_BYTES, SIGNED_TYPES, Buffer, digest, first_byte_verdicts
from aif.protocol.numbers import (
    CONTROL_BODY_BYTES,
    EPOCH_GRACE_MS,
    EVENT_LIMIT,
    HEADER_BYTES,
    HELD_MS,
    HOST_LIMITS,
    RETIRE_GRACE_MS,
    SIGNATURE_BYTES,
    TAG_BYTES,
    TAG_PREFIX_BYTES,
    AuthMode,
    Cause,
    ChannelLimits,
    ControlCode,
    FrameType,
)
from aif.protocol.peer import HeldFrame, HeldFrames, Peer, RosterSender
from aif.protocol.watermark import decode_watermark

_SIGNED_TYPES = frozenset(int(kind) for kind in SIGNED_TYPES)
_LAST_DATA_TYPE = int(FrameType.DATA_SIGNED)
_WATERMARKS = (FrameType.WATERMARK, FrameType.WATERMARK_SIGNED)
_FRAGMENTS = (FrameType.FRAGMENT, FrameType.FRAGMENT_SIGNED)
_BUNDLES = (FrameType.BUNDLE, FrameType.BUNDLE_SIGNED)


@dataclass(frozen=True, slots=True)
class ReceiverStatistics:
    """Figures of one channel since the receiver was made; frames that wait for a roster are in none."""

    verified_frames: int
    """Frames whose tag, and signature where the type has one, was good."""
    delivered_messages: int
    lost_frames: int
    lost_messages: int
    provisional_gap_frames: int
    """Frames that are missing so far but not counted as lost yet."""
    unknown_losses: int
    """Loss reports without a number of messages: only the senders know how many these were."""
    dropped_events: int
    causes: dict[Cause, int]
    """Drops and findings by cause, without zeros."""

    @property
    def rejected_frames(self) -> int:
        """Frames that were dropped, harmless redeliveries aside."""
        return sum(n for cause, n in self.causes.items() if cause in _REJECTIONS)


_REJECTIONS = frozenset(cause for cause in Cause if cause.split(".")[0] in {"frame", "replay", "bundle"}) | {
    Cause.FRAGMENT_ORDER,
    Cause.FRAGMENT_SIZE,
}


_TRUST_CAUSES = {DecryptionFailed: Cause.FRAME_TAG, SignatureInvalid: Cause.FRAME_SIGNATURE}


class ChannelReceiver:
    """Opens everything one AIM instance receives on one channel."""

    def __init__(self, channel: bytes, mode: AuthMode, *, limits: ChannelLimits = HOST_LIMITS) -> None:
        self._channel, self._mode, self._limits = channel, mode, limits
        self._peers: dict[bytes, Peer] = {}  # by bytes 1..3 of the header: epoch and sender
        self._epoch: int | None = None
        self._previous: int | None = None
        self._previous_ends_ms = 0.0
        self._checkpoint = mode is AuthMode.CHECKPOINT
        self._refused_type = first_byte_verdicts(mode)
        self._causes = dict.fromkeys(Cause, 0)
        self._held = HeldFrames()
        self._events: deque[ChannelEvent] = deque()
        self._dropped_events = self._unknown_losses = 0
        self._ended: set[int] = set()
        self._reassembler = Reassembler(limits)
        self._verified = self._messages = 0
        self._closed_frames = self._closed_messages = 0

    # --- what the Controller says -----------------------------------------------------------------

    def install_epoch(self, epoch: int, senders: Iterable[RosterSender], *, now_ms: float) -> list[bytes]:
        """Accept an epoch, or more senders in the current one.

        A known sender is left alone: neither its window nor its counters are ever reset. A newer epoch makes
        the current one the previous, which stays acceptable for 30 s.

        Returns:
            Messages of frames that had been waiting for this roster.
        """
        rows = list(senders)
        for row in rows:
            if self._mode is not AuthMode.AEAD and row.verify_key is None:
                raise LocalProtocolError(f"sender {row.index} needs a verify key in {self._mode} mode")
        if self._epoch is not None and epoch < self._epoch:
            raise LocalProtocolError(f"epoch {epoch} is older than the current epoch {self._epoch}")
        kept = [peer for peer in self._peers.values() if peer.epoch == epoch]
        known = {peer.index: peer.row for peer in kept}
        if len({*known, *(row.index for row in rows)}) > self._limits.max_senders:
            raise LocalProtocolError(f"a channel has at most {self._limits.max_senders} senders")
        for row in rows:
            if known.setdefault(row.index, row) != row:
                raise LocalProtocolError(f"sender {row.index} has another key in this epoch already")
        fresh = [
            Peer(self._channel, epoch, row, self._mode, now_ms)
            for index, row in known.items()
            if index not in {peer.index for peer in kept}
        ]
        for peer in fresh:
            peer.ledger.ended = peer.index in self._ended
        if self._epoch is not None and epoch > self._epoch:
            self._close_previous()
            self._previous, self._previous_ends_ms = self._epoch, now_ms + EPOCH_GRACE_MS
            if (self._previous ^ epoch) & 0xFF == 0:  # the header could not tell them apart
                self._close_previous()
        self._epoch = epoch
        self._peers |= {peer.opener.tail: peer for peer in fresh}
        return self._replay_held(now_ms)

    def retire_sender(self, index: int, *, now_ms: float, at_once: bool = False) -> None:
        """A sender leaves the mapping.

        Args:
            index: of the sender; unknown ones are ignored.
            now_ms: start of the 2 s in which it may still reconcile.
            at_once: its host is dead or evicted: refuse it now and report an unknown tail.
        """
        for peer in self._peers.values():
            if peer.index == index and peer.refused is None:
                peer.retire_ms = now_ms if at_once else now_ms + RETIRE_GRACE_MS
                if at_once:
                    self._close(peer)

    def close(self) -> list[ChannelEvent]:
        """The receiver leaves: settle what is open and fetch what happened. Nothing is accepted any more."""
        for peer in self._peers.values():
            self._close(peer, by_choice=True)
        return self._fetch()

    # --- what the broker says ---------------------------------------------------------------------

    def receive(self, frame: Buffer, *, now_ms: float, retained: bool = False) -> Sequence[bytes]:
        """Messages this frame completes, in order; empty for whatever is dropped.

        Args:
            frame: an MQTT payload from the channel's topic.
            now_ms: time of arrival, monotonic.
            retained: the MQTT retain flag: a data frame is never retained, so a retained one is a replay.
        """
        if retained:
            self._causes[Cause.FRAME_RETAINED] += 1
            return []
        return self._open(frame if type(frame) is bytes else bytes(frame), now_ms, now_ms + HELD_MS)

    def poll(self, now_ms: float) -> list[ChannelEvent]:
        """Let time pass and fetch what happened: call at least every second."""
        for late in self._held.expire(now_ms):
            self._causes[late.cause] += 1
        self._causes[Cause.FRAGMENT_TIMEOUT] += self._reassembler.expire(now_ms)
        for peer in self._peers.values():
            if peer.refused is not None:
                continue
            self._note(peer.ledger.poll(now_ms))
            self._end_if_stopped(peer)
            if peer.refused is not None:
                continue
            if peer.ledger.finished:
                peer.refused = Cause.FRAME_SENDER
            elif peer.retire_ms is not None and now_ms >= peer.retire_ms:
                self._close(peer)
        if self._previous is not None and now_ms >= self._previous_ends_ms:
            self._close_previous()
        return self._fetch()

    def _fetch(self) -> list[ChannelEvent]:
        events = list(self._events)
        self._events.clear()
        return events

    def statistics(self) -> ReceiverStatistics:
        ledgers = [peer.ledger for peer in self._peers.values()]
        return ReceiverStatistics(
            verified_frames=self._verified,
            delivered_messages=self._messages,
            lost_frames=self._closed_frames + sum(ledger.lost_frames for ledger in ledgers),
            lost_messages=self._closed_messages + sum(ledger.lost_messages for ledger in ledgers),
            provisional_gap_frames=sum(ledger.provisional_gap_frames for ledger in ledgers),
            unknown_losses=self._unknown_losses,
            dropped_events=self._dropped_events,
            causes={cause: count for cause, count in self._causes.items() if count},
        )

    # --- the order of checks ----------------------------------------------------------------------

    def _open(self, frame: bytes, now_ms: float, held_until_ms: float) -> Sequence[bytes]:
        size = len(frame)
        kind = frame[0] & 15 if frame else 0
        if (
            size < MINIMUM_BYTES[kind]
            or size > self._limits.max_frame_bytes
            or self._refused_type[frame[0]] is not None
        ):
            return self._refuse_shape(frame, MINIMUM_BYTES[kind])
        peer = self._peers.get(frame[1:4])
        if peer is None or peer.refused is not None:
            return self._refuse_sender(frame, peer, now_ms, held_until_ms)
        signed = kind in _SIGNED_TYPES
        body = frame[:-SIGNATURE_BYTES] if signed else frame
        counter = int.from_bytes(frame[4:HEADER_BYTES], "big")
        tag_prefix = body[-TAG_BYTES : TAG_PREFIX_BYTES - TAG_BYTES]
        if counter <= peer.window.top:
            cause = peer.window.refusal(counter, tag_prefix)
            if cause is not None:
                return self._refuse_replay(peer, counter, cause)
        try:
            plaintext = peer.opener.open(body)
            if signed:
                peer.opener.verify(body, frame[-SIGNATURE_BYTES:])
        except (DecryptionFailed, SignatureInvalid) as error:
            self._causes[_TRUST_CAUSES[type(error)]] += 1
            return []
        peer.window.accept(counter, tag_prefix)
        self._verified += 1
        if kind <= _LAST_DATA_TYPE:
            messages: Sequence[bytes] = [plaintext]
        elif kind in _WATERMARKS:
            return self._watermark(peer, counter, plaintext, now_ms)
        else:
            messages = self._parse(peer, kind, plaintext, now_ms)
        if self._checkpoint:
            peer.ledger.accepted(counter, len(messages), now_ms, digest(body))
            self._end_if_stopped(peer)
        else:
            peer.ledger.accepted(counter, len(messages), now_ms)
        self._messages += len(messages)
        return messages

    def _refuse_shape(self, frame: bytes, minimum: int) -> list[bytes]:
        size = len(frame)
        if size < minimum:
            cause = Cause.FRAME_SHORT
        elif size > self._limits.max_frame_bytes:
            cause = Cause.FRAME_SIZE
        else:
            cause = self._refused_type[frame[0]] or Cause.FRAME_TYPE
        self._causes[cause] += 1
        return []

    def _refuse_sender(
        self, frame: bytes, peer: Peer | None, now_ms: float, held_until_ms: float
    ) -> list[bytes]:
        """Steps 4 and 5: hold what the next roster may explain, drop the rest."""
        if peer is not None and peer.refused is not None:
            self._causes[peer.refused] += 1
            return []
        current, low = self._epoch, frame[1]
        if current is not None and low == current & 0xFF:
            cause, hold = Cause.FRAME_SENDER, True
        elif self._previous is not None and low == self._previous & 0xFF:
            cause, hold = Cause.FRAME_SENDER, False
        else:
            cause, hold = Cause.FRAME_EPOCH, current is None or low == (current + 1) & 0xFF
        if not (hold and now_ms < held_until_ms and self._held.hold(HeldFrame(frame, cause, held_until_ms))):
            self._causes[cause] += 1
        return []

    def _replay_held(self, now_ms: float) -> list[bytes]:
        alive, late = self._held.take(now_ms)
        for held in late:
            self._causes[held.cause] += 1
        return [message for held in alive for message in self._open(held.frame, now_ms, held.until_ms)]

    def _refuse_replay(self, peer: Peer, counter: int, cause: Cause) -> list[bytes]:
        self._causes[cause] += 1
        if cause is Cause.REPLAY_WINDOW and not peer.alarmed:
            peer.alarmed = True
            self._note([CloneSuspected(self._channel, peer.index, peer.epoch, counter)])
        return []

    # --- plaintexts -------------------------------------------------------------------------------

    def _parse(self, peer: Peer, kind: int, plaintext: bytes, now_ms: float) -> Sequence[bytes]:
        try:
            if kind in _BUNDLES:
                return decode_bundle(plaintext)
            if kind in _FRAGMENTS:
                return self._fragment(peer, plaintext, now_ms)
            self._control(peer, plaintext, now_ms)
        except RemoteProtocolError as error:
            self._causes[Cause(error.counter)] += 1
        return []

    def _fragment(self, peer: Peer, plaintext: bytes, now_ms: float) -> list[bytes]:
        piece = decode_fragment(plaintext, self._limits.max_message_bytes)
        key = peer.opener.tail
        if self._reassembler.make_room(key, piece):
            self._causes[Cause.FRAGMENT_SIZE] += 1
        message = self._reassembler.add(key, piece, now_ms=now_ms)
        return [] if message is None else [message]

    def _control(self, peer: Peer, plaintext: bytes, now_ms: float) -> None:
        if not 1 <= len(plaintext) <= 1 + CONTROL_BODY_BYTES or plaintext[0] not in set(ControlCode):
            raise RemoteProtocolError("control frame is malformed", counter=Cause.FRAME_TYPE)
        code = ControlCode(plaintext[0])
        if code is ControlCode.END_OF_STREAM:  # its final watermark is due, and may be lost
            peer.ledger.ended = True
            self._ended.add(peer.index)
            if peer.retire_ms is None:
                peer.retire_ms = now_ms + RETIRE_GRACE_MS
        self._note([ControlReceived(self._channel, peer.index, peer.epoch, code, plaintext[1:])])

    def _watermark(self, peer: Peer, counter: int, plaintext: bytes, now_ms: float) -> list[bytes]:
        ledger = peer.ledger
        try:
            ledger.watermark(counter, decode_watermark(plaintext, counter=counter, mode=self._mode), now_ms)
        except RemoteProtocolError as error:
            self._causes[Cause(error.counter)] += 1
            ledger.accepted(counter, 0, now_ms)
        self._end_if_stopped(peer)
        return []

    # --- leaving ----------------------------------------------------------------------------------

    def _close(self, peer: Peer, *, by_choice: bool = False) -> None:
        if peer.refused is None:
            self._note(peer.ledger.close(by_choice=by_choice))
        peer.refused = peer.refused or Cause.FRAME_SENDER
        self._causes[Cause.FRAGMENT_TIMEOUT] += self._reassembler.forget_sender(peer.opener.tail)

    def _close_previous(self) -> None:
        """The grace of the previous epoch is over: report what is missing and forget its keys."""
        if self._previous is None:
            return
        for key in [key for key, peer in self._peers.items() if peer.epoch == self._previous]:
            peer = self._peers.pop(key)
            self._close(peer)
            self._closed_frames += peer.ledger.lost_frames
            self._closed_messages += peer.ledger.lost_messages
        self._previous = None

    def _end_if_stopped(self, peer: Peer) -> None:
        """A checkpoint showed that delivery from this sender must end."""
        if peer.ledger.stopped is not None and peer.refused is None:
            peer.refused = peer.ledger.stopped
            self._note(peer.ledger.close())

    def _note(self, events: Iterable[ChannelEvent]) -> None:
        for event in events:
            if isinstance(event, LossReport):
                self._causes[event.reason] += 1
                self._unknown_losses += event.messages is None
            elif isinstance(event, AuthFailure):
                self._causes[event.cause] += 1
            elif isinstance(event, ChannelSilent):
                self._causes[Cause.CHANNEL_SILENT] += 1
            if len(self._events) >= EVENT_LIMIT:
                self._events.popleft()
                self._dropped_events += 1
            self._events.append(event)
