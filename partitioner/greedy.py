"""A first plan, quickly and without a solver: AIM by AIM, the cheapest candidate that still fits.

The AIMs with the fewest devices come first, since nobody else can make room for them. Finds no plan in some
cases where one exists; the solver only takes it as a hint.
"""

from __future__ import annotations

from partitioner.evaluate import Choice, evaluate
from partitioner.parts import Candidate, PlacementProblem


def first_plan(problem: PlacementProblem) -> Choice | None:
    """A feasible choice, or None when this way led nowhere."""
    chosen: dict[int, Candidate] = {}
    order = sorted(range(len(problem.items)), key=lambda i: (len(problem.items[i].devices), i))
    for position in order:
        best: tuple[int, int, int] | None = None
        for number, candidate in enumerate(problem.items[position].candidates):
            result = evaluate(problem, {**chosen, position: candidate})
            if not result.broken:
                entry = (result.objective, number, position)
                best = entry if best is None else min(best, entry)
        if best is None:
            return None
        chosen[position] = problem.items[position].candidates[best[1]]
    return chosen
