"""Messages on acknowledged channels arrive once, however devices, links and the Controller are treated.

A source numbers messages while a seeded storm kills devices, drains them, cuts their connections, loses
frames and kills the Controller. In the end the tally must have every number that the source was told is done
with, and none of them twice.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest

from aif.transport.embedded_broker import EmbeddedBroker
from tests.adversary.arena import WIRES, _over
from tests.adversary.conftest import Report
from tests.adversary.proxy import Proxy
from tests.runtime import site as site_module
from tests.runtime.numbered import NUMBERED_AIMS, numbered_until
from tests.runtime.site import bench_site
from tests.runtime.storm import Storm
from tests.runtime.test_acknowledged import AWAY
from tests.runtime.test_remapping import DEVICE, LINK, QUICK, THREE

FOUR = THREE.replace("links:", DEVICE.strip("\n").replace("NAME", "more") + "\nlinks:") + "".join(
    LINK.replace("spare", "more").replace("LINK", f"more-{one}").replace("ONE", one)
    for one in ("left", "right", "spare")
)
TROUBLES = ("kill", "kill", "drain", "cut", "cut", "loss", "controller")


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("seed", range(6))
def test_every_number_is_there_once_after_a_storm(
    seed: int, wire: str, tmp_path: Path, attacks: Report
) -> None:
    troubles = list(TROUBLES)
    Random(seed).shuffle(troubles)

    async def journey() -> None:
        async with AsyncExitStack() as stack:
            proxy = None
            if wire != "memory":
                broker = await stack.enter_async_context(EmbeddedBroker(tmp_path / "broker.log"))
                proxy = await stack.enter_async_context(Proxy(broker.address))
                patch = stack.enter_context(pytest.MonkeyPatch.context())
                patch.setattr(site_module, "MemoryTransport", _over(proxy))
            devices = ("left", "right", "spare", "more")
            site = await stack.enter_async_context(
                bench_site(
                    tmp_path, devices=devices, aims=NUMBERED_AIMS, inventory=FOUR, patience=QUICK, speed=2.0
                )
            )
            await site.until_trusted(*devices)
            end = tmp_path / "end"
            running = await site.deploy(numbered_until(end, double=AWAY, note=AWAY))

            def cut(device: str) -> None:
                if proxy is not None:
                    proxy.cut(device)
                else:
                    site.broker.sever(device)
                    site.broker.heal(device)

            storm = Storm(
                site, running, seed, faults=proxy.faults if proxy is not None else site.broker.faults, cut=cut
            )
            await storm.rage(troubles)
            await storm.end(end)
            attacks("trouble for acknowledged messages", len(troubles))

    asyncio.run(journey())
