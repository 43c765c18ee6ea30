"""Features of one two-second motion window, as the ``MotionFeatures`` AIM computes them.

Decides: which 54 numbers describe a window of six-axis motion, their order, and their int8 coding.
Does not: learn anything from data at run time, keep state between windows, or know any model.

Invariants:
    * Sums run over integers, so they do not depend on the order of summation; after them only the
      correctly rounded operations of IEEE 754 (``+ - * /`` and square root, binary64) are used. The same
      samples therefore give the same bytes on every machine, and in C.
    * The coding (``SCALE``, ``ZERO_POINT``) is the input quantisation of every model trained on it.
    * No handedness is assumed: windows of both arms are described as they were measured.
"""

from __future__ import annotations

from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ: Final = 50
"""Samples per second of the sensor."""
WINDOW_SAMPLES: Final = 100
"""Samples of one window (two seconds)."""
AXES: Final = ("ax", "ay", "az", "wx", "wy", "wz")
"""Columns of a window: acceleration in g, then angular rate in rad/s."""
SAMPLE_SCALE: Final = 1 / 1024
"""Physical units per least significant bit of a sample: 0.98 mg, 0.98 mrad/s; range +-32 g, +-32 rad/s."""

SCALE: Final = 1 / 32
"""Step of the int8 coding, in units of a feature's own spread."""
ZERO_POINT: Final = -128
"""Code of the value 0, which stands for 4 spreads below the centre; the largest is 3.97 spreads above it.

Values from 0 on let models with such outputs (an autoencoder) give equal bytes in every engine.
"""
_CENTRE_VALUE: Final = 4.0

_PAIRS: Final = tuple(combinations(range(len(AXES)), 2))
_ACTIVITY: Final = ("gyroscope_mean", "gyroscope_std", "accelerometer_std")

FEATURE_NAMES: Final = (
    *(f"mean_{axis}" for axis in AXES),
    *(f"std_{axis}" for axis in AXES),
    *(f"min_{axis}" for axis in AXES),
    *(f"max_{axis}" for axis in AXES),
    *(f"crossings_{axis}" for axis in AXES),
    *(f"correlation_{AXES[i]}_{AXES[j]}" for i, j in _PAIRS),
    *(f"activity_{name}" for name in _ACTIVITY),
    *(f"change_{axis}" for axis in AXES[:3]),
    *(f"trend_{axis}" for axis in AXES[:3]),
)
FEATURES: Final = len(FEATURE_NAMES)
"""Length of a feature vector."""

# (centre, spread) of every feature, in its own unit, in the order of FEATURE_NAMES: mean and standard
# deviation over known motions of both arms, rounded. They only spread the 256 codes sensibly over the values.
_CODING: Final = np.array(
    [
        # mean, g and rad/s
        *((0.0, 0.7), (0.5, 0.4), (-0.1, 0.25), (0.0, 0.2), (0.0, 0.3), (0.0, 0.15)),
        # std, g and rad/s
        *((0.2, 0.16), (0.16, 0.08), (0.25, 0.18), (0.7, 0.4), (1.6, 1.2), (0.8, 0.4)),
        # min, g and rad/s
        *((-0.4, 0.8), (0.15, 0.5), (-0.6, 0.35), (-1.7, 1.0), (-2.8, 2.0), (-1.4, 0.75)),
        # max, g and rad/s
        *((0.4, 0.8), (0.85, 0.45), (0.4, 0.45), (1.9, 1.0), (2.8, 2.0), (1.4, 0.75)),
        # crossings of the mean, per step between samples
        *((0.08, 0.06), (0.15, 0.08), (0.1, 0.06), (0.17, 0.08), (0.05, 0.04), (0.06, 0.04)),
        # correlation, ratio
        *((0.0, 0.3), (0.0, 0.5), (0.0, 0.3), (0.0, 0.25), (-0.1, 0.3), (0.0, 0.35), (0.05, 0.2), (0.0, 0.3)),
        *((0.0, 0.2), (0.0, 0.2), (0.0, 0.15), (0.0, 0.35), (0.0, 0.5), (0.0, 0.4), (0.05, 0.6)),
        # activity, rad/s, rad/s, g
        *((2.6, 1.2), (1.3, 0.8), (0.25, 0.15)),
        # change, square root of g per step
        *((0.2, 0.06), (0.24, 0.07), (0.23, 0.07)),
        # trend, g
        *((0.0, 0.1), (0.0, 0.05), (0.0, 0.1)),
    ],
    dtype=np.float64,
)
_CORRELATION_FLOOR: Final = 0.02
"""Added to both standard deviations (g or rad/s), so that two silent axes correlate by 0, not by noise."""


