from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.emulator.budget import MODEL_SLOTS, UNDECLARED_DISK, Budget, Usage
from aif.errors import AlreadyRunning, FlashOverflow, ModelError, ResourceExceeded
from aif.model.aim import Implementation, Requirements, Runtime, StorageNeed
from aif.model.inventory import Device, DeviceClass, Sensor, StorageUnit
from partitioner.policy import PlanPolicy
from partitioner.problem.costs import ModelHome, model_home

INTERNAL = StorageUnit("internal_flash", 20_000)
SPIFFS = StorageUnit("spiffs", 400_000)


def mcu(*units: StorageUnit, ram_bytes: int = 10_000, flash_bytes: int = 50_000) -> Device:
    return Device(
        id="mcu-1",
        device_class=DeviceClass.MCU,
        board="demo",
        ram_bytes=ram_bytes,
        flash_bytes=flash_bytes,
        runtimes=frozenset({Runtime.TFLM}),
        storage=units,
        sensors=(Sensor("imu"), Sensor("temperature", count=2)),
    )


def code(
    ram_bytes: int = 0, arena_bytes: int = 0, flash_bytes: int = 0, requires: Requirements | None = None
) -> Implementation:
    return Implementation(
        "mcu", Runtime.TFLM, ram_bytes, arena_bytes=arena_bytes, flash_bytes=flash_bytes,
        requires=requires or Requirements(),
    )  # fmt: skip


def admit(
    budget: Budget, owner: str, what: Implementation, queue_bytes: int = 0, model_bytes: int = 0
) -> None:
    budget.admit(owner, what, queue_bytes=queue_bytes, model_bytes=model_bytes)


def test_every_byte_of_an_instance_is_charged_once() -> None:
    budget = Budget(mcu(INTERNAL))
    admit(budget, "gesture/classifier", code(6_000, 4_000, 30_000), queue_bytes=500, model_bytes=4_000)
    assert budget.usage() == Usage(6_500, 10_000, 30_000 + MODEL_SLOTS * 4_000, 50_000 + 20_000, 4_000)
    assert "gesture/classifier" in budget
    assert budget.arena_bytes("gesture/classifier") == 4_000
    budget.release("gesture/classifier")
    budget.release("gesture/classifier")
    assert budget.usage() == Usage(0, 10_000, 0, 70_000, 0)
    assert budget.arena_bytes("gesture/classifier") == 0


def test_too_little_ram_says_how_much_and_what_to_do() -> None:
    budget = Budget(mcu())
    admit(budget, "gesture/features", code(4_000))
    with pytest.raises(ResourceExceeded) as caught:
        admit(budget, "gesture/classifier", code(6_000), queue_bytes=1)
    assert str(caught.value) == "gesture/classifier needs 6,001 B of RAM, 6,000 B are available"
    assert caught.value.hint == (
        "mcu-1 has 10,000 B for AIMs: shorten input queues, or place the AIM on a device with more RAM"
    )
    admit(budget, "gesture/classifier", code(6_000))
    assert budget.usage().ram_bytes == 10_000


def test_too_little_flash_says_how_much_and_what_to_do() -> None:
    budget = Budget(mcu())
    admit(budget, "gesture/features", code(flash_bytes=20_000))
    with pytest.raises(FlashOverflow) as caught:
        admit(budget, "gesture/classifier", code(flash_bytes=29_999), model_bytes=1)
    assert str(caught.value) == "gesture/classifier needs 30,001 B of flash, 30,000 B are available"
    assert (caught.value.needed_bytes, caught.value.available_bytes) == (30_001, 30_000)
    assert "mcu-1 has 50,000 B" in caught.value.hint
    admit(budget, "gesture/classifier", code(flash_bytes=29_998), model_bytes=1)


def test_a_full_storage_unit_says_how_much_and_what_to_do() -> None:
    budget = Budget(mcu(INTERNAL))
    admit(budget, "gesture/classifier", code(), model_bytes=6_000)
    with pytest.raises(ResourceExceeded) as caught:
        admit(budget, "gesture/anomaly", code(), model_bytes=4_001)
    assert str(caught.value) == (
        "gesture/anomaly needs 8,002 B on the storage unit internal_flash, 8,000 B are available"
    )
    assert caught.value.hint == (
        "each model takes 2 slots: remove another AIM from mcu-1, or place this one elsewhere"
    )
    admit(budget, "gesture/anomaly", code(), model_bytes=4_000)


