"""Feeds every decoder: ``python -m tests.fuzz [--inputs N] [--decoder NAME] [--seed S] [--processes P]``.

Says on the way how far it is, ends with a table (``fuzz.md``, ``fuzz.json`` in ``--output``), and with 1 when
a decoder did what it must not do; then the input is kept in a file, and ``--decoder NAME --input FILE`` feeds
it again. Ctrl-C ends a campaign early, with the table of what was done; killed, it leaves the last one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final

from tests.fuzz.campaign import BATCH_INPUTS, DecoderDefect, Tally
from tests.fuzz.decoders import DECODERS, begin_worker, cheapest_first, portion, repeat
from tests.fuzz.table import Result, line, write_reproducer, write_tables

DEFAULT_INPUTS: Final = 20_000
PORTION_BATCHES: Final = 100
"""Batches that one process takes at a time."""
SAY_EVERY_S: Final = 30.0
LOOK_EVERY_S: Final = 0.5
"""How soon Ctrl-C is noticed: an exception out of a signal handler could leave a lock of the pool held."""
DEFAULT_OUTPUT: Final = Path("build/fuzz")
INTERRUPTED: Final = 130

Work = dict[Future[Tally], str]
Keep = Callable[[Mapping[str, Result]], object]


def campaign(
    names: list[str], inputs: int, seed: int, processes: int, keep: Keep
) -> tuple[dict[str, Result], bool]:
    """All portions of all decoders; returns what became of each, and whether it was interrupted.

    Args:
        names: decoders, in the order in which they are fed.
        inputs: for each of them, at least.
        seed: of all inputs.
        processes: workers.
        keep: called with the results now and then, so that a campaign that is killed leaves them.
    """
    batch_inputs = min(BATCH_INPUTS, inputs)
    batches = -(-inputs // batch_inputs)
    results = {name: Result(batches * batch_inputs) for name in names}
    context = multiprocessing.get_context("spawn")
    stopping = context.Event()
    asked: list[bool] = []
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts what runs beside it with SIGINT ignored
        signal.signal(number, lambda _number, _frame: asked.append(True))
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=begin_worker, initargs=(stopping,)
    ) as pool:
        work: Work = {
            pool.submit(portion, name, first, min(PORTION_BATCHES, batches - first), batch_inputs, seed): name
            for name in names
            for first in range(0, batches, PORTION_BATCHES)
        }
        say(f"{len(names)} decoders, {batches * batch_inputs:,} inputs each, seed {seed}")
        _collect(work, results, keep, lambda: _stop(work, stopping) if asked else None)
    return results, bool(asked)


def _collect(work: Work, results: dict[str, Result], keep: Keep, look: Callable[[], None]) -> None:
    said = time.monotonic()
    while work:
        done, _ = wait(work, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
        look()
        for future in done:
            name = work.pop(future)
            result = results[name]
            if future.cancelled():
                continue
            try:
                result.tally += future.result()
            except DecoderDefect as defect:
                result.defect = result.defect or defect
                for other, owner in work.items():
                    if owner == name:
                        other.cancel()
            if name not in work.values():
                say(line(name, result))
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            keep(results)
            fed = sum(result.tally.inputs for result in results.values())
            say(f"  … {fed:,} of {sum(result.wanted for result in results.values()):,} inputs")


def _stop(work: Work, stopping: Event) -> None:
    """Let each worker end after its batch, and forget what no worker has begun."""
    stopping.set()
    for waiting in work:
        waiting.cancel()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Feed every decoder.")
    parser.add_argument("--inputs", type=int, default=DEFAULT_INPUTS, help="inputs per decoder")
    parser.add_argument("--decoder", action="append", metavar="NAME", help="only this one (may be repeated)")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other inputs")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder for tables and inputs")
    parser.add_argument("--input", type=Path, metavar="FILE", help="feed this one input to one --decoder")
    arguments = parser.parse_args()
    names = cheapest_first(arguments.decoder or DECODERS)
    unknown = [name for name in names if name not in DECODERS]
    if unknown or arguments.inputs < 1 or arguments.processes < 1:
        parser.error(f"decoders: {', '.join(DECODERS)}; inputs and processes are at least 1")
    if arguments.input is not None:
        if len(names) != 1:
            parser.error("--input needs one --decoder")
        say(repeat(names[0], arguments.input.read_bytes()))
        return 0
    began = time.monotonic()

    def keep(results: Mapping[str, Result]) -> Path:
        return write_tables(arguments.output, results, arguments.seed)

    results, interrupted = campaign(names, arguments.inputs, arguments.seed, arguments.processes, keep)
    table = keep(results)
    defects = {name: result.defect for name, result in results.items() if result.defect is not None}
    say(f"{time.monotonic() - began:.0f} s, {len(defects)} decoders with defects; table: {table}")
    for name, defect in defects.items():
        kept = write_reproducer(arguments.output, name, defect)
        say(f"{defect}\n  again: python -m tests.fuzz --decoder '{name}' --input {kept}")
    if interrupted:
        return INTERRUPTED
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
