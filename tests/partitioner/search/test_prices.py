"""Prices prove no more than is true: against the oracle on tiny instances, and by monotony on larger ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partitioner.checker.exhaustive import best_placement
from partitioner.instances.families import instance
from partitioner.instances.generate import Instance, tiny_instance, weighed_instance
from partitioner.objectives import weighing
from partitioner.planner import Plan, plan
from partitioner.problem.parts import OBJECTIVE_SCALE
from partitioner.search.charges import COVERED, HALVES, parts_taken
from partitioner.search.closing import Closing
from partitioner.search.descent import Search
from partitioner.search.pace import Work
from partitioner.search.shortage import shortage
from partitioner.search.star import Star

ROUNDING = 1e-6


def searched(given_: Instance) -> tuple[Search, list[int]]:
    search = Search(Star(given_.problem()))
    return search, search.insert_all()


@pytest.mark.parametrize("draw", [tiny_instance, weighed_instance])
def test_no_plan_costs_less_than_prices_prove(draw: Callable[[int], Instance]) -> None:
    proven = exact = 0
    for seed in range(150):
        drawn = draw(seed)
        if any(not item.candidates for item in drawn.problem().items):
            continue
        search, missing = searched(drawn)
        if missing:
            continue
        closing = Closing(search, seed=0, left_s=lambda: 60.0)
        closing.run()
        best = best_placement(*drawn.arguments)
        assert best is not None, f"seed {seed}"
        assert closing.bound / OBJECTIVE_SCALE <= best.objective + ROUNDING, f"seed {seed}"
        assert search.ledger.total / OBJECTIVE_SCALE >= best.objective - ROUNDING, f"seed {seed}"
        proven += closing.bound > 0
        exact += closing.bound / OBJECTIVE_SCALE >= best.objective - 1e-5
    assert proven > 25
    assert exact > 20


def test_what_has_a_plan_is_never_called_short_of_room() -> None:
    short = 0
    for seed in range(150):
        drawn = tiny_instance(seed)
        if any(not item.candidates for item in drawn.problem().items):
            continue
        search, _ = searched(drawn)
        proof = shortage(search, lambda: False)
        if proof is not None:
            short += 1
            assert best_placement(*drawn.arguments) is None, f"seed {seed}"
            assert set(proof.workflows) <= set(search.workflows)
    assert short > 1


@pytest.mark.parametrize("weights", [{"devices": 0.5}, {"balance": 2.0}, {"devices": 0.2, "balance": 1.0}])
def test_terms_of_all_aims_together_are_in_plan_and_bound(weights: dict[str, float]) -> None:
    drawn = instance("base", 30, 40, 1)
    known = {"latency": 1.0, "energy": 0.0034, "traffic": 0.025}
    heavier = {name: 2.0 * value for name, value in weights.items()}

    def planned(more: dict[str, float]) -> Plan:
        weighed = replace(drawn, workflows=weighing(drawn.workflows, {**known, **more}))
        return plan(weighed.problem(), time_limit_s=1.0, pace=Work())

    plain, light, heavy = planned({}), planned(weights), planned(heavier)
    assert plain.bound <= light.objective + ROUNDING
    assert light.bound <= heavy.objective + ROUNDING
    assert light.bound > plain.bound + 0.1 * (light.objective - plain.objective), (
        "a part of the terms is proven"
    )


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8), st.integers(1, 100))
@settings(max_examples=300, deadline=None)
def test_aims_that_fit_a_device_are_never_more_than_one_device(sizes: list[int], room: int) -> None:
    while sum(sizes) > room:
        sizes = sizes[:-1]
    demand, rooms = np.zeros((len(sizes), 3)), np.full((len(sizes), 3), float(room))
    demand[:, 0] = sizes
    parts = parts_taken(demand, rooms)
    assert parts.shape == (len(sizes), len(COVERED) * len(HALVES))
    assert (parts.sum(axis=0) <= 1.0 + 1e-9).all()
