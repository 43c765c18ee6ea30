"""A running workflow leaves devices that get slow, comes back to them once, and is not moved by noise."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from aif.emulator.battery import Battery
from aif.emulator.device import EmulatedDevice
from aif.protocol.lifecycle import WorkflowState
from aif.runtime.controller.controller import Patience
from aif.runtime.devices.liveness import HeartbeatSettings
from aif.transport.faults import Delivery, Fault, delay
from tests.runtime.mapping.test_remapping import GOES_ON, THREE, all_up, increasing, place_of
from tests.runtime.site import BenchSite, bench_site

SPEED = 5.0
PACE = HeartbeatSettings(interval_ms=250.0)
"""A window takes 0.4 s of a test's time."""

NEAR = THREE.replace("latency_ms: 1}", "latency_ms: 30}")
NEARER = NEAR.replace(
    "between: [left, spare], bandwidth_bps: 100000000, latency_ms: 30",
    "between: [left, spare], bandwidth_bps: 100000000, latency_ms: 60",
)
"""``right`` is the better place for what works with ``left``."""


ON_BATTERY = NEARER.replace(
    "board: bench-right,", "board: bench-right, energy: {source: battery, battery_mwh: 1000},"
)


def site_of(folder: Path, inventory: str = NEARER) -> AbstractAsyncContextManager[BenchSite]:
    patience = Patience(repeat_s=0.5, stop_s=1.0, dwell_s=3.0)
    return bench_site(
        folder, devices=("left", "right", "spare"), inventory=inventory,
        speed=SPEED, patience=patience, heartbeat=PACE,
    )  # fmt: skip


def battery_of(site: BenchSite, device: str) -> Battery:
    platform = site.hosts[device]._platform
    assert isinstance(platform, EmulatedDevice)
    assert platform.battery is not None
    return platform.battery


def slow(name: str, seconds: float) -> Fault:
    """Whatever goes to or comes from a device takes longer."""

    def rule(delivery: Delivery) -> Iterable[Delivery]:
        ends = (delivery.sender, delivery.receiver)
        yield replace(delivery, delay_s=delivery.delay_s + seconds) if name in ends else delivery

    return rule


def moves(site: BenchSite) -> list[str]:
    return [line["moves"] for line in site.log.lines("workflow re-mapped")]


def test_aims_leave_a_device_that_gets_slow_and_come_back_once_it_is_quick_again(tmp_path: Path) -> None:
    async def journey() -> None:
        async with site_of(tmp_path) as site:
            await all_up(site)
            running = await site.deploy(GOES_ON)
            await site.outputs(running, 5)
            assert place_of(running, "double") == "right"
            count = site.hosted("left", running).instances["count"]
            site.broker.faults.append(slow("right", 0.04))
            await site.until_logged("device answers slowly", device="right")
            await site.until_true(lambda: place_of(running, "double") == "spare")
            await site.until_logged("workflow re-mapped", moves="double: right -> spare")
            line = site.log.lines("workflow re-mapped")[0]
            assert line["reason"].startswith("right answers slowly: saves ")
            assert "s of pause" in line["reason"]
            assert increasing(await site.outputs(running, 20))
            site.broker.faults.clear()
            await site.until_logged("device answers quickly again", device="right")
            await site.until_logged("workflow re-mapped", moves="double: spare -> right")
            assert increasing(await site.outputs(running, 20))
            assert site.hosted("left", running).instances["count"] is count
            assert running.state is WorkflowState.RUNNING
            assert moves(site) == ["double: right -> spare", "double: spare -> right"]

    asyncio.run(journey())


def test_noise_on_all_links_moves_nothing(tmp_path: Path) -> None:
    async def journey() -> None:
        async with site_of(tmp_path) as site:
            await all_up(site)
            running = await site.deploy(GOES_ON)
            await site.outputs(running, 5)
            site.broker.faults.append(delay(0.3, 0.01, random.Random(1)))
            sensing = site.controller.admission.sensing
            await site.until_true(
                lambda: all(
                    sensing.report(d, 0.0).get("link", {}).get("answers", 0) > 80 for d in running.devices
                )
            )
            assert moves(site) == []
            assert not site.log.lines("device answers slowly")

    asyncio.run(journey())


def test_devices_that_come_back_get_their_aims_again_when_that_is_worth_it(tmp_path: Path) -> None:
    async def journey() -> None:
        async with site_of(tmp_path) as site:
            await all_up(site)
            running = await site.deploy(GOES_ON)
            await site.outputs(running, 5)
            await site.controller.draining.drain("right")
            await site.until_logged("workflow re-mapped", moves="double: right -> spare")
            site.registry.set_drained("right", drained=False)
            await site.until_true(lambda: moves(site)[1:] == ["double: spare -> right"])
            await site.kill("right")
            await site.until_true(lambda: len(moves(site)) == 3)
            await site.start_device("right")
            await site.until_true(lambda: moves(site)[3:] == ["double: spare -> right"])
            line = site.log.lines("workflow re-mapped")[3]
            assert line["reason"].startswith("right can take AIMs: saves ")
            assert increasing(await site.outputs(running, 20))

    asyncio.run(journey())


def test_aims_leave_a_device_whose_battery_is_nearly_empty_until_it_is_charged(tmp_path: Path) -> None:
    async def journey() -> None:
        async with site_of(tmp_path, inventory=ON_BATTERY) as site:
            await all_up(site)
            running = await site.deploy(GOES_ON)
            await site.outputs(running, 5)
            assert place_of(running, "double") == "right"
            battery = battery_of(site, "right")
            battery.charge(0.15)
            await site.until_logged("battery is low", device="right")
            battery.charge(0.05)
            await site.until_logged("battery is nearly empty", device="right")
            await site.until_logged("workflow re-mapped", moves="double: right -> spare")
            reason = site.log.lines("workflow re-mapped")[0]["reason"]
            assert reason == "the battery of right is nearly empty"
            assert increasing(await site.outputs(running, 20))
            battery.charge(0.12)  # a gauge that hovers between the marks
            await site.outputs(running, 1_000)
            assert len(moves(site)) == 1
            battery.charge(1.0)
            await site.until_logged("workflow re-mapped", moves="double: spare -> right")
            assert increasing(await site.outputs(running, 20))
            assert len(moves(site)) == 2

    asyncio.run(journey())


def test_what_needs_a_device_stays_on_it_with_an_empty_battery(tmp_path: Path) -> None:
    pinned = GOES_ON.replace("{separate_from: [count], strength: hard}", "{device: right}")

    async def journey() -> None:
        async with site_of(tmp_path, inventory=ON_BATTERY) as site:
            await all_up(site)
            running = await site.deploy(pinned)
            await site.outputs(running, 5)
            battery_of(site, "right").charge(0.01)
            line = await site.until_logged("battery is nearly empty", device="right")
            assert line["battery"] <= 0.01
            await site.until_logged("AIMs stay", reason="the battery of right is nearly empty")
            assert increasing(await site.outputs(running, 100))
            assert moves(site) == []
            assert running.state is WorkflowState.RUNNING

    asyncio.run(journey())
