"""Several workflows at once: the cheapest combination of their assignments that fits together.

Decides among given lists, each in the order of cost. Assignments are combined depth first; whatever could not
beat the best combination known is cut, and whether two assignments overfill a device is asked for whole lists
at once. A combination counts with its exact cost, which is never below the sum of the listed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from partitioner.search.branches import Found
from partitioner.search.ledger import Bill, Ledger, Spots, units
from partitioner.search.star import Floats, Ints

MAX_LEAVES = 400
"""Combinations counted exactly in one search."""

MAX_NODES = 20_000
NODE_S = 1e-5


@dataclass(frozen=True, slots=True)
class Best:
    """The best combination found (None: none below the limit), its cost, and what none is below."""

    bills: Mapping[int, Bill] | None
    cost: int
    floor: int


def combine(
    ledger: Ledger,
    workflows: Sequence[int],
    lists: Sequence[Found],
    upper: int,
    bill: Callable[[int, Found, int], Bill | None],
) -> Best:
    """The cheapest combination that costs less than ``upper`` beyond what others in the ledger cost now.

    Args:
        ledger: without the workflows; unchanged afterwards.
        workflows: which.
        lists: assignments of each.
        upper: integer units.
        bill: makes the bill of an assignment.
    """
    return _Combination(ledger, workflows, lists, upper, bill).run()


class _Combination:
    def __init__(
        self,
        ledger: Ledger,
        workflows: Sequence[int],
        lists: Sequence[Found],
        upper: int,
        bill: Callable[[int, Found, int], Bill | None],
    ) -> None:
        self.ledger, self.make = ledger, bill
        order = sorted(range(len(workflows)), key=lambda n: len(lists[n].cost))
        self.workflows = [workflows[n] for n in order]
        self.lists = [lists[n] for n in order]
        self.base = ledger.total
        self.best = Best(None, upper, upper)
        self.leaves = self.nodes = 0
        self.exhausted = False
        self.floor = upper
        self.bills: dict[tuple[int, int], Bill | None] = {}
        least = [units(found.cost[0]) if len(found.cost) else 0 for found in self.lists]
        self.rest = [sum(least[n + 1 :]) for n in range(len(least))]
        self.costs = [np.floor(found.cost * 1e8).astype(np.int64) for found in self.lists]

    def run(self) -> Best:
        if any(not len(found.cost) for found in self.lists):
            return self.best
        cells, self.usage = self._usage()
        room = self.ledger.free().ravel()[cells] if len(cells) else np.zeros(0)
        self._dive(0, 0, room, [])
        return replace(self.best, floor=min(self.best.cost, self.floor))

    def _usage(self) -> tuple[Ints, list[Floats]]:
        """Amounts taken of the (device, resource) cells that two assignments could overfill together."""
        star = self.ledger.star
        width = star.capacity.shape[1]
        rows = np.unique(np.concatenate([found.device.ravel() for found in self.lists]))
        whole: list[Floats] = []
        most = np.zeros(len(rows) * width)
        for workflow, found in zip(self.workflows, self.lists, strict=True):
            usage = np.zeros((len(found.cost), len(rows), width))
            for n, item in enumerate(found.items):
                options = star.options[item]
                device, layer = found.device[:, n], found.layer[:, n]
                demand = options.demand[options.kind_of[device], layer]
                np.add.at(usage, (np.arange(len(device)), np.searchsorted(rows, device)), demand)
            place = {item: n for n, item in enumerate(found.items)}
            for number in star.flows_of[workflow]:
                transfer = star.transfers[number]
                ends = [found.device[:, place[i]] for i in (transfer.source, transfer.destination)]
                remote = np.nonzero(ends[0] != ends[1])[0]
                for end in ends:
                    np.add.at(
                        usage[:, :, 0], (remote, np.searchsorted(rows, end[remote])), transfer.wire_bytes
                    )
            flat = usage.reshape(len(found.cost), -1)
            whole.append(flat)
            most += flat.max(axis=0)
        room = self.ledger.free()[rows].ravel()
        unlimited = np.isin(rows, self.lists[0].unlimited)
        for found in self.lists[1:]:
            unlimited &= np.isin(rows, found.unlimited)
        tight = np.nonzero((most > room) & ~np.repeat(unlimited, width))[0]
        cells = rows[tight // width] * width + tight % width
        return cells, [flat[:, tight] for flat in whole]

    def _dive(self, depth: int, cost: int, room: Floats, picked: list[int]) -> None:
        limit = self.best.cost - cost - self.rest[depth]
        near = int(np.searchsorted(self.costs[depth], limit, side="left"))
        if near == 0:
            return
        fits = np.nonzero((self.usage[depth][:near] <= room).all(axis=1))[0]
        for n in fits.tolist():
            here = cost + int(self.costs[depth][n])
            if here + self.rest[depth] >= self.best.cost:
                return
            self.nodes += 1
            self.ledger.star.pace.spend(NODE_S)
            if self._enough():
                self.exhausted = True
                if depth == 0:
                    self.floor = here + self.rest[0]
                return
            if depth + 1 == len(self.lists):
                self._count([*picked, n])
            else:
                self._dive(depth + 1, here, room - self.usage[depth][n], [*picked, n])
            if self.exhausted:
                if depth == 0:
                    self.floor = here + self.rest[0]
                return

    def _enough(self) -> bool:
        return self.nodes > MAX_NODES or self.leaves > MAX_LEAVES

    def _count(self, picked: list[int]) -> None:
        self.leaves += 1
        bills: list[Bill] = []
        for level, n in enumerate(picked):
            if (level, n) not in self.bills:
                self.bills[level, n] = self.make(self.workflows[level], self.lists[level], n)
            bill = self.bills[level, n]
            if bill is None:
                return
            bills.append(bill)
        entered: list[int] = []
        for workflow, bill in zip(self.workflows, bills, strict=True):
            if not self.ledger.enter(workflow, bill):
                break
            entered.append(workflow)
        else:
            cost = self.ledger.total - self.base
            if cost < self.best.cost:
                self.best = Best(dict(zip(self.workflows, bills, strict=True)), cost, cost)
        for workflow in reversed(entered):
            self.ledger.leave(workflow)


def spots_of(found: Found, number: int, items: Sequence[int]) -> Spots:
    """An assignment in the order of ``items``."""
    place = {item: n for n, item in enumerate(found.items)}
    return tuple((int(found.device[number, place[i]]), int(found.layer[number, place[i]])) for i in items)
