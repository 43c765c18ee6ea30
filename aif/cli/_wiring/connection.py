"""A client of the site's broker, under the certificate that fits."""

from __future__ import annotations

from aif.cli._broker_access import BrokerAccess
from aif.transport.base import LastWill, Transport


def open_transport(
    broker: BrokerAccess, client_id: str, *, will: LastWill | None = None, enrol: bool = False
) -> Transport:
    """A client of the broker; with ``enrol`` it has no right but to enrol."""
    from aif.transport.clients import open_client

    tls = None
    if broker.tls is not None:
        tls = broker.tls.factory_context() if enrol else broker.tls.context()
    return open_client(broker.client, broker.brokers, client_id=client_id, will=will, tls=tls)
