"""What the runtime needs from the machine under it, real or emulated.

``emulator`` implements this for emulated MCUs and for gateways with declared budgets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aif.engines.base import Engine as InferenceEngine
from aif.engines.base import TensorSpec
from aif.model.aim import Implementation
from aif.model.inventory import Device
from aif.sdk import Model, Sensor


@dataclass(frozen=True, slots=True)
class Usage:
    """What is taken of a device's budgets, in bytes. ``arena_bytes`` is part of ``ram_bytes``."""

    ram_bytes: int
    ram_limit_bytes: int
    flash_bytes: int
    flash_limit_bytes: int
    arena_bytes: int


class Engine(Model, Protocol):
    """A model loaded for one AIM instance."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def close(self) -> None: ...


class Sensors(Protocol):
    """The sensors of one device."""

    def sensor(self, kind: str) -> Sensor:
        """The sensor of that kind.

        Raises:
            NotFound: this device has none.
        """
        ...


class Platform(Sensors, Protocol):
    """One device's budgets, sensors and engines."""

    @property
    def device(self) -> Device: ...

    def admit(
        self, owner: str, implementation: Implementation, *, queue_bytes: int, model_bytes: int
    ) -> None:
        """Charge one AIM instance to the budgets; all of it, or nothing and an error.

        Raises:
            ResourceExceeded: RAM, FlashOverflow: flash; the message names needed and available bytes.
        """
        ...

    def release(self, owner: str) -> None:
        """Give back what ``owner`` was charged; unknown owners are ignored."""
        ...

    def open_engine(
        self, owner: str, implementation: Implementation, model: bytes, sha256: bytes, arena_bytes: int
    ) -> Engine:
        """Load a model for one instance; may take a second.

        Raises:
            LengthOrHashMismatch, ArenaOverflow, EngineError: the model cannot run here.
        """
        ...

    def hold_engine(
        self,
        owner: str,
        implementation: Implementation,
        arena_bytes: int,
        open_: Callable[[str], InferenceEngine],
    ) -> Engine:
        """Like ``open_engine`` for a model that somebody else opens, given the name of the runtime.

        Raises:
            ArenaOverflow, EngineError: the model cannot run here.
        """
        ...

    def engine_blocks(self, implementation: Implementation) -> bool:
        """Whether ``infer`` waits for another process, so that it must not run on the event loop."""
        ...

    def battery_level(
        self, invocations: Mapping[str, int], *, sent_bytes: int, received_bytes: int
    ) -> float | None:
        """How full the battery is (0..1), None where there is none.

        Args:
            invocations: of each owner since it was admitted, for devices that do not measure it.
            sent_bytes: by the radio, since it began.
            received_bytes: as ``sent_bytes``.
        """
        ...

    def usage(self) -> Usage: ...

    def free(self) -> tuple[int, int, tuple[int, ...]]:
        """Bytes that are left: RAM, program flash, and each of the device's storage units."""
        ...

    def close(self) -> None: ...
