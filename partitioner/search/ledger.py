"""A plan that changes workflow by workflow, with every limit and the objective kept exact at each step.

Decides whether one workflow's assignment fits beside the others and by how much the objective changes. All
figures are the problem's own integers, as ``evaluate`` would count them; nothing is rounded or estimated.
The terms ``balance`` and ``devices`` depend on all AIMs together: in ``total``, not in a workflow's cost.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from aif.model.aim import Runtime
from partitioner.problem.channels import channels_of
from partitioner.problem.evaluate import Choice, highest_share_ppm, path_latency_us
from partitioner.problem.parts import OBJECTIVE_SCALE, Candidate, Limit, price
from partitioner.search.pace import ENTRY_S
from partitioner.search.star import Floats, Star

ROUNDING = 64
"""Integer units that rounding single prices may add up to in one workflow."""

Spots = tuple[tuple[int, int], ...]
"""Device row and layer of each AIM, in the order of ``star.items_of[workflow]``."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What one workflow takes at one assignment, whatever the others do.

    Attributes:
        spots: the assignment.
        chosen: candidate by item.
        delays_us: time on the way by flow.
        demand: amount by limit, without runtimes.
        runtimes: (device, runtime) in use, with the number of AIMs.
        price: of candidates, Channels and soft affinity, in integer units.
        shared: items that wait where their device has one core.
        fixed: ``price`` is the whole cost, a bound rather than a count.
    """

    spots: Spots
    chosen: Choice
    delays_us: dict[int, int]
    demand: tuple[tuple[Limit, int], ...]
    runtimes: tuple[tuple[str, Runtime], ...]
    price: int
    shared: tuple[int, ...]
    fixed: bool = False


class Ledger:
    """Assignments of some workflows, their loads and costs."""

    def __init__(self, star: Star, *, together: bool = True) -> None:
        """An empty ledger.

        Args:
            star: the problem.
            together: whether ``total`` has the terms that depend on all AIMs together.
        """
        self.star, self.problem = star, star.problem
        self.together = together and bool(self.problem.devices_weight or self.problem.balance_weight)
        self.running: Counter[str] = Counter()
        """AIMs on each device."""
        self.used: Counter[Limit] = Counter()
        self.room = star.room.copy()
        """What is left of each resource, float[devices, resources]; may be pessimistic by one runtime."""
        self.bills: dict[int, Bill] = {}
        self.cost: dict[int, int] = {}
        self._runtimes: Counter[tuple[str, Runtime]] = Counter()
        self._tails: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self._candidates: dict[tuple[int, int, int], Candidate] = {}

    @property
    def total(self) -> int:
        """Objective in integer units."""
        own = sum(self.cost.values())
        if not self.together:
            return own
        devices = self.problem.devices_weight * sum(count > 0 for count in self.running.values())
        balance = self.problem.balance_weight
        if balance:
            balance *= highest_share_ppm(self.problem, self.used) / 1e6
        return own + price((("devices", devices),)) + price((("balance", balance),))

    def choice(self) -> Choice:
        """Candidate by item."""
        return {item: c for bill in self.bills.values() for item, c in bill.chosen.items()}

    def bill(self, workflow: int, spots: Spots) -> Bill | None:  # noqa: C901  one sum, part by part
        """Price and demand of an assignment; None when it breaks a rule on its own."""
        problem = self.problem
        self.star.pace.spend(ENTRY_S)
        chosen = {
            item: self._candidate(item, *spot)
            for item, spot in zip(self.star.items_of[workflow], spots, strict=True)
        }
        demand: Counter[Limit] = Counter()
        cost = 0
        runtimes: list[tuple[str, Runtime]] = []
        for candidate in chosen.values():
            cost += price(candidate.terms)
            for limit, amount in candidate.demand:
                demand[limit] += amount
            if candidate.runtime is not None:
                runtimes.append((candidate.device, candidate.runtime))
        delays: dict[int, int] = {}
        for number in self.star.flows_of[workflow]:
            flow = problem.flows[number]
            ends = (chosen[flow.source].device, chosen[flow.destination].device)
            if ends[0] == ends[1]:
                delays[number] = 0
                continue
            crossed = flow.crossings.get(ends)
            if crossed is None:
                return None
            cost += price(crossed.terms)
            delays[number] = crossed.crossing.delay_us
            for limit, amount in crossed.demand:
                demand[limit] += amount
        device_of = {item: candidate.device for item, candidate in chosen.items()}
        for device, count in channels_of(problem.sealed[workflow], device_of).items():
            demand[Limit("channels", device)] += count
        for number in self.star.affinities_of[workflow]:
            affinity = problem.affinities[number]
            if affinity.broken(chosen[affinity.first].device, chosen[affinity.second].device):
                if affinity.hard:
                    return None
                cost += price((("affinity", problem.policy.affinity_penalty),))
        if any(amount > problem.limits.get(limit, amount) for limit, amount in demand.items()):
            return None
        shared = tuple(
            item
            for item, c in chosen.items()
            if c.device in problem.single_core and problem.items[item].leaf is not None
        )
        return Bill(spots, chosen, delays, tuple(demand.items()), tuple(runtimes), cost, shared)

    def enter(self, workflow: int, bill: Bill) -> bool:
        """Add a workflow; False, and nothing changed, when it does not fit beside the others."""
        self.star.pace.spend(ENTRY_S)
        limits = self.problem.limits
        extra: Counter[Limit] = Counter(dict(bill.demand))
        for key in set(bill.runtimes):
            if not self._runtimes[key]:
                for limit, amount in self.problem.runtime_demand[key]:
                    extra[limit] += amount
        for limit, amount in extra.items():
            if self.used[limit] + amount > limits.get(limit, self.used[limit] + amount):
                return False
        self._book(bill, 1)
        self.bills[workflow] = bill
        touched = self._beside(bill, workflow)
        costs = {w: self._cost(w) for w in (workflow, *touched)}
        if any(cost is None for cost in costs.values()):
            self._book(bill, -1)
            del self.bills[workflow]
            return False
        self.cost.update({w: cost for w, cost in costs.items() if cost is not None})
        return True

    def leave(self, workflow: int) -> Bill:
        """Take a workflow out."""
        self.star.pace.spend(ENTRY_S)
        bill = self.bills.pop(workflow)
        del self.cost[workflow]
        self._book(bill, -1)
        for other in self._beside(bill, workflow):
            cost = self._cost(other)
            if cost is not None:
                self.cost[other] = cost
        return bill

    def _book(self, bill: Bill, sign: int) -> None:
        for limit, amount in bill.demand:
            self.used[limit] += sign * amount
            cell = self.star.cell(limit)
            if cell is not None:
                self.room[cell] -= sign * amount
        for key in bill.runtimes:
            before = self._runtimes[key]
            self._runtimes[key] += sign
            if (before > 0) != (self._runtimes[key] > 0):
                for limit, amount in self.problem.runtime_demand[key]:
                    self.used[limit] += sign * amount
        self._book_runs(bill, sign)

    def _book_runs(self, bill: Bill, sign: int) -> None:
        """AIMs on devices, and how long others may have to wait for them."""
        if self.together:
            for item, candidate in bill.chosen.items():
                if self.problem.items[item].leaf is not None:
                    self.running[candidate.device] += sign
        for item in bill.shared:
            if sign > 0:
                self._tails[bill.chosen[item].device][item] = bill.chosen[item].tail_us
            else:
                del self._tails[bill.chosen[item].device][item]

    def _beside(self, bill: Bill, workflow: int) -> set[int]:
        items = self.problem.items
        devices = {bill.chosen[item].device for item in bill.shared}
        return {items[i].workflow for d in devices for i in self._tails[d]} - {workflow}

    def _cost(self, workflow: int) -> int | None:
        """Objective of a workflow among the others; None when a deadline is missed."""
        bill = self.bills[workflow]
        if bill.fixed:
            return bill.price
        waits: dict[int, int] = {}
        for item in bill.shared:
            others = (t for i, t in self._tails[bill.chosen[item].device].items() if i != item)
            waits[item] = max(others, default=0)
        cost = bill.price
        for path in self.star.paths_of[workflow]:
            latency = path_latency_us(path, self.problem, bill.chosen, bill.delays_us, waits)
            if path.deadline_us is not None and latency > path.deadline_us:
                return None
            cost += price((("latency", path.weight * latency),))
        return cost

    def _candidate(self, item: int, device: int, layer: int) -> Candidate:
        key = (item, device, layer)
        if key not in self._candidates:
            self._candidates[key] = self.star.candidate(*key)
        return self._candidates[key]

    def bounding_bill(self, workflow: int, spots: Spots, real: set[int], cost: float) -> Bill:
        """A bill that asks for no more than any assignment does that agrees on the ``real`` devices."""
        items = self.star.items_of[workflow]
        here = {i: self._candidate(i, *s) for i, s in zip(items, spots, strict=True) if s[0] in real}
        demand: Counter[Limit] = Counter()
        for candidate in here.values():
            for limit, amount in candidate.demand:
                demand[limit] += amount
        runtimes = tuple((c.device, c.runtime) for c in here.values() if c.runtime is not None)
        return Bill(spots, here, {}, tuple(demand.items()), runtimes, units(cost), (), fixed=True)

    def sharing(self, workflow: int, devices: Iterable[int]) -> Iterator[int]:
        """Other workflows with an AIM on one of ``devices``."""
        wanted = set(devices)
        for other, bill in self.bills.items():
            if other != workflow and any(device in wanted for device, _ in bill.spots):
                yield other

    def alone_on(self, workflow: int) -> int:
        """Devices that no other workflow uses."""
        chosen, leaves = self.bills[workflow].chosen, self.problem.items
        own = Counter(c.device for item, c in chosen.items() if leaves[item].leaf is not None)
        return sum(self.running[device] == count for device, count in own.items())

    def free(self) -> Floats:
        """Room of each device, float[devices, resources], none below zero."""
        return self.room.clip(min=0.0)


def units(cost: float) -> int:
    """Objective units as the ledger's integers, rounded down."""
    return int(np.floor(cost * OBJECTIVE_SCALE))
