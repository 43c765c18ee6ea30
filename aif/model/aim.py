"""An AI Module's contract: ports, parameters, implementations and what each of those needs.

The contract is the one owner of these facts; Python classes, C sources and MPAI JSON are checked
against or generated from it. Figures without a measurement are declared, and reports say so.

Source: MPAI-AIF V2 AIM metadata; the TinyML extension covers bytes, instructions and energy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from aif.errors import UnknownPort
from aif.model.ports import ChannelSpec, Port, PortRef

MAX_STATE_BYTES: Final = 64 * 1024
"""Largest checkpoint of an AIM: it travels with acknowledgements, and is kept by its producer's host."""

MAX_INTEGER: Final = (1 << 63) - 1
"""Integer parameters lie within -MAX_INTEGER .. MAX_INTEGER, so that every document can carry them."""

_PLAIN_KINDS: Final = MappingProxyType({"boolean": bool, "string": str})
ParameterValue = bool | int | float | str | tuple[float, ...]


class Profile(StrEnum):
    """API profile (MPAI-AIF V2)."""

    BASIC = "basic"
    SECURE = "secure"


class Runtime(StrEnum):
    """Who executes an implementation."""

    PYTHON = "python"
    TFLITE = "tflite"
    TFLM = "tflm"
    FIRMWARE = "firmware"


class SecurityNeed(StrEnum):
    """What an implementation asks of its device: nothing, fresh accepted Evidence, or all services."""

    NONE = "none"
    ATTESTED = "attested"
    SECURE = "secure"


class StateKind(StrEnum):
    """Whether an instance can be checkpointed and moved with its state."""

    STATELESS = "stateless"
    CHECKPOINTABLE = "checkpointable"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A setting of an AIM.

    ``kind`` is boolean, integer, number, string (JSON Schema words) or ``number[]``. ``minimum`` and
    ``maximum`` are inclusive and bind every number of a list. None as ``default`` makes it required.
    """

    name: str
    kind: str
    default: ParameterValue | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[ParameterValue, ...] = ()
    description: str = ""

    @property
    def required(self) -> bool:
        return self.default is None

    def problem_with(self, value: object) -> str:
        """Say in words why ``value`` is not acceptable; empty when it is."""
        if self.kind == "number[]":
            if not isinstance(value, list | tuple) or not all(_is_number(v) for v in value):
                return "must be a list of numbers"
            return next((p for v in value if (p := self._out_of_bounds(v))), "")
        if (self.kind == "number" and _is_number(value)) or (self.kind == "integer" and _is_integer(value)):
            problem = self._out_of_bounds(value)  # type: ignore[arg-type]  # the line above proved it
        elif self.kind in _PLAIN_KINDS and isinstance(value, _PLAIN_KINDS[self.kind]):
            problem = ""
        else:
            return f"must be {'an' if self.kind == 'integer' else 'a'} {self.kind}"
        if not problem and self.choices and value not in self.choices:
            problem = "must be one of " + ", ".join(map(str, self.choices))
        return problem

    def _out_of_bounds(self, value: float) -> str:
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            return f"must be between {-MAX_INTEGER} and {MAX_INTEGER}"
        if not math.isfinite(value):
            return "must be finite"
        if self.minimum is not None and value < self.minimum:
            return f"must be at least {self.minimum:g}"
        if self.maximum is not None and value > self.maximum:
            return f"must be at most {self.maximum:g}"
        return ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class ModelRef:
    """The model of an implementation.

    ``component`` names the Store component that provides it. ``sha256`` (64 hex digits) and ``bytes_``
    pin one exact blob; when they are None the release named at deployment decides.
    """

    component: str
    file: str = ""
    sha256: str | None = None
    bytes_: int | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured cost row; ``on`` is a named reference device, ``method`` says how it was obtained."""

    on: str
    latency_us: float
    method: str
    latency_p99_us: float | None = None
    energy_uj: float | None = None


@dataclass(frozen=True, slots=True)
class StorageNeed:
    """Bytes on a storage unit; ``kind`` None means any unit."""

    bytes_: int
    kind: str | None = None


class TrustedService(StrEnum):
    """A trusted service that an AIM may ask for; what it does not declare it does not get."""

    STORAGE = "storage"
    CRYPTO = "crypto"


@dataclass(frozen=True, slots=True)
class Requirements:
    """Hard needs beyond memory and time."""

    sensors: tuple[str, ...] = ()
    actuators: tuple[str, ...] = ()
    radios: tuple[str, ...] = ()
    storage: StorageNeed | None = None
    services: tuple[TrustedService, ...] = ()


