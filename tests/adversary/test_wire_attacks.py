"""Attacks below the messages: bytes, connections and time, against Mosquitto and the store's server.

Sessions are recorded and played again, connections stand still or never finish what they began, and floods
try to fill memory. Legitimate traffic goes on, and what was lost is told.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest

from aif.protocol.lifecycle import WorkflowState
from aif.transport.base import ConnectionChange
from aif.transport.mqtt import MQTTTransport
from store.keys import RoleKeys
from store.repository import Repository
from store.server import StoreServer, _Handler
from tests.adversary.arena import ENDLESS, QUICK, arena
from tests.adversary.conftest import Report
from tests.adversary.hostile_client import moved_ahead
from tests.adversary.packets import DISCONNECT
from tests.adversary.proxy import Proxy
from tests.adversary.test_disturbances import LAST, check_books, check_totals
from tests.transport.conftest import Mosquitto

pytestmark = pytest.mark.integration
PATIENCE_S = 30.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


# --- sessions played again ----------------------------------------------------------------------------


async def play(host: str, port: int, recorded: bytes) -> bytes:
    """Send recorded bytes over a connection of one's own; what the broker answers until it has had enough."""
    reader, writer = await asyncio.open_connection(host, port)
    answer = bytearray()
    try:
        writer.write(recorded + DISCONNECT)
        async with asyncio.timeout(PATIENCE_S):
            while data := await reader.read(65_536):
                answer += data
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return bytes(answer)


def test_a_recorded_session_played_again_delivers_nothing_twice(tmp_path: Path) -> None:
    """The bytes of a device's whole session, its CONNECT included: the broker takes them, the keys do not."""

    async def journey() -> None:
        async with arena("mosquitto", tmp_path) as attacked:
            assert attacked.proxy is not None
            running = await attacked.deploy(LAST)
            await attacked.until_outputs(20)
            recorded = attacked.proxy.bytes_of("right")
            assert len(recorded) > 2_000
            seen = ("dup.redelivery", "replay.window", "replay.stale", "frame.epoch", "frame.sender")
            before = attacked.count("left", *seen)
            broker = attacked.proxy.broker
            assert await play(broker.host, broker.port, recorded), "the broker did not even answer"
            await attacked.until(lambda: attacked.count("left", *seen) > before)
            await attacked.site.run_to_end(running)
            assert running.state is WorkflowState.COMPLETED, running.failure
            check_books(running, lossless=False)
            check_totals(attacked.totals)
            assert not attacked.uncaught

    asyncio.run(journey())


# --- connections that stand still ---------------------------------------------------------------------


def test_a_connection_that_stands_still_is_noticed_and_replaced(tmp_path: Path) -> None:
    """Half open: TCP lives and nothing passes. The keep-alive finds it (MQTT 3.1.1 §3.1.2.10)."""

    async def journey() -> None:
        async with Mosquitto(tmp_path) as broker, Proxy(broker.address) as proxy:
            transport = MQTTTransport(proxy.address, client_id="victim", keep_alive_s=1, backoff=QUICK)
            changes: asyncio.Queue[ConnectionChange] = asyncio.Queue()
            got: asyncio.Queue[bytes] = asyncio.Queue()
            async with transport, MQTTTransport(broker.address, client_id="other") as other:
                transport.on_connection(changes.put_nowait)
                await transport.subscribe("t", lambda message: got.put_nowait(message.payload), qos=1)
                assert proxy.freeze("victim") == 1
                async with asyncio.timeout(PATIENCE_S):
                    while (await changes.get()).connected:
                        pass
                    while not (await changes.get()).connected:
                        pass
                    await other.publish("t", b"after", qos=1)
                    assert await got.get() == b"after"

    asyncio.run(journey())


# --- floods -------------------------------------------------------------------------------------------

FLOOD, WAVE = 10_000, 500
MORE_BYTES = 64 << 20


def garbage(sample: bytes) -> Iterator[bytes]:
    """Noise, and frames that look right up to their tag under counters that nobody has seen."""
    rng = Random(7)
    for number in range(FLOOD):
        yield rng.randbytes(200) if number % 2 else moved_ahead(sample[:-8] + rng.randbytes(8))


def test_a_flood_leaves_memory_bounded_and_lets_legitimate_messages_pass(
    tmp_path: Path, attacks: Report
) -> None:
    async def journey() -> None:
        async with arena("mosquitto", tmp_path) as attacked:
            await attacked.deploy(ENDLESS)
            await attacked.until_outputs(20)
            topic = attacked.hostile.data_topic("double")
            sample = attacked.hostile.heard(topic)[-1]
            tags, before = attacked.count("left", "frame.tag"), resident_bytes(os.getpid())

            def refused(count: int) -> bool:
                return attacked.count("left", "frame.tag") - tags > count

            for number, payload in enumerate(garbage(sample), start=1):
                attacked.hostile.transport.send(topic, payload, qos=0)
                if number % WAVE == 0:  # as fast as the site takes them: attacker and site share one process
                    await attacked.until(partial(refused, number // 4))
            attacks("flood", FLOOD)
            await attacked.until_outputs(50)
            assert resident_bytes(os.getpid()) - before < MORE_BYTES
            check_totals_of_endless(attacked.totals)
            assert not attacked.uncaught

    asyncio.run(journey())


def check_totals_of_endless(totals: list[int]) -> None:
    """Sums of even numbers that only grow: nothing forged, nothing twice; losses may leave gaps."""
    steps = [after - before for before, after in zip([0, *totals], totals, strict=False)]
    assert all(step > 0 and step % 2 == 0 for step in steps)
    assert len(set(steps)) == len(steps)


# --- the store's server -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("store")
    keys = RoleKeys.create(folder / "keys", ["acme"])
    return Repository.create(folder / "repository", keys, now=datetime.now(UTC))


def answers(server: StoreServer) -> int:
    """Status of a legitimate request."""
    address = urlsplit(server.url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/metadata/timestamp.json")
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def occupied(server: StoreServer, count: int) -> list[socket.socket]:
    """Connections that have sent half a request line."""
    address = urlsplit(server.url)
    held = [
        socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S) for _ in range(count)
    ]
    for each in held:
        each.sendall(b"GET /meta")
    return held


def ended(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def test_connections_that_never_finish_their_request_are_ended(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they last, others are told to come back; afterwards they are served."""
    monkeypatch.setattr(_Handler, "timeout", 1.0)
    with StoreServer(repository.directory, max_connections=8) as server:
        held = occupied(server, 8)
        assert answers(server) == 503
        assert all(ended(each) for each in held)
        assert answers(server) == 200
        for each in held:
            each.close()


def test_connections_that_trickle_their_request_are_ended(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Handler, "timeout", 0.5)
    with StoreServer(repository.directory, max_connections=2) as server:
        held, stopping = occupied(server, 2), threading.Event()

        def trickle() -> None:
            while not stopping.wait(0.1):
                for each in held:
                    try:
                        each.sendall(b"x")
                    except OSError:
                        return

        feeder = threading.Thread(target=trickle)
        feeder.start()
        try:
            deadline = time.monotonic() + 4.0
            while (status := answers(server)) != 200 and time.monotonic() < deadline:
                stopping.wait(0.05)
            assert status == 200
        finally:
            stopping.set()
            feeder.join()
            for each in held:
                each.close()
