"""Faults on demand, each of them repeatable and visible."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from aif.errors import BrokerRefused, LocalProtocolError, NotConnected, PublishTimeout, TransportError
from aif.transport.base import LastWill
from aif.transport.faults import Delivery, Fault, delay, drop, duplicate
from aif.transport.memory import MemoryBroker, MemoryTransport

Collector = Any  # tests/transport/conftest.py


async def pair(broker: MemoryBroker) -> tuple[MemoryTransport, MemoryTransport]:
    one, other = MemoryTransport(broker, client_id="one"), MemoryTransport(broker, client_id="other")
    await one.connect()
    await other.connect()
    return one, other


async def run(faults: list[Fault], collector: Collector, number: int = 200) -> list[int]:
    broker, got = MemoryBroker(), collector()
    one, other = await pair(broker)
    await other.subscribe("t", got, qos=1)
    await other.subscribe("end", got, qos=1)
    broker.faults.extend(faults)
    for index in range(number):
        one.send("t", index.to_bytes(2), qos=1)
    await asyncio.sleep(0.02)  # loop time; held-back messages are due before
    broker.faults.clear()
    one.send("end", b"end")
    await got.payload(b"end")
    assert broker.dropped == number - len(set(got.payloads[:-1]))
    return [int.from_bytes(payload) for payload in got.payloads[:-1]]


async def test_faults_repeat_with_their_seed(collector: Collector) -> None:
    def faults(seed: int) -> list[Fault]:
        rng = random.Random(seed)
        return [drop(0.2, rng), duplicate(0.2, rng)]

    first = await run(faults(1), collector)
    assert first == await run(faults(1), collector)
    assert first != await run(faults(2), collector)
    assert len(set(first)) < 200
    assert len(first) > len(set(first))


async def test_delay_lets_later_messages_overtake(collector: Collector) -> None:
    order = await run([delay(0.3, 0.01, random.Random(3))], collector)
    assert sorted(order) == list(range(200))
    assert order != list(range(200))


async def test_a_copy_at_qos_1_says_so(collector: Collector) -> None:
    broker, got = MemoryBroker(), collector()
    one, other = await pair(broker)
    await other.subscribe("t", got, qos=1)
    broker.faults.append(duplicate(1.0, random.Random(0)))
    one.send("t", b"", qos=1)
    one.send("t", b"", qos=0)
    assert [message.duplicate for message in await got.count(4)] == [False, True, False, False]


async def test_an_editor_may_forge_swap_and_drop(collector: Collector) -> None:
    broker, got = MemoryBroker(), collector()
    one, other = await pair(broker)
    await other.subscribe("t/#", got, qos=1)

    def edit(delivery: Delivery) -> Iterable[Delivery]:
        if delivery.message.payload == b"drop":
            return
        assert (delivery.sender, delivery.receiver) == ("one", "other")
        yield replace(delivery, message=delivery.message._replace(payload=b"forged"))
        yield replace(delivery, message=delivery.message._replace(topic="t/elsewhere"))

    broker.faults.append(edit)
    one.send("t/here", b"drop")
    one.send("t/here", b"true")
    assert [(m.topic, m.payload) for m in await got.count(2)] == [
        ("t/here", b"forged"),
        ("t/elsewhere", b"true"),
    ]
    assert broker.dropped == 1


@pytest.mark.parametrize("cut_off", ["one", "other"])
async def test_partition(collector: Collector, cut_off: str) -> None:
    broker, got = MemoryBroker(), collector()
    one, other = await pair(broker)
    await other.subscribe("t", got, qos=1)
    broker.partition(cut_off)
    one.send("t", b"lost", qos=0)
    waiting = asyncio.ensure_future(one.publish("t", b"held"))
    await asyncio.sleep(0)
    assert one.connected
    assert other.connected
    broker.heal(cut_off)
    await waiting
    await got.payload(b"held")
    assert got.payloads == [b"held"]
    assert broker.dropped == 1


async def test_calls_into_a_partition_time_out(collector: Collector) -> None:
    broker = MemoryBroker()
    one, _ = await pair(broker)
    broker.partition("one")
    with pytest.raises(PublishTimeout, match="did not confirm a message on t"):
        await one.publish("t", b"", timeout=0.01)
    with pytest.raises(TransportError, match="no answer to the subscription to t"):
        await one.subscribe("t", collector(), timeout=0.01)
    subscribing = asyncio.ensure_future(one.subscribe("t", collector()))
    await asyncio.sleep(0)
    broker.heal("one")
    assert (await subscribing).topic_filter == "t"


async def test_severed_and_healed(collector: Collector) -> None:
    broker, got, wills = MemoryBroker(), collector(), collector()
    one, other = await pair(broker)
    weak = MemoryTransport(broker, client_id="weak", will=LastWill("will", b"weak", retain=True))
    changes: list[bool] = []
    weak.on_connection(lambda change: changes.append(change.connected))
    await weak.connect()
    await weak.subscribe("t", got, qos=1)
    await one.subscribe("will", wills)
    await other.publish("state", b"kept", retain=True)
    broker.sever("weak")
    await wills.payload(b"weak")
    with pytest.raises(NotConnected):
        weak.send("t", b"")
    await other.publish("t", b"missed")
    broker.heal("weak")
    await other.publish("t", b"seen")
    await got.payload(b"seen")
    assert got.payloads == [b"seen"]
    assert changes == [True, False, True]
    assert weak.statistics.reconnects == 1


async def test_broker_stops_and_starts(collector: Collector) -> None:
    broker, got, late = MemoryBroker(), collector(), collector()
    one, other = await pair(broker)
    await other.subscribe("t", got)
    await one.publish("state", b"forgotten", retain=True)
    broker.stop()
    assert not one.connected
    with pytest.raises(BrokerRefused, match="not reachable"):
        await MemoryTransport(broker).connect()
    broker.start()
    await one.publish("t", b"after")
    await got.payload(b"after")
    await other.subscribe("state", late)
    await one.publish("state", b"sentinel")
    await late.payload(b"sentinel")
    assert late.payloads == [b"sentinel"]
    assert one.statistics.reconnects == 1


async def test_a_waiting_sender_hears_of_the_end() -> None:
    broker = MemoryBroker()
    one, _ = await pair(broker)
    broker.partition("one")
    waiting = asyncio.ensure_future(one.publish("t", b""))
    await asyncio.sleep(0)
    broker.sever("one")
    with pytest.raises(NotConnected, match="the connection broke"):
        await waiting


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_have_bounds(share: float) -> None:
    rng, wrong = random.Random(0), "is not between 0 and 1"
    with pytest.raises(LocalProtocolError, match=wrong):
        drop(share, rng)
    with pytest.raises(LocalProtocolError, match=wrong):
        duplicate(share, rng)
    with pytest.raises(LocalProtocolError, match=wrong):
        delay(share, 1.0, rng)
