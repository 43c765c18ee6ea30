"""Terminals: the ``aif`` commands of a person, as processes of their own, and proof that none is left."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GESTURE = ROOT / "workflows" / "gesture"
INVENTORY = GESTURE / "inventory.yaml"
DEVICES = ("edge-1", "gw-1", "mcu-1", "mcu-2")
STAYING = {
    "aif broker --port": r"broker on mqtt",
    "aif store serve": r"store on http",
    "aif controller": r"controller started",
    "aif host": r"host started",
    "aif mcu": r"host started",
    "mosquitto -c": r"mosquitto version \S+ running",
}
"""Commands that do not end by themselves, and what they say when the next may be typed."""

PATIENCE_S = 100.0
"""Time after which a wait has failed; starting Python on a busy machine takes seconds."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Started:
    """A command that runs; ``lines`` is everything it printed, on both streams."""

    process: asyncio.subprocess.Process
    reader: asyncio.Task[None] | None = None
    lines: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    seen: set[int] = field(default_factory=set)
    """Its own process id and those of its descendants, as far as they were looked at."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    async def until(self, pattern: str) -> re.Match[str]:
        """The first match in its output; an error with the whole output if it ends or takes too long."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (found := re.search(pattern, self.output)) is None:
                    assert self.reader is not None
                    assert not self.reader.done(), f"ended before {pattern!r}:\n{self.output}"
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {pattern!r} in:\n{self.output}") from None
        self.seen |= descendants(self.pid)
        return found

    async def read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode(errors="replace").rstrip("\n"))
            self.changed.set()
        await self.process.wait()
        self.changed.set()

    async def ended(self) -> int:
        """Its exit code."""
        assert self.reader is not None
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(self.reader)
        return await self.process.wait()

    async def interrupt(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C; its exit code."""
        self.seen |= descendants(self.pid)
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await self.ended()

    async def kill(self) -> None:
        """SIGKILL: it cannot clean up."""
        await self.interrupt(signal.SIGKILL)


@dataclass(slots=True)
class Site:
    """The parts of the gesture site, each in its terminal."""

    broker_url: str
    broker: Started
    store: Started
    controller: Started
    devices: dict[str, Started]


class Desk:
    """Several terminals in one folder, and everything that was started in them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = ROOT
        """Where commands are typed."""
        self.started: list[Started] = []
        self.typed: dict[str, Started] = {}
        """Lines of a page whose commands stay."""
        self.environment = {
            **os.environ,
            "AIF_HOME": str(home),
            "COLUMNS": "200",
            "OPENBLAS_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin",
        }

    async def run(self, *arguments: object) -> Finished:
        """One ``aif`` command, to its end."""
        return await self._finish(sys.executable, "-m", "aif.cli.main", *map(str, arguments))

    async def _finish(self, *arguments: str) -> Finished:
        process = await asyncio.create_subprocess_exec(
            *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=self.folder, env=self.environment,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE_S):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
            raise AssertionError(f"{arguments} hangs:\n{out.decode()}\n{err.decode()}") from None
        return Finished(await process.wait(), out.decode(), err.decode())

    async def ok(self, *arguments: object) -> str:
        """What a command printed that has to succeed."""
        finished = await self.run(*arguments)
        assert finished.code == 0, f"{arguments}: {finished.err or finished.out}"
        return finished.out

    async def start(self, *arguments: object) -> Started:
        """One ``aif`` command that stays."""
        return await self._stay(sys.executable, "-m", "aif.cli.main", *map(str, arguments))

    async def type(self, command: str) -> str:
        """A line of a page: what it printed, or what it said until it was ready if it is one that stays."""
        for beginning, ready in STAYING.items():
            if command.startswith(beginning):
                process = await self._stay("bash", "-c", f"exec {command}")
                self.typed[command] = process
                await process.until(ready)
                return process.output
        finished = await self._finish("bash", "-euo", "pipefail", "-c", command)
        assert finished.code == 0, f"{command}: {finished.err or finished.out}"
        return finished.out

    async def _stay(self, *arguments: str) -> Started:
        process = await asyncio.create_subprocess_exec(
            *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, cwd=self.folder, env=self.environment, start_new_session=True,
        )  # fmt: skip
        started = Started(process)
        started.reader = asyncio.create_task(started.read())
        self.started.append(started)
        return started

    async def broker(self, port: int = 0) -> tuple[Started, str]:
        """A broker, and its address."""
        process = await self.start("broker", "--port", port)
        return process, (await process.until(r"broker on (mqtt://[\d.:]+)"))[1]

    async def store(self) -> tuple[Started, str]:
        """The store of this home, and its address."""
        process = await self.start("store", "serve", "--port", 0)
        return process, (await process.until(r"store on (http://[\d.:]+)"))[1]

    async def controller(self, broker: str, store: str) -> Started:
        process = await self.start("controller", "--broker", broker, "--store", store)
        await process.until("controller started")
        return process

    async def gesture_site(self, *, follow: bool = False) -> Site:
        """Every part of the gesture workflow's site, started by hand; all devices are trusted."""
        for name in DEVICES:
            await self.ok("device", "add", name, "--inventory", INVENTORY)
        broker, broker_url = await self.broker()
        store, store_url = await self.store()
        controller = await self.controller(broker_url, store_url)
        where = ("--inventory", INVENTORY, "--broker", broker_url)
        devices = {}
        for name in DEVICES:
            verb = "mcu" if name.startswith("mcu") else "host"
            devices[name] = await self.start(
                verb, "--device", name, *where, *(["--follow"] if follow else [])
            )
        for device in devices.values():
            await device.until("session with the Controller is trusted")
        return Site(broker_url, broker, store, controller, devices)

    async def close(self) -> None:
        """End what still runs, last started first."""
        for started in reversed(self.started):
            if started.process.returncode is None:
                await started.interrupt(signal.SIGTERM)

    def check_nobody_is_left(self) -> None:
        """Nothing that was started, and nothing that it started, is there any more."""
        assert all(started.process.returncode is not None for started in self.started)
        left = {pid for started in self.started for pid in started.seen if alive(pid)}
        assert not left, {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left}


@asynccontextmanager
async def desk(home: Path) -> AsyncIterator[Desk]:
    """A desk that is cleared at the end; its output is shown when something fails."""
    place = Desk(home)
    try:
        yield place
    except BaseException:
        for started in place.started:
            print(f"--- {started.pid}\n{started.output[-4000:]}")  # noqa: T201  # what pytest shows
        raise
    finally:
        await place.close()
    place.check_nobody_is_left()


def descendants(pid: int) -> set[int]:
    """A process, its children, and theirs."""
    found, todo = {pid}, [pid]
    while todo:
        parent = todo.pop()
        with suppress(OSError):
            for tasks in Path(f"/proc/{parent}/task").iterdir():
                new = {int(child) for child in (tasks / "children").read_text().split()} - found
                found |= new
                todo += new
    return found


def alive(pid: int) -> bool:
    """It exists, and is not only waiting for its parent to take note of its end."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def gone(pids: set[int]) -> None:
    """Until all of these processes have ended; they may be nobody's children, so they are looked at."""
    async with asyncio.timeout(PATIENCE_S):
        while any(alive(pid) for pid in pids):
            for pid in filter(alive, pids):
                await asyncio.to_thread(_wait_for, pid)


def _wait_for(pid: int) -> None:
    """Until a process ends, at most a second (pidfd_open(2))."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            select.select([handle], [], [], 1.0)
        finally:
            os.close(handle)
