"""Closing the gap between a plan and what is proven: prices for room, then the best of all that can still be.

Prices (``prices``) give a lower bound. An assignment that costs its workflow more than the least by more than
the gap cannot be part of a better plan; when what is left is few enough, ``packing`` finds the best of it.

Decides how long each step is worth its time. Every bound holds whenever it is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from partitioner.branches import Branches
from partitioner.ledger import ROUNDING, Ledger, units
from partitioner.packing import Packed, Packing, Pool
from partitioner.parts import OBJECTIVE_SCALE
from partitioner.prices import Pricing
from partitioner.search import Search
from partitioner.views import whole_view

ROUNDS = 40
"""Of prices, at most."""

PATIENCE = 3
"""Rounds without a better bound after which prices are good enough."""

ENOUGH = 1e-4
"""Share by which the master problem may still be above the bound."""

POOLED = 12_000
"""Assignments of all workflows that are packed, at most."""

FEW_DEVICES = 64
"""Up to here every device is looked at as it is."""


class Closing:
    """Works on the plan and the bounds of one search."""

    def __init__(self, search: Search, *, seed: int, left_s: Callable[[], float]) -> None:
        """Take over a search that has a plan of all workflows.

        Args:
            search: its ledger gets better plans.
            seed: of the exact solver.
            left_s: seconds that are left.
        """
        self.search, self.seed, self.left_s = search, seed, left_s
        self.star = search.star
        self.bound = 0
        """Integer units; no plan costs less."""
        dearest = max(search.ledger.cost.values(), default=0) / OBJECTIVE_SCALE
        self.pricing = Pricing(self.star, unplaced=2.0 * dearest + 1.0)
        self.pricing.start([search.solve_alone(w).bound / OBJECTIVE_SCALE for w in search.workflows])
        for w, bill in search.ledger.bills.items():
            self.pricing.know(w, bill.spots, search.ledger.cost[w] / OBJECTIVE_SCALE)

    @property
    def gap(self) -> int:
        """Integer units between the plan and what is proven."""
        return self.search.ledger.total - self.bound

    def closed(self) -> bool:
        """Whether only rounding is left."""
        return self.gap <= 2 * ROUNDING * max(1, len(self.search.workflows))

    def price(self) -> None:
        """Prices until they prove nothing more."""
        quiet, before = 0, self.pricing.bound
        for _ in range(ROUNDS):
            if self.closed() or quiet >= PATIENCE or not self.pricing.round(lambda: self.left_s() <= 0):
                return
            self.bound = max(self.bound, self.pricing.proven())
            if self.pricing.master.value - self.pricing.bound <= ENOUGH * abs(self.pricing.bound):
                return
            quiet = 0 if self.pricing.bound > before + 1e-4 * abs(before) else quiet + 1
            before = self.pricing.bound

    def pack(self) -> None:
        """The best of all assignments that a better plan could use; for few devices."""
        if len(self.star.devices) > FEW_DEVICES or self.closed():
            return
        pools, cut = self._pools()
        if pools is None:
            return
        packed = self._packed(pools)
        if packed.bills is not None:
            for w in list(self.search.ledger.bills):
                self.search.ledger.leave(w)
            for w, bill in packed.bills.items():
                self.search.ledger.enter(w, bill)
        self.bound = max(self.bound, min(packed.floor, cut) - ROUNDING * len(pools))

    def _packed(self, pools: list[Pool]) -> Packed:
        empty = Ledger(self.star)
        packing = Packing(empty, pools, self.pricing.cells, seed=self.seed)
        return packing.run(self.search.ledger.total, self.left_s)

    def _pools(self) -> tuple[list[Pool] | None, int]:
        """Assignments that a better plan could use, and what plans with any other one cost at least."""
        upper = self.search.ledger.total / OBJECTIVE_SCALE
        slack = upper - self.pricing.bound
        view, pools, floors = whole_view(self.star), list[Pool](), list[float]()
        for w in self.search.workflows:
            if self.left_s() <= 0:
                return None, 0
            branches = Branches(self.star, w, view)
            branches.charge(self.pricing.best.charges(view, w, 1.0))
            low, _ = branches.least()
            found = branches.all_within(low + slack)
            floors.append(self.pricing.bound + found.floor - float(self.pricing.least[w]))
            pools.append(Pool(w, branches.table, found))
        for n in sorted(range(len(pools)), key=lambda n: len(pools[n].found.cost)):
            others = sum(self._cheapest(p, cut_off=f < upper) for p, f in zip(pools, floors, strict=True))
            spare = upper - others + self._cheapest(pools[n], cut_off=floors[n] < upper)
            pools[n], floors[n] = self._within(pools[n], floors[n], spare, upper)
        few = sum(len(pool.found.cost) for pool in pools) <= POOLED
        return (pools if few else None), units(min(floors, default=upper))

    def _cheapest(self, pool: Pool, *, cut_off: bool) -> float:
        """What the workflow costs at least in a better plan."""
        alone = self.search.solve_alone(pool.workflow).bound / OBJECTIVE_SCALE
        return alone if cut_off else max(alone, float(pool.found.own.min(initial=np.inf)))

    def _within(self, pool: Pool, floor: float, spare: float, upper: float) -> tuple[Pool, float]:
        """The same without what costs more than ``spare``; listed again by cost alone if it was cut off."""
        if floor < upper:
            branches = Branches(self.star, pool.workflow, pool.table.view)
            branches.prepare()
            again = branches.all_within(spare)
            if again.floor >= spare:
                return Pool(pool.workflow, branches.table, again), upper
        kept = np.nonzero(pool.found.own <= spare + 1e-9)[0]
        return Pool(pool.workflow, pool.table, pool.found.only(kept)), floor
