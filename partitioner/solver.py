"""The exact solver: asks CP-SAT for the optimum of a small placement problem.

A plan not proven optimal when time runs out comes with its proven bound. Without time limits and with one
worker, the same problem and seed give the same plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ortools.sat.python import cp_model

from aif.errors import PlacementError
from partitioner.evaluate import Choice, evaluate
from partitioner.formulation import Formulation, new_solver
from partitioner.parts import PlacementProblem


@dataclass(frozen=True, slots=True)
class Solved:
    """What the exact solver knows: the best choice (None: none found), the bound in integer units."""

    choice: Choice | None
    bound: int
    infeasible: bool


def solve(
    problem: PlacementProblem, *, hint: Choice | None, time_limit_s: float, seed: int, workers: int
) -> Solved:
    """Search for the optimum.

    Raises:
        PlacementError: the solver contradicts the hint, or a figure is too large for it.
    """
    model = Formulation(problem)
    model.minimise_cost()
    if hint is not None:
        model.hint(hint)
    solver = new_solver(time_limit_s, seed, workers)
    status = model.solve(solver)
    if status == cp_model.INFEASIBLE:
        if hint is not None:
            raise PlacementError("the solver denies a plan that exists", hint="please report this workflow")
        return Solved(None, 0, infeasible=True)
    choice = model.choice(solver) if status in (cp_model.OPTIMAL, cp_model.FEASIBLE) else None
    bound = max(0, math.floor(solver.best_objective_bound / model.fineness))
    if choice is not None and status == cp_model.OPTIMAL:
        bound = evaluate(problem, choice).objective
    return Solved(choice, bound, infeasible=False)
