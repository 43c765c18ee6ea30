"""Everything the author of an AIM needs, in one import.

An AIM is a folder with ``aim.yaml`` (the contract: ports, types, parameters, needs) and a class that does
the work. Most AIMs only define ``process``: its arguments are the input ports by name, its result is a
mapping from output ports to records. The class is checked against the contract when it is loaded.

What ``process`` gets is read-only. What it returns belongs to its readers from then on: an array that was
returned must not be changed.

    class Doubler(AIM):
        def process(self, number):
            return {"twice": 2 * number}

An AIM never sees the transport, a key, or the name of a device.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

from aif.errors import AIFError, CreationFailed, EndOfData, PSAError, PSAStatus
from aif.model.aim import AIMMetadata, ParameterValue
from aif.trusted.engine_owner import EngineCrypto, EngineStorage
from aif.trusted.psa import (
    Algorithm,
    DerivationStep,
    KeyAttributes,
    KeyLifetime,
    KeyType,
    KeyUsage,
    StorageFlag,
)
from aif.trusted.storage import DataLocation, SecureData

Records = Mapping[str, Any]
"""What an invocation gives: records by output port name. A port that is left out emits nothing."""


class Model(Protocol):
    """The AIM's model, loaded in whatever engine its implementation names."""

    def infer(self, *inputs: Any) -> tuple[Any, ...]:
        """Run once. Inputs and outputs are arrays in the model's own shapes and integer types."""
        ...

    def reset(self) -> None:
        """Forget the state of a streaming model."""
        ...


class Sensor(Protocol):
    """A sensor of the device, real or emulated."""

    async def read(self) -> SensorReading:
        """The next reading, when it is due.

        Raises:
            EndOfData: a recording that does not repeat has ended.
        """
        ...


class SensorReading(Protocol):
    """One reading: values, the sensor's own time stamp, and what an annotated recording says about it."""

    values: Any
    t_us: int
    annotation: Mapping[str, Any]


Storage = EngineStorage
"""Assets that outlive the AIM's process, sealed in the device's Security Engine: symbolic names in a data
location with ``area(SecureData(location))``, numbered ones with ``psa_its_*`` and ``psa_ps_*``. They belong
to this AIM in this workflow, on this device."""

Crypto = EngineCrypto
"""Keys that never leave the Security Engine, and what can be done with them: ``psa_*``."""


class Context(Protocol):
    """What surrounds a running AIM."""

    parameters: Mapping[str, ParameterValue]

    @property
    def model(self) -> Model:
        """The model of this implementation."""
        ...

    def sensor(self, kind: str) -> Sensor:
        """A sensor that the contract requires."""
        ...

    @property
    def storage(self) -> Storage:
        """The AIM's own storage; needs ``services: [storage]`` under ``requires`` in the contract."""
        ...

    @property
    def crypto(self) -> Crypto:
        """The AIM's own keys; needs ``services: [crypto]`` under ``requires`` in the contract."""
        ...

    def log(self, event: str, /, **facts: Any) -> None:
        """Write one structured line to the device's log."""
        ...


class AIM:
    """Base class of AI Modules. Subclasses define ``process`` (plain, async, or a generator of records).

    Plain methods and generators of an AIM whose engine runs in another process, or that uses a trusted
    service, are called in a thread of their own, one at a time; async ones always run on the event loop and
    must not call the model or a service there.
    """

    context: Context

    def setup(self) -> Awaitable[None] | None:
        """Called once before the first invocation; may be async."""

    def process(self, *args: Any, **inputs: Any) -> Any:
        """One invocation; keyword arguments are records by input port name.

        Returns:
            Records, None, an iterator of Records, or an awaitable of those.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no process()")

    def close(self) -> Awaitable[None] | None:
        """Called once after the last invocation; may be async."""

    def checkpoint(self) -> bytes:
        """The state after the last invocation, at most ``state_bytes`` long.

        Asked for between invocations, for ``state: checkpointable`` and an acknowledged input. What another
        object makes of the records that follow must be what this one would make of them.
        """
        return b""

    def restore(self, state: bytes) -> None:
        """Go on from a checkpoint: called after ``setup``, before the first invocation that follows it."""


def check_class(cls: object, contract: AIMMetadata) -> None:
    """See that a class can serve a contract: it is an AIM and ``process`` takes exactly the input ports.

    Raises:
        CreationFailed: it cannot; the message says what differs.
    """
    if not (inspect.isclass(cls) and issubclass(cls, AIM)):
        raise CreationFailed(f"{cls!r} is not a subclass of aif.sdk.AIM", kind="module")
    if cls.process is AIM.process:
        raise CreationFailed(f"{cls.__name__} defines no process()", kind="module")
    moves = any(i.checkpointable for i in contract.implementations)
    if moves and (cls.checkpoint is AIM.checkpoint or cls.restore is AIM.restore):
        raise CreationFailed(
            f"{cls.__name__} lacks checkpoint() or restore(), and {contract.reference} is checkpointable",
            kind="module",
            hint="define both, or leave out state: checkpointable",
        )
    parameters = list(inspect.signature(cls.process).parameters.values())[1:]
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    taken = {p.name for p in (named if any_name else parameters)}
    optional = {p.name for p in named if p.default is not p.empty}
    declared = {port.name for port in contract.inputs}
    if taken - declared - (optional if any_name else set()) or (declared - taken and not any_name):
        raise CreationFailed(
            f"{cls.__name__}.process takes ({', '.join(sorted(taken))}) but {contract.reference} declares "
            f"the inputs ({', '.join(sorted(declared))})",
            kind="module",
            hint="name the arguments of process() like the inputs in aim.yaml",
        )
    by_position = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    if by_position:
        raise CreationFailed(
            f"{cls.__name__}.process takes {', '.join(by_position)} by position only",
            kind="module",
            hint="remove the / from its arguments: records are passed by name",
        )
    for port in contract.inputs:
        if port.optional and port.name in taken - optional:
            raise CreationFailed(
                f"{cls.__name__}.process needs a default for the optional input {port.name}", kind="module"
            )


__all__ = [
    "AIM",
    "AIFError",
    "Algorithm",
    "Context",
    "Crypto",
    "DataLocation",
    "DerivationStep",
    "EndOfData",
    "KeyAttributes",
    "KeyLifetime",
    "KeyType",
    "KeyUsage",
    "Model",
    "PSAError",
    "PSAStatus",
    "Records",
    "SecureData",
    "Sensor",
    "SensorReading",
    "Storage",
    "StorageFlag",
    "check_class",
]
