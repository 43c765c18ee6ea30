"""What the authority says to bytes that are no request, or no credentials any more."""

from __future__ import annotations

import os
from base64 import encodebytes
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from aif.errors import RemoteProtocolError
from aif.trusted.authority import CertificateAuthority
from aif.trusted.certificates import Subject, der, new_key, signing_request

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LEFT = Subject.device("left")
VERSION_0, VERSION_7 = b"\x02\x01\x00", b"\x02\x01\x07"


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.open_or_create(tmp_path / "authority", os.urandom, now=NOW)


def test_a_signing_request_of_an_unknown_version_is_malformed(authority: CertificateAuthority) -> None:
    request = signing_request(new_key(), LEFT)
    assert request.count(VERSION_0) == 1
    with pytest.raises(RemoteProtocolError, match="malformed"):
        authority.certify(request.replace(VERSION_0, VERSION_7), LEFT, now=NOW)
    authority.certify(request, LEFT, now=NOW)


def test_whichever_byte_of_a_certificate_is_damaged_it_is_replaced(authority: CertificateAuthority) -> None:
    issued = authority.issue(LEFT, now=NOW)
    whole = der(x509.load_pem_x509_certificate(issued.certificate))
    assert authority.replacement_reason(_pem(whole) + issued.key, LEFT, now=NOW) == ""
    for at in range(len(whole)):
        damaged = whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :]
        assert authority.replacement_reason(_pem(damaged) + issued.key, LEFT, now=NOW) != "", at


def _pem(certificate: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + encodebytes(certificate) + b"-----END CERTIFICATE-----\n"
