"""A workflow as a graph to look at: boxes, ports and lines; its Mermaid text; and where the boxes stand.

Decides a layered layout from left to right: every AIM one column right of its latest source, long lines led
through free places, feedback lines below everything. Does not decide colours or shapes (``svg.py``).

Source: Sugiyama, Tagawa, Toda, "Methods for Visual Understanding of Hierarchical System Structures", 1981.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from aif.errors import ModelError
from aif.model.aim import AIMMetadata
from aif.model.aiw import BoundaryPort, Workflow
from aif.model.placement import Placement
from aif.model.ports import BOUNDARY, ChannelSpec, Port
from aif.model.records import RecordType

SWEEPS: Final = 6
INPUTS, OUTPUTS = "aiw (inputs)", "aiw (outputs)"
"""Ids of the boxes that stand for the workflow's boundary; no AIM can have them."""


@dataclass(slots=True)
class Box:
    """An AIM, the workflow's boundary, or (``bend``) a place where a long line passes a column."""

    id: str
    title: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    device: str = ""
    bend: bool = False

    @property
    def rows(self) -> int:
        return max(len(self.inputs), len(self.outputs))


@dataclass(frozen=True, slots=True)
class Line:
    """A channel: ``type_name`` is short, ``type_text`` complete; ``delay`` > 0 is feedback."""

    source: str
    output: str
    destination: str
    input: str
    type_name: str
    type_text: str
    delay: int = 0


@dataclass(slots=True)
class Graph:
    """What is drawn. ``devices`` are in the order of their first box; empty without a placement."""

    name: str
    boxes: dict[str, Box]
    lines: list[Line]
    devices: list[str]


@dataclass(slots=True)
class Layout:
    """Columns of boxes from top to bottom, and for each forward line the bends it passes."""

    columns: list[list[Box]]
    routes: list[tuple[Line, list[Box]]]
    feedback: list[Line]


def graph_of(workflow: Workflow, placement: Placement | None = None) -> Graph:
    """The expanded workflow as boxes and lines, with its boundary where it has one."""
    on = {a.aim: a.device for a in placement.assignments} if placement else {}
    boxes = {
        leaf.id: Box(
            leaf.id,
            leaf.metadata.reference,
            [port.name for port in leaf.metadata.inputs],
            [port.name for port in leaf.metadata.outputs],
            on.get(leaf.id, ""),
        )
        for leaf in workflow.aims
    }
    boundary = workflow.metadata
    if boundary.inputs:
        title = _bound(boundary.inputs) or "inputs of the workflow"
        boxes = {INPUTS: Box(INPUTS, title, [], [b.port.name for b in boundary.inputs]), **boxes}
    if boundary.outputs:
        title = _bound(boundary.outputs) or "outputs of the workflow"
        boxes[OUTPUTS] = Box(OUTPUTS, title, [b.port.name for b in boundary.outputs])
    lines = [_line(workflow, channel) for channel in workflow.channels]
    devices = list(dict.fromkeys(box.device for box in boxes.values() if box.device))
    return Graph(workflow.name, boxes, lines, devices)


def _bound(ports: Iterable[BoundaryPort]) -> str:
    return ", ".join(f"{b.port.name}: {b.bind.name}" for b in ports if b.bind)


def _line(workflow: Workflow, channel: ChannelSpec) -> Line:
    source, destination = channel.source, channel.destination
    port: Port
    if source.at_boundary:
        port = next(b.port for b in workflow.metadata.inputs if b.port.name == source.port)
        types = workflow.metadata.types
    else:
        contract: AIMMetadata = workflow.aim(source.aim).metadata
        port, types = contract.output(source.port), contract.types
    return Line(
        INPUTS if source.at_boundary else source.aim,
        source.port,
        OUTPUTS if destination.at_boundary else destination.aim,
        destination.port,
        _type_name(port, types),
        str(port.type),
        channel.delay_records,
    )


def _type_name(port: Port, types: Mapping[str, str]) -> str:
    """The name the author gave the type, else its text."""
    for name, text in types.items():
        try:
            if RecordType.parse(text) == port.type.record:
                return name
        except ModelError:  # an alias of another name; the full text is shown instead
            continue
    return str(port.type.record) if port.type.record.root != RecordType.parse("").root else "empty"


# --- Mermaid ---------------------------------------------------------------------------------------


def mermaid(graph: Graph) -> str:
    """A Mermaid flow chart; with a placement, one subgraph per device."""
    names = {box_id: f"n{number}" for number, box_id in enumerate(graph.boxes)}
    text = ["flowchart LR"]
    for device in graph.devices:
        text.append(f'  subgraph d{graph.devices.index(device)}["{_quoted(device)}"]')
        text += [f"    {_node(names[b.id], b)}" for b in graph.boxes.values() if b.device == device]
        text.append("  end")
    text += [f"  {_node(names[box.id], box)}" for box in graph.boxes.values() if not box.device]
    for line in graph.lines:
        label = f"{line.output} → {line.input}: {line.type_name}" + (
            f" (delay {line.delay})" if line.delay else ""
        )
        arrow = "-.->" if line.delay else "-->"
        text.append(f'  {names[line.source]} {arrow}|"{_quoted(label)}"| {names[line.destination]}')
    return "\n".join(text) + "\n"


