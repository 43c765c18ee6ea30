"""``python -m benchmarks p1 p2 micro [--rounds N] [--json FILE] [--quick] [--noisy]``.

Exit status: 0 measured (whether goals were met is in the output), 1 a run lost or did not check a message
(its row is void and in no figure), 2 it could not start.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import environment, micro, p1_throughput, p2_round_trip
from benchmarks.broker import BrokerMissing
from benchmarks.cell import Durations
from benchmarks.harness import Settings
from benchmarks.report import Metric, print_metrics

QUICK = Durations(warm_up_s=0.3, run_s=0.5, round_trips=200, longest_s=1.0)


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmarks", nargs="+", choices=("p1", "p2", "micro"))
    parser.add_argument("--rounds", type=int, default=None, help="5 unless told otherwise; 7 for publication")
    parser.add_argument("--json", type=Path, help="write metrics, environment and tables into this file")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything runs")
    parser.add_argument("--noisy", action="store_true", help="start although other programs load the machine")
    parser.add_argument("--full", action="store_true", help="p1: all peers and bundles at every size")
    parser.add_argument("--sizes", default="100,1024,16384", help="p1: message sizes in bytes")
    parser.add_argument("--cpus", default="", help="pin everything to these CPUs, such as 0 for one core")
    parser.add_argument("--seed", type=int, default=1, help="of message contents and order")
    chosen = parser.parse_args(words)
    chosen.sizes = [int(size) for size in chosen.sizes.split(",")]
    if unknown := set(chosen.sizes) - set(p1_throughput.BUNDLES):
        parser.error(f"--sizes: {unknown} is none of {', '.join(map(str, p1_throughput.BUNDLES))}")
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error(f"--rounds: {chosen.rounds} is not at least 1")
    return chosen


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
    metrics: list[Metric] = []
    tables: dict[str, Any] = {}
    void: dict[str, str] = {}
    try:
        record = environment.describe(seed=chosen.seed, cpus=sorted(os.sched_getaffinity(0)))
        for name in dict.fromkeys(chosen.benchmarks):
            if name == "p1":
                found, more = p1_throughput.measure(settings, full=chosen.full, sizes=chosen.sizes)
            elif name == "p2":
                found, more = p2_round_trip.measure(settings)
            else:
                found, more = micro.measure(micro.QUICK if chosen.quick else micro.Timing())
            metrics += found
            tables[name] = more
            for line in more["left_out"]:
                print(line)
            void |= more["void"]
    except BrokerMissing as error:
        print(error, file=sys.stderr)
        return 2
    record |= {"load_after": os.getloadavg(), "rounds": rounds, "quick": chosen.quick, "noisy": chosen.noisy}
    print_metrics(metrics)
    if chosen.json is not None:
        whole = {"metrics": [m.as_json() for m in metrics], "environment": record, "tables": tables}
        written = chosen.json.with_name(chosen.json.name + ".tmp")
        written.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
        written.replace(chosen.json)
    for name, reason in void.items():
        print(f"INVALID {name}: it is left out of every figure above.\n  {reason}", file=sys.stderr)
    return 1 if void else 0


if __name__ == "__main__":
    sys.exit(main())
