"""Where the broker is and how it is reached: as the command line says, or else the home folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aif.cli._options import DEFAULT_BROKER
from aif.errors import NotFound, TransportError
from aif.transport.address import BrokerAddress, broker_addresses
from aif.transport.clients import DEFAULT_CLIENT, Client
from aif.trusted.certificates import Subject
from aif.trusted.client_folder import ClientFolder, Pair


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """What the command line said; empty where it said nothing."""

    broker: str = ""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    client: Client = DEFAULT_CLIENT


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """The nodes of the broker, the TLS side of this client when they are reached with TLS, and its kind."""

    brokers: tuple[BrokerAddress, ...]
    tls: ClientFolder | None
    client: Client = DEFAULT_CLIENT

    def __str__(self) -> str:
        return ", ".join(map(str, self.brokers))


def broker_access(options: BrokerOptions, folder: Path, subject: Subject) -> BrokerAccess:
    """Put together what the command line and a client's folder say.

    Raises:
        TransportError: a malformed address, or a certificate for a broker without TLS.
        NotFound: a broker with TLS, and no certificate.
    """
    given = Pair(options.cert, options.key) if options.cert is not None else None
    if options.key is not None and given is None:
        raise TransportError("a key was given and no certificate", hint="give both, --cert and --key")
    files = ClientFolder(folder, subject, options.ca, given)
    brokers = broker_addresses(options.broker or files.broker or DEFAULT_BROKER)
    if not brokers[0].tls:
        if options.ca is not None or given is not None:
            raise TransportError(f"{brokers[0]} is reached without TLS", hint="write mqtts://")
        return BrokerAccess(brokers, None, options.client)
    if not (files.own.exists() or files.factory.exists()):
        raise NotFound(
            f"there is no certificate for {brokers[0]} in {folder}",
            hint="`aif broker config` and `aif device add` write one; or give --cert and --ca",
        )
    if not files.authority.exists():
        raise NotFound(
            f"there is no {files.authority}", hint="give the authority of the broker's site with --ca"
        )
    return BrokerAccess(brokers, files, options.client)
