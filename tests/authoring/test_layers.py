from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.authoring.layers import (
    AveragePool1D,
    Conv1D,
    Dense,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool1D,
    Sigmoid,
    Softmax,
    dense_stack,
    forward,
    mac_count,
    same_padding,
    shapes,
)
from aif.errors import ModelError

RNG = np.random.default_rng(0)


def test_dense_and_activations_by_hand() -> None:
    layers: list[Layer] = [Dense(np.array([[1.0, -2.0]]), np.array([0.0, 1.0]), relu=True), Softmax()]
    (found,) = forward(layers, [[2.0]])
    assert found == pytest.approx([np.exp(2) / (np.exp(2) + 1), 1 / (np.exp(2) + 1)])
    assert forward([Sigmoid()], [[0.0]]) == pytest.approx(np.array([[0.5]]))


def test_convolution_with_same_padding_by_hand() -> None:
    kernel = np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1)
    x = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1)
    (one,) = forward([Conv1D(kernel, np.zeros(1))], x)
    assert one.ravel().tolist() == [210.0, 321.0, 432.0, 43.0]
    (two,) = forward([Conv1D(kernel, np.array([-322.0]), stride=2)], x)  # pads only behind, then ReLU
    assert two.ravel().tolist() == [0.0, 0.0]
    (raw,) = forward([Conv1D(kernel, np.zeros(1), stride=2, relu=False)], x)
    assert raw.ravel().tolist() == [321.0, 43.0]


def test_pools_by_hand() -> None:
    x = np.array([[1.0, 5.0], [3.0, -1.0], [2.0, 2.0], [0.0, 4.0], [9.0, 9.0]])[None]
    assert forward([MaxPool1D(2)], x)[0].tolist() == [[3.0, 5.0], [2.0, 4.0]]
    assert forward([AveragePool1D(2)], x)[0].tolist() == [[2.0, 2.0], [1.0, 3.0]]
    assert forward([GlobalAveragePool()], x)[0].tolist() == [3.0, 3.8]
    assert forward([Flatten()], x)[0].tolist() == x.ravel().tolist()


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5))
def test_same_padding_covers_every_step(length: int, kernel: int, stride: int) -> None:
    out, before, after = same_padding(length, kernel, stride)
    assert out == -(-length // stride)
    assert 0 <= after - before <= 1
    assert (out - 1) * stride + kernel <= length + before + after


def test_shapes_and_cost() -> None:
    layers: list[Layer] = [
        Conv1D(np.zeros((3, 6, 8)), np.zeros(8), stride=2),
        MaxPool1D(2),
        Flatten(),
        Dense(np.zeros((200, 4)), np.zeros(4)),
    ]
    assert shapes(layers, (100, 6)) == [(50, 8), (25, 8), (200,), (4,)]
    assert mac_count(layers, (100, 6)) == 3 * 6 * 8 * 50 + 200 * 4


def test_a_stack_has_relu_between_layers_only() -> None:
    stack = dense_stack([np.ones((2, 3)), np.ones((3, 1))], [np.zeros(3), np.zeros(1)])
    assert [layer.relu for layer in stack if isinstance(layer, Dense)] == [True, False]


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ([], (4,), "at least one layer"),
        ([Flatten()], (), "takes"),
        ([Dense(np.zeros((3, 2)), np.zeros(2))], (4,), r"layer 0 \(Dense\): weights \(3, 2\)"),
        ([Dense(np.zeros((4, 2)), np.zeros(3))], (4,), "do not fit"),
        ([Dense(np.zeros((6, 2)), np.zeros(2))], (4, 6), "does not fit"),
        ([Softmax()], (4, 6), "does not fit"),
        ([Dense(np.full((4, 2), np.nan), np.zeros(2))], (4,), "not a finite number"),
        ([Dense(np.zeros((4, 2)), np.full(2, np.inf))], (4,), "not a finite number"),
        ([Conv1D(np.zeros((3, 6, 8)), np.zeros(8))], (6,), "does not fit"),
        ([Conv1D(np.zeros((3, 5, 8)), np.zeros(8))], (9, 6), "do not fit"),
        ([Conv1D(np.zeros((3, 6, 8)), np.zeros(8), stride=0)], (9, 6), "stride 0"),
        ([Flatten(), GlobalAveragePool()], (9, 6), r"layer 1 \(GlobalAveragePool\)"),
        ([MaxPool1D(10)], (9, 6), "size 10 does not fit 9"),
        ([AveragePool1D(0)], (9, 6), "size 0"),
    ],
)
def test_layers_that_do_not_fit_are_named(layers: list[Layer], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        shapes(layers, shape)
