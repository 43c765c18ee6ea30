"""int8 conversion that is measured: a model that lost too much is refused.

Decides: whether an int8 model may be published, and what is reported about it. Does not: train.

Invariants: the int8 figure comes from the real TFLite-Micro engine inside the arena that is recommended for
the model, on examples the training never saw; the float figure comes from the same examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256 as digest_of
from typing import Final

import numpy as np
import numpy.typing as npt

from aif.authoring.int8 import Quantisation, build
from aif.authoring.layers import Layer, forward, mac_count
from aif.engines.arena import smallest_arena
from aif.engines.base import Engine, TensorSpec
from aif.engines.registry import Runtime, open_engine
from aif.errors import ConversionRefused

MAX_LOSS: Final = 0.01
"""Accuracy that an int8 model may lose against its float reference (ratio)."""

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction 0..1 that is done."""
Accuracy = Callable[[npt.NDArray[np.float64]], float]
"""From the real-valued outputs float64[n][K] for the test examples to a ratio 0..1."""


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What the conversion of one model measured.

    Attributes:
        accuracy_float: accuracy of the float reference (ratio).
        accuracy_int8: accuracy of the int8 model in TFLite-Micro (ratio).
        examples: test examples behind both figures; n examples resolve no better than 1/n.
        arena_bytes: recommended arena, margin included.
        smallest_arena_bytes: smallest arena seen to work (64-bit host).
        mac_count: multiply-accumulate operations of one inference.
    """

    accuracy_float: float
    accuracy_int8: float
    examples: int
    arena_bytes: int
    smallest_arena_bytes: int
    mac_count: int


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model ready to be published.

    Attributes:
        name: of the model, lower case with underscores.
        tflite: the file; ``sha256`` is its digest in hexadecimal.
        inputs: its input tensor; ``outputs`` its output tensor.
        report: what the conversion measured.
        labels: meaning of the outputs of a classifier, else empty.
        parameters: what the AIM around the model needs to know, e.g. ``threshold``.
        metrics: further figures on held-out examples (ratios).
    """

    name: str
    tflite: bytes
    sha256: str
    inputs: TensorSpec
    outputs: TensorSpec
    report: ConversionReport
    labels: tuple[str, ...]
    parameters: Mapping[str, float]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """An accepted int8 model, its description, and its real-valued outputs for the test examples."""

    tflite: bytes
    sha256: str
    inputs: TensorSpec
    outputs: TensorSpec
    report: ConversionReport
    test_outputs: npt.NDArray[np.float64]


def convert_checked(
    layers: Sequence[Layer],
    representative: npt.ArrayLike,
    test: npt.ArrayLike,
    accuracy: Accuracy,
    *,
    name: str,
    input_quantisation: Quantisation | None = None,
    output_quantisation: Quantisation | None = None,
    max_loss: float = MAX_LOSS,
) -> Conversion:
    """Quantise a network and measure what that cost.

    Args:
        layers: the float network.
        representative: float[n, ...], training inputs that give the ranges.
        test: float[m, ...], held-out inputs.
        accuracy: judges outputs for ``test``.
        name: of the model, stored in the file and used in messages.
        input_quantisation: coding of the input where a port fixes it.
        output_quantisation: coding of the output where a port fixes it.
        max_loss: accuracy that may be lost (ratio).

    Raises:
        ConversionRefused: more was lost.
        ModelError: the layers cannot be converted.
        EngineError: TFLite-Micro refused the result.
    """
    examples = np.asarray(test, np.float64)
    model = build(
        layers,
        representative,
        input_quantisation=input_quantisation,
        output_quantisation=output_quantisation,
        description=name,
    )
    arena = smallest_arena(model)
    digest = digest_of(model).hexdigest()
    with open_engine(
        Runtime.TFLM, model, sha256=digest, arena_bytes=arena.recommended_bytes, name=name
    ) as engine:
        inputs, outputs = engine.inputs[0], engine.outputs[0]
        test_outputs = run_all(engine, examples)
    report = ConversionReport(
        accuracy_float=accuracy(forward(layers, examples)),
        accuracy_int8=accuracy(test_outputs),
        examples=len(examples),
        arena_bytes=arena.recommended_bytes,
        smallest_arena_bytes=arena.smallest_bytes,
        mac_count=mac_count(layers, examples.shape[1:]),
    )
    if report.accuracy_float - report.accuracy_int8 > max_loss:
        raise ConversionRefused(
            f"{name}: int8 accuracy is {report.accuracy_int8:.3f}, float {report.accuracy_float:.3f} "
            f"(n = {report.examples}): more than {max_loss:g} lost",
            hint="train with clipped inputs, fold pools into the next layer, or use a wider network",
        )
    return Conversion(model, digest, inputs, outputs, report, test_outputs)


def run_all(engine: Engine, examples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Real-valued outputs float64[n][K] of a model with one input and one output, example by example."""
    inputs, outputs = engine.inputs[0], engine.outputs[0]
    rows = [outputs.dequantise(engine.infer([inputs.quantise(x)])[0]).ravel() for x in examples]
    return np.array(rows)


def classification_accuracy(labels: npt.NDArray[np.int64]) -> Accuracy:
    """Share of examples whose largest output is the right one (a single output counts as 1 above 0.5)."""

    def accuracy(outputs: npt.NDArray[np.float64]) -> float:
        found = outputs[:, 0] > 0.5 if outputs.shape[1] == 1 else outputs.argmax(1)
        return float((found == labels).mean())

    return accuracy
