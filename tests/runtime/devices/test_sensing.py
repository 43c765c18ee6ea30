"""What is measured of devices, when that is worth a word, and what the planner is told of it."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from aif.model.aim import Runtime
from aif.model.inventory import Device, DeviceClass, Energy, Inventory, Link
from aif.runtime.devices.conditions import CHARGED, RETURN_FIRST_MS, WINDOWS
from aif.runtime.devices.delays import WINDOW_QUESTIONS
from aif.runtime.devices.sensing import (
    LEAST_PLANNED_MS,
    LOW_PRICE,
    RESERVE_PRICE,
    Sensing,
    answer_ms,
    planned_ms,
)
from aif.runtime.logbook import LogBook
from tests.runtime.virtual_clock import VirtualClock

INTERVAL_MS = 500.0
NAMES = ("left", "right", "spare")


def device(name: str, energy: Energy | None = None) -> Device:
    return Device(
        name, DeviceClass.GATEWAY, "board", 1_000, 1_000, frozenset(Runtime), energy=energy or Energy()
    )


BATTERY = Energy("battery", battery_mwh=100.0, battery_low=0.2, battery_reserve=0.1)
INVENTORY = Inventory(
    "bench", 1, (device("left"), device("right"), device("spare", BATTERY)),
    (Link("lan", NAMES, 1e8, 1.0, shared=True),),
)  # fmt: skip

Answer = Callable[[str], float | None]
"""Round trip of a device's next answer (ms), None where it is lost."""


class Bench:
    """A site whose devices answer as a test says, on a clock that a test moves."""

    def __init__(self, inventory: Inventory = INVENTORY) -> None:
        self.clock, self.stream = VirtualClock(0.0), io.StringIO()
        self.sensing = Sensing(LogBook("controller", self.clock, self.stream))
        self.sensing.expect(inventory)
        self.inventory = inventory
        self.history: list[frozenset[str]] = []

    def ask(self, windows: int, answer: Answer) -> None:
        for _ in range(windows * WINDOW_QUESTIONS):
            self.clock.now_ms += INTERVAL_MS
            for one in self.inventory.devices:
                self.sensing.asked(one.id, self.clock.now_ms)
                rtt_ms = answer(one.id)
                if rtt_ms is not None:
                    self.sensing.answered(one.id, rtt_ms)
            if not self.history or self.history[-1] != self.sensing.signs(self.inventory):
                self.history.append(self.sensing.signs(self.inventory))

    def seen(self, name: str) -> Device:
        return self.sensing.measured(self.inventory).device(name)

    def told(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.stream.getvalue().splitlines()]


def only(name: str, rtt_ms: float, others_ms: float = 2.0) -> Answer:
    return lambda device: rtt_ms if device == name else others_ms


def test_a_device_that_answers_late_is_slow_after_three_windows_and_quick_again_after_a_while() -> None:
    bench = Bench()
    bench.ask(2, only("right", 2.0))
    assert bench.sensing.measured(INVENTORY) == INVENTORY
    bench.ask(WINDOWS, only("right", 100.0))
    assert bench.history[-1] == frozenset()
    bench.ask(1, only("right", 100.0))
    assert bench.history[-1] == {"right answers slowly"}
    assert bench.seen("right").delay_ms == pytest.approx((100.0 - LEAST_PLANNED_MS) / 2)
    assert bench.seen("left") == INVENTORY.device("left")
    bench.ask(int(RETURN_FIRST_MS / (INTERVAL_MS * WINDOW_QUESTIONS)) + WINDOWS, only("right", 2.0))
    assert bench.history == [frozenset(), frozenset({"right answers slowly"}), frozenset()]
    assert bench.sensing.measured(INVENTORY) == INVENTORY
    assert bench.told() == ["device answers slowly", "device answers quickly again"]


def test_a_device_that_loses_answers_is_slow_too() -> None:
    bench, rng = Bench(), random.Random(3)
    bench.ask(20, lambda name: None if name == "right" and rng.random() < 0.5 else 2.0)
    assert bench.history[-1] == {"right answers slowly"}
    assert bench.seen("right").delay_ms > LEAST_PLANNED_MS


def test_what_all_are_late_by_is_nobodys_fault() -> None:
    bench = Bench()
    bench.ask(20, only("right", 300.0, others_ms=290.0))
    assert bench.history == [frozenset()]
    bench.ask(6, only("right", 600.0, others_ms=290.0))
    assert bench.history[-1] == {"right answers slowly"}
    assert bench.seen("right").delay_ms < (600.0 - 250.0) / 2


