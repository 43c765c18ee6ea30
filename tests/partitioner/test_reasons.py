"""The reasons of a plan are true also where its search ended before the best place was found."""

from __future__ import annotations

from dataclasses import replace

from aif.model.placement import Assignment
from partitioner.problem.build import build_problem
from partitioner.problem.parts import PlacementProblem
from partitioner.reasons import describe
from tests.partitioner.test_limits import GATEWAY, LAB, NODE, POLICY, chain

THIRD = replace(GATEWAY, id="slow", instructions_per_s=2e9)
SITE = replace(
    LAB, devices=(GATEWAY, NODE, THIRD), links=(replace(LAB.links[0], members=("gw", "node", "slow")),)
)


def work_on(problem: PlacementProblem, device: str) -> Assignment:
    """What is said of the free AIM in the plan that puts it there."""
    choice = {
        number: next(c for c in item.candidates if c.device == (device if item.key == "work" else "node"))
        for number, item in enumerate(problem.items)
    }
    return describe(problem, choice, bound=0.0, method="by hand", seconds=0.0).assignment("work")


def test_a_place_that_is_not_the_cheapest_is_not_called_so() -> None:
    work = work_on(build_problem([chain()], SITE, POLICY), "node")
    assert work.reason == "best found in time, though gw would save 64 %"
    assert next(iter(work.rejected.items())) == ("gw", "would save 64 %")


def test_the_cheapest_places_come_first() -> None:
    work = work_on(build_problem([chain()], SITE, POLICY), "gw")
    assert list(work.rejected) == ["slow", "node"]
    assert work.reason.startswith("cheapest: +")
    assert work.reason.endswith(" on slow")
