"""Certificates of brokers, Controllers and devices: their shape, their names, and TLS with them.

Decides what each role may be called and what its certificate looks like. Does not decide who gets one
(``authority``) nor what a name may do at the broker (its access rules). These certificates guard the way to
the broker only; what travels through it is sealed end to end by other keys.

Invariants: the role is part of the subject, so a device that is called "controller" is not the Controller; no
client certificate is good for a server.

Source: RFC 5280 (profile), RFC 2986 (signing requests).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID

from aif.errors import LocalProtocolError, TrustError
from aif.protocol.identifiers import check_device_name, device_of_enrolment_cn, enrolment_cn

LEAF_VALIDITY: Final = timedelta(days=365)
RENEWAL: Final = LEAF_VALIDITY / 3
"""A certificate with less than this left is replaced the next time the set-up is written."""

BACKDATING: Final = timedelta(hours=1)
"""Devices whose clock is a little slow accept a certificate that was just made."""

MAX_HOST_CHARACTERS: Final = 253
"""RFC 1035 §2.3.4, without the root's empty label."""

MAX_PEM_BYTES: Final = 16 * 1024

PRIVATE_MODE: Final = 0o700

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")  # RFC 1123 §2.1


class Role(StrEnum):
    """What a certificate's holder is; the organisational unit of its subject."""

    BROKER = "broker"
    CONTROLLER = "controller"
    DEVICE = "device"
    ENROLMENT = "enrolment"


@dataclass(frozen=True, slots=True)
class Subject:
    """Role and common name of a certificate.

    >>> Subject.device("mcu-1").user
    'CN=mcu-1,OU=device'
    """

    role: Role
    common_name: str

    def __post_init__(self) -> None:
        match self.role:
            case Role.DEVICE:
                check_device_name(self.common_name)
            case Role.ENROLMENT:
                device_of_enrolment_cn(self.common_name)
            case Role.BROKER | Role.CONTROLLER:
                if self.common_name != self.role:
                    raise LocalProtocolError(f"the {self.role}'s common name is {self.role}")

    @classmethod
    def broker(cls) -> Self:
        return cls(Role.BROKER, Role.BROKER)

    @classmethod
    def controller(cls) -> Self:
        return cls(Role.CONTROLLER, Role.CONTROLLER)

    @classmethod
    def device(cls, device: str) -> Self:
        return cls(Role.DEVICE, device)

    @classmethod
    def enrolment(cls, device: str) -> Self:
        """What the factory certificate of a device says."""
        return cls(Role.ENROLMENT, enrolment_cn(device))

    @property
    def name(self) -> x509.Name:
        unit = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, self.role.value)
        return x509.Name([unit, x509.NameAttribute(NameOID.COMMON_NAME, self.common_name)])

    @property
    def user(self) -> str:
        """The subject as text (RFC 4514): the MQTT user that a broker makes of it."""
        return self.name.rfc4514_string()


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def pem(self) -> bytes:
        """Both in one file, so that a key never lies beside another key's certificate."""
        return self.key + self.certificate


def client_context(authorities: Path, credentials: Path, key: Path | None = None) -> ssl.SSLContext:
    """TLS 1.3 towards the site's broker, with this client's certificate.

    Args:
        authorities: PEM file of the authorities to trust; no other is.
        credentials: PEM file with this client's certificate and, unless ``key`` is given, its key.
        key: PEM file with the key. The file with the key must be private.

    Raises:
        TrustError: a file is missing, damaged, or open to others.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    secret = key or credentials
    try:
        if secret.stat().st_mode & 0o077:
            raise TrustError(f"{secret} is open to other users", hint=f"chmod 600 {secret}")
        context.load_verify_locations(cafile=authorities)
        context.load_cert_chain(credentials, key)
    except (OSError, ssl.SSLError) as error:
        raise TrustError(
            f"no TLS with {credentials} and {authorities}: {error.strerror or error}",
            hint="`aif broker config` and `aif device add` write them into the home folder",
        ) from error
    return context


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key from the system's random source."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key in clear: there is no hardware on these hosts to wrap it with."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signing_request(key: ec.EllipticCurvePrivateKey, subject: Subject) -> bytes:
    """PKCS #10, DER, signed with the key it is about."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject.name)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def role_of(certificate: x509.Certificate) -> Role:
    """The role in a certificate's subject.

    Raises:
        TrustError: it has none of this project's.
    """
    units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    try:
        return Role(str(units[0].value))
    except (IndexError, ValueError):
        raise TrustError("the certificate names no role of this project") from None


def builder_of(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | Ed25519PublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATING)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates,
        crl_sign=signs_certificates, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def alternative_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in hosts:
        with suppress(ValueError):
            names.append(x509.IPAddress(ip_address(host)))
            continue
        try:
            ascii_host = host.encode("idna").decode("ascii").lower()
        except UnicodeError:
            ascii_host = ""
        if len(ascii_host) > MAX_HOST_CHARACTERS or not _HOST.fullmatch(ascii_host):
            raise LocalProtocolError(
                f"{host[:80]!r} is neither a host name nor an address",
                hint="give what clients connect to, such as broker.example or 192.0.2.1",
            )
        names.append(x509.DNSName(ascii_host))
    return names


def hosts_of(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
