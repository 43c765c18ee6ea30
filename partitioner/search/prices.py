"""What room is worth: prices on devices under which every workflow can be placed by itself, with a proof.

Workflows share RAM, flash, processors and links. Put a price on each of these and let every workflow pay for
what it takes: then each can be placed alone, and the sum of what they pay at least, less what all the room is
worth, is a lower bound of every plan, whatever the prices are. An opening cost of a device is split among
the workflows that might use it, and the term ``balance`` among the devices in the same way. Good prices are
the duals of the master problem, whose columns are the workflows' own answers to earlier prices.

Decides prices and bounds; which of the columns make a plan is decided elsewhere. Prices that make a
workflow's room alone dearer than all there is prove that no plan exists (``weight`` 0).

Source: Geoffrion, "Lagrangean relaxation for integer programming" (1974); Wentges, "Weighted Dantzig-Wolfe
decomposition for linear mixed-integer programming" (1997), for smoothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from partitioner.search.branches import Branches, Found
from partitioner.search.charges import COVERS, Charges, parts_taken
from partitioner.search.ledger import ROUNDING, Spots, units
from partitioner.search.master import Column, Master
from partitioner.search.pace import CALL_S, CELL_S, PIVOT_S
from partitioner.search.star import Floats, Ints, Star
from partitioner.search.views import MAX_COPIES, View, only_view, priced_view, relaxed_view, whole_view

SMOOTH = 0.5
"""Share of the best prices so far in those that are tried next."""

PER_CALL = 4
"""Columns that one answer of a workflow adds, at most."""

LABELS, MOST_LABELS = 20_000, 80_000
"""Of one answer at first, and where it was cut short again and again."""

COLUMN_LABELS = 2_000
"""Of an answer that need not be the best."""

FEW_DEVICES = 64
"""Up to here every device has rows of its own from the beginning."""

EACH_SORT = 2
"""Devices of each sort elsewhere that are looked at for a plan."""


TIE = 1e-7


@dataclass(frozen=True, slots=True)
class Prices:
    """Objective units for room.

    Attributes:
        cell: float[devices, resources], per unit, of capacities and of balance together.
        bit: float[devices], per bit/s on the device's own link.
        opening: float[workflows, devices], or float[1, devices] where all pay alike.
        cover: float[devices, covers], per part of a device (``charges.parts_taken``).
        room: what all the room there is would bring, without what ``cell`` has of balance.
    """

    cell: Floats
    bit: Floats
    opening: Floats
    cover: Floats
    room: float

    def charges(self, view: View, workflow: int, weight: float) -> Charges:
        """The prices on a view: what stands for several devices costs as little as any of them."""
        opening = self.opening[workflow]
        rows = view.devices[: view.real]
        cell, bit, first, cover = [self.cell[rows]], [self.bit[rows]], [opening[rows]], [self.cover[rows]]
        for members in view.stands:
            cell.append(self.cell[members].min(axis=0, keepdims=True))
            bit.append(self.bit[members].min(keepdims=True))
            first.append(opening[members].min(keepdims=True))
            cover.append(self.cover[members].min(axis=0, keepdims=True))
        return Charges(
            np.concatenate(cell), np.concatenate(bit), np.concatenate(first), np.concatenate(cover), weight
        )


class Cells:
    """Numbers of the rows that workflows share: a device's resources, its own link, its covers."""

    def __init__(self, star: Star) -> None:
        self.star = star
        self.link = star.capacity.shape[1]
        self.width = self.link + 1 + COVERS
        devices = len(star.devices)
        whole = [star.room, star.access_bps[:, None], np.ones((devices, COVERS))]
        self.room = np.concatenate(whole, axis=1).ravel().clip(min=0.0)
        self.share: dict[int, float] = {}
        """By cell that counts for ``balance``: the whole device's RAM, or its processor."""
        for row, device in enumerate(star.devices):
            if device.ram_bytes:
                self.share[row * self.width] = float(device.ram_bytes)
            self.share[row * self.width + 2] = 1e6 * device.cores
        self.devices = devices

    def alike(self) -> Ints:
        """By cell, the first cell that is the same resource of a device of the same sort."""
        sort = self.star.sort
        first = np.full(int(sort.max(initial=0)) + 1, self.devices)
        np.minimum.at(first, sort, np.arange(self.devices))
        rows = first[sort]
        return np.asarray((rows[:, None] * self.width + np.arange(self.width)[None, :]).ravel())

    def usage(self, workflow: int, found: Found, rows: Ints) -> Floats:
        """What each assignment takes on some devices: float[assignments, rows, width].

        Args:
            workflow: whose assignments.
            found: the assignments.
            rows: devices, in ascending order; what is taken elsewhere does not count.
        """
        star = self.star
        taken = np.zeros((len(found.cost), len(rows) + 1, self.width))
        star.pace.spend(CALL_S + CELL_S * taken.size)
        every = np.arange(len(found.cost))
        place = np.full(len(star.devices), len(rows))  # the last row is thrown away
        place[rows] = np.arange(len(rows))
        for n, item in enumerate(found.items):
            options = star.options[item]
            device, layer = found.device[:, n], found.layer[:, n]
            demand = options.demand[options.kind_of[device], layer]
            taken[every, place[device], : self.link] += demand
            taken[every, place[device], self.link + 1 :] += parts_taken(demand, star.room[device])
        order = {item: n for n, item in enumerate(found.items)}
        for number in star.flows_of[workflow]:
            transfer = star.transfers[number]
            ends = [found.device[:, order[i]] for i in (transfer.source, transfer.destination)]
            remote = (ends[0] != ends[1]).astype(float)
            for end in ends:
                taken[every, place[end], 0] += remote * transfer.wire_bytes
                taken[every, place[end], self.link] += remote * transfer.bits_per_s
        return taken[:, :-1]

    def column(self, workflow: int, found: Found, n: int) -> Column:
        """One assignment as a column."""
        rows = np.unique(found.device[n])
        one = found.only(np.array([n]))
        taken = self.usage(workflow, one, rows)[0]
        uses = {
            int(rows[at]) * self.width + cell: float(taken[at, cell])
            for at, cell in np.argwhere(taken).tolist()
        }
        leaves = [
            star_item.leaf is not None for star_item in (self.star.problem.items[i] for i in found.items)
        ]
        opens = frozenset(found.device[n][leaves].tolist())
        return Column(workflow, float(found.own[n]), uses, opens)


