"""Every good placement of one workflow on a few devices: breadth-first branch and bound over whole arrays.

Decides which assignments of one workflow's AIMs cost at most a threshold, and proves that no other does.
Counts prices, hard and soft affinity, path latencies with deadlines and the workflow's own waits, and the
capacities and links of leaves that the workflow alone could exceed; it leaves out what others take, which
only adds to the cost or forbids. So its cheapest assignment bounds the workflow's cost from below.

The bound of a partial assignment: latency is replaced by a weighted mean of ways through the workflow
(each at most the longest, so it never overestimates), which makes the rest a sum over AIMs and Channels,
bounded by messages from the last AIM to the first: the cost of an AIM with several predecessors is split
among them, such that all of them believe in the same. Where that leaves too much to try, the room that the
workflow alone could exceed gets prices: what is paid, less what the room is worth, is a bound too.

Source: Kolmogorov, "Convergent Tree-Reweighted Message Passing for Energy Minimization" (2006), for bounds by
splitting; Baldacci, Christofides and Mingozzi, "An exact algorithm for the vehicle routing problem based on
the set partitioning formulation with additional cuts" (2008), for enumerating all columns within a gap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from partitioner.search.charges import Charges
from partitioner.search.pace import CALL_S, CELL_S
from partitioner.search.star import Floats, Ints, Star
from partitioner.search.table import FORBIDDEN, Table, Way
from partitioner.search.views import View

MAX_LABELS = 60_000
"""Partial assignments kept at once; the bound of dropped ones is remembered, so a proof stays a proof."""

QUICK_LABELS = 2_000
"""Where these are enough, a better bound is not worth its time."""

LABELS_PER_S = 60_000.0
"""Fewer are kept where they could not be looked at before time is over."""

BEAM = 48
WIDER_BEAM = 600
WIDE_BEAM = 6_000
NEAR = 0.02
"""Share by which the beam's best may exceed the bound before a wider beam looks for a better one."""

MEANS = 4
"""Rounds in which the weights of the ways are adapted."""

EVENED = 0.8
"""Share of a difference between predecessors that is evened out at once."""

SHARPENED, QUIET = 30, 3
"""Rounds in which the workflow's own room gets prices, and without success before steps are shorter."""

TIE = 1e-9


_Weights = tuple[Floats, dict[int, float]]
"""Of one way: float[AIMs] on runs, and by flow on the time of Channels."""


@dataclass(frozen=True, slots=True)
class _State:
    """What messages depend on: weights of the ways, prices of room, and how costs are split (by edge)."""

    mean: list[_Weights]
    scarcity: Floats
    splits: list[Floats]


