"""What only a real connection can get wrong: sockets, threads, lost brokers, hostile peers."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import random
import signal
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from aif.errors import BrokerRefused, LocalProtocolError, NotConnected, PublishTimeout, TransportError
from aif.transport.address import BrokerAddress
from aif.transport.backoff import Backoff
from aif.transport.base import ConnectionChange, Limits
from aif.transport.embedded_broker import EmbeddedBroker
from aif.transport.mqtt import MQTTTransport

PATIENCE_S = 60.0
QUICK = Backoff(first_s=0.02, longest_s=0.1)
Scripted = Any  # tests/transport/conftest.py
Mosquitto = Any
Collector = Any


class Watch:
    """The changes of a connection, one after the other, as something to wait for."""

    def __init__(self, transport: MQTTTransport) -> None:
        self._changes: asyncio.Queue[ConnectionChange] = asyncio.Queue()
        transport.on_connection(self._changes.put_nowait)

    async def until(self, *, connected: bool) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (await self._changes.get()).connected != connected:
                pass


def client(broker: Any, client_id: str = "", **options: Any) -> MQTTTransport:
    return MQTTTransport(broker.address, client_id=client_id, backoff=QUICK, rng=random.Random(1), **options)


def network_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("paho")]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Any:
    yield
    assert network_threads() == []


# --- the socket ---------------------------------------------------------------------------------------


async def test_tcp_nodelay_is_set_again_after_a_reconnect(scripted: Scripted) -> None:
    async with client(scripted) as one:
        watch = Watch(one)
        for attempt in range(2):
            assert one.link is not None
            assert one.link.socket is not None
            assert one.link.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            if attempt == 0:
                one.link.socket.shutdown(socket.SHUT_RDWR)
                await watch.until(connected=False)
                await watch.until(connected=True)
    assert scripted.connections == 2
    assert one.statistics.reconnects == 1


# --- the first connection -----------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(BrokerRefused) as caught:
        await MQTTTransport(f"mqtt://127.0.0.1:{port}").connect()
    assert str(caught.value) == f"no MQTT connection to 127.0.0.1:{port}: Connection refused"
    assert caught.value.hint == "start the broker there, or give the address of another one"


async def test_unknown_host() -> None:
    with pytest.raises(BrokerRefused, match=r"no MQTT connection to host\.invalid:1883: "):
        await MQTTTransport("mqtt://host.invalid").connect()


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
    assert network_threads() == []


async def test_closing_ends_the_wait_for_a_retry(scripted: Scripted) -> None:
    patient = Backoff(first_s=3_600.0, longest_s=3_600.0)
    one = MQTTTransport(scripted.address, backoff=patient)
    async with one:
        watch = Watch(one)
        scripted.write(b"\xff\xff\xff\xff\xff\xff")  # no MQTT: the client gives the connection up
        await watch.until(connected=False)
    assert one.statistics.reconnects == 0


@pytest.mark.parametrize("keep_alive_s", [0, -1, 65_536])
def test_keep_alive_has_bounds(keep_alive_s: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"keep_alive_s is {keep_alive_s}, allowed are 1 to 65535"):
        MQTTTransport("mqtt://localhost", keep_alive_s=keep_alive_s)


def test_a_tls_context_never_ends_in_plain_text() -> None:
    with pytest.raises(LocalProtocolError, match="mqtt://localhost:1883 would not use the TLS context"):
        MQTTTransport("mqtt://localhost", tls=ssl.create_default_context())


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
        with pytest.raises(
            NotConnected, match=f"there is no connection to mqtt://127.0.0.1:{broker.address.port}"
        ):
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


# --- bursts and back-pressure -------------------------------------------------------------------------


@pytest.mark.integration
async def test_a_burst_is_delivered_or_counted(mosquitto: Mosquitto, collector: Collector) -> None:
    got = collector()
    small = Limits(incoming_messages=100)
    async with client(mosquitto, "sender") as sender, client(mosquitto, "receiver", limits=small) as receiver:
        await receiver.subscribe("burst", got)
        await receiver.subscribe("end", got, qos=1)
        for number in range(5_000):
            sender.send("burst", number.to_bytes(2))
        # keep the loop busy until the receiver's queue has overflowed
        for _ in range(10_000_000):
            if receiver.statistics.dropped_incoming:
                break
        sender.send("end", b"end", qos=1)
        await got.payload(b"end")
        counted = receiver.statistics
        numbers = [int.from_bytes(payload) for payload in got.payloads[:-1]]
        assert numbers == sorted(set(numbers))
        assert 0 < counted.dropped_incoming < 5_000
        assert counted.received == len(numbers) + 1
        assert counted.received + counted.dropped_incoming == 5_001
        assert sender.statistics.sent == 5_001


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
    assert 0 < one.statistics.dropped_outgoing <= 64  # the one being written may count as gone


async def test_publish_waits_for_room(scripted: Scripted) -> None:
    async with client(scripted, limits=Limits(outgoing_messages=4)) as one:
        for _ in range(200):
            await one.publish("room", bytes(10_000), qos=0)
        await scripted.until(lambda: len(scripted.published) == 200)
        assert one.statistics.refused == 0


async def test_unconfirmed_messages(scripted: Scripted) -> None:
    scripted.acknowledges = False
    async with client(scripted) as one:
        with pytest.raises(PublishTimeout):
            await one.publish("late", b"", timeout=0.05)
        waiting = asyncio.ensure_future(one.publish("never", b""))
        await scripted.until(lambda: len(scripted.published) == 2)
    with pytest.raises(NotConnected, match="closed by this program"):
        await waiting
    assert one.statistics.dropped_outgoing == 2


async def test_a_qos_0_message_never_confirms_a_qos_1_message(scripted: Scripted) -> None:
    scripted.acknowledges = False
    async with client(scripted, limits=Limits(outgoing_messages=100_000)) as one:
        waiting = asyncio.ensure_future(one.publish("sure", b"", timeout=100.0))
        await scripted.until(lambda: len(scripted.published) == 1)
        packet_id = scripted.published[0][0]
        for number in range(65_535):  # the last one gets the same packet id
            one.send("fast", b"")
            if number % 1_000 == 0:
                await asyncio.sleep(0)
        await scripted.until(lambda: len(scripted.published) == 65_536)
        assert not waiting.done()
        scripted.write(b"\x40\x02" + packet_id.to_bytes(2))
        await waiting


# --- hostile or broken peers --------------------------------------------------------------------------


def packet(topic: bytes, payload: bytes, *, qos: int = 0, packet_id: int = 1) -> bytes:
    body = len(topic).to_bytes(2) + topic + (packet_id.to_bytes(2) if qos else b"") + payload
    length, remaining = b"", len(body)
    while True:
        remaining, low = divmod(remaining, 128)
        length += bytes((low | (0x80 if remaining else 0),))
        if not remaining:
            return bytes((0x30 | qos << 1,)) + length + body


async def test_unusable_messages_are_counted_and_confirmed(scripted: Scripted, collector: Collector) -> None:
    got = collector()
    async with client(scripted, limits=Limits(max_payload_bytes=10)) as one:
        await one.subscribe("#", got, qos=1)
        scripted.write(packet(b"\xff\xfe", b"not UTF-8", qos=1, packet_id=1))
        scripted.write(packet(b"t", bytes(11), qos=1, packet_id=2))
        scripted.write(packet(b"t", b"fine", qos=1, packet_id=3))
        await got.payload(b"fine")
        await scripted.until(lambda: scripted.acknowledged == [1, 2, 3])
        assert one.statistics.dropped_incoming == 2
    assert one.statistics.dropped_incoming == 2


async def test_confirmed_only_after_the_handler(scripted: Scripted) -> None:
    seen: list[list[int]] = []
    async with client(scripted) as one:
        await one.subscribe("t", lambda _: seen.append(list(scripted.acknowledged)), qos=1)
        scripted.write(packet(b"t", b"", qos=1, packet_id=7))
        await scripted.until(lambda: scripted.acknowledged == [7])
    assert seen == [[]]


async def test_garbage_never_ends_the_network_thread(scripted: Scripted) -> None:
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
        assert network_threads() != []
        await one.publish("alive", b"")


# --- TLS ----------------------------------------------------------------------------------------------


def certificate(folder: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "cert.pem"


@pytest.mark.integration
async def test_tls(tmp_path: Path, mosquitto: Mosquitto, collector: Collector) -> None:
    authority = certificate(tmp_path)
    secured = type(mosquitto)(tmp_path, f"certfile {authority}\nkeyfile {tmp_path / 'key.pem'}\n")
    async with secured:
        address = BrokerAddress("127.0.0.1", secured.port, tls=True)
        got = collector()
        context = ssl.create_default_context(cafile=str(authority))
        async with MQTTTransport(address, tls=context) as one:
            assert one.link is not None
            assert one.link.socket is not None
            assert one.link.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            await one.subscribe("tls", got)
            await one.publish("tls", b"sealed")
            await got.payload(b"sealed")
        with pytest.raises(BrokerRefused, match="no MQTT connection to"):
            await MQTTTransport(BrokerAddress("127.0.0.1", secured.port), connect_timeout_s=1.0).connect()
