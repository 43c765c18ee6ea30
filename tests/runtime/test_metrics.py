from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.runtime.metrics import MAX_BUCKET, Histogram

durations = st.floats(1.0, 2.0**39)


@given(st.lists(durations, min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_is_within_two_per_cent_of_the_true_one(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    wanted = share * len(values)
    true = next(v for n, v in enumerate(sorted(values), 1) if n >= wanted)
    assert histogram.quantile(share) == pytest.approx(true, rel=0.02)


@given(st.lists(durations, max_size=20), st.lists(durations, max_size=20))
def test_merging_is_adding(first: list[float], second: list[float]) -> None:
    parts, whole = [Histogram(), Histogram()], Histogram()
    for part, values in zip(parts, (first, second), strict=True):
        for value in values:
            part.add(value)
            whole.add(value)
    parts[0].merge(parts[1])
    assert parts[0].plain() == whole.plain()
    assert parts[0].count == whole.count == len(first) + len(second)
    assert Histogram(whole.plain()).quantile(0.5) == whole.quantile(0.5)


def test_an_empty_histogram_says_zero() -> None:
    assert Histogram().quantile(0.5) == 0.0
    assert Histogram().plain() == {}


@pytest.mark.parametrize("value", [0.0, -5.0, 0.5, 1.0, math.nan, -math.inf])
def test_what_is_not_above_one_counts_as_one(value: float) -> None:
    histogram = Histogram()
    histogram.add(value)
    assert histogram.plain() == {0: 1}
    assert histogram.quantile(0.5) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("value", [2.0**40, 1e300, math.inf])
def test_what_is_very_long_counts_as_twelve_days(value: float) -> None:
    histogram = Histogram()
    histogram.add(value)
    assert histogram.plain() == {MAX_BUCKET: 1}
    assert math.isfinite(histogram.quantile(1.0))


def test_buckets_of_another_device_are_not_believed() -> None:
    histogram = Histogram({0: 2, MAX_BUCKET: 1, MAX_BUCKET + 1: 9, -1: 9, 10**9: 9, 5: -3, 6: 0})
    assert histogram.plain() == {0: 2, MAX_BUCKET: 1}
    assert histogram.count == 3
    assert math.isfinite(histogram.quantile(1.0))
