"""Good plans of many workflows, and how far from the optimum they can be at most.

Decides workflow by workflow with ``branches``: first every workflow alone on an empty inventory (the sum of
those costs is a lower bound), then one after the other into what is left, then again and again those that
cost more than they would alone, together with those in their way. Workflows that are at home in one place
share a *block*: the block's own optimum, proven in ``prove``, bounds the plan from below more sharply.

Source: Pisinger and Ropke, "Large Neighborhood Search" (2010).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from partitioner.problem.parts import OBJECTIVE_SCALE
from partitioner.search.blocks import Best, combine, spots_of
from partitioner.search.branches import Branches, Found
from partitioner.search.charges import no_charges
from partitioner.search.greedy import greedy_spots
from partitioner.search.ledger import ROUNDING, Bill, Ledger, Spots, units
from partitioner.search.star import Star
from partitioner.search.views import View, copied_view, free_view, home_groups, relaxed_view

LISTED = 4_000
"""Assignments of one workflow that an improvement looks at."""

TRIED = 12
"""Assignments of a workflow alone that are tried before it is searched again in what is left."""

PROVEN, PROVEN_PER_S = 60_000, 50_000.0
"""Assignments of each workflow of a block, at most, and how many there is time for in a second."""

FURTHER = 24
"""Workflows elsewhere that are asked to make room, at most."""

MAX_BLOCK = 4


@dataclass(slots=True)
class Alone:
    """One workflow on an empty inventory: its search, the cheapest assignments, and its lower bound."""

    branches: Branches
    found: Found
    bound: int


class Search:
    """One run of the planner's heuristics and bounds on one problem."""

    def __init__(self, star: Star, *, end_s: float = math.inf) -> None:
        """A search without a plan; ``end_s`` is when its pace says that time is over."""
        self.star, self.end_s = star, end_s
        self.ledger = Ledger(star)
        self.alone: dict[int, Alone] = {}
        self.bounds: dict[tuple[int, ...], int] = {}
        self.proven_at: dict[tuple[int, ...], int] = {}
        """Cost of each block when its bound was last looked for."""
        self.listed = 0
        """Assignments that the last ``replace`` compared."""

    @property
    def workflows(self) -> range:
        return range(len(self.star.problem.workflows))

    def out_of_time(self) -> bool:
        return self.star.pace.now() >= self.end_s

    # --- alone ---

    def solve_alone(self, workflow: int) -> Alone:
        """The optimum of one workflow on an empty inventory, made once."""
        if workflow not in self.alone:
            branches = Branches(self.star, workflow, relaxed_view(self.star, workflow))
            branches.prepare()
            self.alone[workflow] = _alone(branches, branches.all_within(branches.best))
        return self.alone[workflow]

    def _sharpen(self, workflow: int) -> None:
        """A better bound of one workflow alone, if its search was cut short."""
        alone = self.solve_alone(workflow)
        if alone.found.floor < alone.branches.best:
            found = alone.branches.all_within(alone.branches.best, proof=True)
            better = _alone(alone.branches, found)
            if better.bound > alone.bound:
                self.alone[workflow] = better

    def impossible_alone(self, workflow: int) -> bool:
        """Whether it is proven that one workflow fits nowhere on an empty inventory."""
        if workflow not in self.alone and self.out_of_time():
            return False
        alone = self.solve_alone(workflow)
        if len(alone.found.cost) or not alone.branches.possible:
            return not alone.branches.possible
        return alone.branches.exhausted()

    # --- a first plan ---

    def insert_all(self) -> list[int]:
        """Enter every workflow, the costliest first; returns those that did not fit."""
        waiting = [w for w in self.workflows if w not in self.ledger.bills]
        if not self.out_of_time():
            waiting.sort(key=lambda w: (-self._costs_alone(w), w))
        return [w for w in waiting if not (self.insert(w) or self.make_room(w))]

    def _costs_alone(self, workflow: int) -> int:
        """What a workflow costs alone; 0 where there is no time to find out."""
        late = workflow not in self.alone and self.out_of_time()
        return 0 if late else self.solve_alone(workflow).bound

    def enter_spots(self, spots: Mapping[int, Spots]) -> None:
        """Enter workflows where they are known to have been, as far as that still fits."""
        for workflow, given in spots.items():
            bill = self.ledger.bill(workflow, given)
            if bill is not None:
                self.ledger.enter(workflow, bill)

    def make_room(self, workflow: int) -> bool:
        """Enter a workflow that found no room by moving one other."""
        if self.out_of_time():
            return False
        for other in self.in_the_way(workflow) or list(self.ledger.bills):
            old = self.ledger.leave(other)
            if self.insert(workflow):
                if self.insert(other):
                    return True
                self.ledger.leave(workflow)
            self.ledger.enter(other, old)
            if self.out_of_time():
                return False
        return False

    def insert(self, workflow: int) -> bool:
        """Enter one workflow where it costs least beside the others; anywhere when time is over."""
        if self.out_of_time():
            spots = greedy_spots(self.star, workflow, self.ledger.free())
            bill = None if spots is None else self.ledger.bill(workflow, spots)
            return bill is not None and self.ledger.enter(workflow, bill)
        found = self.solve_alone(workflow).found
        items = self.star.items_of[workflow]
        tried = 0 if self.star.problem.devices_weight else TRIED
        for n in range(min(len(found.cost), tried)):
            if np.isin(found.device[n], found.unlimited).any():
                continue
            bill = self.ledger.bill(workflow, spots_of(found, n, items))
            if bill is not None and self.ledger.enter(workflow, bill):
                return True
        return self._insert_into_rest(workflow)

    def _insert_into_rest(self, workflow: int) -> bool:
        view = free_view(self.star, workflow, self.ledger.free())
        branches = self._branches(workflow, view)
        branches.prepare()
        items = self.star.items_of[workflow]
        for share in (0.0, 0.1, 0.5):
            if not np.isfinite(branches.best):
                return False
            found = branches.all_within(branches.best * (1.0 + share), LISTED)
            for n in range(min(len(found.cost), 10 * TRIED)):
                bill = self.ledger.bill(workflow, spots_of(found, n, items))
                if bill is not None and self.ledger.enter(workflow, bill):
                    return True
        return False

    def _branches(self, workflow: int, view: View) -> Branches:
        """A search that pays for devices where no AIM runs yet."""
        branches = Branches(self.star, workflow, view)
        opening = self.star.problem.devices_weight
        if opening:
            closed = [not self.ledger.running[self.star.devices[row].id] for row in view.devices.tolist()]
            branches.charge(no_charges(self.star, view, opening * np.array(closed, dtype=float)))
        return branches

    # --- improvement ---

    def improve(self, done: Callable[[], bool]) -> None:
        """Re-place workflows that cost more than alone, with those in their way, until nothing changes."""
        changed = True
        while changed and not done():
            changed = False
            excess = {w: self.excess(w) for w in self.ledger.bills}
            for w in sorted(excess, key=lambda w: (-excess[w], w)):
                if excess[w] <= 2 * ROUNDING or done():
                    break
                changed |= self.replace((w,))
                for other in self.in_the_way(w):
                    if done():
                        return
                    if self.excess(w) <= 2 * ROUNDING:
                        break
                    changed |= self.replace((w, other))

    def excess(self, workflow: int) -> int:
        """What a workflow costs more than alone, with the devices that it alone keeps open."""
        cost = self.ledger.cost[workflow] - self.solve_alone(workflow).bound
        opening = self.star.problem.devices_weight
        return cost + (round(opening * OBJECTIVE_SCALE) * self.ledger.alone_on(workflow) if opening else 0)

    def in_the_way(self, workflow: int) -> list[int]:
        """Workflows on the devices that this one would like to use, then on others of their sort."""
        alone = self.solve_alone(workflow)
        if not len(alone.found.cost):
            return []
        wanted = np.unique(alone.found.device[:TRIED])
        here = set(self.ledger.sharing(workflow, wanted.tolist()))
        foreign = wanted[np.isin(wanted, alone.found.unlimited)]
        alike = np.nonzero(np.isin(self.star.sort, self.star.sort[foreign]))[0]
        there = set(self.ledger.sharing(workflow, alike.tolist())) - here
        slack = {w: self.ledger.cost[w] - self.solve_alone(w).bound for w in here | there}
        nearest = sorted(here, key=lambda w: (-slack[w], w))
        return nearest + sorted(there, key=lambda w: (-slack[w], w))[:FURTHER]

    def replace(self, workflows: Sequence[int]) -> bool:
        """Take some workflows out and put them back as cheaply as possible; True if the plan got cheaper."""
        before = self.ledger.total
        old = {w: self.ledger.leave(w) for w in workflows}
        upper = before - self.ledger.total
        room = self.ledger.free()
        lists = self._lists(workflows, upper, lambda w: free_view(self.star, w, room))
        self.listed = sum(len(found.cost) for found in lists or ())
        if lists is not None:
            best = combine(self.ledger, workflows, lists, upper, self._bill)
            if best.bills is not None:
                for w, bill in best.bills.items():
                    self.ledger.enter(w, bill)
                return True
        for w, bill in old.items():
            self.ledger.enter(w, bill)
        return False

    def _lists(
        self, workflows: Sequence[int], upper: int, view: Callable[[int], View], most: int = LISTED
    ) -> list[Found] | None:
        """Assignments of each workflow that a combination below ``upper`` may use; None if there is none."""
        searches = [self._branches(w, view(w)) for w in workflows]
        return _within(searches, upper / OBJECTIVE_SCALE, most, proof=False)

    def _bill(self, workflow: int, found: Found, number: int) -> Bill | None:
        return self.ledger.bill(workflow, spots_of(found, number, self.star.items_of[workflow]))

    # --- proof ---

    def blocks(self) -> list[tuple[int, ...]]:
        """Workflows by the place where they are at home, at most ``MAX_BLOCK`` together."""
        by_home: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for w in self.workflows:
            by_home[tuple(home_groups(self.star, w).tolist())].append(w)
        found: list[tuple[int, ...]] = []
        for home, members in by_home.items():
            size = MAX_BLOCK if home else 1
            found += [tuple(members[n : n + size]) for n in range(0, len(members), size)]
        return found

    def bound(self) -> int:
        """Lower bound of any plan, in integer units; blocks with the largest excess are looked at first."""
        for w in sorted(self.ledger.bills, key=lambda w: (self._costs_alone(w) - self.ledger.cost[w], w)):
            if not self.out_of_time():
                self._sharpen(w)
        for block in self.blocks():
            self.bounds.setdefault(block, sum(self._costs_alone(w) for w in block))
        costs = {block: sum(self.ledger.cost[w] for w in block) for block in self.bounds}
        for block in sorted(self.bounds, key=lambda b: (self.bounds[b] - costs[b], b)):
            if self.out_of_time():
                break
            if self.proven_at.get(block) != costs[block]:
                self.proven_at[block] = costs[block]
                self.bounds[block] = max(self.bounds[block], self.prove(block))
        return sum(self.bounds.values())

    def prove(self, block: Sequence[int]) -> int:
        """Lower bound of what these workflows cost together in any plan, in integer units."""
        alone = sum(self.solve_alone(w).bound for w in block)
        upper = sum(self.ledger.cost.get(w, 0) for w in block)
        if upper <= alone + 2 * ROUNDING * len(block) or any(w not in self.ledger.cost for w in block):
            return alone
        most = self.star.affordable(PROVEN, PROVEN_PER_S)
        coarse = _within([self.solve_alone(w).branches for w in block], upper / OBJECTIVE_SCALE, most)
        if coarse is None:
            return upper - ROUNDING * len(block)
        relaxed = {w: self.alone[w].branches.table.view for w in block}
        views = [copied_view(self.star, relaxed[w], f) for w, f in zip(block, coarse, strict=True)]
        sharper = [Branches(self.star, w, view) for w, view in zip(block, views, strict=True)]
        lists = _within(sharper, upper / OBJECTIVE_SCALE, most)
        if lists is None:
            lists = []
        empty = Ledger(self.star, together=False)
        real = {w: set(view.devices[: view.real].tolist()) for w, view in relaxed.items()}

        def bill(workflow: int, found: Found, number: int) -> Bill | None:
            spots = spots_of(found, number, self.star.items_of[workflow])
            if np.isin(found.device[number], found.unlimited).any():
                return empty.bounding_bill(workflow, spots, real[workflow], float(found.cost[number]))
            return empty.bill(workflow, spots)

        best = combine(empty, block, lists, upper, bill) if lists else Best(None, upper, upper)
        # what was cut off by a full list costs at least that list's floor beside the others' optima
        floors = [min(f.floor for f in found) for found in zip(coarse, lists or coarse, strict=True)]
        cut = [units(floor) + alone - self.alone[w].bound for w, floor in zip(block, floors, strict=True)]
        return max(alone, min(best.floor, *cut) - ROUNDING * len(block))


def _alone(branches: Branches, found: Found) -> Alone:
    least = min(found.floor, float(found.cost[0])) if len(found.cost) else found.floor
    bound = 0 if not np.isfinite(least) else max(0, units(max(least, branches.root)) - ROUNDING)
    return Alone(branches, found, bound)


def _within(
    searches: Iterable[Branches], upper: float, most: int, *, proof: bool = True
) -> list[Found] | None:
    """All assignments of each search that fit into a sum of ``upper`` beside the others' best.

    None when it is proven that no combination does.
    """
    ready = list(searches)
    least = []
    for branches in ready:
        if branches.root == -np.inf:
            branches.prepare()
        if np.isinf(branches.root):
            return None
        low = branches.root
        if np.isfinite(branches.best):  # else nothing was found, which proves nothing
            exact = branches.all_within(branches.best, most, proof=proof)
            low = min(exact.floor, float(exact.cost[0])) if len(exact.cost) else low
        least.append(low)
    spare = upper - sum(least)
    if spare < 0:
        return None
    return [b.all_within(low + spare, most, proof=proof) for b, low in zip(ready, least, strict=True)]