def describe(window: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    """The features of one window, in physical units.

    Args:
        window: int16[100][6], columns as ``AXES``, one unit is ``SAMPLE_SCALE`` g or rad/s.

    Returns:
        float64[54] in the order of ``FEATURE_NAMES``. *crossings* counts how often an axis crosses its own
        mean, per step; *activity* is mean and standard deviation of the sum of the three absolute values;
        *change* is the square root of the mean absolute step; *trend* is the mean of the whole window minus
        the mean of its first half.

    Raises:
        ValueError: the window has another shape or type.
    """
    if window.shape != (WINDOW_SAMPLES, len(AXES)) or window.dtype != np.int16:
        raise ValueError(
            f"a motion window is int16[{WINDOW_SAMPLES}][{len(AXES)}], got {window.dtype}{list(window.shape)}"
        )
    n = WINDOW_SAMPLES
    x = window.astype(np.int64)  # sums of products stay below 2**44: int64 holds them exactly
    total = x.sum(0)
    covariance = n * (x.T @ x) - np.outer(total, total)  # n**2 times the covariance, in squared LSB
    deviation = np.sqrt(covariance.diagonal().astype(np.float64))  # n times the standard deviation, in LSB
    above = n * x >= total
    crossings = (above[1:] != above[:-1]).sum(0)
    first, second = np.array(_PAIRS).T
    floored = deviation + _CORRELATION_FLOOR / SAMPLE_SCALE * n
    turning = np.abs(x[:, 3:]).sum(1)
    moving = np.abs(x[:, :3]).sum(1)
    steps = np.abs(np.diff(x[:, :3], axis=0)).sum(0)
    return np.concatenate(
        [
            total / n * SAMPLE_SCALE,
            deviation / n * SAMPLE_SCALE,
            x.min(0) * SAMPLE_SCALE,
            x.max(0) * SAMPLE_SCALE,
            crossings / (n - 1),
            covariance[first, second] / (floored[first] * floored[second]),
            [turning.sum() / n * SAMPLE_SCALE, _spread(turning), _spread(moving)],
            np.sqrt(steps / (n - 1) * SAMPLE_SCALE),
            (total - 2 * x[: n // 2].sum(0))[:3] / n * SAMPLE_SCALE,
        ]
    )


def encode(features: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Code features (float64[..., 54]) as int8[..., 54]: the value ``(f - centre) / spread + 4``, quantised.

    Rounding is to the nearest, ties to even (IEEE 754 roundToIntegralTiesToEven, ``nearbyint`` in C).
    """
    values = (features - _CODING[:, 0]) / _CODING[:, 1] + _CENTRE_VALUE
    steps = np.rint(values / SCALE) + ZERO_POINT
    coded: npt.NDArray[np.int8] = np.clip(steps, -128, 127).astype(np.int8)
    return coded


def motion_features(window: npt.NDArray[np.int16]) -> npt.NDArray[np.int8]:
    """What the AIM does with one window: int16[100][6] in, int8[54] out."""
    return encode(describe(window))


def _spread(values: npt.NDArray[np.int64]) -> float:
    """Standard deviation of whole numbers in LSB, as physical units (g or rad/s)."""
    n, total = len(values), int(values.sum())
    return float(np.sqrt(float(n * int((values * values).sum()) - total * total)) / n * SAMPLE_SCALE)
