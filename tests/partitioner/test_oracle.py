"""The solver against the exhaustive oracle, and its plans against the independent checker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from aif.errors import Infeasible, PlacementError
from aif.model.placement import Placement
from partitioner.checker.check import check
from partitioner.checker.exhaustive import Best, best_placement
from partitioner.instances.generate import (
    SELDOM,
    Instance,
    measured_instance,
    sealed_instance,
    tiny_instance,
    weighed_instance,
)
from partitioner.planner import place
from partitioner.problem.evaluate import evaluate
from partitioner.problem.parts import OBJECTIVE_SCALE
from partitioner.search.descent import Search
from partitioner.search.star import Star

ROUNDING = 1e-6


def solved(instance: Instance) -> Placement | None:
    problem = instance.problem()
    try:
        return place(problem, workers=1)
    except Infeasible:
        return None


def oracle(instance: Instance) -> Best | None:
    return best_placement(*instance.arguments)


def agree(seed: int, draw: Callable[[int], Instance] = tiny_instance) -> str:
    instance = draw(seed)
    best = oracle(instance)
    found = solved(instance)
    assert (found is None) == (best is None), f"seed {seed}: solver {found}, oracle {best}"
    if found is None or best is None:
        return "impossible"
    audit = check(
        instance.workflows, instance.inventory, found, instance.policy, instance.releases, instance.current
    )
    assert audit.objective == pytest.approx(best.objective, rel=ROUNDING, abs=ROUNDING), f"seed {seed}"
    assert found.objective == pytest.approx(best.objective, rel=ROUNDING, abs=ROUNDING), f"seed {seed}"
    assert found.gap == 0.0
    assert set(found.terms) == set(audit.terms)
    return "spread" if len({a.device for a in found.assignments}) > 1 else "together"


def test_equals_the_oracle_on_1600_tiny_instances() -> None:
    kinds = Counter(agree(seed) for seed in range(1600))
    assert min(kinds["impossible"], kinds["together"]) > 300, kinds
    assert kinds["spread"] > 150, kinds


def test_equals_the_oracle_whichever_objectives_count() -> None:
    placed = Counter(
        seed % (len(SELDOM) + 1) for seed in range(800) if agree(seed, weighed_instance) != "impossible"
    )
    assert min(placed[turn] for turn in range(len(SELDOM) + 1)) > 50, placed


def test_equals_the_oracle_with_measured_delays_and_low_batteries() -> None:
    kinds = Counter(agree(seed, measured_instance) for seed in range(400))
    assert min(kinds["impossible"], kinds["together"], kinds["spread"]) > 30, kinds


def test_equals_the_oracle_where_devices_hold_few_channels_and_short_messages() -> None:
    kinds = Counter(agree(seed, sealed_instance) for seed in range(800))
    assert min(kinds["impossible"], kinds["together"], kinds["spread"]) > 30, kinds


@pytest.mark.parametrize("turn", range(len(SELDOM) + 1))
def test_a_turn_weighs_what_it_says(turn: int) -> None:
    for seed in range(turn, 100, len(SELDOM) + 1):
        instance = weighed_instance(seed)
        for workflow in instance.workflows:
            objectives = workflow.metadata.objectives
            counting = {one.name for one in fields(objectives) if getattr(objectives, one.name)}
            assert counting == {SELDOM[turn]} if turn < len(SELDOM) else len(counting) >= 2, f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_equals_the_oracle_whichever_objectives_count_on_many_more(block: int) -> None:
    for seed in range(2000 + 1000 * block, 3000 + 1000 * block):
        agree(seed, weighed_instance)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_equals_the_oracle_on_many_more(block: int) -> None:
    for seed in range(2000 + 1000 * block, 3000 + 1000 * block):
        agree(seed)


def test_the_search_alone_is_allowed_and_its_bound_holds() -> None:
    optimal = 0
    for seed in range(600):
        instance = tiny_instance(seed)
        problem = instance.problem()
        if any(not item.candidates for item in problem.items):
            continue
        search = Search(Star(problem))
        if search.insert_all():
            continue
        search.improve(lambda: False)
        result = evaluate(problem, search.ledger.choice())
        assert not result.broken, f"seed {seed}"
        best = oracle(instance)
        assert best is not None, f"seed {seed}"
        assert search.bound() / OBJECTIVE_SCALE <= best.objective + ROUNDING, f"seed {seed}"
        if not problem.balance_weight and not problem.devices_weight:  # terms left to the exact solver
            assert result.objective == search.ledger.total
            optimal += result.objective / OBJECTIVE_SCALE <= best.objective + ROUNDING
    assert optimal > 100


def test_same_seed_same_plan() -> None:
    for seed in (1, 2, 5, 9, 11, 20):
        first, second = solved(tiny_instance(seed)), solved(tiny_instance(seed))
        if first is not None and second is not None:
            assert replace(first, seconds=0.0) == replace(second, seconds=0.0)


def test_the_oracle_refuses_what_it_cannot_enumerate() -> None:
    instance = tiny_instance(0, max_aims=1)
    more = replace(
        instance.inventory,
        devices=tuple(replace(instance.inventory.devices[0], id=f"x{n}") for n in range(4)),
        links=(),
    )
    with pytest.raises(PlacementError, match="4 devices are too many"):
        best_placement(instance.workflows, more, replace(instance.policy, broker_device=None))
