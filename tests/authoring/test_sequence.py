"""Cutting a model: chains give the bytes of the whole in both engines; strange files are refused."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from flatbuffers import Builder
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aif.authoring.flatbuffer import SCHEMA
from aif.authoring.sequence import OperatorSequence, steps
from aif.engines.base import Engine, EngineConfig, TensorSpec
from aif.engines.registry import open_engine
from aif.engines.tflm_child import Worker
from aif.errors import SplitRefused
from tests.authoring.models import OPERATORS, random_model

SCHEMA_CLASSES: Any = importlib.import_module(SCHEMA)
MODEL = random_model(1, length=8)


def opened(stack: ExitStack, runtime: str, model: bytes) -> Engine:
    engine = open_engine(
        runtime,
        model,
        sha256=sha256(model).hexdigest(),
        arena_bytes=64 << 10,
        config=EngineConfig(exact=True),
    )
    return stack.enter_context(engine)


class Here:
    """TFLite-Micro in this process: the interpreter of the engine's child, without a child for each part."""

    def __init__(self, model: bytes) -> None:
        self._worker = Worker(64 << 10)
        described = json.loads(self._worker.load(model))
        self.inputs, self.outputs = (
            [TensorSpec.from_details(one, name=side) for one in described[side]]
            for side in ("inputs", "outputs")
        )

    def infer(self, inputs: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], ...]:
        (output,) = self.outputs
        answer = self._worker.run(b"".join(tensor.tobytes() for tensor in inputs))
        return (np.frombuffer(answer, output.dtype).reshape(output.shape),)


def check_equal(model: bytes, cuts: list[int], *, inputs: int = 30, children: bool = True) -> None:
    """Parts, one after the other, give the bytes of the whole; TFLM in children, or in this process."""
    sequence, rng = OperatorSequence(model, "model"), np.random.default_rng(3)
    for runtime in ("tflm", "tflite"):
        with ExitStack() as stack:

            def start(part: bytes, runtime: str = runtime, stack: ExitStack = stack) -> Engine | Here:
                return opened(stack, runtime, part) if children or runtime == "tflite" else Here(part)

            whole = start(model)
            spans = steps(cuts, len(sequence.operators))
            chain = [start(sequence.part(*span)) for span in spans]
            tensors = {border.position: border.tensor for border in sequence.borders}
            for engine, (first, last) in zip(chain, spans, strict=True):
                ends = (engine.inputs[0], engine.outputs[0])
                for found, border in zip(ends, (first, last), strict=True):
                    known = tensors.get(border)
                    assert known is None or (found.shape, found.dtype, found.scale, found.zero_point) == (
                        known.shape, known.dtype, known.scale, known.zero_point,
                    )  # fmt: skip
            for _ in range(inputs):
                value = rng.integers(-128, 128, whole.inputs[0].shape).astype(np.int8)
                wanted = whole.infer([value])[0]
                for engine in chain:
                    value = engine.infer([value])[0]
                assert value.tobytes() == wanted.tobytes(), (runtime, cuts)


@pytest.mark.integration
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(2, 9), data=st.data())
def test_a_chain_of_parts_gives_the_bytes_of_the_whole(seed: int, length: int, data: st.DataObject) -> None:
    model = random_model(seed, length=length)
    positions = [border.position for border in OperatorSequence(model, "model").borders]
    cuts = data.draw(st.lists(st.sampled_from(positions), min_size=1, max_size=3, unique=True))
    check_equal(model, sorted(cuts), children=False)


@pytest.mark.integration
def test_every_single_cut_of_one_model_gives_the_bytes_of_the_whole() -> None:
    for border in OperatorSequence(MODEL, "model").borders:
        check_equal(MODEL, [border.position])


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("block", range(4))
def test_many_more_chains(block: int) -> None:
    for seed in range(20_000 + 25 * block, 20_025 + 25 * block):
        model = random_model(seed, length=2 + seed % 9)
        check_equal(
            model, [border.position for border in OperatorSequence(model, "model").borders], children=False
        )


def test_random_models_have_every_operator() -> None:
    kinds = Counter(
        kind
        for seed in range(40)
        for kind in OperatorSequence(random_model(seed, length=9), "model").operators
    )
    assert len(kinds) == len(OPERATORS)


def test_a_part_of_a_part_is_the_part() -> None:
    sequence = OperatorSequence(MODEL, "model")
    last = len(sequence.operators)
    first, second = (border.position for border in sequence.borders[1:3])
    inner = OperatorSequence(sequence.part(first, last), "model").part(0, second - first)
    assert OperatorSequence(inner, "model").operators == sequence.operators[first:second]
    described = OperatorSequence(sequence.part(first, second), "model")
    assert (described.input, described.output) == (
        sequence.borders[1].tensor,
        sequence.borders[2].tensor,
    )


