"""Sealed channels of a mapping, counted a second time, and what producers keep for acknowledgements.

Part of the checker: plain loops and no code of the planner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from aif.model.aiw import Workflow
from aif.model.delivery import carried_bytes
from aif.model.ports import AuthMode, ChannelSpec, LocalPolicy, PortRef
from aif.model.records import min_size
from aif.protocol.message import HEADER
from aif.protocol.numbering import NUMBERED_BYTES

DeviceOf = Callable[[PortRef], str | None]
"""Device of a Channel's end, None where nothing is placed."""


def between_aims(workflow: Workflow) -> list[ChannelSpec]:
    """Channels that could be sealed: those of the user's boundary are not."""
    return [c for c in workflow.channels if c.source.aim != "aiw" and c.destination.aim != "aiw"]


def sealed_channels(workflow: Workflow, device_of: DeviceOf) -> Counter[str]:
    """How many each device holds."""
    count: Counter[str] = Counter()
    shared: set[tuple[str, str]] = set()
    for channel in between_aims(workflow):
        a, b = device_of(channel.source), device_of(channel.destination)
        if a is None or b is None:
            continue
        if channel.acknowledged:  # one for each direction
            for device in {a, b}:
                count[device] += 2
        elif a == b:
            count[a] += channel.local is LocalPolicy.SEALED
        elif _by_itself(channel, workflow):
            count[a] += 1
            count[b] += 1
        else:
            shared |= {(str(channel.source), a), (str(channel.source), b)}
    for _, device in shared:
        count[device] += 1
    return count


def _by_itself(channel: ChannelSpec, workflow: Workflow) -> bool:
    """Whether readers of one Port have channels of their own."""
    fan = [c for c in between_aims(workflow) if c.source == channel.source and not c.acknowledged]
    settings = {(c.auth, c.qos, c.bundle, c.delay_records) for c in fan}
    return len(settings) > 1 or any(c.auth is AuthMode.AEAD for c in fan)


def shortest_bytes(workflow: Workflow, channel: ChannelSpec) -> tuple[int, int]:
    """The least that a message to the reader has, and one back to the writer."""
    back = 0
    if channel.acknowledged:
        back = HEADER.size + NUMBERED_BYTES + carried_bytes(workflow).get(channel, 0)
    record = workflow.port(channel.source, output=True).type.record
    return max(back, HEADER.size + min_size(record)), back


def kept_by(workflow: Workflow, aim: str) -> int:
    """Bytes of records that an AIM keeps at most until they are acknowledged."""
    total = 0
    for channel in workflow.channels:
        if channel.acknowledged and channel.source.aim == aim:
            reader = workflow.port(channel.destination, output=False)
            total += reader.queue_depth * workflow.port(channel.source, output=True).payload_bytes
    return total
