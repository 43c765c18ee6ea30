"""Proofs about impossible placement problems: which limits conflict, and how much more would be enough.

Presolve is off and one worker is used: with presolve the solver may name every assumption, or literals that
are none (google/or-tools#5141). Models are built within the budget too, which takes longer than many a proof.
Decides nothing about words; ``explain`` makes the sentences.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ortools.sat.python import cp_model

from partitioner.problem.parts import EXACT_PAIRS, Limit, PlacementProblem
from partitioner.search.formulation import Formulation, Unfinished, new_solver, total_of
from partitioner.search.pace import Clock, Pace

EXPLAIN_STEP_S = 2.0
EXPLAIN_BUDGET_S = 20.0
SHARES = 1000
GROWN = 10**7
"""Growth of a limit is counted in thousandths of it, up to 10,000 times."""


class CoreFinder:
    """Questions about impossible problems, answered by proofs; implements ``explain.Prover``.

    Each question may take ``step_s``, all together ``budget_s``; then nothing more is proven and explanations
    stay as they are. Nothing is proven of problems too large for pair literals.
    """

    def __init__(
        self,
        problem: PlacementProblem,
        *,
        seed: int = 0,
        step_s: float = EXPLAIN_STEP_S,
        budget_s: float = EXPLAIN_BUDGET_S,
        pace: Pace | None = None,
    ) -> None:
        self.problem, self.seed, self.step_s = problem, seed, step_s
        self.pace = pace or Clock()
        self.end_s = self.pace.now() + budget_s

    def exhausted(self) -> bool:
        """Whether nothing more will be proven."""
        return self.problem.pairs > EXACT_PAIRS or self.pace.now() >= self.end_s

    def core(self, active: Collection[Limit] | None = None) -> frozenset[Limit] | None:
        """Limits that cannot all hold, chosen among ``active`` (None: all); None when that is not proven."""
        model = self._stated(self.problem, assume=True, active=active)
        if model is None:
            return None
        solver = self._careful()
        if model.solve(solver, self.pace) != cp_model.INFEASIBLE:
            return None
        named = solver.sufficient_assumptions_for_infeasibility()
        return frozenset(model.assumed[index] for index in named)

    def shortfall(self, limit: Limit, active: Collection[Limit] | None = None) -> int | None:
        """By how much ``limit`` has to grow for ``active`` (None: all) to hold; None when that is no help."""
        model = self._stated(self.problem, active=active, relaxed=(limit,))
        slack = None if model is None else model.slacks.get(limit)
        if model is None or slack is None:
            return None
        model.model.minimize(slack)
        solver = self._careful()
        if model.solve(solver, self.pace) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        return int(solver.value(slack))

    def shortfalls(self, limits: Collection[Limit]) -> Mapping[Limit, int]:
        """By how much the fewest of ``limits`` have to grow together; of as many, by the least share.

        Empty when growing them does not help, or not known in time.
        """
        model = self._stated(self.problem, relaxed=limits)
        if model is None:
            return {}
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
        if model.solve(solver, self.pace) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return {}
        values = {limit: int(solver.value(slack)) for limit, slack in model.slacks.items()}
        return {limit: value for limit, value in values.items() if value}

    def feasible(self, problem: PlacementProblem) -> bool:
        """Whether a placement of another (repaired) problem was found."""
        model = self._stated(problem)
        if model is None:
            return False
        return model.solve(self._careful(), self.pace) in (cp_model.OPTIMAL, cp_model.FEASIBLE)

    def _stated(
        self,
        problem: PlacementProblem,
        *,
        assume: bool = False,
        active: Collection[Limit] | None = None,
        relaxed: Collection[Limit] = (),
    ) -> Formulation | None:
        """The model, None where it is too large or time is over."""
        if problem.pairs > EXACT_PAIRS:
            return None
        try:
            return Formulation(
                problem,
                assume=assume,
                active=active,
                relaxed=relaxed,
                pace=self.pace,
                stop=self.exhausted,
            )
        except Unfinished:
            return None

    def _careful(self) -> cp_model.CpSolver:
        left_s = max(0.0, self.end_s - self.pace.now())
        solver = new_solver(self.pace, min(self.step_s, left_s), self.seed, 1)
        solver.parameters.cp_model_presolve = False
        return solver