def test_a_need_that_no_unit_can_hold_is_refused() -> None:
    budget = Budget(mcu(INTERNAL, SPIFFS))
    wanted = code(requires=Requirements(storage=StorageNeed(20_001, "internal_flash")))
    with pytest.raises(ResourceExceeded) as caught:
        admit(budget, "log/keeper", wanted)
    assert str(caught.value) == (
        "log/keeper needs 20,001 B on one storage unit (internal_flash), the largest of mcu-1 has 20,000 B"
    )
    with pytest.raises(ResourceExceeded, match=r"one storage unit \(any\), the largest of mcu-1 has 0 B"):
        admit(Budget(mcu()), "log/keeper", code(requires=Requirements(storage=StorageNeed(1))))


def test_a_microcontroller_copies_a_model_to_ram_that_it_cannot_read_in_place() -> None:
    budget = Budget(mcu(SPIFFS, ram_bytes=100_000))
    admit(budget, "a/wake", code(1_000), model_bytes=60_000)  # twice that is more than its program flash
    assert budget.usage() == Usage(61_000, 100_000, 120_000, 450_000, 0)
    gateway = replace(mcu(SPIFFS, ram_bytes=100_000), device_class=DeviceClass.GATEWAY)
    budget = Budget(gateway)
    admit(budget, "a/wake", code(1_000), model_bytes=60_000)
    assert budget.usage().ram_bytes == 1_000


def test_a_larger_device_without_declared_flash_has_a_file_system() -> None:
    gateway = replace(mcu(flash_bytes=0), device_class=DeviceClass.GATEWAY)
    budget = Budget(gateway)
    admit(budget, "a/b", code(flash_bytes=10**12), model_bytes=5_000)
    assert budget.usage() == Usage(0, 10_000, 10_000, UNDECLARED_DISK.bytes_, 0)
    budget = Budget(replace(gateway, storage=(StorageUnit("disk", 9_999),)))
    with pytest.raises(ResourceExceeded, match="needs 10,000 B on one storage unit"):
        admit(budget, "a/b", code(), model_bytes=5_000)


def test_a_microcontroller_without_flash_holds_no_model() -> None:
    with pytest.raises(FlashOverflow, match="a/b needs 2 B of flash, 0 B are available"):
        admit(Budget(mcu(flash_bytes=0)), "a/b", code(), model_bytes=1)


def test_a_sensor_is_held_by_as_many_as_the_device_has() -> None:
    budget = Budget(mcu())
    one = code(requires=Requirements(sensors=("imu", "temperature")))
    admit(budget, "a/first", one)
    with pytest.raises(ResourceExceeded) as caught:
        admit(budget, "a/second", one)
    assert str(caught.value) == "a/second needs 1 imu sensor(s), 0 of the 1 that mcu-1 has are available"
    admit(budget, "a/third", code(requires=Requirements(sensors=("temperature",))))
    assert budget.sensors_in_use() == {"imu", "temperature"}
    budget.release("a/first")
    assert budget.sensors_in_use() == {"temperature"}
    admit(budget, "a/second", one)


def test_an_owner_is_charged_once() -> None:
    budget = Budget(mcu())
    admit(budget, "a/b", code(1))
    with pytest.raises(AlreadyRunning, match="a/b is already charged to the budgets of mcu-1"):
        admit(budget, "a/b", code(1))
    assert budget.usage().ram_bytes == 1


@pytest.mark.parametrize(
    ("what", "queue_bytes", "model_bytes", "message"),
    [
        (code(-1), 0, 0, "a/b: ram_bytes is -1"),
        (code(0, -1), 0, 0, "a/b: arena_bytes is -1"),
        (code(0, 0, -1), 0, 0, "a/b: flash_bytes is -1"),
        (code(), -1, 0, "a/b: queue_bytes is -1"),
        (code(), 0, -1, "a/b: model_bytes is -1"),
        (code(1, 2), 0, 0, "the arena of 2 B is larger than the 1 B of RAM"),
    ],
)
def test_figures_that_would_create_memory_are_refused(
    what: Implementation, queue_bytes: int, model_bytes: int, message: str
) -> None:
    budget = Budget(mcu())
    with pytest.raises(ModelError, match=message):
        admit(budget, "a/b", what, queue_bytes, model_bytes)
    assert "a/b" not in budget


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("release"), st.integers(0, 5)),
        st.tuples(
            st.just("admit"), st.integers(0, 5), st.integers(0, 5_000), st.integers(0, 5_000),
            st.integers(0, 30_000), st.integers(0, 4_000), st.integers(0, 12_000),
        ),
    ),
    max_size=30,
)  # fmt: skip


