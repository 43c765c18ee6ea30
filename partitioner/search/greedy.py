"""AIM by AIM to the device that adds least: a plan of one workflow in less than a millisecond.

Decides where a workflow goes when there is no time to look for a good place, and what other methods are
compared with. Looks at prices, at times on the longest way so far, and at the room left; what it finds
may break limits that depend on several AIMs, which whoever enters it into a ledger is told.
"""

from __future__ import annotations

import numpy as np

from partitioner.search.ledger import Spots
from partitioner.search.pace import ENTRY_S
from partitioner.search.star import Floats, Star, Transfer

MARGIN_BYTES = 16 * 1024.0
"""RAM that is left on a device for the ends of remote Channels."""


def greedy_spots(star: Star, workflow: int, room: Floats) -> Spots | None:
    """An assignment of one workflow; None when an AIM has no device left.

    Args:
        star: the problem.
        workflow: whose AIMs.
        room: float[devices, resources] that is left.
    """
    room = room.copy()
    row_of: dict[int, int] = {}
    finish: dict[int, float] = {}
    weight = sum(path.weight for path in star.paths_of[workflow])
    for item in star.items_of[workflow]:
        star.pace.spend(ENTRY_S)
        options = star.options[item]
        demand = options.demand[options.kind_of, 0]
        cost = options.price[options.kind_of, 0].copy()
        cost[~options.allowed | (demand > room).any(axis=1)] = np.inf
        if star.problem.items[item].leaf is not None:
            cost[room[:, 0] < demand[:, 0] + MARGIN_BYTES] = np.inf
        arrival = np.zeros(len(cost))
        for number in star.flows_of[workflow]:
            transfer = star.transfers[number]
            if transfer.destination == item and transfer.source in row_of:
                price, delay = _from(star, transfer, row_of[transfer.source])
                cost += price
                arrival = np.maximum(arrival, finish[transfer.source] + delay)
        for number in star.affinities_of[workflow]:
            affinity = star.problem.affinities[number]
            partner = {affinity.first: affinity.second, affinity.second: affinity.first}.get(item)
            if affinity.hard and partner in row_of:
                same = np.arange(len(cost)) == row_of[partner]
                cost[same != affinity.together] = np.inf
        done = arrival + options.mean_us[options.kind_of, 0]
        total = cost + weight * (done - done.min())
        best = int(np.argmin(np.where(np.isfinite(total), total, np.inf)))
        if not np.isfinite(total[best]):
            return None
        row_of[item], finish[item] = best, float(done[best])
        room[best] -= demand[best]
        room[best, 0] -= MARGIN_BYTES / 8
    return tuple((row_of[item], 0) for item in star.items_of[workflow])


def _from(star: Star, transfer: Transfer, row: int) -> tuple[Floats, Floats]:
    """Price and delay of a Channel from a device to every device."""
    access, middle = star.delays(transfer.frame_bytes)
    between = star.matrices(0)
    group, here = star.group, star.group[row]
    price = transfer.energy * (star.out_uj[row] + star.in_uj + between.energy[here, group])
    price = price + transfer.traffic * (star.access_hops[row] + star.access_hops + between.hops[here, group])
    delay = access[row] + access + middle[here, group]
    price[row] = delay[row] = 0.0
    return price, delay
