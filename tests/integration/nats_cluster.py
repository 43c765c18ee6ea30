"""Three NATS servers that speak MQTT, on loopback: three, because the cluster needs a majority to go on."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from aif.errors import AIFError
from aif.transport.address import BrokerAddress
from aif.transport.mqtt import MQTTTransport

NODES = 3
PATIENCE_S = 60.0


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class NATSCluster:
    """Three processes that end with the ``async with`` block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ports = _free_ports(3 * NODES)
        self._clients, self._routes, self._mqtt = ports[:NODES], ports[NODES : 2 * NODES], ports[2 * NODES :]
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def addresses(self) -> list[BrokerAddress]:
        return [BrokerAddress("127.0.0.1", port) for port in self._mqtt]

    def starting_at(self, node: int) -> list[BrokerAddress]:
        """All nodes, beginning with one of them."""
        return self.addresses[node:] + self.addresses[:node]

    async def __aenter__(self) -> Self:
        program = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            if os.environ.get("CI") == "true":
                pytest.fail("nats-server is not installed")
            pytest.skip("NATS-SERVER IS NOT INSTALLED: no cluster was tested (apt install nats-server)")
        routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in self._routes)
        for node in range(NODES):
            settings = self._folder / f"node-{node}.conf"
            settings.write_text(
                f'server_name: "node-{node}"\n'
                f'listen: "127.0.0.1:{self._clients[node]}"\n'
                f'jetstream {{ store_dir: "{self._folder / f"node-{node}"}", max_file_store: 64MB,'
                " max_memory_store: 16MB }\n"
                f'cluster {{ name: "site", listen: "127.0.0.1:{self._routes[node]}", routes: [{routes}] }}\n'
                f'mqtt {{ listen: "127.0.0.1:{self._mqtt[node]}" }}\n'
            )
            with (self._folder / f"node-{node}.log").open("wb") as log:
                self._processes.append(
                    await asyncio.create_subprocess_exec(program, "-c", str(settings), stdout=log, stderr=log)
                )
        async with asyncio.timeout(PATIENCE_S):
            for node in range(NODES):
                while not await self._serves(node):
                    assert self._processes[node].returncode is None, self._log(node)
        return self

    async def _serves(self, node: int) -> bool:
        """Whether a node accepts a client, which it does when the cluster has elected its leader."""
        try:
            async with MQTTTransport(self.addresses[node], client_id=f"probe-{node}") as probe:
                await probe.subscribe("probe", lambda _: None, qos=1, timeout=2.0)
        except AIFError:
            return False
        return True

    def _log(self, node: int) -> str:
        return (self._folder / f"node-{node}.log").read_text(errors="replace")

    async def kill(self, node: int) -> None:
        """SIGKILL to one of our own children, by its id."""
        process = self._processes[node]
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.terminate()
            await process.wait()
