"""Inventory files brought up to date: what changes, and that nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aif.config import load_inventory
from aif.config.inventory_update import EMPTY, SPOKEN_FOR, updated_inventory
from aif.errors import ConfigError
from aif.model.inventory import Device, DeviceClass

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
FILES = sorted(WORKFLOWS.glob("*/inventory*.yaml"))
GESTURE = WORKFLOWS / "gesture" / "inventory.yaml"


def said(device: Device, **changes: Any) -> dict[str, Any]:
    """What a device that is just as in the file announces."""
    return {
        "class": str(device.device_class), "board": device.board, "arch": device.arch, "os": device.os,
        "cores": device.cores, "ram_bytes": device.ram_bytes, "flash_bytes": device.flash_bytes,
        "clock_hz": device.clock_hz, "instructions_per_s": device.instructions_per_s, "dmips": device.dmips,
        "macs_per_s": device.macs_per_s, "runtimes": sorted(map(str, device.runtimes)),
        "storage": [{"kind": unit.kind, "bytes": unit.bytes_} for unit in device.storage],
        "sensors": [{"kind": s.kind, "rate_hz": s.rate_hz, "count": s.count} for s in device.sensors],
        "actuators": [{"kind": s.kind, "rate_hz": s.rate_hz, "count": s.count} for s in device.actuators],
        "radios": list(device.radios), **changes,
    }  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_devices_that_are_as_the_file_says_change_nothing(file: Path) -> None:
    text = file.read_text()
    found = {device.id: said(device) for device in load_inventory(file).devices}
    assert updated_inventory(text, "i.yaml", found).text == text
    assert updated_inventory(text, "i.yaml", found).changes == ()


def test_what_a_device_says_goes_in_and_everything_else_stays(tmp_path: Path) -> None:
    text = GESTURE.read_text()
    before = load_inventory(GESTURE)
    device = before.device("mcu-1")
    new = said(device, ram_bytes=8192, storage=[{"kind": "internal_flash", "bytes": 65536}])
    update = updated_inventory(text, "i.yaml", {"mcu-1": new})
    assert [str(change) for change in update.changes] == [
        "mcu-1.ram_bytes: 16,384 -> 8,192",
        "mcu-1.storage: internal_flash 32,768 B -> internal_flash 65,536 B",
    ]  # fmt: skip
    changed = [
        (old, now) for old, now in zip(text.splitlines(), update.text.splitlines(), strict=True) if old != now
    ]
    assert changed == [
        ("  version: 1", "  version: 2"),
        ("    ram_bytes: 16384", "    ram_bytes: 8192"),
        (
            "    storage: [{kind: internal_flash, bytes: 32768, write_bps: 320000}]",
            "    storage: [{kind: internal_flash, bytes: 65536, write_bps: 320000}]",
        ),
    ]
    assert "# budgets of the microcontrollers" in update.text
    assert updated_inventory(update.text, "i.yaml", {"mcu-1": new}).changes == ()
    (tmp_path / "i.yaml").write_text(update.text)
    after = load_inventory(tmp_path / "i.yaml")
    assert (after.device("mcu-1").zone, after.links) == (device.zone, before.links)


def test_policy_is_not_a_devices_to_say() -> None:
    device = load_inventory(GESTURE).device("mcu-1")
    wishes = {
        "class": "cloud", "attestation": "tee", "zone": "vault", "site": "x", "cpu_limit": 1.0,
        "availability": 1.0, "energy": {"source": "mains"}, "emulator": {}, "id": "gw-1",
    }  # fmt: skip
    assert not set(wishes) & set(SPOKEN_FOR)
    assert updated_inventory(GESTURE.read_text(), "i.yaml", {"mcu-1": said(device, **wishes)}).changes == ()


def test_quantities_with_units_and_their_comments_stay_while_they_are_right() -> None:
    text = """\
# the kitchen
schema: 1
inventory: {name: kitchen, version: 41}
devices:
  # bought in May
  - id: tap
    class: mcu
    board: b
    ram_bytes: 64KiB  # after the radio
    flash_bytes: 1MiB
    instructions_per_s: 48e6
    runtimes: [tflm]
    zone: kitchen
"""
    right = {"ram_bytes": 65536, "flash_bytes": 1048576, "runtimes": ["tflm"]}
    assert updated_inventory(text, "i.yaml", {"tap": right}).text == text
    update = updated_inventory(text, "i.yaml", {"tap": {**right, "ram_bytes": 1000}})
    for kept in ("# the kitchen", "# bought in May", "# after the radio", "zone: kitchen", "version: 42"):
        assert kept in update.text
    assert "ram_bytes: 1000 " in update.text


def test_a_new_device_comes_without_policy_and_a_file_can_begin_with_one(tmp_path: Path) -> None:
    device = load_inventory(GESTURE).device("mcu-2")
    update = updated_inventory(EMPTY, "i.yaml", {"mcu-2": said(device, attestation="dice", zone="vault")})
    assert [str(change) for change in update.changes] == ["mcu-2 is new"]
    (tmp_path / "i.yaml").write_text(update.text)
    made = load_inventory(tmp_path / "i.yaml")
    (new,) = made.devices
    assert (made.version, new.device_class, new.ram_bytes) == (1, DeviceClass.MCU, device.ram_bytes)
    assert (new.attestation, new.zone, new.sensors) == ("none", "", device.sensors)
    both = updated_inventory(update.text, "i.yaml", {"other": said(device)})
    assert [str(change) for change in both.changes] == ["other is new"]
    assert both.text.startswith(update.text.replace("version: 1", "version: 2")[:40])


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"arch": "z80"}, "arch"),
        ({"storage": [{"kind": "punched_cards", "bytes": 80}]}, "storage.0.kind"),
        ({"runtimes": []}, "runtimes"),
        ({"instructions_per_s": None, "clock_hz": None}, ""),
    ],
)
def test_a_device_that_no_inventory_can_hold_is_left_out_with_the_reason(
    wrong: dict[str, Any], where: str
) -> None:
    device = load_inventory(GESTURE).device("mcu-2")
    update = updated_inventory(EMPTY, "i.yaml", {"bad": said(device, **wrong), "good": said(device)})
    assert list(update.refused) == ["bad"]
    assert update.refused["bad"].startswith(where)
    assert [change.device for change in update.changes] == ["good"]


def test_a_file_that_is_no_inventory_is_refused() -> None:
    with pytest.raises(ConfigError):
        updated_inventory("schema: 1\naim: {}\n", "i.yaml", {})
