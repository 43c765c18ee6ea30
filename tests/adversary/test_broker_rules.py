"""Attacks on the production broker: Mosquitto with the set-up that `aif broker config` writes.

Where a test says that nothing arrives, the broker has first confirmed every message (it routes before it
confirms) and then answered the reader on the same connection, so what was routed to it has been handled.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from aif.cli import _wiring as wiring
from aif.cli.broker_config import BrokerFiles, Written, app, broker_config
from aif.errors import AIFError, BrokerRefused, LocalProtocolError, RemoteProtocolError, TrustError
from aif.runtime.devices.registry import Site
from aif.transport.address import BrokerAddress
from aif.transport.backoff import Backoff
from aif.transport.base import MAX_PACKET_BYTES, ConnectionChange, LastWill, Received
from aif.transport.mosquitto_config import ChannelAccess
from aif.transport.mqtt import MQTTTransport
from aif.trusted.authority import AuthorityState, CertificateAuthority, renewed
from aif.trusted.certificates import LEAF_VALIDITY, Credentials, Role, Subject, client_context
from aif.trusted.security_engine import DeviceKeys
from aif.trusted.state import SiteState, StateFile, write_atomically
from tests.adversary.conftest import Report
from tests.runtime import site as bench

PATIENCE_S = 20.0
QUICK = Backoff(first_s=0.02, longest_s=0.1)
DEVICES = ("left", "right", "third")
CHANNELS = (
    ChannelAccess("aif/ch/Adding-1/count/number", "left", ("right",)),
    ChannelAccess("aif/ch/Adding-1/double/pair", "right", ("left",)),
    ChannelAccess("aif/ch/Other-1/from/there", "third", ("right",)),
)
CONTROLLER = Subject.controller()
LEFT, RIGHT, THIRD = (Subject.device(name) for name in DEVICES)
FACTORY_LEFT = Subject.enrolment("left")


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Broker:
    """A Mosquitto process that runs a set-up as it was written."""

    def __init__(self, configuration: Path, port: int) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            if os.environ.get("CI") == "true":
                pytest.fail("mosquitto is not installed")
            pytest.skip(
                "MOSQUITTO IS NOT INSTALLED: the access rules were NOT attacked (apt install mosquitto)"
            )
        self._log = configuration.with_name("test.log")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([program, "-c", str(configuration)], stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while not _listens(port):
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()

    def stop(self) -> None:
        self.process.kill()  # mosquitto loses a SIGTERM that comes while it starts, and keeps nothing
        self.process.wait(PATIENCE_S)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SetUp:
    """A written set-up, its authority, and clients with any certificate one likes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.authority = CertificateAuthority.open_or_create(folder / "authority", os.urandom, now=now())
        self.files = BrokerFiles(folder / "out put")
        self.site_pem = folder / "authority.pem"
        self.site_pem.write_bytes(self.authority.site_pem)
        self.write()
        for subject in (CONTROLLER, LEFT, RIGHT, THIRD, FACTORY_LEFT):
            self.give(subject)

    def credentials(self, subject: Subject) -> Path:
        return self.folder / f"{subject.common_name}.pem"

    def give(self, subject: Subject) -> str:
        """A client gets credentials, unless those that it has are good; says why."""
        pem, reason = renewed(self.authority, subject, self.credentials(subject), now())
        if pem:
            write_atomically(self.credentials(subject), pem)
        return reason

    def write(self, *, revoked: Sequence[str] = ()) -> tuple[Written, ...]:
        return broker_config(
            self.authority, DEVICES, CHANNELS, self.files.root, now=now(), revoked=revoked, port=self.port,
            account="root" if os.geteuid() == 0 else "",
        )  # fmt: skip

    def context(self, subject: Subject) -> ssl.SSLContext:
        return client_context(self.site_pem, self.credentials(subject))

    def context_of(self, credentials: Credentials) -> ssl.SSLContext:
        """What someone has who brings a certificate of his own."""
        file = self.folder / "own.pem"
        file.touch(mode=0o600)
        file.write_bytes(credentials.pem)
        return client_context(self.site_pem, file)

    def transport(
        self, tls: ssl.SSLContext, *, client_id: str = "anyone", will: LastWill | None = None
    ) -> MQTTTransport:
        address = BrokerAddress("localhost", self.port, tls=True)
        return MQTTTransport(address, client_id=client_id, tls=tls, will=will, backoff=QUICK)

    async def refused(self, tls: ssl.SSLContext) -> None:
        """Not let in, while the broker lets in whom it should."""
        with pytest.raises(BrokerRefused):
            await self.transport(tls).connect()
        async with self.transport(self.context(THIRD)):
            pass


