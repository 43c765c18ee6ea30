"""Child process that owns one TFLite-Micro interpreter. Started by ``aif.engines.tflm``, never imported.

TFLite-Micro may kill its process on a damaged model or a small arena, so it lives here alone.
Decides: nothing. It limits itself, then answers requests until its standard input ends.

Wire format on standard input and output (both ends are this release, so there is no version field), little
endian: request ``uint8 operation, uint32 length``, answer ``uint8 status, uint32 length``, each followed by
``length`` bytes. LOAD carries the model and is answered by JSON that describes the tensors; RUN carries and
returns the raw tensors one after another; RESET carries nothing. An answer with another status is the reason
as UTF-8 text. C code prints to descriptors 1 and 2: the answers use a private copy of 1, which then points
at 2.

Arguments: parent pid, 1 to die with the parent's thread or 0, arena bytes, address space bytes,
processor seconds per request, bytes of standard error kept.
"""

# This file is run by its path in isolated mode and must not import the package it lives in.
from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Final

HEADER: Final = struct.Struct("<BI")
LOAD, RUN, RESET = 1, 2, 3
OK, REFUSED = 0, 1
MAX_REASON_BYTES: Final = 2000
MAX_TENSORS: Final = 64
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_DUMPABLE: Final = 4


def limit_process(parent: int, *, die_with_thread: bool, memory_bytes: int, stderr_bytes: int) -> None:
    """Bound address space and log, forbid core files, and do not outlive the parent."""
    for what, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, stderr_bytes),
    ):
        _soft, hard = resource.getrlimit(what)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)  # noqa: PLW2901 - may not be raised
        resource.setrlimit(what, (value, value))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)  # no core dump, no debugger: the model may be protected
    if die_with_thread and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        raise SystemExit(0)


def allow_cpu(seconds: int) -> None:
    """Let this process use ``seconds`` more of processor time; past that the kernel sends SIGXCPU."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    until = int(time.process_time()) + 1 + seconds
    resource.setrlimit(
        resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard)
    )


class Worker:
    """The interpreter and the tensors it was loaded with."""

    def __init__(self, arena_bytes: int) -> None:
        import numpy as np
        from tflite_micro.python.tflite_micro import runtime

        self._np, self._runtime, self._arena_bytes = np, runtime, arena_bytes
        self._interpreter: Any = None
        self._inputs: list[tuple[Any, tuple[int, ...], int]] = []
        self._output_count = 0

    def load(self, model: bytes) -> bytes:
        try:
            interpreter = self._runtime.Interpreter.from_bytes(model, arena_size=self._arena_bytes)
        except RuntimeError:
            raise
        except Exception as error:  # the schema reader raises whatever it stumbles over
            raise ValueError(f"not a readable .tflite file ({type(error).__name__}: {error})") from error
        inputs = self._describe(interpreter.get_input_details)
        outputs = self._describe(interpreter.get_output_details)
        self._inputs = []
        for details in inputs:
            dtype, shape = self._np.dtype(details["dtype"]), tuple(details["shape"])
            count = 1
            for dimension in shape:
                count *= dimension
            self._inputs.append((dtype, shape, count * dtype.itemsize))
        self._interpreter, self._output_count = interpreter, len(outputs)
        return json.dumps({"inputs": inputs, "outputs": outputs}).encode()

    def run(self, raw: bytes) -> bytes:
        start = 0
        for index, (dtype, shape, size) in enumerate(self._inputs):
            self._interpreter.set_input(
                self._np.frombuffer(raw[start : start + size], dtype).reshape(shape), index
            )
            start += size
        self._interpreter.invoke()
        return b"".join(self._interpreter.get_output(n).tobytes() for n in range(self._output_count))

    def reset(self, _raw: bytes) -> bytes:
        self._interpreter.reset()
        return b""

    def _describe(self, get: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with contextlib.suppress(IndexError):  # the only way to learn how many there are
            while len(found) <= MAX_TENSORS:
                details = get(len(found))
                quantisation = details["quantization_parameters"]
                found.append(
                    {
                        "dtype": self._np.dtype(details["dtype"]).name,
                        "shape": [int(d) for d in details["shape"]],
                        "scales": [float(v) for v in quantisation["scales"]],
                        "zero_points": [int(v) for v in quantisation["zero_points"]],
                    }
                )
        return found


def read_exactly(source: BinaryIO, count: int) -> bytes:
    """``count`` bytes, or the end of the process when the parent is gone."""
    data = source.read(count)
    if len(data) != count:
        raise SystemExit(0)
    return data


def serve(arena_bytes: int, cpu_s: int) -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    allow_cpu(cpu_s)
    worker = Worker(arena_bytes)
    operations = {LOAD: worker.load, RUN: worker.run, RESET: worker.reset}
    while True:
        operation, length = HEADER.unpack(read_exactly(requests, HEADER.size))
        raw = read_exactly(requests, length)
        allow_cpu(cpu_s)
        try:
            status, answer = OK, operations[operation](raw)
        except Exception as error:  # noqa: BLE001 - whatever the interpreter raises is the answer
            status = REFUSED
            answer = (str(error) or type(error).__name__).encode(errors="replace")[:MAX_REASON_BYTES]
        answers.write(HEADER.pack(status, len(answer)) + answer)
        answers.flush()


def main(arguments: list[str]) -> None:
    """Limit this process, then serve."""
    parent, die_with_thread, arena_bytes, memory_bytes, cpu_s, stderr_bytes = map(int, arguments)
    limit_process(
        parent, die_with_thread=bool(die_with_thread), memory_bytes=memory_bytes, stderr_bytes=stderr_bytes
    )
    serve(arena_bytes, cpu_s)


if __name__ == "__main__":
    main(sys.argv[1:])
