"""Plans of tens of AIMs: allowed, near the optimum with a true bound, and the same for the same seed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from aif.errors import Infeasible, SolverTimeout
from aif.model.inventory import Link
from partitioner.auction import bargain
from partitioner.checker.check import Auditor, check
from partitioner.instances.families import FAMILIES, instance
from partitioner.instances.generate import Instance
from partitioner.planner import Plan, plan
from partitioner.search.pace import Work
from partitioner.search.solver import solve

ROUNDING = 1e-6


def audited(given: Instance, found: Plan) -> float:
    """Objective as the independent checker counts it."""
    problem = found.problem
    where = {problem.items[n].key: (c.device, c.implementation) for n, c in found.choice.items()}
    audit = Auditor(*given.arguments).audit(where)
    assert not audit.violations
    return audit.objective


@pytest.mark.parametrize("family", FAMILIES)
def test_plans_of_every_family_are_allowed_and_nearly_proven(family: str) -> None:
    for seed in (0, 2):
        given = instance(family, 40, 40, seed)
        limit_s = 0.5 if family == "tight" else 2.0
        found = plan(given.problem(), time_limit_s=limit_s, pace=Work())
        assert audited(given, found) == pytest.approx(found.objective, rel=ROUNDING)
        assert found.bound <= found.objective
        if family != "tight":  # there workflows are in each other's way everywhere
            assert found.gap <= 0.1, f"{family} {seed}"
        assert found.status == ("optimal" if found.gap == 0 else "feasible")


def test_the_exact_solver_agrees_and_never_beats_the_bound() -> None:
    for seed in range(3):
        problem = instance("base", 10, 10, seed).problem()
        found = plan(problem)
        exact = solve(problem, hint=None, time_limit_s=60.0, seed=0, workers=2)
        assert exact.choice is not None
        assert found.status == "optimal"
        assert found.objective == pytest.approx(exact.bound / 1e8, rel=ROUNDING)


def test_no_plan_of_another_method_is_below_the_bound() -> None:
    for seed in range(3):
        problem = instance("base", 60, 50, seed).problem()
        assert bargain(problem).objective >= plan(problem, time_limit_s=2.0).bound - ROUNDING


def test_an_added_device_never_makes_it_worse() -> None:
    for seed in range(3):
        given = instance("base", 30, 30, seed)
        before = plan(given.problem(), time_limit_s=1.0)
        twin = replace(given.inventory.devices[0], id="twin")
        link = Link("l-twin", ("twin", given.inventory.devices[0].id), 1e8, 0.1)
        devices, links = (*given.inventory.devices, twin), (*given.inventory.links, link)
        richer = replace(given, inventory=replace(given.inventory, devices=devices, links=links))
        assert plan(richer.problem(), time_limit_s=1.0).bound <= before.objective + ROUNDING


def test_the_same_seed_gives_the_same_plan_and_a_warm_start_is_no_worse() -> None:
    problem = instance("base", 50, 50, 2).problem()
    first, second = plan(problem, time_limit_s=60.0), plan(problem, time_limit_s=60.0)
    assert (first.choice, first.objective, first.bound) == (second.choice, second.objective, second.bound)
    warm = plan(problem, time_limit_s=60.0, warm_start=first)
    assert warm.objective <= first.objective + ROUNDING


def test_a_large_plan_becomes_a_placement_with_usage() -> None:
    given = instance("base", 80, 60, 0)
    placement = plan(given.problem()).placement()
    check(given.workflows, given.inventory, placement, given.policy)
    assert len(placement.usage) == 60
    assert {a.storage for a in placement.assignments} == {""}
    assert all(a.reason for a in placement.assignments)


def test_crowded_plans_on_many_devices_are_allowed_and_above_their_bound() -> None:
    given = instance("tight", 80, 80, 0)
    problem = given.problem()
    first = plan(problem, time_limit_s=1e-9)
    found = plan(problem, time_limit_s=5.0)
    assert audited(given, found) == pytest.approx(found.objective, rel=ROUNDING)
    assert first.bound - ROUNDING <= found.bound <= found.objective <= first.objective + ROUNDING


def test_no_time_at_all_still_gives_an_allowed_plan() -> None:
    given = instance("base", 50, 50, 0)
    found = plan(given.problem(), time_limit_s=1e-9)
    assert audited(given, found) == pytest.approx(found.objective, rel=ROUNDING)
    assert 0.0 <= found.bound <= found.objective


def test_an_aim_that_fits_nowhere_is_named_however_large_the_problem() -> None:
    given = instance("base", 60, 60, 0)
    blind = tuple(replace(d, sensors=()) for d in given.inventory.devices)
    with pytest.raises(
        Infeasible, match=r"W000/a0 \(A0@1.0\) can run nowhere: gw0, dev6, dev12 and 7 others: "
    ):
        plan(replace(given, inventory=replace(given.inventory, devices=blind)).problem())


def test_workflows_that_do_not_fit_together_are_proven_impossible() -> None:
    given = instance("base", 60, 15, 0)
    with pytest.raises(Infeasible, match="do not fit together") as caught:
        plan(given.problem(), time_limit_s=60.0)
    names, room, missing = caught.value.core
    assert names.startswith("W000, ")
    assert re.search(r"gw0, .* together have [\d,]+ B RAM for them", room)
    assert re.fullmatch(r"at least \d+(\.\d+)? % of what they need there is missing", missing)


def test_without_time_for_a_proof_nothing_is_called_impossible() -> None:
    given = instance("base", 200, 40, 0)
    with pytest.raises(SolverTimeout, match="and that there is none is not proven"):
        plan(given.problem(), time_limit_s=0.01)