@dataclass(slots=True)
class Client:
    """A connection that listens to everything and remembers what it got."""

    transport: MQTTTransport
    got: list[Received] = field(default_factory=list)
    changes: asyncio.Queue[ConnectionChange] = field(default_factory=asyncio.Queue)

    @property
    def payloads(self) -> list[str]:
        return [message.payload.decode() for message in self.got]

    async def settle(self) -> None:
        """Return when everything that the broker routed here before this call was handled."""
        await (await self.transport.subscribe("$settle", self.got.append)).aclose()

    async def publish(self, topic: str, payload: str) -> None:
        await self.transport.publish(topic, payload.encode(), qos=1)

    async def until(self, *, connected: bool) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (await self.changes.get()).connected != connected:
                pass


@asynccontextmanager
async def joined(transport: MQTTTransport) -> AsyncIterator[Client]:
    async with transport:
        client = Client(transport)
        transport.on_connection(client.changes.put_nowait)
        await transport.subscribe("#", client.got.append, qos=1)
        yield client


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SetUp]:
    made = SetUp(tmp_path_factory.mktemp("site"))
    broker = Broker(made.files.configuration, made.port)
    yield made
    broker.stop()


# --- wrong topic --------------------------------------------------------------------------------------

TOPICS = (
    "aif/ch/Adding-1/count/number",
    "aif/ch/Adding-1/count/number/double",
    "aif/ch/Adding-1/double/pair",
    "aif/ch/Adding-2/count/number",
    "aif/ch/Other-1/from/there",
    "aif/dev/left/up/hello",
    "aif/dev/left/up/status",
    "aif/dev/left/up/report",
    "aif/dev/left/up/made-up",
    "aif/dev/left/up/report/more",
    "aif/dev/left/down/grant",
    "aif/dev/left/down/command",
    "aif/dev/left/status",
    "aif/dev/right/up/hello",
    "aif/dev/right/down/grant",
    "aif/dev/enrol.left/up/hello",
    "aif/att/left/req",
    "aif/att/left/evd",
    "aif/att/right/req",
    "aif/att/right/evd",
    "aif/enrol/enrol.left/req",
    "aif/enrol/enrol.left/rsp",
    "aif/enrol/enrol.right/req",
    "aif/enrol/enrol.right/rsp",
    "aif/enrol/left/req",
    "aif/mdl/0123456789abcdef",
    "anything",
)

SERVED: Mapping[tuple[Subject, str], Subject] = {
    (LEFT, "aif/ch/Adding-1/count/number"): RIGHT,
    (RIGHT, "aif/ch/Adding-1/double/pair"): LEFT,
    (THIRD, "aif/ch/Other-1/from/there"): RIGHT,
    (LEFT, "aif/dev/left/up/hello"): CONTROLLER,
    (LEFT, "aif/dev/left/up/status"): CONTROLLER,
    (LEFT, "aif/dev/left/up/report"): CONTROLLER,
    (CONTROLLER, "aif/dev/left/down/grant"): LEFT,
    (CONTROLLER, "aif/dev/left/down/command"): LEFT,
    (RIGHT, "aif/dev/right/up/hello"): CONTROLLER,
    (CONTROLLER, "aif/dev/right/down/grant"): RIGHT,
    (CONTROLLER, "aif/att/left/req"): LEFT,
    (LEFT, "aif/att/left/evd"): CONTROLLER,
    (CONTROLLER, "aif/att/right/req"): RIGHT,
    (RIGHT, "aif/att/right/evd"): CONTROLLER,
    (FACTORY_LEFT, "aif/enrol/enrol.left/req"): CONTROLLER,
    (CONTROLLER, "aif/enrol/enrol.left/rsp"): FACTORY_LEFT,
}
"""Every message that has a way, out of all clients and all topics."""


