from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from aif.authoring.conversion import classification_accuracy, convert_checked
from aif.authoring.datasets import digits
from aif.authoring.layers import Dense, Layer
from aif.errors import ConversionRefused

pytestmark = pytest.mark.integration


Floats = npt.NDArray[np.float64]


def least_squares_digits() -> tuple[list[Layer], Floats, Floats, npt.NDArray[np.int64]]:
    x, y = digits()
    train, test = slice(0, 1200), slice(1200, None)
    with_one = np.c_[x[train], np.ones(1200)]
    ridge = with_one.T @ with_one + 5.0 * np.eye(65)
    solution = np.linalg.solve(ridge, with_one.T @ np.eye(10)[y[train]])
    return [Dense(solution[:-1], solution[-1])], x[train], x[test], y[test]


def test_an_int8_model_is_measured_in_its_own_arena() -> None:
    layers, train, test, labels = least_squares_digits()
    made = convert_checked(layers, train, test, classification_accuracy(labels), name="digits")
    report = made.report
    assert report.accuracy_float > 0.88
    assert abs(report.accuracy_float - report.accuracy_int8) <= 0.01
    assert report.examples == len(test) == 597
    assert report.mac_count == 640
    assert 512 < report.smallest_arena_bytes < report.arena_bytes < 4096
    assert made.test_outputs.shape == (597, 10)
    assert len(made.tflite) < 3000
    assert made.inputs.shape == (1, 64)


def test_a_model_that_lost_too_much_is_refused() -> None:
    """One outlier in the representative sample leaves all other inputs a few steps of resolution."""
    layers, train, test, labels = least_squares_digits()
    spoilt = np.concatenate([train, np.full((1, 64), 200.0)])
    with pytest.raises(
        ConversionRefused, match=r"^digits: int8 accuracy is 0\.\d{3}, float 0\.\d{3}"
    ) as caught:
        convert_checked(layers, spoilt, test, classification_accuracy(labels), name="digits")
    assert "more than 0.01 lost" in str(caught.value)
    assert "train with clipped inputs" in caught.value.hint


def test_the_limit_is_the_callers() -> None:
    layers, train, test, labels = least_squares_digits()
    spoilt = np.concatenate([train, np.full((1, 64), 200.0)])
    made = convert_checked(layers, spoilt, test, classification_accuracy(labels), name="digits", max_loss=1.0)
    assert made.report.accuracy_int8 < made.report.accuracy_float - 0.01


def test_accuracy_of_one_output_is_a_threshold() -> None:
    accuracy = classification_accuracy(np.array([0, 1, 1, 0]))
    assert accuracy(np.array([[0.1], [0.9], [0.4], [0.5]])) == 0.75
    assert accuracy(np.array([[1.0, 0], [0, 1.0], [0, 1.0], [0, 1.0]])) == 0.75
