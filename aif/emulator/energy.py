"""Time and energy of an emulated device: declared coefficients times counted work.

Decides: the latency and energy of one invocation, the energy of radio bytes.
Does not: measure anything. The wall time of an emulator says nothing about a microcontroller, so it is never
used here.

Rules, first that applies: ``measured`` on the device's board; ``instructions`` / instructions per second;
``mac_count`` / multiply-accumulates per second; ``scaled`` from a measurement on another board by the ratio
of their dmips, else of their instructions per second. These are the rules by which AIMs are placed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aif.model.aim import Implementation, Measurement
from aif.model.inventory import Device, Energy


class CostRule(StrEnum):
    """Which figure gave a latency."""

    MEASURED = "measured"
    INSTRUCTIONS = "instructions"
    MAC_COUNT = "mac_count"
    SCALED = "scaled"


@dataclass(frozen=True, slots=True)
class ExecutionCost:
    """Mean latency and energy of one invocation, and the rule that gave the latency."""

    latency_us: float
    energy_uj: float
    rule: CostRule


@dataclass(frozen=True, slots=True)
class ExecutionModel:
    """What invocations cost on ``device``; ``references`` are devices whose measurements may be scaled."""

    device: Device
    references: tuple[Device, ...] = ()

    def cost(self, implementation: Implementation) -> ExecutionCost | None:
        """Cost of one invocation, or None when no declared figure fits this device."""
        device = self.device
        for row in implementation.measured:
            if row.on == device.board:
                return self._with_energy(row.latency_us, CostRule.MEASURED, row.energy_uj)
        if implementation.instructions and device.instructions_per_s:
            latency_us = implementation.instructions * 1e6 / device.instructions_per_s
            return self._with_energy(latency_us, CostRule.INSTRUCTIONS)
        if implementation.mac_count and device.macs_per_s:
            return self._with_energy(implementation.mac_count * 1e6 / device.macs_per_s, CostRule.MAC_COUNT)
        for row in implementation.measured:
            ratio = self._speed_ratio(row)
            if ratio is not None:
                return self._with_energy(row.latency_us * ratio, CostRule.SCALED)
        return None

    def _with_energy(
        self, latency_us: float, rule: CostRule, measured_uj: float | None = None
    ) -> ExecutionCost:
        energy_uj = execution_uj(self.device.energy, latency_us) if measured_uj is None else measured_uj
        return ExecutionCost(latency_us, energy_uj, rule)

    def _speed_ratio(self, row: Measurement) -> float | None:
        """Time on this device per time on the measured board; None when their speeds cannot be compared."""
        device = self.device
        for other in self.references:
            if other.board == row.on:
                if other.dmips and device.dmips:
                    return other.dmips / device.dmips
                if other.instructions_per_s and device.instructions_per_s:
                    return other.instructions_per_s / device.instructions_per_s
        return None


def execution_uj(energy: Energy, latency_us: float) -> float:
    """Energy that running adds to idling: us * mW / 1000 = uJ.

    >>> execution_uj(Energy(active_mw=36.0, idle_mw=1.0), 2000.0)
    70.0
    """
    return latency_us * max(0.0, energy.active_mw - energy.idle_mw) / 1000.0


def radio_uj(energy: Energy, *, sent_bytes: int, received_bytes: int) -> float:
    """Energy of the radio for these bytes, in uJ."""
    return sent_bytes * energy.tx_uj_per_byte + received_bytes * energy.rx_uj_per_byte
