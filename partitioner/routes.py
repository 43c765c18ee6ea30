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

from aif.model.inventory import Inventory, Link
from partitioner.costs import whole
from partitioner.policy import PlanPolicy


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


def all_routes(inventory: Inventory, policy: PlanPolicy) -> Mapping[tuple[str, str], Route]:
    """Route of every ordered pair of different devices that can reach each other."""
    direct = {device.id: _routes_from(device.id, inventory, policy) for device in inventory.devices}
    pairs = [(a, b) for a in direct for b in direct if a != b]
    broker = policy.broker_device
    if broker is None:
        return {(a, b): direct[a][b] for a, b in pairs if b in direct[a]}
    return {
        (a, b): direct[a][broker] + direct[broker][b]
        for a, b in pairs
        if broker in direct[a] and b in direct[broker]
    }


def _routes_from(start: str, inventory: Inventory, policy: PlanPolicy) -> dict[str, Route]:
    """Dijkstra over (ns, hops, steps); the steps (link id, receiver) make every choice unique."""
    forwards = {device.id for device in inventory.devices if device.forwards} | {start}
    hops: dict[str, list[tuple[int, Hop]]] = {device.id: [] for device in inventory.devices}
    for link in inventory.links:
        nanoseconds = round(link.transfer_ms(policy.route_frame_bytes) * 1e6)
        ends = [(a, b) for a in link.members for b in link.members if a != b]
        for a, b in ends[:1] if link.directed else ends:
            hops[a].append((nanoseconds, Hop(link, a, b)))
    found: dict[str, Route] = {}
    arrival = count()  # never let the heap compare two routes: links may share an id
    queue: list[tuple[int, int, tuple[tuple[str, str], ...], int, Route]] = [(0, 0, (), next(arrival), ())]
    while queue:
        time, length, steps, _, route = heapq.heappop(queue)
        here = route[-1].receiver if route else start
        if here in found:
            continue
        found[here] = route
        if here in forwards:
            for nanoseconds, hop in hops[here]:
                if hop.receiver not in found:
                    further = (*steps, (hop.link.id, hop.receiver))
                    entry = (time + nanoseconds, length + 1, further, next(arrival), (*route, hop))
                    heapq.heappush(queue, entry)
    return found


def crossing(
    route: Route, payload_bytes: int, rate_hz: float, inventory: Inventory, policy: PlanPolicy
) -> Crossing:
    """Cost of a Channel along ``route``: transfer times, loads (with repeats), radio power."""
    frame_bytes = payload_bytes + policy.frame_overhead_bytes
    bytes_per_s = frame_bytes * rate_hz
    load: dict[str, int] = {}
    radio: dict[str, float] = {}
    delay_us = policy.remote_handling_us
    for hop in route:
        delay_us += whole(hop.link.transfer_ms(frame_bytes) * 1000.0)
        load[hop.link.id] = load.get(hop.link.id, 0) + whole(8.0 * bytes_per_s / (1.0 - hop.link.loss))
        sent = bytes_per_s * inventory.device(hop.sender).energy.tx_uj_per_byte / 1000.0
        heard = bytes_per_s * inventory.device(hop.receiver).energy.rx_uj_per_byte / 1000.0
        radio[hop.sender] = radio.get(hop.sender, 0.0) + sent
        radio[hop.receiver] = radio.get(hop.receiver, 0.0) + heard
    return Crossing(delay_us, tuple(load.items()), bytes_per_s * len(route), tuple(radio.items()))
