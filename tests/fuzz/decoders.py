"""Every decoder of the project by name, and how a worker process feeds one."""

from __future__ import annotations

import faulthandler
import itertools
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final

from tests.fuzz import files, frames, services, sockets, trust
from tests.fuzz.campaign import Decoder, Tally, fuzz

DECODERS: Mapping[str, Callable[[Path], Decoder]] = {
    **frames.FACTORIES,
    **trust.FACTORIES,
    **files.FACTORIES,
    **services.FACTORIES,
    **sockets.FACTORIES,
}
"""A factory gets an empty folder of its own."""

EXPENSIVE: Final = (
    "deployment", "document:Deployment", "package", "yaml:aim", "yaml:aiw", "yaml:inventory",
    "store metadata",
)  # fmt: skip
"""Decoders that take more than half a millisecond for an input, in the order of what they take."""

STUCK_S: Final = 1_800
"""A portion that has not ended after this long shows where it hangs, and ends its process."""


def feed(name: str, folder: Path, batches: Iterable[int], batch_inputs: int, seed: int = 0) -> Tally:
    """Some batches to a decoder of its own.

    Raises:
        DecoderDefect: as ``fuzz``.
    """
    decoder = DECODERS[name](folder)
    try:
        return fuzz(decoder, batches=batches, batch_inputs=batch_inputs, seed=seed)
    finally:
        decoder.close()


def portion(name: str, first: int, batches: int, batch_inputs: int, seed: int) -> Tally:
    """Some consecutive batches of one decoder; fewer when the campaign is stopped.

    Raises:
        DecoderDefect: as ``fuzz``.
    """
    faulthandler.dump_traceback_later(STUCK_S, exit=True)
    try:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            numbers = _until_stopped(range(first, first + batches))
            return feed(name, Path(folder), numbers, batch_inputs, seed)
    finally:
        faulthandler.cancel_dump_traceback_later()


_stopping: list[Event] = []
"""In a worker process: the event that ends its portions early."""


def begin_worker(stopping: Event) -> None:
    """Ctrl-C reaches a whole group of processes; the parent alone answers it, with the event."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stopping.append(stopping)


def _until_stopped(batches: Iterable[int]) -> Iterator[int]:
    return itertools.takewhile(lambda _: not any(event.is_set() for event in _stopping), batches)


def cheapest_first(names: Iterable[str]) -> list[str]:
    """So that a campaign that is cut short has fed most of the decoders completely."""
    return sorted(names, key=lambda name: EXPENSIVE.index(name) if name in EXPENSIVE else -1)


def repeat(name: str, data: bytes) -> str:
    """Feed one input to a fresh decoder; what it should not do reaches the caller."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        decoder = DECODERS[name](Path(folder))
        try:
            decoder.open()(data)
        except decoder.refusals as error:
            return f"{name} refuses it: {type(error).__name__}: {error}"
        finally:
            decoder.close()
    return f"{name} accepts it"
