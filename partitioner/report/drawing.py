"""What every picture of a placement shows: a lane per device, AIMs in columns, and the Channels between them.

Decides which AIMs, devices and Channels a picture holds and in which order; shapes and colours are for
``diagrams`` and ``lanes_svg``. Everything follows from the workflows and the placement, never from how long
planning took, so equal plans give equal pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from aif.model.aiw import Workflow
from aif.model.placement import Placement, Usage
from aif.model.ports import PortRef
from aif.model.standby import served_by

FULL = 0.8
"""Share of a limit above which a device or link is drawn as full."""


@dataclass(frozen=True, slots=True)
class Block:
    """One AIM (or bound boundary Port): where it runs, and its column from left to right."""

    key: str
    implementation: str
    column: int


@dataclass(frozen=True, slots=True)
class Lane:
    """One device with what runs there; ``usage`` is None where the plan does not tell."""

    device: str
    blocks: tuple[Block, ...]
    usage: Usage | None

    @property
    def full(self) -> bool:
        return self.usage is not None and max(shares(self.usage).values(), default=0.0) > FULL


@dataclass(frozen=True, slots=True)
class Wire:
    """One Channel between two AIMs; ``label`` names its ports, ``delayed`` ones may lead back."""

    source: str
    destination: str
    label: str
    remote: bool
    delayed: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """Lanes with AIMs first, in the order in which the workflow reaches them, then idle ones."""

    title: str
    lanes: tuple[Lane, ...]
    wires: tuple[Wire, ...]
    columns: int


def drawing_of(workflows: Sequence[Workflow], placement: Placement) -> Drawing:
    """Everything that a picture of ``placement`` shows; Channels come from ``workflows``."""
    wires = tuple(_wires(workflows, placement))
    column = _columns([a.aim for a in placement.assignments], wires)
    usage = {u.device: u for u in placement.usage}
    busy = dict.fromkeys(a.device for a in placement.assignments)
    lanes = []
    for device in [*busy, *(d for d in usage if d not in busy)]:
        there = placement.on_device(device) if device in busy else ()
        blocks = tuple(Block(a.aim, a.implementation, column[a.aim]) for a in there)
        lanes.append(Lane(device, blocks, usage.get(device)))
    title = f"{placement.workflow}@{placement.workflow_version} on {placement.inventory}"
    return Drawing(title, tuple(lanes), wires, max(column.values(), default=-1) + 1)


def shares(usage: Usage) -> dict[str, float]:
    """Used share (0..1) of what a device may give: RAM, flash and processor; limits of 0 are left out."""
    figures = {
        "RAM": (usage.ram_bytes, usage.ram_limit_bytes),
        "flash": (usage.flash_bytes, usage.flash_limit_bytes),
        "CPU": (usage.cpu_share, usage.cpu_limit),
    }
    return {name: used / limit for name, (used, limit) in figures.items() if limit}


def _wires(workflows: Sequence[Workflow], placement: Placement) -> Iterator[Wire]:
    where = {a.aim: a.device for a in placement.assignments}
    for workflow in workflows:
        prefix = "" if len(workflows) == 1 else f"{workflow.name}/"
        for channel in workflow.channels:
            source, destination = (prefix + _owner(r) for r in (channel.source, channel.destination))
            if source in where and destination in where:
                label = f"{channel.source.port} > {channel.destination.port}"
                yield Wire(
                    source, destination, label, where[source] != where[destination], channel.delay_records > 0
                )


def _owner(ref: PortRef) -> str:
    return str(ref) if ref.at_boundary else ref.aim


def _columns(keys: Sequence[str], wires: Sequence[Wire]) -> dict[str, int]:
    """Longest way to each AIM; Channels with a declared delay lead back and do not count."""
    before: dict[str, list[str]] = {key: [] for key in keys}
    for wire in wires:
        if not wire.delayed:
            before[wire.destination].append(wire.source)
    column: dict[str, int] = {}
    for key in TopologicalSorter(before).static_order():
        column[key] = max((column[source] + 1 for source in before[key]), default=0)
    return {key: column.get(served_by(key), own) for key, own in column.items()}  # a standby: as its AIM
