"""Acknowledged messages over processes of their own and a real broker, some of which are killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integration.terminals import desk
from tests.integration.test_processes import listening, workflow
from tests.runtime.host.test_acknowledged import AWAY
from tests.runtime.mapping.test_remapping import THREE
from tests.runtime.numbered import NUMBERED_AIMS, numbered_until
from tests.runtime.site import write_aim
from tests.runtime.storm import SOURCE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

DEVICES = ("left", "right", "spare")


def test_every_number_is_there_once_though_processes_are_killed(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    aims, inventory, file = tmp_path / "aims", tmp_path / "inventory.yaml", tmp_path / "numbered.aiw.yaml"
    end = tmp_path / "end"
    for name, (contract, module) in NUMBERED_AIMS.items():
        write_aim(aims / name, contract, module)
    inventory.write_text(THREE)
    file.write_text(numbered_until(end, double=AWAY, note=AWAY))
    options = ("--aims", aims, "--inventory", inventory)

    async def journey() -> None:
        async with desk(tmp_path_factory.mktemp("h")) as terminals:
            await terminals.ok("store", "publish", "--aims", aims)
            for name in DEVICES:
                await terminals.ok("device", "add", name, "--inventory", inventory)
            _, broker_url = await terminals.broker()
            _, store_url = await terminals.store()
            controller = await terminals.controller(broker_url, store_url)
            hosts = {
                name: await terminals.start("host", "--device", name, "--broker", broker_url, *options)
                for name in DEVICES
            }
            for host in hosts.values():
                await host.until("session with the Controller is trusted")
            async with listening(terminals) as events:
                await terminals.ok("deploy", file, *options)
                await events.outputs(50)
                victim = next(
                    name
                    for name, part in (await workflow(terminals))["devices"].items()
                    if "double" in part["aims"]
                )
                await hosts[victim].kill()
                await events.until("remapped")
                await events.outputs(50)
            await controller.kill()
            again = await terminals.controller(broker_url, store_url)
            await again.until(r'"workflow state".*"running"')
            async with listening(terminals) as events:
                last: dict[str, int] = {}
                came = 0
                async for event in events.stream:
                    if event["type"] == "output":
                        last, came = event["value"], came + 1
                        if came == 50:
                            await asyncio.to_thread(end.touch)
                    if event["type"] == "workflow" and event["state"] == "completed":
                        break
            left = (await workflow(terminals))["metrics"]["left"]
            told = left["acknowledged"][SOURCE]["acknowledged"]
            assert told > 150
            assert last == {"number": told, "seen": told, "again": 0}

    asyncio.run(journey())
