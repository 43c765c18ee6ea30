"""Impossible problems name the planted conflict, and every suggested change really helps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aif.errors import Infeasible
from aif.model.aim import Implementation, PlacementHint, Requirements, Runtime, SecurityNeed
from aif.model.aiw import Objectives, PathLimit, Workflow
from aif.model.inventory import Device, DeviceClass, Inventory, Link
from aif.model.ports import PortRef
from partitioner.explain import _shrunk, explain
from partitioner.instances.generate import input_port, leaf, output_port, tiny_instance, workflow
from partitioner.planner import place
from partitioner.policy import PlanPolicy
from partitioner.problem.build import build_problem
from partitioner.problem.parts import Limit, PlacementProblem
from partitioner.search.cores import CoreFinder

POLICY = PlanPolicy(runtime_costs={}, channel_ram_bytes=0, frame_overhead_bytes=0)
CODE = Implementation("c", Runtime.PYTHON, 1000, instructions=10_000)
DEVICE = Device(
    "one", DeviceClass.EDGE, "b", 2500, 0, frozenset({Runtime.PYTHON}), instructions_per_s=1e6, cores=2
)
LAB = Inventory(
    "lab", 1, (DEVICE, replace(DEVICE, id="two", zone="z")), (Link("wire", ("one", "two"), 1e6, 5.0),)
)


def loose(*ram_bytes: int, **hints: PlacementHint) -> Workflow:
    """AIMs a, b, c … without channels."""
    aims = [
        leaf(
            name,
            [replace(CODE, ram_bytes=ram)],
            outputs=[output_port(rate_hz=1.0)],
            placement=hints.get(name),
        )
        for name, ram in zip("abcdef", ram_bytes, strict=False)
    ]
    return workflow("Loose", aims, [], objectives=Objectives(1.0, 0.0))


def refused(flow: Workflow, inventory: Inventory = LAB) -> Infeasible:
    with pytest.raises(Infeasible) as caught:
        place(build_problem([flow], inventory, POLICY), workers=1)
    return caught.value


def test_an_aim_with_no_device_names_every_reason() -> None:
    wrong = refused(loose(100, a=PlacementHint(zone="nowhere")))
    assert wrong.core == (
        (
            "a (A@1.0) can run nowhere: one: pinned to zone nowhere, this is zone none; "
            "two: pinned to zone nowhere, this is zone z"
        ),
    )
    assert wrong.hint == "this makes it possible: free a from zone nowhere"


def test_the_nearest_implementation_speaks_for_the_aim() -> None:
    far = replace(CODE, id="far", runtime=Runtime.TFLM, arch=("xtensa",))
    near = replace(CODE, id="near", security=SecurityNeed.ATTESTED)
    flow = workflow("W", [leaf("a", [far, near], outputs=[output_port(rate_hz=1.0)])], [])
    wrong = refused(flow, replace(LAB, devices=(replace(DEVICE, arch="armv6-m"),), links=()))
    assert wrong.core == ("a (A@1.0) can run nowhere: one: has no attestation, attested is required",)
    assert wrong.hint == "this makes it possible: attest one"


def test_an_aim_too_large_for_any_device() -> None:
    wrong = refused(loose(4000))
    assert wrong.core == (
        (
            "a (A@1.0) fits nowhere even alone: one/c needs 4,000 B RAM, 2,500 B there, 1,500 B missing; "
            "two/c needs 4,000 B RAM, 2,500 B there, 1,500 B missing"
        ),
    )
    assert "+1,500 B RAM on one" in wrong.hint


def test_too_much_for_one_pinned_device() -> None:
    two = PlacementHint(device="two")
    wrong = refused(loose(100, 2000, 1000, b=two, c=two))
    assert any(
        "two has 2,500 B RAM, b needs 2,000 B, c needs 1,000 B, at least 500 B missing" in s
        for s in wrong.core
    )
    assert not any(sentence.startswith("a ") for sentence in wrong.core), "a has no part in it"
    assert wrong.hint.split(": ")[1].split(" · ") == [
        "+500 B RAM on two",
        "free b from device two",
        "free c from device two",
    ]


def test_too_much_for_all_devices_together() -> None:
    wrong = refused(loose(2000, 2000, 2000))
    assert any("one has 2,500 B RAM" in s for s in wrong.core)
    assert any("two has 2,500 B RAM" in s for s in wrong.core)
    assert any("a (A@1.0), b (B@1.0), c (C@1.0) must run too, on any device" in s for s in wrong.core)


def test_affinities_that_contradict_each_other() -> None:
    hints = {
        "a": PlacementHint(device="one"),
        "b": PlacementHint(device="two", colocate_with=("a",), strength="hard"),
    }
    wrong = refused(loose(100, 100, **hints))
    assert "b and a must share a device" in wrong.core
    assert "drop the rule that b and a must share a device" in wrong.hint


def test_a_deadline_that_the_link_cannot_meet() -> None:
    aims = [
        leaf("a", [CODE], outputs=[output_port(rate_hz=1.0)], placement=PlacementHint(device="one")),
        leaf("b", [CODE], inputs=[input_port()], placement=PlacementHint(device="two")),
    ]
    paths = [PathLimit("p", PortRef("a", "y"), PortRef("b", "x"), 5.0)]
    wrong = refused(workflow("W", aims, [("a.y", "b.x")], paths=paths))
    assert "path p must take at most 5.0 ms, the fastest takes 5.7 ms" in wrong.core
    assert "deadline of path p 5.7 ms" in wrong.hint


def test_no_devices_at_all() -> None:
    wrong = refused(loose(100), Inventory("empty", 1, ()))
    assert wrong.core == ("a (A@1.0) can run nowhere: inventory empty has no devices",)


def test_without_time_the_explanation_stays_honest() -> None:
    two = PlacementHint(device="two")
    problem = build_problem([loose(100, 2000, 1000, b=two, c=two)], LAB, POLICY)
    wrong = explain(problem, CoreFinder(problem, budget_s=0.0))
    assert wrong.core == ("the needs of all AIMs together conflict; the conflict was not narrowed in time",)
    assert wrong.hint == ""


def impossible(count: int) -> list[PlacementProblem]:
    """Instances in which every AIM has a device but not all fit together."""
    found = []
    for seed in range(4000):
        instance = tiny_instance(seed)
        problem = instance.problem()
        if all(item.candidates for item in problem.items) and CoreFinder(problem).core() is not None:
            found.append(problem)
            if len(found) == count:
                break
    return found


def test_cores_are_proven_and_none_of_their_members_is_idle() -> None:
    problems = impossible(60)
    assert len(problems) == 60
    for problem in problems:
        prover = CoreFinder(problem)
        core = _shrunk(prover)
        assert core
        assert prover.core(core) is not None, "the core alone is impossible"
        for limit in core:
            assert prover.core(core - {limit}) is None, f"{limit} is not needed"


def test_a_shortfall_is_exactly_what_is_missing() -> None:
    checked = 0
    for problem in impossible(60):
        prover = CoreFinder(problem)
        for limit in problem.limits:
            missing = prover.shortfall(limit)
            if missing is not None and limit in problem.limits:
                checked += 1
                assert prover.feasible(grown(problem, limit, missing))
                assert not prover.feasible(grown(problem, limit, missing - 1))
    assert checked > 20


def grown(problem: PlacementProblem, limit: Limit, more: int) -> PlacementProblem:
    return replace(problem, limits={**problem.limits, limit: problem.limits[limit] + more})


def test_a_missing_sensor_is_suggested() -> None:
    hears = replace(CODE, requires=Requirements(sensors=("mic",)))
    wrong = refused(workflow("W", [leaf("a", [hears], outputs=[output_port(rate_hz=1.0)])], []))
    assert "one, two: has no mic sensor" in wrong.core[0]
    assert wrong.hint == "any one of these makes it possible: mic sensor on one \u00b7 mic sensor on two"


def test_a_sensor_alone_is_not_suggested_where_more_is_missing() -> None:
    hears = replace(CODE, runtime=Runtime.TFLM, requires=Requirements(sensors=("mic",)))
    wrong = refused(workflow("W", [leaf("a", [hears], outputs=[output_port(rate_hz=1.0)])], []))
    assert "sensor on" not in wrong.hint


def test_limits_that_have_to_grow_together_are_named_with_the_least_growth() -> None:
    aims = loose(2600, 2700, a=PlacementHint(device="one"), b=PlacementHint(device="two"))
    separate = {
        "a": PlacementHint(device="one", separate_from=("b",), strength="hard"),
        "b": PlacementHint(device="two"),
    }
    wrong = refused(replace(aims, aims=tuple(replace(x, placement=separate[x.id]) for x in aims.aims)))
    assert wrong.hint == "this makes it possible: +100 B RAM on one together with +200 B RAM on two"
    enough = replace(
        LAB,
        devices=(replace(DEVICE, ram_bytes=2600), replace(DEVICE, id="two", zone="z", ram_bytes=2700)),
    )
    assert place(build_problem([aims], enough, POLICY), workers=1).device_of("a") == "one"


def test_the_smallest_growth_comes_first() -> None:
    big, small = replace(DEVICE, ram_bytes=2000), replace(DEVICE, id="two", ram_bytes=2400)
    wrong = refused(loose(2500), replace(LAB, devices=(big, small)))
    assert wrong.hint.split(": ")[1].split(" \u00b7 ")[:2] == ["+100 B RAM on two", "+500 B RAM on one"]
