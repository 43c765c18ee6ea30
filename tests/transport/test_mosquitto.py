"""Finding Mosquitto, and waiting until a broker serves."""

from __future__ import annotations

import asyncio
import socket

import pytest

from aif.errors import BrokerRefused
from aif.transport.mosquitto import free_port, until_listening


def test_a_broker_that_listens_is_found() -> None:
    async def journey() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await until_listening("127.0.0.1", port, lambda: False, timeout_s=10.0)

    asyncio.run(journey())


def test_one_that_ended_or_never_comes_is_given_up() -> None:
    port = free_port("127.0.0.1")
    with pytest.raises(BrokerRefused, match="ended while it started"):
        asyncio.run(until_listening("127.0.0.1", port, lambda: True, timeout_s=10.0))
    with pytest.raises(BrokerRefused, match="nothing listens"):
        asyncio.run(until_listening("127.0.0.1", port, lambda: False, timeout_s=0.2))


def test_a_free_port_can_be_used() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port("127.0.0.1")))
