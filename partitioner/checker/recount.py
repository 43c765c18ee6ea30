"""The checker's own arithmetic: routes, invocation costs, storage and path latencies, counted a second time.

Shares no code with the planner on purpose, and prefers the plainest method: Bellman and Ford for routes,
recursion from the end for latencies. Both sides follow the same rules of counting: whole us and whole loads,
each rounded up once per invocation, per hop and per Channel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from math import ceil

from aif.model.aim import Implementation
from aif.model.aiw import PathLimit
from aif.model.inventory import Device, DeviceClass, Inventory
from aif.model.ports import ChannelSpec, PortRef

Way = list[tuple[str, str, str]]
"""Hops: link id, sender, receiver."""


def rounded_up(value: float) -> int:
    """Next whole number, unless only the last bits of a product lie above the one before."""
    return ceil(value - 1e-6)


Hops = dict[str, list[tuple[str, int, str]]]
"""By sender: link id, ns, receiver."""


def hops_from(inventory: Inventory, frame_bytes: int) -> Hops:
    """Every single step that a message can take."""
    hops: Hops = {device.id: [] for device in inventory.devices}
    for link in inventory.links:
        milliseconds = (link.latency_ms + 8000.0 * frame_bytes / link.bandwidth_bps) / (1.0 - link.loss)
        for a in link.members:
            for b in link.members:
                if a != b and (not link.directed or (a, b) == link.members[:2]):
                    hops[a].append((link.id, round(milliseconds * 1e6), b))
    return hops


def fastest_ways(hops: Hops, forwarding: AbstractSet[str], source: str) -> dict[str, Way]:
    """Relax every step from whatever got nearer; equal times: fewer hops, then the names in order."""
    best: dict[str, tuple[int, int, list[tuple[str, str]], Way]] = {source: (0, 0, [], [])}
    changed = deque([source])
    while changed:
        a = changed.popleft()
        if a not in forwarding and a != source:
            continue
        time, length, names, way = best[a]
        for link, nanoseconds, b in hops[a]:
            old = best.get(b)
            if old is not None and (time + nanoseconds, length + 1) > old[:2]:
                continue
            new = (time + nanoseconds, length + 1, [*names, (link, b)], [*way, (link, a, b)])
            if old is None or new[:3] < old[:3]:
                best[b] = new
                changed.append(b)
    return {device: entry[3] for device, entry in best.items()}


def invocation(
    code: Implementation, device: Device, devices: Iterable[Device]
) -> tuple[int, int, float] | None:
    """Mean us, 99th-percentile us and uJ of one invocation, by the first rule that applies."""
    running_mw = max(0.0, device.energy.active_mw - device.energy.idle_mw)
    for row in code.measured:
        if row.on == device.board:
            energy_uj = row.latency_us * running_mw / 1000.0 if row.energy_uj is None else row.energy_uj
            mean = rounded_up(row.latency_us)
            return mean, max(mean, rounded_up(row.latency_p99_us or 0.0)), energy_uj
    if code.instructions and device.instructions_per_s:
        time, tail = 1e6 * code.instructions / device.instructions_per_s, 0.0
    elif code.mac_count and device.macs_per_s:
        time, tail = 1e6 * code.mac_count / device.macs_per_s, 0.0
    else:
        scaled = list(_scaled(code, device, devices))
        if not scaled:
            return None
        time, tail = scaled[0]
    return rounded_up(time), max(rounded_up(time), rounded_up(tail)), time * running_mw / 1000.0


def _scaled(code: Implementation, device: Device, devices: Iterable[Device]) -> Iterator[tuple[float, float]]:
    """Measurements on other boards, in the time of ``device``."""
    known = list(devices)
    for row in code.measured:
        ratio = 0.0
        for other in known:
            if other.board == row.on and not ratio:
                if other.dmips and device.dmips:
                    ratio = other.dmips / device.dmips
                elif other.instructions_per_s and device.instructions_per_s:
                    ratio = other.instructions_per_s / device.instructions_per_s
        if ratio:
            yield row.latency_us * ratio, (row.latency_p99_us or 0.0) * ratio


def storage_unit(device: Device, stored: int, kind: str | None, *, flash_will_do: bool) -> int | None:
    """Position of the unit that holds ``stored`` bytes, -1 for program flash, None when there is no place.

    In-place units first; a microcontroller's program flash before units that it would have to copy from.
    """
    mapped = [n for n, unit in enumerate(device.storage) if unit.kind == "internal_flash"]
    others = [n for n, unit in enumerate(device.storage) if unit.kind != "internal_flash"]
    mcu = device.device_class is DeviceClass.MCU
    if mcu and flash_will_do and stored <= device.flash_bytes:
        others = [-1, *others]
    for number in (*mapped, *others):
        if number < 0:
            return number
        unit = device.storage[number]
        if unit.bytes_ >= stored and kind in (None, unit.kind):
            return number
    somewhere = mcu or device.flash_bytes > 0 or not device.storage
    return -1 if flash_will_do and somewhere else None


class Ways:
    """Latencies of one workflow between the ports of one limit (None: from any source to any end).

    Args:
        channels: the workflow's Channels.
        limit: the path.
        end: key of the AIM at a port, None where nothing is placed.
        ran: time of one invocation with its wait, us.
        delay: time of one record on its way, us.
    """

    def __init__(
        self,
        channels: Sequence[ChannelSpec],
        limit: PathLimit | None,
        end: Callable[[PortRef], str | None],
        ran: Callable[[str], int],
        delay: Callable[[ChannelSpec], int],
    ) -> None:
        self.channels = [channel for channel in channels if channel.delay_records == 0]
        self.limit, self.end, self.ran, self.delay = limit, end, ran, delay
        self.start = None if limit is None else end(limit.source)
        self.memo: dict[str, int | None] = {}

    def longest(self, keys: Iterable[str]) -> int:
        """Latency of the limit, or the latest end among the AIMs ``keys``."""
        if self.limit is None:
            return max((self.done(key) or 0 for key in keys), default=0)
        into = [c for c in self.channels if c.destination == self.limit.destination]
        if into:
            return max((self.arrival(channel) or 0 for channel in into), default=0)
        last = self.end(self.limit.destination)
        return 0 if last is None else self.done(last) or 0

    def arrival(self, channel: ChannelSpec) -> int | None:
        """When the record that started the clock, or what came of it, arrives by ``channel``; None: never."""
        if self.limit is not None and channel.source == self.limit.source:
            return self.delay(channel)
        source = self.end(channel.source)
        if source is None or source == self.start:
            return None
        before = self.done(source)
        return None if before is None else before + self.delay(channel)

    def done(self, key: str) -> int | None:
        """When an AIM has worked on it; None when it never reaches that AIM."""
        if key not in self.memo:
            feeding = [self.arrival(c) for c in self.channels if self.end(c.destination) == key]
            arrivals = [time for time in feeding if time is not None]
            if self.limit is None and not arrivals:
                arrivals = [0]
            self.memo[key] = max(arrivals) + self.ran(key) if arrivals else None
        return self.memo[key]
