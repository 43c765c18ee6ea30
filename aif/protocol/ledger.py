"""What one sender says it sent against what arrived: losses, silence and checkpoint hashes.

Decides when frames count as lost and whether a checkpoint interval was the producer's alone. Does not open
frames and reads no clock: time is an argument.

Intervals end at the counters of accepted watermarks and are settled in order, at once when whole, otherwise
after a grace for late frames. Loss of messages is computed from running totals, so a lost watermark or a
dropped malformed bundle is found by the next watermark.

Invariants: every counter below ``settled`` was either accepted or reported as lost, never both (the replay
window's floor refuses what comes later); memory is bounded by ``OPEN_INTERVALS`` and ``OPEN_DIGESTS``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from aif.errors import RemoteProtocolError
from aif.protocol.events import AuthFailure, ChannelEvent, ChannelSilent, LossReport
from aif.protocol.numbers import (
    MISSED_HEARTBEATS,
    OPEN_DIGESTS,
    OPEN_INTERVALS,
    UNVERIFIED_INTERVALS,
    WATERMARK_GRACE_MS,
    WATERMARK_IDLE_MS,
    WATERMARK_TRAFFIC_MS,
    WINDOW_FRAMES,
    AuthMode,
    Cause,
)
from aif.protocol.watermark import Watermark, chain_link, chain_start
from aif.protocol.window import ReplayWindow

_SLOT = WINDOW_FRAMES - 1


@dataclass(slots=True)
class _Interval:
    first: int
    end: int
    """The watermark's own counter; frames are ``first .. end - 1``."""
    received: int
    messages: int
    tail_from: int
    """When the watermark came, nothing from here on had been seen."""
    tail_received: int
    sent_messages: int
    due_ms: float
    previous_hash: bytes | None
    hash: bytes | None
    final: bool
    verified: bool = False

    @property
    def missing(self) -> int:
        return self.end - self.first - self.received


