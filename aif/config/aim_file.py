"""The AIM file (``aim.yaml``): its keys, ranges and defaults, and what contradicts what inside one entry.

Field order is the canonical key order; descriptions feed the JSON Schema and the hints. Names that must
exist elsewhere are checked in ``aim.py`` and ``workflow.py``.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from aif.config.fields import (
    AimId,
    Bytes,
    ComponentName,
    EndPoint,
    Microjoule,
    Ms,
    MsOrZero,
    Name,
    PythonEntry,
    RecordHz,
    RelativeFile,
    SchemaNumber,
    Sha256,
    Table,
    Text,
    Us,
    Use,
    Version,
    Word,
    as_list,
    either,
    problem,
    under,
)
from aif.model.aim import MAX_STATE_BYTES, Join, Profile, Runtime, SecurityNeed, StateKind
from aif.model.ports import (
    DEFAULT_QUEUE_DEPTH,
    MAX_PAYLOAD_BYTES,
    MAX_QUEUE_DEPTH,
    AuthMode,
    Delivery,
    LocalPolicy,
    Overflow,
)

Arch = Literal[
    "any", "x86-64", "aarch64", "armv6-m", "armv7-m", "armv7e-m", "armv8-m.main", "armv8.1-m.main", "rv32",
    "rv64", "xtensa",
]  # fmt: skip
OperatingSystem = Literal[
    "any", "none", "Windows", "Linux", "MacOS", "Debian", "Ubuntu", "RedHat", "Android", "Zephyr",
    "RTOS", "Oniro", "iOS",
]  # fmt: skip
StorageKind = Literal["sdfs", "eefs", "spiffs", "internal_flash", "disk"]
RecordsPerInvocation = Annotated[float, Field(gt=0, le=1e6)]
Payload = Annotated[Bytes, Field(le=MAX_PAYLOAD_BYTES)]
Number = int | float


class Specification(Table):
    """The standard's specification that this implements."""

    standard: Annotated[Word, Field(description="such as MPAI-MMC")]
    aiw: Word | None = None
    aim: Word | None = None
    version: Version | None = None
    profile: Word | None = None
    v3_name: Annotated[Word, Field(pattern=r"^[A-Z0-9]{3}-[A-Z0-9]{3}-V\d+\.\d+$")] | None = None


class Identity(Table):
    """Who made it and what it is called."""

    name: Annotated[ComponentName, Field(description="unique together with version")]
    version: Annotated[Version, Field(description='text in quotes, such as "1.0"')]
    implementer: Annotated[Word, Field(description="who answers for it")]
    description: Annotated[Text, Field(description="one sentence for people")] = ""
    specification: Specification | None = None


class TypeEntry(Table):
    """A named record type; numbers may say what they mean: real = scale * (q - zero_point)."""

    type: Annotated[Text, Field(description="type text, such as int8[36]")]
    scale: Annotated[Number | list[Number] | None, Field(description="a list needs axis")] = None
    zero_point: int | list[int] | None = None
    axis: Annotated[int | None, Field(description="dimension the lists run along, outermost is 0")] = None
    unit: Annotated[Word | None, Field(description="unit of the real value, such as dB")] = None


TypeSugar = Annotated[TypeEntry, either(str | TypeEntry, under("type"))]
Types = Annotated[dict[Name, TypeSugar], Field(description="record types by name")]


class ParameterEntry(Table):
    """A setting of the AIM."""

    type: Literal["boolean", "integer", "number", "string", "number[]"]
    default: Annotated[object, Field(description="without it the workflow must give a value")] = None
    minimum: Number | None = None
    maximum: Number | None = None
    choices: Annotated[list[object], Field(max_length=256)] = Field(default_factory=list)
    description: Text = ""


class PortEntry(Table):
    """What both directions have."""

    type: Annotated[Text, Field(description="name in types, or a type text")]
    payload_bytes: Annotated[Payload | None, Field(description="largest encoded record (bytes)")] = None
    rate_hz: Annotated[RecordHz | None, Field(description="records per second, long-run mean")] = None


class InputEntry(PortEntry):
    """A port the AIM reads."""

    consumes: Annotated[RecordsPerInvocation, Field(description="records taken per invocation")] = 1.0
    max_age_ms: Annotated[Ms | None, Field(description="older records are dropped and counted (ms)")] = None
    queue_depth: Annotated[int, Field(ge=1, le=MAX_QUEUE_DEPTH, description="records held")] = (
        DEFAULT_QUEUE_DEPTH
    )
    overflow: Annotated[
        Literal["block", "drop_oldest", "drop_newest"], Field(description="what a write to a full queue does")
    ] = Overflow.BLOCK.value
    optional: Annotated[bool, Field(description="need not be connected")] = False


class OutputEntry(PortEntry):
    """A port the AIM writes."""

    emits: Annotated[float, Field(ge=0, le=1e6, description="records given per invocation")] = 1.0
    source: Annotated[
        list[EndPoint], Field(alias="from", min_length=1, description="composite AIM: the inner port"),
        either(str | list[EndPoint], as_list),
    ] = Field(default_factory=list)  # fmt: skip