@pytest.mark.parametrize("seed", range(5))
def test_noise_around_the_mark_tells_little(seed: int) -> None:
    """An hour of answers whose times lie on both sides of both marks, with outliers and losses."""
    bench, rng = Bench(), random.Random(seed)

    def noisy(name: str) -> float | None:
        if name != "right":
            return rng.expovariate(1 / 3.0)
        if rng.random() < 0.01:
            return None
        return rng.uniform(1.0, 2.0 * 1.35 * LEAST_PLANNED_MS) + (500.0 if rng.random() < 0.02 else 0.0)

    bench.ask(900, noisy)
    assert len(bench.history) <= 2 * 7
    assert all(signs <= {"right answers slowly"} for signs in bench.history)


def test_a_slow_link_that_was_declared_slow_is_not_degraded() -> None:
    far = Inventory(
        "far", 1, (device("left"), device("right")), (Link("radio", ("left", "right"), 1e5, 80.0),)
    )
    bench = Bench(far)
    assert planned_ms(far.device("left"), far) > 160.0
    bench.ask(10, lambda name: 230.0 if name == "right" else 4.0)
    assert bench.history == [frozenset()]


def test_devices_that_nobody_placed_anything_on_take_no_memory() -> None:
    bench = Bench()
    for n in range(100):
        bench.sensing.asked(f"stranger-{n}", 0.0)
        bench.sensing.answered(f"stranger-{n}", 1.0)
        bench.sensing.battery(f"stranger-{n}", 0.0, 0.0)
    assert bench.sensing.report("stranger-1", 0.0) == {}
    assert len(bench.sensing._devices) == len(NAMES)


def test_a_battery_gets_dearer_and_then_is_spared() -> None:
    bench = Bench()

    def level(share: float) -> None:
        for _ in range(WINDOWS):
            bench.clock.now_ms += 1_000.0
            bench.sensing.battery("spare", share, bench.clock.now_ms)

    level(0.21)
    assert bench.seen("spare").energy.price == 1.0
    level(0.19)
    assert bench.seen("spare").energy.price == LOW_PRICE
    assert not bench.sensing.spent()
    level(0.09)
    assert bench.seen("spare").energy.price == RESERVE_PRICE
    assert bench.sensing.spent() == {"spare"}
    assert bench.sensing.signs(INVENTORY) == {"the battery of spare is nearly empty"}
    bench.clock.now_ms += RETURN_FIRST_MS
    level(0.1 + CHARGED / 2)
    assert bench.sensing.spent() == {"spare"}
    level(0.1 + CHARGED + 0.01)
    assert not bench.sensing.spent()
    assert bench.seen("spare").energy.price == LOW_PRICE
    level(1.0)
    assert bench.seen("spare") == INVENTORY.device("spare")


def test_a_device_on_mains_has_no_low_battery() -> None:
    bench = Bench()
    for n in range(10):
        bench.sensing.battery("left", 0.0, n * 1_000.0)
    assert bench.seen("left") == INVENTORY.device("left")


def test_figures_have_an_origin_and_an_age() -> None:
    bench = Bench()
    assert bench.sensing.report("left", 0.0) == {}
    bench.ask(2, only("left", 3.0))
    bench.sensing.battery("spare", 0.5, 0.0)
    link = bench.sensing.report("left", bench.clock.now_ms + 1_000.0)["link"]
    assert (link["origin"], link["rtt_p50_ms"], link["loss"], link["answers"]) == ("measured", 3.0, 0.0, 8)
    assert 1.0 <= link["age_s"] <= 6.0
    assert bench.sensing.report("spare", 0.0)["battery"] == {"level": 0.5, "state": "good"}


def test_lost_answers_take_time() -> None:
    assert answer_ms(5.0, 0.0) == 5.0
    assert answer_ms(5.0, 0.5) == 105.0
    assert answer_ms(5.0, 1.0) == float("inf")


def test_devices_that_a_question_costs_much_are_left_in_peace() -> None:
    devices = (
        device("left"), device("spare", BATTERY), replace(device("small"), device_class=DeviceClass.MCU),
        device("far"), device("right"),
    )  # fmt: skip
    links = (Link("lan", ("left", "spare", "small", "right"), 1e8, 1.0, shared=True),
             Link("wan", ("left", "far"), 1e8, 40.0))  # fmt: skip
    bench = Bench(Inventory("bench", 1, devices, links))
    assert [one.id for one in devices if not bench.sensing.calm(one.id)] == ["left", "right"]
    assert bench.sensing.calm("stranger")
    bench.ask(WINDOWS + 1, lambda name: 400.0 if name == "right" else 2.0)
    assert bench.sensing.calm("right")
