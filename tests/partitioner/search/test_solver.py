"""What the exact solver says is checked against our own count before anybody sees it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aif.errors import PlacementError
from partitioner.instances.families import instance
from partitioner.planner import plan
from partitioner.problem.evaluate import evaluate
from partitioner.problem.parts import OBJECTIVE_SCALE
from partitioner.search.solver import solve, verified

PROBLEM = instance("base", 6, 10, 0).problem()
BEST = plan(PROBLEM).choice
COST = evaluate(PROBLEM, BEST).objective


def test_an_answer_with_the_right_price_is_taken() -> None:
    assert verified(PROBLEM, BEST, COST, hint=BEST, optimal=True) == COST


def test_an_unfinished_search_may_overstate_the_price_an_optimum_may_not() -> None:
    assert verified(PROBLEM, BEST, COST + OBJECTIVE_SCALE) == COST
    with pytest.raises(PlacementError, match="the solver's plan costs"):
        verified(PROBLEM, BEST, COST + OBJECTIVE_SCALE, optimal=True)


def test_a_price_below_ours_is_refused() -> None:
    with pytest.raises(PlacementError, match="the solver's plan costs"):
        verified(PROBLEM, BEST, COST - OBJECTIVE_SCALE / 1000)


def test_an_optimum_above_a_known_plan_is_refused() -> None:
    worse = next(
        {**BEST, number: other}
        for number, item in enumerate(PROBLEM.items)
        for other in item.candidates
        if not (counted := evaluate(PROBLEM, {**BEST, number: other})).broken
        and counted.objective > COST + OBJECTIVE_SCALE / 1000
    )
    paid = evaluate(PROBLEM, worse).objective
    assert verified(PROBLEM, worse, paid, hint=BEST) == paid
    with pytest.raises(PlacementError, match="is not the best one known"):
        verified(PROBLEM, worse, paid, hint=BEST, optimal=True)


def test_a_plan_that_breaks_a_limit_is_refused() -> None:
    full = replace(PROBLEM, limits=dict.fromkeys(PROBLEM.limits, 0))
    with pytest.raises(PlacementError, match="breaks ram"):
        verified(full, BEST, COST)


def test_the_solver_itself_passes() -> None:
    found = solve(PROBLEM, hint=BEST, time_limit_s=60.0, seed=0, workers=1)
    assert found.bound == pytest.approx(COST, abs=100)
