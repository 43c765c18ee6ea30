"""Which sealed channels a mapping needs, device by device, and which records are too long for a device.

Between devices every Channel is sealed. One output Port that several devices read with the same settings
takes one sealed channel on its own device and one on each of theirs; an acknowledged Channel takes two, one
for each direction, also where both ends share a device; a Channel that is sealed on a device takes one there.

Decides how they are counted. What a class of device can hold is in the policy; that a record is only
sometimes too long is not known here, and its sender refuses it then.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aif.model.aiw import Workflow
from aif.model.delivery import carried_bytes
from aif.model.ports import AuthMode, ChannelSpec, LocalPolicy, PortRef
from aif.model.records import min_size
from aif.protocol.message import HEADER
from aif.protocol.numbering import NUMBERED_BYTES


@dataclass(frozen=True, slots=True)
class Sealed:
    """Flows that share their sealed channels.

    Attributes:
        flows: their numbers in the problem.
        ends: source and destination item of each flow; the sources are the same.
        ways: sealed channels that each of two devices holds for them.
        local: whether each flow is sealed on one device too, by itself.
    """

    flows: tuple[int, ...]
    ends: tuple[tuple[int, int], ...]
    local: tuple[bool, ...]
    ways: int = 1


def sealed(flows: Iterable[tuple[int, ChannelSpec, tuple[int, int]]]) -> Iterator[Sealed]:
    """What the flows of one workflow (number, Channel, source and destination item) share."""
    fans: defaultdict[PortRef, list[tuple[int, ChannelSpec, tuple[int, int]]]] = defaultdict(list)
    for number, channel, ends in flows:
        if channel.source.at_boundary or channel.destination.at_boundary:
            continue
        if channel.acknowledged:
            yield Sealed((number,), (ends,), (True,), ways=2)
        else:
            fans[channel.source].append((number, channel, ends))
    for fan in fans.values():
        settings = {(c.auth, c.qos, c.bundle, c.delay_records) for _, c, _ in fan}
        if len(settings) > 1 or AuthMode.AEAD in {c.auth for _, c, _ in fan}:
            yield from (Sealed((n,), (ends,), (c.local is LocalPolicy.SEALED,)) for n, c, ends in fan)
        else:
            yield Sealed(
                tuple(number for number, _, _ in fan),
                tuple(ends for _, _, ends in fan),
                tuple(c.local is LocalPolicy.SEALED for _, c, _ in fan),
            )


def channels_of(groups: Sequence[Sealed], device_of: Mapping[int, str]) -> Counter[str]:
    """Sealed channels by device, of flows both ends of which have one.

    Args:
        groups: as ``sealed`` gives them.
        device_of: by item.
    """
    count: Counter[str] = Counter()
    for group in groups:
        apart: dict[str, None] = {}
        for (source, destination), local in zip(group.ends, group.local, strict=True):
            if source not in device_of or destination not in device_of:
                continue
            a, b = device_of[source], device_of[destination]
            if a != b:
                apart[a] = apart[b] = None
            elif local:
                count[a] += group.ways
        for device in apart:
            count[device] += group.ways
    return count


def least_bytes(workflow: Workflow) -> Mapping[ChannelSpec, tuple[int, int]]:
    """The shortest message that each Channel ever carries, to its reader and back to its writer.

    Nothing goes back but acknowledgements, and with them state.
    """
    carried = carried_bytes(workflow)
    found: dict[ChannelSpec, tuple[int, int]] = {}
    for channel in workflow.channels:
        if channel.source.at_boundary or channel.destination.at_boundary:
            continue
        record = workflow.port(channel.source, output=True).type.record
        there, back = HEADER.size + min_size(record), 0
        if channel.acknowledged:
            back = HEADER.size + NUMBERED_BYTES + carried.get(channel, 0)
        found[channel] = max(there, back), back
    return found


def kept_bytes(workflow: Workflow) -> Mapping[str, int]:
    """By AIM, what it keeps of acknowledged Channels at most: as many records as their readers queue."""
    kept: Counter[str] = Counter()
    for channel in workflow.channels:
        if channel.acknowledged and not channel.source.at_boundary:
            depth = workflow.port(channel.destination, output=False).queue_depth
            kept[channel.source.aim] += depth * workflow.port(channel.source, output=True).payload_bytes
    return kept
