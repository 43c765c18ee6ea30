"""What others would do with a placement problem: greedy, simulated annealing, and three general solvers.

Each gets the same problem and the same wall-clock time, model building included, and returns a choice (None:
nothing found) and a proven bound (None: none). The solvers get the star form of the problem, one "both ends
here" column per Channel and device, which the naive quadratic model of CP-SAT lacks. They leave out waits for
a processor, which only makes their problem easier; the independent checker judges what they find.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from partitioner.problem.evaluate import Choice
from partitioner.problem.parts import OBJECTIVE_SCALE, PlacementProblem
from partitioner.search.greedy import greedy_spots
from partitioner.search.ledger import Ledger, Spots
from partitioner.search.star import Floats, Star

MAX_PAIR_LITERALS = 100_000
"""Beyond, building the quadratic model alone takes longer than any time limit here."""

MAX_COLUMNS = 1_200_000
START_SHARE, END_SHARE = 0.02, 1e-5
"""Temperature of annealing at its start and end, as a share of the mean cost of a workflow."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a rival found."""

    choice: Choice | None
    bound: float | None = None


Rival = Callable[[PlacementProblem, float, int], Answer]


# --- greedy and annealing ---


def greedy(problem: PlacementProblem, time_limit_s: float, seed: int) -> Answer:
    """AIM by AIM in the order of the data, each on the device that adds least."""
    del time_limit_s, seed
    ledger = _greedy(Star(problem))
    return Answer(None if ledger is None else ledger.choice())


def _greedy(star: Star) -> Ledger | None:
    ledger = Ledger(star)
    for workflow in range(len(star.problem.workflows)):
        spots = greedy_spots(star, workflow, ledger.free())
        bill = None if spots is None else ledger.bill(workflow, spots)
        if bill is None or not ledger.enter(workflow, bill):
            return None
    return ledger


def annealing(problem: PlacementProblem, time_limit_s: float, seed: int) -> Answer:
    """Metropolis from the greedy plan: an AIM moves to a neighbour's device, its site, or anywhere."""
    began_s = time.perf_counter()
    star = Star(problem)
    ledger = _greedy(star)
    if ledger is None:
        return Answer(None)
    rng = random.Random(seed)
    places = _places(star)
    mean = ledger.total / max(1, len(problem.workflows))
    best, best_choice = ledger.total, ledger.choice()
    while (spent := (time.perf_counter() - began_s) / time_limit_s) < 1.0:
        temperature = mean * START_SHARE * (END_SHARE / START_SHARE) ** spent
        workflow = rng.randrange(len(problem.workflows))
        spots = ledger.bills[workflow].spots
        moved = _moved(rng, star, places, workflow, spots)
        bill = ledger.bill(workflow, moved) if moved != spots else None
        if bill is None:
            continue
        before = ledger.total
        old = ledger.leave(workflow)
        if not ledger.enter(workflow, bill):
            ledger.enter(workflow, old)
            continue
        rise = ledger.total - before
        if rise > 0 and rng.random() >= math.exp(-rise / temperature):
            ledger.leave(workflow)
            ledger.enter(workflow, old)
        elif ledger.total < best:
            best, best_choice = ledger.total, ledger.choice()
    return Answer(best_choice)


def _places(star: Star) -> Mapping[int, list[int]]:
    """Rows on which each item may be."""
    found = {}
    for item, options in enumerate(star.options):
        usable = options.allowed & np.isfinite(options.price[options.kind_of, 0])
        found[item] = np.nonzero(usable)[0].tolist()
    return found


def _moved(
    rng: random.Random, star: Star, places: Mapping[int, list[int]], workflow: int, spots: Spots
) -> Spots:
    items = star.items_of[workflow]
    n = rng.randrange(len(items))
    allowed = places[items[n]]
    draw = rng.random()
    if draw < 0.5:
        row = spots[rng.randrange(len(items))][0]
    else:
        group = star.group[spots[rng.randrange(len(items))][0]]
        near = [r for r in allowed if star.group[r] == group] if draw < 0.8 else allowed
        row = rng.choice(near or allowed)
    if row not in allowed:
        return spots
    return tuple((row, 0) if k == n else spot for k, spot in enumerate(spots))


# --- general solvers ---