class TriggerEntry(Table):
    """Which inputs start an invocation: all of a list, or any of one; and how their records are paired."""

    all: Annotated[list[Name], Field(min_length=1)] | None = None
    any: Annotated[list[Name], Field(min_length=1)] | None = None
    join: Annotated[
        Literal["arrival", "timestamp", "latest"],
        Field(description="pair by order, by equal time stamp, or with the newest of the others"),
    ] = Join.ARRIVAL.value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.all is not None and self.any is not None:
            raise problem("has all and any, of which only one is possible")
        if self.any is not None and self.join != Join.ARRIVAL.value:
            raise problem("has any and join, but a single record has nothing to be joined with")
        return self


class ModelEntry(Table):
    """The model: a Store component, or one exact file."""

    component: Annotated[
        ComponentName | None, Field(description="name in the Store; default: the file's stem")
    ] = None
    file: RelativeFile | None = None
    sha256: Sha256 | None = None
    bytes: Annotated[Bytes | None, Field(description="size of the file (bytes)")] = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.file is None and self.component is None:
            raise problem("needs component, or file with sha256 and bytes")
        given = [key for key in ("file", "sha256", "bytes") if getattr(self, key) is not None]
        if given and len(given) < 3:
            missing = [key for key in ("file", "sha256", "bytes") if key not in given]
            raise problem(
                f"has {' and '.join(given)} but lacks {' and '.join(missing)}",
                hint="pin one exact file with file, sha256 and bytes, or give component alone",
            )
        return self


class MeasuredEntry(Table):
    """One measured cost on a named reference device."""

    on: Annotated[Word, Field(description="reference device (board)")]
    latency_us: Annotated[Us, Field(description="mean latency of an invocation (us)")]
    latency_p99_us: Us | None = None
    energy_uj: Annotated[Microjoule | None, Field(description="energy of an invocation (uJ)")] = None
    method: Literal["board", "emulator", "computer", "estimate"]

    @model_validator(mode="after")
    def _honest(self) -> Self:
        if self.method == "emulator" and self.energy_uj is not None:
            raise problem(
                "gives energy_uj, but an emulator cannot measure energy",
                hint="remove energy_uj, or measure on the board",
            )
        return self


class StorageEntry(Table):
    """Bytes on a storage unit."""

    kind: StorageKind | None = None
    bytes: Bytes


class RequiresEntry(Table):
    """Hard needs beyond memory and time."""

    sensors: list[Word] = Field(default_factory=list)
    actuators: list[Word] = Field(default_factory=list)
    radios: list[Word] = Field(default_factory=list)
    storage: StorageEntry | None = None
    services: Annotated[
        list[Literal["storage", "crypto"]], Field(description="trusted services that it uses")
    ] = Field(default_factory=list)


class ImplementationEntry(Table):
    """One way to run the AIM."""

    id: AimId
    runtime: Annotated[Literal["python", "tflite", "tflm", "firmware"], Field(description="who executes it")]
    arch: Annotated[list[Arch], Field(description="none given: any")] = Field(default_factory=list)
    os: Annotated[list[OperatingSystem], Field(description="none given: any")] = Field(default_factory=list)
    entry: Annotated[PythonEntry | None, Field(description="module:Class")] = None
    source: Annotated[RelativeFile | None, Field(description="folder of C sources")] = None
    model: ModelEntry | None = None
    ram_bytes: Annotated[Bytes, Field(description="peak RAM of one instance, without port queues (bytes)")]
    arena_bytes: Annotated[Bytes, Field(description="tensor arena inside ram_bytes (bytes)")] = 0
    flash_bytes: Annotated[Bytes | None, Field(description="code and constants (bytes)")] = None
    instructions: Annotated[int | None, Field(gt=0, le=10**15, description="per invocation")] = None
    mac_count: Annotated[
        int | None, Field(gt=0, le=10**15, description="multiply-accumulates per invocation")
    ] = None
    measured: list[MeasuredEntry] = Field(default_factory=list)
    requires: RequiresEntry = RequiresEntry()
    security: Literal["none", "attested", "secure"] = SecurityNeed.NONE.value
    state: Literal["stateless", "checkpointable"] = StateKind.STATELESS.value
    state_bytes: Annotated[
        Bytes, Field(le=MAX_STATE_BYTES, description="moved at most when the AIM moves (bytes)")
    ] = 0

    @model_validator(mode="after")
    def _runnable(self) -> Self:
        runtime = Runtime(self.runtime)
        if runtime is Runtime.PYTHON and self.entry is None:
            raise problem("runs on python but names no entry", hint="add entry: module:Class")
        if runtime in (Runtime.TFLITE, Runtime.TFLM) and self.model is None:
            raise problem(f"runs on {runtime} but names no model", hint="add model: {component: NAME}")
        if runtime is Runtime.FIRMWARE and self.entry is None and self.source is None:
            raise problem(
                "is firmware but has neither source nor entry", hint="add source: a folder of C sources"
            )
        if runtime in (Runtime.TFLM, Runtime.FIRMWARE) and self.flash_bytes is None:
            raise problem("lacks flash_bytes, which every MCU must account for", hint="add flash_bytes")
        if self.arena_bytes > self.ram_bytes:
            raise problem(
                f"has an arena of {self.arena_bytes:,} B in {self.ram_bytes:,} B of RAM",
                hint="ram_bytes includes the arena",
            )
        if not (self.instructions or self.mac_count or self.measured):
            raise problem("has no cost figure", hint="give at least one of instructions, mac_count, measured")
        if self.state_bytes and self.state == StateKind.STATELESS.value:
            raise problem("is stateless but has state_bytes", hint="set state: checkpointable")
        return self


