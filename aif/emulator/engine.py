"""The model of one AIM instance on an emulated device: records in, tensors out.

Decides: which record values are a tensor of the model. Does not: quantise, convert types, or choose engines.

Invariant: not one value is changed on its way in; what does not fit is refused with both sides named.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from aif.engines.base import Engine, TensorSpec
from aif.errors import EngineError


class LoadedModel:
    """An engine as AIMs use it. One request at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._engine.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._engine.outputs

    def infer(self, *inputs: Any) -> tuple[npt.NDArray[Any], ...]:
        """Run once.

        Args:
            inputs: one per input of the model, in order: an array or typed memoryview of the model's element
                type and number of elements (any shape), or its raw bytes (little-endian, as on the wire).

        Returns:
            One array per output, in the model's shapes and types.

        Raises:
            EngineError: an input does not fit, or the engine refused.
            EngineCrashed: the engine's process died or hung; other instances are not affected.
        """
        specs = self._engine.inputs
        if len(inputs) != len(specs):
            raise EngineError(f"the model takes {len(specs)} inputs, got {len(inputs)}")
        return self._engine.infer([_tensor(v, spec) for v, spec in zip(inputs, specs, strict=True)])

    def reset(self) -> None:
        """Forget the state of a streaming model."""
        self._engine.reset()

    def close(self) -> None:
        """Give the engine back. Allowed at any time, any number of times."""
        self._engine.close()


def _tensor(value: Any, spec: TensorSpec) -> npt.NDArray[Any]:
    """``value`` in the shape of ``spec``.

    Raises:
        EngineError: another element type or number of elements, or no array at all.
    """
    if isinstance(value, bytes | bytearray):
        if len(value) != spec.size_bytes:
            raise EngineError(
                f"input {spec.name} is {len(value):,} B, the model takes {spec}: {spec.size_bytes:,} B"
            )
        return (
            np.frombuffer(value, np.dtype(spec.dtype).newbyteorder("<"))
            .astype(spec.dtype)
            .reshape(spec.shape)
        )
    if not isinstance(value, memoryview | np.ndarray | np.generic):
        raise EngineError(
            f"input {spec.name} is a {type(value).__name__}, the model takes {spec}",
            hint=f"give an array of {spec.dtype}, a memoryview of one, or its bytes",
        )
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise EngineError(f"input {spec.name} cannot be read as an array: {error}") from error
    if array.dtype != spec.dtype or array.nbytes != spec.size_bytes:
        dimensions = "".join(f"[{d}]" for d in array.shape)
        raise EngineError(
            f"input {spec.name} is {array.dtype}{dimensions}, the model takes {spec}",
            hint="the record type of the port and the model must agree; nothing is converted on the way",
        )
    return array.reshape(spec.shape)
