"""Float networks as lists of layers: the reference that an int8 model is measured against.

Decides: which layers a model may be made of, what each computes, its output shape and its cost.
Does not: train (weights come from scikit-learn, numpy or elsewhere) or quantise (``int8``).

Invariants: a layer is an immutable value; one example is (N,) or (T, C), a batch adds a first axis;
``shapes`` refuses a list of layers that do not fit each other before anything is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from aif.errors import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """``y = x @ weights + bias``, then ReLU if wanted. Weights (inputs, outputs), bias (outputs,)."""

    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    relu: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Conv1D:
    """Convolution over time with SAME padding. Weights (kernel, channels in, channels out)."""

    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    stride: int = 1
    relu: bool = True


@dataclass(frozen=True, slots=True)
class AveragePool1D:
    """Mean of ``size`` neighbours in time, without overlap; what is left over at the end is dropped."""

    size: int


@dataclass(frozen=True, slots=True)
class MaxPool1D:
    """Largest of ``size`` neighbours in time, without overlap; what is left over at the end is dropped."""

    size: int


@dataclass(frozen=True, slots=True)
class GlobalAveragePool:
    """Mean over all of time: (T, C) becomes (C,)."""


@dataclass(frozen=True, slots=True)
class Flatten:
    """(T, C) becomes (T * C,), time first."""


@dataclass(frozen=True, slots=True)
class Softmax:
    """Probabilities over the last axis."""


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """``1 / (1 + exp(-x))``."""


Layer = Dense | Conv1D | AveragePool1D | MaxPool1D | GlobalAveragePool | Flatten | Softmax | Sigmoid


def dense_stack(
    weights: Sequence[npt.NDArray[np.float64]], biases: Sequence[npt.NDArray[np.float64]]
) -> list[Layer]:
    """Dense layers with ReLU between them, e.g. from ``coefs_`` and ``intercepts_`` of a scikit-learn MLP."""
    last = len(weights) - 1
    return [Dense(w, b, relu=n < last) for n, (w, b) in enumerate(zip(weights, biases, strict=True))]


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """Output length and padding before and after, as SAME padding of TensorFlow Lite defines them."""
    out = -(-length // stride)
    pad = max((out - 1) * stride + kernel - length, 0)
    return out, pad // 2, pad - pad // 2


def shapes(layers: Sequence[Layer], input_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shape of one example after every layer.

    Raises:
        ModelError: a layer that does not fit what comes before it, named by its number.
    """
    if len(input_shape) not in (1, 2) or not layers:
        raise ModelError("a network takes (N,) or (T, C) and has at least one layer")
    found, shape = [], input_shape
    for number, layer in enumerate(layers):
        where = f"layer {number} ({type(layer).__name__})"
        shape = _next_shape(layer, shape, where)
        found.append(shape)
    return found


def _next_shape(layer: Layer, shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    match layer:
        case Dense(weights=weights, bias=bias):
            _needs_dimensions(where, shape, 1)
            _check_parameters(where, weights, bias, inner=shape)
            return (weights.shape[1],)
        case Conv1D(weights=weights, bias=bias, stride=stride):
            _needs_dimensions(where, shape, 2)
            _check_parameters(where, weights, bias, inner=(weights.shape[0], shape[1]))
            if stride < 1:
                raise ModelError(f"{where}: stride {stride} is not positive")
            return (same_padding(shape[0], weights.shape[0], stride)[0], weights.shape[2])
        case AveragePool1D(size=size) | MaxPool1D(size=size):
            _needs_dimensions(where, shape, 2)
            if not 1 <= size <= shape[0]:
                raise ModelError(f"{where}: size {size} does not fit {shape[0]} steps of time")
            return (shape[0] // size, shape[1])
        case GlobalAveragePool():
            _needs_dimensions(where, shape, 2)
            return (shape[1],)
        case Flatten():
            return (prod(shape),)
        case Softmax() | Sigmoid():
            _needs_dimensions(where, shape, 1)
            return shape


def _needs_dimensions(where: str, shape: tuple[int, ...], count: int) -> None:
    if len(shape) != count:
        hint = "put Flatten or GlobalAveragePool before it" if count == 1 else "it works on (T, C)"
        raise ModelError(f"{where}: an input of shape {shape} does not fit", hint=hint)


def _check_parameters(
    where: str, weights: npt.NDArray[Any], bias: npt.NDArray[Any], *, inner: tuple[int, ...]
) -> None:
    if weights.shape[:-1] != inner or bias.shape != weights.shape[-1:]:
        raise ModelError(f"{where}: weights {weights.shape} and bias {bias.shape} do not fit {inner}")
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise ModelError(f"{where}: a weight or bias is not a finite number")


def forward(layers: Sequence[Layer], examples: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Output of the network for a batch: float64[n, ...] in, float64[n, ...] out."""
    return trace(layers, examples)[-1]


def trace(layers: Sequence[Layer], examples: npt.ArrayLike) -> list[npt.NDArray[np.float64]]:
    """Output of every layer for a batch of examples.

    Raises:
        ModelError: layers that do not fit.
    """
    values = np.asarray(examples, np.float64)
    shapes(layers, values.shape[1:])
    outputs = []
    for layer in layers:
        values = _apply(layer, values)
        outputs.append(values)
    return outputs


def _apply(layer: Layer, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    y: npt.NDArray[np.float64]
    match layer:
        case Dense(weights=weights, bias=bias, relu=relu):
            y = x @ weights + bias
            return np.maximum(y, 0.0) if relu else y
        case Conv1D(weights=weights, bias=bias, stride=stride, relu=relu):
            kernel = weights.shape[0]
            out, before, after = same_padding(x.shape[1], kernel, stride)
            padded = np.pad(x, ((0, 0), (before, after), (0, 0)))
            steps = [
                np.tensordot(padded[:, t * stride : t * stride + kernel], weights, ([1, 2], [0, 1]))
                for t in range(out)
            ]
            y = np.stack(steps, axis=1) + bias
            return np.maximum(y, 0.0) if relu else y
        case AveragePool1D(size=size):
            y = _grouped(x, size).mean(2)
            return y
        case MaxPool1D(size=size):
            y = _grouped(x, size).max(2)
            return y
        case GlobalAveragePool():
            y = x.mean(1)
            return y
        case Flatten():
            return x.reshape(len(x), -1)
        case Softmax():
            e = np.exp(x - x.max(-1, keepdims=True))
            y = e / e.sum(-1, keepdims=True)
            return y
        case Sigmoid():
            y = 1.0 / (1.0 + np.exp(-x))
            return y


def _grouped(x: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    steps = x.shape[1] // size
    return x[:, : steps * size].reshape(len(x), steps, size, x.shape[2])


def mac_count(layers: Sequence[Layer], input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulate operations of one inference (dense and convolution; the rest is not counted)."""
    total = 0
    for layer, shape in zip(layers, shapes(layers, input_shape), strict=True):
        match layer:
            case Dense(weights=weights):
                total += weights.size
            case Conv1D(weights=weights):
                total += weights.size * shape[0]
    return total
