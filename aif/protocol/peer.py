"""One sender as a receiver knows it, and the frames that wait until their sender is known.

Decides how long and how much may wait. Does not open frames.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from aif.protocol.frame import FrameOpener
from aif.protocol.ledger import SenderLedger
from aif.protocol.numbers import HELD_BYTES, HELD_FRAMES, AuthMode, Cause


@dataclass(frozen=True, slots=True)
class RosterSender:
    """One sender of an epoch: index, ``sender_key``, and frame-sign key unless the mode is aead."""

    index: int
    key: bytes = field(repr=False)
    verify_key: bytes | None = None


class Peer:
    """State of one sender in one epoch; never reset, only replaced by a new index or epoch."""

    __slots__ = ("alarmed", "epoch", "index", "ledger", "opener", "refused", "retire_ms", "row", "window")

    def __init__(self, channel: bytes, epoch: int, row: RosterSender, mode: AuthMode, now_ms: float) -> None:
        self.row, self.epoch, self.index = row, epoch, row.index
        self.opener = FrameOpener(channel, epoch, row.index, row.key, row.verify_key)
        self.ledger = SenderLedger(channel, row.index, epoch, mode, now_ms)
        self.window = self.ledger.window
        self.refused: Cause | None = None
        """The cause under which its frames are dropped now: it left, or a checkpoint ended its delivery."""
        self.retire_ms: float | None = None
        self.alarmed = False


@dataclass(frozen=True, slots=True)
class HeldFrame:
    """A frame that a later roster may explain; ``cause`` is counted if none does."""

    frame: bytes
    cause: Cause
    until_ms: float


class HeldFrames:
    """Bounded queue in order of arrival. Its frames are unauthenticated: the bounds are the protection."""

    __slots__ = ("_bytes", "_frames")

    def __init__(self) -> None:
        self._frames: deque[HeldFrame] = deque()
        self._bytes = 0

    def hold(self, held: HeldFrame) -> bool:
        """Keep it; False if there is no room."""
        if len(self._frames) >= HELD_FRAMES or self._bytes + len(held.frame) > HELD_BYTES:
            return False
        self._frames.append(held)
        self._bytes += len(held.frame)
        return True

    def take(self, now_ms: float) -> tuple[list[HeldFrame], list[HeldFrame]]:
        """Empty the queue: (still in time, too late)."""
        frames, self._frames, self._bytes = self._frames, deque(), 0
        alive = [held for held in frames if now_ms < held.until_ms]
        return alive, [held for held in frames if now_ms >= held.until_ms]

    def expire(self, now_ms: float) -> list[HeldFrame]:
        """Remove and return those whose time is over."""
        late: list[HeldFrame] = []
        while self._frames and now_ms >= self._frames[0].until_ms:
            late.append(self._frames.popleft())
            self._bytes -= len(late[-1].frame)
        return late
