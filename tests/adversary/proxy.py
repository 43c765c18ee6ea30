"""A man in the middle: a TCP proxy between MQTT clients and a real broker.

It applies the same rules to what the broker sends (``aif.transport.faults``: drop, duplicate, delay, edit,
forge) as the memory broker does, records every PUBLISH in both directions, injects messages that no broker
would send, cuts connections, lets them stand still, and keeps the very bytes that a client sent. Towards the
broker it confirms QoS 1 messages itself and keeps the client's confirmations, so what it drops is lost
although the broker believes it was delivered.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from aif.transport.address import BrokerAddress
from aif.transport.base import Received
from aif.transport.faults import Delivery, Fault
from tests.adversary.packets import (
    CONNECT,
    PUBACK,
    PUBLISH,
    Publish,
    Splitter,
    client_id_of,
    kind,
    puback,
    read_publish,
)

HOST: Final = "127.0.0.1"
CHUNK_BYTES: Final = 65_536
MAX_KEPT_BYTES: Final = 1 << 20


@dataclass(eq=False, slots=True)
class _Connection:
    """One client's two sockets."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    client_id: str = ""
    next_packet_id: int = 1
    timers: set[asyncio.TimerHandle] = field(default_factory=set)
    frozen: bool = False
    sent: bytearray = field(default_factory=bytearray)
    """The newest bytes of the client, whole packets, its CONNECT first."""

    def close(self) -> None:
        for timer in self.timers:
            timer.cancel()
        for writer in (self.client, self.broker):
            writer.transport.abort()


class Proxy:
    """Listens on loopback and forwards to one broker; lives as long as the ``async with`` block."""

    def __init__(self, broker: BrokerAddress) -> None:
        self.broker = broker
        self.faults: list[Fault] = []
        """Applied in order to every message on its way to a client."""
        self.dropped = 0
        self.to_broker: list[tuple[str, Received]] = []
        """(client id, message) of every PUBLISH that clients sent."""
        self.to_clients: list[tuple[str, Received]] = []
        """(client id, message) of every PUBLISH that the broker sent, before any rule."""
        self.banned: set[str] = set()
        """Clients that get no connection."""
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> BrokerAddress:
        """Where clients connect."""
        assert self._server is not None
        return BrokerAddress(HOST, int(self._server.sockets[0].getsockname()[1]))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return self

    async def __aexit__(
        self, kind_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in tuple(self._connections):
            connection.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self, client_id: str) -> int:
        """Break a client's connections without a word; returns how many there were."""
        found = [each for each in self._connections if each.client_id == client_id]
        for connection in found:
            connection.close()
        return len(found)

    def ban(self, client_id: str) -> None:
        """Break a client's connections, and let it have no other."""
        self.banned.add(client_id)
        self.cut(client_id)

    def freeze(self, client_id: str) -> int:
        """Let a client's connections stand still: open at both ends, but nothing passes any more."""
        found = [each for each in self._connections if each.client_id == client_id]
        for connection in found:
            connection.frozen = True
        return len(found)

    def bytes_of(self, client_id: str) -> bytes:
        """What a client that is connected has sent, from its CONNECT to at most ``MAX_KEPT_BYTES``."""
        return b"".join(bytes(each.sent) for each in self._connections if each.client_id == client_id)

    def inject(self, client_id: str, message: Received) -> None:
        """Give a client a message that the broker never sent, with any flags."""
        for connection in self._connections:
            if connection.client_id == client_id:
                self._write(connection, message)

    # --- connections ------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            back, forth = await asyncio.open_connection(self.broker.host, self.broker.port)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, forth)
        self._connections.add(connection)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                async with asyncio.TaskGroup() as pumps:
                    up = pumps.create_task(self._pump(reader, connection, to_client=False))
                    down = pumps.create_task(self._pump(back, connection, to_client=True))
                    await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
                    connection.close()
        finally:
            self._connections.discard(connection)
            connection.close()

    async def _pump(self, reader: asyncio.StreamReader, connection: _Connection, *, to_client: bool) -> None:
        splitter = Splitter()
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                for packet in () if connection.frozen else splitter.feed(data):
                    if to_client:
                        self._downwards(connection, packet)
                    else:
                        self._upwards(connection, packet)

    def _upwards(self, connection: _Connection, packet: bytes) -> None:
        what = kind(packet)
        if len(connection.sent) + len(packet) <= MAX_KEPT_BYTES:
            connection.sent += packet
        if what == CONNECT:
            connection.client_id = client_id_of(packet)
            if connection.client_id in self.banned:
                connection.close()
                return
        elif what == PUBACK:
            return  # the broker has had its confirmation
        elif what == PUBLISH:
            self.to_broker.append((connection.client_id, _received(read_publish(packet))))
        connection.broker.write(packet)

    def _downwards(self, connection: _Connection, packet: bytes) -> None:
        if kind(packet) != PUBLISH:
            connection.client.write(packet)
            return
        publish = read_publish(packet)
        if publish.qos:
            connection.broker.write(puback(publish.packet_id))
        message = _received(publish)
        self.to_clients.append((connection.client_id, message))
        deliveries = [Delivery("", connection.client_id, message)]
        for fault in self.faults:
            deliveries = [after for before in deliveries for after in fault(before)]
        self.dropped += not deliveries
        for delivery in deliveries:
            if delivery.delay_s > 0:
                self._later(connection, delivery)
            else:
                self._write(connection, delivery.message)

    def _later(self, connection: _Connection, delivery: Delivery) -> None:
        def write() -> None:
            connection.timers.discard(timer)
            self._write(connection, delivery.message)

        timer = asyncio.get_running_loop().call_later(delivery.delay_s, write)
        connection.timers.add(timer)

    def _write(self, connection: _Connection, message: Received) -> None:
        """Under a packet id of its own: the broker's belongs to a message that counts as confirmed."""
        packet_id = 0
        if message.qos:
            packet_id = connection.next_packet_id
            connection.next_packet_id = packet_id % 65_535 + 1
        connection.client.write(
            Publish(
                message.topic, message.payload, message.qos, message.retained, message.duplicate, packet_id
            ).encode()
        )


def _received(publish: Publish) -> Received:
    return Received(publish.topic, publish.payload, publish.qos, publish.retain, publish.duplicate)
