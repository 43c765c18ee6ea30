"""Workflows and an inventory become a placement problem: candidates, shared limits, prices and latencies.

Decides what may be chosen and what each choice takes (``parts``); it chooses nothing. Whatever one AIM
alone makes impossible is refused here with a sentence; whatever AIMs share becomes a named limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from graphlib import CycleError

from aif.errors import CyclicTopology, ModelError
from aif.model.aim import Runtime
from aif.model.aiw import BoundaryPort, LeafAIM, Objectives, Workflow
from aif.model.inventory import Device, Inventory
from aif.model.ports import BOUNDARY, ChannelSpec, PortRef
from aif.model.rates import derive_rates, invocation_rates
from aif.model.standby import kept_ready, standby_hint, standby_of
from partitioner.policy import (
    LATENCY_SCALE_US,
    POWER_SCALE_MW,
    TRAFFIC_SCALE_BYTES_PER_S,
    ModelFacts,
    PlanPolicy,
)
from partitioner.problem.channels import Sealed, kept_bytes, least_bytes, sealed
from partitioner.problem.costs import (
    battery_limit_uw,
    flash_is_limited,
    whole,
)
from partitioner.problem.filters import (
    binding_refusal,
    parts_of,
)
from partitioner.problem.offers import Offering, cpu_limit_us, idle, storage_limit
from partitioner.problem.parts import (
    Affinity,
    Candidate,
    Crossings,
    Demand,
    Flow,
    Item,
    Kinds,
    Limit,
    Load,
    Offer,
    PlacementProblem,
    PricedCrossing,
)
from partitioner.problem.paths import Graph, Path, workflow_paths
from partitioner.problem.routes import LOCAL, RouteTable, crossing

MAX_OBJECTIVE_WEIGHT = 1e4


def build_problem(
    workflows: Sequence[Workflow],
    inventory: Inventory,
    policy: PlanPolicy,
    *,
    releases: Mapping[str, ModelFacts] | None = None,
    current: Mapping[str, str] | None = None,
    taken: Load | None = None,
) -> PlacementProblem:
    """State the problem of placing ``workflows`` on ``inventory``.

    AIM keys are the AIM ids, prefixed with ``workflow/`` when there are several workflows; a boundary Port
    bound to a sensor or actuator is placed too, under ``aiw.port``, and a standby as one more AIM that has no
    channels and shares no device with the AIM it stands by for (``aif.model.standby``).

    Args:
        workflows: expanded workflows that passed the whole-workflow checks; names differ.
        inventory: devices and links.
        policy: overheads, shares and trust.
        releases: size and arena of the models that would be installed, by Store component.
        current: device of AIMs that run already, by AIM key; elsewhere they cost ``migration``.
        taken: what other workflows that are not planned here take already.

    Raises:
        ModelError: the values contradict each other (unknown broker, rates, negative weights, paths).
    """
    _check(workflows, inventory, policy)
    known = dict(releases or {})
    return _Builder(tuple(workflows), inventory, policy, known, dict(current or {}), taken or Load()).build()


def rebuilt(
    problem: PlacementProblem,
    *,
    workflows: Sequence[Workflow] | None = None,
    inventory: Inventory | None = None,
) -> PlacementProblem:
    """The same problem with other workflows, or on another inventory."""
    return build_problem(
        problem.workflows if workflows is None else workflows,
        problem.inventory if inventory is None else inventory,
        problem.policy, releases=problem.releases, taken=problem.taken,
    )  # fmt: skip


def beside(problem: PlacementProblem, taken: Load) -> PlacementProblem:
    """The same problem, of which nothing was taken, beside others that take a load."""
    used = Counter(taken.used)
    for key in taken.runtimes:
        used.update(dict(problem.runtime_demand.get(key, ())))
    return replace(
        problem,
        limits={limit: max(0, most - used[limit]) for limit, most in problem.limits.items()},
        runtime_demand={
            key: () if key in taken.runtimes else demand for key, demand in problem.runtime_demand.items()
        },
        taken=taken,
    )


def _check(workflows: Sequence[Workflow], inventory: Inventory, policy: PlanPolicy) -> None:
    if policy.broker_device is not None:
        inventory.device(policy.broker_device)
    if len({workflow.name for workflow in workflows}) != len(workflows):
        raise ModelError("two workflows to be placed have the same name")
    if len({device.id for device in inventory.devices}) != len(inventory.devices):
        raise ModelError(f"inventory {inventory.name} holds a device id twice")
    if len({link.id for link in inventory.links}) != len(inventory.links):
        raise ModelError(f"inventory {inventory.name} holds a link id twice")
    for workflow in workflows:
        for name in ("latency", "energy", "traffic", "balance", "exposure", "migration", "devices"):
            weight = getattr(workflow.metadata.objectives, name)
            if not 0 <= weight <= MAX_OBJECTIVE_WEIGHT:
                raise ModelError(
                    f"{workflow.name}: objective {name} has weight {weight:g}, "
                    f"allowed are 0..{MAX_OBJECTIVE_WEIGHT:g}"
                )


class _Builder:
    """Collects the problem's parts workflow by workflow."""

    def __init__(
        self,
        workflows: tuple[Workflow, ...],
        inventory: Inventory,
        policy: PlanPolicy,
        releases: Mapping[str, ModelFacts],
        current: Mapping[str, str],
        taken: Load,
    ) -> None:
        self.workflows, self.inventory, self.policy, self.releases = workflows, inventory, policy, releases
        self.current, self.taken = current, taken
        self.offering = Offering(inventory, policy, releases)
        self.battery_uw = {d.id: battery_limit_uw(d, policy.battery_life_h) for d in inventory.devices}
        self.routes = RouteTable(inventory, policy)
        self.devices = {device.id: device for device in inventory.devices}
        self.base = [_base_kind(device) for device in inventory.devices]
        self.kinds: dict[tuple[frozenset[str], frozenset[str], str], Kinds] = {}
        self.items: list[Item] = []
        self.flows: list[Flow] = []
        self.paths: list[Path] = []
        self.affinities: list[Affinity] = []
        self.sealed: list[tuple[Sealed, ...]] = []
        self.most_bytes = min(
            (policy.channels(device).max_message_bytes for device in inventory.devices), default=0
        )

    def build(self) -> PlacementProblem:
        for number, workflow in enumerate(self.workflows):
            self._add(number, workflow)
        return PlacementProblem(
            workflows=self.workflows,
            inventory=self.inventory,
            policy=self.policy,
            releases=self.releases,
            items=tuple(self.items),
            flows=tuple(self.flows),
            paths=tuple(self.paths),
            affinities=tuple(self.affinities),
            limits=self._left(),
            runtime_demand=dict(self._runtime_demands()),
            single_core=frozenset(d.id for d in self.inventory.devices if d.cores == 1),
            balance_weight=max((w.metadata.objectives.balance for w in self.workflows), default=0.0),
            devices_weight=max((w.metadata.objectives.devices for w in self.workflows), default=0.0),
            routes=self.routes,
            taken=self.taken,
            sealed=tuple(self.sealed),
        )

    def _add(self, number: int, workflow: Workflow) -> None:
        contracts = {leaf.id: leaf.metadata for leaf in workflow.aims}
        inputs = {bound.port.name: bound.port for bound in workflow.metadata.inputs}
        try:
            rates = derive_rates(contracts, workflow.channels, inputs)
        except CycleError as wrong:
            raise CyclicTopology(f"{workflow.name} has a cycle without a declared delay") from wrong
        per_second = invocation_rates(contracts, workflow.channels, rates)
        prefix = "" if len(self.workflows) == 1 else f"{workflow.name}/"
        positions: dict[str, int] = {}
        kept = kept_bytes(workflow)
        for bound in (*workflow.metadata.inputs, *workflow.metadata.outputs):
            if bound.bind is not None:
                positions[f"{BOUNDARY}.{bound.port.name}"] = len(self.items)
                self.items.append(self._boundary_item(number, prefix, bound))
        for leaf in workflow.aims:
            positions[leaf.id] = len(self.items)
            self.items.append(self._aim_item(number, prefix, leaf, per_second[leaf.id], kept.get(leaf.id, 0)))
        standbys = self._standbys_of(number, prefix, workflow, per_second, kept)
        graph = self._flows_of(number, workflow, positions, rates)
        self.paths += workflow_paths(graph, workflow.metadata.objectives.latency / LATENCY_SCALE_US)
        self._affinities_of(workflow, positions, standbys)

    def _standbys_of(
        self,
        number: int,
        prefix: str,
        workflow: Workflow,
        per_second: Mapping[str, float],
        kept: Mapping[str, int],
    ) -> dict[str, int]:
        """Adds the standbys of a workflow; returns their positions by the AIM that they stand by for."""
        positions: dict[str, int] = {}
        for leaf in kept_ready(workflow):
            positions[leaf.id] = len(self.items)
            room = kept.get(leaf.id, 0)
            item = self._aim_item(number, prefix, leaf, per_second[leaf.id], room, standby=True)
            self.items.append(item)
        return positions

    def _kinds(self, sensors: Iterable[str], actuators: Iterable[str], present: str = "") -> Kinds:
        """Kinds of devices for an AIM that may use these parts; the device where it is, is one by itself."""
        needs = frozenset(sensors), frozenset(actuators), present
        if needs not in self.kinds:
            numbers: dict[object, int] = {}
            samples: list[Device] = []
            of: list[int] = []
            for device, base in zip(self.inventory.devices, self.base, strict=True):
                parts = (
                    tuple(p for p in device.sensors if p.kind in needs[0]),
                    tuple(p for p in device.actuators if p.kind in needs[1]),
                )
                number = numbers.setdefault((base, parts, device.id == present), len(samples))
                if number == len(samples):
                    samples.append(device)
                of.append(number)
            self.kinds[needs] = Kinds(tuple(of), tuple(samples))
        return self.kinds[needs]

    def _boundary_item(self, number: int, prefix: str, bound: BoundaryPort) -> Item:
        binding = bound.bind
        if binding is None:
            raise ModelError(f"boundary port {bound.port.name} is not bound")
        names = (binding.name,)
        kinds = self._kinds(*((names, ()) if binding.kind == "sensor" else ((), names)))
        offers = []
        for device in kinds.samples:
            refusal = binding_refusal(binding, device)
            limit = Limit(binding.kind, f"{device.id} {binding.name}")
            made = Candidate(device.id, "", None, ((limit, 1),))
            offers.append(Offer((made,), ()) if refusal is None else Offer((), (refusal,)))
        key = f"{prefix}{BOUNDARY}.{bound.port.name}"
        return Item(key, number, None, kinds, tuple(offers), self.inventory)

    def _aim_item(
        self,
        number: int,
        prefix: str,
        leaf: LeafAIM,
        rate_hz: float,
        kept_bytes: int,
        *,
        standby: bool = False,
    ) -> Item:
        codes = leaf.metadata.implementations
        weights = self.workflows[number].metadata.objectives
        key = prefix + (standby_of(leaf.id) if standby else leaf.id)
        present = self.current.get(key, "") if weights.migration else ""
        kinds = self._kinds(
            {name for code in codes for name in code.requires.sensors},
            {name for code in codes for name in code.requires.actuators},
            present,
        )
        offers = []
        for device in kinds.samples:
            migrates = weights.migration if present not in ("", device.id) else 0.0
            wanted = replace(weights, migration=migrates)
            offer = self.offering.offer(leaf, device, rate_hz, wanted, kept_bytes)
            offers.append(idle(offer, device) if standby else offer)
        hint = standby_hint(leaf.placement) if standby else leaf.placement
        return Item(key, number, replace(leaf, placement=hint), kinds, tuple(offers), self.inventory)

    def _flows_of(
        self,
        number: int,
        workflow: Workflow,
        positions: Mapping[str, int],
        rates: Mapping[PortRef, float],
    ) -> Graph:
        numbered: dict[int, ChannelSpec] = {}
        first, least = len(self.flows), least_bytes(workflow)
        graph = Graph(workflow, number, positions, numbered)
        for channel in workflow.channels:
            source, destination = graph.item(channel.source), graph.item(channel.destination)
            if source is None or destination is None:
                continue  # the user's end of an unbound boundary Port is wherever the User Agent is
            numbered[len(self.flows)] = channel
            rate_hz, payload_bytes = rates[channel.source], _payload_bytes(workflow, channel)
            shortest = least.get(channel, (0, 0))
            between = partial(self._crossing, workflow.metadata.objectives, payload_bytes, rate_hz, shortest)
            crossings = Crossings(self.items[source], self.items[destination], between)
            long = max(shortest) > self.most_bytes
            flow = Flow(
                channel, number, source, destination, payload_bytes, rate_hz, crossings, shortest, long
            )
            self.flows.append(flow)
        made = enumerate(self.flows[first:], start=first)
        self.sealed.append(tuple(sealed((n, f.channel, (f.source, f.destination)) for n, f in made)))
        return graph

    def _crossing(
        self,
        weights: Objectives,
        payload_bytes: int,
        rate_hz: float,
        least: tuple[int, int],
        a: str,
        b: str,
    ) -> PricedCrossing | None:
        if a == b:
            return PricedCrossing(LOCAL, (), ())
        for end, shortest in zip((b, a), least, strict=True):
            if shortest > self.policy.channels(self.devices[end]).max_message_bytes:
                return None
        route = self.routes.between(a, b)
        if route is None:
            return None
        cost = crossing(route, payload_bytes, rate_hz, self.devices, self.policy)
        wire_bytes = self.policy.channel_ram_bytes + payload_bytes + self.policy.frame_overhead_bytes
        demand = [(Limit("ram", a), wire_bytes), (Limit("ram", b), wire_bytes)]
        demand += [(Limit("link", link), bps) for link, bps in cost.link_bps]
        for device, milliwatts in cost.radio_mw:
            if self.battery_uw[device] is not None:
                demand.append((Limit("battery", device), whole(1000.0 * milliwatts)))
        energies = ((self.devices[d].energy, mw) for d, mw in cost.radio_mw)
        battery_mw = sum(energy.price * mw for energy, mw in energies if energy.source == "battery")
        leaving = rate_hz if self.devices[a].zone != self.devices[b].zone else 0.0
        terms = (
            ("energy", weights.energy * battery_mw / POWER_SCALE_MW),
            ("traffic", weights.traffic * cost.traffic_bytes_per_s / TRAFFIC_SCALE_BYTES_PER_S),
            ("exposure", weights.exposure * leaving),
        )
        return PricedCrossing(cost, tuple(demand), terms)

    def _affinities_of(
        self, workflow: Workflow, positions: Mapping[str, int], standbys: Mapping[str, int]
    ) -> None:
        for aim, standby in standbys.items():
            self.affinities.append(Affinity(positions[aim], standby, together=False, hard=True))
        for leaf in workflow.aims:
            hint = leaf.placement
            if hint is None:
                continue
            for together, others in ((True, hint.colocate_with), (False, hint.separate_from)):
                for other in others:
                    named = [i for i in positions if i == other or i.startswith(f"{other}.")]
                    if not named or other == leaf.id:
                        raise ModelError(f"placement of {leaf.id} in {workflow.name} names {other!r}")
                    for partner in named:
                        pair = (positions[leaf.id], positions[partner])
                        self.affinities.append(Affinity(*pair, together, hint.strength == "hard"))
                        if hint.strength == "hard":
                            self._pair_standbys((leaf.id, partner), pair, standbys, together=together)

    def _pair_standbys(
        self, names: tuple[str, str], pair: tuple[int, int], standbys: Mapping[str, int], *, together: bool
    ) -> None:
        """A standby that takes over must not break a hard affinity: where it stands, it holds already."""
        first, second = (standbys.get(name) for name in names)
        if together and first is not None and second is not None:
            self.affinities.append(Affinity(first, second, together=True, hard=True))
        if not together and first is not None:
            self.affinities.append(Affinity(first, pair[1], together=False, hard=True))
        if not together and second is not None:
            self.affinities.append(Affinity(pair[0], second, together=False, hard=True))

    def _left(self) -> dict[Limit, int]:
        """All limits, without what is taken."""
        taken = Counter(self.taken.used)
        for device, runtime in self.taken.runtimes:
            cost = self.policy.runtime_cost(runtime)
            taken.update({Limit("ram", device): cost.ram_bytes, Limit("flash", device): cost.flash_bytes})
        return {limit: max(0, most - taken[limit]) for limit, most in self._limits()}

    def _limits(self) -> Iterator[tuple[Limit, int]]:
        for device in self.inventory.devices:
            yield from self._device_limits(device)
        for link in self.inventory.links:
            yield Limit("link", link.id), int(self.policy.link_share * link.bandwidth_bps + 1e-6)
        for number, workflow in enumerate(self.workflows):
            prefix = "" if len(self.workflows) == 1 else f"{workflow.name}/"
            for path in self.paths:
                if path.workflow == number and path.deadline_us is not None:
                    yield Limit("deadline", prefix + path.id), path.deadline_us

    def _device_limits(self, device: Device) -> Iterator[tuple[Limit, int]]:
        yield Limit("channels", device.id), self.policy.channels(device).max_channels
        yield Limit("ram", device.id), max(0, device.ram_bytes - self.policy.reserve_ram_bytes)
        yield Limit("cpu", device.id), cpu_limit_us(device)
        if flash_is_limited(device):
            yield Limit("flash", device.id), device.flash_bytes
        battery_uw = self.battery_uw[device.id]
        if battery_uw is not None:
            yield Limit("battery", device.id), battery_uw
        for position, unit in enumerate(device.storage):
            yield storage_limit(device, position), unit.bytes_
        for kind, parts in (("sensor", device.sensors), ("actuator", device.actuators)):
            for name in sorted({part.kind for part in parts}):
                yield Limit(kind, f"{device.id} {name}"), parts_of(parts, name)

    def _runtime_demands(self) -> Iterator[tuple[tuple[str, Runtime], Demand]]:
        for device in self.inventory.devices:
            for runtime in sorted(device.runtimes):
                if (device.id, runtime) in self.taken.runtimes:
                    yield (device.id, runtime), ()
                    continue
                cost = self.policy.runtime_cost(runtime)
                demand = [(Limit("ram", device.id), cost.ram_bytes)]
                if flash_is_limited(device):
                    demand.append((Limit("flash", device.id), cost.flash_bytes))
                yield (device.id, runtime), tuple(demand)


def _base_kind(device: Device) -> tuple[object, ...]:
    """All of a device that any AIM's candidate depends on, but for its sensors and actuators."""
    return (
        *(device.device_class, device.board, device.ram_bytes, device.flash_bytes, device.runtimes),
        *(device.arch, device.os, device.instructions_per_s, device.dmips, device.macs_per_s, device.cores),
        *(device.cpu_limit, device.storage, device.radios, device.energy, device.attestation),
    )


def _payload_bytes(workflow: Workflow, channel: ChannelSpec) -> int:
    """Largest record of a Channel, as its writer declares it."""
    if channel.source.at_boundary:
        for bound in workflow.metadata.inputs:
            if bound.port.name == channel.source.port:
                return bound.port.payload_bytes
        raise ModelError(f"{workflow.name} has no input port {channel.source.port!r}")
    return workflow.port(channel.source, output=True).payload_bytes


__all__ = ["MAX_OBJECTIVE_WEIGHT", "ModelFacts", "PlacementProblem", "PlanPolicy", "build_problem", "rebuilt"]
