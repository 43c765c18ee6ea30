"""Closing the gap between a plan and what is proven: prices for room, then the best of all that can still be.

Prices (``prices``) give a lower bound. An assignment that costs its workflow more than the least by more than
the gap cannot be part of a better plan; when what is left is few enough, ``packing`` finds the best of it.

Decides how long each step is worth its time. Every bound holds whenever it is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from partitioner.problem.parts import OBJECTIVE_SCALE
from partitioner.search.branches import Branches
from partitioner.search.descent import Search
from partitioner.search.ledger import ROUNDING, Ledger, units
from partitioner.search.packing import Packed, Packing, Pool
from partitioner.search.prices import Pricing
from partitioner.search.views import whole_view

FEW_ROUNDS, ROUNDS = 5, 40
"""Of prices before the next plan, and when no better plan is found any more."""

PATIENCE = 3
"""Rounds without a better bound after which prices are good enough."""

FAILURES = 3
"""Plans in a row that were no better after which no more are made."""

ALMOST, NEARLY = 0.01, 0.1
"""Gaps up to which what is left is packed before there are prices, and after."""

ENOUGH = 1e-4
"""Share by which the master problem may still be above the bound."""

POOLED, LISTED = 12_000, 100_000
"""Assignments of all workflows that are packed, at most, and that are listed before some are ruled out."""

MIXED, LEAST_MIXED = 8_000, 40
"""Assignments of all workflows that are mixed for a better plan, and of each at least."""

LABELS, LABELS_OF_ALL = 3_000, 10_000

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
        self.mixed = 0
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

    def run(self) -> None:
        """Prices, plans and proofs in turns until nothing changes or time is over."""
        failures, rounds = 0, FEW_ROUNDS
        problem = self.star.problem
        if problem.devices_weight or problem.balance_weight:  # a packing does not count them
            self.price(1.0, ROUNDS)
            return
        if self.gap <= ALMOST * self.search.ledger.total:
            self.pack(1.0)
        while not self.closed() and self.left_s() > 0:
            proven = self.bound
            self.price(0.5, rounds)
            self.pack(0.6)
            before = self.search.ledger.total
            if failures < FAILURES and not self.closed():
                self.mix(0.5)
                self._improve(0.5)
            failures = 0 if self.search.ledger.total < before else failures + 1
            rounds = FEW_ROUNDS if failures < FAILURES else ROUNDS
            if failures > FAILURES and self.bound == proven:
                return

    def _improve(self, share: float) -> None:
        end_s = (1.0 - share) * self.left_s()
        self.search.improve(lambda: self.left_s() <= end_s)

    def price(self, share: float, rounds: int) -> None:
        """Prices until they prove nothing more, or a share of the time that is left is over."""
        end_s = (1.0 - share) * self.left_s()
        quiet, before = 0, self.pricing.bound
        for _ in range(rounds):
            if self.closed() or quiet >= PATIENCE or not self.pricing.round(lambda: self.left_s() <= end_s):
                return
            self.bound = max(self.bound, self.pricing.proven())
            if self.pricing.master.value - self.pricing.bound <= ENOUGH * abs(self.pricing.bound):
                return
            quiet = 0 if self.pricing.bound > before + 1e-4 * abs(before) else quiet + 1
            before = self.pricing.bound

    def pack(self, share: float) -> None:
        """The best of what a better plan could use, in a share of the time; for few devices."""
        near = self.search.ledger.total * (1.0 - NEARLY) <= self.bound
        if len(self.star.devices) > FEW_DEVICES or self.closed() or not near:
            return
        pools, cut = self._pools()
        if pools is None:
            return
        end_s = (1.0 - share) * self.left_s()
        packed = self._packed(pools, lambda: self.left_s() - end_s)
        self.bound = max(self.bound, min(packed.floor, cut) - ROUNDING * len(pools))

    def mix(self, share: float) -> bool:
        """A better plan out of what every workflow likes at these prices; for any number of devices.

        Args:
            share: of the time that is left, at most.
        """
        self.mixed += 1
        end_s = (1.0 - share) * self.left_s()
        half_s = (1.0 - 0.5 * share) * self.left_s()
        most = max(LEAST_MIXED, MIXED // max(1, len(self.search.workflows)))
        slack = max(0.0, self.search.ledger.total / OBJECTIVE_SCALE - self.pricing.bound)
        pools: list[Pool] = []
        for w in self.search.workflows:
            at = self._spots(w)
            keep = [row for row, _ in at.values()]
            few = len(self.star.devices) <= FEW_DEVICES
            view = whole_view(self.star) if few else self.pricing.view(w, self.mixed + w, keep)
            if self.left_s() <= half_s:  # the others stay where they are
                view = self.pricing.present(keep)
            branches = Branches(self.star, w, view)
            branches.charge(self.pricing.best.charges(view, w, 1.0))
            labels = LABELS_OF_ALL if few else LABELS
            low, _ = branches.least(labels)
            found = branches.all_within(low + slack, labels)
            found = found.only(np.arange(min(most, len(found.cost))))
            pools.append(Pool(w, branches.table, branches.and_also(found, at)))
        return self._packed(pools, lambda: max(self.left_s() - end_s, 0.5 * self.left_s())).bills is not None

    def _spots(self, workflow: int) -> Mapping[int, tuple[int, int]]:
        items, bill = self.star.items_of[workflow], self.search.ledger.bills[workflow]
        return dict(zip(items, bill.spots, strict=True))

    def _packed(self, pools: list[Pool], left_s: Callable[[], float]) -> Packed:
        """Packs, and takes the plan if it is better."""
        ledger = self.search.ledger
        if not all(len(pool.found.cost) for pool in pools):  # one of them has no place in any better plan
            return Packed(None, ledger.total, ledger.total)
        packing = Packing(
            Ledger(self.star, together=False),
            pools,
            self.pricing.cells,
            seed=self.seed,
            stop=lambda: left_s() <= 0,
        )
        packing.hint({w: self._spots(w) for w in self.search.workflows})
        packed = packing.run(ledger.total, left_s)
        if packed.bills is not None:
            for w in list(ledger.bills):
                ledger.leave(w)
            for w, bill in packed.bills.items():
                ledger.enter(w, bill)
                self.pricing.know(w, bill.spots, ledger.cost[w] / OBJECTIVE_SCALE)
        return packed

    def _pools(self) -> tuple[list[Pool] | None, int]:
        """Assignments that a better plan could use, and what plans with any other one cost at least."""
        upper = self.search.ledger.total / OBJECTIVE_SCALE
        view, pools, floors = whole_view(self.star), list[Pool](), list[float]()
        for w in self.search.workflows:
            if self.left_s() <= 0:
                return None, 0
            branches = Branches(self.star, w, view)
            spare = upper - self._others(w)
            if spare - self._alone(w) <= upper - self.pricing.bound:
                branches.prepare(proof=True)
                found = branches.all_within(spare, proof=True)
                floors.append(upper if found.floor >= spare else upper - spare + found.floor)
            else:
                branches.charge(self.pricing.best.charges(view, w, 1.0))
                low, _ = branches.least()
                found = branches.all_within(low + upper - self.pricing.bound, proof=True)
                floors.append(self.pricing.bound + found.floor - float(self.pricing.least[w]))
            pools.append(Pool(w, branches.table, found))
            if sum(len(pool.found.cost) for pool in pools) > LISTED:
                return None, 0
        for n in sorted(range(len(pools)), key=lambda n: len(pools[n].found.cost)):
            others = sum(self._cheapest(p, cut_off=f < upper) for p, f in zip(pools, floors, strict=True))
            spare = upper - others + self._cheapest(pools[n], cut_off=floors[n] < upper)
            pools[n], floors[n] = self._within(pools[n], floors[n], spare, upper)
        few = sum(len(pool.found.cost) for pool in pools) <= POOLED
        return (pools if few else None), units(min(floors, default=upper))

    def _alone(self, workflow: int) -> float:
        return self.search.solve_alone(workflow).bound / OBJECTIVE_SCALE

    def _others(self, workflow: int) -> float:
        """What all other workflows cost at least, by the bounds of blocks."""
        least = 0
        for block, bound in self.search.bounds.items():
            inside = sum(self.search.solve_alone(w).bound for w in block if w != workflow)
            least += inside if workflow in block else max(bound, inside)
        return least / OBJECTIVE_SCALE

    def _cheapest(self, pool: Pool, *, cut_off: bool) -> float:
        """What the workflow costs at least in a better plan."""
        alone = self._alone(pool.workflow)
        return alone if cut_off else max(alone, float(pool.found.own.min(initial=np.inf)))

    def _within(self, pool: Pool, floor: float, spare: float, upper: float) -> tuple[Pool, float]:
        """The same without what costs more than ``spare``; listed again by cost alone if it was cut off."""
        if floor < upper:
            branches = Branches(self.star, pool.workflow, pool.table.view)
            branches.prepare(proof=True)
            again = branches.all_within(spare, proof=True)
            if again.floor >= spare:
                return Pool(pool.workflow, branches.table, again), upper
        kept = np.nonzero(pool.found.own <= spare + 1e-9)[0]
        return Pool(pool.workflow, pool.table, pool.found.only(kept)), floor
