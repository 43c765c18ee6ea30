"""A trial: a few inferences of a model that was just installed, before anything relies on it.

Decides what is fed, which results count as sound, and how a trial is watched from outside. Does not decide
what follows: ``model_service`` keeps the release before in force unless the trial was passed.

Invariants: inputs depend on nothing but their shape, so a release that passes once passes again; a model
that aborts or hangs in ``run_apart`` takes only a child process with it; number, type and shape of results
are checked. There are no expected answers: whether a model is any good is tested where it is made.

Source: trial boots of the PSA Firmware Update API 1.0 §4 (TRIAL, accept, reject).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import prod
from typing import TYPE_CHECKING, Any, Final, Protocol

from aif.errors import AIFError, EngineCrashed, EngineError

if TYPE_CHECKING:
    import numpy.typing as npt

INFERENCES: Final = 4
"""One with every element at its lowest, one at its highest, the others random."""

LIMIT_S: Final = 15.0
"""Longest time for loading and all inferences of a trial; then the model counts as hung."""

_ANSWER_BYTES: Final = 16 << 10
_SEED: Final = 20
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_SOUND, _REFUSED = b"\0", b"\1"


class Spec(Protocol):
    """An input or output, as an inference engine describes it."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...


Infer = Callable[[Sequence[Any]], Sequence[Any]]
"""One inference: a tensor per input, a tensor per output."""


def try_model(
    inputs: Sequence[Spec], outputs: Sequence[Spec], infer: Infer, inferences: int = INFERENCES
) -> str:
    """Run a model on inputs of its own description.

    Returns:
        What it takes and gives, such as ``int8[1][49] -> int8[1][4]``.

    Raises:
        EngineError: a result is not what the model says of itself, or the engine refused.
    """
    import numpy as np

    for tensors in sample_inputs(inputs, inferences):
        results = infer(tensors)
        if len(results) != len(outputs):
            raise EngineError(f"the model gave {len(results)} results, it says {len(outputs)}")
        for result, spec in zip(results, outputs, strict=True):
            found = np.asarray(result)
            if (found.dtype, found.shape) != (np.dtype(spec.dtype), tuple(spec.shape)):
                raise EngineError(
                    f"output {spec.name} came as {_text(str(found.dtype), found.shape)}, the model says "
                    f"{_text(spec.dtype, spec.shape)}"
                )
    return interface(inputs, outputs)


def sample_inputs(specs: Sequence[Spec], count: int) -> Iterator[list[npt.NDArray[Any]]]:
    """``count`` sets of inputs: the lowest values, the highest, then random ones; floats from -1 to 1."""
    import numpy as np

    rng = np.random.default_rng(_SEED)
    for number in range(count):
        tensors = []
        for spec in specs:
            dtype = np.dtype(spec.dtype)
            low, high = (-1, 1) if dtype.kind == "f" else (0, 1)
            if dtype.kind in "iu":
                low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            if number < 2:  # the two ends of the range
                tensor = np.full(spec.shape, (low, high)[number], dtype)
            elif dtype.kind in "iu":
                count_bytes = dtype.itemsize * prod(spec.shape)
                tensor = np.frombuffer(rng.bytes(count_bytes), dtype).reshape(spec.shape)
            else:
                drawn = rng.uniform(-1.0, 1.0, spec.shape)
                tensor = (drawn > 0) if dtype.kind == "b" else drawn.astype(dtype)
            tensors.append(tensor)
        yield tensors


def interface(inputs: Sequence[Spec], outputs: Sequence[Spec]) -> str:
    """Types and shapes on both sides, in order."""
    return " -> ".join(
        ", ".join(_text(spec.dtype, spec.shape) for spec in side) for side in (inputs, outputs)
    )


def _text(dtype: str, shape: Sequence[int]) -> str:
    return dtype + "".join(f"[{size}]" for size in shape)


def run_apart(work: Callable[[], str], *, limit_s: float = LIMIT_S) -> str:
    """Do something in a copy of this process, which may die of it.

    For a process with one thread, as the Security Engine's: a copy has the calling thread only.

    Args:
        work: what it returns is the result, at most 16 KiB as UTF-8.
        limit_s: after it the copy is killed.

    Raises:
        EngineCrashed: it died or did not end in time.
        EngineError: ``work`` raised; the text is that of the error where it is one of ours.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _work_in_child(work, writer)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        try:
            answer = _read_until(pipe.fileno(), time.monotonic() + limit_s)
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)  # it has said all, or says no more
            _, status = os.waitpid(child, 0)
    if answer is None:
        raise EngineCrashed(f"the model did not end its trial within {limit_s:g} s")
    if answer[:1] == _SOUND:
        return answer[1:].decode(errors="replace")
    if answer[:1] == _REFUSED:
        raise EngineError(answer[1:].decode(errors="replace"))
    how = (
        signal.Signals(os.WTERMSIG(status)).name
        if os.WIFSIGNALED(status)
        else f"exit {os.WEXITSTATUS(status)}"
    )
    raise EngineCrashed(f"the model ended its process in its trial ({how})")


def _work_in_child(work: Callable[[], str], writer: int) -> None:
    """Never returns: nothing of the copied process may run on."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            answer = _SOUND + work().encode()
        except AIFError as error:
            answer = _REFUSED + str(error).encode()
        except Exception as error:  # noqa: BLE001  # its text may hold what it was about
            answer = _REFUSED + f"unforeseen {type(error).__name__}".encode()
        os.write(writer, answer[:_ANSWER_BYTES])
    finally:
        os._exit(0)


def _read_until(descriptor: int, deadline_s: float) -> bytes | None:
    """What comes before the end of the stream; None when the time is over first."""
    data = b""
    while True:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
            return None
        piece = os.read(descriptor, _ANSWER_BYTES)
        if not piece or len(data) > _ANSWER_BYTES:
            return data
        data += piece
