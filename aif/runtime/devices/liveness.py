"""Whether a device still answers, and how much its connection may be trusted to last: rules without a clock.

Decides how long an answer may take, how many may be missing, when a rumour is worth a question, when a
device may be watched closely, and when one that was lost may be relied on again. Sends nothing and ends
nothing (``vigil`` and ``close_watch`` do).

Invariants: a rumour alone never ends a session; whoever spreads rumours about a device that lives makes the
next ones count for less; a device that keeps leaving is relied on later each time. All times are monotonic
milliseconds, and arguments.

Source: RFC 6298 for the time that an answer may take, with its own bounds and without its back-off.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

LEAST_TIMEOUT_MS = 100.0
MOST_TIMEOUT_MS = 1_000.0
FIRST_TIMEOUT_MS = 300.0
"""Before anything was measured."""

SILENCE_TIMEOUTS = 3
"""Silence is at least as long as this many answers may take."""

OPEN_QUESTIONS = 64
"""Questions whose time is remembered; an answer to an older one says only that the device lives."""

CLOSE_SHARE, LEAST_CLOSE_MS = 0.2, 50.0
"""Of the steady pace: the pace of a close watch, which is never faster than the second."""

CLOSE_QUESTIONS = 4
"""So many questions in a row, at least, are unanswered before a device that is watched closely is lost."""

CLOSE_SILENCE_MS, CLOSE_TIMES = 200.0, 3.0
"""The oldest of them is at least so old, and so many times as old as the slowest answer of late."""

CLOSE_DOUBT = 1e-7
"""Where answers get lost anyway, so many more must be missing that chance does it less often than this."""

CLOSE_KNOWN = 8
"""Answers in a session before it is known how long they may take."""

WORST_KEPT = 0.998
"""Of the slowest answer, with each that is quicker: half of it is forgotten after 350, 35 s at 100 ms."""

LOSS_WEIGHT = 1 / 64
"""Of one question in the average of those whose answer never came."""

HASTY_MS = 4_000.0
"""Who is trusted again so soon after a close watch gave it up was only slow."""

CALM_FIRST_MS, CALM_MOST_MS = 60_000.0, 1_800_000.0
"""It is not watched closely for this long; twice as long each time in a row."""

QUIET_FIRST_MS, QUIET_MOST_MS = 1_000.0, 60_000.0
"""After a rumour that was refuted the next is not looked into for this long; twice as long each time."""

PROBATION_FIRST_MS, PROBATION_MOST_MS = 5_000.0, 300_000.0
"""After its second loss in a row a device gets nothing new for this long; twice as long each time."""

FORGOTTEN_MS = 600_000.0
"""After this long without another, earlier losses and refuted rumours do not count any more."""


@dataclass(frozen=True, slots=True)
class HeartbeatSettings:
    """How closely devices are watched.

    Attributes:
        interval_ms: between two questions to each device.
        missed: this many questions in a row without a word from a device, and it is lost.
        tries: questions to a device that is rumoured to have gone; silence after the last, and it is lost.
    """

    interval_ms: float = 500.0
    missed: int = 4
    tries: int = 2

    @property
    def close_ms(self) -> float:
        """Between two questions to a device that is watched closely."""
        return min(self.interval_ms, max(LEAST_CLOSE_MS, CLOSE_SHARE * self.interval_ms))


class Answered(NamedTuple):
    """How long an answer took (ms), and whether its question was one of the steady pace."""

    rtt_ms: float
    in_turn: bool


@dataclass(slots=True)
class Answers:
    """Questions to one device in one session, and how quickly it answers.

    ``silent`` counts the rounds of questions since its last word, ``newest`` is the last question that it
    answered. ``pending`` counts all questions since its last word, asked from ``pending_ms`` on; ``worst_ms``
    is its slowest answer of late, ``loss`` the share (0..1) that never comes, ``witness_ms`` when the newest
    question that it answered was asked.
    """

    number: int = 0
    newest: int = 0
    silent: int = 0
    rtt_ms: float | None = None
    deviation_ms: float = 0.0
    pending: int = 0
    pending_ms: float = float("inf")
    worst_ms: float = 0.0
    loss: float = 0.0
    answers: int = 0
    witness_ms: float = float("-inf")
    _asked: OrderedDict[int, tuple[float, bool]] = field(default_factory=OrderedDict)

    def ask(self, now_ms: float, *, in_turn: bool = True) -> int:
        """The number of the next question."""
        self.number += 1
        self._asked[self.number] = now_ms, in_turn
        if len(self._asked) > OPEN_QUESTIONS:
            self._asked.popitem(last=False)
        self.pending += 1
        self.pending_ms = min(self.pending_ms, now_ms)
        return self.number

    def wait(self) -> None:
        """It was asked in turn; what is asked out of turn does not shorten anybody's time."""
        self.silent += 1

    def heard(self) -> None:
        """Any sealed word of it."""
        self.silent = 0
        self.excuse()

    def excuse(self) -> None:
        """What is unanswered until now is not its fault."""
        self.pending, self.pending_ms = 0, float("inf")

    def answered(self, number: int, now_ms: float) -> Answered | None:
        """It has answered a question; an answer that nobody asked for, or a second one, says nothing."""
        asked_ms, in_turn = self._asked.pop(number, (None, False))
        if asked_ms is None:
            return None
        for earlier in range(max(self.newest + 1, number - OPEN_QUESTIONS), number):  # answers come in order
            self.loss += LOSS_WEIGHT * ((earlier in self._asked) - self.loss)
        self.loss -= LOSS_WEIGHT * self.loss
        self.newest = max(self.newest, number)
        self.answers, self.witness_ms = self.answers + 1, max(self.witness_ms, asked_ms)
        sample_ms = now_ms - asked_ms
        self.worst_ms = max(sample_ms, WORST_KEPT * self.worst_ms)
        if self.rtt_ms is None:
            self.rtt_ms, self.deviation_ms = sample_ms, sample_ms / 2
        else:
            self.deviation_ms += (abs(sample_ms - self.rtt_ms) - self.deviation_ms) / 4
            self.rtt_ms += (sample_ms - self.rtt_ms) / 8
        return Answered(sample_ms, in_turn)

    @property
    def timeout_ms(self) -> float:
        """How long an answer may take."""
        if self.rtt_ms is None:
            return FIRST_TIMEOUT_MS
        return min(max(self.rtt_ms + 4 * self.deviation_ms, LEAST_TIMEOUT_MS), MOST_TIMEOUT_MS)

    def allowed(self, settings: HeartbeatSettings) -> int:
        """Questions in a row that may stay without a word; more of them where answers take long."""
        slow = int(SILENCE_TIMEOUTS * self.timeout_ms / settings.interval_ms)
        return max(settings.missed, slow)

    def suspect(self, now_ms: float, look_ms: float) -> bool:
        """Whether a question is unanswered for longer than usual, and than ``look_ms``."""
        usual_ms = (self.rtt_ms or 0.0) + 4 * self.deviation_ms
        return now_ms - self.pending_ms >= max(look_ms, usual_ms)

    def overdue(self, now_ms: float, slow_ms: float) -> bool:
        """Whether so much is unanswered, for so long, that a close watch gives the device up.

        ``slow_ms`` is the slowest answer that is to be expected.
        """
        if self.answers < CLOSE_KNOWN:
            return False
        spread = math.sqrt(self.loss * (1.0 - self.loss) * LOSS_WEIGHT / 2)
        loss = min(self.loss + 2 * spread + LOSS_WEIGHT, 0.9)  # it may be worse than it looks
        lossy = math.ceil(math.log(CLOSE_DOUBT) / math.log(loss))
        silence_ms = max(CLOSE_SILENCE_MS, CLOSE_TIMES * slow_ms)
        return self.pending >= max(CLOSE_QUESTIONS, lossy) and now_ms - self.pending_ms >= silence_ms


