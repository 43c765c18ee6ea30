"""Reads a .tflite model as a sequence of operators and cuts parts out of it.

Decides: where a model can be cut (a border: exactly one computed tensor passes from what is before to what is
after), and the file of a part. Does not: measure or choose (``split``), write contracts (``split_aims``).

Invariants: a part holds the operators, constants and quantisation of the whole, unchanged and in order; the
tensor at a border has the same shape, type and coding on both sides. So a chain of parts does the arithmetic
of the whole. Whatever the bytes are, reading them ends with a sequence or with ``SplitRefused``.

Source: TensorFlow Lite schema, version 3.
"""

from __future__ import annotations

import copy
import importlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any, Final

from aif.authoring.flatbuffer import FILE_IDENTIFIER, SCHEMA, SCHEMA_VERSION
from aif.engines.base import TensorSpec
from aif.errors import EngineError, SplitRefused

MAX_MODEL_BYTES: Final = 64 << 20
MAX_OPERATORS: Final = 4096
_MAX_NAME_CHARACTERS: Final = 60
_ELEMENTS: Final = {"INT8": "int8", "UINT8": "uint8", "INT16": "int16", "FLOAT32": "float32"}
"""Element types that may cross a border, by their name in the schema."""
_WIDTHS: Final = {"INT8": 1, "UINT8": 1, "BOOL": 1, "INT16": 2, "FLOAT16": 2, "INT64": 8, "FLOAT64": 8}
"""Bytes of an element; 4 for any other type."""
_STATEFUL: Final = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"})


@dataclass(frozen=True, slots=True)
class Border:
    """A place to cut: ``position`` operators are before it, and ``tensor`` is all that crosses.

    ``after`` is the kind of the last operator before it, such as ``CONV_2D``.
    """

    position: int
    after: str
    tensor: TensorSpec


