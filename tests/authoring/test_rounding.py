from __future__ import annotations

import numpy as np

from aif.authoring.layers import Conv1D, Dense, Flatten, Layer, Sigmoid, Softmax, forward, trace
from aif.authoring.rounding import without_negative_sums

RNG = np.random.default_rng(11)


def dense(inputs: int, outputs: int, *, relu: bool = False) -> Dense:
    return Dense(RNG.normal(size=(inputs, outputs)), RNG.normal(size=outputs), relu)


def test_inner_layers_are_shifted_and_the_outputs_stay() -> None:
    x = RNG.normal(size=(50, 6))
    layers: list[Layer] = [dense(6, 5), dense(5, 4, relu=True), dense(4, 4), dense(4, 3), Softmax()]
    found = without_negative_sums(layers, x)
    assert np.allclose(forward(found, x), forward(layers, x))
    assert all(values.min() >= -1e-9 for values in trace(found, x))
    assert min(values.min() for values in trace(layers, x)) < -1


def test_what_means_something_to_others_is_left_alone() -> None:
    x = RNG.normal(size=(50, 4, 2))
    convolution = Conv1D(RNG.normal(size=(3, 2, 2)), np.zeros(2), relu=False)
    layers: list[Layer] = [convolution, Flatten(), dense(8, 2), Sigmoid()]
    assert without_negative_sums(layers, x) == layers
    assert without_negative_sums([layers[2]], RNG.normal(size=(5, 8))) == [layers[2]]
