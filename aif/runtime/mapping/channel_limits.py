"""Whether the devices of a mapping can hold its sealed channels at all.

Refuses what would show only when records are dropped, or in the middle of a deployment. What a class of
device holds is said by ``protocol.numbers``; a message that is too long only sometimes is refused by its
sender, and channels of several workflows are counted by the device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from aif.errors import StartFailed
from aif.model.aiw import Workflow
from aif.model.ports import PortRef
from aif.model.records import min_size
from aif.protocol.deployment import RemoteChannel
from aif.protocol.message import HEADER
from aif.protocol.numbering import NUMBERED_BYTES
from aif.protocol.numbers import HOST_LIMITS, ChannelLimits


def check_sizes(workflow: Workflow, channels: Iterable[RemoteChannel]) -> None:
    """Refuse a channel of which no record can ever reach its receivers, or state cannot follow its AIM.

    Raises:
        StartFailed: the smallest record of the port, or such state, is longer than they put together.
    """
    for channel in channels:
        least_bytes = HEADER.size
        if channel.acknowledged is not None:  # state travels both ways
            least_bytes += NUMBERED_BYTES + channel.acknowledged.state_bytes
        if not channel.returns:
            record = workflow.port(PortRef.parse(channel.source), output=True).type.record
            least_bytes = max(least_bytes, HEADER.size + min_size(record))
        if least_bytes > channel.max_message_bytes:
            raise StartFailed(
                f"{channel.source} -> {', '.join(channel.destinations)}: every message has at least "
                f"{least_bytes:,} B, and {', '.join(channel.destination_devices)} takes at most "
                f"{channel.max_message_bytes:,} B",
                hint="place both ends on one device (colocate_with), the reader on a gateway, or send less",
            )


def check_numbers(channels: Iterable[RemoteChannel], limits: Mapping[str, ChannelLimits]) -> None:
    """Refuse a mapping under which a device has more sealed channels than it can hold.

    Raises:
        StartFailed: with the device and both numbers.
    """
    counted = Counter(
        device for channel in channels for device in {channel.source_device, *channel.destination_devices}
    )
    for device, count in sorted(counted.items()):
        most = limits.get(device, HOST_LIMITS).max_channels
        if count > most:
            raise StartFailed(
                f"{device} would have {count:,} sealed channels, it holds {most:,}",
                hint="place AIMs that talk to each other on one device, or use another class of device",
            )
