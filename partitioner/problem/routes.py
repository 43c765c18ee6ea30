"""Least-latency routes between devices, and what one Channel costs on each of them.

Only gateways, edge boxes and cloud machines pass messages on. With a broker every remote message goes to
the broker and from there to its receiver. Equal times are decided by fewer hops, then by link ids, so that
the same inventory always has the same routes.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from aif.model.inventory import Device, Inventory, Link
from partitioner.policy import PlanPolicy
from partitioner.problem.costs import whole


@dataclass(frozen=True, slots=True)
class Hop:
    """One link crossed in one direction."""

    link: Link
    sender: str
    receiver: str


Route = tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class Crossing:
    """One Channel between two devices: us per record, bit/s per link, bytes/s over all links, radio mW."""

    delay_us: int
    link_bps: tuple[tuple[str, int], ...]
    traffic_bytes_per_s: float
    radio_mw: tuple[tuple[str, float], ...]


LOCAL = Crossing(0, (), 0.0, ())
"""Both ends on one device: the value is handed over, nothing is sent."""


class RouteTable:
    """Routes of one inventory, each found when it is first asked for.

    A device with a single link of its own to a forwarding device (a *leaf*, its *hub*) has no choice: its
    routes are those of its hub with one more hop. Shortest ways are only searched between the others.
    """

    def __init__(self, inventory: Inventory, policy: PlanPolicy) -> None:
        self.inventory, self.policy = inventory, policy
        self.devices = {device.id: device for device in inventory.devices}
        self.attached: dict[str, Link] = {}
        """The link of each leaf."""
        touching: dict[str, list[Link]] = {device.id: [] for device in inventory.devices}
        for link in inventory.links:
            for member in link.members:
                touching[member].append(link)
        for device in inventory.devices:
            links = touching[device.id]
            if len(links) == 1 and len(links[0].members) == 2 and not links[0].directed:
                hub = self._other_end(links[0], device.id)
                if self.devices[hub].forwards and not device.forwards and device.id != policy.broker_device:
                    self.attached[device.id] = links[0]
        self._hops: dict[str, list[tuple[int, Hop]]] = {device.id: [] for device in inventory.devices}
        for link in inventory.links:
            if any(member in self.attached for member in link.members):
                continue
            nanoseconds = round(link.transfer_ms(policy.route_frame_bytes) * 1e6)
            ends = [(a, b) for a in link.members for b in link.members if a != b]
            for a, b in ends[:1] if link.directed else ends:
                self._hops[a].append((nanoseconds, Hop(link, a, b)))
        self._found: dict[str, dict[str, Route]] = {}

    def between(self, source: str, destination: str) -> Route | None:
        """Route between two different devices, by way of the broker if there is one; None: no way."""
        broker = self.policy.broker_device
        if broker is None:
            return self._direct(source, destination)
        first, second = self._direct(source, broker), self._direct(broker, destination)
        return None if first is None or second is None else (*first, *second)

    def between_hubs(self, first: str, last: str) -> Route | None:
        """What lies between two hubs; between two leaves of one hub nothing, unless there is a broker."""
        if first == last and self.policy.broker_device is None:
            return ()
        return self.between(first, last)

    def hub(self, device: str) -> str:
        """The device at which all routes from ``device`` start to differ: its hub, or itself."""
        link = self.attached.get(device)
        return device if link is None else self._other_end(link, device)

    def _direct(self, source: str, destination: str) -> Route | None:
        if source == destination:
            return ()
        up, down = self.attached.get(source), self.attached.get(destination)
        first, last = self.hub(source), self.hub(destination)
        middle = () if first == last else self._from(first).get(last)
        if middle is None:
            return None
        start = () if up is None else (Hop(up, source, first),)
        end = () if down is None else (Hop(down, last, destination),)
        return (*start, *middle, *end)

    def _from(self, start: str) -> dict[str, Route]:
        """Dijkstra over (ns, hops, steps); the steps (link id, receiver) make every choice unique."""
        if start in self._found:
            return self._found[start]
        found: dict[str, Route] = {}
        nearest: dict[str, tuple[int, int]] = {}
        arrival = count()  # never let the heap compare two routes: links may share an id
        queue: list[_Waiting] = [(0, 0, (), next(arrival), ())]
        while queue:
            time, length, steps, _, route = heapq.heappop(queue)
            here = route[-1].receiver if route else start
            if here in found:
                continue
            found[here] = route
            if here != start and not self.devices[here].forwards:
                continue
            for nanoseconds, hop in self._hops[here]:
                reached = (time + nanoseconds, length + 1)
                if hop.receiver in found or nearest.get(hop.receiver, reached) < reached:
                    continue
                nearest[hop.receiver] = reached
                further = (*steps, (hop.link.id, hop.receiver))
                heapq.heappush(queue, (*reached, further, next(arrival), (*route, hop)))
        self._found[start] = found
        return found

    @staticmethod
    def _other_end(link: Link, device: str) -> str:
        return link.members[0] if link.members[1] == device else link.members[1]


_Waiting = tuple[int, int, tuple[tuple[str, str], ...], int, Route]
"""A way not yet known to be the best: ns, hops, steps, order of arrival, route."""


def added_us(device: Device) -> int:
    """What messages to or from a device take longer than by its links (us)."""
    return whole(device.delay_ms * 1000.0)


def crossing(
    route: Route, payload_bytes: int, rate_hz: float, devices: Mapping[str, Device], policy: PlanPolicy
) -> Crossing:
    """Cost of a Channel along ``route``: transfer times, loads (with repeats), radio power.

    What the two ends were measured to add to their links is added once each; whoever passes messages on adds
    nothing, since it is not known whether these messages pass it.
    """
    frame_bytes = payload_bytes + policy.frame_overhead_bytes
    bytes_per_s = frame_bytes * rate_hz
    load: dict[str, int] = {}
    radio: dict[str, float] = {}
    delay_us = policy.remote_handling_us + sum(
        added_us(devices[end]) for end in (route[0].sender, route[-1].receiver)
    )
    for hop in route:
        delay_us += whole(hop.link.transfer_ms(frame_bytes) * 1000.0)
        load[hop.link.id] = load.get(hop.link.id, 0) + whole(8.0 * bytes_per_s / (1.0 - hop.link.loss))
        sent = bytes_per_s * devices[hop.sender].energy.tx_uj_per_byte / 1000.0
        heard = bytes_per_s * devices[hop.receiver].energy.rx_uj_per_byte / 1000.0
        radio[hop.sender] = radio.get(hop.sender, 0.0) + sent
        radio[hop.receiver] = radio.get(hop.receiver, 0.0) + heard
    return Crossing(delay_us, tuple(load.items()), bytes_per_s * len(route), tuple(radio.items()))
