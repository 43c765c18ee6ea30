"""A placement problem as arrays: what a Channel costs as a sum over its two ends and their hubs.

Messages of a leaf pass its hub, so a Channel from device a to device b costs ``out[a] + in[b] + middle[group
of a, group of b]``, and nothing where a is b. A group is one hub with its leaves in one zone; a device that
is nobody's leaf is a group by itself, so the form is exact for every inventory, and small with hubs.

Decides nothing; all figures are those of ``PlacementProblem``. Prices are objective units (float), times
whole us, amounts as in the limits. Rows are devices in the order of the inventory.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from partitioner.policy import POWER_SCALE_MW, TRAFFIC_SCALE_BYTES_PER_S
from partitioner.problem.costs import whole
from partitioner.problem.parts import Candidate, Item, Limit, PlacementProblem, stamped
from partitioner.problem.paths import Path
from partitioner.problem.routes import Hop, Route, added_us
from partitioner.problem.sentences import device_of
from partitioner.search.pace import CELL_S, Clock, Pace

LEAST_STEPS = 64

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Options:
    """Candidates of one item: ``layer`` l is its l-th candidate on a kind of device (float[kinds, layers]).

    ``demand`` is float[kinds, layers, resources]; a price of infinity marks what does not exist.
    """

    price: Floats
    mean_us: Floats
    tail_us: Floats
    demand: Floats
    kind_of: Ints
    allowed: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Transfer:
    """One flow's factors: price = energy * uJ/byte + traffic * hops + exposure * [zones differ]."""

    source: int
    destination: int
    frame_bytes: int
    wire_bytes: int
    bits_per_s: float
    energy: float
    traffic: float
    exposure: float
    least_bytes: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Matrices:
    """What lies between groups, as [from, to]: battery uJ per byte, hops, zones left, us per record."""

    energy: Floats
    hops: Floats
    leaving: Floats
    delay_us: Floats


