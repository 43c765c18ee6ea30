"""Small int8 models drawn at random, with every operator that a sequential network here may have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aif.authoring.flatbuffer import Activation, FlatbufferWriter, Padding

OPERATORS = (
    "convolution",
    "depthwise",
    "max pool",
    "average pool",
    "dense",
    "reshape",
    "softmax",
    "logistic",
)


class RandomModel:
    """Appends operators to each other; the scales are whatever the numbers give, as in a damaged training."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.writer = FlatbufferWriter(f"random {seed}")
        self.shape: tuple[int, ...] = (1, int(self.rng.integers(6, 20)), 1, int(self.rng.integers(1, 6)))
        self.scale, self.zero_point, self.count = 0.05, -3, 0
        self.source = self.current = self.tensor(self.shape)

    def tensor(self, shape: tuple[int, ...]) -> int:
        self.shape, self.count = shape, self.count + 1
        return self.writer.activation(f"t{self.count}", shape, self.scale, self.zero_point)

    def finish(self) -> bytes:
        return self.writer.finish(self.source, self.current)

    def add(self, kind: str) -> None:
        image = len(self.shape) == 4
        match kind:
            case "convolution" if image:
                self._convolution()
            case "depthwise" if image:
                self._depthwise()
            case "max pool" | "average pool" if image and self.shape[1] >= 2:
                before, shape = self.current, (1, self.shape[1] // 2, 1, self.shape[3])
                self.current = self.tensor(shape)
                self.writer.pool(before, self.current, Padding.VALID, size=2, largest=kind == "max pool")
            case "dense" if not image:
                self._dense()
            case "reshape":
                flat = (1, int(np.prod(self.shape)))
                other = flat if image else (*flat, 1, 1)
                before, self.current = self.current, self.tensor(other)
                self.writer.reshape(before, self.current, other)
            case "softmax" | "logistic" if not image:
                self.scale, self.zero_point = 1 / 256, -128
                before, self.current = self.current, self.tensor(self.shape)
                (self.writer.softmax if kind == "softmax" else self.writer.logistic)(before, self.current)

    def _weights(self, shape: tuple[int, ...], outputs: int) -> tuple[int, int]:
        codes = self.rng.integers(-127, 128, shape).astype(np.int8)
        scales = self.rng.uniform(0.002, 0.02, outputs).astype(np.float32).astype(np.float64)
        if len(shape) == 2:
            scales = scales[:1]
        dimension = 3 if shape[0] == 1 and len(shape) == 4 else 0
        weights = self.writer.constant(f"w{self.count}", codes, scales, dimension=dimension)
        bias: npt.NDArray[np.int32] = self.rng.integers(-500, 500, outputs).astype(np.int32)
        step = np.float32(self.scale) * scales
        return weights, self.writer.constant(f"b{self.count}", bias, step)

    def _next_coding(self) -> None:
        self.scale = float(np.float32(self.rng.uniform(0.02, 0.2)))
        self.zero_point = int(self.rng.integers(-128, 100))

    def _relu(self) -> Activation:
        return Activation.RELU if self.rng.random() < 0.5 else Activation.NONE

    def _convolution(self) -> None:
        outputs, stride = int(self.rng.integers(1, 7)), int(self.rng.integers(1, 3))
        kernel = int(self.rng.integers(1, 5))
        inputs = (self.current, *self._weights((outputs, kernel, 1, self.shape[3]), outputs))
        self._next_coding()
        self.current = self.tensor((1, -(-self.shape[1] // stride), 1, outputs))
        self.writer.convolution(inputs, self.current, self._relu(), stride=stride)

    def _depthwise(self) -> None:
        channels = self.shape[3]
        kernel = int(self.rng.integers(1, 5))
        inputs = (self.current, *self._weights((1, kernel, 1, channels), channels))
        self._next_coding()
        self.current = self.tensor(self.shape)
        self.writer.depthwise(inputs, self.current, self._relu())

    def _dense(self) -> None:
        outputs = int(self.rng.integers(1, 20))
        inputs = (self.current, *self._weights((outputs, self.shape[1]), outputs))
        self._next_coding()
        self.current = self.tensor((1, outputs))
        self.writer.fully_connected(inputs, self.current, self._relu())


def random_model(seed: int, *, length: int) -> bytes:
    """About ``length`` operators; the same seed gives the same bytes."""
    made = RandomModel(seed)
    made.add("convolution")
    for kind in made.rng.choice(OPERATORS, length - 1):
        made.add(str(kind))
    if len(made.shape) == 4:
        made.add("reshape")
    return made.finish()
