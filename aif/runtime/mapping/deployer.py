"""From a Placement to one deployment document per device: instances, channels, releases, tickets.

A pure translation plus signatures: no I/O. Channels whose ends share a device stay local; the others get an
id, a topic and a mode. One consumer means AEAD; several mean signed frames, or, where the author asks for
AEAD, one channel per consumer.

Models are encrypted once per release. A device gets a ticket for the ciphertext, and the content key apart
from it, wrapped for its current boot. What a content key may be used for follows from the device: a
microcontroller executes from its slot in place, every other device runs the model in its Security Engine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from aif.errors import PlainModelRefused, StartFailed
from aif.model.aim import ParameterValue
from aif.model.aiw import Workflow
from aif.model.degrading import sets_pace
from aif.model.delivery import carried_bytes, fan_of
from aif.model.placement import Placement
from aif.model.ports import AuthMode, ChannelSpec, LocalPolicy, PortRef
from aif.protocol import deployment
from aif.protocol.chunks import SealedRelease
from aif.protocol.content_keys import KeyUse, check_commitment, wrap_content_key
from aif.protocol.control import InstalledRelease, ModelKey
from aif.protocol.deployment import (
    Acknowledged,
    BoundaryPort,
    DeployedAIM,
    Deployment,
    LocalChannel,
    ModelRelease,
    RemoteChannel,
)  # fmt: skip
from aif.protocol.frame import channel_id
from aif.protocol.identifiers import id16
from aif.protocol.limits import DEFAULT_CHUNK_BYTES, KEY_BYTES
from aif.protocol.numbers import HOST_LIMITS, ChannelLimits
from aif.protocol.ticket import FirmwareRange, ModelAEAD, Slot, Ticket, issue_ticket, ticket_digest
from aif.protocol.topics import DataTopic
from aif.runtime.devices.grants import End
from aif.runtime.mapping.channel_limits import check_numbers, check_sizes
from aif.runtime.mapping_changes import same_part
from aif.trusted.content_keys import SiteVault
from aif.trusted.model_service import FIRMWARE_ABI, FIRMWARE_VERSION

TICKET_VALIDITY_S = 3600


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model release in the Store, as its publisher signed it.

    Attributes:
        sha256: of the plaintext; ``bytes_`` is its length.
        stored_sha256: of what the Store keeps; ``stored_bytes`` is its length.
        sealed: what its chunks are bound to; None for a plain release.
        key_commitment: what it says about its content key.
        hw_classes: what it was built for; empty for any.
    """

    component: str
    path: str
    counter: int
    sha256: bytes
    bytes_: int
    arena_bytes: int
    stored_sha256: bytes
    stored_bytes: int
    sealed: SealedRelease | None
    key_commitment: bytes = b""
    hw_classes: tuple[str, ...] = ()
    parameters: Mapping[str, float] = field(default_factory=dict)
    """What the AIM around the model must know, such as a threshold found in training."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the deployer must know about a device."""

    hw_class: str
    installed: tuple[InstalledRelease, ...]
    in_place: bool = False
    """Whether it executes models from its slots, which then hold plaintext."""
    limits: ChannelLimits = HOST_LIMITS


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """A release and where it goes. ``key_use`` is None for a plain one."""

    device: str
    aim: str
    component: str
    path: str
    counter: int
    sha256: bytes
    bytes_: int
    arena_bytes: int
    slot: str
    ticket_digest: bytes
    key_use: KeyUse | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All documents of one workflow, and the ends of every sealed channel for the grants.

    Attributes:
        mapping_version: of the newest document; devices whose part has not changed since keep their own.
        parts: what the documents say, by device.
        releases: the model releases it names, by publisher and component; another mapping keeps them.
    """

    aiw_id: str
    mapping_version: int
    documents: Mapping[str, bytes]
    channels: Mapping[bytes, RemoteChannel]
    senders: Mapping[bytes, tuple[End, ...]]
    receivers: Mapping[bytes, tuple[End, ...]]
    models: tuple[PlacedModel, ...] = ()
    releases: Mapping[str, ResolvedModel] = field(default_factory=dict)
    parts: Mapping[str, Deployment] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        aiw_id: str,
        mapping_version: int,
        channels: Iterable[RemoteChannel],
        documents: Mapping[str, bytes],
        models: tuple[PlacedModel, ...],
        *,
        releases: Mapping[str, ResolvedModel],
        parts: Mapping[str, Deployment],
    ) -> Plan:
        """A plan with the ends of its channels worked out."""
        by_id = {channel.channel_id: channel for channel in channels}

        def end(device: str, port: str) -> End:
            return End(device, f"{aiw_id}/{PortRef.parse(port).aim}")

        return cls(
            aiw_id, mapping_version, documents, by_id,
            {i: (end(c.source_device, c.source),) for i, c in by_id.items()},
            {i: tuple(map(end, c.destination_devices, c.destinations)) for i, c in by_id.items()},
            models, releases, parts,
        )  # fmt: skip

    def version(self, device: str) -> int:
        """The mapping version that a device should be under; 0 when it has no part."""
        part = self.parts.get(device)
        return 0 if part is None else part.mapping_version


class Deployer:
    """Builds and signs deployment documents and install tickets."""

    def __init__(
        self,
        *,
        sign_deployment: Callable[[bytes], bytes],
        sign_ticket: Callable[[bytes], bytes],
        random: Callable[[int], bytes],
        store_url: str,
        vault: SiteVault,
    ) -> None:
        self._sign_deployment, self._sign_ticket = sign_deployment, sign_ticket
        self._random, self._store_url, self._vault = random, store_url, vault

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
        previous: Plan | None = None,
        anew: Collection[str] = (),
        over: Collection[str] = (),
        rate: float = 1.0,
    ) -> Plan:
        """Documents for every device that runs a part of the workflow.

        Args:
            aiw_id: of the workflow.
            workflow: what is deployed.
            placement: where its AIMs go.
            mapping_version: of the documents that are made now.
            now_us: time of issue.
            package_digest: by AIM reference.
            resolve_model: newest release, by publisher and component.
            device_facts: by device name.
            previous: the plan that runs now; its model releases stay, and so does the document of each
                device whose part is the same.
            anew: devices that get a new document in any case.
            over: AIMs that have ended where they were; nothing runs for them any more.
            rate: share of its full rate at which the workflow runs; only devices with an AIM that sets a pace
                hear of it.

        Raises:
            StoreError: a model that an implementation needs is not in the Store.
            StartFailed: a device has too many channels, or cannot take the records of one.
        """
        releases = dict(previous.releases) if previous is not None else {}

        def resolved(publisher: str, component: str) -> ResolvedModel:
            key = f"{publisher}/{component}"
            if key not in releases:
                releases[key] = resolve_model(publisher, component)
            return releases[key]

        aims_of_workflow = {leaf.id for leaf in workflow.aims}
        # boundary Ports that are bound to a device are placed too, but nothing runs for them
        device_of = {a.aim: a.device for a in placement.assignments if a.aim in aims_of_workflow}
        working = [leaf.id for leaf in workflow.aims if leaf.id not in over]
        facts = {device: device_facts(device) for device in sorted({device_of[aim] for aim in working})}
        limits = {device: known.limits for device, known in facts.items()}
        remote = [c for c in remote_channels(aiw_id, workflow, device_of, limits) if not _unheard(c, over)]
        check_sizes(workflow, remote)
        check_numbers(remote, limits)
        plain_models = self._vault.plain_models
        documents: dict[str, bytes] = {}
        parts: dict[str, Deployment] = {}
        models: list[PlacedModel] = []
        for device, known_facts in facts.items():
            issue = _Tickets(self, device, known_facts, now_us, plain_models=plain_models)
            aims = tuple(
                self._aim(workflow, leaf_id, placement, package_digest, resolved, issue)
                for leaf_id in working
                if device_of[leaf_id] == device
            )
            paced = any(sets_pace(workflow.aim(aim.id).metadata) for aim in aims)
            document = Deployment(
                deployment.VERSION, device, aiw_id, workflow.name, workflow.metadata.version, mapping_version,
                now_us, self._store_url, aims, local_channels(workflow, device_of, device),
                tuple(c for c in remote if device in (c.source_device, *c.destination_devices)),
                _boundary(workflow, device_of, device), plain_models, rate if paced else 1.0,
            )  # fmt: skip
            models += issue.placed
            known = previous.parts.get(device) if previous is not None and device not in anew else None
            if previous is not None and known is not None and same_part(known, document):
                documents[device], parts[device] = previous.documents[device], known
                continue
            documents[device] = deployment.sign(document, self._sign_deployment)
            parts[device] = document
        return Plan.of(
            aiw_id, mapping_version, remote, documents, tuple(models), releases=releases, parts=parts
        )

    def content_keys(self, plan: Plan, device: str, session_pk: bytes) -> tuple[ModelKey, ...]:
        """Keys of the models that a plan puts on a device, for one boot of it.

        Args:
            plan: made by ``plan``.
            device: its name.
            session_pk: of the boot whose Evidence was accepted.

        Raises:
            NotFound: a key is not in the site's vault any more.
        """
        return tuple(
            ModelKey(
                component,
                wrap_content_key(
                    self._vault.key(model.path), session_pk, self._random(KEY_BYTES), model.ticket_digest, use
                ),
            )
            for component, model in {m.component: m for m in plan.models if m.device == device}.items()
            if (use := model.key_use) is not None
        )

    def _aim(
        self,
        workflow: Workflow,
        leaf_id: str,
        placement: Placement,
        package_digest: Callable[[str], bytes],
        resolve_model: Callable[[str, str], ResolvedModel],
        issue: _Tickets,
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
            release = issue.release(leaf_id, resolved, implementation.arena_bytes)
        return DeployedAIM(
            leaf_id, leaf.metadata.reference, package_digest(leaf.metadata.reference), chosen,
            {**parameters, **leaf.parameters}, release,
        )  # fmt: skip

    def check_release(self, model: ResolvedModel, device: str, hw_class: str, *, plain_models: bool) -> None:
        """See that a device may have a release, before any document names it.

        Raises:
            PlainModelRefused: it is not encrypted, and this site has not allowed that.
            NotFound, DecryptionFailed: the site has no key for it, or another one.
            StartFailed: it was built for other hardware.
        """
        if model.hw_classes and hw_class not in model.hw_classes:
            raise StartFailed(
                f"{model.path} is built for {', '.join(sorted(model.hw_classes))}, {device} is {hw_class}",
                hint="publish the model for that hardware class too, or place its AIM elsewhere",
            )
        if model.sealed is not None:
            check_commitment(self._vault.key(model.path), model.sealed.release_id, model.key_commitment)
        elif not plain_models:
            raise PlainModelRefused(
                f"{model.path} is not encrypted, and this site takes only encrypted models",
                hint="publish it with `aif store publish`, which encrypts; or allow plain models with "
                "`aif site policy --plain-models allow`",
            )

    def ticket(
        self, model: ResolvedModel, arena_bytes: int, device: str, facts: DeviceFacts, now_us: int
    ) -> bytes:
        """A signed ticket for one device, into the slot that it does not use."""
        sealed = model.sealed
        return issue_ticket(
            Ticket(
                id16("device", device), self._random(16), model.counter, model.component,
                _slot(model.component, (model.sha256, model.counter), facts),
                model.sha256, model.bytes_, model.stored_sha256, model.stored_bytes, max(arena_bytes, 1),
                FirmwareRange(FIRMWARE_VERSION, FIRMWARE_VERSION, FIRMWARE_ABI),
                now_us // 1_000_000 + TICKET_VALIDITY_S, id16("hwclass", facts.hw_class),
                ModelAEAD.NONE if sealed is None else sealed.aead,
                DEFAULT_CHUNK_BYTES if sealed is None else sealed.chunk_bytes,
            ),
            self._sign_ticket,
        )  # fmt: skip


class _Tickets:
    """Releases and tickets of one device in one plan; AIMs that share a model share its ticket."""

    def __init__(
        self, deployer: Deployer, device: str, facts: DeviceFacts, now_us: int, *, plain_models: bool
    ) -> None:
        self._deployer, self._device, self._facts, self._now_us = deployer, device, facts, now_us
        self._plain_models = plain_models
        self._tickets: dict[str, bytes] = {}
        self.placed: list[PlacedModel] = []

    def release(self, aim: str, model: ResolvedModel, arena_bytes: int) -> ModelRelease:
        """What the document says about the model of one AIM."""
        facts = self._facts
        self._deployer.check_release(model, self._device, facts.hw_class, plain_models=self._plain_models)
        arena = arena_bytes or model.arena_bytes
        present = next((i for i in facts.installed if i.component == model.component), None)
        ticket = b""
        if present is not None and (present.sha256, present.counter) == (model.sha256, model.counter):
            digest = present.ticket_digest
        else:
            if model.component not in self._tickets:
                issued = self._deployer.ticket(model, arena, self._device, facts, self._now_us)
                self._tickets[model.component] = issued
            ticket = self._tickets[model.component]
            digest = ticket_digest(ticket)
        use = KeyUse.IN_PLACE if facts.in_place else KeyUse.RUN
        self.placed.append(
            PlacedModel(
                self._device, aim, model.component, model.path, model.counter, model.sha256, model.bytes_,
                arena, _slot(model.component, (model.sha256, model.counter), facts), digest,
                None if model.sealed is None else use,
            )
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
        and not c.acknowledged
    )


def _unheard(channel: RemoteChannel, over: Collection[str]) -> bool:
    """Whether messages would wait for the acknowledgement of an AIM that is over."""
    consumer = channel.source if channel.returns else channel.destinations[0]
    return channel.acknowledged is not None and PortRef.parse(consumer).aim in over


def remote_channels(
    aiw_id: str,
    workflow: Workflow,
    device_of: Mapping[str, str],
    limits: Mapping[str, ChannelLimits] = MappingProxyType({}),
) -> list[RemoteChannel]:
    """Every sealed channel of a workflow under a mapping; devices without ``limits`` have those of a host."""
    groups: defaultdict[tuple[PortRef, str], list[ChannelSpec]] = defaultdict(list)
    fan_out: defaultdict[PortRef, list[ChannelSpec]] = defaultdict(list)
    for channel in workflow.channels:
        if channel.source.at_boundary or channel.destination.at_boundary:
            continue
        if channel.acknowledged:  # one channel each, also within a host: every consumer answers for itself
            groups[channel.source, str(channel.destination)].append(channel)
        elif device_of[channel.source.aim] != device_of[channel.destination.aim]:
            fan_out[channel.source].append(channel)
        elif channel.local is LocalPolicy.SEALED:  # one channel each: its frames never leave the host
            groups[channel.source, str(channel.destination)].append(channel)
    for source, channels in fan_out.items():
        settings = {(c.auth, c.qos, c.bundle, c.delay_records) for c in channels}
        split = len(channels) > 1 and (len(settings) > 1 or channels[0].auth is AuthMode.AEAD)
        for channel in channels:
            groups[source, str(channel.destination) if split else ""].append(channel)
    made: list[RemoteChannel] = []
    carried = carried_bytes(workflow)
    for (source, consumer), channels in groups.items():
        one = _remote_channel(aiw_id, workflow, device_of, limits, source, consumer, channels)
        held = limits.get(one.source_device, HOST_LIMITS)
        spec = channels[0]
        made += _both_ways(workflow, spec, one, aiw_id, held, carried[spec]) if spec.acknowledged else [one]
    return made


def _remote_channel(
    aiw_id: str,
    workflow: Workflow,
    device_of: Mapping[str, str],
    limits: Mapping[str, ChannelLimits],
    source: PortRef,
    consumer: str,
    channels: list[ChannelSpec],
) -> RemoteChannel:
    first = channels[0]
    topic = str(DataTopic(aiw_id, source.aim, source.port, consumer or None))
    destinations = tuple(str(c.destination) for c in channels)
    record = workflow.port(source, output=True).type.record
    readers = tuple(device_of[c.destination.aim] for c in channels)
    held = [limits.get(device, HOST_LIMITS) for device in readers]
    return RemoteChannel(
        channel_id(
            aiw_id, workflow.metadata.version, str(source), destinations, data_type=str(record), topic=topic
        ),
        topic, str(source), device_of[source.aim], destinations,
        readers,
        first.auth or (AuthMode.AEAD if len(channels) == 1 else AuthMode.SIGNED),
        first.qos, first.bundle.max_messages, first.bundle.max_delay_ms, first.bundle.max_bytes,
        first.delay_records,
        min(one.max_frame_bytes for one in held), min(one.max_message_bytes for one in held),
    )  # fmt: skip


def _both_ways(
    workflow: Workflow,
    spec: ChannelSpec,
    channel: RemoteChannel,
    aiw_id: str,
    held: ChannelLimits,
    state_bytes: int,
) -> tuple[RemoteChannel, RemoteChannel]:
    """An acknowledged channel, and the one that its acknowledgements take, the other way.

    ``held``: what the producer's device can hold; ``state_bytes``: what an acknowledgement carries at most.
    """
    source, destination = spec.source, spec.destination
    topic = str(DataTopic(aiw_id, source.aim, source.port, f"{destination}-ack"))
    back = channel_id(
        aiw_id, workflow.metadata.version, str(destination), (str(source),),
        data_type="acknowledgement", topic=topic,
    )  # fmt: skip
    terms = Acknowledged(
        back,
        workflow.port(destination, output=False).queue_depth,
        fan_of(workflow.port(source, output=True)),
        state_bytes=state_bytes,
    )
    return replace(channel, acknowledged=terms), RemoteChannel(
        back, topic, str(destination), channel.destination_devices[0],
        (str(source),), (channel.source_device,),
        channel.auth, channel.qos, 1, 0.0, channel.max_bytes, 0,
        held.max_frame_bytes, held.max_message_bytes,
        replace(terms, other=channel.channel_id, returns=True),
    )  # fmt: skip


def _boundary(workflow: Workflow, device_of: Mapping[str, str], device: str) -> tuple[BoundaryPort, ...]:
    found = []
    for channel in workflow.channels:
        if channel.destination.at_boundary and device_of.get(channel.source.aim) == device:
            found.append(BoundaryPort(channel.destination.port, str(channel.source), is_output=True))
        elif channel.source.at_boundary and device_of.get(channel.destination.aim) == device:
            found.append(BoundaryPort(channel.source.port, str(channel.destination), is_output=False))
    return tuple(found)
