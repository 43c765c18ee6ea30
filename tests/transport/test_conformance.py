"""One contract, three ways: the memory broker, the embedded broker and Mosquitto."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from aif.errors import LocalProtocolError, MessageTooLarge, NotConnected
from aif.transport.base import MAX_PAYLOAD_BYTES, LastWill, Limits, Received
from aif.transport.filters import MAX_TOPIC_BYTES

Bench = Any  # tests/transport/conftest.py
Collector = Any


class TestConformance:
    @pytest.mark.parametrize("qos", [0, 1])
    async def test_all_arrive_in_order(self, bench: Bench, collector: Collector, qos: int) -> None:
        one, other, got = await bench.open("one"), await bench.open("other"), collector()
        await other.subscribe("order", got, qos=1)
        for number in range(300):
            one.send("order", str(number).encode(), qos=qos)
        await got.count(300)
        assert [int(payload) for payload in got.payloads] == list(range(300))
        assert {message.qos for message in got.messages} == {bench.delivered_qos(qos, 1)}
        assert one.statistics.sent == other.statistics.received == 300
        assert other.statistics.received_bytes == one.statistics.sent_bytes == 10 + 180 + 600

    @pytest.mark.parametrize(("published", "subscribed"), [(0, 1), (1, 0), (1, 1), (0, 0)])
    async def test_the_lower_qos_wins(
        self, bench: Bench, collector: Collector, published: int, subscribed: int
    ) -> None:
        one, got = await bench.open("one"), collector()
        await one.subscribe("qos", got, qos=subscribed)
        await one.publish("qos", b"x", qos=published)
        assert await got.count(1) == [Received("qos", b"x", bench.delivered_qos(published, subscribed))]

    async def test_retained_is_for_late_subscribers(self, bench: Bench, collector: Collector) -> None:
        one, other, live, late, after = (
            await bench.open("one"),
            await bench.open("other"),
            collector(),
            collector(),
            collector(),
        )
        await one.subscribe("state/+", live, qos=1)
        await one.publish("state/a", b"old", retain=True)
        await one.publish("state/a", b"new", retain=True)
        assert [message.retained for message in await live.count(2)] == [False, False]
        subscription = await other.subscribe("state/+", late, qos=1)
        assert [(m.payload, m.retained) for m in await late.count(1)] == [(b"new", True)]
        await subscription.aclose()
        await one.publish("state/a", b"", retain=True)
        third = await bench.open("third")
        await third.subscribe("state/+", after, qos=1)
        await one.publish("state/b", b"sentinel")
        await after.payload(b"sentinel")
        assert after.payloads == [b"sentinel"]

    async def test_last_will(self, bench: Bench, collector: Collector) -> None:
        watcher, got = await bench.open("watcher"), collector()
        await watcher.subscribe("will/#", got, qos=1)
        polite = await bench.open("polite", will=LastWill("will/polite", b"never"))
        await polite.aclose()
        doomed = await bench.open("doomed", will=LastWill("will/doomed", b"gone", qos=1))
        bench.crash(doomed)
        assert [(m.topic, m.payload, m.qos) for m in await got.count(1)] == [("will/doomed", b"gone", 1)]

    async def test_wildcards(self, bench: Bench, collector: Collector) -> None:
        one, level, tree = await bench.open("one"), collector(), collector()
        await one.subscribe("w/+/x", level, qos=1)
        await one.subscribe("v/#", tree, qos=1)
        for topic in ("w/1/x", "w/1/y", "w/1/x/z", "w/x", "v", "v/1", "v/1/2", "vv"):
            await one.publish(topic, topic.encode())
        await one.publish("w/end/x", b"end")
        await one.publish("v/end", b"end")
        await level.payload(b"end")
        await tree.payload(b"end")
        assert level.payloads == [b"w/1/x", b"end"]
        assert tree.payloads == [b"v", b"v/1", b"v/1/2", b"end"]
        assert one.statistics.unmatched == 0

    async def test_unsubscribed_is_silent(self, bench: Bench, collector: Collector) -> None:
        one, got, rest = await bench.open("one"), collector(), collector()
        subscription = await one.subscribe("u/1", got, qos=1)
        await one.subscribe("u/2", rest, qos=1)
        await one.publish("u/1", b"first")
        await got.count(1)
        await subscription.aclose()
        await subscription.aclose()
        await one.publish("u/1", b"second")
        await one.publish("u/2", b"sentinel")
        await rest.count(1)
        assert got.payloads == [b"first"]
        assert one.statistics.unmatched == 0  # the broker knows, it is not only us who ignore it
        again = collector()
        await one.subscribe("u/1", again, qos=1)
        await one.publish("u/1", b"third")
        await again.payload(b"third")

    async def test_oversize_is_refused_here(self, bench: Bench, collector: Collector) -> None:
        one, got = await bench.open("one", limits=Limits(max_payload_bytes=1_000)), collector()
        await one.subscribe("big", got, qos=1)
        with pytest.raises(
            MessageTooLarge, match="message on big has 1,001 B, at most 1,000 B can be carried"
        ):
            one.send("big", bytes(1_001))
        with pytest.raises(MessageTooLarge):
            await one.publish("big", bytes(1_001))
        await one.publish("big", bytes(1_000))
        await got.count(1)
        assert one.connected
        assert one.statistics.reconnects == 0
        assert one.statistics.sent == 1
        with pytest.raises(MessageTooLarge):
            bench.make("late", will=LastWill("w", bytes(1_001)), limits=Limits(max_payload_bytes=1_000))

    @pytest.mark.parametrize("qos", [0, 1])
    @pytest.mark.parametrize("size_bytes", [0, 1, 524_288, MAX_PAYLOAD_BYTES])
    async def test_sizes(self, bench: Bench, collector: Collector, size_bytes: int, qos: int) -> None:
        one, other, got = await bench.open("one"), await bench.open("other"), collector()
        topic = "s" * MAX_TOPIC_BYTES  # with the largest payload this is the largest packet
        await other.subscribe(topic, got, qos=qos)
        payload = hashlib.shake_128(b"content").digest(size_bytes)
        await one.publish(topic, payload, qos=qos)
        assert await got.count(1) == [Received(topic, payload, qos)]

    async def test_a_failing_handler_is_reported_and_the_next_message_comes(
        self, bench: Bench, collector: Collector
    ) -> None:
        one, got, reports = await bench.open("one"), collector(), []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

        def handler(message: Received) -> None:
            got(message)
            if message.payload == b"bad":
                raise ValueError("handler")

        await one.subscribe("h", handler, qos=1)
        await one.publish("h", b"bad")
        await one.publish("h", b"good")
        await got.count(2)
        assert [str(report["exception"]) for report in reports] == ["handler"]
        assert one.statistics.handler_errors == 1
        assert one.connected

    async def test_a_topic_has_one_handler(self, bench: Bench, collector: Collector) -> None:
        one, got = await bench.open("one"), collector()
        await one.subscribe("o/+", got)
        with pytest.raises(LocalProtocolError, match=r"'o/#' overlaps 'o/\+' on the same connection"):
            await one.subscribe("o/#", got)
        await one.publish("o/1", b"x")
        await got.count(1)

    @pytest.mark.parametrize("call", ["send", "publish", "subscribe"])
    async def test_without_a_connection(self, bench: Bench, collector: Collector, call: str) -> None:
        one = bench.make("one")

        async def attempt() -> None:
            if call == "send":
                one.send("t", b"")
            elif call == "publish":
                await one.publish("t", b"")
            else:
                await one.subscribe("t", collector())

        for _ in ("before", "after"):
            with pytest.raises(NotConnected, match="there is no connection"):
                await attempt()
            await one.aclose()
        with pytest.raises(LocalProtocolError, match="a transport connects once"):
            await one.connect()

    async def test_cancelled_calls_leave_no_trace(self, bench: Bench, collector: Collector) -> None:
        one, got = await bench.open("one"), collector()
        for call in (one.subscribe("c", got, qos=1), one.publish("c", b"cancelled?", qos=1)):
            task = asyncio.ensure_future(call)
            asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.wait({task})
        await one.subscribe("c/#", got, qos=1)
        await one.publish("c", b"kept")
        await got.payload(b"kept")

    async def test_connection_changes_are_told(self, bench: Bench) -> None:
        one, seen = bench.make("one"), []
        forget = one.on_connection(lambda change: seen.append(change.connected))
        one.on_connection(lambda change: seen.append(change.reason))
        await one.connect()
        forget()
        await one.aclose()
        assert [entry for entry in seen if isinstance(entry, bool)] == [True]
        assert seen[-1] == "closed by this program"

    async def test_a_second_client_with_the_same_id_takes_over(
        self, bench: Bench, collector: Collector
    ) -> None:
        watcher, got = await bench.open("watcher"), collector()
        await watcher.subscribe("over", got, qos=1)
        first = await bench.open("same", will=LastWill("over", b"first went"))
        went = asyncio.Event()
        first.on_connection(lambda _: went.set())
        await bench.open("same")
        async with asyncio.timeout(20):
            await went.wait()
        await first.aclose()
        await got.payload(b"first went")
