"""Branch and bound against trying everything: nothing within the threshold is missed, no cost is too high."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from partitioner.instances.families import instance
from partitioner.instances.generate import tiny_instance
from partitioner.problem.parts import OBJECTIVE_SCALE
from partitioner.search import branches as searching
from partitioner.search.branches import Branches
from partitioner.search.ledger import Ledger
from partitioner.search.star import Star
from partitioner.search.views import relaxed_view

ROUNDING = 1e-6


def test_every_assignment_within_the_threshold_is_found_and_costs_no_more_than_in_truth() -> None:
    compared = 0
    for seed in range(400):
        problem = tiny_instance(seed).problem()
        if any(not item.candidates for item in problem.items):
            continue
        star = Star(problem)
        for workflow, items in enumerate(star.items_of):
            branches = Branches(star, workflow, relaxed_view(star, workflow))
            root = branches.prepare()
            found = branches.all_within(3.0 * max(branches.best, 0.1))
            order = [found.items.index(item) for item in items]
            listed = {
                tuple(zip(found.device[n, order].tolist(), found.layer[n, order].tolist(), strict=True)): cost
                for n, cost in enumerate(found.cost.tolist())
            }
            spots = [[star.spot(item, c) for c in problem.items[item].candidates] for item in items]
            for tried in product(*spots):
                ledger = Ledger(star)
                given = tuple(spot for spot in tried if spot is not None)
                bill = ledger.bill(workflow, given)
                if bill is None or not ledger.enter(workflow, bill):
                    continue
                cost = ledger.total / OBJECTIVE_SCALE
                assert root <= cost + ROUNDING, f"seed {seed}"
                if given in listed:
                    assert listed[given] <= cost + ROUNDING, f"seed {seed}"
                    compared += 1
                else:
                    assert cost >= found.floor - ROUNDING, f"seed {seed}"
    assert compared > 500


def test_dropped_assignments_are_remembered_in_the_floor() -> None:
    star = Star(instance("base", 10, 30, 4).problem())
    branches = Branches(star, 0, relaxed_view(star, 0))
    branches.prepare()
    whole = branches.all_within(1.2 * branches.best)
    few = branches.all_within(1.2 * branches.best, max_labels=5)
    assert len(few.cost) <= 5 < len(whole.cost)
    assert few.floor <= whole.floor
    kept = {tuple(row) for row in few.device.tolist()}
    missed = [
        cost for row, cost in zip(whole.device.tolist(), whole.cost, strict=True) if tuple(row) not in kept
    ]
    assert min(missed) >= few.floor - ROUNDING


@pytest.mark.parametrize("family", ["tight", "fans", "diamonds", "battery"])
def test_sharper_bounds_lose_no_assignment(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sharper = 0
    star = Star(instance(family, 30, 20, 1).problem())
    for workflow in range(len(star.items_of)):
        plain, sharp = (Branches(star, workflow, relaxed_view(star, workflow)) for _ in range(2))
        plain.prepare()
        sharp.prepare()
        within = plain.best * 1.03
        monkeypatch.setattr(searching, "QUICK_LABELS", 10**6)
        every = plain.all_within(within)
        monkeypatch.setattr(searching, "QUICK_LABELS", 1)
        found = sharp.all_within(within, proof=True)
        sharper += sharp.root > plain.root
        if every.floor >= within and found.floor >= within:
            assert np.allclose(found.cost, every.cost)
        assert sharp.root <= min(every.floor, every.cost.min(initial=np.inf)) + 1e-9
    assert sharper