class DocumentationEntry(Table):
    """Where to read more."""

    type: Literal["Specification", "Manual", "Tutorial", "Video"]
    uri: Annotated[Text, Field(min_length=1)]


class HintEntry(Table):
    """Pins (device, class, site, zone: hard) and affinity."""

    device: Word | None = None
    device_class: Annotated[Literal["mcu", "gateway", "edge", "cloud"] | None, Field(alias="class")] = None
    site: Word | None = None
    zone: Word | None = None
    colocate_with: list[AimId] = Field(default_factory=list)
    separate_from: list[AimId] = Field(default_factory=list)
    strength: Annotated[Literal["hard", "soft"], Field(description="of colocate_with and separate_from")] = (
        "soft"
    )


class SubAIMEntry(Table):
    """One AIM of a workflow or of a composite AIM."""

    id: AimId
    use: Use
    inputs: Annotated[
        dict[Name, Annotated[list[EndPoint], Field(min_length=1), either(str | list[EndPoint], as_list)]],
        Field(description="input port: aim.port it reads, or a list of them; aiw.port is the boundary"),
    ] = Field(default_factory=dict)
    parameters: dict[Name, object] = Field(default_factory=dict)
    implementation: Annotated[AimId | None, Field(description="allow only this implementation")] = None
    placement: HintEntry | None = None


class TopologyEntry(Table):
    """One channel: from an output to an input."""

    output: EndPoint
    input: EndPoint


class BundleEntry(Table):
    """When waiting messages leave as one frame; max_messages 1 turns bundling off."""

    max_messages: Annotated[int, Field(ge=1, le=1024)] = 64
    max_delay_ms: Annotated[MsOrZero, Field(le=10_000)] = 1.0
    max_bytes: Annotated[Bytes, Field(ge=1, le=MAX_PAYLOAD_BYTES)] = 32_768


class ChannelEntry(Table):
    """Settings of a channel that inputs, outputs or topology declare."""

    output: EndPoint
    input: EndPoint
    auth: Literal["aead", "signed", "checkpoint"] | None = None
    qos: Annotated[Literal[0, 1], Field(description="MQTT quality of service")] = 0
    bundle: BundleEntry = BundleEntry()
    delay: Annotated[int, Field(ge=0, le=MAX_QUEUE_DEPTH, description="records; legalises a cycle")] = 0
    local: Annotated[Literal["plain", "sealed"], Field(description="between AIMs of one host")] = (
        LocalPolicy.PLAIN.value
    )
    delivery: Annotated[
        Literal["best_effort", "acknowledged"],
        Field(description="acknowledged: kept until all that came of it is done with, and taken once"),
    ] = Delivery.BEST_EFFORT.value

    @property
    def auth_mode(self) -> AuthMode | None:
        return AuthMode(self.auth) if self.auth else None


class AIMFile(Table):
    """An AI Module: its ports, parameters and implementations; or a composite of other AIMs."""

    schema_number: SchemaNumber
    aim: Identity
    profile: Literal["basic", "secure"] = Profile.BASIC.value
    stands_for: Annotated[
        Use | None,
        Field(description="composite AIM: the AIM with the same ports in whose place a plan may use it"),
    ] = None
    types: Types = Field(default_factory=dict)
    parameters: dict[Name, ParameterEntry] = Field(default_factory=dict)
    inputs: dict[Name, InputEntry] = Field(default_factory=dict)
    outputs: dict[Name, OutputEntry] = Field(default_factory=dict)
    trigger: Annotated[
        TriggerEntry | None,
        either(list[str] | TriggerEntry, lambda value: {"all": value} if isinstance(value, list) else value),
    ] = None
    period_ms: Annotated[Ms | None, Field(description="invoke at this period (ms)")] = None
    deadline_ms: Annotated[Ms | None, Field(description="of one invocation (ms)")] = None
    restart_limit: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    aims: Annotated[list[SubAIMEntry], Field(max_length=4096)] = Field(default_factory=list)
    topology: list[TopologyEntry] = Field(default_factory=list)
    channels: list[ChannelEntry] = Field(default_factory=list)
    implementations: list[ImplementationEntry] = Field(default_factory=list)
    documentation: list[DocumentationEntry] = Field(default_factory=list)
