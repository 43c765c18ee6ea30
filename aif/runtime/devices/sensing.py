"""What the Controller finds out about devices while they run: how quickly they answer, how full a battery is.

Decides when a device is slow, when its battery is low or nearly empty, and what of it the planner is told:
an inventory in which such devices have what was measured in place of what was declared. A device that does
better than declared keeps its declared figures, so that plans do not follow every breath of the network.

A round trip between Controller and device is compared with twice the way of the device's best link. What all
devices are late by is the Controller's own doing, or the broker's, and nobody's fault; what is below
``LEAST_PLANNED_MS`` says more about a busy computer than about a link.

Decides nothing about moves (``improving``, ``healing``). All times are monotonic milliseconds, and arguments.

Invariant: devices that no inventory names take no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final

from aif.model.inventory import Device, DeviceClass, Inventory
from aif.runtime.devices.conditions import CHARGED, QUICK, SLOW, Condition
from aif.runtime.devices.delays import Delays, Window
from aif.runtime.devices.liveness import LEAST_TIMEOUT_MS
from aif.runtime.logbook import LogBook

FRAME_BYTES = 256
"""Of a question and of its answer, about."""

LEAST_PLANNED_MS = 50.0
"""A round trip that is planned to be shorter is not expected to be."""

LOW_PRICE, RESERVE_PRICE = 4.0, 16.0
"""How many times as much the energy of a battery counts that is low, or nearly empty."""


@dataclass(slots=True)
class Sensed:
    """One device: what is planned, what was measured, and what that comes to."""

    planned_ms: float = LEAST_PLANNED_MS
    calm: bool = True
    """Whether each question to it costs much: a microcontroller, a battery, a slow way."""
    low: float = 0.0
    reserve: float = 0.0
    delays: Delays = field(default_factory=Delays)
    slow: Condition = field(default_factory=Condition)
    battery: float | None = None
    battery_low: Condition = field(default_factory=Condition)
    battery_spent: Condition = field(default_factory=Condition)

    @property
    def price(self) -> float:
        """How many times the energy of its battery counts."""
        return RESERVE_PRICE if self.battery_spent.bad else LOW_PRICE if self.battery_low.bad else 1.0


_UNKNOWN: Final = Sensed()


class Sensing:
    """All devices of a site."""

    def __init__(self, log: LogBook) -> None:
        self._log = log
        self._devices: dict[str, Sensed] = {}

    def expect(self, inventory: Inventory) -> None:
        """From now on devices are compared with what this inventory says of them."""
        for device in inventory.devices:
            sensed = self._devices.setdefault(device.id, Sensed())
            sensed.planned_ms = planned_ms(device, inventory)
            on_battery = device.energy.source == "battery"
            micro = device.device_class is DeviceClass.MCU
            sensed.calm = micro or on_battery or sensed.planned_ms > LEAST_PLANNED_MS
            sensed.low = device.energy.battery_low if on_battery else 0.0
            sensed.reserve = device.energy.battery_reserve if on_battery else 0.0

    # --- what comes in -----------------------------------------------------------------------------

    def asked(self, device: str, now_ms: float) -> None:
        """A question is sent to a device."""
        sensed = self._devices.get(device)
        window = sensed.delays.asked(now_ms) if sensed is not None else None
        if sensed is None or window is None:
            return
        planned, took_ms = sensed.planned_ms, answer_ms(window.p50_ms, window.loss)
        if took_ms >= QUICK * planned:  # else the others do not matter, and sites are large
            took_ms = self._without_others(device, window.p50_ms, window.loss)
        if sensed.slow.see(now_ms, worse=took_ms > SLOW * planned, better=took_ms < QUICK * planned):
            words = "device answers slowly" if sensed.slow.bad else "device answers quickly again"
            tell = self._log.warning if sensed.slow.bad else self._log.info
            tell(words, device=device, planned_rtt_ms=round(planned, 1), **_rounded(sensed.delays))

    def answered(self, device: str, rtt_ms: float) -> None:
        """A device has answered a question."""
        if device in self._devices:
            self._devices[device].delays.answered(rtt_ms)

    def restart(self, device: str) -> None:
        """Questions and answers of a device do not belong together: it has a new session."""
        if device in self._devices:
            self._devices[device].delays.restart()

    def battery(self, device: str, level: float, now_ms: float) -> None:
        """A device says how full its battery is (0..1)."""
        sensed = self._devices.get(device)
        if sensed is None:
            return
        sensed.battery = level
        for condition, mark, name in (
            (sensed.battery_low, sensed.low, "low"), (sensed.battery_spent, sensed.reserve, "nearly empty"),
        ):  # fmt: skip
            if condition.see(now_ms, worse=level < mark, better=level > mark + CHARGED):
                words = f"battery is {name}" if condition.bad else f"battery is not {name} any more"
                tell = self._log.warning if condition.bad else self._log.info
                tell(words, device=device, battery=round(level, 3), mark=mark)

    # --- what it comes to --------------------------------------------------------------------------

    def measured(self, inventory: Inventory) -> Inventory:
        """An inventory with what was measured of its devices, where that is worse than declared."""
        return replace(inventory, devices=tuple(map(self._measured, inventory.devices)))

    def spent(self) -> frozenset[str]:
        """Devices whose battery is nearly empty."""
        return frozenset(name for name, sensed in self._devices.items() if sensed.battery_spent.bad)

    def signs(self, inventory: Inventory) -> frozenset[str]:
        """Everything that is bad now about these devices, in words for people."""
        return frozenset(word for device in inventory.devices for word in self._signs(device.id))

    def calm(self, device: str) -> bool:
        """Whether a device is better not asked often, because of what it is or how slowly it answers."""
        sensed = self._devices.get(device, _UNKNOWN)
        return sensed.calm or sensed.slow.bad

    def report(self, device: str, now_ms: float) -> dict[str, Any]:
        """The figures of a device, with their origin and age; empty where nothing is known."""
        sensed = self._devices.get(device)
        if sensed is None:
            return {}
        known: dict[str, Any] = {}
        if sensed.delays.samples:
            known["link"] = {
                "origin": "measured", "age_s": round((now_ms - sensed.delays.updated_ms) / 1000.0, 1),
                "planned_rtt_ms": round(sensed.planned_ms, 1), "slow": sensed.slow.bad,
                **_rounded(sensed.delays),
            }  # fmt: skip
        if sensed.battery is not None:
            spent, low = sensed.battery_spent.bad, sensed.battery_low.bad
            known["battery"] = {
                "level": round(sensed.battery, 3), "state": "reserve" if spent else "low" if low else "good",
            }  # fmt: skip
        return known

    def _measured(self, device: Device) -> Device:
        sensed = self._devices.get(device.id)
        if sensed is None or not (sensed.slow.bad or sensed.price > 1.0):
            return device
        energy = replace(device.energy, price=sensed.price)
        return replace(device, energy=energy, delay_ms=self._added_ms(device.id, sensed))

    def _added_ms(self, device: str, sensed: Sensed) -> float:
        """What one way takes longer than planned; of an average that still rises the newest window."""
        if not sensed.slow.bad:
            return 0.0
        newest = sensed.delays.newest or Window(0.0, 0.0, 0.0)
        p95_ms = max(sensed.delays.p95_ms, newest.p95_ms if newest.p95_ms < inf else 0.0)
        took_ms = self._without_others(device, p95_ms, max(sensed.delays.loss, min(newest.loss, 0.9)))
        return max(0.0, took_ms - sensed.planned_ms) / 2.0

    def _without_others(self, device: str, rtt_ms: float, loss: float) -> float:
        """How long an answer of a device takes, without what all others are late by too."""
        late_ms = (
            max(0.0, sensed.delays.newest.p50_ms - sensed.planned_ms)
            for name, sensed in self._devices.items()
            if name != device and sensed.delays.newest is not None
        )
        shared_ms = min(late_ms, default=0.0)
        return inf if rtt_ms == inf else max(0.0, answer_ms(rtt_ms, loss) - min(shared_ms, rtt_ms))

    def _signs(self, device: str) -> Iterator[str]:
        sensed = self._devices.get(device, _UNKNOWN)
        if sensed.slow.bad:
            yield f"{device} answers slowly"
        if sensed.battery_spent.bad:
            yield f"the battery of {device} is nearly empty"
        elif sensed.battery_low.bad:
            yield f"the battery of {device} is low"


def answer_ms(rtt_ms: float, loss: float) -> float:
    """Expected time to an answer, when whatever is lost is asked for again."""
    return rtt_ms + LEAST_TIMEOUT_MS * loss / (1.0 - loss) if loss < 1.0 else inf


def planned_ms(device: Device, inventory: Inventory) -> float:
    """The round trip that is expected of a device: there and back on the best of its links."""
    ways = [
        answer_ms(2.0 * link.transfer_ms(FRAME_BYTES), link.loss)
        for link in inventory.links
        if device.id in link.members
    ]
    return max(LEAST_PLANNED_MS, min(ways, default=0.0))


def _rounded(delays: Delays) -> dict[str, Any]:
    return {
        "rtt_p50_ms": round(delays.p50_ms, 1), "rtt_p95_ms": round(delays.p95_ms, 1),
        "loss": round(delays.loss, 3), "answers": delays.samples,
    }  # fmt: skip
