"""The loop's own MQTT client: what a connection can get wrong. The contract is in test_conformance.py."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import random
import signal
import socket
import ssl
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from aif.errors import BrokerRefused, LocalProtocolError, NotConnected, PublishTimeout, TransportError
from aif.transport.address import BrokerAddress
from aif.transport.backoff import Backoff
from aif.transport.base import ConnectionChange, Limits, Received
from aif.transport.confirmations import MAX_IN_FLIGHT
from aif.transport.embedded_broker import EmbeddedBroker
from aif.transport.fast import FastTransport
from aif.transport.fast_link import BATCH_PACKETS

PATIENCE_S = 60.0
QUICK = Backoff(first_s=0.02, longest_s=0.1)
Scripted = Any  # tests/transport/conftest.py
Mosquitto = Any
Collector = Any


class Watch:
    """The changes of a connection, one after the other, as something to wait for."""

    def __init__(self, transport: FastTransport) -> None:
        self._changes: asyncio.Queue[ConnectionChange] = asyncio.Queue()
        transport.on_connection(self._changes.put_nowait)

    async def until(self, *, connected: bool) -> str:
        async with asyncio.timeout(PATIENCE_S):
            while (change := await self._changes.get()).connected != connected:
                pass
        return change.reason


def client(broker: Any, client_id: str = "", **options: Any) -> FastTransport:
    return FastTransport(broker.address, client_id=client_id, backoff=QUICK, rng=random.Random(1), **options)


def publish(topic: bytes, payload: bytes, *, qos: int = 0, packet_id: int = 1) -> bytes:
    body = len(topic).to_bytes(2) + topic + (packet_id.to_bytes(2) if qos else b"") + payload
    assert len(body) < 128
    return bytes((0x30 | qos << 1, len(body))) + body


# --- connecting ---------------------------------------------------------------------------------------


async def test_tcp_nodelay_is_set_again_after_a_reconnect(scripted: Scripted) -> None:
    async with client(scripted) as one:
        watch = Watch(one)
        for attempt in range(2):
            assert one.socket is not None
            assert one.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            if attempt == 0:
                one.socket.shutdown(socket.SHUT_RDWR)
                await watch.until(connected=False)
                await watch.until(connected=True)
    assert scripted.connections == 2
    assert one.statistics.reconnects == 1


async def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(BrokerRefused) as caught:
        await FastTransport(f"mqtt://127.0.0.1:{port}").connect()
    assert str(caught.value) == f"no MQTT connection to 127.0.0.1:{port}: Connection refused"


async def test_unknown_host() -> None:
    with pytest.raises(BrokerRefused, match=r"no MQTT connection to host\.invalid:1883: "):
        await FastTransport("mqtt://host.invalid").connect()


async def test_a_silent_peer(scripted: Scripted) -> None:
    scripted.answers_connect = False
    with pytest.raises(BrokerRefused, match=r"no answer within 0\.2 s"):
        await client(scripted, connect_timeout_s=0.2).connect()


async def test_a_broker_that_says_no(scripted: Scripted) -> None:
    scripted.connack_code = 5
    with pytest.raises(BrokerRefused, match="the broker says: Not authorized"):
        await client(scripted).connect()


async def test_cancelled_while_connecting(scripted: Scripted) -> None:
    scripted.answers_connect = False
    task = asyncio.ensure_future(client(scripted).connect())
    await scripted.until(lambda: scripted.connections == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closing_ends_the_wait_for_a_retry(scripted: Scripted) -> None:
    one = FastTransport(scripted.address, backoff=Backoff(first_s=3_600.0, longest_s=3_600.0))
    async with one:
        watch = Watch(one)
        scripted.write(b"\xff\xff\xff\xff\xff\xff")
        assert "more than four bytes" in await watch.until(connected=False)
    assert one.statistics.reconnects == 0


async def test_a_broker_that_falls_silent_is_given_up(scripted: Scripted) -> None:
    async with client(scripted, keep_alive_s=1) as one:  # it never answers PINGREQ
        assert "the broker was silent" in await Watch(one).until(connected=False)


@pytest.mark.parametrize("keep_alive_s", [0, -1, 65_536])
def test_keep_alive_has_bounds(keep_alive_s: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"keep_alive_s is {keep_alive_s}, allowed are 1 to 65535"):
        FastTransport("mqtt://localhost", keep_alive_s=keep_alive_s)


def test_a_tls_context_never_ends_in_plain_text() -> None:
    with pytest.raises(LocalProtocolError, match="mqtt://localhost:1883 would not use the TLS context"):
        FastTransport("mqtt://localhost", tls=ssl.create_default_context())


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Certificate and key for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now, loopback = dt.datetime.now(dt.UTC), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
    built = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
        key, hashes.SHA256()
    )
    certificate, secret = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, secret


@pytest.mark.integration
async def test_tls(tmp_path: Path, mosquitto: Mosquitto, collector: Collector) -> None:
    certificate, key = self_signed(tmp_path)
    async with type(mosquitto)(tmp_path, f"certfile {certificate}\nkeyfile {key}\n") as secured:
        address, got = BrokerAddress("127.0.0.1", secured.port, tls=True), collector()
        context = ssl.create_default_context(cafile=str(certificate))
        async with FastTransport(address, tls=context) as one:
            await one.subscribe("tls", got)
            for size in (6, 900_000):
                await one.publish("tls", bytes(size))
            await got.count(2)
            assert [len(payload) for payload in got.payloads] == [6, 900_000]
        with pytest.raises(BrokerRefused, match="not signed by an authority"):
            await FastTransport(address).connect()
        with pytest.raises(BrokerRefused, match="no MQTT connection to"):
            await FastTransport(BrokerAddress("127.0.0.1", secured.port), connect_timeout_s=1.0).connect()


# --- broker dies and comes back -----------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["iotcore", "mosquitto"])
async def test_killed_broker(kind: str, tmp_path: Path, mosquitto: Mosquitto, collector: Collector) -> None:
    broker: Any = mosquitto if kind == "mosquitto" else EmbeddedBroker(tmp_path / "one.log")
    if kind == "iotcore":
        await broker.start()
    got, tree = collector(), collector()
    async with client(broker, "sender") as sender, client(broker, "receiver") as receiver:
        await receiver.subscribe("k/1", got, qos=1)
        await receiver.subscribe("tree/#", tree, qos=1)
        watches = Watch(sender), Watch(receiver)
        await sender.publish("k/1", b"before")
        await got.payload(b"before")

        os.kill(broker.pid, signal.SIGSTOP)
        in_flight = asyncio.ensure_future(sender.publish("k/2", b"in flight", timeout=PATIENCE_S))
        await asyncio.wait({in_flight}, timeout=0)
        os.kill(broker.pid, signal.SIGKILL)
        for watch in watches:
            await watch.until(connected=False)
        with pytest.raises(NotConnected, match="there is no connection to mqtt://"):
            sender.send("k/1", b"lost")

        if kind == "iotcore":
            port = broker.address.port
            await broker.stop()
            broker = EmbeddedBroker(tmp_path / "two.log", port=port)
            await broker.start()
        else:
            await mosquitto.__aexit__(None, None, None)
            await mosquitto.__aenter__()
        for watch in watches:
            await watch.until(connected=True)
        await in_flight  # QoS 1 survives the broker
        await sender.publish("k/1", b"after")
        await sender.publish("tree/a/b", b"after")
        await got.payload(b"after")
        await tree.payload(b"after")
        assert got.payloads == [b"before", b"after"]
        assert sender.statistics.reconnects == receiver.statistics.reconnects == 1
    if kind == "iotcore":
        await broker.stop()


async def test_unconfirmed_messages_are_repeated_in_order_on_the_next_connection(scripted: Scripted) -> None:
    scripted.acknowledges = False
    async with client(scripted) as one:
        watch = Watch(one)
        for _ in range(MAX_IN_FLIGHT + 20):
            one.send("again", b"", qos=1)
        await scripted.until(lambda: len(scripted.published) == MAX_IN_FLIGHT)
        first = [packet_id for packet_id, _ in scripted.published]
        assert one.socket is not None
        one.socket.shutdown(socket.SHUT_RDWR)
        await watch.until(connected=False)
        scripted.acknowledges = True
        await watch.until(connected=True)
        await scripted.until(lambda: len(scripted.published) == 2 * MAX_IN_FLIGHT + 20)
        again = [packet_id for packet_id, _ in scripted.published[MAX_IN_FLIGHT:]]
        assert again[:MAX_IN_FLIGHT] == first
        assert len(set(again)) == MAX_IN_FLIGHT + 20
        await one.publish("last", b"")
    assert one.statistics.dropped_outgoing == 0


# --- bursts and back-pressure -------------------------------------------------------------------------


@pytest.mark.integration
async def test_a_burst_loses_nothing_however_slow_the_handler(
    mosquitto: Mosquitto, collector: Collector
) -> None:
    async with (
        client(mosquitto, "sender") as sender,
        client(mosquitto, "receiver", limits=Limits(incoming_messages=1)) as receiver,
    ):
        got = collector()
        await receiver.subscribe("burst", got)
        for number in range(5_000):
            sender.send("burst", number.to_bytes(2))
        await got.count(5_000)
        assert [int.from_bytes(payload) for payload in got.payloads] == list(range(5_000))
        assert receiver.statistics.dropped_incoming == 0


async def test_other_work_gets_its_turn_between_batches(scripted: Scripted) -> None:
    total, seen, turns = 4 * BATCH_PACKETS, list[Received](), list[int]()
    all_seen = asyncio.Event()

    def count_turns() -> None:
        turns.append(len(seen))
        if len(seen) < total:
            asyncio.get_running_loop().call_soon(count_turns)
        else:
            all_seen.set()

    async with client(scripted) as one:
        await one.subscribe("t", seen.append)
        scripted.write(publish(b"t", b"") * total)
        count_turns()
        async with asyncio.timeout(PATIENCE_S):
            await all_seen.wait()
    assert max(after - before for before, after in pairwise(turns)) <= BATCH_PACKETS


async def test_a_full_queue_refuses_and_counts(scripted: Scripted) -> None:
    scripted.reads_after_connect = False
    one = client(scripted, limits=Limits(outgoing_messages=64))
    await one.connect()

    async def flood() -> None:  # until the kernel's buffers and ours are full
        while True:
            await one.publish("full", bytes(500_000), qos=0, timeout=0.3)

    with pytest.raises(PublishTimeout, match=r"did not confirm a message on full within 0\.3 s"):
        await flood()
    accepted = one.statistics.sent
    with pytest.raises(TransportError, match=r"to mqtt://127.0.0.1:\d+ is full \(64 messages wait\)"):
        one.send("full", bytes(500_000))
    assert one.statistics.refused == 1
    assert one.statistics.sent == accepted
    await one.aclose()
    assert one.statistics.dropped_outgoing == 64


@pytest.mark.parametrize("qos", [0, 1])
async def test_publish_waits_for_room(scripted: Scripted, qos: int) -> None:
    async with client(scripted, limits=Limits(outgoing_messages=4)) as one:
        await asyncio.gather(*(one.publish("room", bytes(10_000), qos=qos) for _ in range(200)))
        await scripted.until(lambda: len(scripted.published) == 200)
        assert one.statistics.refused == 0


async def test_a_qos_1_queue_is_bounded(scripted: Scripted) -> None:
    scripted.acknowledges = False
    async with client(scripted, limits=Limits(outgoing_messages=150)) as one:
        for _ in range(150):
            one.send("q", b"", qos=1)
        with pytest.raises(TransportError, match=r"is full \(150 messages wait\)"):
            one.send("q", b"", qos=1)
        one.send("q", b"", qos=0)
        await scripted.until(lambda: len(scripted.published) == MAX_IN_FLIGHT + 1)


async def test_unconfirmed_messages_end_with_the_transport(scripted: Scripted) -> None:
    scripted.acknowledges = False
    async with client(scripted) as one:
        with pytest.raises(PublishTimeout):
            await one.publish("late", b"", timeout=0.05)
        waiting = asyncio.ensure_future(one.publish("never", b""))
        await scripted.until(lambda: len(scripted.published) == 2)
    with pytest.raises(NotConnected, match="closed by this program"):
        await waiting
    assert one.statistics.dropped_outgoing == 2


async def test_a_packet_id_in_use_is_not_given_again(scripted: Scripted) -> None:
    scripted.acknowledges = False
    async with client(scripted) as one:
        waiting = asyncio.ensure_future(one.publish("sure", b"", timeout=600))
        await scripted.until(lambda: len(scripted.published) == 1)
        taken = scripted.published[0][0]
        scripted.acknowledges = True
        for _ in range(700):
            await asyncio.gather(*(one.publish("more", b"") for _ in range(94)))
        assert taken not in {packet_id for packet_id, _ in scripted.published[1:]}
        assert not waiting.done()
        scripted.write(b"\x40\x02" + taken.to_bytes(2))
        await waiting


# --- hostile or broken peers --------------------------------------------------------------------------


async def test_unusable_messages_are_counted_and_confirmed(scripted: Scripted, collector: Collector) -> None:
    got = collector()
    async with client(scripted, limits=Limits(max_payload_bytes=10)) as one:
        await one.subscribe("#", got, qos=1)
        scripted.write(publish(b"\xff\xfe", b"not UTF-8", qos=1, packet_id=1))
        scripted.write(publish(b"t", bytes(11), qos=1, packet_id=2))
        scripted.write(publish(b"t", b"fine", qos=1, packet_id=3))
        await got.payload(b"fine")
        await scripted.until(lambda: scripted.acknowledged == [1, 2, 3])
    assert one.statistics.dropped_incoming == 2


async def test_confirmed_only_after_the_handler(scripted: Scripted) -> None:
    seen: list[list[int]] = []
    async with client(scripted) as one:
        await one.subscribe("t", lambda _: seen.append(list(scripted.acknowledged)), qos=1)
        scripted.write(publish(b"t", b"", qos=1, packet_id=7))
        await scripted.until(lambda: scripted.acknowledged == [7])
    assert seen == [[]]


async def test_what_arrives_while_closing_reaches_no_handler(scripted: Scripted) -> None:
    one, seen = client(scripted), list[Received]()
    await one.connect()
    await one.subscribe("t", seen.append)
    scripted.write(publish(b"t", b"late"))
    await one.aclose()
    assert seen == []
    assert not one.connected


async def test_garbage_ends_the_connection_and_nothing_else(scripted: Scripted) -> None:
    rng = random.Random(2024)
    async with client(scripted) as one:
        watch = Watch(one)
        for _ in range(40):
            kind = rng.choice((0x20, 0x30, 0x32, 0x34, 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xD0, 0xF0))
            body = rng.randbytes(rng.randrange(8))
            scripted.write(bytes((kind, len(body))) + body)
            scripted.write(b"\xf0\x00")  # a reserved packet type ends the connection, whatever came before
            await watch.until(connected=False)
            await watch.until(connected=True)
        await one.publish("alive", b"")
