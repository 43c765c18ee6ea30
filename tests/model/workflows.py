"""Small AIMs and workflows, written as the tests read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aif.model.aim import AIMMetadata, Composition, ParameterValue, PlacementHint, SubAIM
from aif.model.aiw import AIWMetadata, BoundaryPort
from aif.model.ports import ChannelSpec, Direction, Port, PortRef
from aif.model.records import PortType, RecordType

TYPE = "int32"


def port(name: str, direction: Direction, record: str = TYPE, **settings: Any) -> Port:
    payload_bytes = settings.pop("payload_bytes", 4)
    return Port(name, direction, PortType(RecordType.parse(record)), payload_bytes, **settings)


def aim(
    name: str, inputs: Sequence[str | Port] = (), outputs: Sequence[str | Port] = (), **settings: Any
) -> AIMMetadata:
    return AIMMetadata(
        name,
        "1.0",
        "demo",
        inputs=tuple(p if isinstance(p, Port) else port(p, Direction.INPUT) for p in inputs),
        outputs=tuple(p if isinstance(p, Port) else port(p, Direction.OUTPUT) for p in outputs),
        **settings,
    )


def channel(text: str, **settings: Any) -> ChannelSpec:
    source, _, destination = text.partition(" -> ")
    return ChannelSpec(PortRef.parse(source), PortRef.parse(destination), **settings)


def sub(
    aim_id: str,
    use: str,
    parameters: Mapping[str, ParameterValue] | None = None,
    placement: PlacementHint | None = None,
    implementation: str | None = None,
) -> SubAIM:
    return SubAIM(aim_id, f"{use}@1.0", parameters or {}, placement, implementation)


def composition(aims: Iterable[SubAIM], channels: Iterable[ChannelSpec | str]) -> Composition:
    return Composition(tuple(aims), tuple(channel(c) if isinstance(c, str) else c for c in channels))


def workflow(
    aims: Iterable[SubAIM],
    channels: Iterable[ChannelSpec | str] = (),
    *,
    inputs: Sequence[str | Port] = (),
    outputs: Sequence[str | Port] = (),
    **settings: Any,
) -> AIWMetadata:
    return AIWMetadata(
        "W",
        "1.0",
        "demo",
        composition(aims, channels),
        inputs=tuple(BoundaryPort(p if isinstance(p, Port) else port(p, Direction.INPUT)) for p in inputs),
        outputs=tuple(BoundaryPort(p if isinstance(p, Port) else port(p, Direction.OUTPUT)) for p in outputs),
        **settings,
    )


def catalogue(*aims: AIMMetadata) -> dict[str, AIMMetadata]:
    return {contract.reference: contract for contract in aims}
