"""Standbys of large problems: first a plan for what runs, then a place for each standby in the room left.

A standby has no channels, so nearly any device will do, and a search that treats it as one more AIM drowns in
assignments that cost the same. Leaving standbys out only makes a problem easier: every bound for it holds
for the whole one.

Decides where standbys go beside AIMs that stay where they are: the cheapest device that has room, the one
with the largest part of its memory free among equals. Finding none proves nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from aif.model.standby import served_by
from partitioner.problem.evaluate import Choice, evaluate
from partitioner.problem.parts import Candidate, Limit, PlacementProblem, price


def standbys_of(problem: PlacementProblem) -> list[int]:
    """Positions of the standbys among the items."""
    return [number for number, item in enumerate(problem.items) if served_by(item.key)]


def without_standbys(problem: PlacementProblem) -> PlacementProblem:
    """The same problem for what runs alone; AIMs keep their order."""
    gone = {*standbys_of(problem)}
    kept = [number for number in range(len(problem.items)) if number not in gone]
    now = {old: new for new, old in enumerate(kept)}
    return replace(
        problem,
        items=tuple(problem.items[number] for number in kept),
        flows=tuple(replace(f, source=now[f.source], destination=now[f.destination]) for f in problem.flows),
        paths=tuple(
            replace(
                path,
                origin=None if path.origin is None else now[path.origin],
                entries=tuple(now[number] for number in path.entries),
                finals=tuple(now[number] for number in path.finals),
            )
            for path in problem.paths
        ),
        affinities=tuple(
            replace(affinity, first=now[affinity.first], second=now[affinity.second])
            for affinity in problem.affinities
            if not gone & {affinity.first, affinity.second}
        ),
        sealed=tuple(
            tuple(replace(group, ends=tuple((now[a], now[b]) for a, b in group.ends)) for group in groups)
            for groups in problem.sealed
        ),
    )


def ready(problem: PlacementProblem, running: Mapping[str, Candidate]) -> Choice | None:
    """A choice with standbys for AIMs that are placed (by key); None where one found no room."""
    choice = {n: running[item.key] for n, item in enumerate(problem.items) if item.key in running}
    room = _Room(problem, choice)
    for number in sorted(standbys_of(problem), key=lambda n: (-_memory(problem, n), n)):
        if not room.take(number):
            return None
    return room.choice


def _memory(problem: PlacementProblem, number: int) -> int:
    """RAM that a standby takes where it takes least, bytes."""
    offers = (offer.candidates for offer in problem.items[number].offers)
    return min((_ram(c) for candidates in offers for c in candidates), default=0)


def _ram(candidate: Candidate) -> int:
    return dict(candidate.demand).get(Limit("ram", candidate.device), 0)


class _Room:
    """What is left beside a choice that grows."""

    def __init__(self, problem: PlacementProblem, choice: Choice) -> None:
        self.problem, self.choice = problem, dict(choice)
        self.used = Counter(evaluate(problem, choice).used)
        self.loaded = {(c.device, c.runtime) for c in choice.values()}
        self.open = {c.device for n, c in choice.items() if problem.items[n].leaf is not None}

    def take(self, number: int) -> bool:
        """Give a standby its place; False where there is none."""
        for candidate in sorted(self.problem.items[number].candidates, key=self._dearness):
            extra = self._extra(candidate)
            if self._apart(number, candidate.device) and self._fits(extra):
                self.choice[number] = candidate
                self.used.update(extra)
                self.loaded.add((candidate.device, candidate.runtime))
                self.open.add(candidate.device)
                return True
        return False

    def _dearness(self, candidate: Candidate) -> tuple[int, float, str]:
        opening = 0.0 if candidate.device in self.open else self.problem.devices_weight
        ram = Limit("ram", candidate.device)
        share = (self.used[ram] + _ram(candidate)) / max(1, self.problem.limits[ram])
        return price((*candidate.terms, ("devices", opening))), share, candidate.device

    def _extra(self, candidate: Candidate) -> Counter[Limit]:
        extra = Counter(dict(candidate.demand))
        if candidate.runtime is not None and (candidate.device, candidate.runtime) not in self.loaded:
            extra.update(dict(self.problem.runtime_demand[candidate.device, candidate.runtime]))
        return extra

    def _fits(self, extra: Counter[Limit]) -> bool:
        limits = self.problem.limits
        return all(
            self.used[limit] + n <= limits.get(limit, self.used[limit] + n) for limit, n in extra.items()
        )

    def _apart(self, number: int, device: str) -> bool:
        """Whether the hard affinities of a standby hold on a device, as far as its partners have a place."""
        for affinity in self.problem.affinities:
            if not affinity.hard or number not in (affinity.first, affinity.second):
                continue
            other = self.choice.get(affinity.second if number == affinity.first else affinity.first)
            if other is not None and affinity.broken(device, other.device):
                return False
        return True
