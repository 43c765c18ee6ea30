"""Who is taken for a broker without delay, and what must not lie unread behind one."""

from __future__ import annotations

import asyncio
import random
import select
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aif.transport.backoff import Backoff
from aif.transport.base import Limits, Received
from aif.transport.embedded_broker import EmbeddedBroker
from aif.transport.fast import FastTransport
from aif.transport.wakeups import TRIES, Wakeups

PATIENCE_S = 60.0
Scripted = Any  # tests/transport/conftest.py
Mosquitto = Any
Collector = Any

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets few bytes lie")


def client(broker: Any, **options: Any) -> FastTransport:
    quick = Backoff(first_s=0.02, longest_s=0.1)
    return FastTransport(broker.address, backoff=quick, rng=random.Random(1), **options)


def wakes_at(one: FastTransport) -> int:
    """Bytes that must lie there to wake the client."""
    assert one.socket is not None
    return one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.005)  # between two looks


# --- what counts as shown ------------------------------------------------------------------------------


@contextmanager
def connected(*, delays: bool) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end and a broker's, which has Nagle's algorithm or not."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as us,
    ):
        broker, _ = server.accept()
        with broker:
            us.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not delays)
            yield us, broker


def read(us: socket.socket, wakeups: Wakeups) -> int:
    assert select.select([us], [], [], PATIENCE_S)[0]
    wakeups.reading()
    size_bytes = len(us.recv(100_000))
    wakeups.read(size_bytes)
    return size_bytes


def confirm(us: socket.socket, broker: socket.socket, wakeups: Wakeups) -> None:
    """A message at QoS 1 and its acknowledgement, read by itself."""
    wakeups.writing(newest=True)
    us.sendall(b"message")
    broker.recv(100)
    broker.sendall(b"\x40\x02\x00\x01")
    read(us, wakeups)
    wakeups.answer_nothing(alone=True)


def exchange(us: socket.socket, broker: socket.socket, wakeups: Wakeups, second: bytes) -> None:
    """A message at QoS 1, its acknowledgement, and another message from the broker."""
    confirm(us, broker, wakeups)
    broker.sendall(second)
    rest = len(second)
    while rest:
        rest -= read(us, wakeups)


@pytest.mark.parametrize("delays", [False, True])
def test_a_broker_is_prompt_if_it_does_not_wait_for_acknowledgements(delays: bool) -> None:
    with connected(delays=delays) as (us, broker):
        wakeups = Wakeups(us)
        for _ in range(TRIES + 2):
            exchange(us, broker, wakeups, bytes(100))
    assert wakeups.prompt is not delays


def test_large_packets_show_nothing() -> None:
    """Nagle's algorithm lets whole segments pass."""
    with connected(delays=False) as (us, broker):
        wakeups = Wakeups(us)
        for _ in range(TRIES + 2):
            exchange(us, broker, wakeups, bytes(600))
    assert not wakeups.prompt


def test_what_was_acknowledged_by_an_answer_shows_nothing() -> None:
    with connected(delays=True) as (us, broker):
        wakeups = Wakeups(us)
        for _ in range(TRIES):
            confirm(us, broker, wakeups)
            us.sendall(b"at QoS 0, so that nobody is told")
            broker.sendall(bytes(100))
            read(us, wakeups)
    assert not wakeups.prompt


def test_what_was_written_after_the_message_shows_nothing() -> None:
    """It may acknowledge a PUBACK that has come and is not read yet; then the broker that delays sends on."""
    with connected(delays=True) as (us, broker):
        wakeups = Wakeups(us)
        for _ in range(TRIES):
            wakeups.writing(newest=True)
            us.sendall(b"message")
            broker.sendall(b"\x40\x02\x00\x01")
            assert select.select([us], [], [], PATIENCE_S)[0]
            wakeups.writing(newest=False)
            us.sendall(b"at QoS 0")
            read(us, wakeups)
            wakeups.answer_nothing(alone=True)
            broker.sendall(bytes(100))
            read(us, wakeups)
    assert not wakeups.prompt


def test_without_a_socket_every_byte_wakes() -> None:
    wakeups = Wakeups(None)
    wakeups.writing(newest=True)
    wakeups.reading()
    wakeups.read(4)
    wakeups.answer_nothing(alone=True)
    wakeups.often()
    assert (wakeups.prompt, wakeups.rare) == (False, False)


# --- between two clients -------------------------------------------------------------------------------