@dataclass(frozen=True, slots=True)
class Implementation:
    """One way to run an AIM. Empty ``arch`` or ``os`` means any.

    ``ram_bytes`` is the peak RAM of one instance with its arena but without port queues;
    ``arena_bytes`` is the tensor arena inside it; ``flash_bytes`` is code and constants.
    """

    id: str
    runtime: Runtime
    ram_bytes: int
    entry: str | None = None
    source: str | None = None
    model: ModelRef | None = None
    arch: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    arena_bytes: int = 0
    flash_bytes: int = 0
    instructions: int | None = None
    mac_count: int | None = None
    measured: tuple[Measurement, ...] = ()
    requires: Requirements = Requirements()
    security: SecurityNeed = SecurityNeed.NONE
    state: StateKind = StateKind.STATELESS
    state_bytes: int = 0

    @property
    def checkpointable(self) -> bool:
        return self.state is StateKind.CHECKPOINTABLE


class Join(StrEnum):
    """How records of several inputs are put together for one invocation.

    ARRIVAL pairs them in order; TIMESTAMP pairs records of the same source time stamp and drops (counts)
    those whose partner never came; LATEST triggers on the first listed input and takes the newest of the
    rest.
    """

    ARRIVAL = "arrival"
    TIMESTAMP = "timestamp"
    LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Trigger:
    """What starts an invocation: all (or any) of these inputs hold their records; empty = all required."""

    inputs: tuple[str, ...] = ()
    any_of: bool = False
    join: Join = Join.ARRIVAL


@dataclass(frozen=True, slots=True)
class SubAIM:
    """One AIM inside a composition: an id, what it uses (``Name@version``), and its settings."""

    id: str
    use: str
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    placement: PlacementHint | None = None
    implementation: str | None = None


@dataclass(frozen=True, slots=True)
class PlacementHint:
    """Pins (``device``, ``device_class``, ``site``, ``zone``: hard) and affinity (hard or soft)."""

    device: str | None = None
    device_class: str | None = None
    site: str | None = None
    zone: str | None = None
    colocate_with: tuple[str, ...] = ()
    separate_from: tuple[str, ...] = ()
    strength: str = "soft"


@dataclass(frozen=True, slots=True)
class Composition:
    """SubAIMs and their Topology; Ports of the enclosing AIM appear as ``aiw.port``."""

    aims: tuple[SubAIM, ...]
    channels: tuple[ChannelSpec, ...]


@dataclass(frozen=True, slots=True)
class AIMMetadata:
    """The contract of one AIM, basic (has implementations) or composite (has a composition).

    ``stands_for`` names the AIM in whose place a plan may use this composite: same ports, same answers.
    """

    name: str
    version: str
    implementer: str
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    description: str = ""
    profile: Profile = Profile.BASIC
    types: Mapping[str, str] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    trigger: Trigger = Trigger()
    period_ms: float | None = None
    deadline_ms: float | None = None
    restart_limit: int = 0
    implementations: tuple[Implementation, ...] = ()
    composition: Composition | None = None
    documentation: tuple[tuple[str, str], ...] = ()
    stands_for: str | None = None

    @property
    def reference(self) -> str:
        """``Name@version``, as ``use`` spells it."""
        return f"{self.name}@{self.version}"

    @property
    def is_source(self) -> bool:
        return not self.inputs

    def input(self, name: str) -> Port:
        return _named(self.inputs, name, f"{self.reference} has no input")

    def output(self, name: str) -> Port:
        return _named(self.outputs, name, f"{self.reference} has no output")

    def implementation(self, implementation_id: str) -> Implementation | None:
        return next((i for i in self.implementations if i.id == implementation_id), None)

    def required_inputs(self) -> tuple[Port, ...]:
        return tuple(port for port in self.inputs if not port.optional)

    def trigger_inputs(self) -> tuple[str, ...]:
        """Inputs whose records start an invocation: those listed, else all required ones, else all.

        Under LATEST only the first of them does.
        """
        trigger = self.trigger
        names = trigger.inputs or tuple(p.name for p in self.required_inputs() or self.inputs)
        return names[:1] if trigger.join is Join.LATEST and not trigger.any_of else names


def _named(ports: tuple[Port, ...], name: str, missing: str) -> Port:
    for port in ports:
        if port.name == name:
            return port
    known = ", ".join(port.name for port in ports) or "none"
    raise UnknownPort(f"{missing} {name!r}", hint=f"it has: {known}")


__all__ = [
    "AIMMetadata", "Composition", "Implementation", "Join", "Measurement", "ModelRef", "Parameter",
    "ParameterValue", "PlacementHint", "PortRef", "Profile", "Requirements", "Runtime", "SecurityNeed",
    "StateKind", "StorageNeed", "SubAIM", "Trigger",
]  # fmt: skip
