"""A mended workflow goes where it would go if its problem were built anew, and sooner."""

from __future__ import annotations

from dataclasses import replace

from aif.errors import PlacementError
from aif.model.placement import PlacedWorkflow
from partitioner.instances.families import instance
from partitioner.instances.generate import Instance
from partitioner.planner import plan
from partitioner.prepared import Prepared
from partitioner.problem.parts import Load
from partitioner.reasons import describe
from partitioner.search.pace import Work
from partitioner.site import SitePlanner


def running(given: Instance) -> list[PlacedWorkflow]:
    """Every workflow as it runs beside the others."""
    found = plan(given.problem(), time_limit_s=1.0, pace=Work())
    whole = describe(found.problem, found.choice, bound=0.0, method="", seconds=0.0, alternatives=False)
    placed = []
    for workflow in given.workflows:
        start = f"{workflow.name}/"
        mine = [a for a in whole.assignments if a.aim.startswith(start)]
        named = tuple(replace(a, aim=a.aim.removeprefix(start)) for a in mine)
        placement = replace(whole, workflow=workflow.name, assignments=named)
        placed.append(PlacedWorkflow(workflow, given.inventory, placement))
    return placed


def test_prepared_answers_are_the_same() -> None:
    given = instance("base", 40, 40, 0)
    workflows, same = running(given), 0
    for placed in workflows:
        others = [other for other in workflows if other is not placed]
        cold, warm = SitePlanner(given.policy), SitePlanner(given.policy)
        warm.prepare(placed)
        used = dict.fromkeys(a.device for a in placed.placement.assignments)
        for lost in [device for device in used if not device.startswith("gw")][:2]:
            try:
                first = cold.mend(placed, lost=[lost], beside=others).placement
            except PlacementError:  # after a search that has a clock
                continue
            second = warm.mend(placed, lost=[lost], beside=others).placement
            if first.method == "few moves":
                assert second.assignments == first.assignments
                assert second.usage == first.usage
                same += 1
    assert same >= len(workflows)


def test_what_was_prepared_is_not_used_where_messages_lose_their_way() -> None:
    given = instance("base", 20, 20, 0)
    workflow = given.workflows[0]
    ready = Prepared(workflow, given.inventory, given.policy, given.releases)
    arguments = (workflow, given.inventory, given.policy, given.releases)
    leaf = next(d.id for d in given.inventory.devices if d.device_class == "mcu")
    hub = next(d.id for d in given.inventory.devices if d.device_class == "gateway")
    assert ready.fits(*arguments, [leaf])
    assert not ready.fits(*arguments, [hub])
    assert not ready.fits(replace(workflow, aims=workflow.aims[:-1]), *arguments[1:], [leaf])
    assert leaf in ready.star(Load(), [leaf]).position
    assert not any(
        options.allowed[ready.star(Load(), [leaf]).position[leaf]]
        for options in ready.star(Load(), [leaf]).options
    )
