"""A Placement: which device runs each AIM with which implementation, why, and how good that is.

``Placement`` is a value that survives a JSON round trip; it is made by the partitioner and turned into
signed deployment documents by the Controller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aif.errors import PlacementError
from aif.model.aiw import Workflow
from aif.model.degrading import WHOLE, Service
from aif.model.inventory import Inventory

Places = Mapping[str, tuple[str, str]]
"""Where AIMs shall be: id to device and implementation; an empty implementation is the planner's choice."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One AIM on one device.

    ``storage`` names where its model rests: ``flash``, or a storage unit with its position (``spiffs#1``);
    empty where it has none. ``reason`` and ``rejected`` (device -> why it would not fit) explain the choice.
    """

    aim: str
    device: str
    implementation: str
    reason: str = ""
    latency_us: float = 0.0
    energy_uj: float = 0.0
    cost_rule: str = ""
    rejected: Mapping[str, str] = field(default_factory=dict)
    storage: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a placement takes of one device: bytes, CPU share 0..1, mean power in mW."""

    device: str
    ram_bytes: int
    ram_limit_bytes: int
    flash_bytes: int
    flash_limit_bytes: int
    cpu_share: float
    cpu_limit: float
    power_mw: float


@dataclass(frozen=True, slots=True)
class LinkUsage:
    """Traffic of a placement over one link, and what may be planned there (bit/s, overheads included)."""

    link: str
    members: tuple[str, ...]
    bps: int
    limit_bps: int


@dataclass(frozen=True, slots=True)
class PathLatency:
    """Planned latency of one path against its deadline (ms)."""

    id: str
    latency_ms: float
    deadline_ms: float | None


@dataclass(frozen=True, slots=True)
class Placement:
    """A plan for one workflow. ``gap`` = (objective - bound) / objective, 0 when proven optimal.

    ``stand_ins`` names the composite (``Name@version``) that runs in the place of an AIM, by that AIM's id;
    the assignments are those of its parts.
    """

    workflow: str
    workflow_version: str
    inventory: str
    inventory_version: int
    assignments: tuple[Assignment, ...]
    usage: tuple[Usage, ...] = ()
    links: tuple[LinkUsage, ...] = ()
    paths: tuple[PathLatency, ...] = ()
    terms: Mapping[str, float] = field(default_factory=dict)
    objective: float = 0.0
    bound: float = 0.0
    method: str = ""
    seconds: float = 0.0
    stand_ins: Mapping[str, str] = field(default_factory=dict)

    @property
    def gap(self) -> float:
        return 0.0 if self.objective <= self.bound else (self.objective - self.bound) / self.objective

    def assignment(self, aim_id: str) -> Assignment:
        for assignment in self.assignments:
            if assignment.aim == aim_id:
                return assignment
        raise PlacementError(f"the placement of {self.workflow} does not hold AIM {aim_id!r}")

    def device_of(self, aim_id: str) -> str:
        return self.assignment(aim_id).device

    def on_device(self, device_id: str) -> tuple[Assignment, ...]:
        return tuple(a for a in self.assignments if a.device == device_id)


@dataclass(frozen=True, slots=True)
class Better:
    """A plan for a workflow that runs, and what it would bring.

    Attributes:
        placement: the plan; its objective holds the price of its moves where the workflow gives them one.
        before: objective of what runs now, None where that breaks a limit, such as a deadline.
        pause_s: how long AIMs would stand still for it, all added up: their models and state on the way, and
            restarts.
    """

    placement: Placement
    before: float | None
    pause_s: float


@dataclass(frozen=True, slots=True)
class Mended:
    """Where a running workflow is to go, and how much of it.

    ``why`` says why there is no room for more; empty where all of it runs.
    """

    placement: Placement
    service: Service = WHOLE
    why: str = ""


@dataclass(frozen=True, slots=True)
class PlacedWorkflow:
    """A workflow that runs, and where: what others find taken on its devices."""

    workflow: Workflow
    inventory: Inventory
    placement: Placement
