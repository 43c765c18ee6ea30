"""Better plans for what runs, and devices that shall run only what no other can: what the planner answers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from aif.errors import PlacementError
from aif.model.aim import Implementation, ModelRef, PlacementHint, Requirements, Runtime
from aif.model.aiw import Objectives, PathLimit, Workflow
from aif.model.inventory import Device, DeviceClass, Energy, Inventory, Link, Sensor
from aif.model.placement import Assignment, Better, PlacedWorkflow, Placement
from aif.model.ports import PortRef
from partitioner.instances.generate import input_port, leaf, output_port, workflow
from partitioner.policy import PlanPolicy
from partitioner.site import RESTART_S, SitePlanner

CODE = Implementation("py", Runtime.PYTHON, ram_bytes=1_000, flash_bytes=0, instructions=10_000)
SENSING = replace(CODE, requires=Requirements(sensors=("imu",)))
BATTERY = Energy("battery", battery_mwh=100.0, active_mw=50.0, idle_mw=1.0)
PLANNER = SitePlanner(PlanPolicy(runtime_costs={}))


def device(name: str, *, speed: float = 1e6, energy: Energy | None = None, imu: bool = False) -> Device:
    return Device(
        name, DeviceClass.GATEWAY, f"board-{name}", 100_000, 100_000, frozenset(Runtime),
        instructions_per_s=speed, sensors=(Sensor("imu"),) if imu else (), energy=energy or Energy(),
    )  # fmt: skip


DEVICES = (device("near", imu=True), device("fast", speed=1e7), device("slow", speed=5e5))
LINKS = tuple(
    Link(f"{a}-{b}", (a, b), 1e6, 1.0) for a, b in (("near", "fast"), ("near", "slow"), ("fast", "slow"))
)
INVENTORY = Inventory("three", 1, DEVICES, LINKS)


def chain(*, deadline_ms: float | None = None, code: Implementation = CODE) -> Workflow:
    """``sense`` on ``near``, then ``work`` wherever it is best."""
    paths: tuple[PathLimit, ...] = ()
    if deadline_ms is not None:
        ends = PortRef.parse("sense.y"), PortRef.parse("work.x")
        paths = (PathLimit("all", *ends, deadline_ms=deadline_ms),)
    return workflow(
        "W",
        [
            leaf("sense", [SENSING], outputs=[output_port(rate_hz=10.0)]),
            leaf("work", [code], inputs=[input_port()], placement=PlacementHint(separate_from=("sense",))),
        ],
        [("sense.y", "work.x")],
        paths=paths,
        objectives=Objectives(latency=1.0, energy=1.0),
    )


def running(flow: Workflow, inventory: Inventory, work: str) -> PlacedWorkflow:
    assignments = tuple(Assignment(aim, at, "py") for aim, at in (("sense", "near"), ("work", work)))
    return PlacedWorkflow(flow, inventory, Placement("W", "1.0", "three", 1, assignments))


def measured(inventory: Inventory, name: str, **figures: object) -> Inventory:
    devices = tuple(replace(d, **figures) if d.id == name else d for d in inventory.devices)  # type: ignore[arg-type]
    return replace(inventory, devices=devices)


def better_than(placed: PlacedWorkflow, *, lost: Collection[str] = ()) -> Better:
    return PLANNER.improve(placed, places={}, lost=lost)


def test_a_better_plan_says_what_it_would_bring() -> None:
    better = better_than(running(chain(), INVENTORY, "slow"))
    assert better.placement.device_of("work") == "fast"
    assert better.before is not None
    assert better.placement.objective < better.before
    assert RESTART_S < better.pause_s < RESTART_S + 0.1


def test_the_pause_counts_models_and_state_on_their_way() -> None:
    code = replace(CODE, model=ModelRef("M", bytes_=50_000), state_bytes=12_500)
    better = better_than(running(chain(code=code), INVENTORY, "slow"))
    assert better.pause_s == pytest.approx(RESTART_S + 0.5 + 0.001)


def test_a_plan_that_cannot_be_bettered_stays_and_costs_no_pause() -> None:
    better = better_than(running(chain(), INVENTORY, "fast"))
    assert better.placement.device_of("work") == "fast"
    assert better.before == pytest.approx(better.placement.objective)
    assert better.pause_s == 0.0


def test_a_device_that_answers_late_is_left_and_one_that_breaks_a_deadline_has_no_objective() -> None:
    late = measured(INVENTORY, "fast", delay_ms=40.0)
    better = better_than(running(chain(), late, "fast"))
    assert better.placement.device_of("work") == "slow"
    assert better.before is not None
    broken = better_than(running(chain(deadline_ms=35.0), late, "fast"))
    assert broken.before is None
    assert broken.placement.device_of("work") == "slow"


def test_a_low_battery_counts_for_more() -> None:
    cheap = replace(BATTERY, active_mw=3.0)
    kept = better_than(running(chain(), measured(INVENTORY, "fast", energy=cheap), "fast"))
    assert kept.placement.device_of("work") == "fast"
    low = measured(INVENTORY, "fast", energy=replace(cheap, price=40.0))
    assert better_than(running(chain(), low, "fast")).placement.device_of("work") == "slow"


def test_a_spared_device_keeps_only_what_needs_its_sensors() -> None:
    flow = chain()
    free = replace(flow, aims=tuple(replace(aim, placement=None) for aim in flow.aims))
    together = running(free, INVENTORY, "near")
    mended = PLANNER.mend(together, spared=["near"])
    placement, left_out = mended.placement, mended.service.left_out
    assert placement.device_of("sense") == "near"
    assert placement.device_of("work") != "near"
    assert not left_out


def test_a_spared_device_keeps_what_finds_no_room_elsewhere() -> None:
    flow = chain()
    free = replace(flow, aims=tuple(replace(aim, placement=None) for aim in flow.aims))
    full = Inventory(
        "full", 1, (DEVICES[0], replace(DEVICES[1], ram_bytes=10), replace(DEVICES[2], ram_bytes=10)), LINKS
    )
    mended = PLANNER.mend(running(free, full, "near"), spared=["near"])
    placement, left_out = mended.placement, mended.service.left_out
    assert {a.device for a in placement.assignments} == {"near"}
    assert not left_out


def test_without_any_plan_it_says_so() -> None:
    with pytest.raises(PlacementError):
        better_than(running(chain(), INVENTORY, "fast"), lost=["near"])
