"""An AI Workflow: AIMs, their Topology, limits and objectives; and its expansion into basic AIMs.

Source: MPAI-AIF V2 AIW metadata; ``paths``, ``objectives`` and ``availability`` are this project's extension.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from aif.errors import CyclicTopology, ModelError, UnknownAIM
from aif.model.aim import AIMMetadata, Composition, ParameterValue, PlacementHint, Profile
from aif.model.ports import BOUNDARY, BundleSettings, ChannelSpec, Port, PortRef

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
    devices: float = 0.0


@dataclass(frozen=True, slots=True)
class Availability:
    """Service wanted: share of time (0..1), time to re-map (ms), AIMs kept ready twice, what to do meanwhile.

    ``on_degraded`` is ``stop`` or ``continue``. ``optional`` are AIMs that are left out where there is no
    room for all, the first one first. ``least_rate`` is the lowest share (0..1) of its full rate that the
    workflow accepts where there is no room for more; ``slow_down`` says whether that comes ``first``, before
    AIMs are left out, or ``last``.
    """

    target: float | None = None
    remap_within_ms: float | None = None
    standby: tuple[str, ...] = ()
    on_degraded: str = "stop"
    optional: tuple[str, ...] = ()
    least_rate: float = 1.0
    slow_down: str = "first"


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

    def without(self, gone: Collection[str]) -> Workflow:
        """The same workflow without some AIMs, their channels, and the limits and hints that name them."""
        if not gone:
            return self
        paths = tuple(p for p in self.metadata.paths if not {p.source.aim, p.destination.aim} & {*gone})
        left = tuple(leaf for leaf in self.aims if leaf.id not in gone)
        return replace(
            self,
            metadata=replace(self.metadata, paths=paths),
            aims=tuple(replace(leaf, placement=_naming_only(leaf.placement, left)) for leaf in left),
            channels=tuple(c for c in self.channels if not {c.source.aim, c.destination.aim} & {*gone}),
        )

    def port(self, ref: PortRef, *, output: bool) -> Port:
        metadata = self.aim(ref.aim).metadata
        return metadata.output(ref.port) if output else metadata.input(ref.port)


def expand(
    aiw: AIWMetadata, catalogue: Mapping[str, AIMMetadata], stand_ins: Mapping[str, str] | None = None
) -> Workflow:
    """Replace composite AIMs by their parts, until only basic AIMs are left.

    Path limits that name a port of a composite come back with the port of the part behind it, one limit for
    each such port. What a composite's ``placement`` says holds for each of its parts.

    Args:
        aiw: the workflow.
        catalogue: AIM contracts by ``Name@version``.
        stand_ins: composite AIMs to use in place of basic ones, by the id of the AIM that each replaces.

    Raises:
        UnknownAIM: a ``use`` is not in the catalogue.
        UnknownPort: a channel ends at a port that its composite does not have.
        CyclicTopology: a composite contains itself, directly or through others, or nests too deeply.
        ModelError: more than ``MAX_AIMS`` AIMs.
    """
    parts = _Parts(catalogue, stand_ins or {})
    parts.add(aiw.composition, "", None, ())
    channels = tuple(parts.joined())
    paths = [limit for written in aiw.paths for limit in _limits_behind(written, parts, channels)]
    return Workflow(replace(aiw, paths=tuple(paths)), tuple(parts.leaves), channels)


def leads(channels: Iterable[ChannelSpec], source: PortRef, destination: PortRef) -> bool:
    """Whether records go from ``source`` to ``destination`` without a delayed channel on the way.

    Args:
        channels: the Topology; nothing passes through the workflow's own boundary.
        source: an output of an AIM, or an input of the workflow.
        destination: an input of an AIM, an output of the workflow, or an output of an AIM on the way.
    """
    following: defaultdict[str, list[PortRef]] = defaultdict(list)
    reached: list[PortRef] = []
    for channel in channels:
        if channel.delay_records == 0:
            following[channel.source.aim].append(channel.destination)
            if channel.source == source:
                reached.append(channel.destination)
    seen = {BOUNDARY}
    for ref in reached:  # it grows on the way
        if ref.aim not in seen:
            seen.add(ref.aim)
            reached += following[ref.aim]
    inputs = {ref for of_one in following.values() for ref in of_one}
    return destination in reached or (destination not in inputs and destination.aim in seen - {BOUNDARY})


def _limits_behind(limit: PathLimit, parts: _Parts, channels: tuple[ChannelSpec, ...]) -> list[PathLimit]:
    """A path limit between ports of basic AIMs: one for each way it stands for, itself if none does."""
    ends = [(s, d) for s in parts.behind(limit.source) for d in parts.behind(limit.destination)]
    connected = [(s, d) for s, d in ends if leads(channels, s, d)]
    return [replace(limit, source=s, destination=d) for s, d in connected or ends]


@dataclass(frozen=True, slots=True)
class _Joint:
    """A port where channels meet: ``entering`` tells an input of a composite from an output of it."""

    ref: PortRef
    entering: bool


@dataclass(frozen=True, slots=True)
class _Stretch:
    """One channel as written in a composition that lies ``depth`` composites deep."""

    spec: ChannelSpec
    depth: int
    source: _Joint
    destination: _Joint


class _Parts:
    """What one expansion has found: basic AIMs, and channels that may end at the ports of composites."""

    def __init__(self, catalogue: Mapping[str, AIMMetadata], stand_ins: Mapping[str, str]) -> None:
        self.leaves: list[LeafAIM] = []
        self._catalogue, self._stand_ins = catalogue, stand_ins
        self._composites: dict[str, AIMMetadata] = {}
        self._leaving: defaultdict[_Joint, list[_Stretch]] = defaultdict(list)
        self._arriving: defaultdict[_Joint, list[_Stretch]] = defaultdict(list)

    def add(
        self, composition: Composition, prefix: str, around: PlacementHint | None, within: tuple[str, ...]
    ) -> None:
        """Take up one composition, and those of its composites."""
        for sub in composition.aims:
            aim_id = prefix + sub.id
            use = self._stand_ins.get(aim_id, sub.use)
            metadata = self._catalogue.get(use)
            if metadata is None:
                raise UnknownAIM(f"{aim_id} uses {use}, which no AIM library offers")
            hint = _combined(_prefixed(sub.placement, prefix), around)
            if metadata.composition is None:
                self.leaves.append(LeafAIM(aim_id, metadata, sub.parameters, hint, sub.implementation))
                self._refuse_too_many()
                continue
            _refuse_nesting(aim_id, use, within)
            self._composites[aim_id] = metadata
            self._refuse_too_many()
            self.add(metadata.composition, f"{aim_id}.", hint, (*within, use))
        for spec in composition.channels:
            source = self._joint(spec.source, prefix, entering=spec.source.at_boundary)
            destination = self._joint(spec.destination, prefix, entering=not spec.destination.at_boundary)
            stretch = _Stretch(spec, len(within), source, destination)
            self._leaving[source].append(stretch)
            self._arriving[destination].append(stretch)

    def joined(self) -> list[ChannelSpec]:
        """Channels between basic AIMs and the workflow's boundary; the same two ports are joined once."""
        found: dict[tuple[PortRef, PortRef], ChannelSpec] = {}
        for joint, stretches in self._leaving.items():
            if self._real(joint):
                for way in self._ways(stretches):
                    spec = _joined(way)
                    found.setdefault((spec.source, spec.destination), spec)
        return list(found.values())

    def behind(self, ref: PortRef) -> tuple[PortRef, ...]:
        """Ports of basic AIMs that a port of a composite stands for; any other port stands for itself."""
        metadata = self._composites.get(ref.aim)
        if metadata is None:
            return (ref,)
        entering = ref.port in {port.name for port in metadata.inputs}
        found: dict[PortRef, None] = {}
        todo, seen = [_Joint(ref, entering)], set()
        while todo:
            joint = todo.pop()
            if self._real(joint):
                found[joint.ref] = None
            elif joint not in seen:
                seen.add(joint)
                inside = (self._leaving if entering else self._arriving).get(joint, [])
                todo += [s.destination if entering else s.source for s in reversed(inside)]
        return tuple(found)

    def _ways(self, starts: Iterable[_Stretch]) -> Iterator[tuple[_Stretch, ...]]:
        """Ways from one port to ports that are no composite's; of two ways through one joint the first."""
        seen: set[_Joint] = set()
        todo: deque[tuple[_Stretch, ...]] = deque((start,) for start in starts)
        while todo:
            way = todo.popleft()
            end = way[-1].destination
            if self._real(end):
                yield way
            elif end not in seen:
                seen.add(end)
                todo.extend((*way, stretch) for stretch in self._leaving.get(end, ()))

    def _real(self, joint: _Joint) -> bool:
        return joint.ref.aim not in self._composites

    def _joint(self, ref: PortRef, prefix: str, *, entering: bool) -> _Joint:
        if ref.at_boundary:
            return _Joint(PortRef(prefix.removesuffix(".") or BOUNDARY, ref.port), entering)
        metadata = self._composites.get(prefix + ref.aim)
        if metadata is not None:
            (metadata.input if entering else metadata.output)(ref.port)
        return _Joint(PortRef(prefix + ref.aim, ref.port), entering)

    def _refuse_too_many(self) -> None:
        if max(len(self.leaves), len(self._composites)) > MAX_AIMS:
            raise ModelError(
                f"the workflow expands to more than {MAX_AIMS:,} AIMs",
                hint="use fewer, or smaller, composites",
            )


