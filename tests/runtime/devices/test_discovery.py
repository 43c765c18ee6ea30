"""What devices announce: kept, signed, weighed against the file; and what anybody else may make us show."""

from __future__ import annotations

import asyncio
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from aif.model.aim import Runtime
from aif.model.inventory import Device, DeviceClass, Energy, Inventory, StorageUnit
from aif.protocol.announcement import KeptAnnouncement, sign_announcement, verify_announcement
from aif.protocol.topics import Retained, RetainedTopic, Up, UpTopic
from aif.runtime.devices.discovery import FRESH_S, MAX_STRANGERS, STRANGERS_KEPT_S, Discovery, with_announced
from aif.runtime.devices.registry import Site
from aif.runtime.logbook import LogBook
from aif.transport.memory import MemoryBroker, MemoryTransport
from tests.protocol.announcements import ANNOUNCEMENT
from tests.runtime.site import BenchSite, bench_site
from tests.runtime.virtual_clock import VirtualClock

IN_FILE = Device(
    "mcu-1", DeviceClass.MCU, "old", 1000, 2000, frozenset({Runtime.TFLM}), arch="armv6-m", dmips=5.0,
    storage=(StorageUnit("internal_flash", 10, 320_000.0, encrypted=True),), energy=Energy(idle_mw=1.2),
    attestation="dice", site="lab", zone="wrist", availability=0.9, cpu_limit=0.5,
)  # fmt: skip


