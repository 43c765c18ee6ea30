"""Two placements side by side: which AIMs moved, and what that costs or saves.

Decides nothing about which is better. Figures are those that both placements state in the same unit, so plans
made for different objectives or on changed inventories can be compared; their objectives cannot.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass

from aif.model.placement import Placement

SCHEMA = 1
SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Place:
    """A device and an implementation on it."""

    device: str
    implementation: str

    def __str__(self) -> str:
        return f"{self.device} ({self.implementation})" if self.implementation else self.device


@dataclass(frozen=True, slots=True)
class Move:
    """One AIM that is elsewhere, new (``before`` is None) or gone (``after`` is None)."""

    aim: str
    before: Place | None
    after: Place | None


@dataclass(frozen=True, slots=True)
class Change:
    """One figure before and after; ``more`` is what it costs, negative when it saves."""

    name: str
    unit: str
    before: float
    after: float

    @property
    def more(self) -> float:
        return self.after - self.before

    @property
    def told(self) -> tuple[str, str, str]:
        """Before, after and the difference, without the unit."""
        return figure(self.before), figure(self.after), figure(self.more, signed=True)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Moved AIMs, and the figures that differ.

    Attributes:
        before: what the first plan places where, in words.
        after: the same of the second.
        moves: in the order of the AIMs.
        stayed: how many AIMs are where they were.
        changes: totals first, then paths, devices, links.
        remarks: what makes the two less comparable.
    """

    before: str
    after: str
    moves: tuple[Move, ...]
    stayed: int
    changes: tuple[Change, ...]
    remarks: tuple[str, ...]


def figure(value: float, *, signed: bool = False) -> str:
    """A figure as people write it: whole with its thousands where it is large, else four digits."""
    sign = "+" if signed else ""
    return f"{value:{sign},.0f}" if abs(value) >= 1_000 else f"{value:{sign}.4g}"


def compare(before: Placement, after: Placement) -> Comparison:
    """What is different in ``after``."""
    old = {a.aim: Place(a.device, a.implementation) for a in before.assignments}
    new = {a.aim: Place(a.device, a.implementation) for a in after.assignments}
    moves = [
        Move(aim, old.get(aim), new.get(aim))
        for aim in dict.fromkeys([*old, *new])
        if old.get(aim) != new.get(aim)
    ]
    changes = [change for change in _figures(before, after) if abs(change.more) > SAME]
    return Comparison(
        _name(before),
        _name(after),
        tuple(moves),
        sum(new.get(aim) == place for aim, place in old.items()),
        tuple(changes),
        tuple(_remarks(before, after)),
    )


def comparison_json(comparison: Comparison) -> str:
    """The comparison as a JSON document."""
    document = {"schema": SCHEMA, "comparison": dataclasses.asdict(comparison)}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _name(placement: Placement) -> str:
    return (
        f"{placement.workflow}@{placement.workflow_version} "
        f"on {placement.inventory} v{placement.inventory_version}"
    )


def _remarks(before: Placement, after: Placement) -> Iterator[str]:
    if before.workflow != after.workflow:
        yield f"the plans are of different workflows: {before.workflow} and {after.workflow}"
    elif before.workflow_version != after.workflow_version:
        yield f"the workflow had version {before.workflow_version}, now {after.workflow_version}"
    if before.inventory != after.inventory:
        yield f"the plans are for different inventories: {before.inventory} and {after.inventory}"
    for aim in sorted({*before.stand_ins, *after.stand_ins}):
        was, now = (plan.stand_ins.get(aim, "one AIM") for plan in (before, after))
        if was != now:
            yield f"{aim} ran as {was}, now as {now}"
    for plan, which in ((before, "the plan before"), (after, "the new plan")):
        if plan.gap:
            yield f"{which} may be {plan.gap:.2%} above its optimum"


def _figures(before: Placement, after: Placement) -> Iterator[Change]:
    yield Change(
        "devices used", "", *(float(len({a.device for a in p.assignments})) for p in (before, after))
    )
    yield Change("mean power", "mW", *(sum(u.power_mw for u in p.usage) for p in (before, after)))
    yield Change("traffic", "bit/s", *(float(sum(link.bps for link in p.links)) for p in (before, after)))
    yield Change("RAM", "B", *(float(sum(u.ram_bytes for u in p.usage)) for p in (before, after)))
    paths = [{path.id: path.latency_ms for path in p.paths} for p in (before, after)]
    powers = [{u.device: u.power_mw for u in p.usage} for p in (before, after)]
    links = [{link.link: float(link.bps) for link in p.links} for p in (before, after)]
    for kind, unit, (old, new) in (
        ("path", "ms", paths),
        ("power of", "mW", powers),
        ("link", "bit/s", links),
    ):
        for name in dict.fromkeys([*old, *new]):
            if name in old and name in new:
                yield Change(f"{kind} {name}", unit, old[name], new[name])
