"""Devices, what they have, and the links between them: what the partitioner knows.

Everything is a declared value; measured figures replace them in snapshots made at run time.
Bandwidths are bits per second, capacities bytes, energies micro-joules, powers milliwatts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from aif.errors import ModelError
from aif.model.aim import Runtime

DEFAULT_CPU_LIMIT = 0.8


class DeviceClass(StrEnum):
    """Role and power of a device, not its protocol."""

    MCU = "mcu"
    GATEWAY = "gateway"
    EDGE = "edge"
    CLOUD = "cloud"


FORWARDING_CLASSES = frozenset({DeviceClass.GATEWAY, DeviceClass.EDGE, DeviceClass.CLOUD})
"""Only these pass on messages between links."""


@dataclass(frozen=True, slots=True)
class StorageUnit:
    """Where models and checkpoints may rest; ``write_bps`` bounds update time."""

    kind: str
    bytes_: int
    write_bps: float | None = None
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor or actuator kind; ``rate_hz`` is the highest rate, ``count`` how many may be used at once."""

    kind: str
    rate_hz: float | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Energy:
    """Mean power = idle_mw + invocations + radio bytes; lifetime = battery_mwh / mean power.

    ``battery_low`` and ``battery_reserve`` are shares (0..1) of the battery: below the first its energy
    counts for more than that of others (``price`` times, in snapshots made at run time), below the second
    AIMs leave the device where they can.
    """

    source: str = "mains"
    battery_mwh: float | None = None
    active_mw: float = 0.0
    idle_mw: float = 0.0
    tx_uj_per_byte: float = 0.0
    rx_uj_per_byte: float = 0.0
    battery_low: float = 0.2
    battery_reserve: float = 0.1
    price: float = 1.0


@dataclass(frozen=True, slots=True)
class Device:
    """One device. ``ram_bytes`` and ``flash_bytes`` are what its base firmware or OS leaves for AIMs.

    ``delay_ms`` is never declared: by how much messages to or from it were measured to take longer than by
    its links.
    """

    id: str
    device_class: DeviceClass
    board: str
    ram_bytes: int
    flash_bytes: int
    runtimes: frozenset[Runtime]
    arch: str = "any"
    os: str = "none"
    clock_hz: float | None = None
    instructions_per_s: float | None = None
    dmips: float | None = None
    macs_per_s: float | None = None
    cores: int = 1
    cpu_limit: float = DEFAULT_CPU_LIMIT
    storage: tuple[StorageUnit, ...] = ()
    sensors: tuple[Sensor, ...] = ()
    actuators: tuple[Sensor, ...] = ()
    radios: tuple[str, ...] = ()
    energy: Energy = Energy()
    attestation: str = "none"
    site: str = ""
    zone: str = ""
    availability: float = 1.0
    connect: Mapping[str, object] = field(default_factory=dict)
    emulator: Mapping[str, object] = field(default_factory=dict)
    delay_ms: float = 0.0

    @property
    def forwards(self) -> bool:
        return self.device_class in FORWARDING_CLASSES


@dataclass(frozen=True, slots=True)
class Link:
    """Point to point (``directed`` when given as from/to) or a shared medium whose members share capacity.

    transfer time in ms = latency_ms + 8000 * bytes / bandwidth_bps, divided by (1 - loss).
    """

    id: str
    members: tuple[str, ...]
    bandwidth_bps: float
    latency_ms: float
    loss: float = 0.0
    mtu_bytes: int | None = None
    shared: bool = False
    directed: bool = False

    def transfer_ms(self, payload_bytes: int) -> float:
        return (self.latency_ms + 8000.0 * payload_bytes / self.bandwidth_bps) / (1.0 - self.loss)


@dataclass(frozen=True, slots=True)
class Inventory:
    """A snapshot of all devices and links."""

    name: str
    version: int
    devices: tuple[Device, ...]
    links: tuple[Link, ...] = ()

    def device(self, device_id: str) -> Device:
        for device in self.devices:
            if device.id == device_id:
                return device
        known = ", ".join(d.id for d in self.devices)
        raise ModelError(f"inventory {self.name} has no device {device_id!r}", hint=f"devices: {known}")

    def without(self, gone: Collection[str]) -> Inventory:
        """The same inventory without some devices; links that are left with one member go too."""
        links = []
        for link in self.links:
            members = tuple(member for member in link.members if member not in gone)
            if len(members) > 1:
                links.append(replace(link, members=members))
        devices = tuple(device for device in self.devices if device.id not in gone)
        return replace(self, devices=devices, links=tuple(links))

    def resting(self, idle: Collection[str]) -> Inventory:
        """The same inventory with devices that run nothing; messages still pass through them."""
        return replace(
            self,
            devices=tuple(
                replace(device, runtimes=frozenset()) if device.id in idle else device
                for device in self.devices
            ),
        )
