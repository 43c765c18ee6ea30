"""Writes the TensorFlow Lite file format (schema version 3): tensors, constants, operators of one graph.

Decides: how a tensor or operator looks in the file, and operator versions. Does not: choose quantisation.
The schema classes are those inside the ``tflite-micro`` wheel, so nothing else needs to be installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SCHEMA: Final = "tflite_micro.tensorflow.lite.micro.python.schema_py_generated"
SCHEMA_VERSION: Final = 3
FILE_IDENTIFIER: Final = b"TFL3"


class Activation(IntEnum):
    """Activation fused into an operator (schema: ActivationFunctionType)."""

    NONE = 0
    RELU = 1


class Padding(IntEnum):
    """Padding of a convolution or pool (schema: Padding)."""

    SAME = 0
    VALID = 1


class FlatbufferWriter:
    """Collects buffers, tensors and operators of a model with one graph. Methods return tensor numbers."""

    def __init__(self, description: str) -> None:
        self._schema: Any = importlib.import_module(SCHEMA)
        schema = self._schema
        self._model = schema.ModelT()
        self._model.version = SCHEMA_VERSION
        self._model.description = description
        self._model.buffers = [schema.BufferT()]  # buffer 0 is empty by convention
        self._model.operatorCodes = []
        self._graph = schema.SubGraphT()
        self._graph.name = "main"
        self._graph.tensors, self._graph.operators = [], []

    def activation(self, name: str, shape: Sequence[int], scale: float, zero_point: int) -> int:
        """An int8 tensor computed at run time."""
        tensor = self._tensor(name, shape, self._schema.TensorType.INT8)
        tensor.quantization = self._quantisation(np.array([scale]), np.array([zero_point]))
        return len(self._graph.tensors) - 1

    def constant(
        self,
        name: str,
        codes: npt.NDArray[np.int8] | npt.NDArray[np.int32],
        scale: npt.NDArray[np.float64],
        *,
        dimension: int = 0,
    ) -> int:
        """Weights (int8) or bias (int32), symmetric, one scale or one per element along ``dimension``."""
        kinds = self._schema.TensorType
        tensor = self._tensor(name, codes.shape, kinds.INT8 if codes.dtype == np.int8 else kinds.INT32)
        tensor.buffer = self._buffer(codes)
        scales = np.atleast_1d(scale)
        tensor.quantization = self._quantisation(scales, np.zeros(len(scales), np.int64))
        tensor.quantization.quantizedDimension = dimension
        return len(self._graph.tensors) - 1

    def fully_connected(self, inputs: Sequence[int], output: int, activation: Activation) -> None:
        options = self._schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = int(activation)
        self._operator("FULLY_CONNECTED", "FullyConnectedOptions", options, inputs, output, version=4)

    def convolution(self, inputs: Sequence[int], output: int, activation: Activation, *, stride: int) -> None:
        """A two-dimensional convolution over (1, T, 1, C), SAME padding, stride along T."""
        options = self._schema.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW = int(Padding.SAME), stride, 1
        options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = int(activation)
        self._operator("CONV_2D", "Conv2DOptions", options, inputs, output, version=3)

    def depthwise(self, inputs: Sequence[int], output: int, activation: Activation) -> None:
        """A convolution of each channel by itself over (1, T, 1, C), SAME padding, stride 1."""
        options = self._schema.DepthwiseConv2DOptionsT()
        options.padding, options.depthMultiplier = int(Padding.SAME), 1
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = int(activation)
        self._operator("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", options, inputs, output, version=3)

    def pool(self, source: int, output: int, padding: Padding, *, size: int, largest: bool) -> None:
        """A pool over (1, T, 1, C), ``size`` steps of T without overlap."""
        options = self._schema.Pool2DOptionsT()
        options.padding = int(padding)
        options.strideH = options.filterHeight = size
        options.strideW = options.filterWidth = 1
        code = "MAX_POOL_2D" if largest else "AVERAGE_POOL_2D"
        self._operator(code, "Pool2DOptions", options, [source], output, version=2)

    def reshape(self, source: int, output: int, shape: Sequence[int]) -> None:
        target = self._tensor(f"shape_{output}", [len(shape)], self._schema.TensorType.INT32)
        number = len(self._graph.tensors) - 1
        target.buffer = self._buffer(np.array(shape, np.int32))
        options = self._schema.ReshapeOptionsT()
        options.newShape = list(shape)
        self._operator("RESHAPE", "ReshapeOptions", options, [source, number], output, version=1)

    def softmax(self, source: int, output: int) -> None:
        options = self._schema.SoftmaxOptionsT()
        options.beta = 1.0
        self._operator("SOFTMAX", "SoftmaxOptions", options, [source], output, version=2)

    def logistic(self, source: int, output: int) -> None:
        self._operator("LOGISTIC", "NONE", None, [source], output, version=2)

    def finish(self, source: int, output: int) -> bytes:
        """The file."""
        from flatbuffers import Builder

        self._graph.inputs, self._graph.outputs = [source], [output]
        self._model.subgraphs = [self._graph]
        builder = Builder(1024)
        builder.Finish(self._model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _tensor(self, name: str, shape: Sequence[int], kind: int) -> Any:
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [int(d) for d in shape], kind, 0
        self._graph.tensors.append(tensor)
        return tensor

    def _buffer(self, values: npt.NDArray[Any]) -> int:
        buffer = self._schema.BufferT()
        little_endian = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        buffer.data = np.frombuffer(little_endian.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        return len(self._model.buffers) - 1

    def _quantisation(self, scales: npt.NDArray[np.float64], zero_points: npt.NDArray[np.int64]) -> Any:
        quantisation = self._schema.QuantizationParametersT()
        quantisation.scale = [float(s) for s in scales.astype(np.float32)]
        quantisation.zeroPoint = [int(z) for z in zero_points]
        quantisation.quantizedDimension = 0
        return quantisation

    def _operator(
        self, code: str, option_kind: str, options: Any, inputs: Sequence[int], output: int, *, version: int
    ) -> None:
        schema = self._schema
        builtin = getattr(schema.BuiltinOperator, code)
        known = [entry.builtinCode for entry in self._model.operatorCodes]
        if builtin not in known:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.version = builtin, version
            entry.deprecatedBuiltinCode = min(builtin, 127)  # what readers before schema 3a look at
            self._model.operatorCodes.append(entry)
            known.append(builtin)
        operator = schema.OperatorT()
        operator.opcodeIndex = known.index(builtin)
        operator.inputs, operator.outputs = list(inputs), [output]
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, option_kind)
        operator.builtinOptions = options
        self._graph.operators.append(operator)
