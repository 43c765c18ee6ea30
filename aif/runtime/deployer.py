"""From a Placement to one deployment document per device: instances, channels, releases, tickets.

A pure translation plus signatures: no I/O. Channels whose ends share a device stay local; the others get an
id, a topic and a mode. One consumer means AEAD; several mean signed frames, or, where the author asks for
AEAD, one channel per consumer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aif.errors import StartFailed
from aif.model.aim import ParameterValue
from aif.model.aiw import Workflow
from aif.model.placement import Placement
from aif.model.ports import AuthMode, ChannelSpec, LocalPolicy, PortRef
from aif.protocol import deployment
from aif.protocol.control import InstalledRelease
from aif.protocol.deployment import (
    BoundaryPort,
    DeployedAIM,
    Deployment,
    LocalChannel,
    ModelRelease,
    RemoteChannel,
)  # fmt: skip
from aif.protocol.frame import channel_id
from aif.protocol.identifiers import id16
from aif.protocol.ticket import FirmwareRange, ModelAEAD, Slot, Ticket, issue_ticket
from aif.protocol.topics import DataTopic
from aif.runtime.grants import End
from aif.trusted.model_service import FIRMWARE_ABI, FIRMWARE_VERSION

TICKET_VALIDITY_S = 3600


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model release in the Store, as its publisher signed it."""

    component: str
    path: str
    counter: int
    sha256: bytes
    bytes_: int
    arena_bytes: int
    parameters: Mapping[str, float] = field(default_factory=dict)
    """What the AIM around the model must know, such as a threshold found in training."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the deployer must know about a device."""

    hw_class: str
    installed: tuple[InstalledRelease, ...]


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """A release and where it goes, for reports."""

    device: str
    aim: str
    component: str
    counter: int
    sha256: bytes
    bytes_: int
    arena_bytes: int
    slot: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All documents of one workflow, and the ends of every sealed channel for the grants."""

    aiw_id: str
    mapping_version: int
    documents: Mapping[str, bytes]
    channels: Mapping[bytes, RemoteChannel]
    senders: Mapping[bytes, list[End]]
    receivers: Mapping[bytes, list[End]]
    models: tuple[PlacedModel, ...] = ()


class Deployer:
    """Builds and signs deployment documents and install tickets."""

    def __init__(
        self,
        *,
        sign_deployment: Callable[[bytes], bytes],
        sign_ticket: Callable[[bytes], bytes],
        random: Callable[[int], bytes],
        store_url: str,
    ) -> None:
        self._sign_deployment, self._sign_ticket = sign_deployment, sign_ticket
        self._random, self._store_url = random, store_url

    def plan(
        self,
        aiw_id: str,
        workflow: Workflow,
        placement: Placement,
        mapping_version: int,
        *,
        now_us: int,
        package_digest: Callable[[str], bytes],
        resolve_model: Callable[[str, str], ResolvedModel],
        device_facts: Callable[[str], DeviceFacts],
    ) -> Plan:
        """Documents for every device that runs a part of the workflow.

        Raises:
            StoreError: a model that an implementation needs is not in the Store.
        """
        aims_of_workflow = {leaf.id for leaf in workflow.aims}
        # boundary Ports that are bound to a device are placed too, but nothing runs for them
        device_of = {a.aim: a.device for a in placement.assignments if a.aim in aims_of_workflow}
        remote = remote_channels(aiw_id, workflow, device_of)
        documents: dict[str, bytes] = {}
        models: list[PlacedModel] = []
        for device in sorted(set(device_of.values())):
            aims = tuple(
                self._aim(
                    workflow, leaf_id, placement, device, now_us, package_digest, resolve_model, device_facts
                )
                for leaf_id in (leaf.id for leaf in workflow.aims)
                if device_of[leaf_id] == device
            )
            document = Deployment(
                deployment.VERSION, device, aiw_id, workflow.name, workflow.metadata.version, mapping_version,
                now_us, self._store_url, aims, local_channels(workflow, device_of, device),
                tuple(c for c in remote if device in (c.source_device, *c.destination_devices)),
                _boundary(workflow, device_of, device),
            )  # fmt: skip
            documents[device] = deployment.sign(document, self._sign_deployment)
            models += [
                PlacedModel(
                    device,
                    a.id,
                    m.component,
                    m.counter,
                    m.sha256,
                    m.bytes_,
                    m.arena_bytes,
                    _slot(m.component, (m.sha256, m.counter), device_facts(device)),
                )
                for a in aims
                if (m := a.model) is not None
            ]
        return Plan(
            aiw_id, mapping_version, documents, {c.channel_id: c for c in remote},
            {c.channel_id: [End(c.source_device, f"{aiw_id}/{PortRef.parse(c.source).aim}")] for c in remote},
            {
                c.channel_id: [
                    End(device, f"{aiw_id}/{PortRef.parse(end).aim}")
                    for end, device in zip(c.destinations, c.destination_devices, strict=True)
                ]
                for c in remote
            },
            tuple(models),
        )  # fmt: skip

    def _aim(
        self,
        workflow: Workflow,
        leaf_id: str,
        placement: Placement,
        device: str,
        now_us: int,
        package_digest: Callable[[str], bytes],
        resolve_model: Callable[[str, str], ResolvedModel],
        device_facts: Callable[[str], DeviceFacts],
    ) -> DeployedAIM:
        leaf = workflow.aim(leaf_id)
        chosen = placement.assignment(leaf_id).implementation
        implementation = leaf.metadata.implementation(chosen)
        if implementation is None:
            raise StartFailed(
                f"the placement names an unknown implementation {chosen} of {leaf.metadata.reference}"
            )
        release = None
        declared = {p.name for p in leaf.metadata.parameters}
        parameters: dict[str, ParameterValue] = {}
        if implementation.model is not None:
            resolved = resolve_model(leaf.metadata.implementer, implementation.model.component)
            pinned = implementation.model.sha256
            if pinned is not None and pinned != resolved.sha256.hex():
                raise StartFailed(
                    f"{leaf.metadata.reference} pins another release of {resolved.component} "
                    "than the Store's newest"
                )
            parameters = {name: value for name, value in resolved.parameters.items() if name in declared}
            release = self._release(
                resolved, implementation.arena_bytes, device, device_facts(device), now_us
            )
        return DeployedAIM(
            leaf_id, leaf.metadata.reference, package_digest(leaf.metadata.reference), chosen,
            {**parameters, **leaf.parameters}, release,
        )  # fmt: skip

    def _release(
        self, model: ResolvedModel, arena_bytes: int, device: str, facts: DeviceFacts, now_us: int
    ) -> ModelRelease:
        present = next((i for i in facts.installed if i.component == model.component), None)
        arena = arena_bytes or model.arena_bytes
        ticket = b""
        if present is None or (present.sha256, present.counter) != (model.sha256, model.counter):
            slot = _slot(model.component, (model.sha256, model.counter), facts)
            ticket = issue_ticket(
                Ticket(
                    id16("device", device), self._random(16), model.counter, model.component, slot,
                    model.sha256, model.bytes_, model.sha256, model.bytes_, max(arena, 1),
                    FirmwareRange(FIRMWARE_VERSION, FIRMWARE_VERSION, FIRMWARE_ABI),
                    now_us // 1_000_000 + TICKET_VALIDITY_S, id16("hwclass", facts.hw_class), ModelAEAD.NONE,
                ),
                self._sign_ticket,
            )  # fmt: skip
        return ModelRelease(
            model.component, model.path, model.counter, model.sha256, model.bytes_, arena, ticket
        )


def _slot(component: str, release: tuple[bytes, int], facts: DeviceFacts) -> Slot:
    """Where a release (digest, counter) is, or will be: never the slot that another one is run from."""
    present = next((i for i in facts.installed if i.component == component), None)
    if present is None:
        return Slot.A
    if (present.sha256, present.counter) == release:
        return Slot(present.slot)
    return Slot.B if present.slot == Slot.A else Slot.A


def local_channels(workflow: Workflow, device_of: Mapping[str, str], device: str) -> tuple[LocalChannel, ...]:
    """Channels whose both ends are on ``device`` and that need no seal there."""
    return tuple(
        LocalChannel(str(c.source), str(c.destination), c.delay_records)
        for c in workflow.channels
        if not (c.source.at_boundary or c.destination.at_boundary)
        and device_of[c.source.aim] == device_of[c.destination.aim] == device
        and c.local is LocalPolicy.PLAIN
    )


def remote_channels(aiw_id: str, workflow: Workflow, device_of: Mapping[str, str]) -> list[RemoteChannel]:
    """Every sealed channel of a workflow under a mapping."""
    groups: defaultdict[tuple[PortRef, str], list[ChannelSpec]] = defaultdict(list)
    fan_out: defaultdict[PortRef, list[ChannelSpec]] = defaultdict(list)
    for channel in workflow.channels:
        if channel.source.at_boundary or channel.destination.at_boundary:
            continue
        if device_of[channel.source.aim] != device_of[channel.destination.aim]:
            fan_out[channel.source].append(channel)
        elif channel.local is LocalPolicy.SEALED:  # one channel each: its frames never leave the host
            groups[channel.source, str(channel.destination)].append(channel)
    for source, channels in fan_out.items():
        settings = {(c.auth, c.qos, c.bundle, c.delay_records) for c in channels}
        split = len(channels) > 1 and (len(settings) > 1 or channels[0].auth is AuthMode.AEAD)
        for channel in channels:
            groups[source, str(channel.destination) if split else ""].append(channel)
    return [
        _remote_channel(aiw_id, workflow, device_of, source, consumer, channels)
        for (source, consumer), channels in groups.items()
    ]


def _remote_channel(
    aiw_id: str,
    workflow: Workflow,
    device_of: Mapping[str, str],
    source: PortRef,
    consumer: str,
    channels: list[ChannelSpec],
) -> RemoteChannel:
    first = channels[0]
    topic = str(DataTopic(aiw_id, source.aim, source.port, consumer or None))
    destinations = tuple(str(c.destination) for c in channels)
    record = workflow.port(source, output=True).type.record
    return RemoteChannel(
        channel_id(
            aiw_id, workflow.metadata.version, str(source), destinations, data_type=str(record), topic=topic
        ),
        topic, str(source), device_of[source.aim], destinations,
        tuple(device_of[c.destination.aim] for c in channels),
        first.auth or (AuthMode.AEAD if len(channels) == 1 else AuthMode.SIGNED),
        first.qos, first.bundle.max_messages, first.bundle.max_delay_ms, first.bundle.max_bytes,
        first.delay_records,
    )  # fmt: skip


def _boundary(workflow: Workflow, device_of: Mapping[str, str], device: str) -> tuple[BoundaryPort, ...]:
    found = []
    for channel in workflow.channels:
        if channel.destination.at_boundary and device_of.get(channel.source.aim) == device:
            found.append(BoundaryPort(channel.destination.port, str(channel.source), is_output=True))
        elif channel.source.at_boundary and device_of.get(channel.destination.aim) == device:
            found.append(BoundaryPort(channel.source.port, str(channel.destination), is_output=False))
    return tuple(found)
