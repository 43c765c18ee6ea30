"""A list of brokers: both clients go on at the next one when one is lost, and say so when none is left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from aif.errors import BrokerRefused, TransportError
from aif.transport.address import MAX_BROKERS, BrokerAddress, Rotation, broker_addresses
from aif.transport.backoff import Backoff
from aif.transport.fast import FastTransport
from aif.transport.mqtt import MQTTTransport

Mosquitto = Any  # tests/transport/conftest.py
Client = type[MQTTTransport] | type[FastTransport]
QUICK = Backoff(first_s=0.02, longest_s=0.1)


@pytest.fixture(params=[MQTTTransport, FastTransport])
def client(request: pytest.FixtureRequest) -> Client:
    kind: Client = request.param
    return kind


@pytest.mark.integration
async def test_a_client_goes_on_at_the_next_broker_and_comes_back(
    tmp_path: Path, mosquitto: Mosquitto, client: Client, collector: Any
) -> None:
    def another(name: str) -> Mosquitto:
        (tmp_path / name).mkdir()
        return type(mosquitto)(tmp_path / name)

    second, got = another("second"), collector()
    changes: asyncio.Queue[bool] = asyncio.Queue()

    async def until(*, up: bool) -> None:
        async with asyncio.timeout(60):
            while await changes.get() is not up:
                pass

    async def exchange(text: bytes) -> None:
        await one.publish("there", text)
        await got.payload(text)

    async with second:
        brokers = [mosquitto.address, second.address]
        one = client(brokers, client_id="one", backoff=QUICK, rng=random.Random(1))
        async with one:
            one.on_connection(lambda change: changes.put_nowait(change.connected))
            await one.subscribe("there", got, qos=1)
            await exchange(b"over the first")
            os.kill(mosquitto.pid, signal.SIGKILL)
            await until(up=False)
            await until(up=True)
            await exchange(b"over the second")
            first_again = another("first again")
            first_again.port = mosquitto.port
            async with first_again:
                os.kill(second.pid, signal.SIGKILL)
                await until(up=False)
                await until(up=True)
                await exchange(b"over the first again")
            assert got.payloads == [b"over the first", b"over the second", b"over the first again"]
            assert one.statistics.reconnects == 2


@pytest.mark.integration
async def test_connecting_tries_each_broker_once(mosquitto: Mosquitto, client: Client) -> None:
    nobody = [BrokerAddress("127.0.0.1", 1), BrokerAddress("127.0.0.1", 2)]
    async with client([*nobody, mosquitto.address], backoff=QUICK) as one:
        assert one.connected
    with pytest.raises(BrokerRefused, match=r"127\.0\.0\.1:2"):
        await client(nobody, backoff=QUICK).connect()


def test_a_list_is_read_and_bounded() -> None:
    assert broker_addresses("mqtts://a, mqtts://b:1") == (
        BrokerAddress("a", 8883, tls=True), BrokerAddress("b", 1, tls=True),
    )  # fmt: skip
    assert len(broker_addresses(",".join(f"mqtt://h{n}" for n in range(MAX_BROKERS)))) == MAX_BROKERS
    for wrong, why in (
        (",".join(f"mqtt://h{n}" for n in range(MAX_BROKERS + 1)), "more than 16"),
        ("mqtt://a,mqtt://a", "twice"),
        ("mqtts://a,mqtt://b", "some brokers are reached with TLS"),
        ("mqtt://a,", "no scheme"),
    ):
        with pytest.raises(TransportError, match=why):
            broker_addresses(wrong)
    with pytest.raises(TransportError, match="0 brokers"):
        Rotation([])


def test_after_the_last_comes_the_first() -> None:
    rotation, seen = Rotation("mqtt://a,mqtt://b"), []
    for _ in range(5):
        seen.append(rotation.current.host)
        rotation.advance()
    assert seen == ["a", "b", "a", "b", "a"]