def quadratic_cpsat(problem: PlacementProblem, time_limit_s: float, seed: int) -> Answer:
    """CP-SAT with a literal per Channel and pair of devices."""
    if len(problem.flows) * len(problem.inventory.devices) ** 2 > MAX_PAIR_LITERALS:
        return Answer(None)
    from partitioner.search.solver import solve

    found = solve(problem, hint=None, time_limit_s=time_limit_s, seed=seed, workers=2)
    return Answer(found.choice, found.bound / OBJECTIVE_SCALE)


@dataclass
class _Rows:
    """A sparse matrix under construction."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    column: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)

    def add(self, lower: float, upper: float, terms: Mapping[int, float]) -> None:
        self.row += [len(self.lower)] * len(terms)
        self.column += terms
        self.value += terms.values()
        self.lower.append(lower)
        self.upper.append(upper)


class _StarModel:
    """The star form as a mixed-integer programme; only for inventories with equal middles (one backbone)."""

    def __init__(self, star: Star) -> None:
        self.star, self.rows = star, _Rows()
        self.cost: list[float] = []
        self.top: list[float] = []
        self.binary: list[int] = []
        self.x: list[dict[int, int]] = []
        count = len(star.devices)
        self.loads: list[dict[int, float]] = [{} for _ in range(3 * count)]
        for item in range(len(star.problem.items)):
            self._item(item)
        groups = [np.nonzero(star.group == g)[0].tolist() for g in range(len(star.group_keys))]
        delays = {number: self._flow(number, groups) for number in range(len(star.transfers))}
        for path in star.problem.paths:
            self._path(path.arcs, path.weight, delays)
        for affinity in star.problem.affinities:
            for row in self.x[affinity.first].keys() | self.x[affinity.second].keys():
                pair = [self.x[i].get(row) for i in (affinity.first, affinity.second)]
                signs = (1.0, -1.0 if affinity.together else 1.0)
                terms = {c: s for c, s in zip(pair, signs, strict=True) if c is not None}
                self.rows.add(0.0 if affinity.together else -1.0, 0.0 if affinity.together else 1.0, terms)
        for n, terms in enumerate(self.loads):
            device, resource = divmod(n, 3)
            if terms and np.isfinite(star.room[device, resource]):
                self.rows.add(-np.inf, float(star.room[device, resource]), terms)

    def column(self, cost: float, top: float, *, binary: bool = False) -> int:
        if binary:
            self.binary.append(len(self.cost))
        self.cost.append(cost)
        self.top.append(top)
        return len(self.cost) - 1

    def _item(self, item: int) -> None:
        options = self.star.options[item]
        price = options.price[options.kind_of, 0]
        demand = options.demand[options.kind_of, 0]
        usable = options.allowed & np.isfinite(price) & (demand <= self.star.room).all(axis=1)
        self.x.append({})
        for row in np.nonzero(usable)[0].tolist():
            column = self.column(float(price[row]), 1.0, binary=True)
            self.x[item][row] = column
            for resource in range(3):
                self.loads[3 * row + resource][column] = float(demand[row, resource])
        self.rows.add(1.0, 1.0, dict.fromkeys(self.x[item].values(), 1.0))

    def _flow(self, number: int, groups: list[list[int]]) -> tuple[dict[int, float], float]:
        """Adds the columns of one Channel; its delay as (terms, constant)."""
        star, transfer = self.star, self.star.transfers[number]
        access, middle = star.delays(transfer.frame_bytes)
        between = star.matrices(0)
        handling = float(middle[0, 0])
        more = float(middle[0, 1]) - handling if len(groups) > 1 else 0.0
        price = 0.0
        if len(groups) > 1:
            price = transfer.energy * float(between.energy[0, 1]) + transfer.traffic * float(
                between.hops[0, 1]
            )
        source, sink = self.x[transfer.source], self.x[transfer.destination]
        terms: dict[int, float] = {}
        for rows, uj in ((source, star.out_uj), (sink, star.in_uj)):
            for row, column in rows.items():
                self.cost[column] += transfer.energy * uj[row] + transfer.traffic * star.access_hops[row]
                terms[column] = terms.get(column, 0.0) + float(access[row])
                load = self.loads[3 * row]
                load[column] = load.get(column, 0.0) + transfer.wire_bytes
        for row in source.keys() & sink.keys():
            both = self.column(
                -transfer.energy * (star.out_uj[row] + star.in_uj[row])
                - 2 * transfer.traffic * star.access_hops[row],
                1.0,
            )
            self.rows.add(-np.inf, 0.0, {both: 1.0, source[row]: -1.0})
            self.rows.add(-np.inf, 0.0, {both: 1.0, sink[row]: -1.0})
            terms[both] = -2.0 * float(access[row]) - handling
            self.loads[3 * row][both] = -2.0 * transfer.wire_bytes
        constant = handling
        if len(groups) > 1:
            constant += more
            for members in groups:
                inside = [[end[r] for r in members if r in end] for end in (source, sink)]
                if inside[0] and inside[1]:
                    both = self.column(-price, 1.0)
                    for columns in inside:
                        self.rows.add(-np.inf, 0.0, {both: 1.0, **dict.fromkeys(columns, -1.0)})
                    terms[both] = -more
        self.constant = getattr(self, "constant", 0.0) + price
        return terms, constant

    def _path(
        self, arcs: tuple[int, ...], weight: float, delays: Mapping[int, tuple[dict[int, float], float]]
    ) -> None:
        finish: dict[int, int] = {}
        latest = self.column(weight, np.inf)

        def ends(item: int) -> int:
            if item not in finish:
                finish[item] = self.column(0.0, np.inf)
                run = {finish[item]: 1.0, **self._run(item, -1.0)}
                self.rows.add(0.0, np.inf, run)
                self.rows.add(0.0, np.inf, {latest: 1.0, finish[item]: -1.0})
            return finish[item]

        for arc in arcs:
            transfer = self.star.transfers[arc]
            terms, constant = delays[arc]
            row: dict[int, float] = {ends(transfer.destination): 1.0, ends(transfer.source): -1.0}
            for column, value in terms.items():
                row[column] = row.get(column, 0.0) - value
            for column, value in self._run(transfer.destination, -1.0).items():
                row[column] = row.get(column, 0.0) + value
            self.rows.add(constant, np.inf, row)

    def _run(self, item: int, sign: float) -> dict[int, float]:
        options = self.star.options[item]
        mean = options.mean_us[options.kind_of, 0]
        return {column: sign * float(mean[row]) for row, column in self.x[item].items()}

    def choice(self, values: Floats) -> Choice:
        found = {}
        for item, columns in enumerate(self.x):
            row = max(columns, key=lambda r: values[columns[r]])
            found[item] = self.star.candidate(item, row, 0)
        return found


def _mip(name: str) -> Rival:
    def solve(problem: PlacementProblem, time_limit_s: float, seed: int) -> Answer:
        from ortools.linear_solver.python import model_builder
        from scipy.sparse import csr_matrix

        del seed
        began_s = time.perf_counter()
        size = len(problem.inventory.devices)
        if (len(problem.items) + len(problem.flows)) * size > MAX_COLUMNS:
            return Answer(None)
        star = Star(problem)
        made = _StarModel(star)
        rows, count = made.rows, len(made.cost)
        matrix = csr_matrix((rows.value, (rows.row, rows.column)), shape=(len(rows.lower), count))
        model: Any = model_builder.Model()  # type: ignore[no-untyped-call]  # its stubs know no arrays
        model.helper.fill_model_from_sparse_data(
            np.zeros(count),
            np.array(made.top),
            np.array(made.cost),
            np.array(rows.lower),
            np.array(rows.upper),
            matrix,
        )
        for column in made.binary:
            model.helper.set_var_integrality(column, True)
        left_s = time_limit_s - (time.perf_counter() - began_s)
        if left_s <= 0:
            return Answer(None)
        solver = model_builder.Solver(name)
        solver.set_time_limit_in_seconds(left_s)
        status = solver.solve(model)
        bound = solver.best_objective_bound  # not a number when the solver has none
        known = float(bound) + made.constant if isinstance(bound, float) and abs(bound) < 1e12 else None
        if status not in (model_builder.SolveStatus.OPTIMAL, model_builder.SolveStatus.FEASIBLE):
            return Answer(None, known)
        values = solver.values(model.get_variables()).to_numpy()
        return Answer(made.choice(values), known)

    return solve


RIVALS: Mapping[str, Rival] = {
    "greedy": greedy,
    "annealing": annealing,
    "cp-sat": quadratic_cpsat,
    "highs": _mip("highs"),
    "scip": _mip("scip"),
}
