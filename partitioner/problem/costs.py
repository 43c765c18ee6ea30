"""What one invocation of an implementation costs on one device: time, energy, and where its model rests.

Decides from declared and measured figures alone; which device is allowed is decided in ``filters``.
Times are whole microseconds, rounded up, so that sums of them are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from aif.model.aim import Implementation, Measurement
from aif.model.inventory import Device, DeviceClass, Inventory
from partitioner.policy import ModelFacts, PlanPolicy

MEMORY_MAPPED = frozenset({"internal_flash"})
"""Storage units whose models are read in place; from any other a microcontroller copies them to RAM."""

IN_FLASH = -1
"""``ModelHome.unit`` of a model that rests in program flash."""


@dataclass(frozen=True, slots=True)
class InvocationCost:
    """Mean and 99th-percentile latency in whole us, energy in uJ, and the rule that gave them."""

    latency_us: int
    tail_us: int
    energy_uj: float
    rule: str


@dataclass(frozen=True, slots=True)
class ModelHome:
    """Where the stored bytes of an AIM rest: a unit by position, flash (-1), or not charged (None)."""

    unit: int | None
    bytes_: int
    staging_bytes: int


def invocation_cost(
    implementation: Implementation, device: Device, inventory: Inventory
) -> InvocationCost | None:
    """Cost by the first rule that applies; None when no figure fits this device.

    Rules, in order: measured on the device's board; instructions / instructions_per_s; mac_count /
    macs_per_s; measured on another board of the inventory and scaled by the ratio of their speeds
    (``dmips``, else ``instructions_per_s``).
    """
    for row in implementation.measured:
        if row.on == device.board:
            return _cost(device, row.latency_us, row.latency_p99_us, row.energy_uj, "measured")
    if implementation.instructions and device.instructions_per_s:
        micros = implementation.instructions * 1e6 / device.instructions_per_s
        return _cost(device, micros, None, None, "instructions")
    if implementation.mac_count and device.macs_per_s:
        return _cost(device, implementation.mac_count * 1e6 / device.macs_per_s, None, None, "mac_count")
    for row in implementation.measured:
        ratio = _speed_ratio(row, device, inventory)
        if ratio is not None:
            tail = None if row.latency_p99_us is None else row.latency_p99_us * ratio
            return _cost(device, row.latency_us * ratio, tail, None, "scaled")
    return None


def _cost(
    device: Device, latency_us: float, tail_us: float | None, energy_uj: float | None, rule: str
) -> InvocationCost:
    """Energy not measured is latency times the power that running adds (us * mW / 1000 = uJ)."""
    if energy_uj is None:
        energy_uj = latency_us * max(0.0, device.energy.active_mw - device.energy.idle_mw) / 1000.0
    mean = whole(latency_us)
    return InvocationCost(mean, max(mean, whole(tail_us or 0.0)), energy_uj, rule)


def _speed_ratio(row: Measurement, device: Device, inventory: Inventory) -> float | None:
    """Time on ``device`` per time on the measured board, or None when their speeds cannot be compared."""
    for other in inventory.devices:
        if other.board == row.on:
            if other.dmips and device.dmips:
                return other.dmips / device.dmips
            if other.instructions_per_s and device.instructions_per_s:
                return other.instructions_per_s / device.instructions_per_s
    return None


def whole(value: float) -> int:
    """Round up, but not because of the last bits of a floating-point product."""
    return ceil(value - 1e-6)


def battery_limit_uw(device: Device, life_h: float | None) -> int | None:
    """Power that AIMs and their Channels may draw for the battery to last; None where there is no limit."""
    energy = device.energy
    if life_h is None or energy.source != "battery" or energy.battery_mwh is None:
        return None
    return max(0, int(1000.0 * (energy.battery_mwh / life_h - energy.idle_mw) + 1e-6))


def model_facts(implementation: Implementation, releases: Mapping[str, ModelFacts]) -> ModelFacts:
    """Size and arena of the model: of the release where there is one, else as the contract declares."""
    model = implementation.model
    if model is None:
        return ModelFacts(0, implementation.arena_bytes)
    known = releases.get(model.component)
    if known is None:
        return ModelFacts(model.bytes_ or 0, implementation.arena_bytes)
    arena = implementation.arena_bytes if known.arena_bytes is None else known.arena_bytes
    return ModelFacts(known.bytes_, arena)


def flash_is_limited(device: Device) -> bool:
    """A larger device that declares no flash keeps its programs in a file system nobody budgets."""
    return device.device_class is DeviceClass.MCU or device.flash_bytes > 0


def model_home(
    implementation: Implementation, model_bytes: int, device: Device, policy: PlanPolicy
) -> ModelHome | str:
    """Where an implementation's stored bytes rest on ``device``, or the sentence why nothing can hold them.

    A declared storage need names the kind of unit. Otherwise a model goes to the first memory-mapped unit
    that can hold it, else to program flash, else to the first other unit.
    """
    need = implementation.requires.storage
    bytes_ = policy.model_slots * model_bytes
    if need is not None:
        bytes_ = max(bytes_, need.bytes_)
    if bytes_ == 0:
        return ModelHome(None, 0, 0)
    units = [
        (position, unit)
        for position, unit in enumerate(device.storage)
        if need is None or need.kind in (None, unit.kind)
    ]
    units.sort(key=lambda item: item[1].kind not in MEMORY_MAPPED)
    for position, unit in units:
        in_place = unit.kind in MEMORY_MAPPED or device.device_class is not DeviceClass.MCU
        if not in_place and need is None and policy.model_slots * model_bytes <= device.flash_bytes:
            break
        if unit.bytes_ >= bytes_:
            return ModelHome(position, bytes_, 0 if in_place else model_bytes)
    if need is None and flash_is_limited(device):
        return ModelHome(IN_FLASH, bytes_, 0)
    if need is None and not device.storage:
        return ModelHome(None, bytes_, 0)
    kind = "any kind" if need is None else need.kind or "any kind"
    largest = max((unit.bytes_ for _, unit in units), default=0)
    return f"needs {bytes_:,} B on a storage unit ({kind}), the largest has {largest:,} B"
