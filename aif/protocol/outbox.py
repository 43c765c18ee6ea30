"""What a producer keeps of an acknowledged channel until it is acknowledged, and what it sends when.

Messages go out in order and are kept. Everything that is kept is sent again when the channel has another key
(the consumer is another one, or may be), what has not arrived when the consumer says so, and when it says
nothing for a time. Of a message that was sent before, the same bytes are given out once more; they are sealed
anew by whoever sends them.

The consumer's state comes with its acknowledgements and is kept here, beside what is to be consumed after it:
a consumer that begins elsewhere gets the state first, then every message after it.

Decides nothing about identities (``numbering``); reads no clock.

Invariants: at most ``window`` messages, or ``limit_bytes`` and one message more, are kept (an END aside);
identities grow; ``previous`` of a message names one that was given out before it since the last start, or
what the state stands for, or nothing because all before it was acknowledged.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from aif.protocol.numbering import Acknowledgement, Kind, Numbered

KEPT_BYTES = 4 * 1024 * 1024
"""Of records in one outbox, unless a single one is longer."""

RESEND_MS = 1_000
RESEND_LIMIT_MS = 8_000
"""Without a word from the consumer what is missing is sent again after the first time, then after twice as
long, up to the second: a dead consumer costs little until its place is known."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One message that is not acknowledged. ``turn``: what its producer had consumed when it made it."""

    identity: int
    turn: int
    kind: Kind
    origin_us: int
    record: bytes = field(repr=False)


class _Left(Enum):
    """What left last."""

    NEXT = 0
    PROBE = 1
    STATE = 2


@dataclass(slots=True)
class OutboxFigures:
    """Messages of one channel, as its producer sees them."""

    written: int = 0
    acknowledged: int = 0
    resent: int = 0
    moved: int = 0
    """Kept while the consumer went to another place, and sent there."""
    abandoned: int = 0
    """Given up, because their consumer has failed or was stopped."""
    rerun: int = 0
    """Made once more by an AIM that was run again, and not sent for that."""


class Outbox:
    """The sending side of one acknowledged channel.

    Args:
        window: messages that may be unacknowledged.
        limit_bytes: bytes of records that may be, unless it is one.
    """

    def __init__(self, window: int, *, limit_bytes: int = KEPT_BYTES) -> None:
        self.figures = OutboxFigures()
        self._window, self._limit_bytes = window, limit_bytes
        self._kept: deque[Kept] = deque()
        self._bytes = 0
        self._next = 0
        """Of those kept, the first that is to be sent."""
        self._newest = self._reached = self._done = self._taken = 0
        self._state: tuple[int, bytes] | None = None
        self._state_due = self._probe_due = self._gone = False
        self._left = _Left.NEXT
        self._before = (0, 0)
        """What was reached and resent before that."""
        self._since_ms = 0.0
        self._patience_ms = float(RESEND_MS)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def full(self) -> bool:
        return len(self._kept) >= self._window or self._bytes >= self._limit_bytes

    @property
    def first_turn(self) -> int | None:
        """The turn of the oldest message that is not acknowledged."""
        return self._kept[0].turn if self._kept else None

    # --- the producer ------------------------------------------------------------------------------

    def knows(self, identity: int) -> bool:
        """Whether a message was here, or is done with."""
        return identity <= max(self._newest, self._done)

    def add(self, message: Kept) -> None:
        """Keep a message and give it out next; one that was here, or is done with, is a rerun and ignored."""
        if self.knows(message.identity):
            self.figures.rerun += 1
            return
        self._newest = message.identity
        self.figures.written += message.kind is Kind.RECORD
        if self._gone:
            self.figures.abandoned += message.kind is Kind.RECORD
            return
        self._kept.append(message)
        self._bytes += len(message.record)

    # --- the way -----------------------------------------------------------------------------------

    def due(self) -> tuple[Numbered, int] | None:
        """The next message to send, and when its source record was made (µs); ``leaves`` takes it off."""
        if self._state_due and self._state is not None:
            identity, state = self._state
            return Numbered(Kind.STATE, identity, 0, state), 0
        at = 0 if self._probe_due else self._next
        if at >= len(self._kept):
            return None
        message = self._kept[at]
        before = self._kept[at - 1].identity if at else (self._state[0] if self._state is not None else 0)
        return Numbered(message.kind, message.identity, before, message.record), message.origin_us

    def leaves(self, now_ms: float) -> None:
        """What ``due`` gave is sent now."""
        self._before = self._reached, self.figures.resent
        if self._state_due:
            self._state_due, self._left = False, _Left.STATE
            return
        if self._probe_due:
            self._probe_due, self._left = False, _Left.PROBE
            self.figures.resent += 1
            return
        if self._next == 0:
            self._since_ms = now_ms
        message = self._kept[self._next]
        self.figures.resent += message.identity <= self._reached
        self._reached = max(self._reached, message.identity)
        self._next += 1
        self._left = _Left.NEXT

    def comes_back(self) -> None:
        """What left last could not be sent, and is due again; nothing else has happened since."""
        self._reached, self.figures.resent = self._before
        if self._left is _Left.STATE:
            self._state_due = True
        elif self._left is _Left.PROBE:
            self._probe_due = True
        else:
            self._next -= 1

    def start_over(self, now_ms: float) -> None:
        """The channel has another key, and perhaps another consumer: all that is kept is due."""
        self._taken = 0
        self._send_after(0)
        self._since_ms, self._patience_ms = now_ms, float(RESEND_MS)

    def tick(self, now_ms: float) -> None:
        """Let time pass: what was sent and not heard of for long is due once more."""
        if not (self._next and self._kept) or now_ms - self._since_ms < self._patience_ms:
            return
        self._since_ms = now_ms
        self._patience_ms = min(2 * self._patience_ms, RESEND_LIMIT_MS)
        self._send_after(self._taken)
        self._probe_due = self._next == len(self._kept)  # all has arrived: ask how far it is

    # --- the consumer ------------------------------------------------------------------------------

    def acknowledged(self, said: Acknowledgement, now_ms: float) -> None:
        """Take what the consumer says; late and repeated words of it do no harm."""
        if said.done > self._done or said.taken > self._taken:
            self._since_ms, self._patience_ms = now_ms, float(RESEND_MS)
        if said.state is not None and (self._state is None or said.done >= self._state[0]):
            self._state = (said.done, said.state)
        self._done = max(self._done, said.done)
        self._taken = said.taken
        while self._kept and self._kept[0].identity <= self._done:
            self.figures.acknowledged += self._drop() is Kind.RECORD
        self._gone = said.gone
        if said.gone:
            self.give_up()
        if said.again:
            self._send_after(said.taken)

    def give_up(self) -> None:
        """The consumer is no more, and goes on nowhere."""
        self._gone = True
        while self._kept:
            self.figures.abandoned += self._drop() is Kind.RECORD

    @property
    def state(self) -> tuple[int, bytes] | None:
        """The consumer's newest state, and the identity that it stands for."""
        return self._state

    def take_over(self, identity: int, state: bytes) -> None:
        """The consumer's state, as an earlier outbox of this channel had it; it is given on."""
        if self._state is None or identity > self._state[0]:
            self._state, self._state_due = (identity, state), True
            self._done = max(self._done, identity)

    def _drop(self) -> Kind:
        message = self._kept.popleft()
        self._bytes -= len(message.record)
        self._next = max(0, self._next - 1)
        return message.kind

    def _send_after(self, taken: int) -> None:
        self._next = sum(message.identity <= taken for message in self._kept)
        self._state_due = self._state is not None and taken < self._state[0]
        self._probe_due = False
