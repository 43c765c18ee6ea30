"""Which MQTT client speaks to a broker: the two behind one contract, by name.

Decides the names and the default. Both keep the promises of :mod:`aif.transport.base` and pass the same
tests; they differ in cost and in whose code it is.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from enum import StrEnum

from aif.transport.address import BrokerAddress
from aif.transport.base import LastWill, Transport


class Client(StrEnum):
    """A client of an MQTT broker."""

    PAHO = "paho"
    """Eclipse paho with its network thread."""
    FAST = "fast"
    """The event loop's own: no thread, a fraction of the cost per message."""


DEFAULT_CLIENT = Client.PAHO


def open_client(
    client: Client,
    brokers: BrokerAddress | str | Sequence[BrokerAddress],
    *,
    client_id: str = "",
    will: LastWill | None = None,
    tls: ssl.SSLContext | None = None,
) -> Transport:
    """A transport that is not connected yet; only the client that is asked for is imported.

    Both take what :class:`aif.transport.mqtt.MQTTTransport` describes, and raise its errors.
    """
    if client is Client.FAST:
        from aif.transport.fast import FastTransport

        return FastTransport(brokers, client_id=client_id, will=will, tls=tls)
    from aif.transport.mqtt import MQTTTransport

    return MQTTTransport(brokers, client_id=client_id, will=will, tls=tls)
