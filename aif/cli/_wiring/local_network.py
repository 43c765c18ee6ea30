"""A site's broker on the local network: announced by its Controller, found by its devices.

What is found is only an address: it is signed by the site, and all that follows is authenticated as over an
address that a person gave.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Final

from nacl.signing import SigningKey

from aif.cli._broker_access import BrokerAccess
from aif.errors import AIFError, TransportError
from aif.protocol.beacon import Beacon, sign_beacon, verify_beacon
from aif.runtime.devices.registry import Site
from aif.runtime.logbook import LogBook
from aif.transport.address import broker_addresses
from aif.transport.mdns import announcing, first_heard

MDNS: Final = "mdns:"
SAY_EVERY_S: Final = 10.0


@asynccontextmanager
async def announced(site: Site, broker: BrokerAccess, log: LogBook) -> AsyncIterator[None]:
    """Say on the network, signed by the site, where its broker is; until the block ends."""
    key = SigningKey(site.state.enrolment_seed)
    strings = sign_beacon(Beacon(str(broker)), lambda data: key.sign(data).signature)
    name = "tinyaif-" + hashlib.sha256(site.enrolment_pk).hexdigest()[:8]
    first = broker.brokers[0]
    async with announcing(strings, name=name, host=first.host, port=first.port):
        log.info("the broker is announced on the local network", name=name, broker=str(broker))
        yield


async def found_on_network(asked: str, controller_public: bytes, *, tls: bool, log: LogBook) -> str:
    """Wait until this device's own site says where its broker is.

    Args:
        asked: ``mdns:``, or ``mdns://`` and the address of the interface to listen on.
        controller_public: enrolment key of the site, from the device's provisioning.
        tls: the site gave this device a certificate, so it takes no broker without TLS.
        log: told from time to time what was heard instead.

    Raises:
        TransportError: ``asked`` is neither, the package is missing, or there is no multicast.
    """
    interface = _interface(asked)
    others: set[str] = set()

    def believed(strings: Mapping[bytes, bytes | None]) -> str | None:
        try:
            brokers = broker_addresses(verify_beacon(strings, controller_public).brokers)
        except AIFError:
            others.add("records of other sites, or of nobody")
            return None
        if tls and not brokers[0].tls:
            others.add(f"{brokers[0]} of this site, without TLS though this device has a certificate")
            return None
        return ", ".join(map(str, brokers))

    waiting = asyncio.ensure_future(first_heard(believed, interface=interface))
    try:
        while True:
            done, _ = await asyncio.wait([waiting], timeout=SAY_EVERY_S)
            if done:
                found = waiting.result()
                log.info("the site's broker was found on the local network", broker=found)
                return found
            log.warning(
                "no word of this device's site on the local network yet",
                heard="; ".join(sorted(others)) or "nothing",
                hint="is its Controller running with --mdns, on the same network?",
            )
    finally:
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError, AIFError):
            await waiting


def _interface(asked: str) -> str | None:
    rest = asked.removeprefix(MDNS).removeprefix("//").rstrip("/")
    if not rest:
        return None
    try:
        return str(ip_address(rest))
    except ValueError:
        raise TransportError(
            f"{asked} names no interface",
            hint="write mdns: for all, or mdns://ADDRESS with an address of this machine",
        ) from None
