"""No public decoder without a fuzzer, and no fuzzer that is said to feed what it never runs."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from tests.fuzz.campaign import DecoderDefect
from tests.fuzz.decoders import DECODERS, feed
from tests.fuzz.registry import ALSO_FED, FED, NOT_OUTSIDE, public_decoders

INPUTS = 60

BY_FUZZER: dict[str, list[str]] = defaultdict(list)
for _decoder, _fuzzer in {**FED, **ALSO_FED}.items():
    BY_FUZZER[_fuzzer].append(_decoder)


def test_every_public_decoder_has_a_fuzzer_or_a_reason() -> None:
    found = set(public_decoders())
    unknown = sorted(found - FED.keys() - NOT_OUTSIDE.keys())
    assert not unknown, f"write a fuzzer for {unknown}, or say in tests/fuzz/registry.py why none is needed"
    gone = sorted((FED.keys() | NOT_OUTSIDE.keys()) - found)
    assert not gone, f"renamed or removed: {gone}"
    assert not FED.keys() & NOT_OUTSIDE.keys()


def test_every_fuzzer_is_known() -> None:
    assert set(BY_FUZZER) <= set(DECODERS)


@pytest.mark.parametrize("fuzzer", sorted(BY_FUZZER))
def test_a_fuzzer_runs_the_decoders_it_is_said_to_feed(fuzzer: str, tmp_path: Path) -> None:
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            seen.add(frame.f_code)

    sys.setprofile(note)
    try:
        feed(fuzzer, tmp_path, range(1), INPUTS)
    except DecoderDefect:
        pass  # told by another test
    finally:
        sys.setprofile(None)
    assert [name for name in BY_FUZZER[fuzzer] if _code(name) not in seen] == []


def _code(name: str) -> CodeType:
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            found = getattr(found, part)
        function = inspect.unwrap(getattr(found, "__func__", found))
        code: CodeType = function.__code__
        return code
    raise LookupError(name)