class OperatorSequence:
    """A model with one input and one output, its operators in the order in which they run.

    Args:
        model: bytes of a .tflite file. They need not be trusted, nothing is executed.
        name: of the model, for messages.

    Raises:
        SplitRefused: not a readable model, or one of a kind that is never cut.
    """

    def __init__(self, model: bytes, name: str) -> None:
        self.name = name
        self._schema: Any = importlib.import_module(SCHEMA)
        self._enum_names: dict[str, dict[int, str]] = {}
        self._model = self._read(model)
        try:
            self._graph = self._checked()
            self.input, self.output = (
                self._spec(ends[0]) for ends in (self._graph.inputs, self._graph.outputs)
            )
            self.operators: tuple[str, ...] = tuple(self._kind(one) for one in self._graph.operators)
            self._refuse_state()
            self._crossing = tuple(self._live())
        except (SplitRefused, EngineError) as error:
            raise error if isinstance(error, SplitRefused) else self._refused(str(error)) from error
        except (ValueError, TypeError, IndexError, AttributeError, KeyError, OverflowError) as error:
            raise self._unreadable(error) from error

    @cached_property
    def borders(self) -> tuple[Border, ...]:
        """Every place to cut, first to last.

        Raises:
            SplitRefused: there is none; says what crosses where.
        """
        found: list[Border] = []
        reasons: list[str] = []
        for position, live in enumerate(self._crossing, start=1):
            if len(live) != 1 or live[0] in (*self._graph.inputs, *self._graph.outputs):
                reasons.append(
                    f"after operator {position} ({self.operators[position - 1]}) {self._many(live)}"
                )
                continue
            try:
                found.append(Border(position, self.operators[position - 1], self._spec(live[0])))
            except EngineError as error:
                reasons.append(f"after operator {position}: {error}")
        if not found:
            raise self._refused(
                "it cannot be cut anywhere: " + (reasons[0] if reasons else "it has one operator"),
                hint="only models through which one tensor passes from layer to layer can be split; "
                "place this one on a larger device",
            )
        return tuple(found)

    def part(self, first: int, last: int) -> bytes:
        """The file of operators ``first`` to ``last - 1``, counted from 0.

        Each end is a border, the beginning or the end of the model.

        Raises:
            SplitRefused: the options of an operator are damaged.
        """
        from flatbuffers import Builder

        schema = self._schema
        model, graph = schema.ModelT(), schema.SubGraphT()
        model.version, model.subgraphs = SCHEMA_VERSION, [graph]
        model.description = f"{self.name}, operators {first} to {last - 1}"
        graph.name = "main"
        pieces = _Pieces(self._model, self._graph, schema)
        source = self._graph.inputs[0] if first == 0 else self._crossing[first - 1][0]
        result = self._graph.outputs[0] if last == len(self.operators) else self._crossing[last - 1][0]
        graph.inputs = [pieces.tensor(source)]
        graph.operators = [pieces.operator(one) for one in self._graph.operators[first:last]]
        graph.outputs = [pieces.tensor(result)]
        graph.tensors, model.buffers, model.operatorCodes = pieces.tensors, pieces.buffers, pieces.codes
        builder = Builder(1024)
        try:
            builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
        except (ValueError, TypeError, AttributeError, OverflowError, struct.error) as error:
            raise self._unreadable(error) from error  # options of an operator that was damaged
        return bytes(builder.Output())

    def mac_count(self, first: int, last: int) -> int:
        """Multiply-accumulates of convolutions and dense layers among operators ``first`` to ``last - 1``."""
        return sum(map(self._mac_count, range(first, last)))

    def peak_bytes(self, first: int, last: int) -> int:
        """Largest sum of computed tensors that an operator among ``first`` to ``last - 1`` needs at once."""
        before = ((self._graph.inputs[0],), *self._crossing)
        return max(
            sum(map(self._size, {*before[n], *self._graph.operators[n].outputs})) for n in range(first, last)
        )

    def _size(self, number: int) -> int:
        tensor = self._graph.tensors[number]
        width = _WIDTHS.get(self._name_of("TensorType", tensor.type), 4)
        return width * prod(max(1, int(d)) for d in (() if tensor.shape is None else tensor.shape))

    def _read(self, model: bytes) -> Any:
        if len(model) > MAX_MODEL_BYTES:
            raise self._refused(f"{len(model):,} B are more than the {MAX_MODEL_BYTES:,} B of any model")
        if model[4:8] != FILE_IDENTIFIER:
            raise self._refused(
                "not a .tflite file: the identifier TFL3 is missing", hint="export it as .tflite"
            )
        try:
            return self._schema.ModelT.InitFromPackedBuf(model, 0)
        except Exception as error:
            # the generated reader raises whatever it stumbles over, struct.error and UnicodeError among them
            raise self._unreadable(error) from error

    def _checked(self) -> Any:
        """The one graph, with every reference inside it in range."""
        model = self._model
        if model.version != SCHEMA_VERSION:
            raise self._refused(f"schema version {model.version}, only {SCHEMA_VERSION} is known")
        if len(model.subgraphs) != 1:
            raise self._refused(
                f"it has {len(model.subgraphs)} graphs", hint="control flow (IF, WHILE, CALL) cannot be split"
            )
        graph = model.subgraphs[0]
        for what, ends in (("inputs", graph.inputs), ("outputs", graph.outputs)):
            if len(ends) != 1:
                raise self._refused(
                    f"it has {len(ends)} {what}; a model to split has one input and one output"
                )
        if not 1 <= len(graph.operators) <= MAX_OPERATORS:
            raise self._refused(
                f"it has {len(graph.operators):,} operators, 1 to {MAX_OPERATORS:,} are possible"
            )
        self._check_operators(graph)
        graph.inputs, graph.outputs = [int(graph.inputs[0])], [int(graph.outputs[0])]
        if not all(0 <= n < len(graph.tensors) for n in (*graph.inputs, *graph.outputs)):
            raise self._refused("damaged: the input or output names a tensor that does not exist")
        for tensor in graph.tensors:
            if not 0 <= tensor.buffer < len(model.buffers) or model.buffers[tensor.buffer].size:
                raise self._refused("a tensor's values are not in the file")
            shape = [] if tensor.shape is None else [int(d) for d in tensor.shape]
            if min(shape, default=0) < 0:
                raise self._refused(f"damaged: {_text(tensor.name)} has the shape {shape}")
        return graph

    def _check_operators(self, graph: Any) -> None:
        for operator in graph.operators:
            operator.inputs, operator.outputs, operator.intermediates = (
                [] if numbers is None else [int(n) for n in numbers]
                for numbers in (operator.inputs, operator.outputs, operator.intermediates)
            )
            named = (*operator.inputs, *operator.outputs, *operator.intermediates)
            if not all(-1 <= n < len(graph.tensors) for n in named) or -1 in operator.outputs:
                raise self._refused("damaged: an operator names a tensor that does not exist")
            if not 0 <= operator.opcodeIndex < len(self._model.operatorCodes):
                raise self._refused("damaged: an operator has no code")
            if operator.largeCustomOptionsSize:
                raise self._refused("an operator's options are not in the file")

    def _refuse_state(self) -> None:
        stateful = next((kind for kind in self.operators if kind in _STATEFUL), None)
        variables = [_text(tensor.name) for tensor in self._graph.tensors if tensor.isVariable]
        if stateful or variables:
            what = stateful or f"the variable tensor {variables[0]}"
            raise self._refused(
                f"it keeps a state between inferences ({what})",
                hint="a streaming model cannot be split; place it on a larger device",
            )

    def _live(self) -> Iterator[tuple[int, ...]]:
        """Computed tensors that cross behind each operator but the last."""
        graph = self._graph
        last_use = {graph.outputs[0]: len(graph.operators)}
        for position, operator in reversed(list(enumerate(graph.operators))):
            for number in operator.inputs:
                last_use.setdefault(number, position)
        made = {graph.inputs[0]}
        live: dict[int, None] = {graph.inputs[0]: None}
        for position, operator in enumerate(graph.operators):
            unknown = [n for n in operator.inputs if n != -1 and n not in made and not self._is_constant(n)]
            if unknown or made & set(operator.outputs):
                raise self._refused(f"damaged: operator {position + 1} reads or writes out of turn")
            made |= set(operator.outputs)
            live |= dict.fromkeys(operator.outputs)
            live = {n: None for n in live if last_use.get(n, -1) > position}
            if position + 1 < len(graph.operators):
                yield tuple(live)
        if graph.outputs[0] not in made - {graph.inputs[0]}:
            raise self._refused("damaged: no operator writes its output")

    def _is_constant(self, number: int) -> bool:
        data = self._model.buffers[self._graph.tensors[number].buffer].data
        return data is not None and len(data) > 0

    def _spec(self, number: int) -> TensorSpec:
        """The tensor as a port carries it.

        Raises:
            EngineError: its type, shape or quantisation cannot be carried.
        """
        tensor = self._graph.tensors[number]
        kind, coding = self._name_of("TensorType", tensor.type), tensor.quantization
        return TensorSpec.from_details(
            {
                "dtype": _ELEMENTS.get(kind, kind),
                "shape": [] if tensor.shape is None else tensor.shape,
                "scales": () if coding is None or coding.scale is None else coding.scale,
                "zero_points": () if coding is None or coding.zeroPoint is None else coding.zeroPoint,
            },
            name=_text(tensor.name),
        )

    def _kind(self, operator: Any) -> str:
        code = self._model.operatorCodes[operator.opcodeIndex]
        # files of schema 3 before 3a have the code in the deprecated field alone
        return self._name_of("BuiltinOperator", max(code.builtinCode, code.deprecatedBuiltinCode))

    def _name_of(self, enum: str, value: int) -> str:
        names = self._enum_names.setdefault(
            enum, {v: k for k, v in vars(getattr(self._schema, enum)).items() if isinstance(v, int)}
        )
        return names.get(value, f"{enum} {value}")

    def _mac_count(self, position: int) -> int:
        operator, tensors = self._graph.operators[position], self._graph.tensors
        if len(operator.inputs) < 2 or operator.inputs[1] == -1 or not operator.outputs:
            return 0
        weights, made = (
            [] if tensors[n].shape is None else [int(d) for d in tensors[n].shape]
            for n in (operator.inputs[1], operator.outputs[0])
        )
        match self.operators[position]:
            case "CONV_2D" | "FULLY_CONNECTED":
                return prod(made) * prod(weights[1:])
            case "DEPTHWISE_CONV_2D":
                return prod(made) * prod(weights[1:3])
        return 0

    def _many(self, live: tuple[int, ...]) -> str:
        if len(live) < 2:
            return "no computed tensor passes that is not the model's own input or output"
        names = ", ".join(_text(self._graph.tensors[n].name) for n in live[:4])
        return f"{len(live)} tensors pass ({names})"

    def _refused(self, reason: str, *, hint: str = "") -> SplitRefused:
        return SplitRefused(f"{self.name} cannot be split: {reason}", hint=hint)

    def _unreadable(self, error: Exception) -> SplitRefused:
        return self._refused(
            f"not a readable .tflite file ({type(error).__name__})", hint="export it again; it may be cut off"
        )


