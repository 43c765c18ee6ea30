"""Filters that a broker refuses: the caller hears of it, and no connection is kept that hears only half."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from aif.errors import BrokerRefused
from aif.transport.backoff import Backoff
from aif.transport.fast import FastTransport
from aif.transport.mqtt import MQTTTransport

PATIENCE_S = 60.0
Scripted = Any  # tests/transport/conftest.py
Connect = Callable[[], MQTTTransport | FastTransport]


@pytest.fixture(params=[MQTTTransport, FastTransport])
def connect(request: pytest.FixtureRequest, scripted: Scripted) -> Connect:
    """Either client, at a broker that does what the test says."""
    backoff = Backoff(first_s=0.02, longest_s=0.1)
    return lambda: request.param(scripted.address, backoff=backoff, rng=random.Random(1))


async def test_a_refused_filter(scripted: Scripted, connect: Connect) -> None:
    async with connect() as one:
        scripted.suback_code = 0x80
        with pytest.raises(BrokerRefused, match="refuses a filter: Unspecified error"):
            await one.subscribe("secret/#", lambda _: None)
        scripted.suback_code = 0
        await one.subscribe("secret/#", lambda _: None)


async def test_many_filters_are_in_force_before_the_connection_is_announced(
    scripted: Scripted, connect: Connect
) -> None:
    changes: asyncio.Queue[bool] = asyncio.Queue()
    async with connect() as one:
        for number in range(130):
            await one.subscribe(f"many/{number}", lambda _: None)
        one.on_connection(lambda change: changes.put_nowait(change.connected))
        scripted.suback_code = 0x80
        reports: asyncio.Queue[str] = asyncio.Queue()
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reports.put_nowait(str(context["exception"]))
        )
        scripted.write(b"\xf0\x00")
        refused_at: set[int] = set()
        async with asyncio.timeout(PATIENCE_S):
            while len(refused_at) < 2:  # given up, and tried again
                assert "refuses a filter" in await reports.get()
                refused_at.add(scripted.connections)
        assert not one.connected
        scripted.suback_code = 0
        async with asyncio.timeout(PATIENCE_S):
            while not await changes.get():
                pass
