"""A better plan moves AIMs when it is worth it, and not before they have stayed for a while."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aif.runtime.mapping.worth import LEAST_SAVED, REPAID_S, Dwell, Gain


def test_a_plan_must_save_a_twentieth() -> None:
    assert Gain(1.0, 0.951, 1.0).refusal().startswith("it saves 4.9%")
    assert Gain(1.0, 0.949, 1.0).refusal() == ""
    assert Gain(0.0, 0.0, 0.0).refusal()
    assert Gain(1.0, 1.5, 0.0).saved == 0.0


def test_a_pause_must_be_repaid_in_ten_minutes() -> None:
    assert Gain(1.0, 0.9, 59.0).refusal() == ""
    assert "61 s of pause" in Gain(1.0, 0.9, 61.0).refusal()


def test_what_does_not_hold_any_more_is_left_whatever_it_costs() -> None:
    gain = Gain(None, 9.0, 1e6)
    assert gain.needed
    assert gain.refusal() == ""
    assert "does not keep its limits" in str(gain)


@given(st.floats(0.0, 1e9), st.floats(0.0, 1e9), st.floats(0.0, 1e6))
def test_there_and_back_is_never_worth_it_twice(before: float, after: float, pause_s: float) -> None:
    """No two plans are each better than the other, so that nothing moves between two of them for ever."""
    there, back = Gain(before, after, pause_s), Gain(after, before, pause_s)
    assert there.refusal() or back.refusal()
    assert 0.0 <= there.saved <= 1.0


def test_gains_say_their_figures() -> None:
    assert str(Gain(2.0, 1.0, 3.0)) == "saves 50% of the objective (2 to 1), costs 3.0 s of pause"
    assert LEAST_SAVED * REPAID_S == 30.0


def test_an_aim_stays_for_its_dwell() -> None:
    dwell = Dwell(30_000.0)
    assert dwell.until_ms(["a", "b"]) < 0.0
    dwell.came(["a"], 1_000.0)
    dwell.came(["b"], 5_000.0)
    assert dwell.until_ms(["a"]) == 31_000.0
    assert dwell.until_ms(["a", "b", "c"]) == 35_000.0
    assert dwell.until_ms([]) == 0.0
