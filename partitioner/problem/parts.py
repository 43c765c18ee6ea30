"""The parts of a placement problem: named limits, candidates, flows, affinities, and the whole.

Values only: what may be chosen and what each choice takes. All amounts are integers (bytes, us, bit/s, us
of processor per s) and every price is non-negative, on which the solver's formulation relies.

Limits: ``ram``, ``flash``, ``cpu``, ``battery`` (uW) per device; ``storage`` per unit; ``sensor`` and
``actuator`` per kind and device; ``channels`` per device; ``link`` per link; ``deadline`` per path;
``colocate``, ``separate`` per pair; ``reach`` per Channel, or ``message`` where its records are too long for
some devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, product
from typing import NamedTuple

from aif.model.aim import Runtime
from aif.model.aiw import LeafAIM, Workflow
from aif.model.inventory import Device, Inventory
from aif.model.ports import ChannelSpec
from partitioner.policy import ModelFacts, PlanPolicy
from partitioner.problem.channels import Sealed
from partitioner.problem.filters import Refusal, device_refusals
from partitioner.problem.paths import Path
from partitioner.problem.routes import Crossing, RouteTable

OBJECTIVE_SCALE = 10**8
"""Integer prices are objective units times this."""


EXACT_PAIRS = 60_000
"""``PlacementProblem.pairs`` up to which the exact solver is worth its time."""


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
    storage: str = ""


@dataclass(frozen=True, slots=True)
class Kinds:
    """Devices that are equal in everything that counts for one AIM, so that one stands for all of them.

    Attributes:
        of: kind of each device, in the order of the inventory.
        samples: one device of each kind.
    """

    of: tuple[int, ...]
    samples: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """What one kind of device offers to one AIM.

    ``refusals`` are those that hold whatever the AIM is pinned to, ``costs`` those that its figures give.
    """

    candidates: tuple[Candidate, ...]
    refusals: tuple[Refusal, ...]
    costs: tuple[Refusal, ...] = ()


@dataclass(frozen=True)  # no slots: candidates are made once, when they are first asked for
class Item:
    """One AIM to place (or one bound boundary Port, which has no ``leaf``).

    Attributes:
        key: id of the AIM, with its workflow's name if there are several.
        workflow: position of the workflow.
        leaf: the AIM.
        kinds: the kinds of devices that differ for it.
        offers: candidates on the sample of each kind.
        inventory: the devices.
    """

    key: str
    workflow: int
    leaf: LeafAIM | None
    kinds: Kinds
    offers: tuple[Offer, ...]
    inventory: Inventory

    def on(self, device: str) -> tuple[Candidate, ...]:
        """Candidates on one device."""
        return self._by_device.get(device, ())

    def made_for(self, position: int) -> tuple[Candidate, ...]:
        """Candidates on the device at ``position`` in the inventory, without those on others."""
        device = self.inventory.devices[position]
        if self.leaf is not None and any(device_refusals(self.leaf, device)):
            return ()
        kind = self.kinds.of[position]
        sample = self.kinds.samples[kind].id
        return tuple(stamped(c, sample, device.id) for c in self.offers[kind].candidates)

    @cached_property
    def _by_device(self) -> Mapping[str, tuple[Candidate, ...]]:
        made = ((device.id, self.made_for(n)) for n, device in enumerate(self.inventory.devices))
        return {device: candidates for device, candidates in made if candidates}

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """All of them, device by device."""
        return tuple(chain.from_iterable(self._by_device.values()))

    @cached_property
    def refusals(self) -> tuple[Refusal, ...]:
        """Why the others are none."""
        found: list[Refusal] = []
        for device, kind in zip(self.inventory.devices, self.kinds.of, strict=True):
            pinned = list(device_refusals(self.leaf, device)) if self.leaf is not None else []
            offer = self.offers[kind]
            here = offer.refusals if pinned else (*offer.refusals, *offer.costs)
            found += [*pinned, *(replace(r, device=device.id) for r in here)]
        return tuple(found)

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(self._by_device)


def stamped(candidate: Candidate, sample: str, device: str) -> Candidate:
    """The same candidate on another device of its kind."""
    if sample == device:
        return candidate
    skip = len(sample)
    demand = tuple((Limit(name.kind, device + name.subject[skip:]), n) for name, n in candidate.demand)
    return replace(candidate, device=device, demand=demand)


@dataclass(frozen=True, slots=True)
class PricedCrossing:
    """A Channel between two devices, with the limits it draws on and its share of the objective."""

    crossing: Crossing
    demand: Demand
    terms: Terms


class Crossings(Mapping[tuple[str, str], PricedCrossing]):
    """What a Channel takes between each two devices that its ends may run on, worked out when asked for.

    Lacks the pairs of devices that cannot reach each other.
    """

    def __init__(
        self, source: Item, destination: Item, between: Callable[[str, str], PricedCrossing | None]
    ) -> None:
        self._source, self._destination, self._between = source, destination, between
        self._made: dict[tuple[str, str], PricedCrossing | None] = {}

    def __getitem__(self, ends: tuple[str, str]) -> PricedCrossing:
        if ends not in self._made:
            self._made[ends] = self._between(*ends)
        found = self._made[ends]
        if found is None:
            raise KeyError(ends)
        return found

    def __iter__(self) -> Iterator[tuple[str, str]]:
        pairs = product(self._source.devices, self._destination.devices)
        return (ends for ends in pairs if self.get(ends) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True, slots=True)
class Flow:
    """One Channel between two placed ends.

    Attributes:
        channel: the Channel.
        workflow: position of its workflow.
        source: position of the item that writes it.
        destination: position of the item that reads it.
        payload_bytes: its largest record.
        rate_hz: records per second.
        crossings: what it takes, by pair of devices.
        least_bytes: the shortest message to its reader, and back to its writer.
        long: whether that is more than some class of device takes.
    """

    channel: ChannelSpec
    workflow: int
    source: int
    destination: int
    payload_bytes: int
    rate_hz: float
    crossings: Mapping[tuple[str, str], PricedCrossing]
    least_bytes: tuple[int, int] = (0, 0)
    long: bool = False


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
class Load:
    """What other workflows take of the devices and links already.

    ``runtimes`` are in use there; what they take is not in ``used``, since each is loaded once for all.
    """

    used: Mapping[Limit, int] = field(default_factory=dict)
    runtimes: frozenset[tuple[str, Runtime]] = frozenset()

    def __add__(self, other: Load) -> Load:
        used = dict(self.used)
        for limit, amount in other.used.items():
            used[limit] = used.get(limit, 0) + amount
        return Load(used, self.runtimes | other.runtimes)


@dataclass(frozen=True, slots=True)
class PlacementProblem:
    """Everything a solver needs, and the values it was made from.

    ``limits`` and ``runtime_demand`` are what is left beside the load that is ``taken``; ``sealed`` says, by
    workflow, which flows share sealed channels.
    """

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
    devices_weight: float
    routes: RouteTable
    taken: Load = Load()
    sealed: tuple[tuple[Sealed, ...], ...] = ()

    @property
    def pairs(self) -> int:
        """Pairs of devices over all Channels: about the literals of the exact model."""
        return len(self.flows) * len(self.inventory.devices) ** 2

    def path_limit(self, path: Path) -> Limit:
        return Limit("deadline", self._named(path.workflow, path.id))

    def affinity_limit(self, affinity: Affinity) -> Limit:
        kind = "colocate" if affinity.together else "separate"
        return Limit(kind, f"{self.items[affinity.first].key} {self.items[affinity.second].key}")

    def reach_limit(self, flow: Flow) -> Limit:
        return Limit("message" if flow.long else "reach", self._named(flow.workflow, str(flow.channel)))

    def _named(self, workflow: int, name: str) -> str:
        return name if len(self.workflows) == 1 else f"{self.workflows[workflow].name}/{name}"
