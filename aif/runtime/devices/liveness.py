"""Whether a device still answers, and how much its connection may be trusted to last: rules without a clock.

Decides how long an answer may take, how many may be missing, when a rumour is worth a question, and when a
device that was lost may be relied on again. Sends nothing and ends nothing (``vigil`` does).

Invariants: a rumour alone never ends a session; whoever spreads rumours about a device that lives makes the
next ones count for less; a device that keeps leaving is relied on later each time. All times are monotonic
milliseconds, and arguments.

Source: RFC 6298 for the time that an answer may take, with its own bounds and without its back-off.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

LEAST_TIMEOUT_MS = 100.0
MOST_TIMEOUT_MS = 1_000.0
FIRST_TIMEOUT_MS = 300.0
"""Before anything was measured."""

SILENCE_TIMEOUTS = 3
"""Silence is at least as long as this many answers may take."""

OPEN_QUESTIONS = 64
"""Questions whose time is remembered; an answer to an older one says only that the device lives."""

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


@dataclass(slots=True)
class Answers:
    """Questions to one device in one session, and how quickly it answers.

    ``silent`` counts the rounds of questions since its last word, ``newest`` is the last question that it
    answered.
    """

    number: int = 0
    newest: int = 0
    silent: int = 0
    rtt_ms: float | None = None
    deviation_ms: float = 0.0
    _asked_ms: OrderedDict[int, float] = field(default_factory=OrderedDict)

    def ask(self, now_ms: float) -> int:
        """The number of the next question."""
        self.number += 1
        self._asked_ms[self.number] = now_ms
        if len(self._asked_ms) > OPEN_QUESTIONS:
            self._asked_ms.popitem(last=False)
        return self.number

    def wait(self) -> None:
        """It was asked in turn; what is asked out of turn does not shorten anybody's time."""
        self.silent += 1

    def heard(self) -> None:
        """Any sealed word of it."""
        self.silent = 0

    def answered(self, number: int, now_ms: float) -> float | None:
        """It has answered a question; an answer that nobody asked for, or a second one, says nothing.

        Returns:
            How long that took (ms).
        """
        asked_ms = self._asked_ms.pop(number, None)
        if asked_ms is None:
            return None
        self.newest = max(self.newest, number)
        sample_ms = now_ms - asked_ms
        if self.rtt_ms is None:
            self.rtt_ms, self.deviation_ms = sample_ms, sample_ms / 2
            return sample_ms
        self.deviation_ms += (abs(sample_ms - self.rtt_ms) - self.deviation_ms) / 4
        self.rtt_ms += (sample_ms - self.rtt_ms) / 8
        return sample_ms

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


@dataclass(slots=True)
class Reputation:
    """What a device's past says about it, over all its sessions."""

    refuted: int = 0
    refuted_ms: float = float("-inf")
    losses: int = 0
    lost_ms: float = float("-inf")
    back_ms: float | None = None
    """When it was trusted again after its last loss; None until then."""

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

    def note_trusted(self, now_ms: float) -> None:
        """The device is trusted, perhaps again."""
        if self.back_ms is None:
            self.back_ms = now_ms

    def probation_ms(self, now_ms: float) -> float:
        """For how long nothing new should be put on the device since it came back; 0: it may be relied on."""
        since_ms = now_ms if self.back_ms is None else self.back_ms
        until_ms = since_ms + doubled(PROBATION_FIRST_MS, self.losses - 1, PROBATION_MOST_MS)
        return max(0.0, until_ms - now_ms)


def doubled(first_ms: float, times: int, most_ms: float) -> float:
    """``first_ms``, doubled with every time after the first; 0 for none."""
    return 0.0 if times <= 0 else min(first_ms * 2.0 ** min(times - 1, 32), most_ms)
