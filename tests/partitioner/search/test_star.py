"""The arrays say of every pair of devices what the problem says."""

from __future__ import annotations

import numpy as np
import pytest

from partitioner.instances.families import FAMILIES, instance
from partitioner.instances.generate import Instance, tiny_instance
from partitioner.problem.parts import Limit
from partitioner.search.star import Star

INSTANCES = [tiny_instance(seed) for seed in range(120)] + [
    instance(family, 12, 20, seed) for family in FAMILIES for seed in range(2)
]


@pytest.mark.parametrize("given", INSTANCES, ids=[f"{i.inventory.name}-{n}" for n, i in enumerate(INSTANCES)])
def test_channels_cost_and_take_as_much_as_in_the_problem(given: Instance) -> None:
    problem = given.problem()
    star = Star(problem)
    for flow, transfer in zip(problem.flows, star.transfers, strict=True):
        access, middle = star.delays(transfer.frame_bytes)
        between = star.matrices(transfer.frame_bytes)
        for a in problem.items[flow.source].devices:
            for b in problem.items[flow.destination].devices:
                if a == b:
                    continue
                m, n = star.position[a], star.position[b]
                g, h = star.group[m], star.group[n]
                exact = flow.crossings.get((a, b))
                delay = access[m] + access[n] + middle[g, h]
                assert np.isfinite(delay) == (exact is not None)
                if exact is None:
                    continue
                price = (
                    transfer.energy * (star.out_uj[m] + star.in_uj[n] + between.energy[g, h])
                    + transfer.traffic * (star.access_hops[m] + star.access_hops[n] + between.hops[g, h])
                    + transfer.exposure * between.leaving[g, h]
                )
                assert delay == exact.crossing.delay_us
                assert price == pytest.approx(sum(value for _, value in exact.terms), rel=1e-9, abs=1e-12)
                assert (Limit("ram", a), transfer.wire_bytes) in exact.demand


@pytest.mark.parametrize("given", INSTANCES[:60])
def test_options_are_the_candidates(given: Instance) -> None:
    problem = given.problem()
    star = Star(problem)
    for number, (item, options) in enumerate(zip(problem.items, star.options, strict=True)):
        usable = np.isfinite(options.price[options.kind_of]) & options.allowed[:, None]
        found = [star.candidate(number, int(row), int(layer)) for row, layer in np.argwhere(usable)]
        assert found == list(item.candidates)
        for candidate in found:
            spot = star.spot(number, candidate)
            assert spot is not None
            assert star.candidate(number, *spot) == candidate
