"""One side of a run, in its own process: ``python -m benchmarks.peer RUN_FILE driver|receiver``.

The referee starts both, listens on the run's control socket and hears JSON lines: ``ready``, ``measuring``,
``measured``, ``done`` or ``failed``. A failure ends the run; it never becomes a figure.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from aif.runtime.processes import collect_rarely
from benchmarks.cell import Role, Run
from benchmarks.contenders import CONTENDERS
from benchmarks.contenders.link import Link
from benchmarks.intake import Echo, NothingExpected, Pinger, Sink, cpu_s, make_pool
from benchmarks.pace import Pace, ProgressServer
from benchmarks.workload import Shape

ECHO_PATIENCE_S = 30.0


class Control:
    """The line to the referee."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, role: Role) -> None:
        self._reader, self._writer, self._role = reader, writer, role
        self._loop = asyncio.get_running_loop()

    def tell(self, state: str, **fields: Any) -> None:
        line = json.dumps({"role": self._role, "state": state, **fields})
        self._writer.write(line.encode() + b"\n")

    def fail(self, reason: str) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(lambda: self.tell("failed", reason=reason))

    async def hear(self) -> dict[str, Any]:
        answer = json.loads(await self._reader.readline() or b"{}")
        return cast("dict[str, Any]", answer)


async def drive_stream(run: Run, link: Link, control: Control) -> None:
    """Warm up, measure, finish."""
    shape = Shape(run.cell.size_bytes, run.cell.bundle)
    pool, messages = make_pool(link, shape, run.seed)
    if run.plant == "alter":
        messages[1] = link.prepare(1, pool.data(0))
    await link.open()
    control.tell("ready")
    await control.hear()
    pace = Pace(link, shape, messages, run.progress_path, run.plant)
    _, warm_up = await pace.send_for(run.durations.warm_up_s)
    control.tell("measuring")
    cpu_before_s = cpu_s()
    seconds, count = await pace.send_for(run.durations.run_s)
    cpu_used_s = cpu_s() - cpu_before_s
    control.tell("measured")
    finished = link.finish()
    control.tell(
        "done", first=warm_up, total=pace.sent, seconds=seconds, messages=count, cpu_s=cpu_used_s,
        digest=pool.digest(pace.sent), finished=finished,
    )  # fmt: skip
    await control.hear()
    pace.close()


async def receive_stream(run: Run, open_link: Callable[[Sink], Link], control: Control) -> None:
    """Verify until the referee says how much there was, then show what was verified."""
    shape = Shape(run.cell.size_bytes, run.cell.bundle)
    progress = ProgressServer(run.progress_path)
    sink = Sink(shape, progress.report, control.fail)
    link = open_link(sink)
    await link.open()
    control.tell("ready")
    said = await control.hear()
    proof = await link.prove(said["finished"])
    used_s = sink.cpu_at[said["total"] // shape.step] - sink.cpu_at[said["first"] // shape.step]
    control.tell("done", total=sink.verifier.count, digest=sink.verifier.crc, cpu_s=used_s, proof=proof)
    await control.hear()
    progress.close()
    await link.close()


async def drive_pings(run: Run, open_link: Callable[[Pinger], Link], control: Control) -> None:
    """Round trips until there are enough."""
    shape = Shape(run.cell.size_bytes, 1)
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    pinger = Pinger(shape, run.durations, lambda: _void(loop.call_soon_threadsafe(over.set)), control.fail)
    link = open_link(pinger)
    pool, messages = make_pool(link, shape, run.seed)
    await link.open()
    control.tell("ready")
    await control.hear()
    control.tell("measuring")
    cpu_before_s = cpu_s()
    pinger.start(link, messages)
    async with asyncio.timeout(ECHO_PATIENCE_S + run.durations.warm_up_s + run.durations.longest_s):
        await over.wait()
    cpu_used_s = cpu_s() - cpu_before_s
    control.tell("measured")
    finished = link.finish()
    trips_us = sorted(pinger.trips_us)
    cuts = statistics.quantiles(trips_us, n=100, method="inclusive") if len(trips_us) > 1 else trips_us * 99
    count = pinger.verifier.count
    control.tell(
        "done", total=count, digest=pool.digest(count), echoed_digest=pinger.verifier.crc, finished=finished,
        trips=len(trips_us), p50_us=cuts[49], p95_us=cuts[94], p99_us=cuts[98], cpu_s=cpu_used_s,
    )  # fmt: skip
    said = await control.hear()
    control.tell("proved", proof=await link.prove(said["finished"]))
    await control.hear()
    await link.close()


async def echo_pings(run: Run, open_link: Callable[[Echo], Link], control: Control) -> None:
    """Send back whatever comes, until the referee says it is over."""
    echo = Echo(Shape(run.cell.size_bytes, 1), control.fail)
    echo.link = link = open_link(echo)
    await link.open()
    control.tell("ready")
    cpu_before_s = cpu_s()
    said = await control.hear()
    cpu_used_s = cpu_s() - cpu_before_s
    proof = await link.prove(said["finished"])
    control.tell(
        "done", total=echo.verifier.count, digest=echo.verifier.crc, proof=proof, finished=link.finish(),
        cpu_s=cpu_used_s,
    )  # fmt: skip
    await control.hear()
    await link.close()


async def serve(run: Run, role: Role) -> None:
    """One role of one run."""
    control = Control(*await asyncio.open_unix_connection(run.control_path), role)
    contender = CONTENDERS[run.cell.contender]
    try:
        if run.task == "ping" and role == "driver":
            await drive_pings(run, lambda pinger: contender.open(run, role, pinger), control)
        elif run.task == "ping":
            await echo_pings(run, lambda echo: contender.open(run, role, echo), control)
        elif role == "driver":
            link = contender.open(run, role, NothingExpected(control.fail))
            await drive_stream(run, link, control)
            await link.close()
        else:
            await receive_stream(run, lambda sink: contender.open(run, role, sink), control)
    except Exception as error:
        control.tell("failed", reason=f"{type(error).__name__}: {error}")
        with suppress(ConnectionError):
            await control.hear()
        raise


def _void(_handle: object) -> None:
    """A wake-up that nobody cancels."""


if __name__ == "__main__":
    collect_rarely()  # as `aif host` does; here for every contender
    asyncio.run(serve(Run.read(Path(sys.argv[1])), cast("Role", sys.argv[2])))
