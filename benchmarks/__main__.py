"""``python -m benchmarks p1 p2 p3 p4 micro trust [--rounds N] [--json FILE] [--quick] [--noisy]``.

Exit status: 0 measured (whether goals were met is in the output), 1 a run lost or did not check a message
(its row is void and in no figure), 2 it could not start, 130 interrupted. p3 and p4 write their JSON after
every row.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import environment, micro, p1_throughput, p2_round_trip, p3_placement, p4_remapping, trust
from benchmarks.broker import BrokerMissing
from benchmarks.cell import Durations
from benchmarks.harness import Settings
from benchmarks.report import Keep, Metric, print_metrics
from partitioner.instances.families import FAMILIES

QUICK = Durations(warm_up_s=0.3, run_s=0.5, round_trips=200, longest_s=1.0)


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmarks", nargs="+", choices=("p1", "p2", "p3", "p4", "micro", "trust"))
    parser.add_argument("--rounds", type=int, default=None, help="5 unless told otherwise; 7 for publication")
    parser.add_argument("--json", type=Path, help="write metrics, environment and tables into this file")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything runs")
    parser.add_argument("--noisy", action="store_true", help="start although other programs load the machine")
    parser.add_argument("--full", action="store_true", help="p1: all peers and bundles at every size")
    parser.add_argument("--sizes", default="100,1024,16384", help="p1: message sizes in bytes")
    parser.add_argument("--planned", default="", help="p3: numbers of AIMs and devices, such as 50,200")
    parser.add_argument(
        "--families", default=p3_placement.FAMILY, help=f"p3: kinds of instances: {','.join(FAMILIES)}"
    )
    parser.add_argument(
        "--seeds", type=int, default=None, help="p3, p4: instances of each size; 10 unless told"
    )
    parser.add_argument("--cpus", default="", help="pin everything to these CPUs, such as 0 for one core")
    parser.add_argument("--seed", type=int, default=1, help="of message contents and order")
    chosen = parser.parse_args(words)
    chosen.planned = [int(size) for size in chosen.planned.split(",") if size]
    chosen.sizes = [int(size) for size in chosen.sizes.split(",")]
    if unknown := set(chosen.sizes) - set(p1_throughput.BUNDLES):
        parser.error(f"--sizes: {unknown} is none of {', '.join(map(str, p1_throughput.BUNDLES))}")
    chosen.families = [name for name in chosen.families.split(",") if name]
    if unknown_families := set(chosen.families) - set(FAMILIES):
        parser.error(f"--families: {unknown_families} is none of {', '.join(FAMILIES)}")
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error(f"--rounds: {chosen.rounds} is not at least 1")
    return chosen


def _measured(
    name: str, chosen: argparse.Namespace, settings: Settings, keep: Keep
) -> tuple[list[Metric], dict[str, Any]]:
    """Metrics and tables of one benchmark."""
    if name == "p1":
        return p1_throughput.measure(settings, full=chosen.full, sizes=chosen.sizes)
    if name == "p2":
        return p2_round_trip.measure(settings)
    if name == "micro":
        return micro.measure(micro.QUICK if chosen.quick else micro.Timing())
    if name == "trust":
        return trust.measure(micro.QUICK if chosen.quick else micro.Timing())
    seeds = chosen.seeds or (1 if chosen.quick else 10)
    if name == "p3":
        return p3_placement.measure(
            seeds, sizes=chosen.planned, quick=chosen.quick, families=chosen.families, keep=keep
        )
    return p4_remapping.measure(seeds, sizes=chosen.planned, quick=chosen.quick, keep=keep)


class _Results:
    """What was measured, in the file after each step if there is one."""

    def __init__(self, file: Path | None, record: dict[str, Any]) -> None:
        self.file, self.record = file, record
        self.metrics: list[Metric] = []
        self.tables: dict[str, Any] = {}
        self.void: dict[str, str] = {}

    def keep(self, name: str, metrics: list[Metric], table: dict[str, Any]) -> None:
        """Part of a benchmark is done."""
        self.write(self.metrics + metrics, self.tables | {name: table})

    def add(self, name: str, metrics: list[Metric], table: dict[str, Any]) -> None:
        """A benchmark is done."""
        self.metrics += metrics
        self.tables[name] = table
        self.void |= table["void"]
        for line in table["left_out"]:
            print(line)

    def write(self, metrics: list[Metric], tables: dict[str, Any]) -> None:
        """All at once or not at all."""
        if self.file is None:
            return
        whole = {
            "metrics": [m.as_json() for m in metrics], "environment": self.record, "tables": tables
        }  # fmt: skip
        written = self.file.with_name(self.file.name + ".tmp")
        written.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
        written.replace(self.file)


def main(words: list[str] | None = None) -> int:
    """Run what was asked for."""
    chosen = arguments(words)
    load = environment.load()
    if load > environment.CALM_LOAD and not chosen.noisy:
        print(
            f"the load average is {load:.2f}, above {environment.CALM_LOAD}: figures would mean little.\n"
            "Wait until the machine is calm, or say --noisy.",
            file=sys.stderr,
        )
        return 2
    if chosen.cpus:
        os.sched_setaffinity(0, [int(cpu) for cpu in chosen.cpus.split(",")])
    rounds = chosen.rounds or (1 if chosen.quick else 5)
    settings = Settings(rounds, QUICK if chosen.quick else Durations(), chosen.seed)
    try:
        broker = bool({"p1", "p2"} & set(chosen.benchmarks))
        record = environment.describe(seed=chosen.seed, cpus=sorted(os.sched_getaffinity(0)), broker=broker)
        record |= {"rounds": rounds, "quick": chosen.quick, "noisy": chosen.noisy}
        results = _Results(chosen.json, record)
        for name in dict.fromkeys(chosen.benchmarks):
            results.add(name, *_measured(name, chosen, settings, partial(results.keep, name)))
    except BrokerMissing as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = "" if chosen.json is None else f"; what p3 and p4 measured until now is in {chosen.json}"
        print(f"interrupted{kept}", file=sys.stderr)
        return 130
    print_metrics(results.metrics)
    record["load_after"] = os.getloadavg()
    results.write(results.metrics, results.tables)
    for name, reason in results.void.items():
        print(f"INVALID {name}: it is left out of every figure above.\n  {reason}", file=sys.stderr)
    return 1 if results.void else 0


if __name__ == "__main__":
    sys.exit(main())
