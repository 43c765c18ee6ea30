"""Both clients at a real Mosquitto with mutual TLS: what is wrong with whose certificate, in words."""

from __future__ import annotations

import os
import random
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aif.errors import (
    BrokerRefused,
    CertificateExpired,
    CertificateMissing,
    CertificateRevoked,
    TLSFailed,
    UnknownAuthority,
    WrongBrokerName,
)
from aif.transport.address import BrokerAddress
from aif.transport.backoff import Backoff
from aif.transport.fast import FastTransport
from aif.transport.mqtt import MQTTTransport
from aif.transport.tls import refusal
from aif.trusted.authority import CertificateAuthority
from aif.trusted.certificates import LEAF_VALIDITY, Subject, client_context
from aif.trusted.state import write_atomically

Mosquitto = Any  # tests/transport/conftest.py
Client = type[MQTTTransport] | type[FastTransport]
QUICK = Backoff(first_s=0.02, longest_s=0.1)
DEVICE = Subject.device("left")


@pytest.fixture(params=[MQTTTransport, FastTransport])
def client(request: pytest.FixtureRequest) -> Client:
    kind: Client = request.param
    return kind


class Site:
    """An authority, a broker that trusts it, and contexts for clients."""

    def __init__(self, folder: Path, *, broker_made: datetime | None = None) -> None:
        self.folder, self.now = folder, datetime.now(UTC)
        old = broker_made or self.now
        self.authority = CertificateAuthority.open_or_create(folder / "authority", os.urandom, now=old)
        self.pem("ca.pem", self.authority.site_pem)
        self.pem("clients.pem", self.authority.client_authorities_pem)
        broker = self.authority.issue(Subject.broker(), now=old, hosts=["localhost"])
        self.pem("broker.pem", broker.pem)
        self.revoked = self.authority.issue(DEVICE, now=self.now)
        self.authority.revoke(DEVICE, now=self.now)
        self.pem("crl.pem", self.authority.revocation_lists_pem(now=self.now))
        self.settings = "".join(
            f"{key} {folder / name}\n"
            for key, name in (
                ("cafile", "clients.pem"), ("certfile", "broker.pem"), ("keyfile", "broker.pem"),
                ("crlfile", "crl.pem"),
            )
        ) + "require_certificate true\ntls_version tlsv1.3\n"  # fmt: skip

    def pem(self, name: str, content: bytes) -> Path:
        write_atomically(self.folder / name, content)
        return self.folder / name

    def context(self, pem: bytes) -> ssl.SSLContext:
        return client_context(self.folder / "ca.pem", self.pem("client.pem", pem))

    def good(self) -> ssl.SSLContext:
        return self.context(self.authority.issue(DEVICE, now=self.now).pem)

    def none(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder / "ca.pem")

    def expired(self) -> ssl.SSLContext:
        past = self.now - LEAF_VALIDITY - timedelta(seconds=1)
        return self.context(self.authority.issue(DEVICE, now=past).pem)

    def foreign(self) -> ssl.SSLContext:
        other = CertificateAuthority.open_or_create(self.folder / "other", os.urandom, now=self.now)
        return self.context(other.issue(DEVICE, now=self.now).pem)

    def taken_back(self) -> ssl.SSLContext:
        return self.context(self.revoked.pem)

    def mistrusting(self) -> ssl.SSLContext:
        other = CertificateAuthority.open_or_create(self.folder / "other", os.urandom, now=self.now)
        return ssl.create_default_context(cadata=other.site_pem.decode())


def transport(client: Client, port: int, tls: ssl.SSLContext, host: str = "localhost") -> Any:
    address = BrokerAddress(host, port, tls=True)
    return client(address, client_id="left", tls=tls, backoff=QUICK, rng=random.Random(1))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("context", "host", "error", "of_broker"),
    [
        (Site.none, "localhost", CertificateMissing, False),
        (Site.expired, "localhost", CertificateExpired, False),
        (Site.foreign, "localhost", UnknownAuthority, False),
        (Site.taken_back, "localhost", CertificateRevoked, False),
        (Site.mistrusting, "localhost", UnknownAuthority, True),
        (Site.good, "127.0.0.1", WrongBrokerName, True),
    ],
)
async def test_each_refusal_has_its_error_and_a_hint(
    tmp_path: Path,
    mosquitto: Mosquitto,
    client: Client,
    context: Callable[[Site], ssl.SSLContext],
    host: str,
    error: type[TLSFailed],
    of_broker: bool,
) -> None:
    site = Site(tmp_path)
    async with type(mosquitto)(tmp_path, site.settings) as broker:
        with pytest.raises(error) as caught:
            await transport(client, broker.port, context(site), host).connect()
        assert caught.value.of_broker is of_broker
        assert caught.value.hint
        assert str(broker.port) in str(caught.value)
        async with transport(client, broker.port, site.good()) as working:
            assert working.connected


@pytest.mark.integration
async def test_a_broker_whose_certificate_ended_is_not_believed(
    tmp_path: Path, mosquitto: Mosquitto, client: Client
) -> None:
    site = Site(tmp_path, broker_made=datetime.now(UTC) - LEAF_VALIDITY - timedelta(days=1))
    async with type(mosquitto)(tmp_path, site.settings) as broker:
        with pytest.raises(CertificateExpired) as caught:
            await transport(client, broker.port, site.good()).connect()
        assert caught.value.of_broker


@pytest.mark.integration
async def test_tls_to_a_broker_without_it_is_refused(mosquitto: Mosquitto, client: Client) -> None:
    with pytest.raises(BrokerRefused):
        await transport(client, mosquitto.port, ssl.create_default_context()).connect()


@pytest.mark.integration
async def test_small_packets_are_not_held_back_under_tls(
    tmp_path: Path, mosquitto: Mosquitto, client: Client
) -> None:
    site = Site(tmp_path)
    async with (
        type(mosquitto)(tmp_path, site.settings) as broker,
        transport(client, broker.port, site.good()) as connected,
    ):
        opened: Any = connected.socket if isinstance(connected, FastTransport) else connected.link.socket
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.integration
async def test_a_renewed_certificate_is_used_from_the_next_connection_on(
    tmp_path: Path, mosquitto: Mosquitto, client: Client
) -> None:
    site = Site(tmp_path)
    context = site.expired()
    async with type(mosquitto)(tmp_path, site.settings) as broker:
        with pytest.raises(CertificateExpired):
            await transport(client, broker.port, context).connect()
        context.load_cert_chain(site.pem("new.pem", site.authority.issue(DEVICE, now=site.now).pem))
        async with transport(client, broker.port, context) as connected:
            assert connected.connected


def test_what_openssl_did_not_say_is_not_made_up() -> None:
    secured, plain = BrokerAddress("h", 1, tls=True), BrokerAddress("h", 1)
    assert type(refusal(secured, "reset", ConnectionResetError())) is TLSFailed
    assert type(refusal(secured, "refused", ConnectionRefusedError())) is BrokerRefused
    assert type(refusal(secured, "no answer within 5 s", None)) is BrokerRefused
    assert type(refusal(plain, "reset", ConnectionResetError())) is BrokerRefused
