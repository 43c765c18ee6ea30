from __future__ import annotations

from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from aif.authoring.conversion import run_all
from aif.authoring.int8 import PROBABILITY, Quantisation, build
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
    forward,
)
from aif.engines.base import EngineConfig
from aif.engines.registry import open_engine
from aif.errors import ModelError

RNG = np.random.default_rng(7)


def dense(inputs: int, outputs: int, *, relu: bool = False) -> Dense:
    return Dense(RNG.normal(size=(inputs, outputs)) / np.sqrt(inputs), RNG.normal(size=outputs), relu=relu)


def conv(kernel: int, inputs: int, outputs: int, stride: int = 1, *, relu: bool = True) -> Conv1D:
    weights = RNG.normal(size=(kernel, inputs, outputs)) / np.sqrt(kernel * inputs)
    return Conv1D(weights, RNG.normal(size=outputs) / 4, stride=stride, relu=relu)


EQUAL_BYTES = {
    *("pool only"),
    *("convolution last", "linear inside", "non-negative autoencoder"),
}
"""No negative value before a zero point is added: engines that round ties differently agree."""

NETWORKS: dict[str, tuple[list[Layer], tuple[int, ...]]] = {
    "dense": ([dense(12, 5)], (12,)),
    "classifier": ([dense(20, 16, relu=True), dense(16, 8, relu=True), dense(8, 4), Softmax()], (20,)),
    "one probability": ([dense(20, 8, relu=True), dense(8, 1), Sigmoid()], (20,)),
    "linear inside": ([dense(16, 12), dense(12, 8), dense(8, 6, relu=True)], (16,)),
    "autoencoder": ([dense(16, 4), dense(4, 16)], (16,)),
    "non-negative autoencoder": ([dense(16, 4), Dense(RNG.normal(size=(4, 16)), np.full(16, 20.0))], (16,)),
    "convolution": ([conv(5, 3, 8), conv(3, 8, 8, 2), GlobalAveragePool(), dense(8, 3)], (40, 3)),
    "without relu": ([conv(4, 3, 6, 3, relu=False), Flatten(), dense(66, 4), Softmax()], (31, 3)),
    "max pool": ([conv(3, 2, 6), MaxPool1D(4), Flatten(), dense(30, 4)], (23, 2)),
    "mean pool": ([AveragePool1D(5), conv(3, 2, 6), Flatten(), dense(24, 4)], (20, 2)),
    "pool only": ([MaxPool1D(3)], (9, 2)),
    "convolution last": ([conv(3, 2, 2)], (9, 2)),
    "flatten first": ([Flatten(), dense(18, 3)], (9, 2)),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", NETWORKS)
def test_int8_follows_the_float_network_in_both_engines(name: str) -> None:
    layers, shape = NETWORKS[name]
    rng = np.random.default_rng(8)
    sample = rng.normal(size=(200, *shape)).clip(-3, 3)
    test = sample[:60]  # inside the ranges: what is measured is the rounding, not the clipping
    model = build(layers, sample)
    assert build(layers, sample) == model
    digest = sha256(model).hexdigest()
    with (
        open_engine("tflm", model, sha256=digest, arena_bytes=64 << 10) as small,
        open_engine("tflite", model, sha256=digest, config=EngineConfig(exact=True)) as large,
    ):
        found = run_all(small, test)
        for _ in range(400):
            x = rng.integers(-128, 128, small.inputs[0].shape).astype(np.int8)
            step = np.abs(small.infer([x])[0].astype(np.int64) - large.infer([x])[0])
            assert step.max() <= (0 if name in EQUAL_BYTES else 4)
    wanted = forward(layers, test).reshape(len(test), -1)
    assert found.shape == wanted.shape
    span = np.ptp(wanted)
    assert np.abs(found - wanted).max() <= 0.06 * span
    assert np.sqrt(((found - wanted) ** 2).mean()) <= 0.015 * span


@pytest.mark.integration
def test_given_codings_are_in_the_file() -> None:
    coding = Quantisation(1 / 32, 3)
    model = build(
        [dense(6, 6)], RNG.normal(size=(50, 6)), input_quantisation=coding, output_quantisation=coding
    )
    with open_engine("tflm", model, sha256=sha256(model).hexdigest(), arena_bytes=8192) as engine:
        for spec in (*engine.inputs, *engine.outputs):
            assert (spec.scale, spec.zero_point) == (1 / 32, 3)


def test_bias_scale_is_exactly_input_scale_times_weight_scale() -> None:
    layers, shape = NETWORKS["convolution"]
    model = schema.ModelT.InitFromPackedBuf(build(layers, RNG.normal(size=(30, *shape)), description="x"), 0)
    assert model.description == b"x"
    graph = model.subgraphs[0]
    checked = 0
    for operator in graph.operators:
        if len(operator.inputs) == 3:
            x, w, b = (np.array(graph.tensors[n].quantization.scale, np.float32) for n in operator.inputs)
            assert (b == x * w).all()
            checked += 1
    assert checked == 3


def test_probabilities_have_the_coding_their_kernels_require() -> None:
    assert (PROBABILITY.scale, PROBABILITY.zero_point) == (1 / 256, -128)


@given(hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e6, 1e6)))
def test_a_range_coding_holds_its_values_and_zero(values: npt.NDArray[np.float64]) -> None:
    coding = Quantisation.of_range(values)
    codes = np.rint(np.append(values, 0.0) / coding.scale) + coding.zero_point
    assert codes.min() >= -129  # the rounded zero point may cost one step at an end
    assert codes.max() <= 128
    assert (codes[-1] - coding.zero_point) * coding.scale == 0.0


@pytest.mark.parametrize(
    ("scale", "zero_point"), [(0.0, 0), (-1.0, 0), (float("nan"), 0), (1.0, 128), (1.0, -129), (1e-60, 0)]
)
def test_impossible_codings_are_refused(scale: float, zero_point: int) -> None:
    with pytest.raises(ModelError, match="no int8 quantisation"):
        Quantisation(scale, zero_point)


@pytest.mark.parametrize(
    "sample",
    [np.zeros((0, 4)), np.zeros(4), np.zeros((1, 1, 1, 4)), np.full((2, 4), np.nan), np.zeros((5, 3))],
)
def test_samples_that_do_not_fit_are_refused(sample: npt.NDArray[np.float64]) -> None:
    with pytest.raises(ModelError):
        build([dense(4, 2)], sample)


@pytest.mark.parametrize("last", [Softmax(), Sigmoid(), Flatten()])
def test_the_coding_of_an_output_that_has_its_own_is_refused(last: Layer) -> None:
    with pytest.raises(ModelError, match="only a dense or convolution layer"):
        build([dense(4, 2), last], np.ones((3, 4)), output_quantisation=Quantisation(1.0, 0))


def test_a_bias_that_32_bits_cannot_hold_is_refused() -> None:
    layer = Dense(np.full((2, 2), 1e-6), np.full(2, 1e6))
    with pytest.raises(ModelError, match="too large beside the weights"):
        build([layer], np.full((3, 2), 1e-3))
