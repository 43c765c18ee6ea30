"""The man in the middle does what the tests need of it, between real clients and a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from aif.transport.base import Received
from aif.transport.embedded_broker import EmbeddedBroker
from aif.transport.faults import Delivery, Fault
from aif.transport.mqtt import MQTTTransport
from tests.adversary.arena import QUICK
from tests.adversary.hostile_client import HostileClient
from tests.adversary.proxy import Proxy

pytestmark = pytest.mark.integration
Journey = Callable[[Proxy, MQTTTransport, HostileClient], Awaitable[None]]
TOPIC = "aif/ch/w/a/p"


def run(folder: Path, journey: Journey, *rules: Fault) -> None:
    """One sender straight at the broker, one receiver behind the proxy."""

    async def whole() -> None:
        async with EmbeddedBroker(folder / "broker.log") as broker, Proxy(broker.address) as proxy:
            proxy.faults.extend(rules)
            receiver = HostileClient(MQTTTransport(proxy.address, client_id="receiver", backoff=QUICK))
            async with MQTTTransport(broker.address, client_id="sender") as sender:
                try:
                    await receiver.start()
                    await journey(proxy, sender, receiver)
                finally:
                    await receiver.transport.aclose()

    asyncio.run(whole())


async def send(sender: MQTTTransport, *payloads: bytes) -> None:
    for payload in payloads:
        await sender.publish(TOPIC, payload, qos=1)


def test_what_passes_is_recorded_and_unchanged(tmp_path: Path) -> None:
    async def journey(proxy: Proxy, sender: MQTTTransport, receiver: HostileClient) -> None:
        sent = [b"", b"a", bytes(100_000)]
        await send(sender, *sent)
        await receiver.until(lambda: len(receiver.heard(TOPIC)) == 3)
        assert receiver.heard(TOPIC) == sent
        assert [message.payload for _, message in proxy.to_clients] == sent
        await receiver.transport.publish("aif/ch/w/a/q", b"back", qos=1)
        assert [(who, message.payload) for who, message in proxy.to_broker] == [("receiver", b"back")]

    run(tmp_path, journey)


def test_dropped_messages_are_gone_although_the_broker_saw_them_confirmed(tmp_path: Path) -> None:
    """More of them than a broker keeps in flight: without the proxy's confirmations it would stop sending."""

    def drop_all_but_last(delivery: Delivery) -> tuple[Delivery, ...]:
        return (delivery,) if delivery.message.payload == b"last" else ()

    async def journey(proxy: Proxy, sender: MQTTTransport, receiver: HostileClient) -> None:
        await receiver.transport.subscribe("other/#", lambda _: None, qos=1)
        for n in range(300):
            await sender.publish("other/x", b"%d" % n, qos=1)
        await send(sender, b"last")
        await receiver.until(lambda: receiver.heard(TOPIC) == [b"last"])
        assert proxy.dropped == 300

    run(tmp_path, journey, drop_all_but_last)


def test_duplicates_delays_and_injections_arrive(tmp_path: Path) -> None:
    def twice_and_late(delivery: Delivery) -> tuple[Delivery, ...]:
        late = Delivery(delivery.sender, delivery.receiver, delivery.message, 0.05)
        return (late, late) if delivery.message.payload == b"1" else (delivery,)

    async def journey(proxy: Proxy, sender: MQTTTransport, receiver: HostileClient) -> None:
        await send(sender, b"1", b"2")
        await receiver.until(lambda: len(receiver.heard(TOPIC)) == 3)
        assert receiver.heard(TOPIC) == [b"2", b"1", b"1"]
        proxy.inject("receiver", Received(TOPIC, b"3", qos=1, retained=True))
        await receiver.until(lambda: len(receiver.heard(TOPIC)) == 4)
        assert receiver.recorded[-1].retained

    run(tmp_path, journey, twice_and_late)


def test_a_cut_client_comes_back(tmp_path: Path) -> None:
    async def journey(proxy: Proxy, sender: MQTTTransport, receiver: HostileClient) -> None:
        back = asyncio.Event()
        receiver.transport.on_connection(lambda change: back.set() if change.connected else None)
        assert proxy.cut("receiver") == 1
        assert proxy.cut("nobody") == 0
        await back.wait()
        await send(sender, b"again")
        await receiver.until(lambda: receiver.heard(TOPIC) == [b"again"])

    run(tmp_path, journey)
