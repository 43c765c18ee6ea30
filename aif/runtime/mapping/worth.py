"""Whether a better plan is worth its moves: rules without a clock.

A move stops an AIM for a moment, and whoever moves for every little gain moves all the time. So a plan must
save a share of the objective, and in ten minutes more than its moves cost; and an AIM that has moved stays
for a while. What has to move, because the plan that runs does not hold any more, moves at once.

Decides nothing about where AIMs go (the planner does) or how they get there (``remapping``). All times are
monotonic milliseconds, and arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

LEAST_SAVED = 0.05
"""Share of the objective that a plan must save."""

REPAID_S = 600.0
"""In this time a plan must save more than its moves cost."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What a plan would bring.

    Attributes:
        before: objective of what runs; None where it breaks a limit, such as a deadline.
        after: objective of the plan.
        pause_s: how long AIMs would stand still for it, all added up.
    """

    before: float | None
    after: float
    pause_s: float

    @property
    def needed(self) -> bool:
        """What runs does not keep what it promised."""
        return self.before is None

    @property
    def saved(self) -> float:
        """Share (0..1) of the objective."""
        if self.before is None:
            return 1.0
        return max(0.0, (self.before - self.after) / self.before) if self.before > 0.0 else 0.0

    def refusal(self) -> str:
        """Why the plan is not worth its moves; empty where it is.

        While AIMs stand still, all that the workflow costs is spent for nothing: the share that is saved in
        ``REPAID_S`` must be more than that.
        """
        if self.needed:
            return ""
        if self.saved < LEAST_SAVED:
            return f"it saves {self.saved:.1%}, less than {LEAST_SAVED:.0%}"
        if self.saved * REPAID_S < self.pause_s:
            return f"{self.pause_s:.0f} s of pause are not repaid within {REPAID_S:.0f} s"
        return ""

    def __str__(self) -> str:
        if self.needed:
            return f"what runs does not keep its limits any more; costs {self.pause_s:.1f} s of pause"
        return (
            f"saves {self.saved:.0%} of the objective ({self.before:.4g} to {self.after:.4g}), "
            f"costs {self.pause_s:.1f} s of pause"
        )


@dataclass(slots=True)
class Dwell:
    """How long AIMs stay where they have come to."""

    dwell_ms: float
    _came_ms: dict[str, float] = field(default_factory=dict)

    def came(self, aims: Iterable[str], now_ms: float) -> None:
        """These AIMs are where they were not before."""
        self._came_ms |= dict.fromkeys(aims, now_ms)

    def until_ms(self, aims: Iterable[str]) -> float:
        """From when on none of these AIMs has come so recently that it should stay."""
        return max((self._came_ms.get(aim, float("-inf")) + self.dwell_ms for aim in aims), default=0.0)