@given(STEPS)
def test_any_sequence_keeps_the_sums_exact_and_within_the_limits(steps: list[tuple[str | int, ...]]) -> None:
    """Against plain sums; a model rests in internal flash if two slots ever fit it, else in program flash."""
    budget = Budget(mcu(INTERNAL))
    held: dict[str, tuple[int, int, int, int]] = {}
    for action, number, *figures in steps:
        owner = f"aiw/aim{number}"
        if action == "release":
            budget.release(owner)
            held.pop(owner, None)
        else:
            other, arena, flash, queues, model = (int(value) for value in figures)
            stored = MODEL_SLOTS * model
            in_unit = stored if stored <= INTERNAL.bytes_ else 0
            new = (other + arena + queues, flash + stored - in_unit, in_unit, arena)
            sums = [sum(column) for column in zip(*held.values(), new, strict=True)]
            fits = sums[0] <= 10_000 and sums[1] <= 50_000 and sums[2] <= INTERNAL.bytes_
            try:
                admit(budget, owner, code(other + arena, arena, flash), queues, model)
            except (ResourceExceeded, AlreadyRunning):
                assert owner in held or not fits
            else:
                assert owner not in held
                assert fits
                held[owner] = new
        ram, program, unit, arena_sum = (sum(h[n] for h in held.values()) for n in range(4))
        assert budget.usage() == Usage(ram, 10_000, program + unit, 70_000, arena_sum)
        assert all((owner in budget) for owner in held)


UNITS = st.builds(
    StorageUnit,
    st.sampled_from(["internal_flash", "spiffs", "sdfs"]),
    st.sampled_from([1_000, 8_000, 90_000]),
)
NEEDS = st.none() | st.builds(
    StorageNeed,
    st.sampled_from([0, 500, 5_000, 100_000]),
    st.sampled_from([None, "internal_flash", "spiffs"]),
)


@given(
    st.lists(UNITS, max_size=3),
    NEEDS,
    st.sampled_from([0, 400, 500, 4_000, 4_001, 45_000]),
    st.sampled_from([0, 1_000, 100_000]),
    st.sampled_from([DeviceClass.MCU, DeviceClass.GATEWAY]),
)
def test_a_model_rests_where_the_planner_expects_it(
    units: list[StorageUnit],
    need: StorageNeed | None,
    model_bytes: int,
    flash_bytes: int,
    device_class: DeviceClass,
) -> None:
    device = replace(mcu(*units, ram_bytes=10**9, flash_bytes=flash_bytes), device_class=device_class)
    what = code(requires=Requirements(storage=need))
    planned = model_home(what, model_bytes, device, PlanPolicy())
    budget = Budget(device)
    try:
        admit(budget, "a/b", what, model_bytes=model_bytes)
    except ResourceExceeded as refused:
        overfull_flash = isinstance(refused, FlashOverflow) and isinstance(planned, ModelHome)
        assert isinstance(planned, str) or (overfull_flash and planned.bytes_ > flash_bytes)
        return
    assert isinstance(planned, ModelHome)
    usage = budget.usage()
    assert (usage.flash_bytes, usage.ram_bytes) == (planned.bytes_, planned.staging_bytes)
    if planned.unit is not None and planned.unit >= 0 and units:
        assert budget._charges["a/b"].unit == planned.unit


@given(st.permutations([(3_000, 9_000), (2_000, 30_000), (4_000, 11_000), (1_000, 0)]))
def test_the_order_of_admission_does_not_matter(order: list[tuple[int, int]]) -> None:
    budget = Budget(mcu())
    seen = [budget.usage()]
    for ram_bytes, flash_bytes in order:
        admit(budget, str(ram_bytes), code(ram_bytes, flash_bytes=flash_bytes))
        seen.append(budget.usage())
    assert (seen[-1].ram_bytes, seen[-1].flash_bytes) == (10_000, 50_000)
    assert all(a.ram_bytes < b.ram_bytes for a, b in pairwise(seen))
