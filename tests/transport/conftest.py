"""Brokers and clients for the transport tests; coroutine tests run in a loop of their own."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from aif.transport.address import BrokerAddress
from aif.transport.backoff import Backoff
from aif.transport.base import LastWill, Limits, Received, Transport
from aif.transport.embedded_broker import EmbeddedBroker
from aif.transport.fast import FastTransport
from aif.transport.memory import MemoryBroker, MemoryTransport
from aif.transport.mqtt import MQTTTransport

PATIENCE_S = 60.0
QUICK = Backoff(first_s=0.02, longest_s=0.1)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test; fixtures that are async context managers are entered around it."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def run() -> None:
        async with AsyncExitStack() as stack:
            for value in arguments.values():
                if isinstance(value, AbstractAsyncContextManager):
                    await stack.enter_async_context(value)
            await pyfuncitem.obj(**arguments)

    asyncio.run(run())
    return True


class Collector:
    """A handler that remembers and can be waited for."""

    def __init__(self) -> None:
        self.messages: list[Received] = []
        self._changed = asyncio.Event()

    def __call__(self, message: Received) -> None:
        self.messages.append(message)
        self._changed.set()

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    async def until(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not enough():
                self._changed.clear()
                await self._changed.wait()

    async def count(self, number: int) -> list[Received]:
        await self.until(lambda: len(self.messages) >= number)
        return self.messages

    async def payload(self, payload: bytes) -> None:
        await self.until(lambda: payload in self.payloads)


class Mosquitto:
    """A Mosquitto of our own on a free loopback port."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self._folder, self._extra = folder, extra
        self._process: asyncio.subprocess.Process | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress("127.0.0.1", self.port)

    async def __aenter__(self) -> Self:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            if os.environ.get("CI") == "true":
                pytest.fail("mosquitto is not installed")
            pytest.skip(
                "MOSQUITTO IS NOT INSTALLED: conformance with it was NOT tested (apt install mosquitto)"
            )
        settings = self._folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""  # it would give up the right to read its files
        settings.write_text(
            f"{user}listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
            f"persistence false\nmax_packet_size 1048576\nmax_queued_messages 0\nlog_dest stdout\n"
            f"{self._extra}"
        )
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                program, "-c", str(settings), stdout=log, stderr=log
            )
        async with asyncio.timeout(PATIENCE_S):
            while not await self._listens():
                assert self._process.returncode is None, (self._folder / "mosquitto.log").read_text()
        return self

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()  # it loses a SIGTERM that comes while it starts, and keeps nothing
            await self._process.wait()


class Bench:
    """One kind of broker and any number of clients, all closed at the end."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self._folder = kind, folder
        self._stack = AsyncExitStack()
        self._memory = MemoryBroker()
        self._broker: EmbeddedBroker | Mosquitto | None = None

    async def __aenter__(self) -> Self:
        if self.kind.startswith("iotcore"):
            self._broker = await self._stack.enter_async_context(EmbeddedBroker(self._folder / "broker.log"))
        elif self.kind.startswith("mosquitto"):
            self._broker = await self._stack.enter_async_context(Mosquitto(self._folder))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def open(
        self, client_id: str, *, will: LastWill | None = None, limits: Limits | None = None
    ) -> Transport:
        transport = self.make(client_id, will=will, limits=limits)
        await transport.connect()
        return transport

    def make(
        self, client_id: str, *, will: LastWill | None = None, limits: Limits | None = None
    ) -> Transport:
        transport: MemoryTransport | MQTTTransport | FastTransport
        if self._broker is None:
            transport = MemoryTransport(self._memory, client_id=client_id, will=will, limits=limits)
        else:
            client = FastTransport if self.kind.endswith("fast") else MQTTTransport
            address = self._broker.address
            transport = client(address, client_id=client_id, will=will, limits=limits, backoff=QUICK)
        self._stack.push_async_callback(transport.aclose)
        return transport

    def delivered_qos(self, published: int, subscribed: int) -> int:
        """The lower of the two [MQTT-3.8.4-6]; rumqttd uses the subscriber's, also to raise it."""
        return subscribed if self.kind.startswith("iotcore") else min(published, subscribed)

    def crash(self, transport: Transport) -> None:
        """Break the connection without a goodbye."""
        if isinstance(transport, MemoryTransport):
            transport.crash()
        elif isinstance(transport, FastTransport):
            assert transport.socket is not None
            transport.socket.shutdown(socket.SHUT_RDWR)
        else:
            assert isinstance(transport, MQTTTransport)
            assert transport.link is not None
            assert transport.link.socket is not None
            transport.link.socket.shutdown(socket.SHUT_RDWR)


