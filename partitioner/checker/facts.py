"""What all judgements of the independent checker share, worked out once from the metadata: rates, keys, ways.

Part of the checker: plain loops and no code of the planner. Decides nothing; ``tally`` counts with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aif.model.aiw import LeafAIM, Workflow
from aif.model.inventory import DeviceClass, Inventory
from aif.model.ports import PortRef
from aif.model.rates import derive_rates, invocation_rates
from partitioner.checker.recount import Way, fastest_ways, hops_from
from partitioner.policy import ModelFacts, PlanPolicy

Where = Mapping[str, tuple[str, str]]
"""Device and implementation by AIM key."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: its name (``ram``, ``deadline``, ``pin`` …), what it concerns, and the figures."""

    name: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Everything wrong with a placement, and its objective in total and by term."""

    violations: tuple[Violation, ...]
    objective: float
    terms: Mapping[str, float]


class Facts:
    """What all judgements on the same workflows and inventory share: rates, keys, ways of messages."""

    def __init__(
        self,
        workflows: Sequence[Workflow],
        inventory: Inventory,
        policy: PlanPolicy,
        releases: Mapping[str, ModelFacts] | None = None,
        current: Mapping[str, str] | None = None,
    ) -> None:
        self.workflows, self.inventory, self.policy = workflows, inventory, policy
        self.releases = releases or {}
        self.current = current or {}
        self.devices = {device.id: device for device in inventory.devices}
        self.links = {link.id: link for link in inventory.links}
        self._ways: dict[str, dict[str, Way]] = {}
        self._hops = hops_from(inventory, policy.route_frame_bytes)
        self._forwarding = {d.id for d in inventory.devices if d.device_class is not DeviceClass.MCU}
        self.rates: list[dict[PortRef, float]] = []
        self.invocations: list[dict[str, float]] = []
        for workflow in workflows:
            contracts = {leaf.id: leaf.metadata for leaf in workflow.aims}
            inputs = {bound.port.name: bound.port for bound in workflow.metadata.inputs}
            rates = derive_rates(contracts, workflow.channels, inputs)
            self.rates.append(rates)
            self.invocations.append(invocation_rates(contracts, workflow.channels, rates))

    def places(self) -> list[str]:
        """Key of every AIM and bound boundary Port that has to be placed."""
        keys = []
        for number, workflow in enumerate(self.workflows):
            bounds = (*workflow.metadata.inputs, *workflow.metadata.outputs)
            keys += [self.key(number, f"aiw.{b.port.name}") for b in bounds if b.bind is not None]
            keys += [self.key(number, leaf.id) for leaf in workflow.aims]
            keys += [self.standby(number, leaf) for leaf in workflow.aims if self.has_standby(number, leaf)]
        return keys

    def has_standby(self, number: int, leaf: LeafAIM) -> bool:
        """Whether the workflow wants an AIM, or a composite that it is part of, kept ready twice."""
        wanted = self.workflows[number].metadata.availability.standby
        return any(leaf.id == name or leaf.id.startswith(name + ".") for name in wanted)

    def standby(self, number: int, leaf: LeafAIM) -> str:
        """Key of the standby of an AIM."""
        return self.key(number, leaf.id) + "~standby"

    def key(self, number: int, aim: str) -> str:
        return aim if len(self.workflows) == 1 else f"{self.workflows[number].name}/{aim}"

    def route(self, source: str, destination: str) -> Way | None:
        """Hops, by way of the broker if there is one; None when there is no way."""
        broker = self.policy.broker_device
        if broker is None:
            return self._ways_from(source).get(destination)
        first, second = self._ways_from(source).get(broker), self._ways_from(broker).get(destination)
        return None if first is None or second is None else [*first, *second]

    def _ways_from(self, source: str) -> dict[str, Way]:
        if source not in self._ways:
            self._ways[source] = fastest_ways(self._hops, self._forwarding, source)
        return self._ways[source]