class Pricing:
    """Prices of one problem, round by round."""

    def __init__(self, star: Star, *, weight: float = 1.0, unplaced: float) -> None:
        """No prices yet.

        Args:
            star: the problem.
            weight: 1; or 0 to ask whether all workflows can be placed at all.
            unplaced: more than any workflow costs.
        """
        problem = star.problem
        self.star, self.weight = star, weight
        self.cells = Cells(star)
        self.count = len(problem.workflows)
        self.opening = weight * problem.devices_weight
        self.balance = weight * problem.balance_weight
        self.master = Master(
            self.count,
            self.cells.room,
            unplaced=unplaced,
            opening=self.opening,
            share=self.cells.share,
            balance=self.balance,
            weight=weight,
            alike=self.cells.alike() if len(star.devices) > FEW_DEVICES else np.arange(len(self.cells.room)),
        )
        self.best = self._free()
        self.bound = 0.0
        """Objective units; no plan costs less."""
        self.least = np.zeros(self.count)
        """By workflow, what it pays at least at the best prices."""
        self.rounds = 0
        self.smooth = True
        self.settled = False
        """If the last prices proved nothing more; then devices of a sort are told apart where it matters."""
        self._branches: dict[int, Branches] = {}
        self._copies: defaultdict[int, dict[int, int]] = defaultdict(dict)
        """By workflow and the first device of a sort elsewhere, how many have their true room."""
        self._answers: dict[int, tuple[Charges, float, Found]] = {}
        self._labels: dict[int, int] = {}

    def _free(self) -> Prices:
        """No prices at all."""
        devices = len(self.star.devices)
        none = np.zeros((devices, COVERS))
        opening = np.zeros((self.count, devices))
        return Prices(np.zeros(self.star.capacity.shape), np.zeros(devices), opening, none, 0.0)

    def start(self, alone: list[float]) -> None:
        """What every workflow costs at least where room costs nothing, if that is known already."""
        self.least = np.array(alone)
        self.bound = float(self.least.sum())

    # --- columns ---

    def know(self, workflow: int, spots: Spots, cost: float) -> None:
        """Add an assignment, with its cost alone in objective units."""
        device, layer = np.array(spots, dtype=np.int64).T[:, None, :]
        items, costs = tuple(self.star.items_of[workflow]), np.array([cost])
        none = np.zeros(0, dtype=np.int64)
        found = Found(items, device, layer, costs, costs, np.zeros_like(device), np.inf, none)
        self.master.add(self.cells.column(workflow, found, 0))

    def know_found(self, workflow: int, found: Found) -> int:
        """Add the first of some assignments, but for those with rows that stand for many; how many."""
        added = 0
        real = ~np.isin(found.device, found.unlimited).any(axis=1)
        for n in np.nonzero(real)[0].tolist():
            if added >= PER_CALL:
                break
            added += self.master.add(self.cells.column(workflow, found, n))
        return added

    # --- rounds ---

    def round(self, stop: Callable[[], bool]) -> bool:
        """New prices, every workflow's answer, a new bound; False when nothing can change any more."""
        if not self._solved():
            return False
        if self.settled:
            if self.master.tighten() and not self._solved():
                return False
            self.settled = False
        goal = self.dual()
        smooth = self.smooth and self.rounds > 0
        prices = _mixed(self.best, goal, SMOOTH) if smooth else goal
        self.rounds += 1
        answers = self._ask(prices, stop)
        if answers is None:
            return False
        improved = self._take(prices, answers)
        added = sum(self._columns(workflow, prices) for workflow in range(self.count) if not stop())
        self.smooth = improved and added > 0 if smooth else True
        sharper = 0 if improved else sum(self._sharpen(w) for w in range(self.count) if not stop())
        self.settled = not (improved or smooth or sharper)
        return improved or smooth or self.settled or sharper > 0 or added > 0

    def _sharpen(self, workflow: int) -> bool:
        """Give a device elsewhere its true room if the last answer asked for more than that."""
        table, (_, _, found) = self._branches[workflow].table, self._answers[workflow]
        load: dict[int, Floats] = {}
        for n in range(len(table.order) if len(found.cost) else 0):
            label = found.labels[0, n]
            at = int(table.spot[n][label])
            if at >= table.view.real and np.isinf(table.view.capacity[at, 0]):
                load[at] = load.get(at, 0.0) + table.demand[n][label]
        full = [
            row
            for at, taken in load.items()
            if (taken > self.star.room[row := int(table.view.devices[at])]).any()
        ]
        copies = self._copies[workflow]
        fresh = [row for row in full if copies.get(row, 0) < MAX_COPIES]
        for row in fresh:
            copies[row] = copies.get(row, 0) + 1
        if fresh:
            del self._branches[workflow], self._answers[workflow]
        return bool(fresh)

    def _solved(self) -> bool:
        solved = self.master.solve()
        self.star.pace.spend(PIVOT_S * self.master.pivots)
        return solved

    def _ask(self, prices: Prices, stop: Callable[[], bool]) -> Floats | None:
        """What every workflow pays at least; None when there was no time."""
        least = np.zeros(self.count)
        for workflow in range(self.count):
            if stop():
                return None
            least[workflow] = self._answer(workflow, prices)[0]
        return least

    def _take(self, prices: Prices, least: Floats) -> bool:
        bound = float(least.sum()) - prices.room
        if bound <= self.bound + TIE * abs(bound):
            return False
        self.bound, self.best, self.least = bound, prices, least
        return True

    def _answer(self, workflow: int, prices: Prices) -> tuple[float, Found]:
        """What one workflow pays at least, on a relaxed view; remembered while its prices stay the same."""
        if workflow not in self._branches:
            few = len(self.star.devices) <= FEW_DEVICES
            copies = self._copies[workflow]
            view = whole_view(self.star) if few else relaxed_view(self.star, workflow, copies)
            self._branches[workflow] = Branches(self.star, workflow, view)
        branches = self._branches[workflow]
        charges = prices.charges(branches.table.view, workflow, self.weight)
        known = self._answers.get(workflow)
        if known is None or not _equal(known[0], charges):
            branches.charge(charges)
            most = self._labels.get(workflow, LABELS)
            labels = most if self.weight or _any(charges) else PER_CALL  # where nothing costs, all are best
            low, found = branches.least(labels)
            if len(found.cost) and low < found.cost[0] - TIE:  # it was cut short
                self._labels[workflow] = min(2 * most, MOST_LABELS)
            self._answers[workflow] = known = (charges, low, found)
        return known[1], known[2]

    def _columns(self, workflow: int, prices: Prices) -> int:
        """Add what one workflow would choose at these prices, on devices as they are."""
        _, _, found = self._answers[workflow]
        if len(found.cost) and not np.isin(found.device, found.unlimited).any():
            return self.know_found(workflow, found)
        view = priced_view(self.star, workflow, self._dearness(prices), self.rounds + workflow)
        branches = Branches(self.star, workflow, view)
        branches.charge(prices.charges(view, workflow, self.weight))
        if not np.isfinite(branches.prepare()) or not np.isfinite(branches.best):
            return 0
        return self.know_found(workflow, branches.all_within(branches.best, COLUMN_LABELS))

    def view(self, workflow: int, turn: int, keep: list[int]) -> View:
        """The devices that a workflow would look at now, and some others; others in each turn."""
        return priced_view(self.star, workflow, self._dearness(self.best), turn, keep, EACH_SORT)

    def present(self, rows: list[int]) -> View:
        """Some devices as they are, and no others."""
        return only_view(self.star, np.unique(np.array(rows, dtype=np.int64)))

    def _dearness(self, prices: Prices) -> Floats:
        """What a typical AIM would pay on each device."""
        covers = prices.cover.mean(axis=1)
        return np.asarray(prices.cell @ self._typical() + prices.opening.mean(axis=0) + covers)

    def _typical(self) -> Floats:
        demand = [o.demand[:, 0].mean(axis=0) for o in self.star.options if len(o.demand)]
        return np.asarray(np.mean(demand, axis=0))

    def dual(self) -> Prices:
        """The master's prices, made such that they prove something."""
        width, devices = self.cells.width, len(self.star.devices)
        flat = self.master.cell_prices()
        finite = np.isfinite(self.cells.room)
        room = float((flat[finite] * self.cells.room[finite]).sum())
        shares = self.master.share_prices()
        total = sum(shares.values())
        scale = min(1.0, self.balance / total) if total else 0.0
        for cell, price in shares.items():
            flat[cell] += scale * price / self.cells.share[cell]
        opening = np.zeros((self.count, devices))
        for (workflow, device), price in self.master.opening_prices().items():
            opening[workflow, device] = price
        sums = opening.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            opening *= np.where(sums > self.opening, self.opening / sums, 1.0)
        unpaid = np.where(sums < self.opening, self.opening - sums, 0.0)
        opening += unpaid / max(1, self.count)
        both, link = flat.reshape(devices, width), self.cells.link
        return Prices(both[:, :link].copy(), both[:, link].copy(), opening, both[:, link + 1 :].copy(), room)

    def proven(self) -> int:
        """The bound in integer units, with room for rounding."""
        return units(self.bound) - ROUNDING * self.count


def _mixed(a: Prices, b: Prices, share: float) -> Prices:
    """Between two prices; what both prove is proven by these too."""
    other = 1.0 - share
    return Prices(
        share * a.cell + other * b.cell,
        share * a.bit + other * b.bit,
        share * a.opening + other * b.opening,
        share * a.cover + other * b.cover,
        share * a.room + other * b.room,
    )


def _equal(a: Charges, b: Charges) -> bool:
    return bool(
        a.weight == b.weight
        and (a.cell == b.cell).all()
        and (a.bit == b.bit).all()
        and (a.opening == b.opening).all()
        and (a.cover == b.cover).all()
    )


def _any(charges: Charges) -> bool:
    """Whether anything has a price."""
    return any(part.any() for part in (charges.cell, charges.bit, charges.opening, charges.cover))
