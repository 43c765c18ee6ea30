"""Time limits are kept, counted in work so that no other program can make a test fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aif.errors import Infeasible, PlacementError
from partitioner.checker.check import Auditor
from partitioner.explain import explain
from partitioner.instances.families import instance
from partitioner.instances.generate import Instance
from partitioner.planner import plan
from partitioner.problem.parts import PlacementProblem
from partitioner.search.cores import CoreFinder
from partitioner.search.pace import Work


def kept(spent_s: float, limit_s: float) -> bool:
    return spent_s <= 1.1 * limit_s + 0.2


@pytest.mark.parametrize("limit_s", [0.02, 0.2, 1.0])
@pytest.mark.parametrize(("family", "size"), [("tight", 20), ("tight", 50), ("fans", 50), ("base", 100)])
def test_plans_come_in_time_and_are_allowed(family: str, size: int, limit_s: float) -> None:
    given, work = instance(family, size, size, 0), Work()
    found = plan(given.problem(), time_limit_s=limit_s, pace=work)
    assert kept(work.now(), limit_s)
    where = {found.problem.items[n].key: (c.device, c.implementation) for n, c in found.choice.items()}
    assert not Auditor(*given.arguments).audit(where).violations
    assert found.bound <= found.objective


def crowded(given: Instance, share: float) -> PlacementProblem:
    """The same instance with a part of its RAM."""
    devices = tuple(
        replace(d, ram_bytes=int(d.ram_bytes * share)) if d.device_class != "mcu" else d
        for d in given.inventory.devices
    )
    return replace(given, inventory=replace(given.inventory, devices=devices)).problem()


@pytest.mark.parametrize(("size", "budget_s"), [(20, 0.3), (30, 1.0), (60, 1.0)])
def test_explanations_come_in_time(size: int, budget_s: float) -> None:
    work = Work()
    problem = crowded(instance("tight", size, size // 2, 1), 0.1)
    error = explain(problem, CoreFinder(problem, pace=work, budget_s=budget_s))
    assert isinstance(error, Infeasible)
    assert kept(work.now(), budget_s)


def test_impossible_problems_are_given_up_in_time() -> None:
    for limit_s in (0.05, 1.0):
        work = Work()
        with pytest.raises(PlacementError):
            plan(crowded(instance("tight", 60, 30, 1), 0.1), time_limit_s=limit_s, pace=work, in_full=False)
        assert kept(work.now(), limit_s)
