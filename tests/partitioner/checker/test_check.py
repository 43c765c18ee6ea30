"""The checker on its own: a good plan passes, every kind of damage is caught by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from aif.errors import PlacementError
from aif.model.aim import (
    Implementation,
    ModelRef,
    PlacementHint,
    Requirements,
    Runtime,
    SecurityNeed,
)
from aif.model.aiw import Objectives, PathLimit, Workflow
from aif.model.inventory import Device, DeviceClass, Inventory, Link, Sensor
from aif.model.placement import Placement
from aif.model.ports import PortRef
from partitioner.checker.check import audit_placement, check
from partitioner.instances.generate import input_port, leaf, output_port, workflow
from partitioner.planner import place
from partitioner.policy import ModelFacts, PlanPolicy
from partitioner.problem.build import build_problem

POLICY = PlanPolicy(model_slots=2)
CODE = Implementation(
    "c",
    Runtime.TFLM,
    3000,
    model=ModelRef("m", bytes_=1000),
    arch=("armv7e-m",),
    os=("none",),
    arena_bytes=1000,
    flash_bytes=5000,
    instructions=100_000,
    requires=Requirements(sensors=("imu",), actuators=("led",), radios=("ble",)),
    security=SecurityNeed.ATTESTED,
)
BOARD = Device(
    "left",
    DeviceClass.MCU,
    "board",
    20_000,
    60_000,
    frozenset({Runtime.TFLM}),
    arch="armv7e-m",
    os="none",
    instructions_per_s=1e7,
    sensors=(Sensor("imu", 50.0, 2),),
    actuators=(Sensor("led", None, 2),),
    radios=("ble",),
    attestation="dice",
    site="lab",
    zone="wrist",
)
INVENTORY = Inventory(
    "i", 1, (BOARD, replace(BOARD, id="right")), (Link("air", ("left", "right"), 1e6, 5.0),)
)


def pair() -> Workflow:
    aims = [
        leaf("a", [CODE], outputs=[output_port(rate_hz=10.0)], placement=PlacementHint(device="left")),
        leaf(
            "b",
            [CODE],
            inputs=[input_port()],
            outputs=[output_port()],
            placement=PlacementHint(site="lab", zone="wrist", separate_from=("a",), strength="hard"),
            implementation="c",
            deadline_ms=50.0,
        ),
    ]
    paths = [PathLimit("p", PortRef("a", "y"), PortRef("b", "y"), 60.0)]
    weights = Objectives(1.0, 1.0, 1.0, 1.0, 1.0)
    return workflow("Pair", aims, [("a.y", "b.x")], paths=paths, objectives=weights)


def planned() -> Placement:
    return place(build_problem([pair()], INVENTORY, POLICY), workers=1)


def moved(placement: Placement, which: str, **changes: str) -> Placement:
    assignments = tuple(
        replace(a, **changes) if a.aim == which else a  # type: ignore[arg-type]  # all changes are texts
        for a in placement.assignments
    )
    return replace(placement, assignments=assignments)


def devices(**changes: object) -> Inventory:
    changed = tuple(replace(d, **changes) for d in INVENTORY.devices)  # type: ignore[arg-type]  # field names
    return replace(INVENTORY, devices=changed)


def names(placement: Placement, inventory: Inventory = INVENTORY, policy: PlanPolicy = POLICY) -> set[str]:
    return {v.name for v in audit_placement([pair()], inventory, placement, policy).violations}


def test_a_good_plan_passes() -> None:
    audit = check([pair()], INVENTORY, planned(), POLICY)
    assert audit.objective == pytest.approx(planned().objective)
    assert sum(audit.terms.values()) == pytest.approx(audit.objective)


PLAN_DAMAGE: dict[str, tuple[Callable[[Placement], Placement], set[str]]] = {
    "an AIM left out": (lambda p: replace(p, assignments=p.assignments[:1]), {"placed", "objective"}),
    "an AIM twice": (lambda p: replace(p, assignments=(*p.assignments, p.assignments[0])), {"placed"}),
    "an AIM nobody knows": (lambda p: moved(p, "b", aim="ghost"), {"placed", "objective"}),
    "an unknown device": (lambda p: moved(p, "b", device="ghost"), {"device", "objective"}),
    "an unknown implementation": (
        lambda p: moved(p, "b", implementation="x"),
        {"implementation", "objective"},
    ),
    "a pin ignored": (lambda p: moved(moved(p, "a", device="right"), "b", device="left"), {"pin"}),
    "an affinity ignored": (lambda p: moved(p, "b", device="left"), {"separate", "objective"}),
    "a nicer objective": (lambda p: replace(p, objective=p.objective * 0.99), {"objective"}),
}


@pytest.mark.parametrize("damage", PLAN_DAMAGE)
def test_damaged_plans_are_caught_by_name(damage: str) -> None:
    change, expected = PLAN_DAMAGE[damage]
    assert names(change(planned())) == expected


def used(inventory: Inventory) -> tuple[int, int]:
    usage = place(build_problem([pair()], inventory, POLICY), workers=1).usage
    return max(u.ram_bytes for u in usage), max(u.flash_bytes for u in usage)


def test_one_byte_too_many_is_caught() -> None:
    ram_bytes, flash_bytes = used(INVENTORY)
    assert "ram" not in names(planned(), devices(ram_bytes=ram_bytes))
    assert "ram" in names(planned(), devices(ram_bytes=ram_bytes - 1))
    assert "ram" in names(planned(), devices(ram_bytes=ram_bytes), replace(POLICY, reserve_ram_bytes=1))
    assert "flash" not in names(planned(), devices(flash_bytes=flash_bytes))
    assert "flash" in names(planned(), devices(flash_bytes=flash_bytes - 1))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"runtimes": frozenset({Runtime.PYTHON})}, "runtime"),
        ({"arch": "xtensa"}, "arch"),
        ({"os": "Zephyr"}, "os"),
        ({"sensors": ()}, "sensor"),
        ({"sensors": (Sensor("imu", 9.0, 2),)}, "sensor rate"),
        ({"actuators": ()}, "actuator"),
        ({"radios": ()}, "radio"),
        ({"attestation": "none"}, "security"),
        ({"zone": "room"}, "pin"),
        ({"site": "roof"}, "pin"),
        ({"instructions_per_s": None}, "latency"),
        ({"instructions_per_s": 1.2e6}, "cpu"),
        ({"instructions_per_s": 1.9e6}, "invocation deadline"),
        ({"instructions_per_s": 1.7e6}, "deadline"),
    ],
)
def test_a_device_that_lost_something_is_caught(changes: dict[str, object], expected: str) -> None:
    assert expected in names(planned(), devices(**changes))


def test_links_are_judged() -> None:
    def links(*found: Link) -> set[str]:
        return names(planned(), replace(INVENTORY, links=found))

    assert links() == {"reach", "objective"}
    assert "link" in links(replace(INVENTORY.links[0], bandwidth_bps=19_000.0))
    assert "deadline" in links(replace(INVENTORY.links[0], latency_ms=60.0))
    assert links(replace(INVENTORY.links[0], members=("right", "left"), directed=True)) == {
        "reach",
        "objective",
    }


def test_a_release_that_outgrew_its_device_is_caught() -> None:
    facts = {"m": ModelFacts(40_000, 1000)}
    found = audit_placement([pair()], INVENTORY, planned(), POLICY, facts).violations
    assert {v.name for v in found} == {"flash"}
    arena = {"m": ModelFacts(1000, 30_000)}
    found = audit_placement([pair()], INVENTORY, planned(), POLICY, arena).violations
    assert "ram" in {v.name for v in found}


def test_check_raises_with_every_violation() -> None:
    with pytest.raises(PlacementError, match=r"breaks 2 rules: .*ghost.*objective") as caught:
        check([pair()], INVENTORY, moved(planned(), "b", device="ghost"), POLICY)
    assert caught.value.exit_code == 4
