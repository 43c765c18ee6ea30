"""AIMs kept ready on a second device: what a standby takes, where it may be, and why it may not."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest

from aif.errors import Infeasible, PlacementError
from aif.model.aim import Implementation, ModelRef, PlacementHint, Requirements, Runtime, SecurityNeed
from aif.model.aiw import Objectives, Workflow
from aif.model.degrading import WHOLE
from aif.model.inventory import Device, DeviceClass, Inventory, Link, Sensor
from aif.model.placement import PlacedWorkflow, Placement
from aif.model.standby import keeping_ready, kept_ready, standby_of
from partitioner.checker.check import audit_placement, check
from partitioner.checker.exhaustive import best_placement
from partitioner.instances.families import instance, keeping_standbys
from partitioner.instances.generate import (
    Instance,
    input_port,
    leaf,
    output_port,
    standby_instance,
    tiny_instance,
    workflow,
)
from partitioner.planner import place, plan
from partitioner.policy import PlanPolicy, RuntimeCost
from partitioner.problem.build import build_problem
from partitioner.problem.evaluate import evaluate
from partitioner.report.written import aim_rows, from_json, to_json
from partitioner.search.readying import ready, without_standbys
from partitioner.site import SitePlanner
from tests.partitioner.test_oracle import agree

ROUNDING = 1e-6
POLICY = PlanPolicy(runtime_costs={Runtime.TFLM: RuntimeCost(100, 200)}, model_slots=1)
CODE = Implementation(
    "c", Runtime.TFLM, 1000, model=ModelRef("m", bytes_=700), flash_bytes=300, instructions=10_000
)
DEVICE = Device(
    "one", DeviceClass.MCU, "b", 3000, 3000, frozenset({Runtime.TFLM}), instructions_per_s=1e6, cores=1,
    attestation="dice",
)  # fmt: skip


def site(*devices: Device) -> Inventory:
    ids = tuple(device.id for device in devices)
    return Inventory("site", 1, devices, (Link("air", ids, 1e6, 5.0, shared=True),))


TWO = site(DEVICE, replace(DEVICE, id="two"))


def chain(
    *standby: str, hint: PlacementHint | None = None, code: Implementation = CODE, **weights: float
) -> Workflow:
    """Two AIMs in a row; ``hint`` is that of the first."""
    aims = [
        leaf("a", [code], outputs=[output_port(rate_hz=10.0)], placement=hint),
        leaf("b", [CODE], inputs=[input_port(payload_bytes=64)], outputs=[output_port()]),
    ]
    flow = workflow("Chain", aims, [("a.y", "b.x")], objectives=Objectives(**{"latency": 1.0, **weights}))
    availability = replace(flow.metadata.availability, standby=standby)
    return replace(flow, metadata=replace(flow.metadata, availability=availability))


def placed(flow: Workflow, inventory: Inventory = TWO, policy: PlanPolicy = POLICY) -> Placement:
    placement = place(build_problem([flow], inventory, policy), workers=1)
    check([flow], inventory, placement, policy)
    return placement


def refused(flow: Workflow, inventory: Inventory = TWO) -> Infeasible:
    with pytest.raises(Infeasible) as caught:
        place(build_problem([flow], inventory, POLICY), workers=1)
    assert best_placement([flow], inventory, POLICY) is None
    return caught.value


# --- against the oracle ---


def test_equals_the_oracle_with_standbys() -> None:
    kinds = Counter(agree(seed, standby_instance) for seed in range(250))
    assert kinds["spread"] > 50
    assert kinds["impossible"] > 80
    assert not kinds["together"], "a standby is never beside the AIM that it stands by for"


@pytest.mark.slow
@pytest.mark.parametrize("block", range(3))
def test_equals_the_oracle_with_standbys_on_many_more(block: int) -> None:
    for seed in range(1000 + 1000 * block, 2000 + 1000 * block):
        agree(seed, standby_instance)


def optimum(given: Instance) -> float:
    """Infinite where nothing fits."""
    try:
        return place(given.problem(), workers=1).objective
    except Infeasible:
        return math.inf


def test_a_standby_never_makes_a_plan_cheaper() -> None:
    dearer = possible = 0
    for seed in range(50):
        given = tiny_instance(seed, max_aims=3)
        without = optimum(given)
        for number, one in enumerate(given.workflows):
            for aim in one.aims:
                workflows = list(given.workflows)
                availability = replace(one.metadata.availability, standby=(aim.id,))
                workflows[number] = replace(one, metadata=replace(one.metadata, availability=availability))
                cost = optimum(replace(given, workflows=tuple(workflows)))
                assert cost >= without - ROUNDING, f"seed {seed}, standby of {aim.id}"
                possible += cost < math.inf
                dearer += without + ROUNDING < cost < math.inf
    assert possible > 10
    assert dearer > 2


def test_fewer_standbys_never_make_a_plan_dearer() -> None:
    for seed in range(60):
        given = standby_instance(seed)
        cost = optimum(given)
        for number, one in enumerate(given.workflows):
            for gone in kept_ready(one):
                workflows = list(given.workflows)
                workflows[number] = keeping_ready(one, {a.id for a in kept_ready(one)} - {gone.id})
                assert optimum(replace(given, workflows=tuple(workflows))) <= cost + ROUNDING, f"seed {seed}"


# --- what it takes ---


def test_a_standby_takes_memory_and_storage_but_no_time() -> None:
    alone, ready_twice = placed(chain(traffic=1.0)), placed(chain("a", traffic=1.0))
    first, second = {u.device: u for u in alone.usage}, {u.device: u for u in ready_twice.usage}
    home = alone.device_of("a")
    other = ready_twice.device_of(standby_of("a"))
    assert {home, other} == {"one", "two"}
    assert ready_twice.device_of("a") == ready_twice.device_of("b") != other
    assert second[other].ram_bytes == 1000 + 100
    assert second[other].flash_bytes == 300 + 700 + 200
    assert second[other].cpu_share == first[other].cpu_share == 0.0
    assert second[other].power_mw == first[other].power_mw
    assert ready_twice.paths == alone.paths
    assert ready_twice.objective == pytest.approx(alone.objective)


def test_a_full_second_device_holds_no_standby() -> None:
    error = refused(chain("a"), site(DEVICE, replace(DEVICE, id="two", ram_bytes=1099)))
    assert "standby of a" in str(error)
    assert "do without the standby of a" in error.hint
    fits = site(DEVICE, replace(DEVICE, id="two", ram_bytes=1100))
    assert placed(chain("a"), fits).device_of(standby_of("a")) == "two"


def test_a_price_for_devices_counts_those_that_only_hold_standbys() -> None:
    assert placed(chain(devices=2.0)).terms["devices"] == pytest.approx(2.0)
    assert placed(chain("a", devices=2.0)).terms["devices"] == pytest.approx(4.0)


# --- where it may be ---


def test_one_device_is_not_enough() -> None:
    error = refused(chain("b"), site(replace(DEVICE, ram_bytes=9000, flash_bytes=9000)))
    assert "b and its standby must be on different devices" in str(error)
    assert "do without the standby of b" in error.hint
    assert "drop the rule" not in error.hint


def test_a_sensor_that_no_second_device_has_is_named() -> None:
    code = replace(CODE, requires=Requirements(sensors=("imu",)))
    worn = site(replace(DEVICE, sensors=(Sensor("imu"),)), replace(DEVICE, id="two"))
    error = refused(chain("a", code=code), worn)
    assert "a (A@1.0) can run only on one" in str(error)
    assert "standby of a (A@1.0) can run only on one (two: has no imu sensor)" in str(error)
    assert "imu sensor on two" in error.hint


def test_a_sensor_is_held_for_the_standby() -> None:
    code = replace(CODE, requires=Requirements(sensors=("imu",)))
    both = site(*(replace(d, sensors=(Sensor("imu"),)) for d in TWO.devices))
    placement = placed(chain("a", code=code), both)
    swapped = replace(
        placement,
        assignments=tuple(
            replace(a, device="one" if a.device == "two" else "two") for a in placement.assignments
        ),
    )
    assert not audit_placement([chain("a", code=code)], both, swapped, POLICY).violations
    needing = replace(chain("a", code=code), aims=(*chain("a", code=code).aims, leaf("c", [code])))
    assert "imu" in str(refused(needing, both))


def test_trust_zone_and_runtime_hold_for_it() -> None:
    secure = replace(CODE, security=SecurityNeed.ATTESTED)
    cases = [
        (chain("a", code=secure), replace(DEVICE, id="two", attestation="none"), "has no attestation"),
        (chain("a", hint=PlacementHint(zone="z")), replace(DEVICE, id="two"), "pinned to zone z"),
        (chain("a"), replace(DEVICE, id="two", runtimes=frozenset({Runtime.PYTHON})), "has no tflm runtime"),
    ]
    for flow, second, words in cases:
        assert words in str(refused(flow, site(replace(DEVICE, zone="z"), second)))


def test_a_processor_too_slow_for_the_aim_is_too_slow_for_its_standby() -> None:
    slow = replace(DEVICE, id="two", instructions_per_s=1e5)
    error = refused(chain("a"), site(DEVICE, slow))
    assert "would need 100 % of its processor to take over, 80 % may be used" in str(error)


def test_a_pin_to_a_device_is_where_the_aim_itself_is() -> None:
    placement = placed(chain("a", hint=PlacementHint(device="two")))
    assert (placement.device_of("a"), placement.device_of(standby_of("a"))) == ("two", "one")


def test_hard_affinities_hold_after_a_take_over() -> None:
    three = site(*(replace(DEVICE, id=name, ram_bytes=9000) for name in ("one", "two", "three")))
    apart = PlacementHint(separate_from=("b",), strength="hard")
    where = {a.aim: a.device for a in placed(chain("a", "b", hint=apart), three).assignments}
    assert len({where["a"], where["b"], where["a~standby"]}) == 3
    assert len({where["a"], where["b"], where["b~standby"]}) == 3
    together = PlacementHint(colocate_with=("b",), strength="hard")
    where = {a.aim: a.device for a in placed(chain("a", "b", hint=together), three).assignments}
    assert where["a~standby"] == where["b~standby"] != where["a"] == where["b"]


# --- what is told ---


def test_a_plan_names_its_standbys_and_reads_back() -> None:
    placement = placed(chain("a"))
    assert from_json(to_json(placement)) == placement
    rows = {row.aim: row for row in aim_rows(placement)}
    assert rows["standby of a"].device != rows["a"].device
    assert rows["standby of a"].reason.startswith("kept ready for a: ")


def test_the_checker_names_what_is_wrong_with_a_standby() -> None:
    good = placed(chain("a", traffic=1.0))

    def moved(device: str) -> set[str]:
        assignments = tuple(
            replace(a, device=device) if a.aim == "a~standby" else a for a in good.assignments
        )
        changed = replace(good, assignments=assignments)
        return {v.name for v in audit_placement([chain("a", traffic=1.0)], TWO, changed, POLICY).violations}

    assert moved(good.device_of("a")) >= {"separate"}
    assert moved("elsewhere") == {"device"}
    missing = replace(good, assignments=tuple(a for a in good.assignments if a.aim != "a~standby"))
    with pytest.raises(PlacementError, match="a~standby: is not placed"):
        check([chain("a", traffic=1.0)], TWO, missing, POLICY)
    with pytest.raises(PlacementError, match="a~standby: is not part of it"):
        check([chain(traffic=1.0)], TWO, good, POLICY)


# --- many ---


def test_standbys_of_large_problems_come_last_and_the_bound_holds() -> None:
    given = keeping_standbys(instance("base", 60, 60, 1), share=0.2)
    problem = given.problem()
    found = plan(problem, time_limit_s=20.0)
    assert "standbys last" in found.method
    assert not evaluate(problem, found.choice).broken
    audit = audit_placement(given.workflows, given.inventory, found.placement(), given.policy)
    assert not audit.violations
    assert found.bound <= plan(without_standbys(problem), time_limit_s=20.0).objective + ROUNDING


def test_what_is_left_without_standbys_is_the_problem_of_what_runs() -> None:
    for seed in range(60):
        given = standby_instance(seed)
        bare = replace(given, workflows=tuple(keeping_ready(w, ()) for w in given.workflows))
        stripped, stated = without_standbys(given.problem()), bare.problem()
        assert [item.key for item in stripped.items] == [item.key for item in stated.items]
        assert stripped.paths == stated.paths
        assert stripped.affinities == stated.affinities
        assert [(f.source, f.destination) for f in stripped.flows] == [
            (f.source, f.destination) for f in stated.flows
        ]


def test_room_for_standbys_beside_a_plan_is_allowed_by_the_problem() -> None:
    found = 0
    for seed in range(200):
        given = standby_instance(seed)
        problem = given.problem()
        try:
            running = plan(without_standbys(problem), workers=1)
        except Infeasible:
            continue
        choice = ready(problem, {running.problem.items[n].key: c for n, c in running.choice.items()})
        if choice is not None:
            found += 1
            assert len(choice) == len(problem.items)
            assert not evaluate(problem, choice).broken, f"seed {seed}"
    assert found > 25


# --- a workflow that runs ---


def sites(count: int) -> Inventory:
    names = ("one", "two", "three", "four")[:count]
    return site(*(replace(DEVICE, id=name, ram_bytes=9000, flash_bytes=9000) for name in names))


def running(planner: SitePlanner, flow: Workflow, inventory: Inventory) -> PlacedWorkflow:
    planned, placement = planner.place(flow, inventory, {})
    return PlacedWorkflow(planned, inventory, placement)


def where(placement: Placement) -> dict[str, str]:
    return {a.aim: a.device for a in placement.assignments}


def test_a_lost_aim_goes_where_its_standby_is_and_gets_another_later() -> None:
    planner = SitePlanner(POLICY)
    placed_now = running(
        planner, chain("a", hint=PlacementHint(separate_from=("b",), strength="hard")), sites(4)
    )
    old = where(placed_now.placement)
    mended = planner.mend(placed_now, lost=[old["a"]])
    assert mended.service == WHOLE
    after = mended.placement
    assert where(after) == {"a": old["a~standby"], "b": old["b"]}
    assert after.assignment("a").reason == f"taken over from {old['a']}"
    later = planner.mend(replace(placed_now, placement=after), lost=[old["a"]]).placement
    new = where(later)
    assert {"a": new["a"], "b": new["b"]} == where(after)
    assert new["a~standby"] not in {*old.values()}


def test_a_lost_standby_moves_nothing() -> None:
    planner = SitePlanner(POLICY)
    now = running(planner, chain("a", traffic=1.0), sites(3))
    old = where(now.placement)
    after = planner.mend(now, lost=[old["a~standby"]]).placement
    assert where(after) == {"a": old["a"], "b": old["b"]}
    again = planner.mend(replace(now, placement=after), lost=[old["a~standby"]]).placement
    assert where(again).keys() == old.keys()
    assert where(again)["a~standby"] not in {old["a"], old["a~standby"]}


def test_a_standby_that_cannot_hold_what_it_stood_by_for_is_passed_over() -> None:
    """Its processor was free when it was chosen, and is not any more."""
    planner, inventory = SitePlanner(POLICY), sites(3)
    now = running(planner, chain("a", traffic=1.0), inventory)
    old = where(now.placement)
    busy = replace(CODE, instructions=75_000, ram_bytes=10)
    other = chain(code=busy, hint=PlacementHint(device=old["a~standby"]))
    other = replace(other, metadata=replace(other.metadata, name="Busy"), aims=other.aims[:1], channels=())
    beside = running(planner, other, inventory)
    after = planner.mend(now, lost=[old["a"]], beside=[beside]).placement
    assert where(after)["a"] not in {old["a"], old["a~standby"]}


def test_what_runs_comes_before_what_stands_ready() -> None:
    """Two of three devices are lost: everything goes on, without a standby."""
    planner = SitePlanner(POLICY)
    now = running(planner, chain("a", "b"), sites(3))
    left = next(d for d in ("one", "two", "three") if d != now.placement.device_of("a"))
    mended = planner.mend(now, lost=[d for d in ("one", "two", "three") if d != left])
    assert mended.service == WHOLE
    after = mended.placement
    assert where(after) == {"a": left, "b": left}


def test_a_drained_device_hands_over_to_the_standby() -> None:
    planner = SitePlanner(POLICY)
    now = running(planner, chain("b", traffic=1.0), sites(3))
    old = where(now.placement)
    after = planner.mend(now, resting=[old["b"]]).placement
    assert where(after)["b"] == old["b~standby"]


def test_a_better_plan_leaves_standbys_where_they_are() -> None:
    planner = SitePlanner(POLICY)
    now = running(planner, chain("a", traffic=1.0), sites(4))
    for standby in {"one", "two", "three", "four"} - {now.placement.device_of("a")}:
        assignments = tuple(
            replace(a, device=standby) if a.aim == "a~standby" else a for a in now.placement.assignments
        )
        moved = replace(now, placement=replace(now.placement, assignments=assignments))
        better = planner.improve(moved, places={}, time_limit_s=5.0)
        assert where(better.placement) == where(moved.placement)
        assert better.before == pytest.approx(better.placement.objective)


def test_an_aim_may_be_sent_to_the_device_of_its_standby() -> None:
    planner = SitePlanner(POLICY)
    now = running(planner, chain("a", "b"), sites(2))
    old = where(now.placement)
    better = planner.improve(now, places={"a": (old["a~standby"], "")}, time_limit_s=5.0)
    assert where(better.placement)["a"] == old["a~standby"]
    assert where(better.placement)["a~standby"] == old["a"]
