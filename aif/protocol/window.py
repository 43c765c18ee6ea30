"""The replay window of one sender in one epoch.

Decides whether a counter may still be accepted and why not. Does not authenticate: ``accept`` is called only
after a frame's tag and signature were good, so a forged counter never moves the window. Memory is constant
whatever the counters are.

Invariants: a counter is accepted at most once; ``top`` never falls; bit ``i`` of ``bits`` belongs to
``top - i`` and implies that the tag prefix of that slot is the accepted frame's.
"""

from __future__ import annotations

from aif.protocol.numbers import WINDOW_FRAMES, Cause

_MASK = (1 << WINDOW_FRAMES) - 1
_SLOT = WINDOW_FRAMES - 1  # a power of two: slot = counter & _SLOT


class ReplayWindow:
    """Sliding window over 48-bit counters (RFC 4303 §3.4.3), with a tag prefix per accepted counter."""

    __slots__ = ("_tags", "bits", "floor", "previous_top", "top")

    def __init__(self) -> None:
        self.top = -1
        """Highest accepted counter; -1 before the first."""
        self.previous_top = -1
        """``top`` before it last rose: what had been seen when the newest frame came."""
        self.bits = 0
        self.floor = 0
        """Counters below were settled (accepted, or reported as lost) and are never accepted any more."""
        self._tags: list[bytes] = [b""] * WINDOW_FRAMES

    def refusal(self, counter: int, tag_prefix: bytes) -> Cause | None:
        """Why ``counter`` cannot be accepted, or None if it can.

        Args:
            counter: 48-bit frame counter, not above ``top`` (one above it is always acceptable).
            tag_prefix: first 8 bytes of the frame's tag, not yet authenticated.
        """
        behind = self.top - counter
        if behind < 0:
            return None
        if behind < WINDOW_FRAMES and self.bits >> behind & 1:
            # QoS 1 repeats a frame bit by bit; another tag under the same counter is an attack or a clone
            return Cause.DUP_REDELIVERY if self._tags[counter & _SLOT] == tag_prefix else Cause.REPLAY_WINDOW
        return Cause.REPLAY_STALE if behind >= WINDOW_FRAMES or counter < self.floor else None

    def accept(self, counter: int, tag_prefix: bytes) -> None:
        """Mark an authenticated frame's counter as used."""
        ahead = counter - self.top
        if ahead > 0:
            # a jump may be 2**48 - 1: never shift by it
            self.bits = (self.bits << ahead | 1) & _MASK if ahead < WINDOW_FRAMES else 1
            self.previous_top = self.top
            self.top = counter
        else:
            self.bits |= 1 << -ahead
        self._tags[counter & _SLOT] = tag_prefix

    def accepted_above(self, counter: int) -> list[int]:
        """Accepted counters above ``counter``, which itself must lie inside the window."""
        return [self.top - i for i in range(self.top - counter) if self.bits >> i & 1]
