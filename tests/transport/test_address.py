"""Broker addresses and the delay between attempts to reach one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import TransportError
from aif.transport.address import BrokerAddress, mqtt_url
from aif.transport.backoff import Backoff


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mqtt://localhost", BrokerAddress("localhost", 1883)),
        ("MQTT://Example.ORG:1999/", BrokerAddress("example.org", 1999)),
        ("mqtts://broker", BrokerAddress("broker", 8883, tls=True)),
        ("mqtt://[::1]:1884", BrokerAddress("::1", 1884)),
        ("mqtt://u:p%40ss@h", BrokerAddress("h", 1883, username="u", password="p@ss")),
        ("mqtts://u:@h:1", BrokerAddress("h", 1, tls=True, username="u", password="")),
    ],
)
def test_accepted(text: str, address: BrokerAddress) -> None:
    assert mqtt_url(text) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("localhost:1883", "begins with 'localhost'"),
        ("", "begins with 'no scheme'"),
        ("http://h", "begins with 'http'"),
        ("mqtt://", "has no host"),
        ("mqtt://:1883", "has no host"),
        ("mqtt://h:0", "has port 0"),
        ("mqtt://h:65536", "malformed: Port out of range"),
        ("mqtt://h:x", "malformed: Port could not be cast"),
        ("mqtt://[::1", "malformed: Invalid IPv6 URL"),
        ("mqtt://h/topic", "something after the port"),
        ("mqtt://h?x=1", "something after the port"),
        ("mqtt://:secret@h", "password without a user"),
        ("mqtt://" + "a" * 64, "invalid host"),
        ("mqtt://h" + "h" * 3_000, "has 3008 characters"),
    ],
)
def test_refused(text: str, why: str) -> None:
    with pytest.raises(TransportError, match=why) as caught:
        mqtt_url(text)
    assert "mqtt://[user[:password]@]host[:port]" in caught.value.hint


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused_properly(text: str) -> None:
    for prefix in ("", "mqtt://", "mqtts://u:hunter2@"):
        try:
            address = mqtt_url(prefix + text)
            assert 1 <= address.port <= 65_535
            shown = repr(address) + str(address)
        except TransportError as error:
            shown = error.diagnostics()
        assert "hunter2" not in shown


def test_printed_without_credentials() -> None:
    assert str(mqtt_url("mqtts://user:hunter2@[::1]:99")) == "mqtts://[::1]:99"


@given(st.integers(0, 10_000), st.integers())
def test_delay_is_jittered_and_bounded(failures: int, seed: int) -> None:
    backoff = Backoff(first_s=0.5, longest_s=8.0)
    ceiling_s = min(8.0, 0.5 * 2 ** min(failures, 10))
    delay_s = backoff.delay_s(failures, random.Random(seed))
    assert ceiling_s / 2 <= delay_s <= ceiling_s
    assert delay_s == backoff.delay_s(failures, random.Random(seed))
