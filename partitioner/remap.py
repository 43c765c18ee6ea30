"""Re-mapping: what to move when a device is lost or drained, or the inventory has changed.

Decides where the AIMs of lost devices go: at first all others stay where they are; if that is impossible the
whole workflow may move, and then one other workflow, each with as few moves as possible. Moves come before
the objective. A workflow for which nothing fits is named as unserved; the others keep running.

A ``Replanner`` is made while all is well, so that the first answer needs no model to be built. What it
returns is feasible, not optimal; ``planner.plan`` with a warm start gives the better plan afterwards, and
whether that is worth its moves is for the caller to say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from aif.errors import PlacementError
from aif.model.inventory import Inventory
from partitioner.planner import Plan, spots_of_choice
from partitioner.problem.build import rebuilt
from partitioner.problem.evaluate import Choice, evaluate
from partitioner.problem.parts import OBJECTIVE_SCALE, PlacementProblem
from partitioner.search.blocks import spots_of
from partitioner.search.branches import Branches
from partitioner.search.ledger import Bill, Ledger, Spots
from partitioner.search.star import Star
from partitioner.search.views import free_view

MOVE_PRICE = 1e6
"""Objective units of one move: more than any objective, so that moves are compared first."""

TRIED = 50
NEIGHBOURS = 12
"""Other workflows that may be moved to make room, at most."""


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """A device that does not answer any more; the leaves of a lost hub are lost with it."""

    device: str


@dataclass(frozen=True, slots=True)
class DeviceDrained:
    """A device that shall run nothing any more but still passes messages on."""

    device: str


@dataclass(frozen=True, slots=True)
class InventoryChanged:
    """Devices or links that were added, removed, or measured anew."""

    inventory: Inventory


Event = DeviceLost | DeviceDrained | InventoryChanged


@dataclass(frozen=True, slots=True)
class Move:
    """One AIM that changes its device or implementation."""

    aim: str
    source: str
    destination: str
    implementation: str


@dataclass(frozen=True, slots=True)
class Remapping:
    """A feasible answer to an event.

    Attributes:
        problem: the changed problem; after a loss still with the lost devices, which ``choice`` avoids.
        choice: candidate by item; items of unserved workflows are missing.
        moves: every AIM that moves.
        forced: how many AIMs could not stay in any case, a lower bound of the moves.
        unserved: workflows for which nothing was found, by name.
        lost: devices that are not to be used.
        seconds: wall-clock time from the event to this answer.
        seed: of the plan before.
    """

    problem: PlacementProblem
    choice: Choice
    moves: tuple[Move, ...]
    forced: int
    unserved: tuple[str, ...]
    lost: tuple[str, ...]
    seconds: float
    seed: int

    def plan(self) -> Plan:
        """The answer as a plan of the problem without the lost devices.

        Raises:
            PlacementError: a workflow is not served; a plan holds all of them.
        """
        if self.unserved:
            raise PlacementError(f"no room was found for {', '.join(self.unserved)}")
        problem = without(self.problem, self.lost) if self.lost else self.problem
        objective = evaluate(problem, self.choice).objective / OBJECTIVE_SCALE
        return Plan(problem, self.choice, objective, 0.0, "feasible", "re-mapping", self.seconds, self.seed)


def remap(plan: Plan, event: Event, *, now: Callable[[], float] = time.perf_counter) -> Remapping:
    """Answer one event; a ``Replanner`` that is ready before the event answers faster."""
    if isinstance(event, InventoryChanged):
        began_s = now()
        old = plan.problem
        problem = rebuilt(old, inventory=event.inventory)
        return Replanner(plan, problem=problem, now=now).settle(began_s)
    replanner = Replanner(plan, now=now)
    if isinstance(event, DeviceLost):
        return replanner.lose(event.device)
    return replanner.drain(event.device)


def without(problem: PlacementProblem, lost: Iterable[str]) -> PlacementProblem:
    """The same problem on an inventory without some devices and their links."""
    old = problem.inventory
    inventory = replace(old.without(set(lost)), version=old.version + 1)
    return rebuilt(problem, inventory=inventory)


class Replanner:
    """A running plan, ready for the next event; each answer becomes the running plan."""

    def __init__(
        self,
        plan: Plan,
        *,
        problem: PlacementProblem | None = None,
        star: Star | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take over a running plan.

        Args:
            plan: what runs.
            problem: what is to be answered, if that is not the plan's own problem any more.
            star: its arrays, if they are ready; devices that they rule out run nothing.
            now: the clock, in seconds.
        """
        self.problem, self.seed, self.now = problem or plan.problem, plan.seed, now
        self.star = star or Star(self.problem)
        self.ledger = Ledger(self.star)
        self.lost: list[str] = []
        self.before = {plan.problem.items[n].key: c for n, c in plan.choice.items()}
        self.wanted = dict(spots_of_choice(self.star, plan))
        self.missing: list[int] = []
        for workflow in range(len(self.problem.workflows)):
            spots = self.wanted.get(workflow)
            bill = None if spots is None else self.ledger.bill(workflow, spots)
            if bill is None or not self.ledger.enter(workflow, bill):
                self.missing.append(workflow)

    def lose(self, device: str) -> Remapping:
        """A device does not answer any more.

        Raises:
            ModelError: the inventory has no such device.
        """
        self.problem.inventory.device(device)
        began_s = self.now()
        leaves = [leaf for leaf in self.problem.routes.attached if self.problem.routes.hub(leaf) == device]
        if self.star.passes(device):
            return self._rebuilt([device, *leaves], began_s)
        return self._avoid([device, *leaves], began_s)

    def drain(self, device: str) -> Remapping:
        """A device shall run nothing any more.

        Raises:
            ModelError: the inventory has no such device.
        """
        self.problem.inventory.device(device)
        return self._avoid([device], self.now())

    def spare(self, devices: Iterable[str]) -> Remapping:
        """Devices shall run only what is offered nowhere else, such as what needs their sensors."""
        began_s = self.now()
        rows = [self.star.position[device] for device in devices if device in self.star.position]
        for options in self.star.options:
            offered = options.allowed & np.isfinite(options.price[options.kind_of]).any(axis=1)
            offered[rows] = False
            if offered.any():
                options.allowed[rows] = False
        for workflow, bill in list(self.ledger.bills.items()):
            spots = zip(self.star.items_of[workflow], bill.spots, strict=True)
            if not all(self.star.options[item].allowed[row] for item, (row, _) in spots):
                self.wanted[workflow] = bill.spots
                self.ledger.leave(workflow)
                self.missing.append(workflow)
        return self.settle(began_s)

    def _rebuilt(self, lost: list[str], began_s: float) -> Remapping:
        """Messages went through a lost device: routes are worked out again."""
        self.lost += lost
        running = Plan(self.problem, self.ledger.choice(), 0.0, 0.0, "feasible", "", 0.0, self.seed)
        fresh = Replanner(running, problem=without(self.problem, lost), now=self.now)
        fresh.before = self.before
        return fresh.settle(began_s)

    def _avoid(self, lost: list[str], began_s: float) -> Remapping:
        self.lost += lost
        rows = [self.star.position[device] for device in lost]
        for options in self.star.options:
            options.allowed[rows] = False
        gone = set(rows)
        for workflow, bill in list(self.ledger.bills.items()):
            if any(row in gone for row, _ in bill.spots):
                self.wanted[workflow] = bill.spots
                self.ledger.leave(workflow)
                self.missing.append(workflow)
        return self.settle(began_s)

    def settle(self, began_s: float) -> Remapping:
        """Find room for every workflow that is out."""
        unserved = [w for w in self.missing if not self._return(w)]
        self.missing = unserved
        chosen = self.ledger.choice()
        moves: list[Move] = []
        forced = 0
        for item, candidate in chosen.items():
            key = self.problem.items[item].key
            old = self.before.get(key)
            if old is None:
                continue
            forced += self.star.spot(item, old) is None
            if (old.device, old.implementation) != (candidate.device, candidate.implementation):
                moves.append(Move(key, old.device, candidate.device, candidate.implementation))
        self.before = {self.problem.items[n].key: c for n, c in chosen.items()}
        return Remapping(
            problem=self.problem,
            choice=chosen,
            moves=tuple(moves),
            forced=forced,
            unserved=tuple(self.problem.workflows[w].name for w in unserved),
            lost=tuple(self.lost),
            seconds=self.now() - began_s,
            seed=self.seed,
        )

    def _return(self, workflow: int) -> bool:
        """Enter a workflow again with as few moves as possible."""
        if not all(self.star.usable(item) for item in self.star.items_of[workflow]):
            return False  # its only sensor is gone: no use in looking
        if self._enter_near(workflow, np.inf) or self._enter_near(workflow, MOVE_PRICE):
            return True
        for other in self._neighbours(workflow):
            old = self.ledger.leave(other)
            self.wanted[other] = old.spots
            if self._enter_near(workflow, MOVE_PRICE):
                if self._enter_near(other, MOVE_PRICE):
                    return True
                self.ledger.leave(workflow)
            self.ledger.enter(other, old)
        return False

    def _neighbours(self, workflow: int) -> list[int]:
        """Running workflows on devices that this one may use, those with the fewest AIMs there first."""
        usable = np.zeros(len(self.star.devices), dtype=bool)
        for item in self.star.items_of[workflow]:
            usable |= self.star.options[item].allowed
        there: dict[int, int] = {}
        home = {row for row, _ in self.wanted.get(workflow, ())}
        groups = {int(self.star.group[row]) for row in home}
        for other, bill in self.ledger.bills.items():
            near = sum(usable[row] and int(self.star.group[row]) in groups for row, _ in bill.spots)
            if near:
                there[other] = near
        return sorted(there, key=lambda w: (-there[w], w))[:NEIGHBOURS]

    def _enter_near(self, workflow: int, move_price: float) -> bool:
        at = self._present(workflow)
        view = free_view(self.star, workflow, self.ledger.free(), [row for row, _ in at.values()])
        branches = Branches(self.star, workflow, view, at=at, move_price=move_price)
        if not np.isfinite(branches.prepare()) or not np.isfinite(branches.best):
            return False
        for spare in (0.0, 0.2 * MOVE_PRICE, 1.2 * MOVE_PRICE, 3.2 * MOVE_PRICE):
            found = branches.all_within(branches.best + spare, 20 * TRIED)
            for n in range(min(len(found.cost), TRIED)):
                bill = self._bill(workflow, spots_of(found, n, self.star.items_of[workflow]))
                if bill is not None and self.ledger.enter(workflow, bill):
                    return True
            if np.isinf(move_price) and spare:
                return False
        return False

    def _bill(self, workflow: int, spots: Spots) -> Bill | None:
        return self.ledger.bill(workflow, spots)

    def _present(self, workflow: int) -> Mapping[int, tuple[int, int]]:
        """Where the items are that can stay."""
        found = {}
        for item in self.star.items_of[workflow]:
            spot = self.star.spot(item, self.before.get(self.problem.items[item].key))
            if spot is not None:
                found[item] = spot
        return found
