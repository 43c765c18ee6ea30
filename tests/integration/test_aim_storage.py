"""An AIM's storage over the end of its host: processes of their own, a real broker, a package of a user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from aif.transport import local
from tests.integration.terminals import desk
from tests.integration.test_processes import Events
from tests.runtime.site import write_aim
from tests.runtime.test_site_services import AIMS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

INVENTORY = """\
schema: 1
inventory: {name: bench, version: 1}
devices:
  - {id: left, class: gateway, board: bench, arch: x86-64, os: Linux, instructions_per_s: 1000000000,
     ram_bytes: 100000000, flash_bytes: 100000000, runtimes: [python], attestation: software}
"""
WORKFLOW = """\
schema: 1
aiw: {name: Keeping, version: "1.0", implementer: tinyaif, description: "Keeps a number."}
aims:
  - {id: tally, use: Tally@1.0, placement: {device: left}}
outputs: {count: tally.report}
"""


def test_what_an_aim_stored_survives_the_kill_of_its_host(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    write_aim(tmp_path / "aims" / "tally", *AIMS["tally"])
    inventory, workflow = tmp_path / "inventory.yaml", tmp_path / "keeping.aiw.yaml"
    inventory.write_text(INVENTORY)
    workflow.write_text(WORKFLOW)
    ours = ("--aims", tmp_path / "aims", "--inventory", inventory)

    async def journey() -> None:
        async with desk(tmp_path_factory.mktemp("h")) as terminals:
            await terminals.ok("store", "publish", "--aims", tmp_path / "aims")
            await terminals.ok("device", "add", "left", "--inventory", inventory)
            _, broker_url = await terminals.broker()
            _, store_url = await terminals.store()
            await terminals.controller(broker_url, store_url)
            source = local.stream(terminals.home / "site" / "controller.sock", "events")
            assert isinstance(source, AsyncGenerator)
            async with aclosing(source) as stream:
                events = Events(stream)
                await events.until("status")
                for count in (1, 2):
                    host = await terminals.start("host", "--device", "left", *ours, "--broker", broker_url)
                    await host.until("session with the Controller is trusted")
                    await terminals.ok("deploy", workflow, *ours)
                    assert (await events.until("output", port="count"))["value"] == count
                    await events.until("workflow", state="completed")
                    await host.kill()
                    await events.until("trust", device="left", trust="lost")

    asyncio.run(journey())