class Desk:
    """A Discovery over a broker in memory."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.log = VirtualClock(), io.StringIO()
        self.transport = MemoryTransport(MemoryBroker(), client_id="controller")
        self.site = Site.open_or_create(folder, os.urandom)
        self.discovery = Discovery(
            self.site, self.transport, clock=self.clock, log=LogBook("controller", self.clock, self.log)
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_capacity_is_announced_and_policy_is_written(desk: Desk) -> None:
    merged = with_announced(IN_FILE, ANNOUNCEMENT)
    assert (merged.ram_bytes, merged.flash_bytes, merged.arch, merged.board) == (
        65_536, 655_360, "armv7e-m", "B-L475E-IOT01A",
    )  # fmt: skip
    assert merged.runtimes == {Runtime.TFLM, Runtime.FIRMWARE}
    assert (merged.dmips, merged.instructions_per_s) == (100.0, 60e6)
    assert merged.storage[0] == StorageUnit("internal_flash", 131_072, 320_000.0, encrypted=True)
    assert merged.storage[1] == StorageUnit("spiffs", 4_194_304)
    for policy in ("device_class", "attestation", "site", "zone", "availability", "cpu_limit", "energy"):
        assert getattr(merged, policy) == getattr(IN_FILE, policy)


def test_a_stale_announcement_does_not_count(desk: Desk) -> None:
    inventory = Inventory("lab", 1, (IN_FILE, replace(IN_FILE, id="mcu-2")))
    desk.discovery.take("mcu-1", ANNOUNCEMENT)
    fresh = desk.discovery.applied(inventory)
    assert [device.ram_bytes for device in fresh.devices] == [65_536, 1000]
    desk.clock.now_ms += FRESH_S * 1000 + 1
    assert desk.discovery.applied(inventory) == inventory


def test_an_announcement_that_no_inventory_could_hold_is_refused(desk: Desk) -> None:
    desk.discovery.take("mcu-1", replace(ANNOUNCEMENT, board="\x1b[2J"))
    assert "announcement refused" in desk.log.getvalue()
    assert desk.discovery.applied(Inventory("lab", 1, (IN_FILE,))).devices == (IN_FILE,)


def test_strangers_take_bounded_memory_and_do_not_displace_one_another(desk: Desk) -> None:
    discovery = desk.discovery
    for number in range(5_000):
        discovery.stranger(f"ghost-{number}", "not registered")
    discovery.stranger("ghost-0", "revoked")
    found = discovery.scan({})
    assert len(found["strangers"]) == MAX_STRANGERS
    assert found["left_out"] == 5_000 - MAX_STRANGERS
    first = next(one for one in found["strangers"] if one["name"] == "ghost-0")
    assert (first["reason"], first["count"]) == ("revoked", 2)
    desk.clock.now_ms += STRANGERS_KEPT_S * 1000 + 1
    assert discovery.scan({})["strangers"] == []
    discovery.stranger("late", "not registered")
    assert [one["name"] for one in discovery.scan({})["strangers"]] == ["late"]


def test_names_of_the_inventory_have_their_places(desk: Desk) -> None:
    discovery = desk.discovery
    discovery.applied(Inventory("lab", 1, (replace(IN_FILE, id="new-one"),)))
    for number in range(5_000):
        discovery.stranger(f"ghost-{number}", "not registered")
    discovery.stranger("new-one", "not registered")
    names = [one["name"] for one in discovery.scan({})["strangers"]]
    assert "new-one" in names
    assert len(names) == MAX_STRANGERS + 1


async def announced(site: BenchSite, *devices: str) -> dict[str, dict[str, object]]:
    """What a scan finds, when all of these are usable."""

    def found() -> dict[str, dict[str, object]]:
        scan = site.controller.discovery.scan(site.controller.admission.links)
        json.dumps(scan, allow_nan=False)
        return {one["device"]: one for one in scan["devices"]}

    await site.until_true(lambda: all(found()[name]["usable"] for name in devices))
    return found()


def test_devices_of_a_site_are_known_by_their_word_and_kept_for_the_next_controller(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, speed=3.0) as site:
            await site.until_trusted("left", "right")
            found = await announced(site, "left", "right")
            left = found["left"]["announced"]
            assert isinstance(left, dict)
            assert (left["board"], left["ram_bytes"]) == ("bench-left", 100_000_000)
            assert set(left["runtimes"]) == {"python", "tflite"}
            assert left["runtimes"]["tflite"][0].isdigit()
            reader = MemoryTransport(site.broker, client_id="planner")
            await reader.connect()
            copies: dict[str, bytes] = {}
            await reader.subscribe(
                "aif/dev/+/announce", lambda one: copies.update({one.topic: one.payload}), qos=1
            )
            await site.until_true(lambda: len(copies) == 2)
            public = bytes(SigningKey(site.registry.state.result_seed).verify_key)
            copy = copies[str(RetainedTopic("left", Retained.ANNOUNCE))]
            assert verify_announcement(copy, public, device="left").announcement.board == "bench-left"
            # somebody with access to the broker puts his own word in the place of a copy
            forged = sign_announcement(
                KeptAnnouncement("right", 1, ANNOUNCEMENT), lambda m: SigningKey(bytes(32)).sign(m).signature
            )
            reader.send(str(RetainedTopic("right", Retained.ANNOUNCE)), forged, qos=1, retain=True)
            reader.send(str(RetainedTopic("ghost", Retained.ANNOUNCE)), copy, qos=1, retain=True)
            for name in ("left", "right"):
                await site.kill(name)
            await site.kill_controller()
            await site.start_controller()
            await site.until_logged("retained announcement refused", code="AIF-E0501")
            scan = site.controller.discovery.scan(site.controller.admission.links)
            known = {one["device"]: one for one in scan["devices"]}
            assert (known["left"]["origin"], known["left"]["usable"]) == ("an earlier Controller", False)
            assert known["right"]["announced"] is None
            assert "ghost" not in known
            await reader.aclose()

    asyncio.run(journey())


def test_a_revoked_device_is_not_spoken_of_and_a_stranger_only_by_name(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, speed=3.0) as site:
            await site.until_trusted("left", "right")
            await announced(site, "left", "right")
            copies: dict[str, bytes] = {}
            other = MemoryTransport(site.broker, client_id="other")
            await other.connect()
            await other.subscribe(
                "aif/dev/+/announce", lambda one: copies.update({one.topic: one.payload}), qos=1
            )
            await site.until_true(lambda: len(copies) == 2)
            await site.controller.revocation.revoke("right", "test")
            await site.until_true(lambda: copies[str(RetainedTopic("right", Retained.ANNOUNCE))] == b"")
            for _ in range(3):
                other.send(str(UpTopic("ghost", Up.HELLO)), b"\x00" * 100, qos=1)
            await site.until_true(lambda: bool(site.controller.discovery.scan({})["strangers"]))
            scan = site.controller.discovery.scan(site.controller.admission.links)
            known = {one["device"]: one for one in scan["devices"]}
            assert (known["right"]["state"], known["right"]["announced"]) == ("revoked", None)
            ghost = next(one for one in scan["strangers"] if one["name"] == "ghost")
            assert set(ghost) == {"name", "reason", "count", "age_s"}
            assert ghost["reason"] == "not registered"
            await other.aclose()

    asyncio.run(journey())
