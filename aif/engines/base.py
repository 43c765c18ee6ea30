"""What every inference engine offers, and how tensors are described.

Decides: the ``Engine`` Protocol, tensor specifications with their quantisation, the limits of a request.
Does not: parse a model, choose an engine (``registry``), or know where a model came from.

Invariants: tensors go in and come out exactly as the model has them (no hidden quantisation); an input that
does not fit its specification is refused before the engine sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from types import TracebackType
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from aif.errors import EngineError

ELEMENT_TYPES: Final = ("int8", "uint8", "int16", "int32", "int64", "float32", "bool")
"""Element types an engine may report; a model with any other is refused."""

MAX_TENSORS: Final = 64
"""Inputs or outputs of one model."""
MAX_TENSOR_BYTES: Final = 64 << 20
"""Bytes of one input or output tensor."""
MAX_RANK: Final = 8


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output tensor.

    Attributes:
        name: the model's own name where the engine knows it, else ``input_0``, ``output_0`` and so on.
        shape: dimensions, the batch dimension included.
        dtype: numpy name of the element type.
        scale: real value of one step; 0 for a tensor that is not quantised.
        zero_point: the step that stands for the real value 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        dimensions = "".join(f"[{d}]" for d in self.shape)
        quantisation = f" scale={self.scale:g} zero_point={self.zero_point}" if self.scale else ""
        return f"{self.dtype}{dimensions}{quantisation}"

    @classmethod
    def from_details(cls, details: Mapping[str, Any], *, name: str) -> TensorSpec:
        """Check what an engine reports about a tensor (it came out of a model's bytes) and keep it.

        Raises:
            EngineError: an element type, shape or quantisation that a port cannot carry.
        """
        try:
            dtype = str(details["dtype"])
            shape = tuple(int(d) for d in details["shape"])
            scales = [float(v) for v in details["scales"]]
            zero_points = [int(v) for v in details["zero_points"]]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise EngineError(f"tensor {name}: the engine's description is not usable: {error}") from error
        if dtype not in ELEMENT_TYPES:
            raise EngineError(f"tensor {name}: element type {dtype} cannot be carried by a port")
        if len(shape) > MAX_RANK or any(d < 1 for d in shape):
            raise EngineError(
                f"tensor {name}: shape {list(shape)} is not fixed",
                hint="export it with a batch of 1",
            )
        if len(scales) > 1 or len(scales) != len(zero_points):
            raise EngineError(f"tensor {name}: inputs and outputs need one scale and one zero point")
        scale, zero_point = (scales[0], zero_points[0]) if scales else (0.0, 0)
        if not (isfinite(scale) and scale >= 0.0):
            raise EngineError(f"tensor {name}: scale {scale} is not a positive number")
        spec = cls(name, shape, dtype, scale, zero_point)
        if spec.size_bytes > MAX_TENSOR_BYTES:
            raise EngineError(
                f"tensor {name}: {spec.size_bytes:,} B, at most {MAX_TENSOR_BYTES:,} B are allowed"
            )
        return spec

    def quantise(self, values: npt.ArrayLike) -> npt.NDArray[Any]:
        """Real values as this tensor: ``round(v / scale) + zero_point``, clipped, if it is quantised."""
        x = np.asarray(values, np.float64).reshape(self.shape)
        if self.scale:
            limits = np.iinfo(self.dtype)
            x = np.clip(np.rint(x / self.scale) + self.zero_point, limits.min, limits.max)
        return x.astype(self.dtype)

    def dequantise(self, tensor: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Real values of a tensor of this specification."""
        x = tensor.astype(np.float64)
        return (x - self.zero_point) * self.scale if self.scale else x


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits and switches of an engine; each has a safe default.

    Attributes:
        timeout_s: longest wait for one answer (load or inference) before the engine counts as hung.
        cpu_s: processor time one request may use in a child process, in whole seconds.
        memory_bytes: address space of a child process (RLIMIT_AS).
        threads: threads of a gateway engine; an MCU has one.
        exact: use the plain built-in kernels, which give the bytes of TFLite-Micro for most models
            (see ``tflite`` for which). Without it a gateway engine may use faster kernels that
            differ by some steps of the output scale.
    """

    timeout_s: float = 20.0
    cpu_s: int = 30
    memory_bytes: int = 2 << 30
    threads: int = 1
    exact: bool = False


DEFAULT_CONFIG: Final = EngineConfig()


class Engine(Protocol):
    """One loaded model. Not re-entrant: one request at a time. A context manager that closes itself."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def arena_bytes(self) -> int:
        """Size of the declared arena, 0 for an engine that has none."""

    def infer(self, inputs: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], ...]:
        """Run once, with tensors exactly as ``inputs`` describes them.

        Raises:
            EngineError: an input does not fit, or the engine refused.
            EngineCrashed: the engine's process died or hung; open another one.
        """

    def reset(self) -> None:
        """Forget the state between inferences (a streaming model between two streams)."""

    def close(self) -> None:
        """Give everything back. Allowed at any time, any number of times."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_inputs(inputs: Sequence[npt.NDArray[Any]], specs: Sequence[TensorSpec]) -> None:
    """Refuse tensors that are not exactly what the model takes.

    Raises:
        EngineError: wrong number, type or shape; the text names the tensor and both sides.
    """
    if len(inputs) != len(specs):
        raise EngineError(f"the model takes {len(specs)} inputs, got {len(inputs)}")
    for tensor, spec in zip(inputs, specs, strict=True):
        if tensor.shape != spec.shape or tensor.dtype != spec.dtype:
            dimensions = "".join(f"[{d}]" for d in tensor.shape)
            raise EngineError(f"input {spec.name} is {tensor.dtype}{dimensions}, the model takes {spec}")
