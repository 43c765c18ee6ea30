"""How time passes while plans are made: by a clock, or by the work that is done.

Limits are seconds in both cases. With a ``Clock`` they are those of the clock, so that what is found in them
depends on the computer and on what else it does. With ``Work`` every step of the search says how much it did,
and time is the sum of that: the same problem, limit and seed then give the same plan anywhere. A second of
work is about a second of a processor of 2020 with nothing else to do; the shares below are measured, and need
not be right for a plan to be the same.

Decides nothing about what is done with the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

CALL_S = 5e-5
"""One call of numpy functions on small arrays."""

CELL_S = 1.8e-8
"""One number of an array that some ten operations go over."""

ENTRY_S = 1e-4
"""One assignment priced, entered into a ledger or taken out."""

PIVOT_S = 2e-5
"""One iteration of a linear solver, with its part of the set-up."""


class Pace(Protocol):
    """What the planner knows of time."""

    counted: bool
    """Whether time is work, so that no clock may be looked at."""

    def now(self) -> float:
        """Seconds since some moment."""

    def spend(self, seconds: float) -> None:
        """A step is done that took about so much work."""


class Clock:
    """Time as a clock tells it."""

    counted = False

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """By the clock of the computer, or by ``now`` in seconds."""
        self.now = now

    def spend(self, seconds: float) -> None:
        """Work takes the time that it takes."""


class Work:
    """Time as the work that was done; begins at 0."""

    counted = True

    def __init__(self) -> None:
        self._done_s = 0.0

    def now(self) -> float:
        return self._done_s

    def spend(self, seconds: float) -> None:
        self._done_s += seconds