async def play(one: FastTransport, other: FastTransport, trips: int) -> set[int]:
    """Back and forth at QoS 1, each answer from within the last arrival; how many bytes woke ``one``."""
    over, count, woken_at = asyncio.Event(), 0, set[int]()

    def again(received: Received) -> None:
        nonlocal count
        count += 1
        woken_at.add(wakes_at(one))
        if count < trips:
            one.send("there", received.payload, qos=1)
        else:
            over.set()

    there = await other.subscribe("there", lambda got: other.send("back", got.payload, qos=1), qos=1)
    back = await one.subscribe("back", again, qos=1)
    one.send("there", b"x", qos=1)
    async with asyncio.timeout(PATIENCE_S):
        await over.wait()
        await there.aclose()  # UNSUBACK is as short as PUBACK
        await back.aclose()
    return woken_at


@pytest.mark.integration
async def test_acknowledgements_lie_until_somebody_waits_for_one(mosquitto: Mosquitto) -> None:
    async with client(mosquitto) as one, client(mosquitto) as other, asyncio.timeout(PATIENCE_S):
        while 5 not in await play(one, other, 50):
            pass  # every acknowledgement came together with a message, which shows nothing
        await one.publish("sure", b"")
    assert one.statistics.dropped_outgoing == other.statistics.dropped_outgoing == 0


@pytest.mark.integration
async def test_a_broker_that_delays_is_acknowledged_at_once(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "broker.log")
    await broker.start()
    try:
        async with client(broker) as one, client(broker) as other:
            assert await play(one, other, 3 * TRIES) == {1}
            assert wakes_at(other) == 1
    finally:
        await broker.stop()


# --- what must not lie ---------------------------------------------------------------------------------


@pytest.fixture
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies unread lies for ever unless somebody says that it is waited for."""
    monkeypatch.setattr("aif.transport.fast_link.LIES_S", 3_600.0)


def publish(payload: bytes) -> bytes:
    return bytes((0x30, 3 + len(payload))) + b"\0\1t" + payload


async def until_acknowledgements_lie(one: FastTransport, scripted: Scripted, got: Collector) -> int:
    """Let the peer show that it does not delay; packet id of a message that it still owes a PUBACK."""
    await one.subscribe("t", got)
    number = 0
    for number in range(1, TRIES + 1):
        await one.publish("shown", b"", timeout=PATIENCE_S)
        scripted.write(publish(b"%d" % number))
        await got.payload(b"%d" % number)
    scripted.acknowledges = False
    one.send("owed", b"", qos=1)
    await scripted.until(lambda: len(scripted.published) == number + 1)
    scripted.write(publish(b"last"))
    await got.payload(b"last")
    await until(lambda: wakes_at(one) == 5)
    return int(scripted.published[-1][0])


@pytest.mark.usefixtures("nobody_looks")
async def test_the_end_of_a_packet_wakes(scripted: Scripted, collector: Collector) -> None:
    got = collector()
    async with client(scripted, keep_alive_s=3_600) as one:
        await until_acknowledgements_lie(one, scripted, got)
        whole = publish(b"in two parts")
        scripted.write(publish(b"before") + whole[:-2])
        await got.payload(b"before")
        scripted.write(whole[-2:])
        await got.payload(b"in two parts")


@pytest.mark.usefixtures("nobody_looks")
async def test_a_confirmation_that_is_waited_for_wakes(scripted: Scripted, collector: Collector) -> None:
    async with client(scripted, keep_alive_s=3_600) as one:
        await until_acknowledgements_lie(one, scripted, collector())
        scripted.acknowledges = True
        await one.publish("sure", b"", timeout=PATIENCE_S)


@pytest.mark.usefixtures("nobody_looks")
async def test_room_that_is_waited_for_wakes(scripted: Scripted, collector: Collector) -> None:
    async with client(scripted, keep_alive_s=3_600, limits=Limits(outgoing_messages=1)) as one:
        owed = await until_acknowledgements_lie(one, scripted, collector())
        scripted.write(b"\x40\x02" + owed.to_bytes(2))
        scripted.acknowledges = True
        await one.publish("next", b"", timeout=PATIENCE_S)


async def test_no_acknowledgement_lies_for_long(scripted: Scripted, collector: Collector) -> None:
    async with client(scripted, keep_alive_s=3_600) as one:
        owed = await until_acknowledgements_lie(one, scripted, collector())
        scripted.write(b"\x40\x02" + owed.to_bytes(2))
        await until(lambda: wakes_at(one) == 1)
        await asyncio.sleep(0)  # the turn that reads it
    assert one.statistics.dropped_outgoing == 0
