"""When a figure has become bad enough to act upon, and when it is good again: rules without a clock.

Decides how many windows in a row speak for a change, how far apart the marks for worse and better lie, and
how long something that keeps changing has to stay bad. Measures nothing and moves nothing.

Invariants: one window changes nothing; a figure between the marks changes nothing; the n-th time in a row
that something has become bad it stays so for at least ``RETURN_FIRST_MS`` * 2**(n-1), up to
``RETURN_MOST_MS``, so that in a time t it becomes bad at most log2(1 + t / RETURN_FIRST_MS) times in a row.
All times are monotonic milliseconds, and arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aif.runtime.devices.liveness import FORGOTTEN_MS, doubled

WINDOWS = 3
"""Windows in a row that speak for a change."""

SLOW, QUICK = 1.5, 1.2
"""Times the planned figure: above the first a link is degraded, below the second it has recovered."""

CHARGED = 0.05
"""Share of the battery by which its level must lie above a mark that it fell below."""

RETURN_FIRST_MS, RETURN_MOST_MS = 30_000.0, 1_800_000.0
"""How long something stays bad at least; twice as long each time in a row."""


@dataclass(slots=True)
class Spells:
    """How often something went bad in a row, and until when it counts as bad, whatever is seen."""

    times: int = 0
    changed_ms: float = float("-inf")

    def begin(self, now_ms: float) -> None:
        """It has become bad, or worse."""
        self.times = 1 + (self.times if now_ms - self.changed_ms < FORGOTTEN_MS else 0)
        self.changed_ms = now_ms

    def end(self, now_ms: float) -> None:
        """It is good again."""
        self.changed_ms = now_ms

    @property
    def until_ms(self) -> float:
        """The earliest end of the spell that has begun last."""
        return self.changed_ms + stays_away_ms(self.times)


@dataclass(slots=True)
class Condition:
    """Good or bad, by what a row of windows says."""

    bad: bool = False
    spells: Spells = field(default_factory=Spells)
    _speaking: int = 0

    def see(self, now_ms: float, *, worse: bool, better: bool) -> bool:
        """Take up one window.

        Args:
            now_ms: when it ended.
            worse: its figure is beyond the mark at which things become bad.
            better: its figure is beyond the mark at which they become good again.

        Returns:
            Whether the condition has changed.
        """
        self._speaking = self._speaking + 1 if (better if self.bad else worse) else 0
        if self._speaking < WINDOWS or (self.bad and now_ms < self.spells.until_ms):
            return False
        (self.spells.end if self.bad else self.spells.begin)(now_ms)
        self.bad, self._speaking = not self.bad, 0
        return True


def stays_away_ms(times: int) -> float:
    """How long something that went bad so many times in a row is kept away from."""
    return doubled(RETURN_FIRST_MS, times, RETURN_MOST_MS)
