"""The battery of an emulated device: how full it is after idling, computing and sending.

Decides how much energy has gone, by declared powers and counted work (``energy``). Measures nothing, and
knows nothing of what follows from a low battery.

Invariants: it never charges by itself; time that goes backwards costs nothing. Work is counted since whatever
is counted began; a counter that shows less than before has begun anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aif.emulator.energy import radio_uj
from aif.model.inventory import Energy

UJ_PER_MWH = 3.6e6


@dataclass(frozen=True, slots=True)
class BatteryStart:
    """How full the battery is at first (0..1), and how many times faster than in reality it is emptied."""

    level: float = 1.0
    speed: float = 1.0


@dataclass(slots=True)
class Battery:
    """One battery.

    Attributes:
        energy: of the device; it has a battery.
        start: what it begins with.
        at_ms: monotonic time up to which idling is accounted for.
    """

    energy: Energy
    start: BatteryStart
    at_ms: float
    _spent_uj: float = 0.0
    _invocations: dict[str, int] = field(default_factory=dict)
    _sent_bytes: int = 0
    _received_bytes: int = 0

    def idled(self, now_ms: float) -> None:
        """Time has passed: mW * ms = uJ."""
        self._spend(self.energy.idle_mw * max(0.0, now_ms - self.at_ms))
        self.at_ms = max(self.at_ms, now_ms)

    def worked(self, invocations: Mapping[str, int], energy_uj: Mapping[str, float]) -> None:
        """AIMs have been invoked so many times in all; one invocation takes so much."""
        for owner, count in invocations.items():
            before = self._invocations.get(owner, 0)
            self._spend(energy_uj.get(owner, 0.0) * (count - before if count >= before else count))
        self._invocations = dict(invocations)

    def sent(self, sent_bytes: int, received_bytes: int) -> None:
        """So many bytes have gone over the radio in all."""
        self._spend(
            radio_uj(
                self.energy,
                sent_bytes=max(0, sent_bytes - self._sent_bytes),
                received_bytes=max(0, received_bytes - self._received_bytes),
            )
        )
        self._sent_bytes, self._received_bytes = sent_bytes, received_bytes

    @property
    def level(self) -> float:
        """How full it is (0..1)."""
        capacity_uj = (self.energy.battery_mwh or 0.0) * UJ_PER_MWH
        if capacity_uj <= 0.0:
            return 0.0
        return max(0.0, self.start.level - self._spent_uj / capacity_uj)

    def charge(self, level: float) -> None:
        """Somebody has charged it, or put another one in."""
        self.start = BatteryStart(level, self.start.speed)
        self._spent_uj = 0.0

    def _spend(self, energy_uj: float) -> None:
        self._spent_uj += energy_uj * self.start.speed
