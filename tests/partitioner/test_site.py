"""Workflows that come, run and lose devices one by one: what is taken is counted, and little moves."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from aif.errors import PlacementError
from aif.model.aim import Runtime
from aif.model.aiw import Availability, Workflow
from aif.model.degrading import Service, services
from aif.model.inventory import Inventory
from aif.model.placement import Assignment, PlacedWorkflow, Placement
from partitioner.checker.check import check
from partitioner.checker.exhaustive import best_placement
from partitioner.instances.families import instance
from partitioner.planner import plan
from partitioner.policy import ModelFacts, RuntimeCost
from partitioner.problem.build import build_problem
from partitioner.problem.evaluate import evaluate
from partitioner.problem.parts import OBJECTIVE_SCALE, Limit, Load
from partitioner.site import SitePlanner, load_of
from tests.partitioner.test_alternatives import (
    CATALOGUE,
    POLICY,
    SOURCE,
    WHOLE,
    inventory_of,
    workflow_of,
)


def named(workflow: Workflow, name: str) -> Workflow:
    return replace(workflow, metadata=replace(workflow.metadata, name=name))


def optional(workflow: Workflow, *aims: str) -> Workflow:
    metadata = replace(workflow.metadata, availability=Availability(optional=aims))
    return replace(workflow, metadata=metadata)


def placed(
    planner: SitePlanner, workflow: Workflow, inventory: Inventory, *beside: PlacedWorkflow
) -> PlacedWorkflow:
    """A workflow as it is deployed beside others."""
    planned, placement = planner.place(workflow, inventory, CATALOGUE, beside=beside)
    return PlacedWorkflow(planned, inventory, placement)


def where(placement: Placement) -> dict[str, str]:
    return {a.aim: a.device for a in placement.assignments}


def moved(before: PlacedWorkflow, after: Placement) -> set[str]:
    new = where(after)
    return {aim for aim, device in where(before.placement).items() if new.get(aim) != device}


# --- what others take ---------------------------------------------------------------------------------


def test_a_second_workflow_finds_taken_what_the_first_one_takes() -> None:
    planner, inventory = SitePlanner(POLICY), inventory_of(13_000, 13_000)
    flow = workflow_of(CATALOGUE, "Whole@1.0")
    first = placed(planner, flow, inventory)
    second = placed(planner, named(flow, "V"), inventory, first)
    assert first.placement.device_of("m0") != second.placement.device_of("m0")
    with pytest.raises(PlacementError):
        placed(planner, named(flow, "U"), inventory, first, second)


def test_what_is_taken_is_what_the_plan_of_both_together_counts() -> None:
    """Exactly: what one problem of all workflows counts for the first is what the second finds taken."""
    given = instance("base", 20, 20, 3)
    problem = build_problem(given.workflows, given.inventory, given.policy)
    choice = plan(problem, time_limit_s=5.0).choice
    whole = evaluate(problem, choice).used
    total = Load()
    for number, workflow in enumerate(given.workflows):
        prefix = f"{workflow.name}/"
        alone = Placement(
            workflow.name, "1.0", "", 1,
            tuple(
                Assignment(problem.items[n].key.removeprefix(prefix), c.device, c.implementation)
                for n, c in choice.items()
                if problem.items[n].workflow == number
            ),
        )  # fmt: skip
        total += load_of(PlacedWorkflow(workflow, given.inventory, alone), given.policy, {})
    beside = build_problem(given.workflows[:1], given.inventory, given.policy, taken=total)
    alone_limits = build_problem(given.workflows[:1], given.inventory, given.policy).limits
    for limit, most in alone_limits.items():
        if limit.kind not in ("deadline", "storage", "battery"):
            assert beside.limits[limit] == max(0, most - whole.get(limit, 0)), limit


def test_a_runtime_that_is_loaded_already_is_free() -> None:
    policy = replace(POLICY, runtime_costs={Runtime.TFLM: RuntimeCost(5_000)})
    planner, inventory = SitePlanner(policy), inventory_of(27_000)  # 5,000 + twice (500 + 10,000) + frames
    flow = workflow_of(CATALOGUE, "Whole@1.0")
    first = placed(planner, flow, inventory)
    assert placed(planner, named(flow, "V"), inventory, first).placement.device_of("m0") == "d0"
    problem = build_problem([flow], inventory, policy, taken=Load({}, frozenset({("d0", Runtime.TFLM)})))
    assert problem.limits[Limit("ram", "d0")] == 22_000
    assert problem.runtime_demand["d0", Runtime.TFLM] == ()


def test_the_size_of_the_release_that_would_be_installed_counts() -> None:
    facts = {"whole": ModelFacts(150_000)}
    planner = SitePlanner(POLICY, releases=lambda: facts)
    flow, inventory = workflow_of(CATALOGUE, "Whole@1.0", "Whole@1.0"), inventory_of(30_000, 30_000)
    whole_only = {WHOLE.reference: WHOLE}
    _, together = SitePlanner(POLICY).place(flow, inventory, whole_only)
    assert len(set(where(together).values())) == 1
    _, apart = planner.place(flow, inventory, whole_only)  # 300 kB of models, 200 kB of flash
    assert apart.device_of("m0") != apart.device_of("m1")
    chosen, _ = planner.place(flow, inventory, CATALOGUE)
    assert len(chosen.aims) > 3, "chains of small models are better now"


# --- mending ------------------------------------------------------------------------------------------


def test_only_what_was_on_the_lost_device_moves() -> None:
    planner, inventory = SitePlanner(POLICY), inventory_of(13_000, 13_000, 13_000)
    before = placed(planner, workflow_of(CATALOGUE, "Whole@1.0", "Whole@1.0"), inventory)
    for device in sorted(set(where(before.placement).values())):
        mended = planner.mend(before, lost={device})
        after, left_out = mended.placement, mended.service.left_out
        assert not left_out
        assert moved(before, after) == {a for a, d in where(before.placement).items() if d == device}
        assert device not in where(after).values()
        check([before.workflow], inventory.without({device}), after, POLICY)


def test_what_others_take_is_not_taken_twice() -> None:
    planner, inventory = SitePlanner(POLICY), inventory_of(13_000, 13_000)
    flow = workflow_of(CATALOGUE, "Whole@1.0")
    first = placed(planner, flow, inventory)
    second = placed(planner, named(flow, "V"), inventory, first)
    lost = first.placement.device_of("m0")
    planner.mend(first, lost={lost})
    with pytest.raises(PlacementError):
        planner.mend(first, lost={lost}, beside=[second])


def test_a_device_that_rests_still_passes_messages_on() -> None:
    """The least of a site: the hub shall run nothing, and its leaves still reach each other."""
    given = instance("base", 20, 20, 0)
    hub = next(device for device in given.inventory.devices if device.id == "gw0")
    workflow = next(
        w for w in given.workflows if SitePlanner(given.policy).place(w, given.inventory, {})[1].assignments
    )
    planner = SitePlanner(given.policy)
    before = PlacedWorkflow(workflow, given.inventory, planner.place(workflow, given.inventory, {})[1])
    after = planner.mend(before, resting={hub.id}).placement
    assert hub.id not in where(after).values()


def test_parts_of_a_chain_that_was_chosen_move_each_for_itself() -> None:
    planner, inventory = SitePlanner(POLICY), inventory_of(8_000, 8_000, 8_000)
    before = placed(planner, workflow_of(CATALOGUE, "Whole@1.0"), inventory)
    assert {"m0.part_1", "m0.part_2"} <= where(before.placement).keys()
    device = before.placement.device_of("m0.part_2")
    after = planner.mend(before, lost={device}).placement
    assert moved(before, after) == {a for a, d in where(before.placement).items() if d == device}
    assert where(after).keys() == where(before.placement).keys()


def test_a_chain_is_kept_even_where_another_choice_would_fit() -> None:
    """Clearly refused: the whole AIM would fit, but it would be another workflow."""
    planner, inventory = SitePlanner(POLICY), inventory_of(8_000, 8_000)
    before = placed(planner, workflow_of(CATALOGUE, "Whole@1.0"), inventory)
    small = replace(inventory, devices=tuple(replace(d, ram_bytes=10_900) for d in inventory.devices))
    with pytest.raises(PlacementError, match=r"m0\.part_"):
        planner.mend(replace(before, inventory=small), lost={"d0"})


# --- optional AIMs ------------------------------------------------------------------------------------


def test_optional_aims_are_left_out_in_their_order_and_come_back() -> None:
    planner, inventory = SitePlanner(POLICY), inventory_of(22_500, 13_000)
    flow = optional(workflow_of(CATALOGUE, *["Whole@1.0"] * 3), "m2", "m1")
    before = placed(planner, flow, inventory)
    small, large = "d1", "d0"
    mended = planner.mend(before, lost={small})
    assert mended.service == Service(frozenset({"m2"}))
    assert set(where(mended.placement)) == {"source", "m0", "m1"}
    mended = planner.mend(before, lost={large})
    assert mended.service == Service(frozenset({"m1", "m2"}))
    assert "RAM" in mended.why
    less = replace(before, placement=mended.placement)
    again = planner.mend(less)
    assert (again.service, again.why) == (Service(), "")
    assert {"m1", "m2"} <= set(where(again.placement))
    assert moved(less, again.placement) == set()


def test_what_cannot_be_left_out_is_explained() -> None:
    planner, inventory = SitePlanner(POLICY), inventory_of(13_000, 4_000)
    before = placed(planner, workflow_of(CATALOGUE, "Whole@1.0"), inventory)
    with pytest.raises(PlacementError) as caught:
        planner.mend(replace(before, workflow=optional(before.workflow, "source")), lost={"d0"})
    assert "m0" in str(caught.value)


# --- lower rates --------------------------------------------------------------------------------------


def test_the_most_of_a_workflow_that_fits_is_what_runs() -> None:
    """Compared with an oracle that tries every placement of every service, in the order of the metadata."""
    seen = set()
    for seed in range(40):
        rng = random.Random(seed)
        flow = scarce(rng)
        inventory = inventory_of(*(rng.choice((9_000, 16_000, 30_000)) for _ in range(3)))
        whole = PlacedWorkflow(flow, inventory, Placement("W", "1.0", "i", 1, ()))
        lost = inventory.devices[2].id
        fitting = (
            s for s in services(flow) if best_placement([s.of(flow)], inventory.without({lost}), POLICY)
        )
        expected = next(fitting, None)
        seen.add(expected)
        if expected is None:
            with pytest.raises(PlacementError):
                SitePlanner(POLICY).mend(whole, lost={lost})
            continue
        mended = SitePlanner(POLICY).mend(whole, lost={lost})
        assert mended.service == expected, seed
        assert bool(mended.why) == (expected != Service())
        check([expected.of(flow)], inventory.without({lost}), mended.placement, POLICY)
    assert {one.rate for one in seen if one} >= {1.0, 0.5, 0.25, 0.2}
    assert len({one.left_out for one in seen if one}) == 2


def test_no_higher_rate_is_taken_than_is_wanted() -> None:
    inventory = inventory_of(30_000, 30_000)
    flow = workflow_of(CATALOGUE, "Whole@1.0")
    flow = replace(flow, metadata=replace(flow.metadata, availability=Availability(least_rate=0.2)))
    before = placed(SitePlanner(POLICY), flow, inventory)
    assert SitePlanner(POLICY).mend(before).service.rate == 1.0
    assert SitePlanner(POLICY).mend(before, most_rate=0.25).service.rate == 0.25


def scarce(rng: random.Random) -> Workflow:
    """Two AIMs behind a source that need more processor than there often is."""
    heavy = [
        replace(WHOLE, name=f"M{n}", implementations=(
            replace(WHOLE.implementations[0], instructions=rng.randrange(10_000_000, 400_000_000)),
        ))
        for n in range(2)
    ]  # fmt: skip
    flow = workflow_of({one.reference: one for one in (SOURCE, *heavy)}, "M0@1.0", "M1@1.0")
    wanted = Availability(
        optional=rng.choice([(), ("m1",)]), least_rate=rng.choice([1.0, 0.5, 0.2]),
        slow_down=rng.choice(["first", "last"]),
    )  # fmt: skip
    return replace(flow, metadata=replace(flow.metadata, paths=(), availability=wanted))


# --- better mappings, and those that a person wants ----------------------------------------------------


def test_a_better_mapping_is_the_best_there_is_beside_the_others() -> None:
    planner = SitePlanner(POLICY)
    small, large = inventory_of(8_000, 8_000), inventory_of(30_000, 30_000)
    split = placed(planner, workflow_of(CATALOGUE, "Whole@1.0"), small)
    here = replace(split, inventory=large)
    better = planner.improve(here, places={})
    after = better.placement
    best = plan(build_problem([here.workflow], large, POLICY), workers=1)
    problem = build_problem([here.workflow], large, POLICY)
    choice = {
        n: next(c for c in item.on(a.device) if c.implementation == a.implementation)
        for n, item in enumerate(problem.items)
        for a in split.placement.assignments if a.aim == item.key
    }  # fmt: skip
    assert better.before == pytest.approx(evaluate(problem, choice).objective / OBJECTIVE_SCALE)
    assert after.objective == pytest.approx(best.placement().objective)
    assert better.before is not None
    assert after.objective <= better.before
    assert after.stand_ins == split.placement.stand_ins == {"m0": "Chain@1.0"}
    check([here.workflow], large, after, POLICY)


def test_places_are_kept_or_refused_and_others_stay_if_they_can() -> None:
    planner, inventory = SitePlanner(POLICY), inventory_of(40_000, 40_000)
    now = placed(planner, workflow_of(CATALOGUE, "Whole@1.0"), inventory)
    other = "d1" if where(now.placement)["m0"] == "d0" else "d0"
    after = planner.improve(now, places={"m0": (other, "")}).placement
    assert where(after)["m0"] == other
    assert moved(now, after) == {"m0"}
    with pytest.raises(PlacementError):
        planner.improve(now, places={"m0": (other, "")}, resting=[other])
    elsewhere = planner.improve(now, places={}, lost=[where(now.placement)["m0"]])
    assert elsewhere.before is None
    assert set(where(elsewhere.placement).values()) == {other}


def test_a_wanted_place_moves_others_where_there_is_no_room_for_both() -> None:
    planner, inventory = SitePlanner(POLICY), inventory_of(10_520, 10_520)
    whole = {name: contract for name, contract in CATALOGUE.items() if name != "Chain@1.0"}
    planned, placement = planner.place(workflow_of(whole, "Whole@1.0"), inventory, whole)
    now = PlacedWorkflow(planned, inventory, placement)
    device = where(now.placement)
    assert device["m0"] != device["source"]
    after = planner.improve(now, places={"m0": (device["source"], "")}).placement
    assert where(after) == {"m0": device["source"], "source": device["m0"]}
