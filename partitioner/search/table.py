"""One workflow on one view as arrays: what every candidate, pair of candidates and whole assignment costs.

Counts prices, hard and soft affinity, path latencies with deadlines and the workflow's own waits, and the
capacities and links of leaves that the workflow alone could exceed. Decides nothing; ``branches`` searches.
Assignments are *labels*: int[assignments, AIMs], the candidate's number of each AIM in ``order``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from partitioner.search.charges import Charges, parts_taken
from partitioner.search.pace import CALL_S, CELL_S
from partitioner.search.star import Floats, Ints, Star, Transfer
from partitioner.search.views import View

FORBIDDEN = 1e15
"""Price of what must not be: finite, since differences of prices are taken."""


@dataclass(slots=True)
class Edge:
    """Two AIMs that share a Channel or an affinity; prices as [candidate of first, candidate of second].

    ``total`` is the price with charges; ``linear`` and ``message`` belong to the search.
    """

    first: int
    second: int
    price: Floats
    wire_bytes: float = 0.0
    bits_per_s: float = 0.0
    total: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    linear: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    message: Floats = field(default_factory=lambda: np.zeros(0))
    split: Floats = field(default_factory=lambda: np.zeros(1))


@dataclass(frozen=True, slots=True)
class Way:
    """A path limit or the critical path, in positions of the search's order."""

    weight: float
    deadline_us: float
    origin: int
    entries: tuple[int, ...]
    arcs: tuple[tuple[int, int, int], ...]
    deliveries: tuple[tuple[int, int], ...]
    finals: tuple[int, ...]
    run_us: tuple[Floats, ...]


