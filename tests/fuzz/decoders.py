"""Every decoder of the project by name, and how a worker process feeds one."""

from __future__ import annotations

import faulthandler
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.fuzz import files, frames, trust
from tests.fuzz.campaign import Decoder, Tally, fuzz

DECODERS: Mapping[str, Callable[[Path], Decoder]] = {**frames.FACTORIES, **trust.FACTORIES, **files.FACTORIES}
"""A factory gets an empty folder of its own."""

STUCK_S: Final = 1_800
"""A portion that has not ended after this long shows where it hangs, and ends its process."""


def portion(name: str, first: int, batches: int, batch_inputs: int, seed: int) -> Tally:
    """Some consecutive batches of one decoder.

    Raises:
        DecoderDefect: as ``fuzz``.
    """
    faulthandler.dump_traceback_later(STUCK_S, exit=True)
    try:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            decoder = DECODERS[name](Path(folder))
            return fuzz(decoder, batches=range(first, first + batches), batch_inputs=batch_inputs, seed=seed)
    finally:
        faulthandler.cancel_dump_traceback_later()
