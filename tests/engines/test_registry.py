from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.engines.base import EngineConfig, TensorSpec
from aif.engines.registry import MAX_MODEL_BYTES, open_engine, verify_model
from aif.errors import AIFError, EngineError, EngineUnavailable, LengthOrHashMismatch

pytestmark = pytest.mark.integration

RUNTIMES = ("tflite", "tflm")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_verified_model_runs(runtime: str, model: bytes, digest: str) -> None:
    with open_engine(runtime, model, sha256=digest, arena_bytes=8192) as engine:
        assert [str(spec) for spec in engine.outputs] == ["int8[1][4] scale=0.00390625 zero_point=-128"]
        (inputs,) = engine.inputs
        assert (inputs.shape, inputs.dtype) == ((1, 8), "int8")
        assert engine.arena_bytes == (8192 if runtime == "tflm" else 0)
        (output,) = engine.infer([np.zeros((1, 8), np.int8)])
        assert abs(int(output.astype(np.int64).sum()) + 4 * 128 - 256) <= 4  # probabilities sum to 1
        engine.reset()
        assert (engine.infer([np.zeros((1, 8), np.int8)])[0] == output).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("position", [0, 4, 500, -1])
def test_one_changed_byte_is_refused_before_any_parser(
    runtime: str, position: int, model: bytes, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_happen(*_arguments: object, **_named: object) -> None:
        pytest.fail("an engine was given unverified bytes")

    monkeypatch.setattr("aif.engines.tflm.subprocess.Popen", must_not_happen)
    monkeypatch.setattr("aif.engines.tflite.importlib.import_module", must_not_happen)
    damaged = bytearray(model)
    damaged[position] ^= 1
    with pytest.raises(LengthOrHashMismatch) as caught:
        open_engine(runtime, bytes(damaged), sha256=digest, arena_bytes=8192, name="gesture 1.0.0")
    assert str(caught.value) == (
        f"gesture 1.0.0: SHA-256 is {sha256(damaged).hexdigest()}, the signed metadata says {digest}"
    )
    assert "fetch the model from the store again" in caught.value.hint


@pytest.mark.parametrize("wrong", ["", "00", "G" * 64, "A" * 64, "0" * 65, "0" * 64 + "\n"])
def test_a_malformed_digest_is_not_taken(wrong: str, model: bytes) -> None:
    with pytest.raises(EngineError, match="is not a SHA-256 digest"):
        verify_model(model, sha256=wrong)


@pytest.mark.parametrize("content", [b"", bytes(MAX_MODEL_BYTES + 1)])
def test_models_of_absurd_length_are_refused(content: bytes) -> None:
    with pytest.raises(EngineError, match=r"a model file has 1 B to 67,108,864 B"):
        verify_model(content, sha256=sha256(content).hexdigest())


def test_an_unknown_runtime_names_the_known_ones(model: bytes, digest: str) -> None:
    with pytest.raises(EngineUnavailable, match="'onnx'") as caught:
        open_engine("onnx", model, sha256=digest)
    assert caught.value.hint == "known runtimes: tflite, tflm"


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _: [], "takes 1 inputs, got 0"),
        (lambda x: [x, x], "takes 1 inputs, got 2"),
        (lambda x: [x.astype(np.float32)], r"input .* is float32\[1\]\[8\], the model takes int8\[1\]\[8\]"),
        (lambda x: [x[:, :7]], r"is int8\[1\]\[7\]"),
        (lambda x: [x[0]], r"is int8\[8\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_and_the_engine_lives(
    runtime: str, spoil: Callable[[Any], list[Any]], message: str, model: bytes, digest: str
) -> None:
    good = np.ones((1, 8), np.int8)
    with open_engine(runtime, model, sha256=digest, arena_bytes=8192) as engine:
        before = engine.infer([good])[0]
        with pytest.raises(EngineError, match=message):
            engine.infer(spoil(good))
        assert (engine.infer([good])[0] == before).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_closed_engine_says_so(runtime: str, model: bytes, digest: str) -> None:
    engine = open_engine(runtime, model, sha256=digest, arena_bytes=8192)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.infer([np.zeros((1, 8), np.int8)])
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.reset()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("content", [b"junk", bytes(64), b"\x1c\x00\x00\x00TFL3" + bytes(100)])
def test_bytes_that_are_no_model_are_one_clear_error(runtime: str, content: bytes) -> None:
    with pytest.raises(EngineError, match=r"TFLite-Micro|LiteRT"):
        open_engine(runtime, content, sha256=sha256(content).hexdigest(), arena_bytes=8192)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_truncated_models_are_one_clear_error(runtime: str, model: bytes) -> None:
    for length in (100, len(model) // 2, len(model) - 9):
        part = model[:length]
        with pytest.raises(EngineError, match=r"not a readable .tflite file|LiteRT refused the model"):
            open_engine(runtime, part, sha256=sha256(part).hexdigest(), arena_bytes=8192)


def test_exact_kernels_equal_tflite_micro_bit_by_bit(equal_model: bytes) -> None:
    content = equal_model
    rng = np.random.default_rng(3)
    digest = sha256(content).hexdigest()
    with (
        open_engine("tflm", content, sha256=digest, arena_bytes=32768) as small,
        open_engine("tflite", content, sha256=digest, config=EngineConfig(exact=True)) as large,
    ):
        for _ in range(200):
            x = rng.integers(-128, 128, small.inputs[0].shape).astype(np.int8)
            assert (small.infer([x])[0] == large.infer([x])[0]).all()


def details(**changes: object) -> dict[str, object]:
    return {"dtype": "int8", "shape": [1, 2], "scales": [0.5], "zero_points": [1]} | changes


def test_a_tensor_description_is_kept() -> None:
    spec = TensorSpec.from_details(details(), name="x")
    assert spec == TensorSpec("x", (1, 2), "int8", 0.5, 1)
    assert TensorSpec.from_details(details(scales=[], zero_points=[], dtype="float32"), name="x").scale == 0


@pytest.mark.parametrize(
    "bad",
    [
        details(dtype="object"),
        details(shape=[1, 0]),
        details(shape=[-1, 2]),
        details(shape=[1] * 9),
        details(shape=[1 << 40]),
        details(shape="ab"),
        details(shape=None),
        details(scales=[0.5, 0.5], zero_points=[0, 0]),
        details(scales=[0.5], zero_points=[]),
        details(scales=[float("nan")]),
        details(scales=[-1.0]),
        details(zero_points=[float("inf")]),
        {},
    ],
)
def test_tensor_descriptions_that_no_port_can_carry_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(EngineError, match="tensor x"):
        TensorSpec.from_details(bad, name="x")


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
    st.floats(1e-3, 10),
    st.integers(-128, 127),
)
def test_quantisation_is_within_half_a_step_or_clipped(values: list[float], scale: float, zero: int) -> None:
    spec = TensorSpec("x", (3,), "int8", scale, zero)
    codes = spec.quantise(values)
    assert codes.dtype == np.int8
    for value, code, back in zip(values, codes, spec.dequantise(codes), strict=True):
        if -128 < code < 127:
            assert abs(back - value) <= scale * 0.500001
        else:
            assert abs(back - value) <= scale * 0.500001 or (value > back) == (code == 127)


def test_every_engine_error_has_a_code() -> None:
    assert issubclass(EngineUnavailable, AIFError)
    assert EngineUnavailable.code != EngineError.code
