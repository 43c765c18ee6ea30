from __future__ import annotations

from array import array
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from aif.emulator.engine import LoadedModel
from aif.engines.registry import open_engine
from aif.errors import EngineCrashed, EngineError

VALUES = np.arange(-4, 4, dtype=np.int8)


@pytest.fixture
def loaded(model: bytes) -> Iterator[LoadedModel]:
    with open_engine("tflite", model, sha256=sha256(model).hexdigest()) as engine:
        yield LoadedModel(engine)


@pytest.mark.parametrize(
    "value",
    [
        VALUES,
        VALUES.reshape(1, 8),
        VALUES.reshape(2, 4),
        np.repeat(VALUES, 2)[::2],
        VALUES.tobytes(),
        bytearray(VALUES.tobytes()),
        memoryview(array("b", VALUES.tolist())),
        memoryview(VALUES.tobytes()).cast("b", (4, 2)),
    ],
    ids=["flat", "exact", "other shape", "strided", "bytes", "bytearray", "memoryview", "2-d memoryview"],
)
def test_any_form_of_the_same_elements_gives_the_same_answer(loaded: LoadedModel, value: Any) -> None:
    (expected,) = loaded.infer(VALUES.reshape(1, 8))
    (found,) = loaded.infer(value)
    assert found.dtype == np.int8
    assert found.shape == (1, 4)
    assert (found == expected).all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (VALUES.astype(np.int16), "is int16[8], the model takes int8[1][8]"),
        (VALUES.astype(np.float32), "is float32[8], the model takes int8[1][8]"),
        (VALUES.view(np.uint8), "is uint8[8], the model takes int8[1][8]"),
        (memoryview(VALUES.tobytes()), "is uint8[8], the model takes int8[1][8]"),
        (VALUES[:7], "is int8[7], the model takes int8[1][8]"),
        (VALUES.tobytes()[:7], "is 7 B, the model takes int8[1][8]"),
        (VALUES.tolist(), "is a list, the model takes int8[1][8]"),
        (None, "is a NoneType, the model takes int8[1][8]"),
        (np.int8(1), "is int8, the model takes int8[1][8]"),
    ],
)
def test_what_is_not_the_model_s_input_is_refused_with_both_sides(
    loaded: LoadedModel, value: Any, message: str
) -> None:
    with pytest.raises(EngineError) as caught:
        loaded.infer(value)
    assert message in str(caught.value)


@pytest.mark.parametrize("count", [0, 2])
def test_the_number_of_inputs_is_checked(loaded: LoadedModel, count: int) -> None:
    with pytest.raises(EngineError, match=f"the model takes 1 inputs, got {count}"):
        loaded.infer(*[VALUES] * count)


def test_a_closed_model_says_so(loaded: LoadedModel) -> None:
    loaded.reset()
    loaded.close()
    loaded.close()
    with pytest.raises(EngineCrashed, match="the engine is closed"):
        loaded.infer(VALUES)


def test_the_model_is_described(loaded: LoadedModel) -> None:
    (taken,), (given,) = loaded.inputs, loaded.outputs
    assert (taken.shape, taken.dtype, given.shape, given.dtype) == ((1, 8), "int8", (1, 4), "int8")
