from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.emulator.energy import (
    CostRule,
    ExecutionModel,
    execution_uj,
    radio_uj,
)
from aif.model.aim import Implementation, Measurement, Runtime
from aif.model.inventory import Device, DeviceClass, Energy, Inventory
from partitioner.problem.costs import invocation_cost

BATTERY = Energy("battery", 740.0, active_mw=36.0, idle_mw=1.0, tx_uj_per_byte=5.0, rx_uj_per_byte=3.0)


def device(
    board: str = "demo", ips: float | None = None, macs: float | None = None, dmips: float | None = None
) -> Device:
    return Device(
        id=board,
        device_class=DeviceClass.MCU,
        board=board,
        ram_bytes=0,
        flash_bytes=0,
        runtimes=frozenset({Runtime.TFLM}),
        instructions_per_s=ips,
        macs_per_s=macs,
        dmips=dmips,
        energy=BATTERY,
    )


def code(
    instructions: int | None = None, mac_count: int | None = None, *measured: Measurement
) -> Implementation:
    return Implementation(
        "mcu", Runtime.TFLM, 0, instructions=instructions, mac_count=mac_count, measured=measured
    )


ON_DEMO = Measurement("demo", 5_200.0, "board", energy_uj=180.0)
EMULATED = Measurement("demo", 5_200.0, "emulator")
ELSEWHERE = Measurement("big", 100.0, "board", energy_uj=999.0)


@pytest.mark.parametrize(
    ("what", "on", "latency_us", "energy_uj", "rule"),
    [
        (code(1, 1, ELSEWHERE, ON_DEMO), device(ips=1e6, macs=1e6), 5_200.0, 180.0, CostRule.MEASURED),
        (code(None, None, EMULATED), device(), 5_200.0, 182.0, CostRule.MEASURED),
        (code(310_000, 1), device(ips=60e6, macs=1e6), 15_500 / 3, 542.5 / 3, CostRule.INSTRUCTIONS),
        (code(310_000, 13_900), device(macs=10e6), 1_390.0, 48.65, CostRule.MAC_COUNT),
        (code(None, None, ELSEWHERE), device(dmips=50.0), 2_000.0, 70.0, CostRule.SCALED),
        (code(None, None, ELSEWHERE), device(ips=100e6), 4_000.0, 140.0, CostRule.SCALED),
    ],
)  # fmt: skip
def test_the_first_rule_that_applies_gives_the_cost(
    what: Implementation, on: Device, latency_us: float, energy_uj: float, rule: CostRule
) -> None:
    found = ExecutionModel(on, (device("big", ips=4e9, dmips=1_000.0),)).cost(what)
    assert found is not None
    assert (found.latency_us, found.energy_uj) == pytest.approx((latency_us, energy_uj))
    assert found.rule is rule


def test_no_figure_no_cost() -> None:
    assert ExecutionModel(device(ips=1e6)).cost(code(None, 100)) is None
    assert ExecutionModel(device(ips=1e6)).cost(code(None, None, ELSEWHERE)) is None
    assert (
        ExecutionModel(device(macs=1e6), (device("big", ips=1e6),)).cost(code(None, None, ELSEWHERE)) is None
    )


def test_energy_of_work_radio_and_waiting() -> None:
    assert execution_uj(BATTERY, 1_000.0) == 35.0
    assert execution_uj(Energy(active_mw=1.0, idle_mw=2.0), 1_000.0) == 0.0
    assert radio_uj(BATTERY, sent_bytes=48, received_bytes=10) == 270.0


SPEED = st.none() | st.floats(1e3, 1e10)
COUNT = st.none() | st.integers(1, 10**9)


@given(
    COUNT, COUNT, st.lists(st.sampled_from([ON_DEMO, EMULATED, ELSEWHERE]), max_size=2), SPEED, SPEED, SPEED,
)  # fmt: skip
def test_the_planner_expects_the_same(
    instructions: int | None,
    mac_count: int | None,
    measured: list[Measurement],
    ips: float | None,
    macs: float | None,
    dmips: float | None,
) -> None:
    here, big = device("demo", ips, macs, dmips), device("big", 4e9, None, 1_000.0)
    what = code(instructions, mac_count, *measured)
    planned = invocation_cost(what, here, Inventory("lab", 1, (here, big)))
    found = ExecutionModel(here, (big,)).cost(what)
    if planned is None or found is None:
        assert planned is None
        assert found is None
        return
    assert found.rule == planned.rule
    assert 0.0 <= planned.latency_us - found.latency_us + 1e-3 <= 1.1
    assert found.energy_uj == pytest.approx(planned.energy_uj)
