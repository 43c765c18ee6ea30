"""Operating-system processes of one run: started, watched, and stopped by pid.

Each process gets a session of its own (so Ctrl-C reaches only the parent), a log file, and a parent-death
signal; it says that it is ready with one JSON line on its standard output. Nothing is left behind: ``stop``
asks with SIGTERM, waits, and then kills.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import gc
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aif.errors import AlreadyRunning, StartFailed

PARENT_VARIABLE = "AIF_PARENT_PID"
READY_TIMEOUT_S = 30.0
STOP_GRACE_S = 5.0
LOG_TAIL_LINES = 5
YOUNG_OBJECTS = 10_000
"""Objects made and still alive when the garbage collector looks; one bundle holds more than CPython's 700.

A bundle of 256 records is 768 objects (a record, its array, the bytes behind it), all alive until the bundle
was delivered, so each one set the collector off: opening took 1.3 us per message, now 0.9.
"""
_PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent() -> None:
    """In a child: end when the parent that started it ends, however that happens."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None:
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before the line above
        os.kill(os.getpid(), signal.SIGTERM)


def collect_rarely() -> None:
    """In a process that handles messages: messages shall not set off the garbage collector.

    Reference counts free them; the collector is for cycles, of which there are few and none per message.
    """
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def say_ready(**facts: Any) -> None:
    """In a child: tell the parent that it serves, and what the parent needs to know."""
    if PARENT_VARIABLE in os.environ:
        sys.stdout.write(json.dumps({"ready": True, **facts}) + "\n")
        sys.stdout.flush()


@contextlib.contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Hold ``lock`` as long as this process does something that only one may do; it is free when it ends.

    Raises:
        AlreadyRunning: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"{what} runs already in another process", hint="stop that one first, or use another --home"
            ) from None
        yield
    finally:
        os.close(handle)


@dataclass(slots=True)
class Child:
    """One started process."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def log_tail(self) -> str:
        """The last lines of its log, for an error message."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
            return "\n".join(lines[-LOG_TAIL_LINES:])
        return ""


class ProcessGroup:
    """Processes that live no longer than the ``async with`` block."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self.children: dict[str, Child] = {}

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, name: str, arguments: Sequence[str], *, wait: bool) -> dict[str, Any]:
        """Start ``aif <arguments>``; with ``wait``, return what it said when it was ready.

        Raises:
            StartFailed: it ended, or did not get ready in time; the message holds the end of its log.
        """
        log = self._logs / f"{name}.log"
        environment = {**os.environ, PARENT_VARIABLE: str(os.getpid()), "OPENBLAS_NUM_THREADS": "1"}
        with log.open("wb") as stream:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "aif.cli.main", *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if wait else stream,
                stderr=stream, env=environment, start_new_session=True,
            )  # fmt: skip
        child = Child(name, process, log)
        self.children[name] = child
        return await self._ready(child) if wait else {}

    async def _ready(self, child: Child) -> dict[str, Any]:
        assert child.process.stdout is not None  # noqa: S101  # it was opened as a pipe
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                line = await child.process.stdout.readline()
        except TimeoutError:
            raise StartFailed(f"{child.name} was not ready within {READY_TIMEOUT_S:g} s") from None
        if not line:
            await child.process.wait()
            raise StartFailed(
                f"{child.name} did not start:\n{child.log_tail()}", hint=f"its log: {child.log}"
            )
        facts: dict[str, Any] = json.loads(line)
        return facts

    async def first_ended(self) -> Child:
        """Wait until one of the children has ended by itself."""
        waits = {asyncio.create_task(child.process.wait()): child for child in self.children.values()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return waits[next(iter(done))]
        finally:
            for task in waits:
                task.cancel()

    async def stop(self) -> None:
        """End all children, last started first."""
        for child in reversed(self.children.values()):
            await _stop(child.process)
        self.children.clear()


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_GRACE_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
