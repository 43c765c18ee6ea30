"""After a loss: what is served is allowed, avoids the lost device, and moves little."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aif.errors import ModelError, PlacementError
from partitioner.checker.check import Auditor
from partitioner.instances.families import instance
from partitioner.planner import Plan, plan
from partitioner.remap import DeviceDrained, DeviceLost, InventoryChanged, Remapping, Replanner, remap

GIVEN = instance("base", 50, 50, 0)


@pytest.fixture(scope="module")
def running() -> Plan:
    return plan(GIVEN.problem())


def allowed(answer: Remapping) -> None:
    where = {answer.problem.items[n].key: (c.device, c.implementation) for n, c in answer.choice.items()}
    inventory = answer.problem.inventory
    audit = Auditor(GIVEN.workflows, inventory, GIVEN.policy).audit(where, partial=True)
    assert not audit.violations
    assert not {device for device, _ in where.values()} & set(answer.lost)


def test_every_single_loss_is_answered_with_few_moves(running: Plan) -> None:
    moves = forced = 0
    for device in sorted({c.device for c in running.choice.values()}):
        answer = Replanner(running).lose(device)
        allowed(answer)
        assert len(answer.moves) >= answer.forced
        moves, forced = moves + len(answer.moves), forced + answer.forced
        served = {m.aim for m in answer.moves} | {answer.problem.items[n].key for n in answer.choice}
        pinned = {answer.problem.workflows[w].name for w in range(len(GIVEN.workflows))}
        assert set(answer.unserved) <= pinned
        assert all(key.partition("/")[0] not in answer.unserved for key in served)
    assert forced > 20
    assert moves <= 1.1 * forced


def test_a_lost_hub_takes_its_leaves_with_it(running: Plan) -> None:
    answer = remap(running, DeviceLost("gw0"))
    leaves = {device.id for device in GIVEN.inventory.devices if device.site == "s0"}
    assert set(answer.lost) == leaves
    allowed(answer)
    assert answer.unserved  # its sensors are gone
    with pytest.raises(PlacementError, match="no room was found for W"):
        answer.plan()


def test_a_drained_device_still_passes_messages(running: Plan) -> None:
    answer = remap(running, DeviceDrained("gw0"))
    assert answer.lost == ("gw0",)
    allowed(answer)


def test_losses_follow_each_other(running: Plan) -> None:
    replanner = Replanner(running)
    used = sorted({c.device for c in running.choice.values() if not c.device.startswith("gw")})
    for device in used[:4]:
        answer = replanner.lose(device)
        allowed(answer)
    assert answer.lost == tuple(used[:4])


def test_nothing_moves_when_nothing_has_to(running: Plan) -> None:
    idle = sorted({d.id for d in GIVEN.inventory.devices} - {c.device for c in running.choice.values()})
    answer = remap(running, DeviceLost(idle[0]))
    assert answer.moves == ()
    assert answer.plan().objective == pytest.approx(running.objective)
    assert idle[0] not in {d.id for d in answer.plan().problem.inventory.devices}


def test_a_device_that_lost_half_of_its_memory_keeps_what_fits(running: Plan) -> None:
    gateway = GIVEN.inventory.devices[0]
    smaller = replace(gateway, ram_bytes=gateway.ram_bytes // 2)
    inventory = replace(GIVEN.inventory, devices=(smaller, *GIVEN.inventory.devices[1:]))
    answer = remap(running, InventoryChanged(inventory))
    allowed(answer)
    assert answer.unserved == ()
    assert 0 < len(answer.moves) < 10


def test_an_unknown_device_is_an_error(running: Plan) -> None:
    with pytest.raises(ModelError, match="no device 'ghost'"):
        remap(running, DeviceLost("ghost"))
