"""Good or bad: nothing changes for one window, and nothing changes back and forth for long."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from aif.runtime.devices.conditions import (
    CHARGED,
    QUICK,
    RETURN_FIRST_MS,
    RETURN_MOST_MS,
    SLOW,
    WINDOWS,
    Condition,
    stays_away_ms,
)
from aif.runtime.devices.liveness import FORGOTTEN_MS

WINDOW_MS = 4_000.0


def changes(figures: Iterable[float], *, condition: Condition | None = None) -> list[tuple[float, bool]]:
    """When a link with these figures (times its planned one) changed, window by window, and to what."""
    condition = condition or Condition()
    found, now_ms = [], 0.0
    for figure in figures:
        now_ms += WINDOW_MS
        if condition.see(now_ms, worse=figure > SLOW, better=figure < QUICK):
            found.append((now_ms, condition.bad))
    return found


def test_three_windows_make_it_bad_and_three_make_it_good_again() -> None:
    assert changes([2.0] * (WINDOWS - 1) + [1.0] + [2.0] * (WINDOWS - 1)) == []
    turned = changes([2.0] * WINDOWS + [1.0] * 20)
    assert [bad for _, bad in turned] == [True, False]
    assert turned[0][0] == WINDOWS * WINDOW_MS
    assert turned[1][0] - turned[0][0] >= RETURN_FIRST_MS


def test_between_the_marks_everything_stays_as_it_is() -> None:
    between = (SLOW + QUICK) / 2
    assert changes([between] * 1000) == []
    assert changes([2.0] * WINDOWS + [between] * 1000) == [(WINDOWS * WINDOW_MS, True)]


def test_noise_around_a_mark_changes_nothing_that_three_windows_do_not_say() -> None:
    rng = random.Random(7)
    noisy = [1.35 + rng.choice((-0.1, 0.1)) for _ in range(5_000)]
    assert changes(noisy) == []
    spikes = [9.0 if n % 3 == 0 else 1.0 for n in range(5_000)]
    assert changes(spikes) == []


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from((0.5, 1.0, 1.3, 1.6, 5.0)), max_size=2_000))
def test_whatever_comes_it_changes_seldom(figures: list[float]) -> None:
    turned = changes(figures)
    passed_ms = len(figures) * WINDOW_MS
    bad = sum(to_bad for _, to_bad in turned)
    in_a_row = math.log2(1.0 + passed_ms / RETURN_FIRST_MS)
    assert bad <= 1 + in_a_row + passed_ms / min(FORGOTTEN_MS, RETURN_MOST_MS)
    assert abs(2 * bad - len(turned)) <= 1
    for (bad_ms, was_bad), (good_ms, _) in zip(turned[::2], turned[1::2], strict=False):
        assert was_bad
        assert good_ms - bad_ms >= RETURN_FIRST_MS


def test_a_link_that_flaps_all_day_changes_a_few_dozen_times() -> None:
    """A trace as of a train that passes every two minutes: a minute bad, a minute good."""
    windows = int(60_000 / WINDOW_MS)
    day = ([4.0] * windows + [1.0] * windows) * (24 * 30)
    turned = changes(day)
    assert len(turned) <= 2 * (7 + 24 * 2 + 1)
    assert len(turned) >= 10


def test_what_stayed_good_for_long_has_no_past() -> None:
    condition = Condition()
    quiet = int(FORGOTTEN_MS / WINDOW_MS) + 20
    changes([2.0] * WINDOWS + [1.0] * quiet, condition=condition)
    assert (condition.bad, condition.spells.times) == (False, 1)
    first_ms = (WINDOWS + quiet) * WINDOW_MS
    for n in range(1, WINDOWS + 1):
        condition.see(first_ms + n * WINDOW_MS, worse=True, better=False)
    assert (condition.bad, condition.spells.times) == (True, 1)


def test_the_time_away_doubles_up_to_the_most() -> None:
    assert [stays_away_ms(n) for n in range(4)] == [
        0.0, RETURN_FIRST_MS, 2 * RETURN_FIRST_MS, 4 * RETURN_FIRST_MS,
    ]  # fmt: skip
    assert stays_away_ms(1000) == RETURN_MOST_MS


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-0.04, 0.04), min_size=1, max_size=2_000), st.floats(0.1, 0.9))
def test_a_battery_that_hovers_at_its_mark_is_low_once(noise: list[float], mark: float) -> None:
    """A gauge that errs by less than the distance of the marks never says that it was charged."""
    condition = Condition()
    turned = [
        condition.bad
        for n, error in enumerate(noise)
        if condition.see(n * 1_000.0, worse=mark + error < mark, better=mark + error > mark + CHARGED)
    ]
    assert turned in ([], [True])
