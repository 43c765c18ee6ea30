"""P4: how fast a running plan is mended after a device is lost, and how many AIMs have to move.

The live part, from the loss to the first right result, is ``p4_live``. Here only plans are mended: one warm
``Replanner`` per loss; the clock runs from the event to a feasible answer. The independent checker judges
every answer. The moves are compared with those that no answer could avoid (AIMs of lost devices that are
served again). Workflows that lose their only sensor are unserved whatever anybody does; they are counted.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.harness import Spread
from benchmarks.p3_placement import FAMILY
from benchmarks.p4_live import measure_live
from benchmarks.report import Keep, Metric, forget, judged
from partitioner.checker.check import Auditor
from partitioner.instances.families import instance
from partitioner.planner import plan
from partitioner.problem.build import build_problem
from partitioner.remap import Replanner

SIZES = (200, 500)
QUICK_SIZES = (50,)
LOSSES = 20
PLANNING_S = 10.0
FIRST_FEASIBLE_MS = 50.0
MOVES_RATIO = 1.1


def measure(
    seeds: int, *, sizes: Sequence[int], quick: bool, keep: Keep = forget
) -> tuple[list[Metric], dict[str, Any]]:
    """Both parts: metrics, and tables with one row per loss."""
    metrics, planned = answers(seeds, sizes=sizes, quick=quick, keep=keep)
    live_metrics, live = measure_live(quick=quick)
    return metrics + live_metrics, {**planned, **live, "void": planned["void"] | live["void"]}


def answers(
    seeds: int, *, sizes: Sequence[int], quick: bool, keep: Keep = forget
) -> tuple[list[Metric], dict[str, Any]]:
    """The planner's part: metrics, and a table with one row per loss; ``keep`` gets both as they grow."""
    rows: list[dict[str, Any]] = []
    for size in sizes or (QUICK_SIZES if quick else SIZES):
        for seed in range(seeds):
            rows += _losses(size, seed, 3 if quick else LOSSES)
            keep(*_result(rows))
        here = [row for row in rows if row["size"] == size]
        unserved = sum(row["unserved"] for row in here)
        print(f"p4 {size}: {len(here)} losses, {unserved} workflows unserved", file=sys.stderr, flush=True)
    return _result(rows)


def _result(rows: list[dict[str, Any]]) -> tuple[list[Metric], dict[str, Any]]:
    metrics: list[Metric] = []
    void = {f"{r['device']} of {r['size']}, seed {r['seed']}": r["broken"] for r in rows if r["broken"]}
    for size in dict.fromkeys(row["size"] for row in rows):
        good = [row for row in rows if row["size"] == size and not row["broken"]]
        if not good:
            continue
        times_ms = [row["ms"] for row in good]
        ratios = [row["moves"] / row["forced"] for row in good if row["forced"]]
        goals = (FIRST_FEASIBLE_MS, MOVES_RATIO) if size == max(SIZES) else (None, None)
        metrics.append(judged(f"p4.first_feasible_{size}", Spread.of(times_ms), "ms", goals[0], "lower"))
        if ratios:
            metrics.append(judged(f"p4.moves_{size}", Spread.of(ratios), "of the minimum", goals[1], "lower"))
    return metrics, {"rows": rows, "left_out": [], "void": void, "family": FAMILY}


def _losses(size: int, seed: int, count: int) -> list[dict[str, Any]]:
    drawn = instance(FAMILY, size, size, seed)
    problem = build_problem(drawn.workflows, drawn.inventory, drawn.policy)
    running = plan(problem, time_limit_s=PLANNING_S, seed=seed)
    auditor = Auditor(drawn.workflows, drawn.inventory, drawn.policy)
    used = sorted({candidate.device for candidate in running.choice.values()})
    rows = []
    for device in random.Random(seed).sample(used, min(count, len(used))):
        answer = Replanner(running).lose(device)
        where = {problem.items[n].key: (c.device, c.implementation) for n, c in answer.choice.items()}
        audit = auditor.audit(where, partial=True)
        broken = [f"{v.name} {v.subject}" for v in audit.violations]
        broken += [f"{aim} on lost {there}" for aim, (there, _) in where.items() if there in answer.lost]
        rows.append(
            {
                "size": size, "seed": seed, "device": device, "ms": 1000.0 * answer.seconds,
                "moves": len(answer.moves), "forced": answer.forced, "unserved": len(answer.unserved),
                "broken": "; ".join(broken[:2]),
            }
        )  # fmt: skip
    return rows
