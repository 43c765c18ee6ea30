"""How much of a workflow may run, in which order it is given up, and what a workflow is at a lower rate."""

from __future__ import annotations

import itertools

import pytest

from aif.model.aim import Trigger
from aif.model.aiw import AIWMetadata, Availability, expand
from aif.model.degrading import RATES, Service, rates_of, services, sets_pace, slowed
from aif.model.ports import Direction, PortRef
from aif.model.rates import derive_rates, invocation_rates
from tests.model.workflows import aim, catalogue, channel, port, sub, workflow

OUT, IN = Direction.OUTPUT, Direction.INPUT
SENSOR = aim("Sensor", (), (port("out", OUT, rate_hz=50.0),))
TIMER = aim("Timer", (), (port("out", OUT),), period_ms=20.0)
WINDOW = aim("Window", (port("in", IN, consumes=10.0),), (port("out", OUT, emits=2.0, rate_hz=10.0),))
SAMPLER = aim("Sampler", (port("in", IN),), (port("out", OUT),), period_ms=100.0)
EVENTS = aim("Events", (port("in", IN),), (port("out", OUT, rate_hz=3.0),))
LIBRARY = catalogue(SENSOR, TIMER, WINDOW, SAMPLER, EVENTS)


def flow(**availability: object) -> AIWMetadata:
    return workflow(
        [sub("sensor", "Sensor"), sub("timer", "Timer"), sub("window", "Window"), sub("sampler", "Sampler"),
         sub("events", "Events")],
        ["sensor.out -> window.in", "timer.out -> sampler.in", "window.out -> aiw.x",
         "aiw.press -> events.in"],
        inputs=("press",), outputs=("x",), availability=Availability(**availability),  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_workflow_that_says_nothing_is_never_slowed() -> None:
    assert rates_of(flow()) == (1.0,)
    assert list(services(expand(flow(), LIBRARY))) == [Service()]


@pytest.mark.parametrize(
    ("least", "rates"),
    [(0.5, (1.0, 0.75, 0.5)), (0.3, (1.0, 0.75, 0.5, 0.3)), (0.01, (*RATES, 0.01)), (0.9, (1.0, 0.9))],
)
def test_the_least_that_is_accepted_is_tried_last(least: float, rates: tuple[float, ...]) -> None:
    assert rates_of(flow(least_rate=least)) == rates


@pytest.mark.parametrize("slow_down", ["first", "last"])
def test_rate_and_aims_go_in_the_order_of_the_metadata(slow_down: str) -> None:
    written = flow(least_rate=0.5, optional=("sampler",), slow_down=slow_down)
    found = list(services(expand(written, LIBRARY)))
    told = [(len(one.left_out), one.rate) for one in found]
    slower = [(0, 1.0), (0, 0.75), (0, 0.5), (1, 1.0), (1, 0.75), (1, 0.5)]
    fewer = [(0, 1.0), (1, 1.0), (0, 0.75), (1, 0.75), (0, 0.5), (1, 0.5)]
    assert told == (slower if slow_down == "first" else fewer)
    for better, worse in itertools.combinations(found, 2):
        assert better.better_than(worse, written)
        assert not worse.better_than(better, written)
    assert not found[0].better_than(found[0], written)


def test_no_more_is_offered_than_is_wanted() -> None:
    whole = expand(flow(least_rate=0.25), LIBRARY)
    assert [one.rate for one in services(whole, 0.5)] == [0.5, 0.25]
    assert [one.rate for one in services(whole, 0.1)] == [0.1]


def test_everything_behind_a_source_comes_at_the_lower_rate_and_nothing_else() -> None:
    whole = expand(flow(), LIBRARY)
    half = slowed(whole, 0.5)

    def figures(of: object) -> tuple[dict[PortRef, float], dict[str, float]]:
        contracts = {leaf.id: leaf.metadata for leaf in of.aims}  # type: ignore[attr-defined]
        rates = derive_rates(contracts, whole.channels, {b.port.name: b.port for b in whole.metadata.inputs})
        return rates, invocation_rates(contracts, whole.channels, rates)

    (rates, invoked), (slow, seldom) = figures(whole), figures(half)
    for aim_id in ("sensor", "timer", "window", "sampler"):
        assert slow[PortRef(aim_id, "out")] == pytest.approx(rates[PortRef(aim_id, "out")] / 2)
        assert seldom[aim_id] == pytest.approx(invoked[aim_id] / 2)
    assert slow[PortRef("events", "out")] == rates[PortRef("events", "out")] == 3.0  # a person sets its pace


def test_at_the_full_rate_a_workflow_is_itself() -> None:
    whole = expand(flow(), LIBRARY)
    assert slowed(whole, 1.0) is whole
    assert Service().of(whole) is whole


def test_who_sets_a_pace() -> None:
    assert [sets_pace(one) for one in (SENSOR, TIMER, SAMPLER)] == [True] * 3
    assert not sets_pace(WINDOW)
    assert not sets_pace(aim("Any", ("a",), ("b",), trigger=Trigger(("a",))))


def test_feedback_sets_no_pace_of_its_own() -> None:
    looped = workflow(
        [sub("a", "Sensor"), sub("b", "Two")],
        ["a.out -> b.in", channel("b.out -> b.back", delay_records=1), "b.out -> aiw.x"],
        outputs=("x",),
    )
    two = aim("Two", ("in", port("back", IN, optional=True)), ("out",))
    slow = slowed(expand(looped, catalogue(SENSOR, two)), 0.25)
    assert derive_rates({x.id: x.metadata for x in slow.aims}, slow.channels)[PortRef("b", "out")] == 12.5
