"""Chooses where a model is cut, measures what each part needs, and proves that the chain answers alike.

Decides: which borders are used for what was asked (positions, a number of parts, limits of memory). Does not:
read or cut the file (``sequence``), write contracts (``split_aims``).

Invariants: arenas are measured in TFLite-Micro, as everywhere; a ``Split`` exists only if its parts, one
after the other in TFLite-Micro, gave the bytes of the whole for every one of ``PROOFS`` inputs. Cuts chosen
here cross in messages that a microcontroller takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from math import comb
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aif.authoring.sequence import Border, OperatorSequence, steps
from aif.engines.arena import smallest_arena
from aif.engines.base import Engine, TensorSpec
from aif.engines.registry import Runtime, open_engine
from aif.errors import SplitRefused
from aif.model.ports import DEFAULT_QUEUE_DEPTH
from aif.protocol.message import HEADER
from aif.protocol.numbers import MCU_LIMITS

PROOFS: Final = 32
"""Inputs on which chain and whole are compared, extreme ones among them."""
MAX_CROSSING_BYTES: Final = MCU_LIMITS.max_message_bytes - HEADER.size
"""Largest tensor that fits a message to a microcontroller."""
STACK_BYTES: Final = 768
"""Assumed for stack and buffers of a model's AIM, beside its arena."""
QUEUE_DEPTH: Final = 4
"""Tensors that wait before each part but the first."""
MAX_PARTS: Final = 16
_MAX_CHOICES: Final = 20_000

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction 0..1 that is done."""


@dataclass(frozen=True, slots=True)
class Part:
    """Operators ``first`` to ``last - 1`` of a model (counted from 0) as a model of its own.

    Attributes:
        model: the .tflite file.
        arena_bytes: measured arena with its margin.
        mac_count: multiply-accumulates of one inference.
        inputs: tensor that it takes; ``outputs`` the tensor that it gives.
    """

    first: int
    last: int
    model: bytes
    arena_bytes: int
    mac_count: int
    inputs: TensorSpec
    outputs: TensorSpec

    @property
    def sha256(self) -> str:
        return sha256(self.model).hexdigest()


@dataclass(frozen=True, slots=True)
class Limits:
    """What one part may take; None for no limit."""

    ram_bytes: int | None = None
    model_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """A model and the chain of parts that gives the same bytes; ``cuts`` are positions of borders."""

    name: str
    whole: Part
    cuts: tuple[int, ...]
    parts: tuple[Part, ...]


class Splitter:
    """One model, its borders, and what was measured of its parts so far.

    Args:
        model: bytes of the .tflite file.
        name: of the model.
        stack_bytes: RAM of an AIM around a model, beside the arena.
        queue_depth: tensors that may wait before the whole.
        progress: told what is being done.
    """

    def __init__(
        self,
        model: bytes,
        name: str,
        *,
        stack_bytes: int = STACK_BYTES,
        queue_depth: int = DEFAULT_QUEUE_DEPTH,
        progress: Progress = lambda _step, _fraction: None,
    ) -> None:
        self._model, self._progress = model, progress
        self._stack_bytes, self._queue_depth = stack_bytes, queue_depth
        self.sequence = OperatorSequence(model, name)
        self._parts: dict[tuple[int, int], Part] = {}

    @property
    def operator_count(self) -> int:
        return len(self.sequence.operators)

    def whole(self) -> Part:
        """The model itself, measured; its bytes are the given ones."""
        return self.part(0, self.operator_count)

    def part(self, first: int, last: int) -> Part:
        """Cut out and measure; what was measured once is remembered.

        Raises:
            EngineError: TFLite-Micro cannot run it, with the reason.
        """
        if (first, last) not in self._parts:
            sequence = self.sequence
            everything = (first, last) == (0, self.operator_count)
            model = self._model if everything else sequence.part(first, last)
            tensors = {border.position: border.tensor for border in sequence.borders}
            tensors |= {0: sequence.input, self.operator_count: sequence.output}
            arena = smallest_arena(model).recommended_bytes
            macs = sequence.mac_count(first, last)
            made = Part(first, last, model, arena, macs, tensors[first], tensors[last])
            self._parts[first, last] = made
        return self._parts[first, last]

    def halves(self) -> list[tuple[Border, Part, Part]]:
        """Every border with the part before it and the part after it."""
        rows = []
        for number, border in enumerate(self.sequence.borders):
            self._progress("measuring", number / len(self.sequence.borders))
            at = border.position
            rows.append((border, self.part(0, at), self.part(at, self.operator_count)))
        self._progress("measuring", 1.0)
        return rows

    def at(self, positions: Iterable[int]) -> Split:
        """Cut at these borders.

        Raises:
            SplitRefused: there is no border at one of them, or the chain answered differently.
        """
        cuts = tuple(sorted(set(positions)))
        known = [border.position for border in self.sequence.borders]
        wrong = [position for position in cuts if position not in known]
        if wrong or not cuts:
            raise self._refused(
                f"there is no cut {wrong[0]}" if wrong else "no cut is named",
                hint="possible cuts: " + ", ".join(map(str, known)),
            )
        parts = []
        for number, (first, last) in enumerate(spans := steps(cuts, self.operator_count)):
            self._progress("measuring the parts", number / len(spans))
            parts.append(self.part(first, last))
        split = Split(self.sequence.name, self.whole(), cuts, tuple(parts))
        self._progress("comparing with the whole", 0.0)
        self._prove(split)
        return split

    def into(self, count: int) -> Split:
        """Cut into ``count`` parts so that the largest peak of computed tensors is as small as possible.

        Of equals the one whose largest file is smallest, then the one with the fewest bytes on the way.

        Raises:
            SplitRefused: there are too few borders, or too many combinations of them.
        """
        sizes = {border.position: border.tensor.size_bytes for border in self._portable()}
        if not 2 <= count <= min(MAX_PARTS, len(sizes) + 1):
            most = min(MAX_PARTS, len(sizes) + 1)
            raise self._refused(
                f"{count} parts are not possible, 2 to {most} are",
                hint="each part needs a cut of its own; aif split without options lists them",
            )
        if comb(len(sizes), count - 1) > _MAX_CHOICES:
            raise self._refused(
                f"{len(sizes)} cuts allow too many ways to make {count} parts",
                hint="name the cuts with --at, or limits with --max-ram and --max-flash",
            )
        files: dict[tuple[int, int], tuple[int, int]] = {}

        def cost(cuts: Iterable[int]) -> tuple[int, int, int]:
            spans = steps(cuts, self.operator_count)
            for span in spans:
                if span not in files:
                    files[span] = self.sequence.peak_bytes(*span), len(self.sequence.part(*span))
            peaks, lengths = zip(*(files[span] for span in spans), strict=True)
            return max(peaks), max(lengths), sum(sizes[cut] for cut in cuts)

        return self.at(min(combinations(sizes, count - 1), key=cost))

    def within(self, limits: Limits) -> Split:
        """Cut into parts that keep the limits: as few as possible, each as long as it can be.

        A part of a part is taken to need no more than the part.

        Raises:
            SplitRefused: the whole keeps the limits already, or what lies between two borders breaks them.
        """
        if self._keeps(self.whole(), limits):
            raise self._refused("the whole keeps these limits already", hint="use it as it is")
        stops = [*(border.position for border in self._portable()), self.operator_count]
        cuts: list[int] = []
        first = 0
        while first < self.operator_count:
            later = [stop for stop in stops if stop > first]
            if not self._keeps(self.part(first, later[0]), limits):
                raise self._too_large(self.part(first, later[0]), limits)
            low, high = 0, len(later)  # later[low] keeps them, later[high] does not or does not exist
            while high - low > 1:
                middle = (low + high) // 2
                if self._keeps(self.part(first, later[middle]), limits):
                    low = middle
                else:
                    high = middle
            first = later[low]
            cuts.append(first)
        if len(cuts) > MAX_PARTS:
            raise self._refused(f"{len(cuts)} parts would be needed, at most {MAX_PARTS} are possible")
        return self.at(cuts[:-1])

    def _portable(self) -> list[Border]:
        found = [b for b in self.sequence.borders if b.tensor.size_bytes <= MAX_CROSSING_BYTES]
        if not found:
            raise self._refused(
                f"at every cut more than {MAX_CROSSING_BYTES:,} B cross, which no microcontroller takes",
                hint="for larger devices name the cut with --at",
            )
        return found

    def _ram_bytes(self, part: Part) -> int:
        """Arena, stack, and the tensors that wait before it."""
        waiting = QUEUE_DEPTH if part.first else self._queue_depth
        return part.arena_bytes + self._stack_bytes + waiting * part.inputs.size_bytes

    def _keeps(self, part: Part, limits: Limits) -> bool:
        ram, model = limits.ram_bytes, limits.model_bytes
        return (ram is None or self._ram_bytes(part) <= ram) and (model is None or len(part.model) <= model)

    def _too_large(self, part: Part, limits: Limits) -> SplitRefused:
        ram, flash = self._ram_bytes(part), len(part.model)
        kinds = ", ".join(self.sequence.operators[part.first : part.last])
        asked = [f"{limits.ram_bytes:,} B of RAM"] if limits.ram_bytes is not None else []
        asked += [f"{limits.model_bytes:,} B of flash"] if limits.model_bytes is not None else []
        return self._refused(
            f"operators {part.first + 1} to {part.last} ({kinds}) alone take {ram:,} B of RAM "
            f"and {flash:,} B of flash, {' and '.join(asked)} are allowed",
            hint="raise the limit to at least that; no cut lies between them",
        )

    def _prove(self, split: Split) -> None:
        with ExitStack() as stack:
            whole = stack.enter_context(_opened(split.whole))
            chain = [stack.enter_context(_opened(part)) for part in split.parts]
            for inputs in _inputs(split.whole.inputs):
                wanted, found = whole.infer([inputs])[0], inputs
                for engine in chain:
                    found = engine.infer([found])[0]
                if found.tobytes() != wanted.tobytes():
                    raise self._refused(
                        f"cut at {', '.join(map(str, split.cuts))} it answers differently from the whole",
                        hint="cut elsewhere; an operator of this model depends on more than its inputs",
                    )

    def _refused(self, reason: str, *, hint: str = "") -> SplitRefused:
        return SplitRefused(f"{self.sequence.name} cannot be split so: {reason}", hint=hint)


def _opened(part: Part) -> Engine:
    name = f"operators {part.first} to {part.last - 1}"
    return open_engine(Runtime.TFLM, part.model, sha256=part.sha256, arena_bytes=part.arena_bytes, name=name)


def _inputs(spec: TensorSpec) -> list[npt.NDArray[Any]]:
    """The smallest, largest and middle value everywhere, then seeded noise over the whole range."""
    rng, dtype = np.random.default_rng(0), np.dtype(spec.dtype)
    if dtype.kind == "f":
        noise = rng.normal(size=(PROOFS - 1, *spec.shape))
        return [np.zeros(spec.shape, dtype), *noise.astype(dtype)]
    limits = np.iinfo(dtype)
    flat = [np.full(spec.shape, value, dtype) for value in (limits.min, limits.max, spec.zero_point)]
    return [*flat, *rng.integers(limits.min, limits.max, (PROOFS - 3, *spec.shape), dtype, endpoint=True)]


__all__ = ["Limits", "Part", "Split", "Splitter"]
