"""What one client keeps to reach the broker with TLS: whom it trusts, its certificates, the broker's address.

A device starts with a factory certificate that is good for enrolment only. Its own certificate follows from a
signing request, so the key of it is made here and never leaves this folder. Decides when a certificate is due
for renewal and whether one that came is the one that was asked for. Opens no socket.

Invariants: keys are in private files (mode 0600); key and certificate lie in one file that is replaced as a
whole, so a crash leaves the old pair or the new one; a certificate is kept only if it is for the key that
waits for it, for this client's name, and signed by the site's authority.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aif.errors import TrustError
from aif.protocol.limits import MAX_CERTIFICATE_BYTES
from aif.trusted.certificates import (
    MAX_PEM_BYTES,
    PRIVATE_MODE,
    RENEWAL,
    Role,
    Subject,
    client_context,
    key_pem,
    new_key,
    pem,
    role_of,
    signing_request,
)
from aif.trusted.state import write_atomically

RETRY_MS = 10_000.0
"""A request that was not answered is repeated after this long."""

LOOK_MS = 3_600_000.0
"""Between two looks at the end of a certificate's life."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key; both in one file unless ``key`` is given."""

    certificate: Path
    key: Path | None = None

    def exists(self) -> bool:
        return self.certificate.exists()

    def load(self) -> x509.Certificate:
        """The certificate.

        Raises:
            TrustError: it cannot be read.
        """
        try:
            return x509.load_pem_x509_certificate(self.certificate.read_bytes()[:MAX_PEM_BYTES])
        except (OSError, ValueError) as error:
            raise TrustError(f"{self.certificate} holds no certificate") from error


@dataclass(frozen=True, slots=True)
class ClientFolder:
    """The files of one client. ``ca`` and ``given`` stand in for what the folder holds."""

    folder: Path
    subject: Subject
    ca: Path | None = None
    given: Pair | None = None
    _contexts: list[ssl.SSLContext] = field(default_factory=list, repr=False, compare=False)

    @property
    def authority(self) -> Path:
        """Whom this client trusts."""
        return self.ca or self.folder / "authority.pem"

    @property
    def own(self) -> Pair:
        """The site's certificate for this client."""
        if self.given is not None and role_of(self.given.load()) is not Role.ENROLMENT:
            return self.given
        return Pair(self.folder / "own.pem")

    @property
    def factory(self) -> Pair:
        """What a device enrols with."""
        if self.given is not None and role_of(self.given.load()) is Role.ENROLMENT:
            return self.given
        return Pair(self.folder / "factory.pem")

    @property
    def broker(self) -> str:
        """Address of the broker, or of its nodes; empty when none is known."""
        path = self.folder / "broker"
        return path.read_text(encoding="utf-8").strip() if path.exists() else ""

    def install(self, authority: bytes, *, broker: str = "", factory: bytes = b"", own: bytes = b"") -> None:
        """Put in what the site gives; what is empty stays as it is.

        Args:
            authority: whom to trust, PEM.
            broker: address.
            factory: key and factory certificate, PEM.
            own: key and own certificate, PEM.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_MODE)
        for name, content in (
            ("authority.pem", authority), ("factory.pem", factory), ("own.pem", own),
            ("broker", broker.encode()),
        ):  # fmt: skip
            if content:
                write_atomically(self.folder / name, content)

    # --- TLS ---------------------------------------------------------------------------------------

    def context(self) -> ssl.SSLContext:
        """TLS with this client's own certificate; after a renewal it uses the new one."""
        context = client_context(self.authority, self.own.certificate, self.own.key)
        self._contexts.append(context)
        return context

    def factory_context(self) -> ssl.SSLContext:
        """TLS for enrolment."""
        return client_context(self.authority, self.factory.certificate, self.factory.key)

    # --- the certificate's life --------------------------------------------------------------------

    @property
    def _waiting(self) -> Path:
        """The key of the certificate that was asked for."""
        return self.folder / "next.key"

    def due(self, now: datetime) -> bool:
        """Whether a new certificate should be asked for: a third of its life is left, or less.

        A certificate that was given on the command line is renewed by whoever gave it.
        """
        if self.own is self.given:
            return False
        return not self.own.exists() or self.own.load().not_valid_after_utc - now < RENEWAL

    def request(self) -> bytes:
        """A signing request (PKCS #10, DER) for a new key; the same key until its certificate has come."""
        try:
            key = serialization.load_pem_private_key(self._waiting.read_bytes()[:MAX_PEM_BYTES], None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            key = new_key()
            self.folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_MODE)
            write_atomically(self._waiting, key_pem(key))
        return signing_request(key, self.subject)

    def take(self, certificate: bytes, *, now: datetime) -> None:
        """Keep the certificate that was asked for, together with its key.

        Args:
            certificate: DER, at most 3 KiB.
            now: it must be valid then.

        Raises:
            TrustError: it is not the answer to :meth:`request`.
        """
        try:
            waiting = self._waiting.read_bytes()[:MAX_PEM_BYTES]
            key = serialization.load_pem_private_key(waiting, None)
            parsed = x509.load_der_x509_certificate(certificate[:MAX_CERTIFICATE_BYTES])
            issuer = x509.load_pem_x509_certificate(self.authority.read_bytes()[:MAX_PEM_BYTES])
            parsed.verify_directly_issued_by(issuer)
        except (OSError, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise TrustError("a certificate that nobody asked for, or not by the site's authority") from error
        if parsed.public_key() != key.public_key() or parsed.subject != self.subject.name:
            raise TrustError("a certificate for another key or another name than was asked for")
        if not parsed.not_valid_before_utc <= now < parsed.not_valid_after_utc:
            raise TrustError("a certificate that is not valid now", hint="compare the clocks")
        write_atomically(self.folder / "own.pem", waiting + pem(parsed))
        self._waiting.unlink(missing_ok=True)
        for context in self._contexts:
            context.load_cert_chain(self.folder / "own.pem")


class CertificateKeeper:
    """Renews the certificate of a device that is in a session with its Controller."""

    def __init__(self, folder: ClientFolder) -> None:
        self._folder = folder
        self._next_look_ms = 0.0

    def wanted(self, now_ms: float, now: datetime) -> bytes:
        """A signing request to send to the Controller now; empty when there is nothing to ask.

        Args:
            now_ms: monotonic; what is lost on the way is asked for again after ``RETRY_MS``.
            now: wall clock.
        """
        if now_ms < self._next_look_ms:
            return b""
        due = self._folder.due(now)
        self._next_look_ms = now_ms + (RETRY_MS if due else LOOK_MS)
        return self._folder.request() if due else b""

    def take(self, certificate: bytes, now: datetime) -> None:
        """The Controller's answer; see :meth:`ClientFolder.take`."""
        self._folder.take(certificate, now=now)
