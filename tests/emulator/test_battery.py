"""A battery empties by what is declared and counted, and by nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.emulator.battery import UJ_PER_MWH, Battery, BatteryStart
from aif.emulator.device import EmulatedDevice
from aif.model.aim import Implementation, Runtime
from aif.model.inventory import Device, DeviceClass, Energy
from tests.emulator.conftest import VirtualClock

ENERGY = Energy(
    "battery", battery_mwh=10.0, active_mw=36.0, idle_mw=1.0, tx_uj_per_byte=5.0, rx_uj_per_byte=3.0
)
HOUR_MS = 3_600_000.0


def battery(level: float = 1.0, speed: float = 1.0) -> Battery:
    return Battery(ENERGY, BatteryStart(level, speed), 0.0)


def test_idling_takes_its_power_times_its_time() -> None:
    one = battery()
    one.idled(HOUR_MS)
    assert one.level == pytest.approx(0.9)
    one.idled(HOUR_MS / 2)  # a clock that goes back
    one.idled(HOUR_MS)
    assert one.level == pytest.approx(0.9)


def test_every_invocation_and_every_byte_is_paid_once() -> None:
    one = battery()
    one.worked({"a": 1_000}, {"a": UJ_PER_MWH / 1_000})
    assert one.level == pytest.approx(0.9)
    one.worked({"a": 1_000}, {"a": UJ_PER_MWH / 1_000})
    assert one.level == pytest.approx(0.9)
    one.worked({"a": 1_500, "unknown": 9}, {"a": UJ_PER_MWH / 1_000})
    assert one.level == pytest.approx(0.85)
    one.sent(int(UJ_PER_MWH / 5), 0)
    assert one.level == pytest.approx(0.75)
    one.sent(int(UJ_PER_MWH / 5), int(UJ_PER_MWH / 3))
    assert one.level == pytest.approx(0.65)


def test_an_aim_that_begins_anew_is_counted_from_nothing() -> None:
    one = battery()
    cost = {"a": UJ_PER_MWH / 1_000}
    one.worked({"a": 1_000}, cost)
    one.worked({"a": 100}, cost)
    assert one.level == pytest.approx(0.89)
    one.worked({}, {})
    one.worked({"a": 100}, cost)
    assert one.level == pytest.approx(0.88)


def test_it_is_never_emptier_than_empty_and_can_be_charged() -> None:
    one = battery(0.1, speed=1_000.0)
    one.idled(HOUR_MS)
    assert one.level == 0.0
    one.charge(0.5)
    assert one.level == 0.5


@given(st.lists(st.tuples(st.floats(0, 1e7), st.integers(0, 10_000), st.integers(0, 10_000))))
def test_it_never_charges_by_itself(steps: list[tuple[float, int, int]]) -> None:
    one = battery()
    for now_ms, invocations, bytes_ in steps:
        before = one.level
        one.idled(now_ms)
        one.worked({"a": invocations}, {"a": 100.0})
        one.sent(bytes_, bytes_)
        assert 0.0 <= one.level <= before


def test_an_emulated_device_has_the_battery_that_it_declares(tmp_path: Path, clock: VirtualClock) -> None:
    code = Implementation("c", Runtime.FIRMWARE, ram_bytes=10, flash_bytes=10, instructions=1_000_000)
    declared = Device(
        "mcu-1", DeviceClass.MCU, "demo", 1_000, 1_000, frozenset({Runtime.FIRMWARE}),
        instructions_per_s=1e6, energy=ENERGY, emulator={"battery": {"level": 0.5}},
    )  # fmt: skip
    mcu = EmulatedDevice(declared, tmp_path, clock=clock)
    assert mcu.battery_level({}, sent_bytes=0, received_bytes=0) == 0.5
    mcu.admit("w/a", code, queue_bytes=0, model_bytes=0)
    level = mcu.battery_level({"w/a": 100}, sent_bytes=1_000, received_bytes=0)
    assert level == pytest.approx(0.5 - (100 * 35_000.0 + 5_000.0) / (10 * UJ_PER_MWH))
    clock.now_ms += HOUR_MS
    later = mcu.battery_level({"w/a": 100}, sent_bytes=1_000, received_bytes=0)
    assert later is not None
    assert level is not None
    assert level - later == pytest.approx(0.1)
    mcu.release("w/a")
    plugged = replace(declared, energy=Energy(), emulator={})
    assert (
        EmulatedDevice(plugged, tmp_path, clock=clock).battery_level({}, sent_bytes=9, received_bytes=9)
        is None
    )
