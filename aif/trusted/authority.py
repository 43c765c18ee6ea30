"""The site's certificate authority: which certificates exist, who signed them, and which were taken back.

Decides who signs whom and what is revoked. What a certificate looks like is in ``certificates``; what a name
may do at the broker is in the broker's access rules. Opens no socket.

Two authorities, because they may live in two places: the site's signs the broker, the Controller and the
devices; the factory's signs nothing but the right to enrol. The factory's carries an X.509 name constraint,
so whoever holds its key still cannot name a device or the Controller: TLS refuses such a certificate.

Invariants: the broker trusts both authorities, clients trust only the site's; a certificate is on record
before anyone can hold it, so that revoking a name finds all of them.

Source: RFC 5280 (profile, revocation lists, name constraints), RFC 8410 (Ed25519 in X.509).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.protocol.limits import MAX_CERTIFICATE_BYTES
from aif.trusted.certificates import (
    BACKDATING,
    LEAF_VALIDITY,
    MAX_PEM_BYTES,
    PRIVATE_MODE,
    RENEWAL,
    Credentials,
    Role,
    Subject,
    alternative_names,
    builder_of,
    der,
    hosts_of,
    key_pem,
    key_usage,
    new_key,
    pem,
)
from aif.trusted.state import StateFile, write_atomically

AUTHORITY_VALIDITY: Final = timedelta(days=3650)
MAX_HOSTS: Final = 16
MAX_HELD: Final = 8
"""Valid certificates of one device; it needs two while one follows the other."""


_MALFORMED: Final = (
    ValueError, TypeError, UnsupportedAlgorithm,
    x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""What ``cryptography`` raises for damaged bytes; it parses each part when that is first looked at."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """A certificate on the revocation list until it would have expired anyway (RFC 5280 §3.3)."""

    serial: bytes
    by_factory: bool
    revoked_s: int
    not_after_s: int


@dataclass(frozen=True, slots=True)
class AuthorityState:
    """Keys and certificates (DER) of both authorities, and what they took back."""

    site_seed: bytes = field(repr=False)
    site_certificate: bytes
    factory_seed: bytes = field(repr=False)
    factory_certificate: bytes
    list_number: int = 1
    revoked: tuple[Revoked, ...] = ()


class CertificateAuthority:
    """Both authorities of one site, in a private folder."""

    def __init__(self, folder: Path) -> None:
        self._file = StateFile(folder / "authority.cbor", AuthorityState)
        self._issued = folder / "issued"

    @classmethod
    def open_or_create(cls, folder: Path, random: Callable[[int], bytes], *, now: datetime) -> Self:
        """The authorities in ``folder``; new ones, with keys from ``random``, if there are none."""
        authority = cls(folder)
        if not authority._file.exists():
            site, factory = random(32), random(32)
            authority._file.save(
                AuthorityState(
                    site,
                    der(_authority(site, "site authority", now)),
                    factory,
                    der(_authority(factory, "factory authority", now, only=Role.ENROLMENT)),
                )
            )
        return authority

    # --- what the others get -----------------------------------------------------------------------

    @property
    def site_pem(self) -> bytes:
        """What clients trust."""
        return pem(_issuer(self._file.load(), by_factory=False).certificate)

    @property
    def client_authorities_pem(self) -> bytes:
        """What the broker trusts."""
        state = self._file.load()
        return b"".join(pem(_issuer(state, by_factory=who).certificate) for who in (False, True))

    def revocation_lists_pem(self, *, now: datetime) -> bytes:
        """One list per authority.

        They are valid as long as the authority: a broker reads them from its own disk, where a list that
        runs out protects nothing and would only lock everyone out.
        """
        state = self._file.load()
        return b"".join(_revocation_list(state, now, by_factory=who) for who in (False, True))

    # --- issuing -----------------------------------------------------------------------------------

    def issue(self, subject: Subject, *, now: datetime, hosts: Sequence[str] = ()) -> Credentials:
        """A new P-256 key and its certificate.

        Args:
            subject: whose.
            now: issued then.
            hosts: names and addresses by which clients reach a broker; 1 to 16 for a broker, none for others.
        """
        key = new_key()
        return Credentials(pem(self._certify(key.public_key(), subject, now, hosts)), key_pem(key))

    def certify(self, request: bytes, subject: Subject, *, now: datetime) -> bytes:
        """Certificate (DER) for a key that never left its device.

        Args:
            request: PKCS #10, DER, at most 3 KiB; its subject is ignored, who asks was decided by the caller.
            subject: whose key it is.
            now: issued then.

        The same key gets the same certificate again while that is not due for renewal: an answer may be lost.

        Raises:
            RemoteProtocolError: malformed, not a P-256 key, not signed by it (RFC 2986), or the name holds
                ``MAX_HELD`` certificates already.
        """
        if len(request) > MAX_CERTIFICATE_BYTES:
            raise RemoteProtocolError(f"a signing request of {len(request)} B is too large")
        try:
            parsed = x509.load_der_x509_csr(request)
            key = parsed.public_key()
            signed = parsed.is_signature_valid
        except _MALFORMED as error:
            raise RemoteProtocolError("the signing request is malformed") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise RemoteProtocolError("the signing request is not for a P-256 key")
        if not signed:
            raise RemoteProtocolError("the signing request is not signed by its own key")
        held = [c for c in self._certificates(subject) if c.not_valid_after_utc > now]
        revoked = {int.from_bytes(entry.serial) for entry in self._file.load().revoked}
        held = [c for c in held if c.serial_number not in revoked]
        for certificate in held:
            if certificate.public_key() == key and certificate.not_valid_after_utc - now >= RENEWAL:
                return der(certificate)
        if len(held) >= MAX_HELD:
            raise RemoteProtocolError(f"{subject.common_name} holds {len(held)} valid certificates already")
        return der(self._certify(key, subject, now, ()))

    def replacement_reason(
        self, pem: bytes, subject: Subject, *, now: datetime, hosts: Sequence[str] = ()
    ) -> str:
        """Why credentials that were written before must be replaced; empty when they need not be."""
        state = self._file.load()
        try:
            return _fault(state, pem, subject, now, hosts)
        except _MALFORMED:
            return "unreadable"

    # --- revoking ----------------------------------------------------------------------------------

    def revoke(self, subject: Subject, *, now: datetime) -> int:
        """Put every certificate of a name on the list; returns how many were new there."""
        held = [(c.serial_number.to_bytes(20), c.not_valid_after_utc) for c in self._certificates(subject)]
        number = 0

        def change(state: AuthorityState) -> AuthorityState:
            nonlocal number
            kept = tuple(entry for entry in state.revoked if entry.not_after_s > now.timestamp())
            listed = {entry.serial for entry in kept}
            added = tuple(
                Revoked(serial, subject.role is Role.ENROLMENT, int(now.timestamp()), int(end.timestamp()))
                for serial, end in held
                if serial not in listed and end > now
            )
            number = len(added)
            if not added and kept == state.revoked:
                return state
            return replace(state, revoked=kept + added, list_number=state.list_number + 1)

        self._file.update(change)
        return number

    # --- inside ------------------------------------------------------------------------------------

    def _folder(self, subject: Subject) -> Path:
        return self._issued / subject.role.value / subject.common_name

    def _certificates(self, subject: Subject) -> Iterator[x509.Certificate]:
        for path in sorted(self._folder(subject).glob("*.crt")):
            yield x509.load_pem_x509_certificate(path.read_bytes()[:MAX_PEM_BYTES])

    def _certify(
        self, key: ec.EllipticCurvePublicKey, subject: Subject, now: datetime, hosts: Sequence[str]
    ) -> x509.Certificate:
        is_broker = subject.role is Role.BROKER
        if len(hosts) > MAX_HOSTS or is_broker != bool(hosts):
            raise LocalProtocolError(f"a broker's certificate names 1 to {MAX_HOSTS} hosts, others none")
        issuer = _issuer(self._file.load(), by_factory=subject.role is Role.ENROLMENT)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if is_broker else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            builder_of(subject.name, issuer.certificate.subject, key, now, now + LEAF_VALIDITY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(issuer.identifier, critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName(alternative_names(hosts))
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(issuer.key, None)
        folder = self._folder(subject)
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_MODE)
        write_atomically(folder / f"{certificate.serial_number:040x}.crt", pem(certificate))
        return certificate


def renewed(
    authority: CertificateAuthority,
    subject: Subject,
    path: Path,
    now: datetime,
    hosts: Sequence[str] = (),
) -> tuple[bytes, str]:
    """New credentials (PEM, key first) if those in ``path`` are not good any more, and why; else empty."""
    reason = "new"
    if path.exists():
        reason = authority.replacement_reason(path.read_bytes(), subject, now=now, hosts=hosts)
        if not reason:
            return b"", "kept"
    return authority.issue(subject, now=now, hosts=hosts).pem, reason


@dataclass(frozen=True, slots=True)
class _Issuer:
    """One of the two authorities, ready to sign."""

    key: Ed25519PrivateKey
    certificate: x509.Certificate

    @property
    def identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())


def _issuer(state: AuthorityState, *, by_factory: bool) -> _Issuer:
    seed = state.factory_seed if by_factory else state.site_seed
    certificate = state.factory_certificate if by_factory else state.site_certificate
    return _Issuer(Ed25519PrivateKey.from_private_bytes(seed), x509.load_der_x509_certificate(certificate))


def _fault(state: AuthorityState, pem: bytes, subject: Subject, now: datetime, hosts: Sequence[str]) -> str:
    """What is wrong with credentials; raises one of ``_MALFORMED`` at any look at damaged ones."""
    certificate = x509.load_pem_x509_certificate(pem)
    key = serialization.load_pem_private_key(pem, None)

    if key.public_key() != certificate.public_key():
        return "the key is not the certificate's"
    try:
        certificate.verify_directly_issued_by(
            _issuer(state, by_factory=subject.role is Role.ENROLMENT).certificate
        )
    except (ValueError, TypeError, InvalidSignature):
        return "signed by another authority"
    if certificate.subject != subject.name:
        return "made out to another name"
    if certificate.serial_number in {int.from_bytes(entry.serial) for entry in state.revoked}:
        return "revoked"
    if certificate.not_valid_after_utc - now < RENEWAL:
        return f"it ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if subject.role is Role.BROKER and hosts_of(certificate) != alternative_names(hosts):
        return "the broker's names have changed"
    return ""


def _revocation_list(state: AuthorityState, now: datetime, *, by_factory: bool) -> bytes:
    issuer = _issuer(state, by_factory=by_factory)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - BACKDATING)
        .next_update(issuer.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(state.list_number), critical=False)
        .add_extension(issuer.identifier, critical=False)
    )
    for entry in state.revoked:
        if entry.by_factory == by_factory:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(int.from_bytes(entry.serial))
                .revocation_date(datetime.fromtimestamp(entry.revoked_s, UTC))
                .build()
            )
    return builder.sign(issuer.key, None).public_bytes(serialization.Encoding.PEM)


def _authority(seed: bytes, common_name: str, now: datetime, *, only: Role | None = None) -> x509.Certificate:
    """A self-signed Ed25519 authority; with ``only`` it is good for subjects of that role and no others."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        builder_of(name, name, key.public_key(), now, now + AUTHORITY_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
    )
    if only is not None:
        unit = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, only.value)])
        builder = builder.add_extension(
            x509.NameConstraints(permitted_subtrees=[x509.DirectoryName(unit)], excluded_subtrees=None),
            critical=True,
        )
    return builder.sign(key, None)
