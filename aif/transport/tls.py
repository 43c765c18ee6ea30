"""Why TLS with a broker failed, as an error that says whose certificate is at fault and what to do.

Decides the error for what OpenSSL reports. Does not decide whom to trust: the ``ssl.SSLContext`` did.

In TLS 1.3 a client has finished its handshake before the broker looks at its certificate (RFC 8446 §4.4.2),
so a refusal comes as an alert in place of the answer to CONNECT. A broker that closes the connection with
CONNECT unread may reset it before the alert was read; then only :class:`TLSFailed` can be said.

Source: RFC 8446 §6.2 for alerts, RFC 5280 §6 for what the verification of a certificate may find.
"""

from __future__ import annotations

import ssl
from typing import Final

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

_OURS: Final[dict[str, tuple[type[TLSFailed], str, str]]] = {
    "CERTIFICATE_REQUIRED": (
        CertificateMissing, "it wants a certificate from this client and got none",
        "give --cert, or run `aif broker config` for this home folder",
    ),
    "CERTIFICATE_EXPIRED": (
        CertificateExpired, "this client's certificate is not valid now",
        "compare the clocks; a device whose certificate ended must enrol anew",
    ),
    "CERTIFICATE_REVOKED": (
        CertificateRevoked, "this client's certificate was revoked",
        "if that was a mistake, remove the device, add it and let it enrol anew",
    ),
    "UNKNOWN_CA": (
        UnknownAuthority, "it does not know the authority that signed this client's certificate",
        "use the certificate that the site of this broker issued",
    ),
}  # fmt: skip
"""By the end of the name that OpenSSL gives to the broker's alert."""

_EXPIRED = (CertificateExpired, "its certificate is not valid now", "compare the clocks; renew it there")
_UNKNOWN = (
    UnknownAuthority,
    "its certificate was not signed by an authority that this client trusts",
    "give the authority of its site with --ca",
)
_MISNAMED = (
    WrongBrokerName,
    "its certificate does not name this host",
    "connect by a name that it holds, or add this one with `aif broker config --host`",
)
_REVOKED = (
    CertificateRevoked,
    "its certificate was revoked",
    "somebody may pose as the broker: do not go on",
)
_THEIRS: Final[dict[int, tuple[type[TLSFailed], str, str]]] = {
    9: _EXPIRED, 10: _EXPIRED, 18: _UNKNOWN, 19: _UNKNOWN, 20: _UNKNOWN, 21: _UNKNOWN,
    23: _REVOKED, 62: _MISNAMED, 64: _MISNAMED,
}  # fmt: skip
"""By X509_V_ERR_* of OpenSSL (x509_vfy.h)."""


def refusal(broker: BrokerAddress, reason: str, error: BaseException | None) -> BrokerRefused:
    """The error for a connection that did not come about.

    Args:
        broker: where it should have led.
        reason: what is known, in words.
        error: what the socket raised, if anything.
    """
    where = f"no MQTT connection to {broker.host}:{broker.port}"
    if not broker.tls or not isinstance(error, ssl.SSLError | ConnectionError):
        return BrokerRefused(
            f"{where}: {reason}", hint="start the broker there, or give the address of another one"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _THEIRS.get(error.verify_code)
    else:
        name = getattr(error, "reason", None) or ""
        known = next((entry for end, entry in _OURS.items() if name.endswith(end)), None)
    if known is not None:
        kind, what, hint = known
        of_broker = isinstance(error, ssl.SSLCertVerificationError)
        return kind(f"{where}: {what}", of_broker=of_broker, hint=hint)
    if isinstance(error, ConnectionRefusedError):
        return BrokerRefused(f"{where}: {reason}", hint="start the broker there, or give another address")
    return TLSFailed(
        f"{where}: {reason}", hint="the broker's log says why; does it speak TLS 1.3 on this port?"
    )
