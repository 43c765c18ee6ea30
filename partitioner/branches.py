"""Every good placement of one workflow on a few devices: breadth-first branch and bound over whole arrays.

Decides which assignments of one workflow's AIMs cost at most a threshold, and proves that no other does.
Counts prices, hard and soft affinity, path latencies with deadlines and the workflow's own waits, and the
capacities and links of leaves that the workflow alone could exceed; it leaves out what others take, which
only adds to the cost or forbids. So its cheapest assignment bounds the workflow's cost from below.

The bound of a partial assignment: latency is replaced by a weighted mean of ways through the workflow
(each at most the longest, so it never overestimates), which makes the rest a sum over AIMs and Channels,
bounded by messages from the last AIM to the first: the cost of an AIM with several predecessors is split
among them.

Source: Kolmogorov, "Convergent Tree-Reweighted Message Passing for Energy Minimization" (2006), for bounds by
splitting; Baldacci, Christofides and Mingozzi, "An exact algorithm for the vehicle routing problem based on
the set partitioning formulation with additional cuts" (2008), for enumerating all columns within a gap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from partitioner.star import Floats, Ints, Star
from partitioner.views import View

MAX_LABELS = 60_000
"""Partial assignments kept at once; the bound of dropped ones is remembered, so a proof stays a proof."""

BEAM = 48
WIDE_BEAM = 6_000
MEANS = 4
"""Rounds in which the weights of the ways are adapted."""

TIE = 1e-9

FORBIDDEN = 1e15
"""Price of what must not be: finite, since differences of prices are taken."""


@dataclass(frozen=True, slots=True)
class Found:
    """Assignments in the order of their cost.

    ``device`` and ``layer`` are int[assignments, AIMs] (rows of the problem), the AIMs as in ``items``; every
    assignment that is not among them costs at least ``floor``. Rows in ``unlimited`` stand for many devices.
    """

    items: tuple[int, ...]
    device: Ints
    layer: Ints
    cost: Floats
    floor: float
    unlimited: Ints


@dataclass(slots=True)
class _Edge:
    """Two AIMs that share a Channel or an affinity; prices as [candidate of first, candidate of second]."""

    first: int
    second: int
    price: Floats
    linear: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    message: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, slots=True)
class _Way:
    """A path limit or the critical path, in positions of the search's order."""

    weight: float
    deadline_us: float
    origin: int
    entries: tuple[int, ...]
    arcs: tuple[tuple[int, int, int], ...]
    deliveries: tuple[tuple[int, int], ...]
    finals: tuple[int, ...]
    run_us: tuple[Floats, ...]