@pytest.fixture(
    params=[
        "memory",
        pytest.param("iotcore", marks=pytest.mark.integration),
        pytest.param("mosquitto", marks=pytest.mark.integration),
        pytest.param("iotcore fast", marks=pytest.mark.integration),
        pytest.param("mosquitto fast", marks=pytest.mark.integration),
    ]
)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(str(request.param), tmp_path)


class ScriptedBroker:
    """A peer that answers as the test says: it may refuse, be silent, stop reading or talk nonsense."""

    def __init__(self) -> None:
        self.answers_connect = True
        self.connack_code = 0
        self.suback_code = 0
        self.reads_after_connect = True
        self.acknowledges = True
        self.greeting = b""
        """Bytes sent right after CONNACK."""
        self.connections = 0
        self.published: list[tuple[int, int]] = []
        """Packet id (0 at QoS 0) and size of every PUBLISH."""
        self.acknowledged: list[int] = []
        """Packet ids of every PUBACK from the client."""
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._news: asyncio.Event | None = None
        self._hold: asyncio.Event | None = None
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> BrokerAddress:
        assert self._server is not None
        return BrokerAddress("127.0.0.1", int(self._server.sockets[0].getsockname()[1]))

    async def __aenter__(self) -> Self:
        self._news, self._hold = asyncio.Event(), asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        assert self._hold is not None
        self._server.close()
        self._hold.set()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)

    async def until(self, enough: Callable[[], bool]) -> None:
        assert self._news is not None
        async with asyncio.timeout(PATIENCE_S):
            while not enough():
                self._news.clear()
                await self._news.wait()

    def write(self, packet: bytes) -> None:
        """Send bytes on the newest connection."""
        self._writers[-1].write(packet)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        self.connections += 1
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._news is not None
        assert self._hold is not None
        while True:
            kind = (await reader.readexactly(1))[0]
            length, shift = 0, 0
            while True:
                byte = (await reader.readexactly(1))[0]
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            body = await reader.readexactly(length)
            if kind >> 4 == 1 and self.answers_connect:  # CONNECT
                writer.write(bytes((0x20, 2, 0, self.connack_code)) + self.greeting)
                if not self.reads_after_connect:
                    await self._hold.wait()
            elif kind >> 4 == 3:  # PUBLISH
                at = 2 + int.from_bytes(body[:2])
                packet_id = int.from_bytes(body[at : at + 2]) if kind & 6 else 0
                self.published.append((packet_id, length))
                if packet_id and self.acknowledges:
                    writer.write(b"\x40\x02" + packet_id.to_bytes(2))
            elif kind >> 4 == 4:  # PUBACK
                self.acknowledged.append(int.from_bytes(body))
            elif kind >> 4 == 8:  # SUBSCRIBE
                writer.write(b"\x90\x03" + body[:2] + bytes((self.suback_code,)))
            elif kind >> 4 == 14:  # DISCONNECT
                return
            self._news.set()


@pytest.fixture
def scripted() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Mosquitto:
    return Mosquitto(tmp_path)


@pytest.fixture
def collector() -> type[Collector]:
    return Collector