@pytest.mark.integration
def test_each_client_on_each_topic_reaches_only_who_it_should(running: SetUp, attacks: Report) -> None:
    async def journey() -> None:
        async with AsyncExitStack() as stack:
            clients = {
                subject: await stack.enter_async_context(joined(running.transport(running.context(subject))))
                for subject in (CONTROLLER, LEFT, RIGHT, THIRD, FACTORY_LEFT)
            }
            for subject, client in clients.items():
                for topic in TOPICS:
                    await client.publish(topic, f"{subject.user} on {topic}")
            for client in clients.values():
                await client.settle()
            for reader, client in clients.items():
                assert client.payloads == [
                    f"{writer.user} on {topic}"
                    for writer in clients
                    for topic in TOPICS
                    if SERVED.get((writer, topic)) == reader
                ]
                assert all(m.payload.decode().endswith(f" on {m.topic}") for m in client.got)
                assert client.changes.empty()
            attacks("broker: a topic without the right to it", len(clients) * len(TOPICS) - len(SERVED))

    asyncio.run(journey())


@pytest.mark.integration
def test_a_last_will_cannot_declare_another_device_gone(running: SetUp) -> None:
    async def journey() -> None:
        async with joined(running.transport(running.context(CONTROLLER))) as controller:
            for device in ("right", "left"):  # the second is the control: a device's own will arrives
                will = LastWill(f"aif/dev/{device}/up/status", f"{device} is gone".encode())
                with contextlib.suppress(BrokerRefused):
                    async with joined(running.transport(running.context(LEFT), will=will)) as attacker:
                        link = attacker.transport.link
                        assert link is not None
                        assert link.socket is not None
                        link.socket.shutdown(socket.SHUT_RDWR)
                        await attacker.until(connected=True)  # again: the broker has dealt with the old one
                        await attacker.settle()
                await controller.settle()
            assert controller.payloads == ["left is gone"]

    asyncio.run(journey())


# --- wrong identity -----------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("stolen", ["right", RIGHT.user, CONTROLLER.user])
def test_a_stolen_client_id_takes_over_nobody(running: SetUp, stolen: str) -> None:
    async def journey() -> None:
        async with AsyncExitStack() as stack:
            controller, victim = [
                await stack.enter_async_context(joined(running.transport(running.context(subject))))
                for subject in (CONTROLLER, RIGHT)
            ]
            thief = await stack.enter_async_context(
                joined(running.transport(running.context(LEFT), client_id=stolen))
            )
            await controller.publish("aif/dev/right/down/grant", "for right")
            await thief.publish("aif/dev/right/up/hello", "from the thief")
            await victim.publish("aif/dev/right/up/hello", "from right")
            for client in (controller, victim, thief):
                await client.settle()
            assert (controller.payloads, victim.payloads, thief.payloads) == (
                ["from right"],
                ["for right"],
                [],
            )
            assert controller.changes.empty()
            assert victim.changes.empty()

    asyncio.run(journey())


def _self_signed() -> Credentials:
    key = ec.generate_private_key(ec.SECP256R1())
    return _forged(key, CONTROLLER.name, CONTROLLER.name, key)


