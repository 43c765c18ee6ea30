"""An AI Workflow: AIMs, their Topology, limits and objectives; and its expansion into basic AIMs.

Source: MPAI-AIF V2 AIW metadata; ``paths``, ``objectives`` and ``availability`` are this project's extension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from aif.errors import CyclicTopology, UnknownAIM
from aif.model.aim import AIMMetadata, Composition, ParameterValue, PlacementHint, Profile, SubAIM
from aif.model.ports import BOUNDARY, ChannelSpec, Port, PortRef

MAX_COMPOSITE_DEPTH = 8
MAX_AIMS = 4096


@dataclass(frozen=True, slots=True)
class Binding:
    """Ties a boundary Port to a device that has this sensor or actuator."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class BoundaryPort:
    """A Port of the workflow itself; ``port`` describes it from outside (input = the workflow reads)."""

    port: Port
    bind: Binding | None = None


@dataclass(frozen=True, slots=True)
class PathLimit:
    """End-to-end limit from the record leaving ``source`` to delivery at ``destination``."""

    id: str
    source: PortRef
    destination: PortRef
    deadline_ms: float
    percentile: float = 0.99


@dataclass(frozen=True, slots=True)
class Objectives:
    """Weights (>= 0) of the placement's cost terms, each divided by its scale."""

    latency: float = 1.0
    energy: float = 1.0
    traffic: float = 0.0
    balance: float = 0.0
    exposure: float = 0.0
    migration: float = 0.0


@dataclass(frozen=True, slots=True)
class Availability:
    """Service wanted: share of time (0..1), time to re-map (ms), AIMs kept ready twice, what to do meanwhile."""

    target: float | None = None
    remap_within_ms: float | None = None
    standby: tuple[str, ...] = ()
    on_degraded: str = "stop"


@dataclass(frozen=True, slots=True)
class AIWMetadata:
    """One workflow as its author wrote it. Composite AIMs are not expanded here."""

    name: str
    version: str
    implementer: str
    composition: Composition
    description: str = ""
    profile: Profile = Profile.BASIC
    trusted_scope: str = "aim"
    types: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[BoundaryPort, ...] = ()
    outputs: tuple[BoundaryPort, ...] = ()
    paths: tuple[PathLimit, ...] = ()
    objectives: Objectives = Objectives()
    availability: Availability = Availability()

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class LeafAIM:
    """A basic AIM of the expanded workflow; ``id`` joins the ids of its enclosing composites with dots."""

    id: str
    metadata: AIMMetadata
    parameters: Mapping[str, ParameterValue]
    placement: PlacementHint | None
    implementation: str | None


@dataclass(frozen=True, slots=True)
class Workflow:
    """An AIW with every composite replaced by its parts: what is planned, deployed and run."""

    metadata: AIWMetadata
    aims: tuple[LeafAIM, ...]
    channels: tuple[ChannelSpec, ...]

    @property
    def name(self) -> str:
        return self.metadata.name

    def aim(self, aim_id: str) -> LeafAIM:
        for leaf in self.aims:
            if leaf.id == aim_id:
                return leaf
        raise UnknownAIM(
            f"{self.name} has no AIM {aim_id!r}", hint="ids: " + ", ".join(a.id for a in self.aims)
        )

    def port(self, ref: PortRef, *, output: bool) -> Port:
        metadata = self.aim(ref.aim).metadata
        return metadata.output(ref.port) if output else metadata.input(ref.port)


def expand(aiw: AIWMetadata, catalogue: Mapping[str, AIMMetadata]) -> Workflow:
    """Replace composite AIMs by their parts, until only basic AIMs are left.

    Args:
        aiw: the workflow.
        catalogue: AIM contracts by ``Name@version``.

    Raises:
        UnknownAIM: a ``use`` is not in the catalogue.
        CyclicTopology: a composite contains itself, directly or through others.
    """
    leaves: list[LeafAIM] = []
    channels = _expand(aiw.composition, "", catalogue, leaves, ())
    return Workflow(aiw, tuple(leaves), tuple(channels))


def _expand(
    composition: Composition,
    prefix: str,
    catalogue: Mapping[str, AIMMetadata],
    leaves: list[LeafAIM],
    within: tuple[str, ...],
) -> list[ChannelSpec]:
    """Leaves of one composition go to ``leaves``; channels come back with their boundary ends still open."""
    inner: dict[str, list[ChannelSpec]] = {}
    for sub in composition.aims:
        metadata = catalogue.get(sub.use)
        if metadata is None:
            raise UnknownAIM(f"{prefix}{sub.id} uses {sub.use}, which no AIM library offers")
        if metadata.composition is None:
            leaves.append(_leaf(prefix, sub, metadata))
            continue
        if sub.use in within or len(within) >= MAX_COMPOSITE_DEPTH:
            raise CyclicTopology(f"composite AIM {sub.use} contains itself: {' > '.join((*within, sub.use))}")
        inner[sub.id] = _expand(
            metadata.composition, f"{prefix}{sub.id}.", catalogue, leaves, (*within, sub.use)
        )
    outer = [
        replace(c, source=_prefixed(c.source, prefix), destination=_prefixed(c.destination, prefix))
        for c in composition.channels
    ]
    for sub_id, open_channels in inner.items():
        outer = _join(f"{prefix}{sub_id}", open_channels, outer)
    return outer


def _leaf(prefix: str, sub: SubAIM, metadata: AIMMetadata) -> LeafAIM:
    hint = sub.placement
    if hint is not None and prefix:
        hint = replace(
            hint,
            colocate_with=tuple(prefix + other for other in hint.colocate_with),
            separate_from=tuple(prefix + other for other in hint.separate_from),
        )
    return LeafAIM(prefix + sub.id, metadata, sub.parameters, hint, sub.implementation)


def _prefixed(ref: PortRef, prefix: str) -> PortRef:
    if ref.at_boundary:
        return PortRef(prefix.rstrip(".") or BOUNDARY, ref.port)
    return PortRef(prefix + ref.aim, ref.port)


def _join(composite: str, inside: list[ChannelSpec], outside: list[ChannelSpec]) -> list[ChannelSpec]:
    """Connect the channels that meet at a composite's boundary and drop the boundary itself.

    The outer channel's settings win where it set any: it knows where the data goes.
    """
    joined = [c for c in inside if composite not in (c.source.aim, c.destination.aim)]
    for channel in outside:
        into, out_of = channel.destination.aim == composite, channel.source.aim == composite
        sources = (
            [c.source for c in inside if c.destination == channel.source] if out_of else [channel.source]
        )
        destinations = (
            [c.destination for c in inside if c.source == channel.destination]
            if into
            else [channel.destination]
        )
        joined += [replace(channel, source=s, destination=d) for s in sources for d in destinations]
    return joined
