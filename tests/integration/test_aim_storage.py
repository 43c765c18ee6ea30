"""An AIM's storage over the end of its host: processes of their own, a real broker, a package of a user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aif.transport import local
from tests.integration.terminals import Desk, Started, desk
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


@dataclass(frozen=True, slots=True)
class TallySite:
    """A site of one device whose only AIM counts its own runs."""

    terminals: Desk
    broker_url: str
    workflow: Path
    options: tuple[object, ...]

    def events(self) -> AsyncGenerator[dict[str, Any], None]:
        source = local.stream(self.terminals.home / "site" / "controller.sock", "events")
        assert isinstance(source, AsyncGenerator)
        return source

    async def start_host(self) -> Started:
        """The device's host, once it is trusted."""
        where = ("--device", "left", "--broker", self.broker_url)
        host = await self.terminals.start("host", *where, *self.options)
        await host.until("session with the Controller is trusted")
        return host

    async def deploy(self) -> None:
        await self.terminals.ok("deploy", self.workflow, *self.options)


async def prepared_site(terminals: Desk, folder: Path) -> TallySite:
    """Everything but the host."""
    aims, inventory, workflow = folder / "aims", folder / "inventory.yaml", folder / "keeping.aiw.yaml"
    write_aim(aims / "tally", *AIMS["tally"])
    inventory.write_text(INVENTORY)
    workflow.write_text(WORKFLOW)
    await terminals.ok("store", "publish", "--aims", aims)
    await terminals.ok("device", "add", "left", "--inventory", inventory)
    _, broker_url = await terminals.broker()
    _, store_url = await terminals.store()
    await terminals.controller(broker_url, store_url)
    return TallySite(terminals, broker_url, workflow, ("--aims", aims, "--inventory", inventory))


def test_what_an_aim_stored_survives_the_kill_of_its_host(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    async def journey() -> None:
        async with desk(tmp_path_factory.mktemp("h")) as terminals:
            site = await prepared_site(terminals, tmp_path)
            async with aclosing(site.events()) as stream:
                events = Events(stream)
                await events.until("status")
                for count in (1, 2):
                    host = await site.start_host()
                    await site.deploy()
                    assert (await events.until("output", port="count"))["value"] == count
                    await events.until("workflow", state="completed")
                    await host.kill()
                    await events.until("trust", device="left", trust="lost")

    asyncio.run(journey())
