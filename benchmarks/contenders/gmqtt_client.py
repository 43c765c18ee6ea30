"""gmqtt: an MQTT client on asyncio."""

from __future__ import annotations

import asyncio
import importlib
import os
from typing import Any

from benchmarks.broker import HOST
from benchmarks.cell import Role, Run
from benchmarks.contenders.link import START_S, Intake, Link
from benchmarks.contenders.peer_link import PeerLink

MQTT_3_1_1 = 4


class GmqttLink(PeerLink):
    """One gmqtt client."""

    asynchronous = True

    async def open(self) -> None:
        gmqtt: Any = importlib.import_module("gmqtt")  # in the extra `bench` only
        subscribed = asyncio.Event()
        self._client = client = gmqtt.Client(f"bench-{os.getpid()}")

        def on_message(_client: object, _topic: str, payload: bytes, _qos: int, _properties: object) -> int:
            self.arrived(bytes(payload))
            return 0

        client.on_connect = lambda *_: client.subscribe(self.hears_on, qos=self.run.cell.qos)
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_message = on_message
        await client.connect(HOST, self.run.port, version=MQTT_3_1_1)
        async with asyncio.timeout(START_S):
            await subscribed.wait()

    def publish(self, payload: bytes) -> None:
        self._client.publish(self.sends_on, payload, qos=self.run.cell.qos)

    async def close(self) -> None:
        await self._client.disconnect()


def open_link(run: Run, role: Role, intake: Intake) -> Link:
    return GmqttLink(run, role, intake)
