"""One run from start to verdict: starts the two processes, lets them measure, compares what they say.

Decides whether a run counts. Invariant: figures are returned only if the receiver verified exactly what the
driver sent, in number, order and content, and its link proved that all of it was authenticated.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.broker import cpu_s
from benchmarks.cell import Role, Run
from benchmarks.contenders import dora_node
from benchmarks.workload import InvalidRun

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 60.0
"""Beyond warm-up and run, for starting, draining and proving."""

Figures = dict[str, float]
Said = dict[str, Any]


class Referee:
    """Hears both processes of one run."""

    def __init__(self, run: Run, broker_pid: int) -> None:
        self._run, self._broker_pid = run, broker_pid
        self._folder = Path(run.folder)
        self._file = run.write()
        self._said: asyncio.Queue[Said] = asyncio.Queue()
        self._early: list[Said] = []
        self._lines: dict[str, asyncio.StreamWriter] = {}
        self._processes: list[asyncio.subprocess.Process] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def figures(self) -> Figures:
        """Carry the run out.

        Raises:
            InvalidRun: it was not finished in time, or not everything was verified.
        """
        run = self._run
        limit_s = PATIENCE_S + run.durations.warm_up_s + max(run.durations.run_s, run.durations.longest_s)
        judge: Callable[[], Awaitable[Figures]] = self._ping if run.task == "ping" else self._stream
        server = await asyncio.start_unix_server(self._accept, run.control_path)
        try:
            async with asyncio.timeout(limit_s):
                await self._start()
                return await judge()
        except TimeoutError:
            raise InvalidRun(f"{run.cell.name}: not finished after {limit_s:g} s") from None
        except InvalidRun as error:
            raise InvalidRun(f"{run.cell.name}: {error}") from None
        finally:
            await self._stop(server)

    # --- processes --------------------------------------------------------------------------------

    async def _start(self) -> None:
        if self._run.cell.contender == "dora":
            program = dora_node.program()
            if program is None:
                raise InvalidRun("the command dora is missing (package dora-rs-cli)")
            await self._spawn("dora", program, "run", str(dora_node.dataflow(self._run, self._file)))
            self._broker_pid = self._processes[0].pid  # its daemon is the only third process
            await self._expect("receiver", "ready")
        else:
            await self._spawn_peer("receiver")
            await self._expect("receiver", "ready")
            await self._spawn_peer("driver")
        await self._expect("driver", "ready")
        self._tell("driver", {"go": True})

    async def _spawn_peer(self, role: Role) -> None:
        await self._spawn(role, sys.executable, "-m", "benchmarks.peer", str(self._file), role)

    async def _spawn(self, name: str, *command: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        with (self._folder / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=self._folder, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=log,
                stderr=log,
            )  # fmt: skip
        self._processes.append(process)
        task = asyncio.get_running_loop().create_task(self._watch(name, process))
        self._tasks.add(task)

    async def _watch(self, name: str, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        last = (self._folder / f"{name}.log").read_text(errors="replace").strip().splitlines()[-1:]
        said = f": {last[0]}" if last else ""
        self._said.put_nowait({"role": name, "state": "failed", "reason": f"ended with status {code}{said}"})

    async def _stop(self, server: asyncio.Server) -> None:
        server.close()
        for writer in self._lines.values():
            writer.close()
        for task in self._tasks:
            task.cancel()
        for process in self._processes:
            try:
                async with asyncio.timeout(5):
                    await process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    # --- what they say ----------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            said: Said = json.loads(line)
            self._lines[said["role"]] = writer
            self._said.put_nowait(said)

    def _tell(self, role: Role, words: dict[str, Any]) -> None:
        self._lines[role].write(json.dumps(words).encode() + b"\n")

    async def _expect(self, role: Role, state: str) -> Said:
        for said in self._early:
            if (said["role"], said["state"]) == (role, state):
                self._early.remove(said)
                return said
        while True:
            said = await self._said.get()
            if said["state"] == "failed":
                raise InvalidRun(f"{said['role']}: {said['reason']}")
            if (said["role"], said["state"]) == (role, state):
                return said
            self._early.append(said)

    # --- verdicts ---------------------------------------------------------------------------------

    async def _measured_broker_s(self) -> float:
        """Processor time of the broker between the driver's first message and its last."""
        await self._expect("driver", "measuring")
        before_s = cpu_s(self._broker_pid)
        await self._expect("driver", "measured")
        return cpu_s(self._broker_pid) - before_s

    async def _stream(self) -> Figures:
        broker_s = await self._measured_broker_s()
        sent = await self._expect("driver", "done")
        self._tell("receiver", sent)
        got = await self._expect("receiver", "done")
        _compare(sent["total"], sent["digest"], got)
        count = sent["messages"]
        rate = {"messages": count, "messages_per_s": count / sent["seconds"]}
        return rate | _cpu_us(count, sent, got, broker_s)

    async def _ping(self) -> Figures:
        broker_s = await self._measured_broker_s()
        sent = await self._expect("driver", "done")
        self._tell("receiver", sent)
        got = await self._expect("receiver", "done")
        _compare(sent["total"], sent["digest"], got)
        if sent["echoed_digest"] != sent["digest"]:
            raise InvalidRun("the echo's content differs from what was sent")
        self._tell("driver", got)
        proved = await self._expect("driver", "proved")
        figures = {name: float(sent[name]) for name in ("trips", "p50_us", "p95_us", "p99_us")}
        figures |= _cpu_us(sent["total"], sent, got, broker_s)
        lags = [said["proof"].get("longest_unsigned_ms") for said in (got, proved)]
        known = [lag for lag in lags if lag is not None]
        return figures | ({"signature_lag_ms": max(known)} if known else {})


def _cpu_us(count: int, sent: Said, got: Said, broker_s: float) -> Figures:
    """Processor time per message, or per round trip."""
    sender_us, receiver_us, broker_us = (
        used_s / count * 1e6 for used_s in (sent["cpu_s"], got["cpu_s"], broker_s)
    )
    return {
        "sender_cpu_us": sender_us,
        "receiver_cpu_us": receiver_us,
        "broker_cpu_us": broker_us,
        "cpu_us": sender_us + receiver_us + broker_us,
    }


def _compare(total: int, digest: int, got: Said) -> None:
    if got["total"] != total:
        raise InvalidRun(f"{got['total']} of {total} messages were verified")
    if got["digest"] != digest:
        raise InvalidRun("the content that was verified is not the content that was sent")
