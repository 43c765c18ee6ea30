"""Float layers to a fully quantised int8 .tflite file, without TensorFlow.

Decides: the quantisation scheme and which operators a layer becomes. Does not: measure what was lost
(``conversion``), or write the file format (``flatbuffer``).

Scheme (TensorFlow Lite 8-bit quantisation specification): activations int8 per tensor, asymmetric, range of a
representative sample extended to contain 0; dense weights int8 per tensor and convolution weights per output
channel, symmetric in -127..127; bias int32 with scale ``input * weight``; pools and reshapes keep the scale
of their input; softmax and sigmoid have scale 1/256 and zero point -128, as their kernels require. Inner
linear layers are shifted so that engines agree bit by bit (``rounding``).

Invariants: scales are rounded to float32 *before* they are multiplied, because the file stores float32 and
strict importers demand that bias scale == input scale * weight scale of the stored values; the same layers
and sample give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from aif.authoring.flatbuffer import Activation, FlatbufferWriter, Padding
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
    trace,
)
from aif.authoring.rounding import without_negative_sums
from aif.errors import ModelError

_SMALLEST_SCALE = 1e-8
_INT32_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Quantisation:
    """int8 coding of a tensor: real value = ``(code - zero_point) * scale``. The scale is kept as float32."""

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", float(np.float32(self.scale)))
        if not (isfinite(self.scale) and self.scale > 0 and -128 <= self.zero_point <= 127):
            raise ModelError(f"scale {self.scale} and zero point {self.zero_point} are no int8 quantisation")

    @classmethod
    def of_range(cls, values: npt.NDArray[np.float64]) -> Quantisation:
        """The finest coding that holds all ``values`` and 0."""
        low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
        scale = float(np.float32(max((high - low) / 255, _SMALLEST_SCALE)))
        return cls(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


PROBABILITY = Quantisation(1 / 256, -128)
"""Coding that the softmax and sigmoid kernels require of their output."""


def build(
    layers: Sequence[Layer],
    representative: npt.ArrayLike,
    *,
    input_quantisation: Quantisation | None = None,
    output_quantisation: Quantisation | None = None,
    description: str = "",
) -> bytes:
    """Write an int8 model.

    Args:
        layers: the network; see ``layers`` for what fits what.
        representative: float[n, N] or float[n, T, C], inputs as they occur; ranges are taken from them.
        input_quantisation: coding of the input, where a port already fixes it; else from the sample.
        output_quantisation: coding of the output, likewise; the last layer is dense or a convolution.
        description: text stored in the file.

    Returns:
        The bytes of a .tflite file with one input (1, N) or (1, T, C) and one output (1, K).

    Raises:
        ModelError: layers that do not fit each other or the sample, or numbers that cannot be coded.
    """
    sample = np.asarray(representative, np.float64)
    if sample.ndim not in (2, 3) or not len(sample) or not np.isfinite(sample).all():
        raise ModelError(
            "the representative sample must be finite numbers of shape (n, N) or (n, T, C), n > 0"
        )
    if output_quantisation is not None and layers and not isinstance(layers[-1], Dense | Conv1D):
        raise ModelError("only a dense or convolution layer can be given the coding of its output")
    builder = _Builder(description, sample, input_quantisation)
    layers = without_negative_sums(layers, sample)
    for number, (layer, values) in enumerate(zip(layers, trace(layers, sample), strict=True)):
        wanted = output_quantisation if number == len(layers) - 1 else None
        builder.add(
            f"{type(layer).__name__.lower()}_{number}", layer, wanted or Quantisation.of_range(values)
        )
    return builder.finish()


class _Builder:
    """Appends one layer after the other; ``_shape`` is the shape in the file, which has a batch of 1.

    From the first convolution or pool on, time is kept as (1, T, 1, C), as two-dimensional kernels want it.
    """

    def __init__(
        self, description: str, sample: npt.NDArray[np.float64], quantisation: Quantisation | None
    ) -> None:
        self._writer = FlatbufferWriter(description)
        self._shape: tuple[int, ...] = (1, *sample.shape[1:])
        self._coding = quantisation or Quantisation.of_range(sample)
        self._current = self._input = self._tensor("input", self._shape, self._coding)

    def finish(self) -> bytes:
        if len(self._shape) != 2:
            self._reshape("output", (1, int(np.prod(self._shape))))
        return self._writer.finish(self._input, self._current)

    def add(self, name: str, layer: Layer, coding: Quantisation) -> None:
        match layer:
            case Dense():
                self._dense(name, layer, coding)
            case Conv1D():
                self._convolution(name, layer, coding)
            case AveragePool1D(size=size) | MaxPool1D(size=size):
                self._as_image(name)
                self._pool(name, size, largest=isinstance(layer, MaxPool1D))
            case GlobalAveragePool():
                self._as_image(name)
                self._pool(name, self._shape[1], largest=False)
                self._reshape(f"{name}_flat", (1, self._shape[3]))
            case Flatten():
                self._reshape(name, (1, int(np.prod(self._shape))))
            case Softmax():
                self._probability(name, self._writer.softmax)
            case Sigmoid():
                self._probability(name, self._writer.logistic)

    def _dense(self, name: str, layer: Dense, coding: Quantisation) -> None:
        scale = _weight_scale(np.abs(layer.weights).max())
        weights = self._weights(f"{name}_weights", layer.weights.T, scale)
        bias = self._bias(f"{name}_bias", layer.bias, scale)
        out = self._tensor(name, (1, layer.weights.shape[1]), coding)
        self._writer.fully_connected((self._current, weights, bias), out, _activation(relu=layer.relu))
        self._current, self._shape, self._coding = out, (1, layer.weights.shape[1]), coding

    def _convolution(self, name: str, layer: Conv1D, coding: Quantisation) -> None:
        self._as_image(name)
        scale = _weight_scale(np.abs(layer.weights).max((0, 1)))
        # (kernel, in, out) becomes (out, kernel, 1, in): a two-dimensional kernel one wide
        weights = self._weights(f"{name}_weights", layer.weights.transpose(2, 0, 1)[:, :, None, :], scale)
        bias = self._bias(f"{name}_bias", layer.bias, scale)
        steps = -(-self._shape[1] // layer.stride)
        self._shape = (1, steps, 1, layer.weights.shape[2])
        out = self._tensor(name, self._shape, coding)
        activation = _activation(relu=layer.relu)
        self._writer.convolution((self._current, weights, bias), out, activation, stride=layer.stride)
        self._current, self._coding = out, coding

    def _pool(self, name: str, size: int, *, largest: bool) -> None:
        self._shape = (1, self._shape[1] // size, 1, self._shape[3])
        out = self._tensor(name, self._shape, self._coding)
        self._writer.pool(self._current, out, Padding.VALID, size=size, largest=largest)
        self._current = out

    def _probability(self, name: str, write: Any) -> None:
        out = self._tensor(name, self._shape, PROBABILITY)
        write(self._current, out)
        self._current, self._coding = out, PROBABILITY

    def _as_image(self, name: str) -> None:
        if len(self._shape) == 3:
            self._reshape(f"{name}_image", (1, self._shape[1], 1, self._shape[2]))

    def _reshape(self, name: str, shape: tuple[int, ...]) -> None:
        if shape == self._shape:
            return
        out = self._tensor(name, shape, self._coding)
        self._writer.reshape(self._current, out, shape)
        self._current, self._shape = out, shape

    def _tensor(self, name: str, shape: tuple[int, ...], coding: Quantisation) -> int:
        return self._writer.activation(name, shape, coding.scale, coding.zero_point)

    def _weights(self, name: str, weights: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]) -> int:
        """Codes of weights whose first axis is the output channel."""
        per_channel = scale.reshape(-1, *(1,) * (weights.ndim - 1)) if scale.ndim else scale
        codes = np.clip(np.rint(weights / per_channel), -127, 127).astype(np.int8)
        return self._writer.constant(name, codes, scale)

    def _bias(self, name: str, bias: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]) -> int:
        step = self._coding.scale * scale
        codes = np.rint(bias / step)
        if np.abs(codes).max(initial=0.0) > _INT32_LIMIT:
            raise ModelError(f"{name}: too large beside the weights to be coded in 32 bits")
        return self._writer.constant(name, codes.astype(np.int32), np.asarray(step))


def _weight_scale(largest: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Symmetric scale(s) for weights of this largest absolute value, as float32 stores them."""
    scale = np.maximum(np.asarray(largest, np.float64) / 127, _SMALLEST_SCALE)
    return scale.astype(np.float32).astype(np.float64)


def _activation(*, relu: bool) -> Activation:
    return Activation.RELU if relu else Activation.NONE
