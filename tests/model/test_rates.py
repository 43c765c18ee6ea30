from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import CyclicTopology
from aif.model.aim import AIMMetadata, Join, Trigger
from aif.model.ports import Direction, PortRef
from aif.model.rates import RateError, derive_rates, invocation_rates
from tests.model.workflows import aim, channel, port

IN, OUT = Direction.INPUT, Direction.OUTPUT


def source(rate_hz: float | None = 50.0) -> AIMMetadata:
    return aim("S", (), (port("out", OUT, rate_hz=rate_hz),))


def rate(contracts: dict[str, AIMMetadata], channels: list[str], ref: str, **boundary: float | None) -> float:
    ports = {name: port(name, IN, rate_hz=hz) for name, hz in boundary.items()}
    return derive_rates(contracts, [channel(c) for c in channels], ports)[PortRef.parse(ref)]


def test_a_window_divides_and_emits_multiply() -> None:
    window = aim("W", (port("in", IN, consumes=50.0),), (port("out", OUT, emits=2.0),))
    assert rate({"s": source(), "w": window}, ["s.out -> w.in"], "w.out") == 2.0


def test_a_period_decides_alone() -> None:
    paced = aim("P", ("in",), ("out",), period_ms=100.0)
    contracts = {"s": source(), "p": paced}
    assert rate(contracts, ["s.out -> p.in"], "p.out") == 10.0
    assert rate({"p": aim("P", (), ("out",), period_ms=20.0)}, [], "p.out") == 50.0


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        (Trigger(), 10.0),
        (Trigger(("a", "b"), any_of=True), 60.0),
        (Trigger(("a", "b"), join=Join.LATEST), 50.0),
        (Trigger(("b", "a"), join=Join.LATEST), 10.0),
        (Trigger(join=Join.TIMESTAMP), 10.0),
    ],
)
def test_what_triggers_sets_the_pace(trigger: Trigger, expected: float) -> None:
    contracts = {"f": source(50.0), "s": source(10.0), "j": aim("J", ("a", "b"), ("out",), trigger=trigger)}
    assert rate(contracts, ["f.out -> j.a", "s.out -> j.b"], "j.out") == expected


def test_an_optional_input_that_nothing_feeds_does_not_hold_the_others_up() -> None:
    inputs = (port("a", IN, optional=True), port("b", IN, optional=True))
    contracts = {"s": source(), "j": aim("J", inputs, ("out",), trigger=Trigger(("a", "b")))}
    assert rate(contracts, ["s.out -> j.a"], "j.out") == 50.0


def test_feedback_does_not_set_the_pace() -> None:
    contracts = {"s": source(), "j": aim("J", ("in", "back"), ("out",)), "p": aim("P", ("in",), ("out",))}
    channels = [
        channel("s.out -> j.in"),
        channel("j.out -> p.in"),
        channel("p.out -> j.back", delay_records=1),
    ]
    rates = derive_rates(contracts, channels)
    assert rates[PortRef("j", "out")] == rates[PortRef("p", "out")] == 50.0
    assert invocation_rates(contracts, channels, rates) == {"s": 50.0, "j": 50.0, "p": 50.0}


def test_a_delay_that_closes_no_cycle_keeps_the_rate() -> None:
    channels = [channel("s.out -> p.in", delay_records=3)]
    contracts = {"s": source(), "p": aim("P", ("in",), ("out",))}
    assert derive_rates(contracts, channels)[PortRef("p", "out")] == 50.0


def test_fan_in_adds_up() -> None:
    contracts = {"a": source(50.0), "b": source(10.0), "p": aim("P", ("in",), ("out",))}
    assert rate(contracts, ["a.out -> p.in", "b.out -> p.in"], "p.out") == 60.0


def test_a_boundary_input_without_a_rate_is_unknown_and_not_zero() -> None:
    contracts = {
        "j": aim("J", ("a", "b"), ("out",)),
        "p": aim("P", ("in",), (port("out", OUT, rate_hz=7.0),)),
    }
    channels = ["aiw.known -> j.a", "aiw.unknown -> j.b", "aiw.unknown -> p.in"]
    assert rate(contracts, channels, "j.out", known=5.0, unknown=None) == 5.0
    assert rate(contracts, channels, "p.out", known=5.0, unknown=None) == 7.0


def test_a_source_says_its_rate_or_its_period() -> None:
    with pytest.raises(RateError) as refused:
        derive_rates({"s": source(None)}, [])
    assert str(refused.value) == "s (S@1.0) is a source, but its output out declares no rate"
    assert refused.value.aim == "s"
    assert refused.value.hint == "give the output rate_hz, or the AIM period_ms"


@pytest.mark.parametrize(
    ("declared", "fits"), [(50.0, True), (55.0, True), (45.1, True), (56.0, False), (44.9, False)]
)
def test_a_declared_rate_may_be_a_tenth_off(declared: float, fits: bool) -> None:
    contracts = {"s": source(), "p": aim("P", ("in",), (port("out", OUT, rate_hz=declared),))}
    if fits:
        assert rate(contracts, ["s.out -> p.in"], "p.out") == declared
    else:
        with pytest.raises(RateError, match=f"p.out declares {declared:g} Hz but 50 Hz follow") as refused:
            rate(contracts, ["s.out -> p.in"], "p.out")
        assert refused.value.hint == "correct rate_hz, consumes or emits"


def test_a_cycle_without_delay_is_an_error_of_this_project() -> None:
    pipe = aim("P", ("in",), ("out",))
    with pytest.raises(CyclicTopology, match="cycle without delay: "):
        derive_rates({"a": pipe, "b": pipe}, [channel("a.out -> b.in"), channel("b.out -> a.in")])


def test_invocations_of_a_source_follow_from_its_outputs() -> None:
    contracts = {"s": aim("S", (), (port("a", OUT, rate_hz=10.0, emits=5.0), port("b", OUT, rate_hz=2.0)))}
    assert invocation_rates(contracts, [], derive_rates(contracts, [])) == {"s": 2.0}
    silent = {"s": aim("S", (), (port("a", OUT, rate_hz=10.0, emits=0.0),))}
    assert invocation_rates(silent, [], derive_rates(silent, [])) == {"s": 0.0}


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 5)), min_size=1, max_size=8), st.integers(1, 1000)
)
def test_records_are_conserved_along_a_row(steps: list[tuple[int, int]], hz: int) -> None:
    contracts = {"s": source(float(hz))}
    channels, at, expected = [], "s.out", float(hz)
    for n, (consumes, emits) in enumerate(steps):
        inputs, outputs = (port("in", IN, consumes=float(consumes)),), (port("out", OUT, emits=float(emits)),)
        contracts[f"a{n}"] = aim("A", inputs, outputs)
        channels.append(f"{at} -> a{n}.in")
        at, expected = f"a{n}.out", expected / consumes * emits
    assert rate(contracts, channels, at) == pytest.approx(expected)
