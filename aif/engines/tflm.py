"""TFLite-Micro in a child process: the answers and the memory of an MCU, on a host.

Decides: how a child is started, limited, asked, and how its end is explained.
Does not: size arenas (``arena``), check digests (``registry``), restart a child (its owner
opens another engine).

Invariants:
    * No byte of a model is parsed in this process, and what the child answers is checked like any other
      input: lengths are bounded, descriptions verified. A child that dies, hangs or lies costs one
      ``EngineError``.
    * Every way out gives back the process, both pipes and the log.
    * A child inherits no environment beyond a fixed list, no descriptors, and no terminal signals.

If the engine is opened from the main thread the child also dies with it (``PR_SET_PDEATHSIG``, which follows
the *thread* that started the child, hence not from others); from any other thread it ends when its standard
input does, at the latest after the request it is working on.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np
import numpy.typing as npt

from aif.engines import tflm_child as child
from aif.engines.base import DEFAULT_CONFIG, MAX_TENSORS, EngineConfig, TensorSpec, check_inputs
from aif.errors import EngineCrashed, EngineError, EngineUnavailable

MIN_ARENA_BYTES: Final = 512
"""Below this the interpreter is known to write outside its arena instead of refusing it."""
MAX_ARENA_BYTES: Final = 64 << 20
"""More than any MCU has; also keeps a typing error from asking for gigabytes."""
STDERR_BYTES: Final = 1 << 20
"""Standard error kept of one child, enforced by the kernel (RLIMIT_FSIZE)."""

_MAX_DESCRIPTION_BYTES: Final = 64 << 10
_MAX_MESSAGE_CHARACTERS: Final = 200
_MESSAGE_TAIL_BYTES: Final = 4096
_INHERITED_ENVIRONMENT: Final = ("LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR")
_MISSING_OPERATOR: Final = ("Didn't find op", "Failed to get registration")


class TFLMEngine:
    """One model in one child process.

    Args:
        model: bytes of a .tflite file, already verified.
        arena_bytes: size of the tensor arena.
        config: limits; ``threads`` and ``exact`` have no meaning here (one thread, always exact).

    Raises:
        EngineUnavailable: tflite-micro is not installed.
        EngineError: the model was refused, with the interpreter's own reason.
        EngineCrashed: the child died (a too small arena may do that) or did not answer in time.
    """

    def __init__(self, model: bytes, arena_bytes: int, config: EngineConfig = DEFAULT_CONFIG) -> None:
        if not MIN_ARENA_BYTES <= arena_bytes <= MAX_ARENA_BYTES:
            raise EngineError(
                f"an arena of {arena_bytes:,} B is not within {MIN_ARENA_BYTES:,} to {MAX_ARENA_BYTES:,} B"
            )
        if importlib.util.find_spec("tflite_micro") is None:
            raise EngineUnavailable(
                "TFLite-Micro is not installed",
                hint="pip install tflite-micro (the version in requirements.lock)",
            )
        self._config, self._arena_bytes = config, arena_bytes
        self._inputs: tuple[TensorSpec, ...] = ()
        self._outputs: tuple[TensorSpec, ...] = ()
        self._lock = threading.Lock()  # one request at a time; close() interrupts it by ending the child
        self._closed = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._log_start = 0
        try:
            self._process = self._start()
        except OSError as error:
            self._log.close()
            raise EngineUnavailable(f"the TFLite-Micro process cannot be started: {error}") from error
        self._to_child, self._from_child = _non_blocking(self._process.stdin, self._process.stdout)
        try:
            self._describe(self._ask(child.LOAD, model, _MAX_DESCRIPTION_BYTES))
        except BaseException:
            self.close()
            raise

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    @property
    def arena_bytes(self) -> int:
        return self._arena_bytes

    @property
    def pid(self) -> int:
        """Process id of the child, for accounting."""
        return self._process.pid

    def infer(self, inputs: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], ...]:
        check_inputs(inputs, self._inputs)
        size = sum(spec.size_bytes for spec in self._outputs)
        answer = self._ask(child.RUN, b"".join(tensor.tobytes() for tensor in inputs), size)
        if len(answer) != size:
            raise self._failed(f"answered {len(answer)} B instead of {size} B")
        results, start = [], 0
        for spec in self._outputs:
            count = spec.size_bytes // np.dtype(spec.dtype).itemsize
            results.append(np.frombuffer(answer, spec.dtype, count, start).reshape(spec.shape))
            start += spec.size_bytes
        return tuple(results)

    def reset(self) -> None:
        self._ask(child.RESET, b"", 0)

    def close(self) -> None:
        self._closed = True
        self._process.kill()
        with self._lock:
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _INHERITED_ENVIRONMENT if name in os.environ}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        die_with_thread = threading.current_thread() is threading.main_thread()
        limits = (
            *(os.getpid(), int(die_with_thread), self._arena_bytes),
            *(self._config.memory_bytes, self._config.cpu_s, STDERR_BYTES),
        )
        return subprocess.Popen(
            [sys.executable, "-I", "-B", str(Path(child.__file__)), *map(str, limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            cwd="/",
            env=environment,
            process_group=0,  # Ctrl-C belongs to the host, which then closes its engines
        )

    def _ask(self, operation: int, payload: bytes, limit_bytes: int) -> bytes:
        """One request and its answer of at most ``limit_bytes``."""
        with self._lock:
            if self._closed:
                raise EngineCrashed("the engine is closed", hint="open the model again")
            try:
                return self._exchange(child.HEADER.pack(operation, len(payload)) + payload, limit_bytes)
            except EngineError:
                raise
            except BaseException:  # an interrupt before the answer was read: the next one would get it
                self._failed("was interrupted")
                raise

    def _exchange(self, request: bytes, limit_bytes: int) -> bytes:
        deadline = time.monotonic() + self._config.timeout_s
        self._log_start = os.fstat(self._log.fileno()).st_size
        self._send(request, deadline)
        status, length = child.HEADER.unpack(self._receive(child.HEADER.size, deadline))
        allowed = limit_bytes if status == child.OK else child.MAX_REASON_BYTES
        if length > allowed:
            raise self._failed(f"announced {length:,} B, at most {allowed:,} B are allowed")
        answer = self._receive(length, deadline)
        if status == child.OK:
            return answer
        messages = self._messages()
        missing = [line for line in messages if line.startswith(_MISSING_OPERATOR)]
        if missing:
            raise EngineError(
                f"TFLite-Micro cannot run the model: {missing[0]}",
                hint="place this model on a gateway (runtime tflite) or export it without that operator",
            )
        raise EngineError("; ".join([f"TFLite-Micro refused: {_printable(answer)}", *messages[-2:]]))

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._to_child, view) :]
            except BlockingIOError:
                self._wait(self._to_child, select.POLLOUT, deadline)
            except BrokenPipeError:
                raise self._died() from None

    def _receive(self, count: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            self._wait(self._from_child, select.POLLIN, deadline)
            block = os.read(self._from_child, count - len(parts))
            if not block:
                raise self._died()
            parts += block
        return bytes(parts)

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise self._failed(f"did not answer in {self._config.timeout_s:g} s")

    def _failed(self, what: str) -> EngineCrashed:
        """End a child that can no longer be trusted to answer."""
        self._closed = True
        self._process.kill()
        return EngineCrashed(f"the TFLite-Micro process {what}", hint="open the model again")

    def _died(self) -> EngineCrashed:
        """Explain the end of the child: the signal or exit code and the last thing it said."""
        closed_by_owner = self._closed
        self._closed = True
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return self._failed("closed its answers without ending")
        if closed_by_owner:
            return EngineCrashed("the engine was closed while it worked", hint="open the model again")
        why = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        if -code == signal.SIGXCPU:
            why += f", more than {self._config.cpu_s} s of processor time"
        last = (self._messages() or ("nothing",))[-1]
        return EngineCrashed(
            f"the TFLite-Micro process died ({why}); its last message: {last}",
            hint="only this model is affected: check it and its arena, then open it again",
        )

    def _messages(self) -> tuple[str, ...]:
        """What was printed on standard error during this request: the only place that names the reason."""
        size = os.fstat(self._log.fileno()).st_size
        start = max(self._log_start, size - _MESSAGE_TAIL_BYTES)
        text = os.pread(self._log.fileno(), size - start, start)
        return tuple(line for raw in text.splitlines() if (line := _printable(raw)))

    def _describe(self, answer: bytes) -> None:
        try:
            description = json.loads(answer)
            found = {side: list(description[side]) for side in ("inputs", "outputs")}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._failed("sent a description that cannot be read") from error
        if not all(1 <= len(tensors) <= MAX_TENSORS for tensors in found.values()):
            raise EngineError(f"a model needs 1 to {MAX_TENSORS} inputs and outputs")
        self._inputs, self._outputs = (
            tuple(TensorSpec.from_details(d, name=f"{side[:-1]}_{n}") for n, d in enumerate(found[side]))
            for side in ("inputs", "outputs")
        )


def _non_blocking(*pipes: IO[bytes] | None) -> tuple[int, ...]:
    """Descriptors of the pipes, which this process only touches when they are ready."""
    descriptors = tuple(pipe.fileno() for pipe in pipes if pipe is not None)
    for descriptor in descriptors:
        os.set_blocking(descriptor, False)
    return descriptors


def _printable(raw: bytes) -> str:
    """A line that came from outside, safe for a terminal and a log."""
    text = raw.decode("utf-8", "replace").strip()[:_MAX_MESSAGE_CHARACTERS]
    return "".join(c if c.isprintable() else "?" for c in text)
