"""Where a broker is: ``mqtt://[user[:password]@]host[:port]`` or ``mqtts://…``.

Decides what such an address may contain, how the nodes of a cluster are listed, and which of them is next.
Does not resolve names or connect. The password never appears in ``repr``, ``str`` or an error message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from aif.errors import TransportError

PLAIN_PORT = 1883
"""Registered port of MQTT over TCP (IANA ``mqtt``)."""

TLS_PORT = 8883
"""Registered port of MQTT over TLS (IANA ``secure-mqtt``)."""

MAX_URL_CHARACTERS = 2_048

MAX_BROKERS = 16
"""Nodes of one cluster."""

_HINT = "write mqtt://[user[:password]@]host[:port], or mqtts:// for TLS"


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Host, port and credentials of a broker."""

    host: str
    port: int = PLAIN_PORT
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{host}:{self.port}"


def mqtt_url(text: str) -> BrokerAddress:
    """Parse a broker address.

    Args:
        text: at most 2 048 characters; user and password may be percent-encoded (RFC 3986 §3.2.1).

    Raises:
        TransportError: what is wrong with it and what to write instead.
    """
    if len(text) > MAX_URL_CHARACTERS:
        raise TransportError(f"the broker address has {len(text)} characters", hint=_HINT)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise TransportError(f"the broker address is malformed: {error}", hint=_HINT) from None
    if parts.scheme not in {"mqtt", "mqtts"}:
        raise TransportError(f"the broker address begins with {parts.scheme or 'no scheme'!r}", hint=_HINT)
    if not host:
        raise TransportError("the broker address has no host", hint=_HINT)
    try:
        host.encode("idna")  # what the resolver does; it refuses empty and overlong labels
    except UnicodeError as error:
        raise TransportError(f"the broker address has an invalid host {host!r}", hint=_HINT) from error
    if port == 0:
        raise TransportError("the broker address has port 0", hint=_HINT)
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise TransportError("the broker address has something after the port", hint=_HINT)
    if parts.password is not None and not parts.username:
        raise TransportError("the broker address has a password without a user", hint=_HINT)
    tls = parts.scheme == "mqtts"
    return BrokerAddress(
        host=host,
        port=port or (TLS_PORT if tls else PLAIN_PORT),
        tls=tls,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password is not None else None,
    )


def broker_addresses(text: str) -> tuple[BrokerAddress, ...]:
    """Parse one broker address, or those of a cluster's nodes with commas between them.

    Raises:
        TransportError: an address is wrong, one is listed twice, or some have TLS and others not: who breaks
            the connection to the first must not be able to have the next made in clear.
    """
    if text.count(",") >= MAX_BROKERS:
        raise TransportError(f"more than {MAX_BROKERS} brokers are listed", hint=_HINT)
    return checked_brokers([mqtt_url(part.strip()) for part in text.split(",")])


def checked_brokers(brokers: Sequence[BrokerAddress]) -> tuple[BrokerAddress, ...]:
    """The nodes of one cluster.

    Raises:
        TransportError: as :func:`broker_addresses`.
    """
    if not 1 <= len(brokers) <= MAX_BROKERS:
        raise TransportError(f"{len(brokers)} brokers are listed, 1 to {MAX_BROKERS} can be", hint=_HINT)
    if len({(broker.host, broker.port) for broker in brokers}) != len(brokers):
        raise TransportError("a broker is listed twice", hint=_HINT)
    if len({broker.tls for broker in brokers}) != 1:
        raise TransportError("some brokers are reached with TLS and others without", hint="use one of both")
    return tuple(brokers)


class Rotation:
    """Which broker is tried: the next after each failure, and after the last the first again."""

    def __init__(self, brokers: BrokerAddress | str | Sequence[BrokerAddress]) -> None:
        if isinstance(brokers, str):
            self._brokers = broker_addresses(brokers)
        else:
            self._brokers = checked_brokers([brokers] if isinstance(brokers, BrokerAddress) else brokers)
        self._at = 0

    def __len__(self) -> int:
        return len(self._brokers)

    @property
    def current(self) -> BrokerAddress:
        return self._brokers[self._at]

    def advance(self) -> None:
        """The current one failed."""
        self._at = (self._at + 1) % len(self._brokers)