class Star:
    """The arrays of one problem."""

    def __init__(
        self, problem: PlacementProblem, *, pace: Pace | None = None, end_s: float = math.inf
    ) -> None:
        """The arrays of a problem; whatever searches in them asks ``pace`` for the time, until ``end_s``."""
        self.problem, self.pace, self.end_s = problem, pace or Clock(), end_s
        self.devices = problem.inventory.devices
        self.position = {device.id: n for n, device in enumerate(self.devices)}
        self._pinnable = [
            np.array([str(value) for value in values])
            for values in (
                [d.id for d in self.devices],
                [d.device_class for d in self.devices],
                [d.site for d in self.devices],
                [d.zone for d in self.devices],
            )
        ]
        self.single_core = np.array([device.id in problem.single_core for device in self.devices])
        self.message_bytes = np.array(
            [problem.policy.channels(device).max_message_bytes for device in self.devices]
        )
        self._groups()
        self._access()
        self._resources()
        self._rooms()
        self._kind_rows: dict[int, Ints] = {}
        self.options = [self._options(item) for item in problem.items]
        self.transfers = [self._transfer(n) for n in range(len(problem.flows))]
        self.items_of: list[list[int]] = [[] for _ in problem.workflows]
        for n, item in enumerate(problem.items):
            self.items_of[item.workflow].append(n)
        self.flows_of: list[list[int]] = [[] for _ in problem.workflows]
        for n, flow in enumerate(problem.flows):
            self.flows_of[flow.workflow].append(n)
        self.paths_of: list[list[Path]] = [[] for _ in problem.workflows]
        for path in problem.paths:
            self.paths_of[path.workflow].append(path)
        self.pace.spend(CELL_S * len(self.devices) * len(problem.items))
        self.affinities_of: defaultdict[int, list[int]] = defaultdict(list)
        for n, affinity in enumerate(problem.affinities):
            self.affinities_of[problem.items[affinity.first].workflow].append(n)

    def affordable(self, most: int, per_s: float) -> int:
        """How many of ``most`` steps there is time for, if so many are done in a second; never none."""
        left = (self.end_s - self.pace.now()) * per_s
        return most if left >= most else max(LEAST_STEPS, int(left))

    # --- the network ---

    def _groups(self) -> None:
        numbers: dict[tuple[str, str], int] = {}
        hubs = [self.problem.routes.hub(device.id) for device in self.devices]
        keys = [(hub, device.zone) for hub, device in zip(hubs, self.devices, strict=True)]
        self.group = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
        self.group_keys = list(numbers)
        count = len(numbers)
        self._profiles: list[Route] = []
        known: dict[tuple[str, ...], int] = {}
        self._profile_of = np.full((count, count), -1, dtype=np.int64)
        energy, hops = np.zeros((count, count)), np.zeros((count, count))
        for a, (first, _) in enumerate(self.group_keys):
            for b, (last, _) in enumerate(self.group_keys):
                route = self.problem.routes.between_hubs(first, last)
                if route is None:
                    continue
                key = tuple(hop.link.id for hop in route)
                number = known.setdefault(key, len(self._profiles))
                if number == len(self._profiles):
                    self._profiles.append(route)
                self._profile_of[a, b] = number
                hops[a, b] = len(route)
                energy[a, b] = sum(self._radio_uj(hop) for hop in route)
        zones = np.array([zone for _, zone in self.group_keys])
        leaving = (zones[:, None] != zones[None, :]).astype(float)
        self._energy, self._hops, self._leaving = energy, hops, leaving
        self._delays: dict[int, tuple[Floats, Floats]] = {}

    def _radio_uj(self, hop: Hop) -> float:
        sender, receiver = (self.problem.routes.devices[d].energy for d in (hop.sender, hop.receiver))
        sent = sender.price * sender.tx_uj_per_byte if sender.source == "battery" else 0.0
        return sent + (receiver.price * receiver.rx_uj_per_byte if receiver.source == "battery" else 0.0)

    def _access(self) -> None:
        count = len(self.devices)
        self.out_uj, self.in_uj, self.access_hops = np.zeros(count), np.zeros(count), np.zeros(count)
        self.access_bps = np.full(count, np.inf)
        """What AIMs on a leaf may send and receive on its link, losses included."""
        routes = self.problem.routes
        for n, device in enumerate(self.devices):
            link = routes.attached.get(device.id)
            if link is not None:
                hub = routes.hub(device.id)
                self.out_uj[n] = self._radio_uj(Hop(link, device.id, hub))
                self.in_uj[n] = self._radio_uj(Hop(link, hub, device.id))
                self.access_hops[n] = 1.0
                most = self.problem.limits[Limit("link", link.id)]
                self.access_bps[n] = most * (1.0 - link.loss)

    def delays(self, frame_bytes: int) -> tuple[Floats, Floats]:
        """Us per record: float[devices] to the hub, float[groups, groups] beyond it and with handling."""
        if frame_bytes not in self._delays:
            attached = self.problem.routes.attached
            by_link: dict[tuple[float, float, float], int] = {}
            access = np.zeros(len(self.devices))
            for n, device in enumerate(self.devices):
                access[n] = added_us(device)
                link = attached.get(device.id)
                if link is not None:
                    key = (link.latency_ms, link.bandwidth_bps, link.loss)
                    if key not in by_link:
                        by_link[key] = whole(link.transfer_ms(frame_bytes) * 1000.0)
                    access[n] += by_link[key]
            handling = self.problem.policy.remote_handling_us
            times = [
                handling + sum(whole(hop.link.transfer_ms(frame_bytes) * 1000.0) for hop in route)
                for route in self._profiles
            ]
            middle = np.array([*times, np.inf])[self._profile_of]
            self._delays[frame_bytes] = access, middle
        return self._delays[frame_bytes]

    def matrices(self, frame_bytes: int) -> Matrices:
        """What lies between groups for frames of one size."""
        return Matrices(self._energy, self._hops, self._leaving, self.delays(frame_bytes)[1])

    def passes(self, device: str) -> bool:
        """Whether messages between others go through a device that is not their hub."""
        inner = (hop for route in self._profiles for hop in route[1:])
        return any(hop.sender == device for hop in inner)

    def _transfer(self, number: int) -> Transfer:
        problem = self.problem
        flow, policy = problem.flows[number], problem.policy
        weights = problem.workflows[flow.workflow].metadata.objectives
        frame_bytes = flow.payload_bytes + policy.frame_overhead_bytes
        bytes_per_s = frame_bytes * flow.rate_hz
        return Transfer(
            flow.source,
            flow.destination,
            frame_bytes,
            policy.channel_ram_bytes + frame_bytes,
            8.0 * bytes_per_s,
            weights.energy * bytes_per_s / 1000.0 / POWER_SCALE_MW,
            weights.traffic * bytes_per_s / TRAFFIC_SCALE_BYTES_PER_S,
            weights.exposure * flow.rate_hz,
            flow.least_bytes,
        )

    # --- the devices ---

    def _resources(self) -> None:
        names: dict[tuple[str, str], int] = {("ram", ""): 0, ("flash", ""): 1, ("cpu", ""): 2}
        for item in self.problem.items:
            for offer, sample in zip(item.offers, item.kinds.samples, strict=True):
                for candidate in offer.candidates:
                    for limit, _ in candidate.demand:
                        names.setdefault((limit.kind, limit.subject[len(sample.id) :]), len(names))
        self.resources = names

    def beside(self, problem: PlacementProblem, away: Collection[str]) -> Star:
        """The arrays of a problem that differs in what is left only, with devices that are ruled out."""
        other = copy(self)
        other.problem = problem
        other._access()  # noqa: SLF001  a copy of this
        other._rooms()  # noqa: SLF001  a copy of this
        rows = [self.position[device] for device in away if device in self.position]
        other.options = []
        for options in self.options:
            allowed = options.allowed.copy()
            allowed[rows] = False
            other.options.append(replace(options, allowed=allowed))
        return other

    def _rooms(self) -> None:
        """What devices have, and what is left of it."""
        names, limits = self.resources, self.problem.limits
        self.capacity = np.array(
            [
                [limits.get(Limit(kind, device.id + rest), np.inf) for kind, rest in names]
                for device in self.devices
            ],
            dtype=float,
        ).reshape(len(self.devices), len(names))
        self.overhead = np.zeros((len(self.devices), 2))
        """RAM and flash of the smallest runtime of each device: taken as soon as any AIM is there."""
        for n, device in enumerate(self.devices):
            costs = [dict(self.problem.runtime_demand[device.id, runtime]) for runtime in device.runtimes]
            for column, kind in enumerate(("ram", "flash")):
                taken = [cost.get(Limit(kind, device.id), 0) for cost in costs]
                self.overhead[n, column] = min(taken, default=0)

        for item in self.problem.items:
            if item.leaf is None:  # a bound Port needs no runtime, and may be the only one there
                bound = [n for n, kind in enumerate(item.kinds.of) if item.offers[kind].candidates]
                self.overhead[bound] = 0.0
        self.room = self.capacity.copy()
        """What is left for AIMs once their runtime is loaded."""
        self.room[:, :2] -= self.overhead
        sorts: dict[object, int] = {}
        self.sort = np.zeros(len(self.devices), dtype=np.int64)
        """Equal for devices that are reached alike and have the same room, whatever they can run."""
        for n, device in enumerate(self.devices):
            link = self.problem.routes.attached.get(device.id)
            access = None if link is None else (link.latency_ms, link.bandwidth_bps, link.loss)
            way = (access, device.delay_ms, self.out_uj[n], self.in_uj[n], device.zone)
            key = (*way, *self.room[n, :3].tolist())
            self.sort[n] = sorts.setdefault(key, len(sorts))

        self._cells: dict[Limit, tuple[int, int] | None] = {}

    def cell(self, limit: Limit) -> tuple[int, int] | None:
        """Row and column of a device's limit in ``capacity``; None for links and paths."""
        if limit not in self._cells:
            device = device_of(limit)
            row = self.position.get(device)
            column = self.resources.get((limit.kind, limit.subject[len(device) :]))
            self._cells[limit] = None if row is None or column is None else (row, column)
        return self._cells[limit]

    def _options(self, item: Item) -> Options:
        layers = max((len(offer.candidates) for offer in item.offers), default=0)
        shape = (len(item.offers), max(layers, 1))
        price = np.full(shape, np.inf)
        mean_us, tail_us = np.zeros(shape), np.zeros(shape)
        demand = np.zeros((*shape, len(self.resources)))
        for kind, (offer, sample) in enumerate(zip(item.offers, item.kinds.samples, strict=True)):
            for layer, candidate in enumerate(offer.candidates):
                price[kind, layer] = sum(value for _, value in candidate.terms)
                mean_us[kind, layer], tail_us[kind, layer] = candidate.latency_us, candidate.tail_us
                for limit, amount in candidate.demand:
                    row = self.resources[limit.kind, limit.subject[len(sample.id) :]]
                    demand[kind, layer, row] += amount
        return Options(price, mean_us, tail_us, demand, self._kind_row(item), self._unpinned(item))

    def _kind_row(self, item: Item) -> Ints:
        rows = self._kind_rows
        if id(item.kinds) not in rows:
            rows[id(item.kinds)] = np.array(item.kinds.of, dtype=np.int64)
        return rows[id(item.kinds)]

    def _unpinned(self, item: Item) -> npt.NDArray[np.bool_]:
        allowed = np.ones(len(self.devices), dtype=bool)
        hint = item.leaf.placement if item.leaf is not None else None
        if hint is not None:
            wanted = (hint.device, hint.device_class, hint.site, hint.zone)
            for value, actual in zip(wanted, self._pinnable, strict=True):
                if value:
                    allowed &= actual == value
        return allowed

    def usable(self, item: int) -> bool:
        """Whether any device offers anything to an item."""
        options = self.options[item]
        return bool((options.allowed & np.isfinite(options.price[options.kind_of]).any(axis=1)).any())

    def candidate(self, item: int, device: int, layer: int) -> Candidate:
        """The candidate behind a position of the arrays."""
        whole_item = self.problem.items[item]
        kind = whole_item.kinds.of[device]
        sample = whole_item.kinds.samples[kind].id
        return stamped(whole_item.offers[kind].candidates[layer], sample, self.devices[device].id)

    def spot(self, item: int, candidate: Candidate | None) -> tuple[int, int] | None:
        """Row and layer of a candidate of another plan, None where nothing like it is offered."""
        row = self.position.get(candidate.device) if candidate is not None else None
        if row is None or candidate is None or not self.options[item].allowed[row]:
            return None
        whole_item = self.problem.items[item]
        for layer, other in enumerate(whole_item.offers[whole_item.kinds.of[row]].candidates):
            if other.implementation == candidate.implementation:
                return row, layer
        return None
