"""What a choice of candidates uses, breaks and costs, in the problem's own integers.

A choice may leave AIMs open: then only what both ends of a Channel or an AIM alone decide is counted. Used to
build a first plan and to try single changes of a finished one; ``checker`` is the independent judge.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from partitioner.problem.channels import channels_of
from partitioner.problem.parts import Candidate, Demand, Limit, PlacementProblem, Terms, price
from partitioner.problem.paths import Path

Choice = Mapping[int, Candidate]
"""Candidate by position in ``problem.items``."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``used`` per limit, ``broken`` limits, objective (integer, and by term), latency per path (us)."""

    used: Mapping[Limit, int]
    broken: tuple[Limit, ...]
    objective: int
    terms: Mapping[str, float]
    latencies_us: tuple[int, ...]


def evaluate(problem: PlacementProblem, choice: Choice) -> Evaluation:
    """Count everything that ``choice`` takes."""
    account = _Account(problem, choice)
    account.add_candidates()
    delays = account.add_flows()
    account.add_channels()
    account.add_affinities()
    latencies = account.add_paths(delays)
    account.add_balance()
    account.add_devices()
    full = [limit for limit, amount in account.used.items() if amount > problem.limits.get(limit, amount)]
    broken = (*account.broken, *full)
    return Evaluation(dict(account.used), broken, account.objective, dict(account.terms), latencies)


class _Account:
    """Running totals of one evaluation."""

    def __init__(self, problem: PlacementProblem, choice: Choice) -> None:
        self.problem, self.choice = problem, choice
        self.used: Counter[Limit] = Counter()
        self.terms: defaultdict[str, float] = defaultdict(float)
        self.objective = 0
        self.broken: list[Limit] = []

    def add_candidates(self) -> None:
        runtimes = {(c.device, c.runtime) for c in self.choice.values() if c.runtime is not None}
        for device, runtime in runtimes:
            self._take(self.problem.runtime_demand[device, runtime])
        for candidate in self.choice.values():
            self._take(candidate.demand)
            self._pay(candidate.terms)

    def add_flows(self) -> list[int]:
        """Time on the way (us) of every flow."""
        delays = [0] * len(self.problem.flows)
        for number, flow in enumerate(self.problem.flows):
            source, destination = self.choice.get(flow.source), self.choice.get(flow.destination)
            if source is None or destination is None:
                continue
            crossed = flow.crossings.get((source.device, destination.device))
            if crossed is None:
                self.broken.append(self.problem.reach_limit(flow))
                continue
            self._take(crossed.demand)
            self._pay(crossed.terms)
            delays[number] = crossed.crossing.delay_us
        return delays

    def add_channels(self) -> None:
        """Sealed channels that each device holds."""
        device_of = {item: candidate.device for item, candidate in self.choice.items()}
        for groups in self.problem.sealed:
            for device, count in channels_of(groups, device_of).items():
                self.used[Limit("channels", device)] += count

    def add_affinities(self) -> None:
        for affinity in self.problem.affinities:
            first, second = self.choice.get(affinity.first), self.choice.get(affinity.second)
            if first is None or second is None or not affinity.broken(first.device, second.device):
                continue
            if affinity.hard:
                self.broken.append(self.problem.affinity_limit(affinity))
            else:
                self._pay((("affinity", self.problem.policy.affinity_penalty),))

    def add_paths(self, delays: list[int]) -> tuple[int, ...]:
        """Latency (us) of every path."""
        waits = waiting_us(self.problem, self.choice)
        paths = self.problem.paths
        latencies = tuple(path_latency_us(path, self.problem, self.choice, delays, waits) for path in paths)
        for path, latency in zip(paths, latencies, strict=True):
            self._pay((("latency", path.weight * latency),))
            if path.deadline_us is not None:
                self.used[self.problem.path_limit(path)] = latency
        return latencies

    def add_balance(self) -> None:
        weight = self.problem.balance_weight
        if weight:
            self._pay((("balance", weight * highest_share_ppm(self.problem, self.used) / 1e6),))

    def add_devices(self) -> None:
        """Devices that run an AIM; bound boundary Ports do not count."""
        weight = self.problem.devices_weight
        if weight:
            running = {c.device for n, c in self.choice.items() if self.problem.items[n].leaf is not None}
            self._pay((("devices", weight * len(running)),))

    def _take(self, demand: Demand) -> None:
        for limit, amount in demand:
            self.used[limit] += amount

    def _pay(self, terms: Terms) -> None:
        self.objective += price(terms)
        for name, value in terms:
            self.terms[name] += value


def waiting_us(problem: PlacementProblem, choice: Choice) -> dict[int, int]:
    """Longest other invocation on a single-core device, which runs each one to its end."""
    longest: defaultdict[str, list[int]] = defaultdict(list)
    for candidate in choice.values():
        if candidate.device in problem.single_core:
            longest[candidate.device].append(candidate.tail_us)
    waits: dict[int, int] = {}
    for item, candidate in choice.items():
        others = sorted(longest[candidate.device])
        if others and problem.items[item].leaf is not None:
            others.remove(candidate.tail_us)
            waits[item] = others[-1] if others else 0
    return waits


def path_latency_us(
    path: Path,
    problem: PlacementProblem,
    choice: Choice,
    delays: Sequence[int] | Mapping[int, int],
    waits: Mapping[int, int],
) -> int:
    """Longest way through the path's part of the workflow."""

    def run(item: int) -> int:
        candidate = choice[item]
        return waits.get(item, 0) + (candidate.tail_us if path.tail else candidate.latency_us)

    finish = {item: run(item) for item in path.entries if item in choice}
    if path.origin is not None and path.origin in choice:
        finish[path.origin] = 0
    for arc in path.arcs:
        flow = problem.flows[arc]
        if flow.destination in choice:
            arrival = finish.get(flow.source, 0) + delays[arc]
            finish[flow.destination] = max(finish.get(flow.destination, 0), arrival + run(flow.destination))
    ends = [finish.get(problem.flows[d].source, 0) + delays[d] for d in path.deliveries]
    return max([*ends, *(finish.get(item, 0) for item in path.finals)], default=0)


def highest_share_ppm(problem: PlacementProblem, used: Mapping[Limit, int]) -> int:
    """Highest share of RAM or processor in use on any device, in millionths, rounded up."""
    return max(
        (
            -(-1_000_000 * used.get(Limit(kind, device.id), 0) // whole)
            for device in problem.inventory.devices
            for kind, whole in (("ram", device.ram_bytes), ("cpu", 1_000_000 * device.cores))
            if whole
        ),
        default=0,
    )
