"""Proofs about impossible placement problems: which limits conflict, and how much more would be enough.

Presolve is off and one worker is used: with presolve the solver may name every assumption, or literals that
are none (google/or-tools#5141). Decides nothing about words; ``explain`` makes the sentences.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from ortools.sat.python import cp_model

from partitioner.problem.parts import EXACT_PAIRS, Limit, PlacementProblem
from partitioner.search.formulation import Formulation, new_solver, total_of

EXPLAIN_STEP_S = 2.0
EXPLAIN_BUDGET_S = 20.0
SHARES = 1000
GROWN = 10**7
"""Growth of a limit is counted in thousandths of it, up to 10,000 times."""


class CoreFinder:
    """Questions about impossible problems, answered by proofs; implements ``explain.Prover``.

    Presolve is off and one worker is used: with presolve the solver may name every assumption, or literals
    that are none. Each question may take ``step_s``, all together ``budget_s``; then nothing more is proven
    and explanations stay as they are. Nothing is proven of problems too large for pair literals.
    """

    def __init__(
        self,
        problem: PlacementProblem,
        *,
        seed: int = 0,
        step_s: float = EXPLAIN_STEP_S,
        budget_s: float = EXPLAIN_BUDGET_S,
    ) -> None:
        self.problem, self.seed, self.step_s = problem, seed, step_s
        self.end_s = time.perf_counter() + budget_s

    def core(self, active: Collection[Limit] | None = None) -> frozenset[Limit] | None:
        """Limits that cannot all hold, chosen among ``active`` (None: all); None when that is not proven."""
        if self.problem.pairs > EXACT_PAIRS:
            return None
        model = Formulation(self.problem, assume=True, active=active)
        solver = self._careful()
        if model.solve(solver) != cp_model.INFEASIBLE:
            return None
        named = solver.sufficient_assumptions_for_infeasibility()
        return frozenset(model.assumed[index] for index in named)

    def shortfall(self, limit: Limit, active: Collection[Limit] | None = None) -> int | None:
        """By how much ``limit`` has to grow for ``active`` (None: all) to hold; None when that is no help."""
        if self.problem.pairs > EXACT_PAIRS:
            return None
        model = Formulation(self.problem, active=active, relaxed=(limit,))
        slack = model.slacks.get(limit)
        if slack is None:
            return None
        model.model.minimize(slack)
        solver = self._careful()
        if model.solve(solver) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        return int(solver.value(slack))

    def shortfalls(self, limits: Collection[Limit]) -> Mapping[Limit, int]:
        """By how much the fewest of ``limits`` have to grow together; of as many, by the least share.

        Empty when growing them does not help, or not known in time.
        """
        if self.problem.pairs > EXACT_PAIRS:
            return {}
        model = Formulation(self.problem, relaxed=limits)
        cost: list[cp_model.LinearExpr] = []
        for limit, slack in model.slacks.items():
            grown = model.model.new_bool_var("")
            model.model.add(slack == 0).only_enforce_if(~grown)
            step = max(1, self.problem.limits[limit] // SHARES)
            share = model.model.new_int_var(0, min(GROWN, 2**60 // step), "")
            model.model.add(step * share >= slack)
            cost += [2 * GROWN * grown, 1 * share]
        model.model.minimize(total_of(cost))
        solver = self._careful()
        if model.solve(solver) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return {}
        values = {limit: int(solver.value(slack)) for limit, slack in model.slacks.items()}
        return {limit: value for limit, value in values.items() if value}

    def feasible(self, problem: PlacementProblem) -> bool:
        """Whether a placement of another (repaired) problem was found."""
        if problem.pairs > EXACT_PAIRS:
            return False
        found = Formulation(problem).solve(self._careful())
        return found in (cp_model.OPTIMAL, cp_model.FEASIBLE)

    def _careful(self) -> cp_model.CpSolver:
        left_s = max(0.0, self.end_s - time.perf_counter())
        solver = new_solver(min(self.step_s, left_s), self.seed, 1)
        solver.parameters.cp_model_presolve = False
        return solver
