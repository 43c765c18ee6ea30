"""One assignment for each workflow out of lists, the cheapest that fit together, with a bound: set packing.

Decides among lists that hold every assignment a better plan could use, so its bound is one of all plans.
Rows are what workflows share. That AIMs of other workflows let an AIM wait on a device of one core is not
known before: whenever the best packing turns out to cost more because of waits, a row is added that tells
what this wait costs every assignment of the workflow, and the search goes on.

Source: Baldacci, Christofides and Mingozzi (2008), as in ``branches``, for solving over all columns within a
gap; Laporte and Louveaux, "The integer L-shaped method" (1993), for costs that are found out one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ortools.sat.python import cp_model

from partitioner.problem.parts import OBJECTIVE_SCALE
from partitioner.search.blocks import spots_of
from partitioner.search.branches import Found
from partitioner.search.formulation import new_solver, ran
from partitioner.search.ledger import ROUNDING, Bill, Ledger
from partitioner.search.pace import CELL_S, Pace
from partitioner.search.prices import Cells
from partitioner.search.star import Floats, Ints, Star
from partitioner.search.table import Table

GRAIN = 60
"""Amounts of rows that are not whole numbers by nature (parts of a device) are counted in these."""

MAX_CUTS = 60
LEAST_S = 0.05
"""A shorter search finds nothing."""

FEW = 2_000
"""Variables up to which one worker is done before several have begun."""

WORKERS = 8
"""Of the solver; more than there are processors, since some of them reason by linear programmes."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The assignments of one workflow that count, and the table that prices them."""

    workflow: int
    table: Table
    found: Found


@dataclass(frozen=True, slots=True)
class Packed:
    """The cheapest packing found (None: none below ``upper``) and what no packing is below, integer units."""

    bills: Mapping[int, Bill] | None
    cost: int
    floor: int