def test_constants_and_operator_codes_go_where_they_are_used() -> None:
    sequence = OperatorSequence(MODEL, "model")
    cut = sequence.borders[len(sequence.borders) // 2].position
    parts = [sequence.part(0, cut), sequence.part(cut, len(sequence.operators))]
    stored = [sum(len(b.data) for b in parsed(m).buffers if b.data is not None) for m in (MODEL, *parts)]
    assert stored[0] == stored[1] + stored[2]
    for part in parts:
        model = parsed(part)
        assert len(model.operatorCodes) == len({o.opcodeIndex for o in model.subgraphs[0].operators})


def test_multiply_accumulates_add_up() -> None:
    sequence = OperatorSequence(MODEL, "model")
    last = len(sequence.operators)
    assert sequence.mac_count(0, last) > 0
    for border in sequence.borders:
        halves = sequence.mac_count(0, border.position) + sequence.mac_count(border.position, last)
        assert halves == sequence.mac_count(0, last)


def parsed(model: bytes) -> Any:
    return SCHEMA_CLASSES.ModelT.InitFromPackedBuf(model, 0)


def changed(change: Callable[[Any, Any], None], model: bytes = MODEL) -> bytes:
    """The model after a change of its tables."""
    tables = parsed(model)
    change(tables, tables.subgraphs[0])
    builder = Builder(1024)
    builder.Finish(tables.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def skip(_model: Any, graph: Any) -> None:
    """The last operator reads the model's input too."""
    graph.operators[-1].inputs = [*graph.operators[-1].inputs, graph.inputs[0]]


def second_input(_model: Any, graph: Any) -> None:
    graph.inputs = [*graph.inputs, graph.operators[2].outputs[0]]


def state(_model: Any, graph: Any) -> None:
    graph.tensors[graph.operators[1].outputs[0]].isVariable = True


def other_graph(model: Any, graph: Any) -> None:
    model.subgraphs = [graph, graph]


def backwards(_model: Any, graph: Any) -> None:
    graph.operators = list(reversed(graph.operators))


def no_tensor(_model: Any, graph: Any) -> None:
    graph.operators[1].inputs = [10_000]


def no_code(_model: Any, graph: Any) -> None:
    graph.operators[1].opcodeIndex = 77


def no_buffer(_model: Any, graph: Any) -> None:
    graph.tensors[0].buffer = 10_000


def no_output(_model: Any, graph: Any) -> None:
    graph.outputs = [graph.inputs[0]]


def dead_end(_model: Any, graph: Any) -> None:
    """What the first operator gives is the output; nobody asks for the rest."""
    graph.outputs = [graph.operators[0].outputs[0]]


def one_operator(_model: Any, graph: Any) -> None:
    graph.outputs, graph.operators = list(graph.operators[0].outputs), graph.operators[:1]


def per_channel(_model: Any, graph: Any) -> None:
    for operator in graph.operators[:-1]:
        coding = graph.tensors[operator.outputs[0]].quantization
        coding.scale, coding.zeroPoint = [0.1, 0.2], [0, 0]


def no_version(model: Any, _graph: Any) -> None:
    model.version = 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (skip, "cannot be cut anywhere: after operator 1 .* 2 tensors pass"),
        (second_input, "it has 2 inputs"),
        (state, "keeps a state between inferences"),
        (other_graph, "it has 2 graphs"),
        (backwards, "reads or writes out of turn"),
        (no_tensor, "names a tensor that does not exist"),
        (no_code, "has no code"),
        (no_buffer, "values are not in the file"),
        (no_output, "no operator writes its output"),
        (dead_end, "no computed tensor passes"),
        (one_operator, "it has one operator"),
        (per_channel, "need one scale and one zero point"),
        (no_version, "schema version 2"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(
    change: Callable[[Any, Any], None], reason: str
) -> None:
    with pytest.raises(SplitRefused, match=reason) as caught:
        OperatorSequence(changed(change), "model").borders  # noqa: B018  # a property that refuses
    assert str(caught.value).startswith("model cannot be split: ")


@pytest.mark.parametrize(
    "content", [b"", b"no model at all", MODEL[:300], b"\xff" * 4 + b"TFL3" + b"\xff" * 99]
)
def test_files_that_are_no_models_are_refused(content: bytes) -> None:
    with pytest.raises(SplitRefused, match="tflite file"):
        OperatorSequence(content, "model")


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(MODEL) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@example(damage=[(2331, 128)])  # a negative dimension
def test_damaged_models_are_read_or_refused(damage: list[tuple[int, int]]) -> None:
    content = bytearray(MODEL)
    for position, value in damage:
        content[position] = value
    with suppress(SplitRefused):
        sequence = OperatorSequence(bytes(content), "model")
        for border in sequence.borders:
            assert sequence.peak_bytes(0, border.position) > 0
            assert sequence.mac_count(0, border.position) >= 0
            sequence.part(0, border.position)
