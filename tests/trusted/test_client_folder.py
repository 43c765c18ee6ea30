"""A client's certificates: asked for, checked, kept, renewed."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from aif.cli._broker_access import BrokerOptions, broker_access
from aif.errors import NotFound, RemoteProtocolError, TransportError, TrustError
from aif.transport.clients import Client
from aif.trusted.authority import MAX_HELD, CertificateAuthority
from aif.trusted.certificates import LEAF_VALIDITY, Subject, new_key, signing_request
from aif.trusted.client_folder import LOOK_MS, RETRY_MS, CertificateKeeper, ClientFolder

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LEFT, RIGHT = Subject.device("left"), Subject.device("right")


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.open_or_create(tmp_path / "authority", os.urandom, now=NOW)


@pytest.fixture
def client(tmp_path: Path, authority: CertificateAuthority) -> ClientFolder:
    folder = ClientFolder(tmp_path / "tls", LEFT)
    factory = authority.issue(Subject.enrolment("left"), now=NOW).pem
    folder.install(authority.site_pem, broker="mqtts://localhost:8883", factory=factory)
    return folder


def test_a_certificate_comes_for_a_key_that_stays(
    client: ClientFolder, authority: CertificateAuthority
) -> None:
    assert client.due(NOW)
    request = client.request()
    certificate = authority.certify(request, LEFT, now=NOW)
    client.take(certificate, now=NOW)
    own = client.own.certificate
    assert own.stat().st_mode & 0o077 == 0
    assert b"PRIVATE KEY" not in request + certificate
    assert x509.load_pem_x509_certificate(own.read_bytes()) == x509.load_der_x509_certificate(certificate)
    client.context()
    assert not client.due(NOW)
    assert client.due(NOW + LEAF_VALIDITY * 0.7)
    assert {path.name for path in client.folder.iterdir()} == {
        "authority.pem", "factory.pem", "own.pem", "broker",
    }  # fmt: skip


def test_what_was_not_asked_for_is_not_kept(
    client: ClientFolder, authority: CertificateAuthority, tmp_path: Path
) -> None:
    request = client.request()
    stranger = CertificateAuthority.open_or_create(tmp_path / "stranger", os.urandom, now=NOW)
    another_key = signing_request(new_key(), LEFT)
    for wrong in (
        b"",
        b"\x30\x03\x02\x01\x00",
        bytes(5000),
        stranger.certify(request, LEFT, now=NOW),
        authority.certify(request, RIGHT, now=NOW),
        authority.certify(another_key, LEFT, now=NOW),
        authority.certify(request, LEFT, now=NOW - LEAF_VALIDITY - timedelta(days=1)),
    ):
        with pytest.raises(TrustError):
            client.take(wrong, now=NOW)
    assert not client.own.exists()
    client.take(authority.certify(request, LEFT, now=NOW), now=NOW)
    with pytest.raises(TrustError):  # nothing is waited for any more
        client.take(authority.certify(request, LEFT, now=NOW), now=NOW)


def test_the_same_request_after_a_crash_or_a_lost_answer(
    client: ClientFolder, authority: CertificateAuthority
) -> None:
    first, again = client.request(), ClientFolder(client.folder, LEFT).request()
    certificate = authority.certify(first, LEFT, now=NOW)
    assert authority.certify(again, LEFT, now=NOW) == certificate
    (client.folder / "next.key").write_bytes(b"half a k")
    with pytest.raises(TrustError):
        client.take(certificate, now=NOW)
    client.take(authority.certify(client.request(), LEFT, now=NOW), now=NOW)  # a new key, then


def test_nobody_can_fill_the_authority_s_disk(authority: CertificateAuthority) -> None:
    for _ in range(MAX_HELD):
        authority.certify(signing_request(new_key(), LEFT), LEFT, now=NOW)
    with pytest.raises(RemoteProtocolError, match="valid certificates already"):
        authority.certify(signing_request(new_key(), LEFT), LEFT, now=NOW)
    authority.certify(signing_request(new_key(), RIGHT), RIGHT, now=NOW)
    authority.revoke(LEFT, now=NOW)
    authority.certify(signing_request(new_key(), LEFT), LEFT, now=NOW)


def test_renewal_is_asked_for_until_it_comes(client: ClientFolder, authority: CertificateAuthority) -> None:
    client.take(authority.certify(client.request(), LEFT, now=NOW), now=NOW)
    keeper, late = CertificateKeeper(client), NOW + LEAF_VALIDITY * 0.7
    assert keeper.wanted(0.0, NOW) == b""
    assert keeper.wanted(LOOK_MS - 1, late) == b""  # it looked a moment ago
    request = keeper.wanted(LOOK_MS, late)
    assert request
    assert keeper.wanted(LOOK_MS + RETRY_MS - 1, late) == b""
    assert keeper.wanted(LOOK_MS + RETRY_MS, late)
    context, before = client.context(), client.own.certificate.read_bytes()
    keeper.take(authority.certify(request, LEFT, now=late), late)
    assert client.own.certificate.read_bytes() != before
    assert context is not None
    assert keeper.wanted(LOOK_MS + 2 * RETRY_MS, late) == b""


def test_a_key_that_others_may_read_is_refused(client: ClientFolder) -> None:
    client.factory_context()
    client.factory.certificate.chmod(0o644)
    with pytest.raises(TrustError, match="open to other users"):
        client.factory_context()


def test_the_command_line_comes_before_the_home_folder(
    client: ClientFolder, authority: CertificateAuthority, tmp_path: Path
) -> None:
    found = broker_access(BrokerOptions(), client.folder, LEFT)
    assert str(found) == "mqtts://localhost:8883"
    assert found.tls is not None
    assert found.tls.authority == client.authority
    pem = tmp_path / "given.pem"
    pem.touch(mode=0o600)
    pem.write_bytes(authority.issue(LEFT, now=NOW).pem)
    given = broker_access(
        BrokerOptions("mqtts://b,mqtts://c:1", client.authority, pem), client.folder, LEFT
    ).tls
    assert given is not None
    assert given.own.certificate == pem
    assert not given.due(NOW + LEAF_VALIDITY)  # whoever gave it renews it
    assert given.factory == client.factory
    pem.write_bytes(authority.issue(Subject.enrolment("left"), now=NOW).pem)
    assert given.factory.certificate == pem
    assert given.own == client.own
    plain = broker_access(BrokerOptions("mqtt://h", client=Client.FAST), client.folder, LEFT)
    assert plain.tls is None
    assert (found.client, plain.client) == (Client.PAHO, Client.FAST)


def test_what_cannot_be_reached_is_said_at_once(client: ClientFolder, tmp_path: Path) -> None:
    pem = client.factory.certificate
    for options, error in (
        (BrokerOptions("mqtt://h", cert=pem), TransportError),
        (BrokerOptions("mqtt://h", ca=pem), TransportError),
        (BrokerOptions("mqtts://h", key=pem), TransportError),
        (BrokerOptions("mqtts://h"), NotFound),
        (BrokerOptions("mqtts://h", cert=pem), NotFound),
    ):
        with pytest.raises(error) as caught:
            broker_access(options, tmp_path / "empty", LEFT)
        assert caught.value.hint
