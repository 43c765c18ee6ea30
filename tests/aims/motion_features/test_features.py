from __future__ import annotations

import math
from itertools import combinations, pairwise
from statistics import fmean, pstdev

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aims.motion_features.features import (
    FEATURE_NAMES,
    FEATURES,
    SAMPLE_SCALE,
    SCALE,
    ZERO_POINT,
    describe,
    encode,
    motion_features,
)

Window = npt.NDArray[np.int16]
WINDOWS = hnp.arrays(np.int16, (100, 6), elements=st.integers(-(2**15), 2**15 - 1), fill=st.integers(-9, 9))


def by_the_book(window: Window) -> list[float]:
    """The same features from their definitions, one value at a time."""
    axes = [[int(v) * SAMPLE_SCALE for v in column] for column in window.T]
    means, spreads = [fmean(a) for a in axes], [pstdev(a) for a in axes]
    raw = [[int(v) for v in column] for column in window.T]
    features = [*means, *spreads, *map(min, axes), *map(max, axes)]
    for a in raw:
        above = [100 * v >= sum(a) for v in a]
        features.append(sum(p != q for p, q in pairwise(above)) / 99)
    for i, j in combinations(range(6), 2):
        products = [(p - means[i]) * (q - means[j]) for p, q in zip(axes[i], axes[j], strict=True)]
        features.append(fmean(products) / ((spreads[i] + 0.02) * (spreads[j] + 0.02)))
    turning = [abs(x) + abs(y) + abs(z) for x, y, z in zip(*axes[3:], strict=True)]
    moving = [abs(x) + abs(y) + abs(z) for x, y, z in zip(*axes[:3], strict=True)]
    features += [fmean(turning), pstdev(turning), pstdev(moving)]
    features += [math.sqrt(fmean(abs(q - p) for p, q in pairwise(a))) for a in axes[:3]]
    features += [means[n] - fmean(axes[n][:50]) for n in range(3)]
    return features


@settings(max_examples=30, deadline=None)
@given(WINDOWS)
def test_features_follow_their_definitions(window: Window) -> None:
    assert describe(window) == pytest.approx(by_the_book(window), rel=1e-9, abs=1e-6)


def test_there_is_a_name_for_every_feature() -> None:
    assert len(set(FEATURE_NAMES)) == FEATURES == 54
    assert motion_features(np.zeros((100, 6), np.int16)).shape == (54,)


@pytest.mark.parametrize("value", [-(2**15), 0, 2**15 - 1])
def test_extreme_windows_stay_finite(value: int) -> None:
    still = np.full((100, 6), value, np.int16)
    wild = still.copy()
    wild[::2] = -value - 1
    for window in (still, wild):
        assert np.isfinite(describe(window)).all()
        assert motion_features(window).dtype == np.int8
    named = dict(zip(FEATURE_NAMES, describe(still), strict=True))
    assert named["mean_ax"] == value / 1024
    assert named["std_ax"] == named["crossings_wz"] == named["correlation_ax_ay"] == 0.0


def test_the_other_arm_only_changes_signs() -> None:
    """Axis x is along the forearm: mirroring negates ax, wy and wz, and swaps their minima and maxima."""
    window = np.random.default_rng(0).integers(-2000, 2000, (100, 6)).astype(np.int16)
    here = dict(zip(FEATURE_NAMES, describe(window), strict=True))
    there = dict(
        zip(FEATURE_NAMES, describe(window * np.array([-1, 1, 1, 1, -1, -1], np.int16)), strict=True)
    )
    for name, value in here.items():
        kind, axes = name.split("_", 1)
        flips = sum(axes.count(axis) for axis in ("ax", "wy", "wz"))
        if kind in {"mean", "correlation", "trend"}:
            assert there[name] == pytest.approx(value * (-1) ** flips)
        elif kind in {"min", "max"} and flips:
            assert there[("max_" if kind == "min" else "min_") + axes] == -value
        elif kind != "crossings":
            assert there[name] == pytest.approx(value)


def test_the_coding_is_the_declared_quantisation() -> None:
    values = np.linspace(-20, 20, 4001)[:, None] * np.ones(54)
    codes = encode(values).astype(np.int64)
    assert codes.min() == -128
    assert codes.max() == 127
    assert (np.diff(codes, axis=0) >= 0).all()
    inside = (codes > -128) & (codes < 127)
    spread = 40 / 4000 / np.where(inside[1:] & inside[:-1], 1, np.nan)
    steps_per_unit = np.nansum(np.diff(codes, axis=0) * (spread > 0), axis=0) / np.nansum(spread, axis=0)
    assert (steps_per_unit > 10).all()  # no feature has a step coarser than a tenth of its unit
    assert (SCALE, ZERO_POINT) == (1 / 32, -128)


def test_the_same_bytes_everywhere() -> None:
    """A vector for other implementations (C): any machine, any compiler, the same 54 bytes."""
    t = np.arange(100)[:, None]
    n = np.arange(1, 7)[None, :]
    window = ((t * t * n * 37 + t * n * n * 211) % 4001 - 2000).astype(np.int16)
    assert motion_features(window).tobytes().hex() == VECTOR


VECTOR = (
    "03e8ee0b07fd7f7f7f27f31ac28084f80ee83d4b6dfff1177f7f7f"
    "7f7f7f0207ebf010f6e709f7080802fb0ff10af67f7f7f7f211800"
)


@pytest.mark.parametrize(
    "window",
    [np.zeros((99, 6), np.int16), np.zeros((100, 5), np.int16), np.zeros((100, 6)), np.zeros(600, np.int16)],
)
def test_windows_of_another_shape_or_type_are_refused(window: Window) -> None:
    with pytest.raises(ValueError, match=r"a motion window is int16\[100\]\[6\], got "):
        describe(window)
