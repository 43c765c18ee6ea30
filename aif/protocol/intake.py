"""What a consumer takes of an acknowledged channel, and when it may say that a message is done with.

A message is taken once, in order, whoever sends it and however often: what was taken before is a repetition,
what does not follow on what was taken waits to be sent again. It is done with when the turn that it went into
has come to its end, everything which that turn gave on acknowledged channels is done with in turn, and, for
an AIM with state, its state afterwards has left with the acknowledgement.

Decides nothing about when an acknowledgement leaves; keeps no message and reads no clock.

Invariants: ``last`` only grows while an instance lives; ``done`` never passes a turn of which anything is
still unacknowledged; of the checkpoints of an instance at most two wait.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from aif.protocol.numbering import Kind, Numbered
from aif.protocol.outbox import Outbox


class Verdict(Enum):
    """What becomes of a message that arrived."""

    TAKE = "take"
    REPEATED = "repeated"
    """It was taken before."""
    MISSING = "missing"
    """Something before it has not arrived."""


class Intake:
    """The receiving side of one acknowledged channel."""

    def __init__(self) -> None:
        self.last = 0
        """The newest message that was taken, or what the restored state stands for."""
        self.repeated = 0

    def judge(self, message: Numbered) -> Verdict:
        """Say what to do with a message; ``take`` is called by whoever has room for it."""
        if message.identity <= self.last:
            self.repeated += message.kind is Kind.RECORD
            return Verdict.REPEATED
        if message.kind is not Kind.STATE and message.previous > self.last:
            return Verdict.MISSING
        return Verdict.TAKE

    def take(self, message: Numbered) -> None:
        self.last = message.identity

    def restart(self, last: int) -> None:
        """A new instance goes on after ``last``; 0 for one that knows nothing yet."""
        self.last = last


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything up to ``turn`` is done with, and the state of an AIM that has any is ``state`` then."""

    turn: int
    state: bytes | None = field(default=None, repr=False)


class Turns:
    """What one AIM has done with the messages of its acknowledged input.

    Args:
        stateful: whether nothing is done with before a checkpoint stands for it.
    """

    def __init__(self, *, stateful: bool) -> None:
        self.stateful = stateful
        self.outboxes: list[Outbox] = []
        """Of its acknowledged outputs."""
        self.current = 0
        """Of the turn that runs; 0 between turns."""
        self.begun = 0
        """Turns since the beginning, those that were run again among them."""
        self.finished = 0
        """The newest turn that has come to its end."""
        self._unsettled: deque[int] = deque()
        self._settled = 0
        self._waiting: list[Checkpoint] = []
        self._checkpoint = Checkpoint(0)

    def begin(self, turn: int) -> None:
        self.current = turn
        self.begun += 1

    def end(self, state: bytes | None = None) -> None:
        """The turn has come to its end; ``state`` after it, if a checkpoint was made."""
        turn, self.current = self.current, 0
        if turn > self.finished:
            self.finished = turn
            self._unsettled.append(turn)
        if state is not None:
            # the first that waits stays until it settles, or steady work would keep every one from settling
            self._waiting = [*self._waiting[:1], Checkpoint(turn, state)]

    def over(self, last: int) -> None:
        """The AIM has come to its end: nothing more will come of anything up to ``last``."""
        self.current = last
        self.end(b"" if self.stateful else None)

    def restart(self) -> int:
        """The AIM begins anew after a failure: it goes on after this message; 0 when its state must come."""
        self.current = 0
        self._waiting.clear()
        if not self.stateful:
            return self.finished
        self._unsettled.clear()
        self.finished = 0
        return 0

    def done(self) -> Checkpoint:
        """How far everything is done with, and the state that stands for it where the AIM has any."""
        held = [turn for outbox in self.outboxes if (turn := outbox.first_turn) is not None]
        least = min(held, default=None)
        while self._unsettled and (least is None or self._unsettled[0] < least):
            self._settled = max(self._settled, self._unsettled.popleft())
        if not self.stateful:
            return Checkpoint(self._settled)
        while self._waiting and self._waiting[0].turn <= self._settled:
            self._checkpoint = self._waiting.pop(0)
        return self._checkpoint