class Packing:
    """One search."""

    def __init__(
        self,
        ledger: Ledger,
        pools: Sequence[Pool],
        cells: Cells,
        *,
        seed: int,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """A model of all pools.

        Args:
            ledger: without the pools' workflows; unchanged afterwards.
            pools: one per workflow.
            cells: the rows that workflows share.
            seed: of the solver.
            stop: whether there is no time to find out which assignments others replace.
        """
        self.ledger, self.cells, self.seed = ledger, cells, seed
        self.pools, self.usage, self.scarce = _reduced(ledger.star, pools, cells, stop)
        self.model = cp_model.CpModel()
        self.pick = [[self.model.new_bool_var("") for _ in range(len(p.found.cost))] for p in self.pools]
        self.cost = [np.floor(p.found.own * OBJECTIVE_SCALE).astype(np.int64) for p in self.pools]
        self.extra = [self.model.new_int_var(0, OBJECTIVE_SCALE * 1000, "") for _ in self.pools]
        self.told: set[tuple[object, ...]] = set()
        for picks in self.pick:
            self.model.add_exactly_one(picks)
        self._rows(stop)
        paid = [
            cp_model.LinearExpr.weighted_sum(picks, cost.tolist())
            for picks, cost in zip(self.pick, self.cost, strict=True)
        ]
        self.total = cp_model.LinearExpr.sum([*paid, *self.extra])
        self.model.minimize(self.total)

    def _rows(self, stop: Callable[[], bool]) -> None:
        """Amounts as whole numbers, rounded such that no row is stricter than it is."""
        scale = np.where(self.scarce % self.cells.width > self.cells.link, GRAIN, 1)
        rooms = np.ceil(scale * self.cells.room[self.scarce] - 1e-6).astype(np.int64).tolist()
        grains = [np.floor(scale * usage + 1e-6).astype(np.int64) for usage in self.usage]
        for column, room in enumerate(rooms):
            if stop():  # without some rows the answer may not fit, which is checked, and its floor holds
                return
            picks: list[cp_model.IntVar] = []
            amounts: list[int] = []
            for taken, pick in zip(grains, self.pick, strict=True):
                some = np.nonzero(taken[:, column])[0].tolist()
                picks += [pick[k] for k in some]
                amounts += taken[some, column].tolist()
            self.model.add(cp_model.LinearExpr.weighted_sum(picks, amounts) <= room)

    def hint(self, spots: Mapping[int, Mapping[int, tuple[int, int]]]) -> None:
        """Begin with a packing that is known: by workflow, device row and layer by item."""
        for pool, picks in zip(self.pools, self.pick, strict=True):
            label = pool.table.label(spots[pool.workflow])
            same = None if label is None else (pool.found.labels == label[None, :]).all(axis=1)
            for k, pick in enumerate(picks):
                if same is not None and same.any():
                    self.model.add_hint(pick, bool(same[k]))

    def run(self, upper: int, time_limit_s: Callable[[], float]) -> Packed:
        """The cheapest packing below ``upper``; stops when time is over."""
        pace = self.ledger.star.pace
        best: Packed = Packed(None, upper, 0)
        self.model.add(self.total <= upper)
        for _ in range(MAX_CUTS):
            left_s = time_limit_s()
            if left_s <= LEAST_S:
                break
            workers = WORKERS if len(self.model.proto.variables) > FEW else 1
            solver = new_solver(pace, left_s, self.seed, workers)
            status = ran(solver, self.model, pace)
            if status == cp_model.INFEASIBLE:
                return Packed(best.bills, best.cost, best.cost)
            floor = max(best.floor, math.floor(solver.best_objective_bound))
            best = Packed(best.bills, best.cost, min(floor, best.cost))
            if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
                break
            picked = [[solver.boolean_value(x) for x in picks].index(True) for picks in self.pick]
            entered = self._enter(picked)
            if entered is None:
                break
            bills, costs = entered
            total = sum(costs)
            if total < best.cost:
                best = Packed(bills, total, min(best.floor, total))
            if status != cp_model.OPTIMAL or total <= best.floor + 2 * ROUNDING * len(self.pools):
                break
            if not self._tell(picked, costs):
                break
        return best

    def _enter(self, picked: Sequence[int]) -> tuple[dict[int, Bill], list[int]] | None:
        """Bills and exact costs of a packing; None when it breaks a rule that has no row."""
        bills: dict[int, Bill] = {}
        costs: list[int] = []
        for pool, k in zip(self.pools, picked, strict=True):
            items = self.ledger.star.items_of[pool.workflow]
            if np.isin(pool.found.device[k], pool.found.unlimited).any():
                break
            bill = self.ledger.bill(pool.workflow, spots_of(pool.found, k, items))
            if bill is None or not self.ledger.enter(pool.workflow, bill):
                break
            bills[pool.workflow] = bill
        if len(bills) == len(self.pools):
            costs = [self.ledger.cost[pool.workflow] for pool in self.pools]
        for workflow in reversed(list(bills)):
            self.ledger.leave(workflow)
        return (bills, costs) if costs else None

    # --- waits ---

    def _tell(self, picked: Sequence[int], costs: Sequence[int]) -> bool:
        """Rows for the waits of a packing that costs more than was known; False when all is told."""
        told = False
        tails = [self._tails(n, k) for n, k in enumerate(picked)]
        for n, k in enumerate(picked):
            if costs[n] <= int(self.cost[n][k]) + 2 * ROUNDING:
                continue
            waits: list[tuple[int, int, float]] = []
            for row in tails[n]:
                others = [(there.get(row, 0.0), m) for m, there in enumerate(tails) if m != n]
                tail, other = max(others, default=(0.0, -1))
                if tail > 0.0:
                    waits.append((row, other, tail))
            new = [w for w in waits if self._tell_of(n, [w])]
            told |= bool(new)
            if not new and len(waits) > 1:
                told |= self._tell_of(n, waits)
        return told

    def _tails(self, n: int, k: int) -> dict[int, float]:
        """Longest invocation of one assignment on each device of one core."""
        found, star = self.pools[n].found, self.ledger.star
        longest: dict[int, float] = {}
        for place, item in enumerate(found.items):
            row, layer = int(found.device[k, place]), int(found.layer[k, place])
            if star.single_core[row] and star.problem.items[item].leaf is not None:
                options = star.options[item]
                tail = float(options.tail_us[options.kind_of[row], layer])
                longest[row] = max(longest.get(row, 0.0), tail)
        return longest

    def _tell_of(self, n: int, waits: Sequence[tuple[int, int, float]]) -> bool:
        """If others are as long on these devices, a workflow pays for it: one row for all its assignments."""
        key = (n, *waits)
        if key in self.told:
            return False
        self.told.add(key)
        pool = self.pools[n]
        tails_us = np.zeros(len(pool.table.view.devices))
        for row, _, tail in waits:
            tails_us[pool.table.view.devices == row] = tail
        _, own = pool.table.cost(pool.found.labels, tails_us)
        late = np.nonzero(~np.isfinite(own))[0].tolist()
        more = np.where(np.isfinite(own), own - pool.found.own, 0.0)
        units = np.floor(more * OBJECTIVE_SCALE).astype(np.int64).clip(min=0)
        there: list[cp_model.IntVar] = []
        for row, other, tail in waits:
            there += self._as_long(other, row, tail)
        count, most = len(waits), int(units.max(initial=0))
        if late:
            late_picks = [self.pick[n][k] for k in late]
            self.model.add(cp_model.LinearExpr.sum([*late_picks, *there]) <= count)
        if most:
            paid = cp_model.LinearExpr.weighted_sum(self.pick[n], units.tolist())
            together = cp_model.LinearExpr.sum(there)
            self.model.add(self.extra[n] >= paid + most * together - most * count)
        return True

    def _as_long(self, n: int, row: int, tail: float) -> list[cp_model.IntVar]:
        """Assignments of another workflow that keep a device busy as long."""
        picks = self.pick[n]
        return [picks[k] for k in self._busy(n, row, tail).tolist()]

    def _busy(self, n: int, row: int, tail: float) -> Ints:
        found, star = self.pools[n].found, self.ledger.star
        if row in found.unlimited:  # there it stands for many, of which this need not be the one
            return np.zeros(0, dtype=np.int64)
        longest = np.zeros(len(found.cost))
        for place, item in enumerate(found.items):
            if star.problem.items[item].leaf is None:
                continue
            options = star.options[item]
            tails: Floats = options.tail_us[options.kind_of[row], found.layer[:, place]]
            longest = np.maximum(longest, np.where(found.device[:, place] == row, tails, 0.0))
        return np.asarray(np.nonzero(longest >= tail)[0])


def _reduced(
    star: Star, pools: Sequence[Pool], cells: Cells, stop: Callable[[], bool]
) -> tuple[list[Pool], list[Floats], Ints]:
    """The pools without assignments that another one replaces, what is left takes of scarce cells, and these.

    A cell is scarce when the pools together could ask for more than there is. One assignment replaces another
    if it takes no more of scarce cells, keeps no shared device of one core busy for longer, and costs no more
    even where it waits for others as long as it can.
    """
    rows = np.unique(np.concatenate([p.found.device.ravel() for p in pools]))
    whole, most = [], np.zeros((len(rows), cells.width))
    for pool in pools:
        usage = cells.usage(pool.workflow, pool.found, rows)
        usage[:, np.isin(rows, pool.found.unlimited)] = 0.0
        whole.append(usage)
        most += usage.max(axis=0)
    room = cells.room.reshape(-1, cells.width)[rows]
    scarce = np.argwhere(most > room + 1e-9)
    busy = [_busy(star, pool, rows) for pool in pools]
    longest = [b.max(axis=0) for b in busy]
    kept: list[Pool] = []
    left: list[Floats] = []
    for n, (pool, usage) in enumerate(zip(pools, whole, strict=True)):
        others = np.max([longest[m] for m in range(len(pools)) if m != n] or [np.zeros(len(rows))], axis=0)
        tails_us = np.zeros(len(star.devices))
        tails_us[rows] = others
        _, worst = pool.table.cost(pool.found.labels, tails_us[pool.table.view.devices])
        asked = np.concatenate([usage[:, scarce[:, 0], scarce[:, 1]], busy[n][:, others > 0.0]], axis=1)
        chosen = _undominated(pool.found.own, worst, asked, star.pace, stop)
        kept.append(Pool(pool.workflow, pool.table, pool.found.only(chosen)))
        left.append(usage[chosen][:, scarce[:, 0], scarce[:, 1]])
    return kept, left, rows[scarce[:, 0]] * cells.width + scarce[:, 1]


def _undominated(own: Floats, worst: Floats, asked: Floats, pace: Pace, stop: Callable[[], bool]) -> Ints:
    """Assignments that none before them replaces; ``own`` is in ascending order.

    Whatever there is no time to compare stays.
    """
    kept: list[int] = []
    best, ask = np.zeros(len(own)), np.zeros_like(asked)
    for n in range(len(own)):
        count = len(kept)
        pace.spend(CELL_S * count * asked.shape[1])
        if n % 64 == 0 and stop():
            return np.concatenate([np.array(kept, dtype=np.int64), np.arange(n, len(own))])
        if not ((best[:count] <= own[n] + 1e-12) & (ask[:count] <= asked[n]).all(axis=1)).any():
            best[count], ask[count] = worst[n], asked[n]
            kept.append(n)
    return np.array(kept, dtype=np.int64)


def _busy(star: Star, pool: Pool, rows: Ints) -> Floats:
    """Longest invocation of each assignment on each device of one core, float[assignments, rows]."""
    found = pool.found
    longest = np.zeros((len(found.cost), len(rows)))
    every = np.arange(len(found.cost))
    for n, item in enumerate(found.items):
        if star.problem.items[item].leaf is None:
            continue
        options, device = star.options[item], found.device[:, n]
        tails = options.tail_us[options.kind_of[device], found.layer[:, n]] * star.single_core[device]
        np.maximum.at(longest, (every, np.searchsorted(rows, device)), tails)
    longest[:, np.isin(rows, found.unlimited)] = 0.0
    return longest
