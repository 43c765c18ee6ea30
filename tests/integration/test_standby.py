"""A take-over over processes of their own and a real broker: the host is killed, and the Store is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aif.authoring.publication import StoredModel
from aif.cli import _wiring as wiring
from aif.cli._publishing import hand_over_here, open_publisher
from aif.model.standby import standby_of
from tests.integration.terminals import desk
from tests.integration.test_processes import listening, workflow
from tests.runtime.mapping.test_remapping import THREE
from tests.runtime.mapping.test_standby import WORKFLOW
from tests.runtime.site import write_aim
from tests.runtime.test_sealed_models import AIMS, MODEL, answer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

DEVICES = ("left", "right", "spare")


def test_a_killed_host_is_taken_over_without_a_store(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    aims, inventory, file = tmp_path / "aims", tmp_path / "inventory.yaml", tmp_path / "thinking.aiw.yaml"
    for name, (contract, module) in AIMS.items():
        write_aim(aims / name, contract, module)
    inventory.write_text(THREE)
    file.write_text(WORKFLOW)
    options = ("--aims", aims, "--inventory", inventory)

    async def journey() -> None:
        async with desk(tmp_path_factory.mktemp("h")) as terminals:
            await terminals.ok("store", "publish", "--aims", aims)
            home = wiring.Home(terminals.home)
            stored = StoredModel("thinker", MODEL, 4_096, 100, 1.0, 1.0, 10, ("a", "b", "c", "d"), {}, {})
            open_publisher(home).model(stored)
            hand_over_here(home)
            for name in DEVICES:
                await terminals.ok("device", "add", name, "--inventory", inventory)
            _, broker_url = await terminals.broker()
            store, store_url = await terminals.store()
            await terminals.controller(broker_url, store_url)
            hosts = {
                name: await terminals.start("host", "--device", name, "--broker", broker_url, *options)
                for name in DEVICES
            }
            for host in hosts.values():
                await host.until("session with the Controller is trusted")
            async with listening(terminals) as events:
                await terminals.ok("deploy", file, *options)
                await events.outputs(20)
                placed = (await workflow(terminals))["placement"]["assignments"]
                where = {one["aim"]: one["device"] for one in placed}
                assert "standby of think" in await terminals.ok("top", "--once")
                await store.kill()
                await hosts[where["think"]].kill()
                await events.until("remapped")
                for _ in range(20):
                    assert list((await events.until("output"))["value"]) == answer()
            devices = (await workflow(terminals))["devices"]
            assert devices[where[standby_of("think")]]["aims"]["think"] == "running"

    asyncio.run(journey())
