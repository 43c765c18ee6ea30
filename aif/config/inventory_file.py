"""The inventory file (``inventory.yaml``): its keys, ranges and defaults.

Field order is the canonical key order. Whether links name known devices is checked in ``inventory.py``.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from aif.config.aim_file import Arch, OperatingSystem, StorageKind
from aif.config.fields import (
    Bps,
    Bytes,
    ComponentName,
    DeviceId,
    Hz,
    MicrojoulePerByte,
    Milliwatt,
    MilliwattHours,
    MsOrZero,
    PerSecond,
    SchemaNumber,
    Share,
    Table,
    Text,
    Word,
    either,
    problem,
    under,
)
from aif.model.inventory import DEFAULT_CPU_LIMIT


class InventoryIdentity(Table):
    """Which snapshot this is."""

    name: ComponentName
    version: Annotated[int, Field(ge=0, le=10**12, description="whole number, one higher with every change")]
    description: Text = ""


class UnitEntry(Table):
    """Where models and checkpoints may rest."""

    kind: StorageKind
    bytes: Annotated[Bytes, Field(description="capacity (bytes)")]
    write_bps: Annotated[Bps | None, Field(description="write speed (bits/s)")] = None
    encrypted: bool = False


class SensorEntry(Table):
    """A sensor or actuator."""

    kind: Word
    rate_hz: Annotated[Hz | None, Field(description="highest rate (Hz)")] = None
    count: Annotated[int, Field(ge=1, le=10_000, description="how many may be used at once")] = 1


Sensors = list[Annotated[SensorEntry, either(str | SensorEntry, under("kind"))]]


class EnergyEntry(Table):
    """Mean power = idle_mw + invocations + radio bytes."""

    source: Literal["mains", "battery"] = "mains"
    battery_mwh: Annotated[MilliwattHours | None, Field(description="battery (mWh)")] = None
    battery_low: Annotated[Share, Field(description="below this its energy is dearer to AIMs")] = 0.2
    battery_reserve: Annotated[Share, Field(description="below this AIMs leave, where they can")] = 0.1
    active_mw: Annotated[Milliwatt, Field(description="power while computing (mW)")] = 0.0
    idle_mw: Annotated[Milliwatt, Field(description="power while idle (mW)")] = 0.0
    tx_uj_per_byte: Annotated[MicrojoulePerByte, Field(description="to send a byte (uJ)")] = 0.0
    rx_uj_per_byte: Annotated[MicrojoulePerByte, Field(description="to receive a byte (uJ)")] = 0.0

    @model_validator(mode="after")
    def _battery(self) -> Self:
        if (self.source == "battery") != (self.battery_mwh is not None):
            raise problem(
                "runs on battery but lacks battery_mwh"
                if self.source == "battery"
                else "runs on mains but has battery_mwh",
                hint="source: battery and battery_mwh belong together",
            )
        if self.battery_reserve > self.battery_low:
            raise problem("has a battery_reserve above battery_low", hint="the reserve is the lower mark")
        return self


class DeviceEntry(Table):
    """One device and what its base firmware or operating system leaves for AIMs."""

    id: DeviceId
    device_class: Annotated[
        Literal["mcu", "gateway", "edge", "cloud"],
        Field(alias="class", description="role and power, not protocol"),
    ]
    board: Annotated[Word, Field(description="name of the hardware, as in measured figures")]
    arch: Arch = "any"
    os: OperatingSystem = "none"
    clock_hz: Annotated[Hz | None, Field(description="processor clock (Hz)")] = None
    dmips: Annotated[float | None, Field(gt=0, le=1e9, description="Dhrystone MIPS of one core")] = None
    instructions_per_s: Annotated[PerSecond | None, Field(description="sustained, one core")] = None
    macs_per_s: Annotated[PerSecond | None, Field(description="sustained multiply-accumulates, one core")] = (
        None
    )
    cores: Annotated[int, Field(ge=1, le=4096)] = 1
    cpu_limit: Annotated[Share, Field(gt=0, description="share that AIMs may fill")] = DEFAULT_CPU_LIMIT
    ram_bytes: Annotated[Bytes, Field(description="RAM left for AIMs (bytes)")]
    flash_bytes: Annotated[Bytes, Field(description="flash left for AIMs (bytes)")]
    storage: list[UnitEntry] = Field(default_factory=list)
    sensors: Sensors = Field(default_factory=list)
    actuators: Sensors = Field(default_factory=list)
    radios: list[Word] = Field(default_factory=list)
    energy: EnergyEntry = EnergyEntry()
    runtimes: Annotated[
        list[Literal["python", "tflite", "tflm", "firmware"]],
        Field(min_length=1, description="what can execute here"),
    ]
    attestation: Literal["none", "software", "dice", "tpm", "tee"] = "none"
    site: Annotated[str, Field(max_length=64)] = ""
    zone: Annotated[str, Field(max_length=64)] = ""
    availability: Annotated[Share, Field(description="long-run share of time up")] = 1.0
    connect: dict[str, object] = Field(default_factory=dict, description="how the runtime reaches it")
    emulator: dict[str, object] = Field(default_factory=dict, description="how the runtime emulates it")

    @model_validator(mode="after")
    def _speed(self) -> Self:
        if self.dmips is None and self.instructions_per_s is None and self.macs_per_s is None:
            raise problem("has no speed", hint="give at least one of instructions_per_s, macs_per_s, dmips")
        return self


class LinkEntry(Table):
    """A connection of two devices (between, or from and to for one direction) or a medium (network)."""

    id: DeviceId | None = None
    between: Annotated[list[DeviceId], Field(min_length=2, max_length=2)] | None = None
    network: Annotated[list[DeviceId], Field(min_length=2, max_length=4096)] | None = None
    start: Annotated[DeviceId | None, Field(alias="from")] = None
    to: DeviceId | None = None
    bandwidth_bps: Annotated[Bps, Field(description="capacity (bits/s)")]
    latency_ms: Annotated[MsOrZero, Field(description="one way (ms)")]
    loss: Annotated[Share, Field(lt=1, description="share of frames lost")] = 0.0
    mtu_bytes: Annotated[int | None, Field(ge=1, le=65_535, description="largest frame (bytes)")] = None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        directed = self.start is not None or self.to is not None
        if sum((self.between is not None, self.network is not None, directed)) != 1:
            raise problem("must have one of between: [a, b], network: [...], or from and to")
        if directed and (self.start is None or self.to is None):
            raise problem(
                "has only one of from and to", hint="give both, or between: [a, b] for both directions"
            )
        if len(set(self.members)) < len(self.members):
            raise problem("names a device twice")
        return self

    @property
    def members(self) -> tuple[str, ...]:
        if self.between is not None or self.network is not None:
            return tuple(self.between or self.network or ())
        return tuple(end for end in (self.start, self.to) if end is not None)


class InventoryFile(Table):
    """Devices and the links between them."""

    schema_number: SchemaNumber
    inventory: InventoryIdentity
    devices: Annotated[list[DeviceEntry], Field(min_length=1, max_length=10_000)]
    links: Annotated[list[LinkEntry], Field(max_length=10_000)] = Field(default_factory=list)
