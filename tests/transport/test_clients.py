"""The client that was asked for, with everything that was asked of it."""

from __future__ import annotations

import ssl

import pytest

from aif.errors import LocalProtocolError
from aif.transport.base import LastWill
from aif.transport.clients import DEFAULT_CLIENT, Client, open_client
from aif.transport.endpoint import Endpoint
from aif.transport.fast import FastTransport
from aif.transport.mqtt import MQTTTransport


@pytest.mark.parametrize(("client", "kind"), [(Client.PAHO, MQTTTransport), (Client.FAST, FastTransport)])
def test_a_client_is_opened_by_name(client: Client, kind: type[Endpoint]) -> None:
    will = LastWill("a/b", b"gone")
    opened = open_client(client, "mqtt://h", client_id="one", will=will)
    assert isinstance(opened, kind)
    assert (opened.client_id, opened.will) == ("one", will)


@pytest.mark.parametrize("client", Client)
def test_tls_is_never_left_out_in_silence(client: Client) -> None:
    with pytest.raises(LocalProtocolError, match="TLS context"):
        open_client(client, "mqtt://h", tls=ssl.create_default_context())


def test_a_well_kept_library_is_the_default() -> None:
    assert DEFAULT_CLIENT is Client.PAHO