class _Pieces:
    """Tensors, buffers and operator codes that a part takes over, renumbered in the order of first use."""

    def __init__(self, model: Any, graph: Any, schema: Any) -> None:
        self._model, self._graph = model, graph
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]  # buffer 0 is empty by convention
        self.codes: list[Any] = []
        self._numbers: dict[str, dict[int, int]] = {"tensor": {-1: -1}, "buffer": {}, "code": {}}

    def tensor(self, number: int) -> int:
        known = self._numbers["tensor"]
        if number not in known:
            tensor = copy.copy(self._graph.tensors[number])
            tensor.buffer = self._buffer(tensor.buffer)
            known[number] = len(self.tensors)
            self.tensors.append(tensor)
        return known[number]

    def operator(self, operator: Any) -> Any:
        made, codes = copy.copy(operator), self._numbers["code"]
        if operator.opcodeIndex not in codes:
            codes[operator.opcodeIndex] = len(self.codes)
            self.codes.append(self._model.operatorCodes[operator.opcodeIndex])
        made.opcodeIndex = codes[operator.opcodeIndex]
        made.inputs, made.outputs, made.intermediates = (
            [self.tensor(n) for n in numbers]
            for numbers in (operator.inputs, operator.outputs, operator.intermediates)
        )
        return made

    def _buffer(self, number: int) -> int:
        buffer, known = self._model.buffers[number], self._numbers["buffer"]
        if buffer.data is None or not len(buffer.data):
            return 0
        if number not in known:
            known[number] = len(self.buffers)
            self.buffers.append(buffer)
        return known[number]


def steps(positions: Iterable[int], count: int) -> list[tuple[int, int]]:
    """First and last operator of each part, from the positions of the cuts."""
    return list(pairwise((0, *sorted(positions), count)))


def _text(raw: Any) -> str:
    """A name out of the file, safe to print."""
    text = (raw or b"?").decode("utf-8", "replace") if isinstance(raw, bytes | None) else str(raw)
    return "".join(c if c.isprintable() else "?" for c in text)[:_MAX_NAME_CHARACTERS]