def _node(name: str, box: Box) -> str:
    label = f"{_quoted(box.id)}<br/>{_quoted(box.title)}"
    return f'{name}(["{label}"])' if box.id in (INPUTS, OUTPUTS) else f'{name}["{label}"]'


def _quoted(text: str) -> str:
    """Mermaid's entities for what would end or change a label."""
    return "".join(c if c.isalnum() or c in " _.-@:,()→;=/" else f"#{ord(c)};" for c in text)


# --- layout ----------------------------------------------------------------------------------------


def arrange(graph: Graph) -> Layout:
    """Columns by longest path; order inside them by the mean position of neighbours."""
    forward, feedback = _forward(graph)
    column = _columns(graph, forward)
    columns: list[list[Box]] = [[] for _ in range(max(column.values(), default=0) + 1)]
    for box in graph.boxes.values():
        columns[column[box.id]].append(box)
    routes: list[tuple[Line, list[Box]]] = []
    shared: dict[tuple[str, str, int], Box] = {}
    neighbours: defaultdict[str, list[str]] = defaultdict(list)
    for line in forward:
        bends: list[Box] = []
        for passed in range(column[line.source] + 1, column[line.destination]):
            key = (line.source, line.output, passed)
            if key not in shared:  # the branches of one output run together as long as they can
                shared[key] = Box(f"{line.source}.{line.output}|{passed}", bend=True)
                columns[passed].append(shared[key])
            bends.append(shared[key])
        routes.append((line, bends))
        stops = [line.source, *(bend.id for bend in bends), line.destination]
        for left, right in pairwise(stops):
            neighbours[left].append(right)
            neighbours[right].append(left)
    _untangle(columns, neighbours)
    return Layout(columns, routes, feedback)


def _forward(graph: Graph) -> tuple[list[Line], list[Line]]:
    """Lines that go right, and those that would close a cycle (declared delays first of all)."""
    following: defaultdict[str, set[str]] = defaultdict(set)
    forward, feedback = [], []
    for line in graph.lines:
        if (
            line.delay
            or line.destination in (line.source, INPUTS)
            or _reaches(following, line.destination, line.source)
        ):
            feedback.append(line)
        else:
            forward.append(line)
            following[line.source].add(line.destination)
    return forward, feedback


def _reaches(following: Mapping[str, set[str]], start: str, end: str) -> bool:
    seen, todo = {start}, [start]
    while todo:
        here = todo.pop()
        if here == end:
            return True
        for other in following.get(here, ()):
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return False


def _columns(graph: Graph, forward: Iterable[Line]) -> dict[str, int]:
    sources: defaultdict[str, set[str]] = defaultdict(set)
    targets: defaultdict[str, set[str]] = defaultdict(set)
    for line in forward:
        sources[line.destination].add(line.source)
        targets[line.source].add(line.destination)
    column = dict.fromkeys(graph.boxes, 0)
    waiting = {box: len(sources[box]) for box in graph.boxes}
    ready = [box for box, missing in waiting.items() if missing == 0]
    while ready:
        box = ready.pop()
        for other in targets[box]:
            column[other] = max(column[other], column[box] + 1)
            waiting[other] -= 1
            if waiting[other] == 0:
                ready.append(other)
    for box in graph.boxes:  # a source stands just left of its first reader, not at the far left
        if not sources[box] and targets[box] and box != INPUTS:
            column[box] = min(column[other] for other in targets[box]) - 1
    if OUTPUTS in column:
        column[OUTPUTS] = max([column[OUTPUTS], *column.values()])
    return column


def _untangle(columns: list[list[Box]], neighbours: Mapping[str, list[str]]) -> None:
    place: dict[str, float] = {}
    for column in columns:
        place.update({box.id: position for position, box in enumerate(column)})
    order = list(range(len(columns)))
    for sweep in range(SWEEPS):
        for index in order if sweep % 2 == 0 else reversed(order):
            column = columns[index]
            means = {
                box.id: sum(place[n] for n in near) / len(near)
                if (near := neighbours.get(box.id, []))
                else place[box.id]
                for box in column
            }
            column.sort(key=lambda box, means=means: means[box.id])  # type: ignore[misc]
            place.update({box.id: float(position) for position, box in enumerate(column)})


__all__ = ["BOUNDARY", "Box", "Graph", "Layout", "Line", "arrange", "graph_of", "mermaid"]
