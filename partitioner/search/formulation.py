"""A placement problem as a CP-SAT model.

One literal per candidate; one per Channel and pair of devices (both ends there). Pair literals are right for
any routes, also where these form no tree, and their number (Channels x devices^2) stays in the thousands for
the sizes this model is meant for, up to some tens of AIMs and devices.

Every price, load and delay is >= 0, so a pair literal only has to be forced upwards. Decides nothing: which
question is asked of the model is up to ``solver`` and ``cores``, the only others that import ortools.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ortools.sat.python import cp_model

from aif.errors import PlacementError
from partitioner.problem.channels import Sealed
from partitioner.problem.evaluate import Choice
from partitioner.problem.parts import OBJECTIVE_SCALE, Flow, Item, Limit, PlacementProblem, price
from partitioner.problem.paths import Path
from partitioner.search.pace import Clock, Pace

FINEST = 10**6
LARGEST_COST = 2**60
"""The solver's integers end at 2^63; its sums need room."""

DETERMINISTIC_S = 3.0
"""Work of one unit of the solver's deterministic time, with several workers in turns."""

LITERAL_S = 1e-5
"""Work of one literal of a pair, with its rows."""

MAX_TIME_US = 10**10
"""Bound of every finish time, about 2.8 hours."""


def new_solver(pace: Pace, time_limit_s: float, seed: int, workers: int) -> cp_model.CpSolver:
    """CP-SAT with the settings that placement needs."""
    solver = cp_model.CpSolver()
    if pace.counted:
        # Several workers in turns (interleave_search) would do too, but they abort the process where a model
        # is found infeasible while it is loaded (OR-Tools 9.15: "Check failed: heuristics.fixed_search").
        solver.parameters.max_deterministic_time = time_limit_s / DETERMINISTIC_S
        solver.parameters.num_workers = 1
    else:
        solver.parameters.max_time_in_seconds = time_limit_s
        solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed
    solver.parameters.linearization_level = 2
    # In OR-Tools 9.15 the step of presolve that reads at-most-one rows into linear ones can cut off the
    # optimum (google/or-tools#5293); a limit of 0 leaves that step out, and the rest of presolve in.
    solver.parameters.presolve_inclusion_work_limit = 0
    return solver


def ran(solver: cp_model.CpSolver, model: cp_model.CpModel, pace: Pace) -> int:
    """Solve, and count the work."""
    status = int(solver.solve(model))
    pace.spend(DETERMINISTIC_S * solver.deterministic_time)
    return status


def total_of(parts: Iterable[cp_model.LinearExpr]) -> cp_model.LinearExpr:
    """Sum of expressions."""
    return cp_model.LinearExpr.sum(list(parts))


class Unfinished(Exception):  # noqa: N818  nothing is wrong, and whoever gave ``stop`` expects it
    """Time was over before the model was built."""


@dataclass(frozen=True, slots=True)
class _Cost:
    """Price of one step of a variable, in integer units of the objective, and how many steps it can take."""

    price: float
    variable: cp_model.IntVar
    most: int = 1


def _misjudged(costs: Iterable[_Cost], fineness: int) -> float:
    """By how much prices made that fine and rounded can be wrong together, in units of the objective."""
    return sum(abs(round(fineness * c.price) / fineness - c.price) * c.most for c in costs)


def _fineness(costs: Iterable[_Cost]) -> int:
    """The least power of ten by which prices are multiplied for their rounding to add up to nothing.

    1 for weights of few digits; a small weight would round to 0 and its objective be forgotten. Where prices
    are so large that ten times as fine would leave the solver's integers, they stay as they are.
    """
    found, known = 1, list(costs)
    while found < FINEST:
        if _misjudged(known, found) < 1 or 10 * found * sum(c.price * c.most for c in known) > LARGEST_COST:
            break
        found *= 10
    return found


@dataclass
class _PathVariables:
    """Finish time of each AIM on one path, and the latency of the whole."""

    finish: dict[int, cp_model.IntVar] = field(default_factory=dict)
    latency: cp_model.IntVar | None = None