@dataclass(slots=True)
class Reputation:
    """What a device's past says about it, over all its sessions."""

    refuted: int = 0
    refuted_ms: float = float("-inf")
    losses: int = 0
    lost_ms: float = float("-inf")
    back_ms: float | None = None
    """When it was trusted again after its last loss; None until then."""
    hasty: int = 0
    hasty_ms: float = float("-inf")
    """How often in a row a close watch gave it up in error, and when it did so last, in error or not."""

    def credible(self, now_ms: float) -> bool:
        """Whether a rumour about the device is worth a question now."""
        return now_ms >= self.refuted_ms + doubled(QUIET_FIRST_MS, self.refuted, QUIET_MOST_MS)

    def note_refuted(self, now_ms: float) -> None:
        """The device was said to have gone, and answered."""
        self.refuted = 1 + (self.refuted if now_ms - self.refuted_ms < FORGOTTEN_MS else 0)
        self.refuted_ms = now_ms

    def note_lost(self, now_ms: float) -> None:
        """The device was lost."""
        self.losses = 1 + (self.losses if now_ms - self.lost_ms < FORGOTTEN_MS else 0)
        self.lost_ms, self.back_ms = now_ms, None

    def note_hasty(self, now_ms: float) -> None:
        """A close watch is about to give the device up."""
        if now_ms - self.hasty_ms > FORGOTTEN_MS + CALM_MOST_MS:
            self.hasty = 0
        self.hasty_ms = now_ms

    def note_trusted(self, now_ms: float) -> None:
        """The device is trusted, perhaps again."""
        if self.back_ms is None:
            self.back_ms = now_ms
            self.hasty += now_ms - self.hasty_ms < HASTY_MS

    def calm(self, now_ms: float) -> bool:
        """Whether the device was given up in error by a close watch, too recently for another one."""
        return now_ms < self.hasty_ms + doubled(CALM_FIRST_MS, self.hasty, CALM_MOST_MS)

    def probation_ms(self, now_ms: float) -> float:
        """For how long nothing new should be put on the device since it came back; 0: it may be relied on."""
        since_ms = now_ms if self.back_ms is None else self.back_ms
        until_ms = since_ms + doubled(PROBATION_FIRST_MS, self.losses - 1, PROBATION_MOST_MS)
        return max(0.0, until_ms - now_ms)


def doubled(first_ms: float, times: int, most_ms: float) -> float:
    """``first_ms``, doubled with every time after the first; 0 for none."""
    return 0.0 if times <= 0 else min(first_ms * 2.0 ** min(times - 1, 32), most_ms)
