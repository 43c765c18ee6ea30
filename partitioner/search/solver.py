"""The exact solver: asks CP-SAT for the optimum of a small placement problem.

A plan not proven optimal when time runs out comes with its proven bound. By counted work (``pace``) the same
problem and seed give the same plan.

The solver is not believed: what it found is priced by ``evaluate``, and a plan that breaks a limit, costs
something else than the solver says, or is called optimal beside a cheaper one is an error, not an answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ortools.sat.python import cp_model

from aif.errors import PlacementError
from partitioner.problem.evaluate import Choice, evaluate
from partitioner.problem.parts import PlacementProblem
from partitioner.search.formulation import Formulation, Unfinished, new_solver
from partitioner.search.pace import Clock, Pace

ROUNDED = 2
"""Integer units by which the price of one AIM, Channel or path may be rounded differently."""


@dataclass(frozen=True, slots=True)
class Solved:
    """What the exact solver knows: the best choice (None: none found), the bound in integer units."""

    choice: Choice | None
    bound: int
    infeasible: bool


def solve(
    problem: PlacementProblem,
    *,
    hint: Choice | None,
    time_limit_s: float,
    seed: int,
    workers: int,
    pace: Pace | None = None,
) -> Solved:
    """Search for the optimum.

    Raises:
        PlacementError: the solver contradicts the hint, or a figure is too large for it.
    """
    pace = pace or Clock()
    end_s = pace.now() + time_limit_s
    try:
        model = Formulation(problem, pace=pace, stop=lambda: pace.now() >= end_s)
    except Unfinished:
        return Solved(None, 0, infeasible=False)
    model.minimise_cost()
    if hint is not None:
        model.hint(hint)
    solver = new_solver(pace, max(0.0, end_s - pace.now()), seed, workers)
    status = model.solve(solver, pace)
    if status == cp_model.INFEASIBLE:
        if hint is not None:
            raise PlacementError("the solver denies a plan that exists", hint="please report this workflow")
        return Solved(None, 0, infeasible=True)
    bound = max(0, math.floor(solver.best_objective_bound / model.fineness))
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Solved(None, bound, infeasible=False)
    choice = model.choice(solver)
    optimal = status == cp_model.OPTIMAL
    objective = verified(
        problem, choice, model.paid(solver), hint=hint, optimal=optimal, misjudged=model.misjudged
    )
    return Solved(choice, objective if optimal else bound, infeasible=False)


def verified(
    problem: PlacementProblem,
    choice: Choice,
    paid: float,
    *,
    hint: Choice | None = None,
    optimal: bool = False,
    misjudged: float = 0.0,
) -> int:
    """The objective of what the solver found, in integer units, if the solver's figures agree with ours.

    Args:
        problem: what was solved.
        choice: the solver's answer.
        paid: what it costs by the solver's variables; more than in truth if it is not ``optimal``.
        hint: a plan that was known before.
        optimal: whether the solver calls the answer the best of all.
        misjudged: by how much the solver may be wrong because it counts in whole numbers.

    Raises:
        PlacementError: they contradict each other.
    """
    counted = evaluate(problem, choice)
    terms = len(problem.items) + len(problem.flows) + len(problem.paths) + len(problem.affinities) + 2
    allowed = misjudged + ROUNDED * terms + 1e-9 * paid
    wrong = ""
    if counted.broken:
        wrong = f"breaks {' '.join(counted.broken[0])}"
    elif counted.objective > paid + allowed or (optimal and counted.objective < paid - allowed):
        wrong = f"costs {counted.objective} units, not {paid:.0f}"
    elif optimal and hint is not None and evaluate(problem, hint).objective < counted.objective - allowed:
        wrong = "is not the best one known"
    if wrong:
        raise PlacementError(f"the solver's plan {wrong}", hint="please report this workflow and inventory")
    return counted.objective