def _forged(
    key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey | Ed25519PrivateKey,
) -> Credentials:
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - dt.timedelta(hours=1))
        .not_valid_after(now() + dt.timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signer, None if isinstance(signer, Ed25519PrivateKey) else hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return Credentials(
        certificate.public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _by_factory(made: SetUp, subject: x509.Name) -> Credentials:
    """A certificate from someone who has the factory's key."""
    state = StateFile(made.folder / "authority" / "authority.cbor", AuthorityState).load()
    issuer = x509.load_der_x509_certificate(state.factory_certificate)
    signer = Ed25519PrivateKey.from_private_bytes(state.factory_seed)
    return _forged(ec.generate_private_key(ec.SECP256R1()), subject, issuer.subject, signer)


def _by_another_site(made: SetUp) -> Credentials:
    folder = made.folder / "another-site"
    other = CertificateAuthority.open_or_create(folder, os.urandom, now=now())
    return other.issue(CONTROLLER, now=now())


def _expired(made: SetUp) -> Credentials:
    return made.authority.issue(LEFT, now=now() - LEAF_VALIDITY - dt.timedelta(seconds=1))


def _as_broker(made: SetUp) -> Credentials:
    return made.authority.issue(Subject.broker(), now=now(), hosts=["localhost"])


def _not_yet_valid(made: SetUp) -> Credentials:
    return made.authority.issue(LEFT, now=now() + dt.timedelta(days=1))


@pytest.mark.integration
@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda _: _self_signed(), id="self-signed"),
        pytest.param(_by_another_site, id="another site's Controller"),
        pytest.param(lambda made: _by_factory(made, CONTROLLER.name), id="the factory's Controller"),
        pytest.param(lambda made: _by_factory(made, LEFT.name), id="the factory's device"),
        pytest.param(_expired, id="expired"),
        pytest.param(_not_yet_valid, id="not yet valid"),
        pytest.param(_as_broker, id="the broker's own kind"),
    ],
)  # fmt: skip
def test_a_certificate_that_does_not_count_is_refused(
    running: SetUp, forge: Callable[[SetUp], Credentials]
) -> None:
    asyncio.run(running.refused(running.context_of(forge(running))))


@pytest.mark.integration
def test_no_certificate_is_refused(running: SetUp) -> None:
    asyncio.run(running.refused(ssl.create_default_context(cafile=running.site_pem)))


@pytest.mark.integration
def test_no_tls_is_refused(running: SetUp) -> None:
    with pytest.raises(BrokerRefused):
        asyncio.run(MQTTTransport(BrokerAddress("localhost", running.port)).connect())


@pytest.mark.integration
def test_tls_1_2_is_refused(running: SetUp) -> None:
    tls = running.context(LEFT)
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", running.port), PATIENCE_S) as opened,
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
    ):
        tls.wrap_socket(opened, server_hostname="localhost")


