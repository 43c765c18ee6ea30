"""Rounds: who runs when, and what ratio that makes.

Decides order and statistics. A round runs A B C … C B A; the two runs of a cell are averaged and ratios are
formed within the round, because the same program varies by half and more from one minute to the next. Starts
the brokers, all of which live as long as the benchmark.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.broker import BrokerProcess, free_port, running_broker
from benchmarks.cell import Broker, Cell, Durations, Plant, Run, Task
from benchmarks.certificates import make_certificates
from benchmarks.contenders import CONTENDERS
from benchmarks.referee import Figures, Referee
from benchmarks.workload import InvalidRun

Round = dict[Cell, Figures]


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured."""

    rounds: int = 5
    durations: Durations = field(default_factory=Durations)
    seed: int = 1
    plant: Plant = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, lowest and highest of one figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}-{self.high:.3g}]"


class Bench:
    """A folder with certificates, and the brokers; made by :func:`bench`."""

    def __init__(self, folder: Path, brokers: dict[Broker, BrokerProcess], settings: Settings) -> None:
        self._folder, self._brokers, self.settings = folder, brokers, settings
        self._runs = 0
        self.void: dict[Cell, str] = {}
        """Cells that are worthless because one of their runs was invalid, and why."""

    async def rounds(self, task: Task, cells: Sequence[Cell]) -> list[Round]:
        """Run all cells in all rounds; a cell with an invalid run is in none of them, but in ``void``."""
        rounds = [await self._round(task, cells, number) for number in range(self.settings.rounds)]
        return [
            {cell: figures for cell, figures in entry.items() if cell not in self.void} for entry in rounds
        ]

    async def _round(self, task: Task, cells: Sequence[Cell], number: int) -> Round:
        runs: defaultdict[Cell, list[Figures]] = defaultdict(list)
        for cell in [*cells, *reversed(cells)]:
            if cell in self.void:
                continue
            began_s = time.monotonic()
            try:
                figures = await self.run(task, cell)
            except InvalidRun as error:
                self.void[cell] = str(error)
                print(f"round {number + 1} {task} INVALID {error}", file=sys.stderr, flush=True)
                continue
            runs[cell].append(figures)
            shown = figures.get("messages_per_s") or figures["p50_us"]
            unit = "msg/s" if "messages_per_s" in figures else "us p50"
            line = f"round {number + 1} {task} {cell.name}: {shown:,.0f} {unit}"
            print(f"{line} ({time.monotonic() - began_s:.1f} s)", file=sys.stderr, flush=True)
        return {cell: _mean(pair) for cell, pair in runs.items()}

    async def run(self, task: Task, cell: Cell, plant: Plant = "") -> Figures:
        """One run of one cell, with a fault planted on request."""
        self._runs += 1
        folder = self._folder / str(self._runs)
        folder.mkdir()
        broker = None if CONTENDERS[cell.contender].brokerless else self._brokers[cell.broker]
        run = Run(
            task=task, cell=cell, durations=self.settings.durations, folder=str(folder),
            seed=self.settings.seed, secret_hex=os.urandom(32).hex(),
            port=free_port() if broker is None else broker.port, plant=plant or self.settings.plant,
        )  # fmt: skip
        return await Referee(run, 0 if broker is None else broker.pid).figures()


def _mean(pair: Sequence[Figures]) -> Figures:
    names = [name for name in pair[0] if all(name in run for run in pair)]
    return {name: statistics.mean(run[name] for run in pair) for name in names}


@contextmanager
def bench(settings: Settings) -> Iterator[Bench]:
    """Brokers and certificates for as long as the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aif-bench-")))
        certificates = make_certificates(folder)
        brokers: dict[Broker, BrokerProcess] = {
            "tuned": stack.enter_context(running_broker(folder)),
            "stock": stack.enter_context(running_broker(folder, stock=True)),
            "tls": stack.enter_context(running_broker(folder, tls=certificates)),
        }
        yield Bench(folder, brokers, settings)


def ratios(rounds: Sequence[Round], figure: str, cell: Cell, references: Sequence[Cell]) -> Spread | None:
    """A figure of one cell divided by the best of its references, round by round.

    Args:
        rounds: of one benchmark.
        figure: a throughput (higher is better) or one whose name ends in ``_us`` (lower is better).
        cell: whose figure is divided.
        references: rivals in the same rounds; those that did not run are left out.

    Returns:
        None if the cell or all of its references did not run.
    """
    best = min if figure.endswith("_us") else max
    found = [
        entry[cell][figure] / best(entry[rival][figure] for rival in references if rival in entry)
        for entry in rounds
        if cell in entry and any(rival in entry for rival in references)
    ]
    return Spread.of(found) if found else None


def spread(rounds: Sequence[Round], figure: str, cell: Cell) -> Spread | None:
    """A figure of one cell over the rounds."""
    found = [entry[cell][figure] for entry in rounds if figure in entry.get(cell, {})]
    return Spread.of(found) if found else None


def available(cells: Sequence[Cell]) -> tuple[list[Cell], list[str]]:
    """The cells whose packages are installed, and a line about each contender that is left out."""
    missing = {name: contender.missing() for name, contender in CONTENDERS.items() if contender.missing()}
    left_out = [
        f"{name} is left out: {', '.join(missing[name])} not installed (pip install tinyaif[bench])"
        for name in dict.fromkeys(cell.contender for cell in cells)
        if name in missing
    ]
    return [cell for cell in cells if cell.contender not in missing], left_out


def shuffled(cells: Sequence[Cell], seed: int) -> list[Cell]:
    """A fixed random order, so that related cells are not always neighbours."""
    return random.Random(seed).sample(list(cells), len(cells))


def run_all(
    settings: Settings, task: Task, groups: Sequence[Sequence[Cell]]
) -> tuple[list[list[Round]], dict[str, str]]:
    """Each group of cells in rounds of its own; and the void cells' names with the reason."""

    async def work() -> tuple[list[list[Round]], dict[str, str]]:
        with bench(settings) as running:
            found = [await running.rounds(task, shuffled(cells, settings.seed)) for cells in groups]
            return found, {cell.name: reason for cell, reason in running.void.items()}

    return asyncio.run(work())
