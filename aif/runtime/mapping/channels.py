"""The channels of a workflow under a mapping: which are local, which are sealed, and what each carries.

A pure translation of who runs where. Channels whose ends share a device stay local; the others get an id, a
topic and a mode. One consumer means AEAD; several mean signed frames, or, where the author asks for AEAD, one
channel per consumer. An acknowledged channel is two, one each way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from aif.model.aiw import Workflow
from aif.model.delivery import carried_bytes, fan_of
from aif.model.ports import AuthMode, ChannelSpec, LocalPolicy, PortRef
from aif.protocol.deployment import Acknowledged, BoundaryPort, LocalChannel, RemoteChannel
from aif.protocol.frame import channel_id
from aif.protocol.numbers import HOST_LIMITS, ChannelLimits
from aif.protocol.topics import DataTopic


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


def boundary_ports(workflow: Workflow, device_of: Mapping[str, str], device: str) -> tuple[BoundaryPort, ...]:
    found = []
    for channel in workflow.channels:
        if channel.destination.at_boundary and device_of.get(channel.source.aim) == device:
            found.append(BoundaryPort(channel.destination.port, str(channel.source), is_output=True))
        elif channel.source.at_boundary and device_of.get(channel.destination.aim) == device:
            found.append(BoundaryPort(channel.source.port, str(channel.destination), is_output=False))
    return tuple(found)
