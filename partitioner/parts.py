"""The parts of a placement problem: named limits, candidates, flows, affinities, and the whole.

Values only: what may be chosen and what each choice takes. All amounts are integers (bytes, us, bit/s, us
of processor per s) and every price is non-negative, on which the solver's formulation relies.

Limits: ``ram``, ``flash``, ``cpu`` per device; ``storage`` per unit; ``sensor`` and ``actuator`` per kind and
device; ``link`` per link; ``deadline`` per path; ``colocate``, ``separate`` per pair; ``reach`` per Channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from aif.model.aim import Runtime
from aif.model.aiw import LeafAIM, Workflow
from aif.model.inventory import Inventory
from aif.model.ports import ChannelSpec
from partitioner.filters import Refusal
from partitioner.paths import Path
from partitioner.policy import ModelFacts, PlanPolicy
from partitioner.routes import Crossing

OBJECTIVE_SCALE = 10**8
"""Integer prices are objective units times this."""


class Limit(NamedTuple):
    """Name of one shared limit: its kind and what it is a limit of."""

    kind: str
    subject: str


Demand = tuple[tuple[Limit, int], ...]
Terms = tuple[tuple[str, float], ...]


def price(terms: Terms) -> int:
    """Integer price of weighted objective terms."""
    return round(OBJECTIVE_SCALE * sum(value for _, value in terms))


@dataclass(frozen=True, slots=True)
class Candidate:
    """One AIM on one device with one implementation: what it takes, how long it runs, what it costs."""

    device: str
    implementation: str
    runtime: Runtime | None
    demand: Demand
    latency_us: int = 0
    tail_us: int = 0
    energy_uj: float = 0.0
    power_mw: float = 0.0
    rule: str = ""
    terms: Terms = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One AIM to place (or one bound boundary Port, which has no ``leaf``)."""

    key: str
    workflow: int
    leaf: LeafAIM | None
    candidates: tuple[Candidate, ...]
    refusals: tuple[Refusal, ...]

    def on(self, device: str) -> tuple[Candidate, ...]:
        return tuple(c for c in self.candidates if c.device == device)

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c.device for c in self.candidates))


@dataclass(frozen=True, slots=True)
class PricedCrossing:
    """A Channel between two devices, with the limits it draws on and its share of the objective."""

    crossing: Crossing
    demand: Demand
    terms: Terms


@dataclass(frozen=True, slots=True)
class Flow:
    """One Channel between two placed ends. ``crossings`` lacks device pairs that cannot reach each other."""

    channel: ChannelSpec
    workflow: int
    source: int
    destination: int
    crossings: Mapping[tuple[str, str], PricedCrossing]


@dataclass(frozen=True, slots=True)
class Affinity:
    """Two AIMs that shall be on one device, or on different ones; soft ones cost when broken."""

    first: int
    second: int
    together: bool
    hard: bool

    def broken(self, first_device: str, second_device: str) -> bool:
        return (first_device == second_device) != self.together


@dataclass(frozen=True, slots=True)
class PlacementProblem:
    """Everything a solver needs, and the values it was made from."""

    workflows: tuple[Workflow, ...]
    inventory: Inventory
    policy: PlanPolicy
    releases: Mapping[str, ModelFacts]
    items: tuple[Item, ...]
    flows: tuple[Flow, ...]
    paths: tuple[Path, ...]
    affinities: tuple[Affinity, ...]
    limits: Mapping[Limit, int]
    runtime_demand: Mapping[tuple[str, Runtime], Demand]
    single_core: frozenset[str]
    balance_weight: float

    def path_limit(self, path: Path) -> Limit:
        return Limit("deadline", self._named(path.workflow, path.id))

    def affinity_limit(self, affinity: Affinity) -> Limit:
        kind = "colocate" if affinity.together else "separate"
        return Limit(kind, f"{self.items[affinity.first].key} {self.items[affinity.second].key}")

    def reach_limit(self, flow: Flow) -> Limit:
        return Limit("reach", self._named(flow.workflow, str(flow.channel)))

    def _named(self, workflow: int, name: str) -> str:
        return name if len(self.workflows) == 1 else f"{self.workflows[workflow].name}/{name}"
