"""The gates of a site: who is let in, and what a flood takes from whom."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nacl.bindings import crypto_scalarmult_base
from nacl.signing import SigningKey

from aif.errors import NotFound
from aif.protocol.stamp import check_stamp, device_stamp_key, stamp
from aif.protocol.topics import Attestation, AttestationTopic, Up, UpTopic
from aif.runtime.devices.gatekeeper import STRANGERS, TOLD_MS, Gatekeeper
from aif.runtime.devices.registry import Site
from aif.runtime.logbook import LogBook
from aif.trusted.security_engine import DeviceKeys
from aif.trusted.state import DeviceState, StateFile
from tests.runtime.virtual_clock import VirtualClock

HELLO = UpTopic("mcu-1", Up.HELLO)
SK, OTHER_SK = bytes([7] * 32), bytes([8] * 32)


@dataclass
class Bench:
    site: Site
    clock: VirtualClock
    log: io.StringIO
    gates: Gatekeeper
    folder: Path

    def register(self, name: str, exchange_sk: bytes) -> None:
        keys = DeviceKeys(bytes(SigningKey(os.urandom(32)).verify_key), crypto_scalarmult_base(exchange_sk))
        notes = StateFile(self.folder / f"{os.urandom(4).hex()}.cbor", DeviceState)
        self.site.provision(name, "bench", notes, lambda: keys, now_s=0)

    def hello(self, exchange_sk: bytes, number: int) -> bytes:
        return stamp(device_stamp_key(exchange_sk, self.site.enrolment_pk), str(HELLO), b"hello", number)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    clock, log = VirtualClock(), io.StringIO()
    site = Site.open_or_create(tmp_path / "site", os.urandom)
    gates = Gatekeeper(
        site, expected=lambda name: name == "awaited", clock=clock, log=LogBook("controller", clock, log)
    )
    made = Bench(site, clock, log, gates, tmp_path)
    made.register("mcu-1", SK)
    return made


def test_a_device_is_heard_beside_any_flood_in_its_name_or_in_others(bench: Bench) -> None:
    for number in range(2_000):
        assert bench.gates.admit("mcu-1", HELLO, number.to_bytes(100)) is None
        bench.gates.admit(f"ghost-{number}", UpTopic(f"ghost-{number}", Up.HELLO), b"boo")
    assert bench.gates.admit("mcu-1", HELLO, bench.hello(SK, 1)) == b"hello"
    assert bench.gates.refused("mcu-1") == {"gate.stamp": 2_000}
    assert bench.gates.strangers_refused == 2_000 - STRANGERS.burst


def test_a_flood_of_names_leaves_room_for_those_that_are_expected(bench: Bench) -> None:
    for number in range(2_000):
        bench.gates.admit(f"ghost-{number}", UpTopic(f"ghost-{number}", Up.HELLO), b"boo")
    assert bench.gates.admit("ghost", UpTopic("ghost", Up.HELLO), b"boo") is None
    assert bench.gates.admit("awaited", UpTopic("awaited", Up.HELLO), b"here") == b"here"


def test_a_device_that_is_registered_anew_is_known_at_once_by_its_new_key_alone(bench: Bench) -> None:
    old = bench.hello(SK, 1)
    assert bench.gates.admit("mcu-1", HELLO, old) == b"hello"
    bench.site.forget("mcu-1")
    assert bench.gates.admit("mcu-1", HELLO, b"anything") == b"anything"  # a stranger's word
    bench.register("mcu-1", OTHER_SK)
    assert bench.gates.admit("mcu-1", HELLO, bench.hello(SK, 2)) is None
    assert bench.gates.admit("mcu-1", HELLO, bench.hello(OTHER_SK, 2)) == b"hello"


def test_what_the_site_says_has_growing_numbers(bench: Bench) -> None:
    topic, key = AttestationTopic("mcu-1", Attestation.REQUEST), device_stamp_key(SK, bench.site.enrolment_pk)
    found = [check_stamp(key, str(topic), bench.gates.stamped("mcu-1", topic, b"?"))[1] for _ in range(3)]
    assert found == sorted(set(found))
    with pytest.raises(NotFound):
        bench.gates.stamped("nobody", topic, b"?")


def test_a_flood_is_told_seldom_and_with_a_hint(bench: Bench) -> None:
    for _ in range(500):
        bench.gates.admit("mcu-1", HELLO, bytes(100))
    bench.clock.now_ms += TOLD_MS
    bench.gates.admit("mcu-1", HELLO, bytes(100))
    told = [line for line in bench.lines() if line["event"] == "messages stopped at the gate"]
    assert [(line["cause"], line["so_far"]) for line in told] == [("gate.stamp", 1), ("gate.stamp", 501)]
    assert all(line["hint"] for line in told)
