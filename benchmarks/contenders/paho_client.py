"""paho-mqtt as its users run it, with its network thread; with TCP_NODELAY except where the name says stock.

In round trips ``paho_plain`` publishes from within the callback, the fastest way; in ``paho_waiting`` and
``paho_stock`` the application's own thread waits for the answer and then publishes, the usual way.
"""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.broker import HOST
from benchmarks.cell import Role, Run
from benchmarks.certificates import Certificates
from benchmarks.contenders.link import START_S, Intake, Link
from benchmarks.contenders.peer_link import PeerLink

IN_FLIGHT = 1_000
"""QoS 1 messages on the wire; paho's default is 20."""


APPLICATION_WAITS = ("paho_waiting", "paho_stock")


class PahoLink(PeerLink):
    """One paho client."""

    def __init__(self, run: Run, role: Role, intake: Intake) -> None:
        super().__init__(run, role, intake)
        self._publish: Callable[[bytes], None] = self._hand_over

    async def open(self) -> None:
        subscribed = threading.Event()
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"bench-{os.getpid()}")
        client.max_queued_messages_set(0)
        client.max_inflight_messages_set(IN_FLIGHT)
        client.on_connect = lambda *_: _void(client.subscribe(self.hears_on, self.run.cell.qos))
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_message = lambda _client, _userdata, message: self.arrived(bytes(message.payload))
        if self.run.cell.broker == "tls":
            authority = Certificates.under(Path(self.run.folder).parent).authority
            client.tls_set_context(ssl.create_default_context(cafile=str(authority)))
        client.connect(HOST, self.run.port)
        connection = client.socket()
        if self.run.cell.contender != "paho_stock" and isinstance(connection, socket.socket):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.loop_start()
        if not await asyncio.to_thread(subscribed.wait, START_S):
            raise ConnectionError("no SUBACK from the broker")

        if self.run.task == "ping" and self.run.cell.contender in APPLICATION_WAITS:
            self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
            self._publish = self._answers.put
            threading.Thread(target=self._application, daemon=True).start()

    def _application(self) -> None:
        while True:
            self._hand_over(self._answers.get())

    def _hand_over(self, payload: bytes) -> None:
        self._client.publish(self.sends_on, payload, self.run.cell.qos)

    def publish(self, payload: bytes) -> None:
        self._publish(payload)

    async def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _void(_result: object) -> None:
    """A callback returns nothing."""


def open_link(run: Run, role: Role, intake: Intake) -> Link:
    return PahoLink(run, role, intake)
