"""LiteRT on a gateway: ``ai-edge-litert``, or ``tflite-runtime`` where only that is installed (same API).

Decides: which of the two packages and which kernels. Does not: check digests (``registry``).

Limit of this engine: it runs in this process, and LiteRT may abort its process on models that it half
supports. The digest is checked before, so only a model that its publisher signed can do that.

Kernels: ``exact`` takes the plain built-in ones. They equal TFLite-Micro to the last bit except for the
rounding of negative ties, so they agree where no layer has negative values before its zero point is added
(ReLU; ``aif.authoring`` writes such models) and no softmax ends the model (one step, rarely). Elsewhere they
may be one step off per layer. The default kernels (XNNPACK) are faster and may differ by more steps. Where
equal bytes matter for any model, a gateway can run TFLite-Micro.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from aif.engines.base import DEFAULT_CONFIG, MAX_TENSORS, EngineConfig, TensorSpec, check_inputs
from aif.errors import EngineCrashed, EngineError, EngineUnavailable

_PACKAGES: Final = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")


class LiteRTEngine:
    """One model in LiteRT.

    Args:
        model: bytes of a .tflite file, already verified.
        config: ``threads`` and ``exact`` are used.

    Raises:
        EngineUnavailable: neither package is installed, or it cannot be loaded.
        EngineError: the model was refused.
    """

    def __init__(self, model: bytes, config: EngineConfig = DEFAULT_CONFIG) -> None:
        package = load_package()
        kernels = package.OpResolverType
        try:
            self._interpreter: Any = package.Interpreter(
                model_content=model,
                num_threads=config.threads,
                experimental_op_resolver_type=kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                if config.exact
                else kernels.AUTO,
            )
            self._interpreter.allocate_tensors()
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise EngineError(f"LiteRT refused the model: {' '.join(str(error).split())}") from error
        if not all(1 <= len(tensors) <= MAX_TENSORS for tensors in (inputs, outputs)):
            raise EngineError(f"a model needs 1 to {MAX_TENSORS} inputs and outputs")
        self._inputs, self._outputs = tuple(map(_describe, inputs)), tuple(map(_describe, outputs))
        self._input_indices = tuple(int(d["index"]) for d in inputs)
        self._output_indices = tuple(int(d["index"]) for d in outputs)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    @property
    def arena_bytes(self) -> int:
        return 0

    def infer(self, inputs: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], ...]:
        check_inputs(inputs, self._inputs)
        interpreter = self._open()
        try:
            for index, tensor in zip(self._input_indices, inputs, strict=True):
                interpreter.set_tensor(index, tensor)
            interpreter.invoke()
            return tuple(interpreter.get_tensor(index) for index in self._output_indices)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"LiteRT failed: {' '.join(str(error).split())}") from error

    def reset(self) -> None:
        self._open().reset_all_variables()

    def close(self) -> None:
        self._interpreter = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Any:
        if self._interpreter is None:
            raise EngineCrashed("the engine is closed", hint="open the model again")
        return self._interpreter


def load_package() -> Any:
    """The first of the packages that can be loaded.

    Raises:
        EngineUnavailable: none can.
    """
    failures = []
    for name in _PACKAGES:
        try:
            return importlib.import_module(name)
        except ImportError as error:  # absent, or built for another numpy
            failures.append(str(error))
    raise EngineUnavailable(
        f"LiteRT is not available: {'; '.join(failures)}",
        hint="pip install ai-edge-litert (see requirements.lock)",
    )


def _describe(details: dict[str, Any]) -> TensorSpec:
    quantisation = details["quantization_parameters"]
    return TensorSpec.from_details(
        {
            "dtype": np.dtype(details["dtype"]).name,
            "shape": details["shape"],
            "scales": quantisation["scales"],
            "zero_points": quantisation["zero_points"],
        },
        name=str(details["name"]),
    )
