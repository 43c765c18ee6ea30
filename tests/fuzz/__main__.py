"""Feeds every decoder: ``python -m tests.fuzz [--inputs N] [--decoder NAME] [--seed S] [--processes P]``.

Prints one line per decoder and ends with 1 when a decoder did what it must not do.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Final

from tests.fuzz.campaign import BATCH_INPUTS, DecoderDefect, Tally
from tests.fuzz.decoders import DECODERS, portion

DEFAULT_INPUTS: Final = 20_000
PORTION_BATCHES: Final = 200
"""Batches that one process takes at a time."""


def campaign(names: list[str], inputs: int, seed: int, processes: int) -> list[str]:
    """All portions of all decoders; returns the defects."""
    batch_inputs = min(BATCH_INPUTS, inputs)
    batches = -(-inputs // batch_inputs)
    defects = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        work: dict[str, list[Future[Tally]]] = {
            name: [
                pool.submit(portion, name, first, min(PORTION_BATCHES, batches - first), batch_inputs, seed)
                for first in range(0, batches, PORTION_BATCHES)
            ]
            for name in names
        }
        for name, portions in work.items():
            tally, found = Tally(), False
            try:
                for done in portions:
                    tally += done.result()
            except DecoderDefect as defect:
                found = True
                defects.append(str(defect))
                for rest in portions:
                    rest.cancel()
            say(line(name, tally, found=found))
    return defects


def line(name: str, tally: Tally, *, found: bool) -> str:
    if found:
        return f"{name:26} DEFECT"
    accepted, slowest_ms = tally.accepted / tally.inputs, tally.slowest_s * 1e3
    return (
        f"{name:26} {tally.inputs:>10,} inputs {accepted:>6.1%} accepted, slowest {slowest_ms:>7.2f} ms, "
        f"memory +{tally.grown_bytes / 1e6:.1f} MB, {tally.cpu_s:.1f} s"
    )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Feed every decoder.")
    parser.add_argument("--inputs", type=int, default=DEFAULT_INPUTS, help="inputs per decoder")
    parser.add_argument("--decoder", action="append", metavar="NAME", help="only this one (may be repeated)")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other inputs")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    names = arguments.decoder or list(DECODERS)
    unknown = [name for name in names if name not in DECODERS]
    if unknown or arguments.inputs < 1 or arguments.processes < 1:
        parser.error(f"decoders: {', '.join(DECODERS)}; inputs and processes are at least 1")
    began = time.monotonic()
    defects = campaign(names, arguments.inputs, arguments.seed, arguments.processes)
    say(f"{len(names)} decoders, {time.monotonic() - began:.0f} s, {len(defects)} with defects")
    for defect in defects:
        say(defect)
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
