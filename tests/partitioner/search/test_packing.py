"""Packing finds the best of all combinations, waits for other workflows included."""

from __future__ import annotations

from itertools import product

import numpy as np

from partitioner.instances.families import instance
from partitioner.search.blocks import spots_of
from partitioner.search.branches import Branches
from partitioner.search.ledger import Ledger
from partitioner.search.packing import Packing, Pool
from partitioner.search.prices import Cells
from partitioner.search.star import Star
from partitioner.search.views import whole_view

MOST = 12


def pools_of(star: Star) -> list[Pool]:
    view, pools = whole_view(star), []
    for workflow in range(len(star.items_of)):
        branches = Branches(star, workflow, view)
        branches.prepare()
        found = branches.all_within(1.3 * branches.best)
        spread = np.unique(np.linspace(0, len(found.cost) - 1, MOST).astype(int))
        pools.append(Pool(workflow, branches.table, found.only(spread)))
    return pools


def cheapest(star: Star, pools: list[Pool]) -> int | None:
    ledger, best = Ledger(star), None
    items = star.items_of
    bills = [
        [ledger.bill(w, spots_of(found, k, items[w])) for k in range(len(found.cost))]
        for w, found in ((pool.workflow, pool.found) for pool in pools)
    ]
    for picked in product(*bills):
        entered = []
        for pool, bill in zip(pools, picked, strict=True):
            if bill is None or not ledger.enter(pool.workflow, bill):
                break
            entered.append(pool.workflow)
        if len(entered) == len(pools) and (best is None or ledger.total < best):
            best = ledger.total
        for workflow in entered:
            ledger.leave(workflow)
    return best


def test_equals_trying_every_combination() -> None:
    waited = 0
    for family, seed in (("base", 3), ("tight", 0), ("tight", 4), ("slow", 1)):
        star = Star(instance(family, 24, 10, seed).problem())
        pools = pools_of(star)
        best = cheapest(star, pools)
        empty = Ledger(star)
        packed = Packing(empty, pools, Cells(star), seed=0).run(10**12, lambda: 60.0)
        assert not empty.bills
        assert packed.cost == (best or 10**12), f"{family} {seed}"
        assert packed.floor <= packed.cost
        assert packed.floor >= packed.cost - 1000
        if best is not None and packed.bills is not None:
            waited += sum(b.price for b in packed.bills.values()) < best
    assert waited
