"""Inventory files → devices and links.

Decides that ids are unique and that links name devices of the same file; figures are taken as declared.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from aif.config.aim import expect_kind
from aif.config.codes import Code
from aif.config.document import Path_, load_document
from aif.config.findings import Findings, read_shape
from aif.config.inventory_file import DeviceEntry, InventoryFile, LinkEntry, SensorEntry
from aif.model.aim import Runtime
from aif.model.inventory import Device, DeviceClass, Energy, Inventory, Link, Sensor, StorageUnit

INVENTORY_FILE = "inventory.yaml"


def load_inventory(path: Path) -> Inventory:
    """Read an inventory file, or the ``inventory.yaml`` of a folder.

    Raises:
        ConfigError: with every finding.
    """
    findings = Findings(load_document(path / INVENTORY_FILE if path.is_dir() else path))
    inventory = read_inventory(findings)
    findings.raise_errors()
    if inventory is None:  # read_inventory reports before it gives up
        raise AssertionError
    return inventory


def read_inventory(findings: Findings) -> Inventory | None:
    """The inventory in a document, as far as it can be read; what is wrong goes to ``findings``."""
    expect_kind(findings, "inventory")
    if findings.errors:
        return None
    file = read_shape(findings, InventoryFile)
    if file is None:
        return None
    inventory = taken(file)
    _unique(findings, "devices", "device", [device.id for device in file.devices])
    _unique(findings, "links", "link", [link.id for link in inventory.links])
    _members(findings, file)
    return inventory


def taken(file: InventoryFile) -> Inventory:
    """The values of a file whose shape was checked."""
    return Inventory(
        name=file.inventory.name,
        version=file.inventory.version,
        devices=tuple(map(_device, file.devices)),
        links=tuple(map(_link, file.links)),
    )


def _unique(findings: Findings, key: str, kind: str, ids: Iterable[str]) -> None:
    first: dict[str, Path_] = {}
    for position, one in enumerate(ids):
        path: Path_ = (
            (key, position, "id") if findings.document.find((key, position, "id"))[2] else (key, position)
        )
        if one in first:
            at = findings.document.location(first[one])
            line = findings.document.location(path).line
            message = f"{kind} id {one!r} is given twice, on lines {at.line} and {line}"
            hint = f"every {kind} needs an id of its own"
            findings.add(Code.DUPLICATE, message, path, notes=(f"the first is at {at}",), hint=hint)
        first.setdefault(one, path)


def _members(findings: Findings, file: InventoryFile) -> None:
    known = {device.id for device in file.devices}
    for position, entry in enumerate(file.links):
        base: Path_ = ("links", position)
        if entry.start is not None and entry.to is not None:
            places: list[tuple[str, Path_]] = [(entry.start, (*base, "from")), (entry.to, (*base, "to"))]
        else:
            key = "between" if entry.between is not None else "network"
            places = [(one, (*base, key, place)) for place, one in enumerate(entry.members)]
        for one, path in places:
            if one not in known and not findings.touched("devices", one):
                message = f"the link names device {one!r}, which the inventory does not hold"
                findings.add(Code.REFERENCE, message, path, hint=findings.suggest(one, known))


def _link(entry: LinkEntry) -> Link:
    return Link(
        id=entry.id or ("->" if entry.start else "-").join(entry.members),
        members=entry.members,
        bandwidth_bps=entry.bandwidth_bps,
        latency_ms=entry.latency_ms,
        loss=entry.loss,
        mtu_bytes=entry.mtu_bytes,
        shared=entry.network is not None,
        directed=entry.start is not None,
    )


def _device(entry: DeviceEntry) -> Device:
    return Device(
        id=entry.id,
        device_class=DeviceClass(entry.device_class),
        board=entry.board,
        ram_bytes=entry.ram_bytes,
        flash_bytes=entry.flash_bytes,
        runtimes=frozenset(map(Runtime, entry.runtimes)),
        arch=entry.arch,
        os=entry.os,
        clock_hz=entry.clock_hz,
        instructions_per_s=entry.instructions_per_s,
        dmips=entry.dmips,
        macs_per_s=entry.macs_per_s,
        cores=entry.cores,
        cpu_limit=entry.cpu_limit,
        storage=tuple(StorageUnit(u.kind, u.bytes, u.write_bps, u.encrypted) for u in entry.storage),
        sensors=_sensors(entry.sensors),
        actuators=_sensors(entry.actuators),
        radios=tuple(entry.radios),
        energy=Energy(**entry.energy.model_dump()),
        attestation=entry.attestation,
        site=entry.site,
        zone=entry.zone,
        availability=entry.availability,
        connect=dict(entry.connect),
        emulator=dict(entry.emulator),
    )


def _sensors(entries: Iterable[SensorEntry]) -> tuple[Sensor, ...]:
    return tuple(Sensor(entry.kind, entry.rate_hz, entry.count) for entry in entries)
