"""Runs inputs through a decoder and judges it: only its documented refusals, bounded time, no growing memory.

Inputs come in batches; a batch is determined by decoder, seed and number, so whatever it finds is found
again. Each batch gets a freshly opened decoder, which may keep state (a receiver, a cache) inside a batch.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.fuzz.inputs import damaged, noise

BATCH_INPUTS: Final = 500
SLOWEST_S: Final = 5.0
"""CPU time one input may take: far above anything seen, far below what a flood of them needs."""

GROWTH_BYTES: Final = 64 << 20
"""Peak memory that a campaign may add after its first batches."""

WARM_UP_BATCHES: Final = 4


@dataclass(frozen=True, slots=True)
class Decoder:
    """One decoder and how to feed it.

    Attributes:
        name: what is decoded.
        seeds: valid inputs, to be damaged.
        open: a function that takes one input; it may check properties of what was accepted.
        refusals: the errors it documents; everything else is a defect.
        craft: structure-aware inputs: well-formed outside, wrong inside. Without it, damage only.
        close: gives back what the decoder holds, such as a socket.
    """

    name: str
    seeds: tuple[bytes, ...]
    open: Callable[[], Callable[[bytes], object]]
    refusals: tuple[type[Exception], ...]
    craft: Callable[[Random], bytes] | None = None
    close: Callable[[], None] = lambda: None


class DecoderDefect(AssertionError):  # noqa: N818  # what was found is the news, not that it is an error
    """A decoder did what it must not do; the text tells how to see it again.

    Attributes:
        data: the input at fault; empty when the fault is that of many inputs.
    """

    def __init__(self, text: str, data: bytes = b"") -> None:
        super().__init__(text, data)  # both, so that it survives the way out of a worker process
        self.data = data

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of some inputs.

    Attributes:
        inputs: how many were fed.
        accepted: how many were not refused.
        slowest_s: CPU time of the slowest input.
        grown_bytes: memory added after the first batches.
        cpu_s: CPU time of all, making the inputs included.
        refused: how many of them by class of error.
        slowest: the slowest input itself.
    """

    inputs: int = 0
    accepted: int = 0
    slowest_s: float = 0.0
    grown_bytes: int = 0
    cpu_s: float = 0.0
    refused: Mapping[str, int] = field(default_factory=dict)
    slowest: bytes = b""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.inputs + other.inputs,
            self.accepted + other.accepted,
            max(self.slowest_s, other.slowest_s),
            max(self.grown_bytes, other.grown_bytes),
            self.cpu_s + other.cpu_s,
            dict(Counter(self.refused) + Counter(other.refused)),
            max(self, other, key=lambda tally: tally.slowest_s).slowest,
        )


def without_folder(make: Callable[[], Decoder]) -> Callable[[Path], Decoder]:
    """A factory for a decoder that needs no folder."""
    return lambda _folder: make()


def inputs(decoder: Decoder, rng: Random, count: int) -> Iterator[bytes]:
    """Random, damaged and crafted inputs, mixed; the valid ones come first."""
    yield from decoder.seeds[:count]
    for _ in range(count - len(decoder.seeds)):
        kind = rng.random()
        if kind < 0.1:
            yield noise(rng)
        elif kind < 0.5 or decoder.craft is None:
            yield damaged(rng, decoder.seeds)
        else:
            yield decoder.craft(rng)


def fuzz(
    decoder: Decoder, *, batches: Iterable[int], batch_inputs: int = BATCH_INPUTS, seed: int = 0
) -> Tally:
    """Feed whole batches.

    Raises:
        DecoderDefect: another error than documented, too much time, or memory that grows.
    """
    tally, baseline = Tally(), None
    for number, batch in enumerate(batches):
        if number == WARM_UP_BATCHES:
            baseline = _peak_bytes()
        tally += _one_batch(decoder, batch, batch_inputs, seed)
    if baseline is not None:
        grown = max(0, _peak_bytes() - baseline)
        if grown > GROWTH_BYTES:
            raise DecoderDefect(f"{decoder.name}: memory grew by {grown:,} B over {tally.inputs:,} inputs")
        tally += Tally(grown_bytes=grown)
    return tally


def _one_batch(decoder: Decoder, batch: int, batch_inputs: int, seed: int) -> Tally:
    rng = Random(f"{decoder.name} {seed} {batch}")
    feed = decoder.open()
    refused: Counter[str] = Counter()
    slowest_s, slowest = 0.0, b""
    began = before = time.thread_time()
    for data in inputs(decoder, rng, batch_inputs):
        made = time.thread_time()
        try:
            feed(data)
        except decoder.refusals as error:
            refused[type(error).__name__] += 1
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise DecoderDefect(f"{_story(decoder, batch, seed, data)} raised {what}", data) from error
        before = time.thread_time()
        if before - made > slowest_s:
            slowest_s, slowest = before - made, data
            if slowest_s > SLOWEST_S:
                story = _story(decoder, batch, seed, data)
                raise DecoderDefect(f"{slowest_s:.1f} s of CPU time; {story}", data)
    accepted = batch_inputs - refused.total()
    return Tally(batch_inputs, accepted, slowest_s, 0, before - began, dict(refused), slowest)


def _story(decoder: Decoder, batch: int, seed: int, data: bytes) -> str:
    shown = data.hex() if len(data) <= 2_000 else f"{data[:2_000].hex()}… ({len(data):,} B)"
    return f"{decoder.name}, seed {seed}, batch {batch}, input {shown}"


def _peak_bytes() -> int:
    """The most memory this process has held, so that neither a leak nor one greedy input escapes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
