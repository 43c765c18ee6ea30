"""The memory of one device: what each AIM instance is charged, and when the next one no longer fits.

Decides: what an instance takes of RAM, program flash, a storage unit and the sensors, and whether that is
left. Does not: place AIMs, install models, or see the tensor arena (the engine enforces it).

Invariants:
    * An admission charges everything or nothing; what is charged never exceeds what the device has.
    * What is taken is the exact sum of what the present owners were charged; a release gives back just that.
    * Whatever a plan places here is admitted: the same rules apply, and a plan reserves more (runtimes,
      buffers of remote Channels), which belongs to the base firmware of an emulated device.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from aif.errors import AlreadyRunning, FlashOverflow, ModelError, ResourceExceeded
from aif.model.aim import Implementation
from aif.model.inventory import Device, DeviceClass, StorageUnit

MODEL_SLOTS: Final = 2
"""Places for each model (A and B), so that an update can be tried while the old one rests."""

MEMORY_MAPPED: Final = frozenset({"internal_flash"})
"""Units whose models are read in place; from any other a microcontroller copies them to RAM."""

UNDECLARED_DISK: Final = StorageUnit("disk", 1 << 30)
"""The file system of a larger device that declares neither flash nor storage: assumed, since one exists."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What is taken of a device's budgets, in bytes. ``arena_bytes`` is part of ``ram_bytes``.

    Flash is program flash, memory-mapped units, and whatever other storage units are in use.
    """

    ram_bytes: int
    ram_limit_bytes: int
    flash_bytes: int
    flash_limit_bytes: int
    arena_bytes: int


@dataclass(frozen=True, slots=True)
class Charge:
    """What one AIM instance takes. ``unit`` is a position in the device's storage, None for none.

    ``ram_bytes`` holds arena, input queues, and the copy of a model that cannot be read in place.
    """

    ram_bytes: int
    arena_bytes: int
    flash_bytes: int
    unit: int | None
    stored_bytes: int
    sensors: tuple[str, ...]


class Budget:
    """RAM, flash, storage units and sensors of one device, and who holds how much of them."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._charges: dict[str, Charge] = {}
        self._limits_flash = device.device_class is DeviceClass.MCU or device.flash_bytes > 0
        self._units = device.storage or (() if self._limits_flash else (UNDECLARED_DISK,))

    def __contains__(self, owner: str) -> bool:
        return owner in self._charges

    def arena_bytes(self, owner: str) -> int:
        """The arena that ``owner`` was charged; 0 for an unknown owner."""
        charge = self._charges.get(owner)
        return charge.arena_bytes if charge else 0

    def admit(
        self, owner: str, implementation: Implementation, *, queue_bytes: int, model_bytes: int
    ) -> None:
        """Charge one AIM instance; all of it, or nothing and an error.

        Args:
            owner: name of the instance, unique on the device, as messages show it.
            implementation: what is to run; its declared figures are charged.
            queue_bytes: input queues of the instance.
            model_bytes: size of its model file, 0 when it has none.

        Raises:
            ResourceExceeded: too little RAM, storage or too few sensors are left (``FlashOverflow``: flash).
            AlreadyRunning: the owner is charged already.
            ModelError: figures that contradict each other.
        """
        if owner in self._charges:
            raise AlreadyRunning(
                f"{owner} is already charged to the budgets of {self._device.id}",
                hint="stop the instance that runs before starting it again",
            )
        charge = self._charge(owner, implementation, queue_bytes, model_bytes)
        self._check(owner, charge)
        self._charges[owner] = charge

    def release(self, owner: str) -> None:
        """Give back what ``owner`` was charged; unknown owners are ignored."""
        self._charges.pop(owner, None)

    def release_all(self) -> None:
        self._charges.clear()

    def sensors_in_use(self) -> frozenset[str]:
        """Sensor kinds that at least one owner holds."""
        return frozenset(kind for charge in self._charges.values() for kind in charge.sensors)

    def usage(self) -> Usage:
        charges = self._charges.values()
        stored = self._stored()
        shown = [n for n, unit in enumerate(self._units) if unit.kind in MEMORY_MAPPED or stored[n]]
        return Usage(
            ram_bytes=self._ram_bytes(),
            ram_limit_bytes=self._device.ram_bytes,
            flash_bytes=self._flash_bytes() + sum(stored[n] for n in shown),
            flash_limit_bytes=self._device.flash_bytes + sum(self._units[n].bytes_ for n in shown),
            arena_bytes=sum(charge.arena_bytes for charge in charges),
        )

    def free(self) -> tuple[int, int, tuple[int, ...]]:
        """Bytes that are left: RAM, program flash, and each storage unit that the device declares."""
        stored, device = self._stored(), self._device
        return (
            device.ram_bytes - self._ram_bytes(),
            device.flash_bytes - self._flash_bytes(),
            tuple(unit.bytes_ - stored[n] for n, unit in enumerate(device.storage)),
        )

    # --- what an instance takes --------------------------------------------------------------------

    def _charge(
        self, owner: str, implementation: Implementation, queue_bytes: int, model_bytes: int
    ) -> Charge:
        figures = {
            "ram_bytes": implementation.ram_bytes,
            "arena_bytes": implementation.arena_bytes,
            "flash_bytes": implementation.flash_bytes,
            "queue_bytes": queue_bytes,
            "model_bytes": model_bytes,
        }
        for name, value in figures.items():
            if value < 0:
                raise ModelError(f"{owner}: {name} is {value:,}, a size is never negative")
        if implementation.arena_bytes > implementation.ram_bytes:
            raise ModelError(
                f"{owner}: the arena of {implementation.arena_bytes:,} B is larger than the "
                f"{implementation.ram_bytes:,} B of RAM that hold it",
                hint="ram_bytes in aim.yaml includes arena_bytes",
            )
        unit, stored_bytes, copied_bytes = self._home(owner, implementation, model_bytes)
        in_flash = stored_bytes if unit is None else 0
        return Charge(
            ram_bytes=implementation.ram_bytes + queue_bytes + copied_bytes,
            arena_bytes=implementation.arena_bytes,
            flash_bytes=implementation.flash_bytes + in_flash if self._limits_flash else 0,
            unit=unit,
            stored_bytes=0 if unit is None else stored_bytes,
            sensors=implementation.requires.sensors,
        )

    def _home(
        self, owner: str, implementation: Implementation, model_bytes: int
    ) -> tuple[int | None, int, int]:
        """Where the stored bytes rest: unit (None: program flash), how many, and how many are copied to RAM.

        A declared storage need names the kind of unit. Otherwise a model goes to the first memory-mapped
        unit that can hold its slots, else to program flash, else to the first other unit.
        """
        need = implementation.requires.storage
        wanted = MODEL_SLOTS * model_bytes
        stored_bytes = wanted if need is None else max(wanted, need.bytes_)
        if stored_bytes == 0:
            return None, 0, 0
        units = self._units if need is None else self._device.storage  # what is assumed fills no stated need
        fitting = [n for n, unit in enumerate(units) if need is None or need.kind in (None, unit.kind)]
        fitting.sort(key=lambda n: self._units[n].kind not in MEMORY_MAPPED)
        for position in fitting:
            unit = self._units[position]
            in_place = unit.kind in MEMORY_MAPPED or self._device.device_class is not DeviceClass.MCU
            if not in_place and need is None and wanted <= self._device.flash_bytes:
                break
            if unit.bytes_ >= stored_bytes:
                return position, stored_bytes, 0 if in_place else model_bytes
        if need is None and self._limits_flash:
            return None, stored_bytes, 0
        kind = need.kind if need is not None and need.kind else "any"
        largest = max((self._units[n].bytes_ for n in fitting), default=0)
        raise ResourceExceeded(
            f"{owner} needs {stored_bytes:,} B on one storage unit ({kind}), "
            f"the largest of {self._device.id} has {largest:,} B",
            hint="place it on a device with a larger storage unit",
        )

    # --- what is left ------------------------------------------------------------------------------

    def _check(self, owner: str, charge: Charge) -> None:
        device = self._device
        ram_left = device.ram_bytes - self._ram_bytes()
        if charge.ram_bytes > ram_left:
            raise ResourceExceeded(
                f"{owner} needs {charge.ram_bytes:,} B of RAM, {ram_left:,} B are available",
                hint=f"{device.id} has {device.ram_bytes:,} B for AIMs: shorten input queues, or place the "
                "AIM on a device with more RAM",
            )
        flash_left = device.flash_bytes - self._flash_bytes()
        if self._limits_flash and charge.flash_bytes > flash_left:
            raise FlashOverflow(
                owner,
                needed_bytes=charge.flash_bytes,
                available_bytes=flash_left,
                hint=f"{device.id} has {device.flash_bytes:,} B for AIMs: place the AIM on a device with "
                "more flash, or its model on a storage unit",
            )
        if charge.unit is not None:
            unit = self._units[charge.unit]
            left = unit.bytes_ - self._stored()[charge.unit]
            if charge.stored_bytes > left:
                raise ResourceExceeded(
                    f"{owner} needs {charge.stored_bytes:,} B on the storage unit {unit.kind}, "
                    f"{left:,} B are available",
                    hint=f"each model takes {MODEL_SLOTS} slots: remove another AIM from {device.id}, or "
                    "place this one elsewhere",
                )
        self._check_sensors(owner, charge)

    def _check_sensors(self, owner: str, charge: Charge) -> None:
        taken = Counter(kind for other in self._charges.values() for kind in other.sensors)
        for kind, wanted in Counter(charge.sensors).items():
            count = sum(sensor.count for sensor in self._device.sensors if sensor.kind == kind)
            if wanted > count - taken[kind]:
                raise ResourceExceeded(
                    f"{owner} needs {wanted} {kind} sensor(s), {count - taken[kind]} of the {count} that "
                    f"{self._device.id} has are available",
                    hint="let one AIM read the sensor and connect the others to its output",
                )

    def _ram_bytes(self) -> int:
        return sum(charge.ram_bytes for charge in self._charges.values())

    def _flash_bytes(self) -> int:
        return sum(charge.flash_bytes for charge in self._charges.values())

    def _stored(self) -> Counter[int]:
        """Bytes in use by position of the storage unit."""
        stored: Counter[int] = Counter()
        for charge in self._charges.values():
            if charge.unit is not None:
                stored[charge.unit] += charge.stored_bytes
        return stored
