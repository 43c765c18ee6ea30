"""What explanations need to have proven, and by whom.

Decides nothing: ``explain`` and ``advice`` ask, ``search.cores`` answers with a solver.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from partitioner.problem.parts import Limit, PlacementProblem


class Prover(Protocol):
    """What an explanation needs to have proven."""

    def exhausted(self) -> bool:
        """Whether nothing more will be proven, so that there is no use in asking."""

    def core(self, active: Collection[Limit] | None = None) -> frozenset[Limit] | None:
        """Limits that cannot all hold, out of ``active``; None when not proven."""

    def shortfall(self, limit: Limit, active: Collection[Limit] | None = None) -> int | None:
        """How much more of ``limit`` makes ``active`` (None: all) possible; None when it does not help."""

    def shortfalls(self, limits: Collection[Limit]) -> Mapping[Limit, int]:
        """By how much the fewest of ``limits`` have to grow together; empty when that does not help."""

    def feasible(self, problem: PlacementProblem) -> bool:
        """Whether a placement of another problem was found."""


class Unproven:
    """Proves nothing, at once: for who needs to know soon that there is no plan, and then roughly why."""

    def exhausted(self) -> bool:
        return True

    def core(self, active: Collection[Limit] | None = None) -> frozenset[Limit] | None:  # noqa: ARG002
        return None

    def shortfall(self, limit: Limit, active: Collection[Limit] | None = None) -> int | None:  # noqa: ARG002
        return None

    def shortfalls(self, limits: Collection[Limit]) -> Mapping[Limit, int]:  # noqa: ARG002
        return {}

    def feasible(self, problem: PlacementProblem) -> bool:  # noqa: ARG002
        return False
