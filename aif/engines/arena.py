"""How large an arena a model needs in TFLite-Micro, found by trying.

Decides: which sizes to try, what margin to recommend, and when a failure is an ``ArenaOverflow``.
Does not: trust the interpreter's own account, which is smaller than what works.

Invariants: every try has a child process of its own, because a too small arena may raise or may kill, and the
outcomes need not be ordered by size; every reported size was seen to load the model and to run it once.
Sizes are those of this host (64-bit pointers): a 32-bit MCU usually needs less and is measured there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from aif.engines.base import DEFAULT_CONFIG, EngineConfig
from aif.engines.tflm import MAX_ARENA_BYTES, MIN_ARENA_BYTES, TFLMEngine
from aif.errors import ArenaOverflow, EngineCrashed, EngineError

STEP_BYTES: Final = 16
"""Alignment of the arena, hence the finest useful answer."""
MARGIN_BYTES: Final = 256
MARGIN_RATIO: Final = 0.02
"""Added to the smallest size that worked: the larger of the two margins."""


@dataclass(frozen=True, slots=True)
class ArenaReport:
    """Result of a search.

    Attributes:
        smallest_bytes: smallest size seen to work.
        recommended_bytes: that size plus the margin, a multiple of 16.
        tries: child processes used.
        crashes: how many of them died instead of refusing.
    """

    smallest_bytes: int
    recommended_bytes: int
    tries: int
    crashes: int


def smallest_arena(model: bytes, *, config: EngineConfig = DEFAULT_CONFIG) -> ArenaReport:
    """Find the smallest arena in which ``model`` (verified bytes) loads and runs once.

    Raises:
        EngineError: the model does not run in any arena, with the reason given for an ample one.
    """
    search = _Search(model, config)
    reason = search.fails(MAX_ARENA_BYTES)
    if reason is not None:
        raise reason
    low, high = MIN_ARENA_BYTES - STEP_BYTES, 4 * MIN_ARENA_BYTES
    while high < MAX_ARENA_BYTES and search.fails(high) is not None:
        low, high = high, 2 * high
    while high - low > max(STEP_BYTES, high // 512):
        middle = (low + high) // 2 // STEP_BYTES * STEP_BYTES
        if search.fails(middle) is None:
            high = middle
        else:
            low = middle
    margin = max(MARGIN_BYTES, int(high * MARGIN_RATIO))
    recommended = -(-(high + margin) // STEP_BYTES) * STEP_BYTES
    return ArenaReport(high, recommended, search.tries, search.crashes)


def open_within_arena(
    model: bytes, arena_bytes: int, *, name: str = "the model", config: EngineConfig = DEFAULT_CONFIG
) -> TFLMEngine:
    """Load a verified model into an arena of exactly ``arena_bytes``.

    Raises:
        ArenaOverflow: the arena is too small; ``needed_bytes`` is a size that was seen to work.
        EngineError: the model cannot be run in any arena.
    """
    if arena_bytes > MAX_ARENA_BYTES:
        raise EngineError(f"{name}: an arena of {arena_bytes:,} B, at most {MAX_ARENA_BYTES:,} B are allowed")
    failure: EngineError | None = None
    if arena_bytes >= MIN_ARENA_BYTES:
        try:
            return TFLMEngine(model, arena_bytes, config)
        except EngineError as error:
            failure = error
    needed = smallest_arena(model, config=config).smallest_bytes
    if failure is not None and needed <= arena_bytes:  # not the arena's fault: say what happened
        raise failure
    raise ArenaOverflow(
        name,
        needed_bytes=needed,
        available_bytes=arena_bytes,
        hint="give the AIM a larger arena in its metadata, or place it on a device with more RAM",
    ) from failure


class _Search:
    """Tries sizes and counts them."""

    def __init__(self, model: bytes, config: EngineConfig) -> None:
        self._model, self._config = model, config
        self.tries = self.crashes = 0

    def fails(self, arena_bytes: int) -> EngineError | None:
        """None if the model loads and runs once in this arena, else the reason."""
        self.tries += 1
        try:
            with TFLMEngine(self._model, arena_bytes, self._config) as engine:
                engine.infer([np.zeros(spec.shape, spec.dtype) for spec in engine.inputs])
        except EngineCrashed as reason:
            self.crashes += 1
            return reason
        except EngineError as reason:
            return reason
        return None