class Table:
    """The arrays of one workflow on one view.

    Attributes:
        order: items, writers before readers; all lists below are by position in it.
        place: position by item.
        spot: int[candidates], where in the view each candidate is; ``layer`` which of the device's it is.
        own: float[candidates], prices; ``demand`` float[candidates, resources]; ``means``, ``tails`` in us.
        edges: pairs of AIMs that share a Channel or an affinity; ``into`` those that end at each position.
        tight: (device of the view, resource) that this workflow alone could exceed.
        thin: devices of the view whose link it alone could exceed, with ``thin_bps``.
    """

    def __init__(
        self,
        star: Star,
        workflow: int,
        view: View,
        *,
        at: Mapping[int, tuple[int, int]] | None = None,
        move_price: float = 0.0,
    ) -> None:
        """Prepare the arrays; arguments as of ``Branches``."""
        self.star, self.view = star, view
        self.order = _in_order(star, workflow)
        self.place = {item: n for n, item in enumerate(self.order)}
        self.spot: list[Ints] = []
        self.layer: list[Ints] = []
        self.own: list[Floats] = []
        self.demand: list[Floats] = []
        self.means: list[Floats] = []
        self.tails: list[Floats] = []
        for item in self.order:
            self._add_item(item, None if at is None else at.get(item), move_price)
        self.delay_us: dict[int, Floats] = {}
        self.edges = self._edges(workflow)
        self.into: list[list[Edge]] = [[] for _ in self.order]
        for edge in self.edges:
            self.into[edge.second].append(edge)
        star.pace.spend(sum(CALL_S + CELL_S * edge.price.size for edge in self.edges))
        self.transfers = [star.transfers[number] for number in star.flows_of[workflow]]
        bits_per_s = sum(transfer.bits_per_s for transfer in self.transfers)
        thin = star.access_bps[view.devices[: view.real]] < bits_per_s
        self.thin = np.nonzero(thin)[0].tolist()
        self.thin_bps = star.access_bps[view.devices[self.thin]]
        self.ways = self._ways(workflow)
        self.alone_on_core = star.single_core[view.devices] & (np.arange(len(view.devices)) < view.real)
        self.waiting = [n for n, item in enumerate(self.order) if star.problem.items[item].leaf is not None]
        self.tight = self._tight()
        self.shares = self._shares()
        self.possible = all(len(spots) for spots in self.spot)
        self.parts: list[Floats] = []
        self.charges: Charges | None = None
        self.paid = self.own
        """Prices of candidates with charges."""

    def charge(self, charges: Charges) -> None:
        """Ask for payment; the search then minimises cost and payment together."""
        if not self.parts:
            rooms = [self.star.room[self.view.devices[spot]] for spot in self.spot]
            self.parts = [parts_taken(d, room) for d, room in zip(self.demand, rooms, strict=True)]
        self.charges = charges
        self.paid = [
            charges.weight * own
            + (demand * charges.cell[spot]).sum(axis=1)
            + (part * charges.cover[spot]).sum(axis=1)
            for own, demand, part, spot in zip(self.own, self.demand, self.parts, self.spot, strict=True)
        ]
        for edge in self.edges:
            per_end = edge.wire_bytes * charges.cell[:, 0] + edge.bits_per_s * charges.bit
            a, b = self.spot[edge.first], self.spot[edge.second]
            apart = a[:, None] != b[None, :]
            charge = np.where(apart, per_end[a][:, None] + per_end[b][None, :], 0.0)
            possible = edge.price < FORBIDDEN
            edge.total = np.where(possible, charges.weight * edge.price + charge, FORBIDDEN)

    def _add_item(self, item: int, at: tuple[int, int] | None, move_price: float) -> None:
        options, view = self.star.options[item], self.view
        kinds = options.kind_of[view.devices]
        price = options.price[kinds]
        room = np.minimum(view.capacity, self.star.room[view.devices])
        fits = (options.demand[kinds] <= room[:, None, :]).all(axis=2)
        usable = np.isfinite(price) & fits & options.allowed[view.devices][:, None]
        spot, layer = np.nonzero(usable)
        kind = kinds[spot]
        demand = options.demand[kind, layer]
        own = price[spot, layer]
        if at is not None:
            moved = (view.devices[spot] != at[0]) | (layer != at[1])
            if np.isinf(move_price):
                stay = ~moved
                spot, layer, kind = spot[stay], layer[stay], kind[stay]
                demand, own = demand[stay], own[stay]
            else:
                own = own + move_price * moved
        self.spot.append(spot)
        self.layer.append(layer)
        self.own.append(own)
        self.demand.append(demand)
        self.means.append(options.mean_us[kind, layer])
        self.tails.append(options.tail_us[kind, layer])

    def _merged(self, matrix: Floats) -> Floats:
        """A matrix between the problem's groups as one between the view's: what is merged costs the least."""
        groups = self.view.merged
        count = len(groups)
        if all(len(group) == 1 for group in groups):
            rows = np.concatenate(groups)
            return matrix[np.ix_(rows, rows)]
        small = np.zeros((count, count))
        for a in range(count):
            for b in range(count):
                block = matrix[np.ix_(groups[a], groups[b])]
                small[a, b] = block.min(initial=np.inf)
        return small

    def _edges(self, workflow: int) -> list[Edge]:
        star, view, place = self.star, self.view, self.place
        rows, group = view.devices, view.group
        transfers = [star.transfers[number] for number in star.flows_of[workflow]]
        apart = ~np.eye(len(rows), dtype=bool)
        pairs = np.ix_(group, group)
        hops = star.access_hops[rows]
        base = star.matrices(0)
        energy = apart * (
            star.out_uj[rows][:, None] + star.in_uj[rows][None, :] + self._merged(base.energy)[pairs]
        )
        traffic = apart * (hops[:, None] + hops[None, :] + self._merged(base.hops)[pairs])
        leaving = apart * self._merged(base.leaving)[pairs]
        times: dict[int, Floats] = {}
        prices: defaultdict[tuple[int, int], list[Floats]] = defaultdict(list)
        for number in star.flows_of[workflow]:
            transfer = star.transfers[number]
            a, b = place[transfer.source], place[transfer.destination]
            if transfer.frame_bytes not in times:
                access, middle = star.delays(transfer.frame_bytes)
                middle = self._merged(middle)[pairs]
                times[transfer.frame_bytes] = np.where(
                    apart, access[rows][:, None] + access[rows][None, :] + middle, 0.0
                )
            between = np.ix_(self.spot[a], self.spot[b])
            whole = transfer.energy * energy + transfer.traffic * traffic
            if transfer.exposure:
                whole = whole + transfer.exposure * leaving
            delay = times[transfer.frame_bytes][between]
            reached = np.isfinite(delay) & self._takes(transfer)[between]
            delay = np.where(reached, delay, 0.0)
            self.delay_us[number] = delay
            price = np.where(reached, np.where(reached, whole[between], 0.0), FORBIDDEN)
            if a != b:
                prices[min(a, b), max(a, b)].append(price if a < b else price.T)
        foreign = np.arange(len(rows)) >= view.real
        for number in star.affinities_of[workflow]:
            affinity = star.problem.affinities[number]
            a, b = place[affinity.first], place[affinity.second]
            if a == b:
                continue
            same = self.spot[a][:, None] == self.spot[b][None, :]
            broken = same != affinity.together
            if not affinity.together:  # devices that a merged one stands for are different devices
                broken &= ~foreign[self.spot[a]][:, None]
            penalty = FORBIDDEN if affinity.hard else star.problem.policy.affinity_penalty
            price = np.where(broken, penalty, 0.0)
            prices[min(a, b), max(a, b)].append(price if a < b else price.T)
        edges = []
        for (a, b), found in prices.items():
            price = np.sum(found, axis=0)
            channels = [t for t in transfers if {place[t.source], place[t.destination]} == {a, b}]
            wire_bytes, bits_per_s = sum(t.wire_bytes for t in channels), sum(t.bits_per_s for t in channels)
            edges.append(Edge(a, b, price, wire_bytes, bits_per_s, price))
        return edges

    def _takes(self, transfer: Transfer) -> npt.NDArray[np.bool_]:
        """Whether each two devices, or one alone, take the messages of a Channel."""
        held = self.star.message_bytes[self.view.devices]
        there, back = transfer.least_bytes
        fits: npt.NDArray[np.bool_] = (held[None, :] >= there) & (held[:, None] >= back)
        return fits | np.eye(len(held), dtype=bool)

    def _ways(self, workflow: int) -> list[Way]:
        ways, place = [], self.place
        for path in self.star.paths_of[workflow]:
            if not path.weight and path.deadline_us is None:
                continue
            flows = self.star.problem.flows
            arcs = tuple((f, place[flows[f].source], place[flows[f].destination]) for f in path.arcs)
            ways.append(
                Way(
                    path.weight,
                    np.inf if path.deadline_us is None else float(path.deadline_us),
                    -1 if path.origin is None else place[path.origin],
                    tuple(place[i] for i in path.entries),
                    arcs,
                    tuple((f, place[flows[f].source]) for f in path.deliveries),
                    tuple(place[i] for i in path.finals),
                    tuple(self.tails if path.tail else self.means),
                )
            )
        return ways

    def _tight(self) -> list[tuple[int, int]]:
        """(device of the view, resource) that this workflow alone could exceed."""
        count = len(self.view.devices)
        most = np.zeros_like(self.view.capacity)
        for spot, demand in zip(self.spot, self.demand, strict=True):
            highest = np.zeros_like(most)
            np.maximum.at(highest, spot, demand)
            most += highest
        found = np.argwhere(most > self.view.capacity)
        return [(int(a), int(b)) for a, b in found if a < count]

    def _shares(self) -> list[Floats]:
        """What candidates take of the rooms in ``tight``, as shares: float[candidates, rooms] by AIM."""
        found = []
        for spot, demand in zip(self.spot, self.demand, strict=True):
            taken = np.zeros((len(spot), len(self.tight)))
            for k, (at, resource) in enumerate(self.tight):
                taken[:, k] = np.where(
                    spot == at, demand[:, resource] / max(float(self.view.capacity[at, resource]), 1e-9), 0.0
                )
            found.append(taken)
        return found

    # --- assignments ---

    def label(self, spots: Mapping[int, tuple[int, int]]) -> Ints | None:
        """The label of an assignment (device row and layer by item); None when it is not in the view."""
        found = []
        for n, item in enumerate(self.order):
            row, layer = spots[item]
            here = np.nonzero((self.view.devices[self.spot[n]] == row) & (self.layer[n] == layer))[0]
            if not len(here):
                return None
            found.append(int(here[0]))
        return np.array(found, dtype=np.int64)

    def sent(self, n: int, labels: Ints) -> Floats:
        """What Channels between an AIM and those before it put on the thin links, bit/s."""
        added = np.zeros((len(labels), len(self.thin)))
        for transfer in self.transfers:
            a, b = self.place[transfer.source], self.place[transfer.destination]
            if max(a, b) == n != min(a, b):
                ends = [self.spot[end][labels[:, end]] for end in (a, b)]
                for k, spot in enumerate(self.thin):
                    added[:, k] += transfer.bits_per_s * ((ends[0] == spot) ^ (ends[1] == spot))
        return added

    def cost(self, labels: Ints, tails_us: Floats | None = None) -> tuple[Floats, Floats]:
        """Exact prices and path latencies with charges, and without; infinite where a deadline is missed.

        ``tails_us``, float[devices of the view], is the longest invocation of other workflows there.
        """
        self.star.pace.spend(CALL_S + CELL_S * labels.size)
        own, paid = np.zeros(len(labels)), np.zeros(len(labels))
        for n in range(len(self.order)):
            own += self.own[n][labels[:, n]]
            paid += self.paid[n][labels[:, n]]
        for edge in self.edges:
            own += edge.price[labels[:, edge.first], labels[:, edge.second]]
            paid += edge.total[labels[:, edge.first], labels[:, edge.second]]
        waits = self._waits(labels, tails_us)
        late = self._overfilled(labels)
        time = np.zeros(len(labels))
        for way in self.ways:
            latency = self._latency(way, labels, waits)
            time += way.weight * latency
            late |= latency > way.deadline_us
        own += time
        paid += time * (1.0 if self.charges is None else self.charges.weight)
        if self.charges is not None and self.charges.opening.any():
            paid += self._opened(labels, self.charges.opening)
        own[late] = paid[late] = np.inf
        return paid, own

    def _opened(self, labels: Ints, opening: Floats) -> Floats:
        """What the devices in use cost, each once."""
        used = np.zeros((len(labels), len(opening)), dtype=bool)
        every = np.arange(len(labels))
        for n in self.waiting:
            used[every, self.spot[n][labels[:, n]]] = True
        return np.asarray(used @ opening)

    def _overfilled(self, labels: Ints) -> npt.NDArray[np.bool_]:
        """Whether RAM for AIMs and for the ends of remote Channels exceeds that of a device."""
        scarce = [spot for spot, resource in self.tight if resource == 0]
        if not scarce:
            return np.zeros(len(labels), dtype=bool)
        every = np.arange(len(labels))
        taken = np.zeros((len(labels), len(self.view.devices)))
        spots = [spot[labels[:, n]] for n, spot in enumerate(self.spot)]
        for n, spot in enumerate(spots):
            taken[every, spot] += self.demand[n][labels[:, n], 0]
        for transfer in self.transfers:
            ends = spots[self.place[transfer.source]], spots[self.place[transfer.destination]]
            wire_bytes = np.where(ends[0] != ends[1], transfer.wire_bytes, 0.0)
            for end in ends:
                taken[every, end] += wire_bytes
        return np.asarray((taken[:, scarce] > self.view.capacity[scarce, 0]).any(axis=1))

    def _waits(self, labels: Ints, tails_us: Floats | None) -> dict[int, Floats]:
        """Longest other run on the same device of one core, by AIM."""
        waits: dict[int, Floats] = {}
        spots = {n: self.spot[n][labels[:, n]] for n in self.waiting}
        tails = {n: self.tails[n][labels[:, n]] for n in self.waiting}
        for n, own in spots.items():
            here = self.alone_on_core[own]
            if not here.any():
                continue
            longest = np.zeros(len(labels)) if tails_us is None else np.where(here, tails_us[own], 0.0)
            for other, spot in spots.items():
                if other != n:
                    longest = np.maximum(longest, np.where(here & (spot == own), tails[other], 0.0))
            waits[n] = longest
        return waits

    def _latency(self, way: Way, labels: Ints, waits: dict[int, Floats]) -> Floats:
        def run(n: int) -> Floats:
            mean = way.run_us[n][labels[:, n]]
            return mean + waits[n] if n in waits else mean

        finish: dict[int, Floats] = {n: run(n) for n in way.entries}
        if way.origin >= 0:
            finish[way.origin] = np.zeros(len(labels))
        for flow, a, b in way.arcs:
            arrival = finish[a] if a in finish else np.zeros(len(labels))
            arrival = arrival + self.delay_us[flow][labels[:, a], labels[:, b]] + run(b)
            finish[b] = np.maximum(finish[b], arrival) if b in finish else arrival
        latest = np.zeros(len(labels))
        for n in way.finals:
            latest = np.maximum(latest, finish.get(n, latest))
        for flow, a in way.deliveries:
            b = self.place[self.star.transfers[flow].destination]
            latest = np.maximum(latest, finish.get(a, 0.0) + self.delay_us[flow][labels[:, a], labels[:, b]])
        return latest


def _in_order(star: Star, workflow: int) -> list[int]:
    """Items of a workflow, writers before readers; delayed Channels do not count."""
    items = star.items_of[workflow]
    before: dict[int, set[int]] = {item: set() for item in items}
    for number in star.flows_of[workflow]:
        flow = star.problem.flows[number]
        if flow.channel.delay_records == 0:
            before[flow.destination].add(flow.source)
    order: list[int] = []
    placed: set[int] = set()
    while len(order) < len(items):
        ready = [item for item in items if item not in placed and before[item] <= placed]
        order.append(ready[0])
        placed.add(ready[0])
    return order