class Formulation:
    """The CP-SAT model.

    ``active`` keeps only these named limits, ``assume`` makes each an assumption, ``relaxed`` get slacks.
    """

    def __init__(
        self,
        problem: PlacementProblem,
        *,
        assume: bool = False,
        active: Collection[Limit] | None = None,
        relaxed: Collection[Limit] = (),
        pace: Pace | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """State the problem.

        Raises:
            Unfinished: ``stop`` said so.
        """
        self.problem, self.model = problem, cp_model.CpModel()
        self.pace, self.stop = pace or Clock(), stop
        self.assume, self.active, self.relaxed = assume, active, relaxed
        self.assumed: dict[int, Limit] = {}
        self.literals: dict[Limit, cp_model.IntVar] = {}
        self.slacks: dict[Limit, cp_model.IntVar] = {}
        self.zero = self.model.new_constant(0)
        self.pick = [[self.model.new_bool_var("") for _ in item.candidates] for item in problem.items]
        self.at = [self._by_device(n, item) for n, item in enumerate(problem.items)]
        self.loads: defaultdict[Limit, list[cp_model.LinearExpr]] = defaultdict(list)
        self.cost: list[_Cost] = []
        self.fineness = 1
        self._place()
        self.pairs = [self._pair(flow) for flow in problem.flows]
        self._channels()
        self._affinities()
        self.waits = self._waits()
        self.paths = [self._path(path) for path in problem.paths]
        for limit, load in self.loads.items():
            self._at_most(limit, load, problem.limits[limit])
        if assume:
            self.model.add_assumptions([self.literals[limit] for limit in self.literals])

    # --- solving ---

    def minimise_cost(self) -> None:
        """Prices of candidates and crossings, path latencies, balance, devices, soft affinity."""
        for item, picks in zip(self.problem.items, self.pick, strict=True):
            self.cost += [_Cost(price(c.terms), x) for c, x in zip(item.candidates, picks, strict=True)]
        for flow, pairs in zip(self.problem.flows, self.pairs, strict=True):
            self.cost += [_Cost(price(flow.crossings[ends].terms), y) for ends, y in pairs.items()]
        for path, variables in zip(self.problem.paths, self.paths, strict=True):
            if variables.latency is not None:
                most_us = MAX_TIME_US if path.deadline_us is None else min(path.deadline_us, MAX_TIME_US)
                self.cost.append(_Cost(OBJECTIVE_SCALE * path.weight, variables.latency, most_us))
        self._balance()
        self._devices()
        self.fineness = _fineness(self.cost)
        self.model.minimize(total_of(round(self.fineness * c.price) * c.variable for c in self.cost))

    def hint(self, choice: Choice) -> None:
        for number, item in enumerate(self.problem.items):
            for candidate, x in zip(item.candidates, self.pick[number], strict=True):
                self.model.add_hint(x, candidate == choice[number])

    def solve(self, solver: cp_model.CpSolver, pace: Pace) -> int:
        """Solve after checking the model itself.

        Raises:
            PlacementError: a figure is too large for the solver's integers.
        """
        wrong = self.model.validate()
        if wrong:
            raise PlacementError(
                f"the placement model is not valid: {wrong.splitlines()[0]}",
                hint="a figure in the workflow or the inventory is out of all proportion",
            )
        return ran(solver, self.model, pace)

    def paid(self, solver: cp_model.CpSolver) -> float:
        """Cost of the solution by the model's variables, in integer units of the objective, not rounded."""
        return sum(c.price * solver.value(c.variable) for c in self.cost)

    @property
    def misjudged(self) -> float:
        """By how much the solver's objective may be wrong because its prices are whole numbers."""
        return _misjudged(self.cost, self.fineness)

    def choice(self, solver: cp_model.CpSolver) -> Choice:
        chosen = {}
        for number, item in enumerate(self.problem.items):
            for candidate, x in zip(item.candidates, self.pick[number], strict=True):
                if solver.boolean_value(x):
                    chosen[number] = candidate
        return chosen

    # --- named limits ---

    def _enforced_by(self, limit: Limit) -> list[cp_model.IntVar] | None:
        """Literals that switch ``limit`` on; None when it is not part of this model at all."""
        if self.active is not None and limit not in self.active:
            return None
        if not self.assume:
            return []
        if limit not in self.literals:
            literal = self.model.new_bool_var("")
            self.literals[limit], self.assumed[literal.index] = literal, limit
        return [self.literals[limit]]

    def _at_most(self, limit: Limit, load: Iterable[cp_model.LinearExpr], most: int) -> None:
        literals = self._enforced_by(limit)
        if literals is None:
            return
        total = total_of(load)
        if limit in self.relaxed:
            self.slacks[limit] = self.model.new_int_var(0, 2**45, "")
            self.model.add(total <= most + self.slacks[limit])
        else:
            self.model.add(total <= most).only_enforce_if(literals)

    # --- placement ---

    def _by_device(self, number: int, item: Item) -> dict[str, cp_model.LinearExpr]:
        """1 where the AIM is on a device, whichever implementation it uses there."""
        there: defaultdict[str, list[cp_model.IntVar]] = defaultdict(list)
        for candidate, x in zip(item.candidates, self.pick[number], strict=True):
            there[candidate.device].append(x)
        return {device: total_of(literals) for device, literals in there.items()}

    def _place(self) -> None:
        runtimes: dict[tuple[str, str], cp_model.IntVar] = {}
        for item, picks in zip(self.problem.items, self.pick, strict=True):
            self.model.add_at_most_one(picks)
            literals = self._enforced_by(Limit("placed", item.key))
            if literals is not None:
                self.model.add_bool_or(picks).only_enforce_if(literals)
            for candidate, x in zip(item.candidates, picks, strict=True):
                for limit, amount in candidate.demand:
                    self.loads[limit].append(amount * x)
                if candidate.runtime is None:
                    continue
                key = (candidate.device, candidate.runtime)
                if key not in runtimes:
                    runtimes[key] = self.model.new_bool_var("")
                    for limit, amount in self.problem.runtime_demand[key]:
                        self.loads[limit].append(amount * runtimes[key])
                self.model.add_implication(x, runtimes[key])

    def _pair(self, flow: Flow) -> dict[tuple[str, str], cp_model.IntVar]:
        """A literal per pair of different devices that the Channel may join; other pairs are forbidden."""
        source, destination = self.at[flow.source], self.at[flow.destination]
        if self.stop():
            raise Unfinished
        self.pace.spend(LITERAL_S * len(source) * len(destination))
        pairs: dict[tuple[str, str], cp_model.IntVar] = {}
        unreachable = self._enforced_by(self.problem.reach_limit(flow))
        for a, at_a in source.items():
            for b, at_b in destination.items():
                crossed = flow.crossings.get((a, b))
                if crossed is None:
                    if unreachable is not None:
                        self.model.add(at_a + at_b <= 1).only_enforce_if(unreachable)
                    continue
                if a == b:
                    continue
                pairs[a, b] = self.model.new_bool_var("")
                self.model.add(pairs[a, b] >= at_a + at_b - 1)
                for limit, amount in crossed.demand:
                    self.loads[limit].append(amount * pairs[a, b])
        if not self.assume and self.active is None:
            self._tighten(flow, pairs)
        return pairs

    def _tighten(self, flow: Flow, pairs: Mapping[tuple[str, str], cp_model.IntVar]) -> None:
        """The Channel leaves its writer's device or its reader is there too: tightens the linear bound."""
        destination = self.at[flow.destination]
        for a, at_a in self.at[flow.source].items():
            leaving = total_of(y for (first, _), y in pairs.items() if first == a)
            self.model.add(leaving + destination.get(a, self.zero) >= at_a)

    def _channels(self) -> None:
        """Sealed channels of each device that could have too many."""
        groups = [group for some in self.problem.sealed for group in some]
        most: Counter[str] = Counter()
        for group in groups:
            for device in {device: None for pair in group.ends for end in pair for device in self.at[end]}:
                most[device] += group.ways
        for device, count in most.items():
            limit = Limit("channels", device)
            if count > self.problem.limits[limit]:
                self.loads[limit] += [group.ways * self._sealed_on(device, group) for group in groups]

    def _sealed_on(self, device: str, group: Sealed) -> cp_model.LinearExpr:
        """How often the flows of a group take sealed channels on a device."""
        crossing = [y for flow in group.flows for ends, y in self.pairs[flow].items() if device in ends]
        taken = list[cp_model.LinearExpr](crossing)
        if len(group.flows) > 1:
            any_crossing = self.model.new_bool_var("")
            for y in crossing:
                self.model.add_implication(y, any_crossing)
            taken = [any_crossing]
        for (source, destination), local in zip(group.ends, group.local, strict=True):
            here = self.at[source].get(device), self.at[destination].get(device)
            if local and here[0] is not None and here[1] is not None:
                together = self.model.new_bool_var("")
                self.model.add(together >= here[0] + here[1] - 1)
                taken.append(together)
        return total_of(taken)

    def _affinities(self) -> None:
        for affinity in self.problem.affinities:
            first, second = self.at[affinity.first], self.at[affinity.second]
            literals = self._enforced_by(self.problem.affinity_limit(affinity)) if affinity.hard else None
            broken = None if affinity.hard else self.model.new_bool_var("")
            for device in {**first, **second}:
                here, there = first.get(device, self.zero), second.get(device, self.zero)
                if affinity.hard and literals is not None:
                    row = (here == there) if affinity.together else (here + there <= 1)
                    self.model.add(row).only_enforce_if(literals)
                elif broken is not None:
                    self.model.add(broken >= (here - there if affinity.together else here + there - 1))
            if broken is not None:
                self.cost.append(_Cost(price((("affinity", self.problem.policy.affinity_penalty),)), broken))

    # --- time ---

    def _waits(self) -> dict[int, cp_model.IntVar]:
        """Wait of each AIM on a path for the longest other invocation on a single-core device."""
        timed = {end for path in self.problem.paths for end in self._timed(path)}
        waits: dict[int, cp_model.IntVar] = {}
        for number in sorted(timed):
            item = self.problem.items[number]
            shared = [device for device in item.devices if device in self.problem.single_core]
            if item.leaf is None or not shared:
                continue
            waits[number] = self.model.new_int_var(0, MAX_TIME_US, "")
            if self.stop():
                raise Unfinished
            for other, rival in enumerate(self.problem.items):
                if other == number:
                    continue
                for candidate, x in zip(rival.candidates, self.pick[other], strict=True):
                    if candidate.device in shared and candidate.tail_us:
                        here = self.at[number][candidate.device]
                        self.model.add(waits[number] >= candidate.tail_us * (x + here - 1))
        return waits

    def _timed(self, path: Path) -> set[int]:
        reached = {self.problem.flows[arc].destination for arc in path.arcs}
        return (reached | set(path.entries)) - {path.origin}

    def _path(self, path: Path) -> _PathVariables:
        """Finish times along the arcs; the latency is at least each way's end."""
        variables = _PathVariables()
        limit = self.problem.path_limit(path)
        if path.deadline_us is None and path.weight == 0:
            return variables
        if path.origin is not None:
            variables.finish[path.origin] = self.zero
        for number in sorted(self._timed(path)):
            variables.finish[number] = self.model.new_int_var(0, MAX_TIME_US, "")
            self.model.add(variables.finish[number] >= self._run(number, tail=path.tail))
        for arc in path.arcs:
            flow = self.problem.flows[arc]
            arrival = variables.finish[flow.source] + self._delay(arc)
            run = self._run(flow.destination, tail=path.tail)
            self.model.add(variables.finish[flow.destination] >= arrival + run)
        variables.latency = self.model.new_int_var(0, MAX_TIME_US, "")
        for delivery in path.deliveries:
            source = self.problem.flows[delivery].source
            self.model.add(variables.latency >= variables.finish[source] + self._delay(delivery))
        for number in path.finals:
            self.model.add(variables.latency >= variables.finish[number])
        if path.deadline_us is not None:
            self.loads[limit].append(variables.latency)
        return variables

    def _run(self, number: int, *, tail: bool) -> cp_model.LinearExpr:
        item = self.problem.items[number]
        ran = [
            (candidate.tail_us if tail else candidate.latency_us) * x
            for candidate, x in zip(item.candidates, self.pick[number], strict=True)
        ]
        return total_of([*ran, self.waits.get(number, self.zero)])

    def _delay(self, flow: int) -> cp_model.LinearExpr:
        crossings = self.problem.flows[flow].crossings
        return total_of(crossings[ends].crossing.delay_us * y for ends, y in self.pairs[flow].items())

    def _balance(self) -> None:
        """Highest share of RAM or processor, in millionths."""
        weight = OBJECTIVE_SCALE * self.problem.balance_weight / 1e6
        if not weight:
            return
        wholes = {
            Limit(kind, device.id): whole
            for device in self.problem.inventory.devices
            for kind, whole in (("ram", device.ram_bytes), ("cpu", 1_000_000 * device.cores))
            if whole
        }
        limits = self.problem.limits
        most = max((-(-1_000_000 * limits[limit] // whole) for limit, whole in wholes.items()), default=0)
        highest = self.model.new_int_var(0, most, "")
        for limit, whole in wholes.items():
            load = self.loads.get(limit)
            if load:
                # keep 10^6 * load and whole * share within the solver's integers
                shrink = math.gcd(1_000_000, whole)
                total = total_of(load)
                self.model.add((whole // shrink) * highest >= (1_000_000 // shrink) * total)
        self.cost.append(_Cost(weight, highest, most))

    def _devices(self) -> None:
        """Devices that run an AIM."""
        weight = price((("devices", self.problem.devices_weight),))
        running: dict[str, cp_model.IntVar] = {}
        for item, picks in zip(self.problem.items, self.pick, strict=True):
            if not weight or item.leaf is None:
                continue
            for candidate, x in zip(item.candidates, picks, strict=True):
                if candidate.device not in running:
                    running[candidate.device] = self.model.new_bool_var("")
                self.model.add_implication(x, running[candidate.device])
        self.cost += [_Cost(weight, used) for used in running.values()]
