"""Which AIMs and Channels a latency limit covers: the sub-graph between two ports of one workflow.

Latency counts from the record leaving ``source`` to delivery at ``destination``: every transfer between,
and every invocation between, with its wait for the processor. A workflow without limits has one implicit
path, from all its sources to all its ends. Channels with a declared delay are cut.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from aif.errors import ModelError
from aif.model.aiw import PathLimit, Workflow
from aif.model.ports import BOUNDARY, ChannelSpec, PortRef

CRITICAL_PATH = "critical path"
"""Id of the implicit path of a workflow that states no limits."""

TYPICAL = 0.5
"""Percentile up to which the mean latency is used; above it the 99th percentile, where it was measured."""


@dataclass(frozen=True, slots=True)
class Path:
    """One latency, as positions in the problem's lists of AIMs and flows.

    Attributes:
        origin: AIM whose record starts the clock, its own invocation not counted; None when ``entries`` do.
        entries: AIMs whose invocation starts the clock.
        arcs: flows between AIMs whose invocations count (or from ``origin``), in topological order:
            whatever arrives at an AIM comes before whatever leaves it.
        deliveries: flows whose arrival stops the clock.
        finals: AIMs whose finished invocation stops it.
        tail: whether 99th-percentile invocation times are used.
    """

    id: str
    workflow: int
    deadline_us: int | None
    weight: float
    tail: bool
    origin: int | None
    entries: tuple[int, ...]
    arcs: tuple[int, ...]
    deliveries: tuple[int, ...]
    finals: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """A workflow's flows as ``problem`` numbered them; ``items`` maps AIM ids to positions."""

    workflow: Workflow
    number: int
    items: Mapping[str, int]
    flows: Mapping[int, ChannelSpec]

    def item(self, ref: PortRef) -> int | None:
        """Position of a port's AIM; a bound boundary Port has one of its own, an unbound one has none."""
        return self.items.get(str(ref) if ref.at_boundary else ref.aim)

    def ends(self, flow: int) -> tuple[int, int]:
        channel = self.flows[flow]
        return self._end(channel.source), self._end(channel.destination)

    def _end(self, ref: PortRef) -> int:
        position = self.item(ref)
        if position is None:
            raise ModelError(f"{self.workflow.name} has no AIM {ref.aim!r}")
        return position


def workflow_paths(graph: Graph, weight: float) -> list[Path]:
    """Every limit of the workflow, or its critical path when it states none."""
    limits = graph.workflow.metadata.paths
    return [_limited(graph, limit, weight) for limit in limits] or [_critical(graph, weight)]


def _critical(graph: Graph, weight: float) -> Path:
    forward = [flow for flow, channel in graph.flows.items() if channel.delay_records == 0]
    receiving = {graph.ends(flow)[1] for flow in forward}
    sending = {graph.ends(flow)[0] for flow in forward}
    return Path(
        id=CRITICAL_PATH,
        workflow=graph.number,
        deadline_us=None,
        weight=weight,
        tail=False,
        origin=None,
        entries=tuple(i for i in graph.items.values() if i not in receiving),
        arcs=_in_order({flow: graph.ends(flow) for flow in forward}),
        deliveries=(),
        finals=tuple(i for i in graph.items.values() if i not in sending),
    )


def _limited(graph: Graph, limit: PathLimit, weight: float) -> Path:
    origin, entries = _start(graph, limit.source)
    deliveries, finals = _stop(graph, limit.destination)
    forward = {f: graph.ends(f) for f, c in graph.flows.items() if c.delay_records == 0}
    leaving = {f for f in forward if graph.flows[f].source == limit.source}
    usable = {f: ends for f, ends in forward.items() if ends[0] != origin or f in leaving}
    start = entries if origin is None else (origin,)
    ends_at = {*finals, *(usable[f][0] for f in deliveries if f in usable)}
    covered = _reached(start, usable.values()) & _reached(ends_at, [(b, a) for a, b in usable.values()])
    arcs = _in_order({f: ends for f, ends in usable.items() if covered.issuperset(ends)})
    deliveries = tuple(f for f in deliveries if f in usable and usable[f][0] in covered)
    finals = tuple(i for i in finals if i in covered)
    direct = any(
        (c.source, c.destination) == (limit.source, limit.destination) for c in graph.workflow.channels
    )
    if not (deliveries or finals or direct):  # a direct channel from the User Agent takes no planned time
        raise ModelError(
            f"path {limit.id} of {graph.workflow.name}: "
            f"no channel leads from {limit.source} to {limit.destination}"
        )
    return Path(
        id=limit.id,
        workflow=graph.number,
        deadline_us=int(limit.deadline_ms * 1000.0 + 1e-6),
        weight=weight,
        tail=limit.percentile > TYPICAL,
        origin=origin,
        entries=tuple(i for i in entries if i in covered),
        arcs=arcs,
        deliveries=deliveries,
        finals=finals,
    )


def _start(graph: Graph, source: PortRef) -> tuple[int | None, tuple[int, ...]]:
    """Where the clock starts: at an AIM's record, or at the AIMs that an unbound boundary Port feeds."""
    origin = graph.item(source)
    if origin is not None:
        return origin, ()
    fed = [c.destination for c in graph.workflow.channels if c.source == source]
    return None, tuple(i for ref in fed if (i := graph.item(ref)) is not None)


def _stop(graph: Graph, destination: PortRef) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where it stops: flows into an input (or bound boundary) Port, or AIMs that write the Port named."""
    into = tuple(f for f, c in graph.flows.items() if c.destination == destination)
    if into:
        return into, ()
    if destination.at_boundary:
        writers: Sequence[PortRef] = [
            c.source for c in graph.workflow.channels if c.destination == destination
        ]
    else:
        outputs = [port.name for port in graph.workflow.aim(destination.aim).metadata.outputs]
        writers = [destination] if destination.port in outputs else []
    return (), tuple(i for ref in writers if ref.aim != BOUNDARY and (i := graph.item(ref)) is not None)


def _in_order(arcs: Mapping[int, tuple[int, int]]) -> tuple[int, ...]:
    before: defaultdict[int, set[int]] = defaultdict(set)
    for a, b in arcs.values():
        before[b].add(a)
    rank = {item: place for place, item in enumerate(TopologicalSorter(before).static_order())}
    return tuple(sorted(arcs, key=lambda flow: (rank[arcs[flow][1]], flow)))


def _reached(start: Iterable[int], ends: Iterable[tuple[int, int]]) -> set[int]:
    following: defaultdict[int, list[int]] = defaultdict(list)
    for a, b in ends:
        following[a].append(b)
    found, waiting = set(start), list(start)
    while waiting:
        for other in following[waiting.pop()]:
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found