class Branches:
    """One workflow on one view."""

    def __init__(
        self,
        star: Star,
        workflow: int,
        view: View,
        *,
        at: Mapping[int, tuple[int, int]] | None = None,
        move_price: float = 0.0,
    ) -> None:
        """Prepare the matrices.

        Args:
            star: the problem.
            workflow: whose AIMs.
            view: the devices.
            at: where items are now (row and layer).
            move_price: objective units for each of these that ends up elsewhere; infinite forbids it.
        """
        self.star, self.view = star, view
        self.order = _in_order(star, workflow)
        self._place = place = {item: n for n, item in enumerate(self.order)}
        self.spot: list[Ints] = []
        self.layer: list[Ints] = []
        self.own: list[Floats] = []
        self.demand: list[Floats] = []
        self.means: list[Floats] = []
        self.tails: list[Floats] = []
        for item in self.order:
            self._add_item(item, None if at is None else at.get(item), move_price)
        self.edges = self._edges(workflow, place)
        self.into: list[list[_Edge]] = [[] for _ in self.order]
        for edge in self.edges:
            self.into[edge.second].append(edge)
        self.transfers = [star.transfers[number] for number in star.flows_of[workflow]]
        bits_per_s = sum(transfer.bits_per_s for transfer in self.transfers)
        thin = star.access_bps[view.devices[: view.real]] < bits_per_s
        self.thin = np.nonzero(thin)[0].tolist()
        self.thin_bps = star.access_bps[view.devices[self.thin]]
        self.ways = self._ways(workflow, place)
        self.alone_on_core = star.single_core[view.devices] & (np.arange(len(view.devices)) < view.real)
        self.waiting = [n for n, item in enumerate(self.order) if star.problem.items[item].leaf is not None]
        self.tight = self._tight()
        self.possible = all(len(spots) for spots in self.spot)
        self.root, self.best = -np.inf, np.inf

    # --- matrices ---

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

    def _edges(self, workflow: int, place: dict[int, int]) -> list[_Edge]:
        star, view = self.star, self.view
        rows, group = view.devices, view.group
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
        self.delay_us: dict[int, Floats] = {}
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
            reached = np.isfinite(delay)
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
        return [_Edge(a, b, np.sum(found, axis=0)) for (a, b), found in prices.items()]

    def _ways(self, workflow: int, place: dict[int, int]) -> list[_Way]:
        ways = []
        for path in self.star.paths_of[workflow]:
            if not path.weight and path.deadline_us is None:
                continue
            flows = self.star.problem.flows
            arcs = tuple((f, place[flows[f].source], place[flows[f].destination]) for f in path.arcs)
            ways.append(
                _Way(
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

    # --- bounds ---

    def _send(self, weights: list[tuple[Floats, dict[int, float]]]) -> None:
        """Messages for these weights of the ways: per way float[AIMs] on runs and a weight per flow."""
        count = len(self.order)
        self.linear_own = [own.copy() for own in self.own]
        for way, (on_run, _) in zip(self.ways, weights, strict=True):
            for n in np.nonzero(on_run)[0].tolist():
                self.linear_own[n] += on_run[n] * way.run_us[n]
        by_pair: defaultdict[tuple[int, int], list[Floats]] = defaultdict(list)
        flows = self.star.transfers
        for _, on_flow in weights:
            for number, weight in on_flow.items():
                transfer = flows[number]
                a, b = self._place[transfer.source], self._place[transfer.destination]
                delay = weight * self.delay_us[number]
                by_pair[min(a, b), max(a, b)].append(delay if a < b else delay.T)
        inbox = [np.zeros(len(own)) for own in self.own]
        self.constant = 0.0
        self.root_minimum = np.zeros(count)
        for edge in self.edges:
            more = by_pair.get((edge.first, edge.second))
            edge.linear = edge.price if more is None else edge.price + np.sum(more, axis=0)
        for n in reversed(range(count)):
            whole: Floats = self.linear_own[n] + inbox[n]
            parents = self.into[n]
            if not parents:
                self.root_minimum[n] = float(whole.min())
                self.constant += float(whole.min())
                continue
            share = whole / len(parents)
            for edge in parents:
                edge.message = (edge.linear + share[None, :]).min(axis=1)
                inbox[edge.first] += edge.message
        self.inbox = inbox

    def prepare(self) -> float:
        """Adapt the weights of the ways; returns a lower bound of every assignment's cost."""
        if not self.possible:
            self.root = np.inf
            return np.inf
        mean = [self._critical(way, None) for way in self.ways]
        kept = mean
        for number in range(MEANS):
            self._send(mean)
            if self.constant > self.root:
                self.root, kept = self.constant, mean
            if self.root >= FORBIDDEN:
                break
            labels, cost, _ = self._grow(FORBIDDEN / 2, BEAM)
            if not len(cost):
                labels, cost, _ = self._grow(FORBIDDEN / 2, WIDE_BEAM)
            if not len(cost):
                break
            first = int(cost.argmin())
            self.best = min(self.best, float(cost[first]))
            if self.best <= self.root + TIE:
                break
            step = 2.0 / (number + 3.0)
            newer = [self._critical(way, labels[first]) for way in self.ways]
            mean = [_mixed(a, b, step) for a, b in zip(mean, newer, strict=True)]
        self._send(kept)
        return self.root

    def _critical(self, way: _Way, label: Ints | None) -> tuple[Floats, dict[int, float]]:
        """Weights of the longest way of one assignment; None: with everything at its fastest."""
        on_run, on_flow = np.zeros(len(self.order)), dict[int, float]()
        if not way.weight:
            return on_run, on_flow
        time, before = self._finish(way, label)
        ends = [(time.get(n, 0.0), -1, n) for n in way.finals]
        for flow, a in way.deliveries:
            b = self._place[self.star.transfers[flow].destination]
            ends.append((time.get(a, 0.0) + self._delay(flow, a, b, label), flow, a))
        if not ends:
            return on_run, on_flow
        _, flow, at = max(ends)
        if flow >= 0:
            on_flow[flow] = way.weight
        while True:
            if at != way.origin:
                on_run[at] = way.weight
            step = before.get(at)
            if step is None:
                return on_run, on_flow
            on_flow[step[0]] = on_flow.get(step[0], 0.0) + way.weight
            at = step[1]

    def _finish(
        self, way: _Way, label: Ints | None
    ) -> tuple[dict[int, float], dict[int, tuple[int, int] | None]]:
        """When each AIM of a way has finished, and the flow and AIM it waited for last."""

        def run(n: int) -> float:
            times = way.run_us[n]
            return float(times.min() if label is None else times[label[n]])

        time = {n: run(n) for n in way.entries}
        if way.origin >= 0:
            time[way.origin] = 0.0
        before: dict[int, tuple[int, int] | None] = dict.fromkeys(time)
        for flow, a, b in way.arcs:
            arrival = time.get(a, 0.0) + self._delay(flow, a, b, label) + run(b)
            if arrival > time.get(b, -1.0):
                time[b], before[b] = arrival, (flow, a)
        return time, before

    def _delay(self, flow: int, a: int, b: int, label: Ints | None) -> float:
        return 0.0 if label is None else float(self.delay_us[flow][label[a], label[b]])

    # --- branching ---

    def all_within(self, threshold: float, max_labels: int = MAX_LABELS) -> Found:
        """Every assignment that costs at most ``threshold``; ``prepare`` must have been called."""
        count = len(self.order)
        if not self.possible:
            empty = np.zeros((0, count), dtype=np.int64)
            return Found(tuple(self.order), empty, empty, np.zeros(0), np.inf, np.zeros(0, dtype=np.int64))
        threshold = min(threshold, FORBIDDEN / 2)
        labels, cost, floor = self._grow(threshold + TIE, max_labels)
        order = np.argsort(cost, kind="stable")
        labels, cost = labels[order], cost[order]
        device = np.empty_like(labels)
        layer = np.empty_like(labels)
        for n in range(count):
            device[:, n] = self.view.devices[self.spot[n][labels[:, n]]]
            layer[:, n] = self.layer[n][labels[:, n]]
        unlimited = self.view.devices[self.view.real :]
        return Found(tuple(self.order), device, layer, cost, min(floor, threshold), unlimited)

    def exhausted(self) -> bool:
        """Whether no assignment exists at all, proven by trying every one that a bound does not exclude."""
        if not self.possible or self.root >= FORBIDDEN:
            return True
        _, cost, floor = self._grow(FORBIDDEN / 2, MAX_LABELS)
        return not len(cost) and not np.isfinite(floor)

    def _grow(self, threshold: float, max_labels: int) -> tuple[Ints, Floats, float]:  # noqa: C901, PLR0915  one loop
        """Complete assignments, their costs, and the least bound among those dropped for their number."""
        count = len(self.order)
        labels = np.zeros((1, 0), dtype=np.int64)
        bound = np.array([self.constant])
        slack = np.array([[self.view.capacity[spot, r] for spot, r in self.tight]], dtype=float)
        sent = np.zeros((1, len(self.thin)))
        previous = self.view.previous
        used = np.zeros((1, len(self.view.devices)), dtype=bool)
        floor = np.inf
        for n in range(count):
            if self.into[n]:
                edges = self.into[n]
                row = self.linear_own[n] + self.inbox[n]
                new = bound[:, None] + row[None, :]
                for edge in edges:
                    chosen = labels[:, edge.first]
                    new += edge.linear[chosen]
                    new -= edge.message[chosen][:, None]
            else:
                row = self.linear_own[n] + self.inbox[n] - self.root_minimum[n]
                new = bound[:, None] + row[None, :]
            mask = new <= threshold
            touching = []
            for k, (spot, resource) in enumerate(self.tight):
                columns = np.nonzero(self.spot[n] == spot)[0]
                for column in columns.tolist():
                    need = self.demand[n][column, resource]
                    mask[:, column] &= slack[:, k] >= need
                    touching.append((k, column, need))
            parent, choice = np.nonzero(mask)
            bound = new[parent, choice]
            if len(bound) > max_labels:
                keep = np.argpartition(bound, max_labels - 1)
                floor = min(floor, float(bound[keep[max_labels:]].min()))
                keep = keep[:max_labels]
                parent, choice, bound = parent[keep], choice[keep], bound[keep]
            labels = np.concatenate([labels[parent], choice[:, None]], axis=1)
            slack = slack[parent]
            for k, column, need in touching:
                slack[:, k] -= need * (choice == column)
            sent = sent[parent]
            if self.thin:
                sent += self._sent(n, labels)
                fits = (sent <= self.thin_bps).all(axis=1)
                labels, bound, slack = labels[fits], bound[fits], slack[fits]
                sent, parent = sent[fits], parent[fits]
            if previous is not None:
                here, every = self.spot[n][labels[:, n]], np.arange(len(labels))
                used = used[parent]
                fits = (previous[here] < 0) | used[every, previous[here]]
                used[every, here] = True
                labels, bound, slack = labels[fits], bound[fits], slack[fits]
                sent, used = sent[fits], used[fits]
            if not len(bound):
                return np.zeros((0, count), dtype=np.int64), np.zeros(0), floor
        cost = self._cost(labels)
        good = (cost <= threshold) & (cost < FORBIDDEN)
        return labels[good], cost[good], floor

    def _sent(self, n: int, labels: Ints) -> Floats:
        """What Channels between an AIM and those before it put on the thin links, bit/s."""
        added = np.zeros((len(labels), len(self.thin)))
        for transfer in self.transfers:
            a, b = self._place[transfer.source], self._place[transfer.destination]
            if max(a, b) == n != min(a, b):
                ends = [self.spot[end][labels[:, end]] for end in (a, b)]
                for k, spot in enumerate(self.thin):
                    added[:, k] += transfer.bits_per_s * ((ends[0] == spot) ^ (ends[1] == spot))
        return added

    def _cost(self, labels: Ints) -> Floats:
        """Exact prices and path latencies; infinite where a deadline is missed."""
        cost = np.zeros(len(labels))
        for n in range(len(self.order)):
            cost += self.own[n][labels[:, n]]
        for edge in self.edges:
            cost += edge.price[labels[:, edge.first], labels[:, edge.second]]
        cost[self._overfilled(labels)] = np.inf
        waits = self._waits(labels)
        for way in self.ways:
            latency = self._latency(way, labels, waits)
            cost += way.weight * latency
            cost[latency > way.deadline_us] = np.inf
        return cost

    def _overfilled(self, labels: Ints) -> npt.NDArray[np.bool_]:
        """Whether RAM for AIMs and for the ends of remote Channels exceeds that of a device."""
        full = np.zeros(len(labels), dtype=bool)
        for spot, resource in self.tight:
            if resource != 0:
                continue
            taken = np.zeros(len(labels))
            for n in range(len(self.order)):
                choice = labels[:, n]
                taken += np.where(self.spot[n][choice] == spot, self.demand[n][choice, 0], 0.0)
            for transfer in self.transfers:
                a, b = self._place[transfer.source], self._place[transfer.destination]
                at_a, at_b = self.spot[a][labels[:, a]] == spot, self.spot[b][labels[:, b]] == spot
                taken += transfer.wire_bytes * (at_a ^ at_b)
            full |= taken > self.view.capacity[spot, 0]
        return full

    def _waits(self, labels: Ints) -> dict[int, Floats]:
        """Longest other run of this workflow on the same device of one core, by AIM."""
        waits: dict[int, Floats] = {}
        spots = {n: self.spot[n][labels[:, n]] for n in self.waiting}
        tails = {n: self.tails[n][labels[:, n]] for n in self.waiting}
        for n, own in spots.items():
            here = self.alone_on_core[own]
            if not here.any():
                continue
            longest = np.zeros(len(labels))
            for other, spot in spots.items():
                if other != n:
                    longest = np.maximum(longest, np.where(here & (spot == own), tails[other], 0.0))
            waits[n] = longest
        return waits

    def _latency(self, way: _Way, labels: Ints, waits: dict[int, Floats]) -> Floats:
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
            b = self._place[self.star.transfers[flow].destination]
            latest = np.maximum(latest, finish.get(a, 0.0) + self.delay_us[flow][labels[:, a], labels[:, b]])
        return latest


def _mixed(
    a: tuple[Floats, dict[int, float]], b: tuple[Floats, dict[int, float]], step: float
) -> tuple[Floats, dict[int, float]]:
    flows = {f: (1 - step) * a[1].get(f, 0.0) + step * b[1].get(f, 0.0) for f in {**a[1], **b[1]}}
    return (1 - step) * a[0] + step * b[0], flows


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