class SenderLedger:
    """Book-keeping for one sender in one epoch, on top of its replay window."""

    __slots__ = (
        "_digests",
        "_epoch",
        "_heard_ms",
        "_intervals",
        "_last_hash",
        "_mode",
        "_open_frames",
        "_open_messages",
        "_open_since_ms",
        "_recent",
        "_sender",
        "_settled_messages",
        "_silent",
        "_unverified",
        "base",
        "channel",
        "ended",
        "final",
        "finished",
        "lost_frames",
        "lost_messages",
        "stopped",
        "window",
    )

    def __init__(self, channel: bytes, sender: int, epoch: int, mode: AuthMode, now_ms: float) -> None:
        self.channel, self._sender, self._epoch, self._mode = channel, sender, epoch, mode
        self.window = ReplayWindow()
        self.base = 0
        """First counter that no watermark has covered yet."""
        self.final = False
        """A final watermark came."""
        self.finished = False
        """... and everything up to it is settled."""
        self.ended = False
        """The stream has ended, in this epoch or before: silence is no news."""
        self.stopped: Cause | None = None
        """Why delivery from this sender has ended (checkpoint mode)."""
        self.lost_frames = 0
        self.lost_messages = 0
        self._open_frames = 0
        self._open_messages = 0
        self._open_since_ms = now_ms
        self._heard_ms = now_ms
        self._silent = False
        self._recent = [0] * WINDOW_FRAMES  # messages per window slot
        self._intervals: deque[_Interval] = deque()
        self._settled_messages = 0
        self._digests: dict[int, bytes] = {}
        self._last_hash: bytes | None = chain_start(channel, sender, epoch)
        self._unverified = 0

    @property
    def provisional_gap_frames(self) -> int:
        """Counters that were jumped over and may still arrive."""
        if self.stopped:
            return 0
        jumped = self.window.top + 1 - self.base - self._open_frames
        return max(0, jumped) + sum(interval.missing for interval in self._intervals)

    # --- what arrives -----------------------------------------------------------------------------

    def accepted(self, counter: int, messages: int, now_ms: float, frame_digest: bytes | None = None) -> None:
        """A frame other than a current watermark was accepted and delivered this many messages.

        Args:
            counter: of the frame, already marked in the window.
            messages: messages completed by it; 0 for a malformed plaintext.
            now_ms: time of arrival.
            frame_digest: b2(header || ciphertext || tag), in checkpoint mode only.
        """
        self._recent[counter & _SLOT] = messages
        if frame_digest is not None and len(self._digests) < OPEN_DIGESTS:
            self._digests[counter] = frame_digest
        if counter >= self.base:
            if not self._open_frames:
                self._open_since_ms = now_ms
            self._open_frames += 1
            self._open_messages += messages
            return
        for interval in self._intervals:
            if counter < interval.end:
                interval.received += 1
                interval.messages += messages
                interval.tail_received += counter >= interval.tail_from
                if not interval.missing:
                    self._check_hash(interval)
                return

    def watermark(self, counter: int, mark: Watermark, now_ms: float) -> None:
        """A watermark was accepted; its counter is already marked in the window.

        Raises:
            RemoteProtocolError: it contradicts an earlier one.
        """
        if counter < self.base:  # overtaken by the next watermark, which covered its counter as a frame
            self.accepted(counter, 0, now_ms)
            return
        if mark.first < self.base:
            raise RemoteProtocolError("watermark contradicts an earlier one", counter=Cause.FRAME_TYPE)
        window = self.window
        newer = window.accepted_above(counter)
        newer_messages = sum(self._recent[later & _SLOT] for later in newer)
        interval = _Interval(
            first=self.base,
            end=counter,
            received=self._open_frames - len(newer),
            messages=self._open_messages - newer_messages,
            tail_from=counter if newer else max(window.previous_top + 1, self.base),
            tail_received=0,
            sent_messages=mark.messages,
            due_ms=now_ms + WATERMARK_GRACE_MS,
            previous_hash=self._last_hash if mark.first == self.base else None,
            hash=mark.hash,
            final=mark.final,
        )
        self._intervals.append(interval)
        self.base = counter + 1
        self.final = self.final or mark.final
        self._last_hash = mark.hash
        self._open_frames, self._open_messages, self._open_since_ms = len(newer), newer_messages, now_ms
        self._heard_ms, self._silent = now_ms, False
        if not interval.missing:
            self._check_hash(interval)

    def _check_hash(self, interval: _Interval) -> None:
        """Verify a whole interval; a digest that was not kept leaves it unverified."""
        count = interval.end - interval.first
        if interval.previous_hash is None or count > OPEN_DIGESTS or self._mode is not AuthMode.CHECKPOINT:
            return
        found = [self._digests.pop(counter, None) for counter in range(interval.first, interval.end)]
        known = [item for item in found if item is not None]
        if len(known) < count:
            return
        interval.verified = chain_link(interval.previous_hash, known) == interval.hash
        if not interval.verified:
            self.stopped = Cause.AUTH_MISMATCH

    # --- what follows from it ---------------------------------------------------------------------

    def poll(self, now_ms: float) -> Iterator[ChannelEvent]:
        """Settle what can be settled, and notice silence."""
        yield from self._settle(now_ms)
        if self.final or self.stopped or self.ended or self._silent:
            return
        # a sender in traffic owes a watermark every second, an idle one every ten
        since, period = (
            (self._open_since_ms, WATERMARK_TRAFFIC_MS)
            if self._open_frames
            else (self._heard_ms, WATERMARK_IDLE_MS)
        )
        if now_ms - since >= MISSED_HEARTBEATS * period:
            self._silent = True
            yield ChannelSilent(self.channel, self._sender, self._epoch, now_ms - self._heard_ms)

    def close(self, *, by_choice: bool = False) -> Iterator[ChannelEvent]:
        """Settle everything now: no further frame of this sender will be accepted.

        Without a final watermark nobody here knows how much was sent, and the report says so.

        Args:
            by_choice: the receiver leaves, the sender may go on: what it sends from now on is not lost, so
                only holes and silence are worth a report.
        """
        yield from self._settle(float("inf"))
        top = self.window.top
        frames = max(0, top + 1 - self.base - self._open_frames)
        nothing_sent = self.ended and top < 0
        in_order = by_choice and not frames and not self._silent
        if self.final or self.stopped or nothing_sent or in_order:
            return
        self.lost_frames += frames
        yield LossReport(
            self.channel, self._sender, self._epoch, self.base, top, frames, None, Cause.LOSS_TAIL
        )
        if self._mode is AuthMode.CHECKPOINT and self._open_frames:
            yield self._auth_failure(self.base, top, Cause.AUTH_UNVERIFIED)

    def _settle(self, now_ms: float) -> Iterator[ChannelEvent]:
        while self._intervals:
            head = self._intervals[0]
            lost = head.sent_messages - self._settled_messages - self.lost_messages - head.messages
            whole = not head.missing and lost <= 0
            if not (whole or now_ms >= head.due_ms or len(self._intervals) > OPEN_INTERVALS):
                return
            self._intervals.popleft()
            self._settled_messages += head.messages
            self.window.floor = head.end + 1
            if not whole:
                yield self._loss(head, max(0, lost))
            if self._mode is AuthMode.CHECKPOINT:
                yield from self._checkpoint(head)
            self.finished = self.finished or head.final

    def _loss(self, interval: _Interval, messages: int) -> LossReport:
        missing = interval.missing
        tail = interval.end - interval.tail_from - interval.tail_received
        self.lost_frames += missing
        self.lost_messages += messages
        only_tail = missing > 0 and tail == missing
        return LossReport(
            self.channel,
            self._sender,
            self._epoch,
            interval.tail_from if only_tail else interval.first,
            interval.end - 1,
            missing,
            messages,
            Cause.LOSS_TAIL if only_tail else Cause.LOSS_GAP,
        )

    def _checkpoint(self, interval: _Interval) -> Iterator[ChannelEvent]:
        # by what is held, not by range: the interval may span a jump of any size
        for counter in [held for held in self._digests if held <= interval.end]:
            del self._digests[counter]
        if interval.verified:
            self._unverified = 0
            return
        if self.stopped is Cause.AUTH_MISMATCH and not interval.missing:
            yield self._auth_failure(interval.first, interval.end - 1, Cause.AUTH_MISMATCH)
            return
        self._unverified += 1
        if self._unverified >= UNVERIFIED_INTERVALS and self.stopped is None:
            self.stopped = Cause.AUTH_UNVERIFIED
        yield self._auth_failure(interval.first, interval.end - 1, Cause.AUTH_UNVERIFIED)

    def _auth_failure(self, first: int, last: int, cause: Cause) -> AuthFailure:
        return AuthFailure(
            self.channel, self._sender, self._epoch, first, last, cause, self.stopped is not None
        )
