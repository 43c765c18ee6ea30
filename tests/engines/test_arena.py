from __future__ import annotations

import pytest

from aif.engines.arena import MARGIN_BYTES, STEP_BYTES, smallest_arena
from aif.engines.tflm import TFLMEngine
from aif.errors import EngineError

pytestmark = pytest.mark.integration


def test_the_reported_sizes_work_and_smaller_ones_do_not(model: bytes) -> None:
    report = smallest_arena(model)
    for size in (report.smallest_bytes, report.recommended_bytes):
        TFLMEngine(model, size).close()
    with pytest.raises(EngineError):
        TFLMEngine(model, report.smallest_bytes - STEP_BYTES)
    assert report.recommended_bytes >= report.smallest_bytes + MARGIN_BYTES
    assert report.recommended_bytes % STEP_BYTES == 0
    assert report.tries > report.crashes >= 0


def test_a_model_with_larger_activations_needs_more(model: bytes, large_model: bytes) -> None:
    assert smallest_arena(large_model).smallest_bytes > smallest_arena(model).smallest_bytes + 2048


def test_what_runs_in_no_arena_gives_the_reason() -> None:
    with pytest.raises(EngineError, match=r"not a readable .tflite file"):
        smallest_arena(b"junk")
