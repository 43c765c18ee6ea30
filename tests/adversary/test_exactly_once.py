"""Messages on acknowledged channels arrive once, however devices, links and the Controller are treated.

A source numbers messages while a seeded storm kills devices, drains them, cuts their connections, loses
frames and kills the Controller. In the end the tally must have every number that the source was told is done
with, and none of them twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest

from aif.transport.base import LastWill
from aif.transport.embedded_broker import EmbeddedBroker
from aif.transport.memory import MemoryBroker
from aif.transport.mqtt import MQTTTransport
from tests.adversary import arena
from tests.adversary.conftest import Report
from tests.adversary.proxy import Proxy
from tests.runtime import site as site_module
from tests.runtime.host.test_acknowledged import AWAY
from tests.runtime.mapping.test_remapping import DEVICE, LINK, QUICK, THREE
from tests.runtime.numbered import NUMBERED_AIMS, numbered_until
from tests.runtime.site import bench_site
from tests.runtime.storm import Storm

FOUR = THREE.replace("links:", DEVICE.strip("\n").replace("NAME", "more") + "\nlinks:") + "".join(
    LINK.replace("spare", "more").replace("LINK", f"more-{one}").replace("ONE", one)
    for one in ("left", "right", "spare")
)
TROUBLES = ("kill", "kill", "drain", "cut", "cut", "loss", "controller")


class Killable(MQTTTransport):
    """A client over a real broker whose process can die: no goodbye, and no connection afterwards."""

    def __init__(self, proxy: Proxy, client_id: str, will: LastWill | None) -> None:
        proxy.banned.discard(client_id)
        super().__init__(proxy.address, client_id=client_id, will=will, backoff=arena.QUICK)
        self._proxy, self._client = proxy, client_id

    def crash(self) -> None:
        self._proxy.ban(self._client)


def _killable(proxy: Proxy) -> Callable[..., Killable]:
    """Stands where the site makes its memory transports."""

    def connect(_: MemoryBroker, *, client_id: str = "", will: LastWill | None = None) -> Killable:
        return Killable(proxy, client_id, will)

    return connect


@pytest.mark.parametrize("wire", arena.WIRES)
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
                patch.setattr(site_module, "MemoryTransport", _killable(proxy))
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