def _refuse_nesting(aim_id: str, use: str, within: tuple[str, ...]) -> None:
    if use in within:
        raise CyclicTopology(f"composite AIM {use} contains itself: {' > '.join((*within, use))}")
    if len(within) >= MAX_COMPOSITE_DEPTH:
        raise CyclicTopology(f"{aim_id}: composite AIMs are nested more than {MAX_COMPOSITE_DEPTH} deep")


def _prefixed(hint: PlacementHint | None, prefix: str) -> PlacementHint | None:
    if hint is None or not prefix:
        return hint
    return replace(
        hint,
        colocate_with=tuple(prefix + other for other in hint.colocate_with),
        separate_from=tuple(prefix + other for other in hint.separate_from),
    )


def _naming_only(hint: PlacementHint | None, left: Iterable[LeafAIM]) -> PlacementHint | None:
    """A hint without the AIMs, and the composites of AIMs, that are not there any more."""
    if hint is None:
        return None
    ids = [leaf.id for leaf in left]

    def there(named: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in named if any(f"{i}.".startswith(f"{name}.") for i in ids))

    return replace(hint, colocate_with=there(hint.colocate_with), separate_from=there(hint.separate_from))


def _combined(own: PlacementHint | None, around: PlacementHint | None) -> PlacementHint | None:
    """The hint of a part inside a composite that has one too: a pin of its own wins, affinities add up."""
    if own is None or around is None:
        return own or around
    return PlacementHint(
        own.device or around.device,
        own.device_class or around.device_class,
        own.site or around.site,
        own.zone or around.zone,
        tuple(dict.fromkeys((*own.colocate_with, *around.colocate_with))),
        tuple(dict.fromkeys((*own.separate_from, *around.separate_from))),
        "hard" if "hard" in (own.strength, around.strength) else own.strength,
    )


def _joined(way: tuple[_Stretch, ...]) -> ChannelSpec:
    """Stretches that follow each other, as one channel.

    What the outermost stretch sets holds, since it knows where the data goes; delays add up, and the surest
    quality of service and delivery hold.
    """
    specs = [stretch.spec for stretch in sorted(way, key=lambda stretch: stretch.depth)]
    return ChannelSpec(
        way[0].source.ref,
        way[-1].destination.ref,
        next((spec.auth for spec in specs if spec.auth is not None), None),
        max(spec.qos for spec in specs),
        next((spec.bundle for spec in specs if spec.bundle != BundleSettings()), BundleSettings()),
        sum(spec.delay_records for spec in specs),
        max(spec.local for spec in specs),  # "sealed" is the greater word
        min(spec.delivery for spec in specs),  # "acknowledged" is the lesser one
    )
