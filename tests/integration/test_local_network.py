"""A device that was given no address: it waits until its own site's Controller says where the broker is."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.integration.terminals import INVENTORY, Desk, Started, desk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


async def announcing_site(terminals: Desk) -> tuple[Started, str]:
    """Broker, store and a Controller that tells the network; the Controller, and the broker's address."""
    _, broker = await terminals.broker()
    _, store = await terminals.store()
    controller = await terminals.start("controller", "--broker", broker, "--store", store, "--mdns")
    await controller.until("the broker is announced on the local network")
    return controller, broker


async def looking(terminals: Desk, device: str) -> Started:
    return await terminals.start(
        "host", "--device", device, "--inventory", INVENTORY, "--broker", "mdns://127.0.0.1"
    )


def test_a_device_finds_its_own_site_and_no_other(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("h")
    shutil.copytree(home, elsewhere, dirs_exist_ok=True)

    async def journey() -> None:
        async with desk(home) as ours, desk(elsewhere) as theirs:
            for terminals in (ours, theirs):
                for name in ("edge-1", "gw-1"):
                    await terminals.ok("device", "add", name, "--inventory", INVENTORY)
            await announcing_site(theirs)
            early = await looking(ours, "gw-1")
            await early.until("no word of this device's site .*records of other sites")
            given_up = await looking(ours, "edge-1")
            await given_up.until("no word of this device's site")
            assert await given_up.interrupt() == 0
            assert "Traceback" not in given_up.output

            controller, broker = await announcing_site(ours)
            await early.until(rf"site's broker was found on the local network.*{broker}")
            await early.until("session with the Controller is trusted")
            late = await looking(ours, "edge-1")
            await late.until("session with the Controller is trusted")
            assert await controller.interrupt() == 0
            assert "Traceback" not in controller.output

    asyncio.run(journey())


def test_an_interface_that_is_no_address_is_one_error(home: Path) -> None:
    async def journey() -> None:
        async with desk(home) as terminals:
            await terminals.ok("device", "add", "gw-1", "--inventory", INVENTORY)
            ended = await terminals.run(
                "host", "--device", "gw-1", "--inventory", INVENTORY, "--broker", "mdns://eth0"
            )
            assert ended.code == 8
            assert "mdns://eth0 names no interface" in ended.err
            assert "Traceback" not in ended.err

    asyncio.run(journey())