@dataclass(frozen=True, slots=True)
class Found:
    """Assignments in the order of their cost.

    ``device`` and ``layer`` are int[assignments, AIMs] (rows of the problem), the AIMs as in ``items``; every
    assignment that is not among them costs at least ``floor``. ``own`` is the cost without charges,
    ``labels`` the assignments in the table. Rows in ``unlimited`` stand for many devices.
    """

    items: tuple[int, ...]
    device: Ints
    layer: Ints
    cost: Floats
    own: Floats
    labels: Ints
    floor: float
    unlimited: Ints

    def only(self, kept: Ints) -> Found:
        """Some of the assignments."""
        return Found(
            self.items,
            self.device[kept],
            self.layer[kept],
            self.cost[kept],
            self.own[kept],
            self.labels[kept],
            self.floor,
            self.unlimited,
        )


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
        self.table = Table(star, workflow, view, at=at, move_price=move_price)
        self.root, self.best = -np.inf, np.inf
        self._mean: list[_Weights] | None = None
        self._kept = _State([], np.zeros(0), [])
        self._sharp = False
        self.scarcity = np.zeros(len(self.table.tight))
        """What a whole device is worth, by the rooms that this workflow alone could exceed."""
        self.whole = np.ones(len(self.table.tight))

    @property
    def possible(self) -> bool:
        """Whether every AIM has a candidate."""
        return self.table.possible

    def charge(self, charges: Charges) -> None:
        """Ask for payment for room: all costs from now on are those with charges."""
        self.table.charge(charges)
        self.root, self.best = -np.inf, np.inf

    # --- bounds ---

    def _send(self, weights: list[_Weights]) -> None:
        """Messages for these weights of the ways: per way float[AIMs] on runs and a weight per flow."""
        self.linear_own = [paid.copy() for paid in self.table.paid]
        if self.scarcity.any():
            for n, taken in enumerate(self.table.shares):
                self.linear_own[n] += taken @ self.scarcity
        for way, (on_run, _) in zip(self.table.ways, weights, strict=True):
            for n in np.nonzero(on_run)[0].tolist():
                self.linear_own[n] += on_run[n] * way.run_us[n]
        self._price_edges(weights)
        self._pass_messages()

    def _price_edges(self, weights: list[_Weights]) -> None:
        """Prices of pairs with what the time of their Channels counts on the ways."""
        by_pair: defaultdict[tuple[int, int], list[Floats]] = defaultdict(list)
        flows = self.table.star.transfers
        for _, on_flow in weights:
            for number, weight in on_flow.items():
                transfer = flows[number]
                a, b = self.table.place[transfer.source], self.table.place[transfer.destination]
                delay = weight * self.table.delay_us[number]
                by_pair[min(a, b), max(a, b)].append(delay if a < b else delay.T)
        for edge in self.table.edges:
            more = by_pair.get((edge.first, edge.second))
            edge.linear = edge.total if more is None else edge.total + np.sum(more, axis=0)

    def _pass_messages(self) -> None:
        """From the last AIM to the first: what everything behind each candidate costs at least."""
        count = len(self.table.order)
        inbox = [np.zeros(len(paid)) for paid in self.table.paid]
        self.table.star.pace.spend(sum(CALL_S + CELL_S * e.price.size for e in self.table.edges))
        self.constant = -float(self.scarcity.sum())
        self.root_minimum = np.zeros(count)
        for n in reversed(range(count)):
            whole: Floats = self.linear_own[n] + inbox[n]
            parents = self.table.into[n]
            if not parents:
                self.root_minimum[n] = float(whole.min())
                self.constant += float(whole.min())
                continue
            share = whole / len(parents)
            for edge in parents:
                edge.message = (edge.linear + (share + edge.split)[None, :]).min(axis=1)
                inbox[edge.first] += edge.message
        self.inbox = inbox

    def prepare(self, *, proof: bool = False) -> float:
        """Look for the best bound that messages give; returns a lower bound of every assignment's cost.

        Args:
            proof: costs are split more evenly too, which takes as long again and often gives more.
        """
        if not self.possible:
            self.root = np.inf
            return np.inf
        mean = self._mean or [self._critical(way, None) for way in self.table.ways]
        kept = self._state(mean)
        for number in range(MEANS):
            kept = self._raise(mean, kept, even=proof)
            if self.root >= FORBIDDEN:
                break
            labels, cost, _, _ = self._grow(FORBIDDEN / 2, BEAM)
            if not len(cost):
                labels, cost, _, _ = self._grow(FORBIDDEN / 2, WIDE_BEAM)
            if not len(cost):
                break
            first = int(cost.argmin())
            self.best = min(self.best, float(cost[first]))
            if self.best <= self.root + TIE:
                break
            step = 2.0 / (number + 3.0)
            newer = [self._critical(way, labels[first]) for way in self.table.ways]
            mean = [_mixed(a, b, step) for a, b in zip(mean, newer, strict=True)]
        self._return(kept)
        self._kept, self._sharp = kept, False
        self._mean = kept.mean if self.table.charges is not None and self.table.charges.weight else None
        return self.root

    def _state(self, mean: list[_Weights]) -> _State:
        return _State(mean, self.scarcity, [edge.split for edge in self.table.edges])

    def _return(self, state: _State) -> None:
        """The messages of a state that was left."""
        self.scarcity = state.scarcity
        for edge, split in zip(self.table.edges, state.splits, strict=True):
            edge.split = split
        self._send(state.mean)

    def _raise(self, mean: list[_Weights], kept: _State, *, even: bool) -> _State:
        """The state of these weights, and of costs split more evenly, if its bound beats what is known."""
        self._send(mean)
        if self.constant > self.root:
            self.root, kept = self.constant, self._state(mean)
        if even:
            self._even_out()
            self._send(mean)
            if self.constant > self.root:
                self.root, kept = self.constant, self._state(mean)
        return kept

    def _even_out(self) -> None:
        """Split the cost of AIMs with several predecessors such that all of these believe in the same."""
        reached: list[Floats] = []
        for n, parents in enumerate(self.table.into):
            whole: Floats = self.linear_own[n] + self.inbox[n]
            if not parents:
                reached.append(whole - whole.min())
                continue
            share = whole / len(parents)
            seen = [
                (edge.linear + (reached[edge.first] - edge.message)[:, None]).min(axis=0) + share + edge.split
                for edge in parents
            ]
            mean = np.mean(seen, axis=0)
            for edge, there in zip(parents, seen, strict=True):
                edge.split = edge.split + (mean - there) * EVENED
            reached.append(mean)

    def _sharpen(self) -> None:
        """Prices for the workflow's own room, and other weights of the ways, that make the bound higher.

        Subgradients at the assignments that the bound believes in, with steps as of Polyak.
        """
        kept = self._kept
        mean, step, quiet = kept.mean, 1.0, 0
        for number in range(SHARPENED):
            spare = self.best - self.root
            if spare <= NEAR * abs(self.root):
                break
            label = self._believed()
            newer = [self._critical(way, label) for way in self.table.ways]
            mean = [_mixed(a, b, 1.0 / (number + 4.0)) for a, b in zip(mean, newer, strict=True)]
            excess = sum((taken[label[n]] for n, taken in enumerate(self.table.shares)), start=-self.whole)
            excess[(excess < 0.0) & (self.scarcity <= 0.0)] = 0.0
            norm = float(excess @ excess)
            if norm:
                lack = max(0.0, self.best - self.constant)
                self.scarcity = np.maximum(0.0, self.scarcity + step * lack / norm * excess)
            before = self.root
            kept = self._raise(mean, kept, even=True)
            quiet = 0 if self.root > before + 0.01 * spare else quiet + 1
            if quiet > QUIET:
                step, quiet = 0.5 * step, 0
                self._return(kept)
                mean = kept.mean
        self._return(kept)
        self._kept, self._sharp = kept, True

    def _believed(self) -> Ints:
        """An assignment as cheap as the messages say, in which rooms may be exceeded."""
        label = np.zeros(len(self.table.order), dtype=np.int64)
        for n in range(len(label)):
            cost = self.linear_own[n] + self.inbox[n]
            for edge in self.table.into[n]:
                cost = cost + edge.linear[label[edge.first]]
            label[n] = int(cost.argmin())
        return label

    def least(self, max_labels: int = MAX_LABELS) -> tuple[float, Found]:
        """A lower bound of every assignment's cost, exact where there is room for all, and the cheapest ones.

        Nothing is found where nothing fits or the search was cut short; the bound holds all the same.
        """
        if self.root == -np.inf:
            self.prepare()
        if np.isfinite(self.best) and self.best - self.root > NEAR * abs(self.root):
            _, cost, _, _ = self._grow(self.best + TIE, WIDER_BEAM)
            self.best = min(self.best, float(cost.min(initial=np.inf)))
        found = self.all_within(self.best, max_labels, proof=True)
        low = min(found.floor, float(found.cost.min(initial=np.inf)))
        return max(low, self.root), found

    def _critical(self, way: Way, label: Ints | None) -> _Weights:
        """Weights of the longest way of one assignment; None: with everything at its fastest."""
        on_run, on_flow = np.zeros(len(self.table.order)), dict[int, float]()
        charges = self.table.charges
        worth = way.weight if charges is None else way.weight * charges.weight
        if not worth:
            return on_run, on_flow
        time, before = self._finish(way, label)
        ends = [(time.get(n, 0.0), -1, n) for n in way.finals]
        for flow, a in way.deliveries:
            b = self.table.place[self.table.star.transfers[flow].destination]
            ends.append((time.get(a, 0.0) + self._delay(flow, a, b, label), flow, a))
        if not ends:
            return on_run, on_flow
        _, flow, at = max(ends)
        if flow >= 0:
            on_flow[flow] = worth
        while True:
            if at != way.origin:
                on_run[at] = worth
            step = before.get(at)
            if step is None:
                return on_run, on_flow
            on_flow[step[0]] = on_flow.get(step[0], 0.0) + worth
            at = step[1]

    def _finish(
        self, way: Way, label: Ints | None
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
        return 0.0 if label is None else float(self.table.delay_us[flow][label[a], label[b]])

    # --- branching ---

    def all_within(self, threshold: float, max_labels: int = MAX_LABELS, *, proof: bool = False) -> Found:
        """Every assignment that costs at most ``threshold``; ``prepare`` must have been called.

        For a ``proof`` more time is spent on bounds where there are more than can be kept.
        """
        count = len(self.table.order)
        if not self.possible:
            empty, none = np.zeros((0, count), dtype=np.int64), np.zeros(0)
            return Found(tuple(self.table.order), empty, empty, none, none, empty, np.inf, empty[:, 0])
        threshold = min(threshold, FORBIDDEN / 2)
        most = min(max_labels, QUICK_LABELS) if proof and not self._sharp else max_labels
        labels, cost, own, floor = self._grow(threshold + TIE, most)
        if np.isfinite(floor) and proof and not self._sharp:
            if np.isfinite(self.best) and self.root < FORBIDDEN:
                self._sharpen()
            labels, cost, own, floor = self._grow(threshold + TIE, max_labels)
        return self._listed(labels, cost, own, min(floor, threshold))

    def and_also(self, found: Found, spots: Mapping[int, tuple[int, int]]) -> Found:
        """The same with one more assignment (device row and layer by item), if it is in the view."""
        label = self.table.label(spots)
        if label is None or (found.labels == label[None, :]).all(axis=1).any():
            return found
        cost, own = self.table.cost(label[None, :])
        labels = np.concatenate([found.labels, label[None, :]])
        costs, owns = np.concatenate([found.cost, cost]), np.concatenate([found.own, own])
        return self._listed(labels, costs, owns, found.floor)

    def _listed(self, labels: Ints, cost: Floats, own: Floats, floor: float) -> Found:
        order = np.argsort(cost, kind="stable")
        labels, cost, own = labels[order], cost[order], own[order]
        device, layer = np.empty_like(labels), np.empty_like(labels)
        for n in range(len(self.table.order)):
            device[:, n] = self.table.view.devices[self.table.spot[n][labels[:, n]]]
            layer[:, n] = self.table.layer[n][labels[:, n]]
        unlimited = self.table.view.devices[self.table.view.real :]
        return Found(tuple(self.table.order), device, layer, cost, own, labels, floor, unlimited)

    def exhausted(self) -> bool:
        """Whether no assignment exists at all, proven by trying every one that a bound does not exclude."""
        if not self.possible or self.root >= FORBIDDEN:
            return True
        _, cost, _, floor = self._grow(FORBIDDEN / 2, MAX_LABELS)
        return not len(cost) and not np.isfinite(floor)

    def _grow(self, threshold: float, max_labels: int) -> tuple[Ints, Floats, Floats, float]:  # noqa: C901, PLR0912, PLR0915  one loop
        """Complete assignments, their costs, and the least bound among those dropped for their number."""
        count, pace = len(self.table.order), self.table.star.pace
        max_labels = self.table.star.affordable(max_labels, LABELS_PER_S)
        labels = np.zeros((1, 0), dtype=np.int64)
        bound = np.array([self.constant])
        slack = np.array([[self.table.view.capacity[spot, r] for spot, r in self.table.tight]], dtype=float)
        sent = np.zeros((1, len(self.table.thin)))
        previous = self.table.view.previous
        used = np.zeros((1, len(self.table.view.devices)), dtype=bool)
        charges = self.table.charges
        waiting = frozenset(self.table.waiting)
        opening = charges.opening if charges is not None and charges.opening.any() else None
        floor = np.inf
        for n in range(count):
            if self.table.into[n]:
                edges = self.table.into[n]
                row = self.linear_own[n] + self.inbox[n]
                new = bound[:, None] + row[None, :]
                for edge in edges:
                    chosen = labels[:, edge.first]
                    new += edge.linear[chosen]
                    new -= edge.message[chosen][:, None]
            else:
                row = self.linear_own[n] + self.inbox[n] - self.root_minimum[n]
                new = bound[:, None] + row[None, :]
            pace.spend(CALL_S + CELL_S * new.size)
            mask = new <= threshold
            touching = []
            for k, (spot, resource) in enumerate(self.table.tight):
                columns = np.nonzero(self.table.spot[n] == spot)[0]
                for column in columns.tolist():
                    need = self.table.demand[n][column, resource]
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
            if self.table.thin:
                sent += self.table.sent(n, labels)
                fits = (sent <= self.table.thin_bps).all(axis=1)
                labels, bound, slack = labels[fits], bound[fits], slack[fits]
                sent, parent = sent[fits], parent[fits]
            if previous is not None or opening is not None:
                here, every = self.table.spot[n][labels[:, n]], np.arange(len(labels))
                used = used[parent]
                fits = np.ones(len(labels), dtype=bool)
                if previous is not None:
                    fits = (previous[here] < 0) | used[every, previous[here]]
                if opening is not None and n in waiting:
                    bound = bound + np.where(used[every, here], 0.0, opening[here])
                    fits &= bound <= threshold
                used[every, here] = True
                labels, bound, slack = labels[fits], bound[fits], slack[fits]
                sent, used = sent[fits], used[fits]
            if not len(bound):
                return np.zeros((0, count), dtype=np.int64), np.zeros(0), np.zeros(0), floor
        cost, own = self.table.cost(labels)
        good = (cost <= threshold) & (cost < FORBIDDEN)
        return labels[good], cost[good], own[good], floor


def _mixed(a: _Weights, b: _Weights, step: float) -> _Weights:
    flows = {f: (1 - step) * a[1].get(f, 0.0) + step * b[1].get(f, 0.0) for f in {**a[1], **b[1]}}
    return (1 - step) * a[0] + step * b[0], flows