@pytest.mark.integration
def test_who_holds_the_factory_key_can_do_no_more_than_enrol(running: SetUp) -> None:
    """Whatever name the factory's constraint lets through has no right, unless it is one that enrols."""
    units = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, Role.ENROLMENT.value)

    def name(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
        return x509.Name([units, *(x509.NameAttribute(kind, text) for kind, text in parts)])

    common, unit = NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME
    names = (
        name((common, "controller")),
        name((common, "left")),
        name((unit, "controller"), (common, "controller")),
        name((unit, "device"), (common, "left")),
        name((common, LEFT.user)),
        name((common, "left,OU=device\n")),
    )

    async def journey() -> None:
        async with AsyncExitStack() as stack:
            controller, left = [
                await stack.enter_async_context(joined(running.transport(running.context(subject))))
                for subject in (CONTROLLER, LEFT)
            ]
            for subject in names:
                tls = running.context_of(_by_factory(running, subject))
                async with joined(running.transport(tls, client_id=LEFT.user)) as attacker:
                    for topic in TOPICS:
                        await attacker.publish(topic, "forged")
                    await controller.publish("aif/dev/left/down/grant", "a grant")
                    await left.publish("aif/ch/Adding-1/count/number", "a record")
                    await attacker.settle()
                    assert attacker.got == []
            for client in (controller, left):
                await client.settle()
                assert "forged" not in client.payloads
                assert client.changes.empty()
            assert left.payloads == ["a grant"] * len(names)

    asyncio.run(journey())


@pytest.mark.integration
def test_revoking_ends_an_open_session_and_refuses_the_next(tmp_path: Path) -> None:
    made = SetUp(tmp_path)
    broker = Broker(made.files.configuration, made.port)
    device, factory, survivor = (made.context(s) for s in (LEFT, FACTORY_LEFT, RIGHT))

    async def journey() -> None:
        async with AsyncExitStack() as stack:
            controller, right, left = [
                await stack.enter_async_context(joined(made.transport(tls)))
                for tls in (made.context(CONTROLLER), survivor, device)
            ]
            await controller.publish("aif/dev/left/down/grant", "before")
            await right.publish("aif/ch/Adding-1/double/pair", "before")
            await left.settle()
            assert left.payloads == ["before", "before"]
            made.write(revoked=["left"])
            os.kill(int(made.files.pid.read_text()), signal.SIGHUP)
            async with asyncio.timeout(PATIENCE_S):
                while await _enters(made, factory):
                    pass
            await made.refused(device)
            await controller.publish("aif/dev/left/down/grant", "after")
            await right.publish("aif/ch/Adding-1/double/pair", "after")
            await left.publish("aif/dev/left/up/report", "after")
            await left.publish("aif/ch/Adding-1/count/number", "after")
            await right.publish("aif/dev/right/up/report", "right is still there")
            for client in (controller, right, left):
                await client.settle()
            assert left.payloads == ["before", "before"]
            assert right.payloads == []
            assert controller.payloads == ["right is still there"]

    try:
        asyncio.run(journey())
    finally:
        broker.stop()
    assert (made.give(LEFT), made.give(RIGHT)) == ("revoked", "kept")


async def _enters(made: SetUp, tls: ssl.SSLContext) -> bool:
    try:
        async with made.transport(tls):
            return True
    except BrokerRefused:
        return False


# --- resources ----------------------------------------------------------------------------------------


@pytest.mark.integration
def test_an_oversized_packet_costs_only_its_sender_the_connection(running: SetUp) -> None:
    async def journey() -> None:
        async with AsyncExitStack() as stack:
            right, left = [
                await stack.enter_async_context(joined(running.transport(running.context(subject))))
                for subject in (RIGHT, LEFT)
            ]
            topic = "aif/ch/Adding-1/count/number"
            largest = "x" * left.transport.max_payload_bytes
            await left.publish(topic, largest)
            link = left.transport.link
            assert link is not None
            assert link.publish(topic, bytes(MAX_PACKET_BYTES + 1), 0, retain=False) is not None  # unchecked
            await left.until(connected=False)
            await left.until(connected=True)
            await left.publish(topic, "small")
            await right.settle()
            assert right.payloads == [largest, "small"]
            assert right.changes.empty()

    asyncio.run(journey())


# --- certificates -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.open_or_create(tmp_path_factory.mktemp("authority"), os.urandom, now=now())


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> None:
    """A TLS handshake without a network."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(8):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert ends[0].version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("subject", "host", "works"),
    [
        (Subject.broker(), "localhost", True),
        (Subject.broker(), "127.0.0.1", True),
        (Subject.broker(), "elsewhere", False),
        (LEFT, "left", False),
        (CONTROLLER, "controller", False),
        (FACTORY_LEFT, "enrol.left", False),
    ],
)
def test_only_the_broker_can_pose_as_the_broker(
    tmp_path: Path, subject: Subject, host: str, works: bool
) -> None:
    made = SetUp(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    is_broker = subject.role is Role.BROKER
    server.load_cert_chain(made.files.root / "broker.pem" if is_broker else made.credentials(subject))
    if works:
        _shake_hands(made.context(RIGHT), server, host)
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            _shake_hands(made.context(RIGHT), server, host)


def test_private_files_are_private_and_a_key_that_is_not_is_refused(tmp_path: Path) -> None:
    made = SetUp(tmp_path)
    private = [*made.files.root.rglob("*"), tmp_path / "authority" / "authority.cbor", made.files.root]
    assert len(private) == 7
    assert all(path.stat().st_mode & 0o077 == 0 for path in private)
    credentials = made.credentials(LEFT)
    credentials.chmod(0o640)
    with pytest.raises(TrustError, match="open to other users"):
        made.context(LEFT)
    with pytest.raises(TrustError, match="no TLS with"):
        client_context(made.site_pem, tmp_path / "missing.pem")


def test_writing_again_keeps_what_is_good_and_replaces_what_is_not(tmp_path: Path) -> None:
    made = SetUp(tmp_path)
    left, right, broker = (
        made.credentials(LEFT), made.credentials(RIGHT), made.files.root / "broker.pem",
    )  # fmt: skip
    before = {path: path.read_bytes() for path in (left, right, broker)}
    assert {made.give(LEFT), made.give(RIGHT)} == {"kept"}
    notes = {file.path: file.note for file in made.write()}
    assert notes[broker.resolve()].endswith("kept")
    assert before == {path: path.read_bytes() for path in before}
    left.write_bytes(before[left][:-100])
    right.write_bytes(before[left])  # a mix-up
    assert (made.give(LEFT), made.give(RIGHT)) == ("unreadable", "made out to another name")
    for subject in (LEFT, RIGHT):
        made.context(subject)


def test_why_credentials_are_replaced(authority: CertificateAuthority, tmp_path: Path) -> None:
    today = now()
    old = today - LEAF_VALIDITY * 0.7
    one, other = authority.issue(LEFT, now=today), authority.issue(LEFT, now=today)
    stranger = CertificateAuthority.open_or_create(tmp_path, os.urandom, now=today)
    broker = authority.issue(Subject.broker(), now=today, hosts=["a.example", "::1"])
    for pem, subject, hosts, reason in (
        (one.pem, LEFT, (), ""),
        (one.pem, RIGHT, (), "made out to another name"),
        (one.pem, FACTORY_LEFT, (), "signed by another authority"),
        (other.key + one.certificate, LEFT, (), "the key is not the certificate's"),
        (stranger.issue(LEFT, now=today).pem, LEFT, (), "signed by another authority"),
        (authority.issue(LEFT, now=old).pem, LEFT, (), f"it ends on {old + LEAF_VALIDITY:%Y-%m-%d}"),
        (b"", LEFT, (), "unreadable"),
        (one.certificate, LEFT, (), "unreadable"),
        (broker.pem, Subject.broker(), ("a.example", "::1"), ""),
        (broker.pem, Subject.broker(), ("b.example",), "the broker's names have changed"),
    ):
        assert authority.replacement_reason(pem, subject, now=today, hosts=hosts) == reason
    assert authority.revoke(LEFT, now=today) == 3
    assert authority.revoke(LEFT, now=today) == 0
    assert authority.replacement_reason(one.pem, LEFT, now=today) == "revoked"
    assert authority.replacement_reason(authority.issue(LEFT, now=today).pem, LEFT, now=today) == ""


def test_a_revocation_list_names_the_right_certificates_until_they_expire(
    tmp_path: Path,
) -> None:
    start = now()
    authority = CertificateAuthority.open_or_create(tmp_path, os.urandom, now=start)
    held = [authority.issue(s, now=start) for s in (LEFT, LEFT, RIGHT, FACTORY_LEFT)]
    serials = [x509.load_pem_x509_certificate(c.certificate).serial_number for c in held]

    def listed(when: dt.datetime) -> list[set[int]]:
        return _lists(authority.revocation_lists_pem(now=when))

    assert listed(start) == [set(), set()]
    assert authority.revoke(LEFT, now=start) == 2
    assert listed(start) == [set(serials[:2]), set()]
    assert authority.revoke(FACTORY_LEFT, now=start) == 1
    assert listed(start) == [set(serials[:2]), {serials[3]}]
    later = start + LEAF_VALIDITY + dt.timedelta(days=1)
    assert authority.revoke(RIGHT, now=later) == 0  # it has expired
    assert listed(later) == [set(), set()]


def _lists(pem: bytes) -> list[set[int]]:
    """Serial numbers of each revocation list in a file."""
    mark = b"-----END X509 CRL-----\n"
    lists = [x509.load_pem_x509_crl(part + mark) for part in pem.split(mark) if part]
    return [{entry.serial_number for entry in one} for one in lists]


def test_names_hold_their_role_and_nothing_else() -> None:
    assert Subject.device("controller").user == "CN=controller,OU=device" != CONTROLLER.user
    assert FACTORY_LEFT.user == "CN=enrol.left,OU=enrolment"
    for role, name in (
        (Role.CONTROLLER, "left"),
        (Role.BROKER, "localhost"),
        (Role.DEVICE, "enrol.left"),
        (Role.DEVICE, "left,OU=controller"),
        (Role.DEVICE, ""),
        (Role.ENROLMENT, "left"),
        (Role.ENROLMENT, "enrol.left/#"),
    ):
        with pytest.raises(LocalProtocolError):
            Subject(role, name)


@pytest.mark.parametrize(
    "hosts", [[], ["x"] * 17, [""], ["a" * 64], ["bücher .example"], ["*"], ["a\n"], ["-a"]]
)
def test_a_broker_needs_names_that_can_be(authority: CertificateAuthority, hosts: list[str]) -> None:
    with pytest.raises(LocalProtocolError):
        authority.issue(Subject.broker(), now=now(), hosts=hosts)
    with pytest.raises(LocalProtocolError):
        authority.issue(LEFT, now=now(), hosts=["localhost"])


def _request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, subject: x509.Name) -> bytes:
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def test_a_signing_request_gets_the_name_of_who_asks_not_the_one_it_asks_for(
    authority: CertificateAuthority,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    data = authority.certify(_request(key, CONTROLLER.name), RIGHT, now=now())
    certificate = x509.load_der_x509_certificate(data)
    assert certificate.subject == RIGHT.name
    assert certificate.public_key() == key.public_key()
    assert authority.revoke(RIGHT, now=now()) >= 1


def test_a_bad_signing_request_is_refused(authority: CertificateAuthority) -> None:
    good = _request(ec.generate_private_key(ec.SECP256R1()), RIGHT.name)
    for bad in (
        b"",
        good[:-1],
        good[:-1] + bytes((good[-1] ^ 1,)),
        good + bytes(4096),
        _request(ec.generate_private_key(ec.SECP384R1()), RIGHT.name),
        _request(rsa.generate_private_key(65_537, 2048), RIGHT.name),
    ):
        with pytest.raises(RemoteProtocolError):
            authority.certify(bad, RIGHT, now=now())


@given(data=st.binary(max_size=200))
def test_any_bytes_as_a_signing_request_raise_one_kind_of_error(
    authority: CertificateAuthority, data: bytes
) -> None:
    with pytest.raises(RemoteProtocolError):
        authority.certify(data, RIGHT, now=now())


# --- the command --------------------------------------------------------------------------------------


def plain_site(folder: Path) -> tuple[wiring.Home, Path, Path]:
    """A home, an inventory and an AIM library."""
    inventory, aims = folder / "inventory.yaml", folder / "aims"
    inventory.write_text(bench.INVENTORY)
    for name, (contract, module) in bench.AIMS.items():
        bench.write_aim(aims / name, contract, module)
    return wiring.Home(folder / "home"), inventory, aims


def run_command(*arguments: str | Path) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def test_the_command_takes_rights_from_what_the_registry_revoked(tmp_path: Path) -> None:
    home, inventory, _ = plain_site(tmp_path)
    Site.open_or_create(home.site, os.urandom).provision(
        "left",
        "board/arch",
        home.device_state("left"),
        lambda: DeviceKeys(bytes(32), bytes(32)),
        now_s=int(now().timestamp()),
    )
    arguments = ("--home", home.root, "--inventory", inventory, "--output", tmp_path / "out")
    run_command(*arguments)
    files = BrokerFiles(tmp_path / "out")
    assert LEFT.user in (files.root / "access-rules").read_text()
    registry = StateFile(home.site / "site.cbor", SiteState)
    registry.update(lambda s: replace(s, devices=tuple(replace(d, revoked=True) for d in s.devices)))
    run_command(*arguments)
    rules = (files.root / "access-rules").read_text()
    assert LEFT.user not in rules
    assert FACTORY_LEFT.user not in rules
    assert RIGHT.user in rules
    assert [len(one) for one in _lists((files.root / "revoked.pem").read_bytes())] == [0, 1]


@pytest.mark.parametrize(
    "wrong",
    [("--host", "not a host"), ("--user", "no-such-account-here"), ("--workflow", "missing.aiw.yaml")],
)
def test_the_command_says_what_is_wrong_and_makes_no_broker(tmp_path: Path, wrong: tuple[str, str]) -> None:
    home, inventory, _ = plain_site(tmp_path)
    output = tmp_path / "out"
    with pytest.raises(AIFError):
        run_command("--home", home.root, "--inventory", inventory, "--output", output, *wrong)
    assert not BrokerFiles(output).configuration.exists()
