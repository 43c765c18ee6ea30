"""P3: how good a placement is, how much of that is proven, and how long it takes.

Every contender gets the same seeded instance and the same wall-clock time, from metadata to plan, model
building included. The independent checker judges every plan and counts its objective; one that breaks a rule
voids the contender's row. A gap is (objective - bound) / objective with the contender's own proven bound.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks.harness import Spread
from benchmarks.placement_rivals import RIVALS, Answer
from benchmarks.report import Keep, Metric, forget, judged
from partitioner.checker.check import Auditor
from partitioner.instances.families import instance
from partitioner.instances.generate import Instance
from partitioner.planner import plan
from partitioner.problem.build import PlacementProblem, build_problem

OURS = "aif"
LIMITS_S = {10: 2.0, 50: 1.0, 100: 5.0, 200: 10.0, 500: 10.0, 2000: 60.0}
"""Wall-clock seconds by size; sizes between take the limit of the next larger one."""

MOST_SEEDS = {2000: 5}
"""Instances of a size at most: ten of each would take longer than three quarters of an hour."""

SIZES = (10, 50, 100, 200, 500, 2000)
QUICK_SIZES = (10, 50)
GAP_GOALS_PERCENT = {200: 1.0, 500: 1.0, 2000: 5.0}
OPTIMAL_WITHIN_S = {50: 1.0}
FAMILY = "base"
ROUNDING_PERCENT = 1e-4
"""A smaller gap is none: prices are rounded, and the checker counts in floating point."""


@dataclass(frozen=True, slots=True)
class Row:
    """One contender on one instance; None where nothing was found or proven."""

    contender: str
    size: int
    seed: int
    objective: float | None
    bound: float | None
    seconds: float
    broken: str = ""
    family: str = FAMILY

    @property
    def gap_percent(self) -> float | None:
        if self.objective is None or self.bound is None:
            return None
        gap = 100.0 * max(0.0, self.objective - max(0.0, self.bound)) / self.objective
        return 0.0 if gap < ROUNDING_PERCENT else gap


def measure(
    seeds: int, *, sizes: Sequence[int], quick: bool, families: Sequence[str] = (FAMILY,), keep: Keep = forget
) -> tuple[list[Metric], dict[str, Any]]:
    """Metrics, and a table with one row per contender and instance.

    Args:
        seeds: instances of each size, where ``MOST_SEEDS`` does not say fewer.
        sizes: numbers of AIMs and devices; none: all.
        quick: two small sizes.
        families: kinds of instances; metrics of all but ``base`` are named after their family.
        keep: gets metrics and table after every row.
    """
    run(OURS, instance(FAMILY, 10, 10, 0), 10, 0, 1.0)  # imports are nobody's planning time
    run("cp-sat", instance(FAMILY, 10, 10, 0), 10, 0, 1.0)
    rows: list[Row] = []
    for family, size in product(families, sizes or (QUICK_SIZES if quick else SIZES)):
        limit_s = LIMITS_S[min(s for s in LIMITS_S if s >= min(size, max(LIMITS_S)))]
        for seed in range(min(seeds, MOST_SEEDS.get(size, seeds))):
            drawn = instance(family, size, size, seed)
            for name in (OURS, *RIVALS):
                row = run(name, drawn, size, seed, limit_s, family=family)
                rows.append(row)
                print(_line(row), file=sys.stderr, flush=True)
                keep(*_result(rows))
    return _result(rows)


def _result(rows: Sequence[Row]) -> tuple[list[Metric], dict[str, Any]]:
    groups: defaultdict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.family, row.size].append(row)
    metrics = [metric for (family, size), group in groups.items() for metric in _metrics(group, family, size)]
    void = {f"{r.contender} {r.family} {r.size} seed {r.seed}": r.broken for r in rows if r.broken}
    table = [
        {
            "contender": r.contender, "family": r.family, "size": r.size, "seed": r.seed,
            "objective": r.objective, "bound": r.bound, "gap_percent": r.gap_percent, "seconds": r.seconds,
        }
        for r in rows
    ]  # fmt: skip
    return metrics, {"rows": table, "left_out": [], "void": void}


def run(name: str, drawn: Instance, size: int, seed: int, limit_s: float, *, family: str = FAMILY) -> Row:
    """One contender on one instance, judged."""
    began_s = time.perf_counter()
    problem = build_problem(drawn.workflows, drawn.inventory, drawn.policy, releases=drawn.releases)
    left_s = limit_s - (time.perf_counter() - began_s)
    if name == OURS:
        found = plan(problem, time_limit_s=left_s, seed=seed)
        answer = Answer(found.choice, found.bound)
    else:
        answer = RIVALS[name](problem, left_s, seed)
    seconds = time.perf_counter() - began_s
    if answer.choice is None:
        return Row(name, size, seed, None, answer.bound, seconds, family=family)
    objective, broken = judge(problem, drawn, answer)
    return Row(name, size, seed, None if broken else objective, answer.bound, seconds, broken, family)


def judge(problem: PlacementProblem, drawn: Instance, answer: Answer) -> tuple[float, str]:
    """Objective and the first broken rule, as the independent checker counts them."""
    chosen = answer.choice or {}
    where = {problem.items[n].key: (c.device, c.implementation) for n, c in chosen.items()}
    audit = Auditor(drawn.workflows, drawn.inventory, drawn.policy, drawn.releases).audit(where)
    broken = "; ".join(f"{v.name} {v.subject}: {v.text}" for v in audit.violations[:1])
    if not broken and answer.bound is not None and answer.bound > audit.objective * (1 + 1e-6) + 1e-6:
        broken = f"a bound of {answer.bound:g} above the cost {audit.objective:g}"
    return audit.objective, broken


def _metrics(rows: Sequence[Row], family: str, size: int) -> list[Metric]:
    of: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of[row.contender].append(row)
    end = f"{size}" if family == FAMILY else f"{family}_{size}"
    ours = of[OURS]
    metrics: list[Metric] = []
    if not ours:
        return metrics
    gaps = [row.gap_percent for row in ours if row.gap_percent is not None]
    if gaps:
        metrics.append(judged(f"p3.gap_{end}", Spread.of(gaps), "%", GAP_GOALS_PERCENT.get(size), "lower"))
    limit_s = OPTIMAL_WITHIN_S.get(size)
    proven = [float(row.gap_percent == 0.0 and row.seconds <= (limit_s or row.seconds)) for row in ours]
    goal = None if limit_s is None else 1.0
    share = sum(proven) / len(proven)
    metrics.append(judged(f"p3.proven_optimal_{end}", Spread(share, share, share), "share", goal, "higher"))
    metrics.append(judged(f"p3.seconds_{end}", Spread.of([r.seconds for r in ours]), "s", limit_s, "lower"))
    ratios = []
    for row in ours:
        rivals = [
            r.objective for name in RIVALS for r in of[name] if r.seed == row.seed and r.objective is not None
        ]
        if row.objective is not None and rivals:
            ratios.append(row.objective / min(rivals))
    if ratios:
        metrics.append(judged(f"p3.cost_vs_best_rival_{end}", Spread.of(ratios), "ratio", 1.0, "lower"))
    return metrics


def _line(row: Row) -> str:
    cost = "nothing found" if row.objective is None else f"{row.objective:.5g}"
    gap = "no bound" if row.gap_percent is None else f"gap {row.gap_percent:.2f} %"
    drawn = f"p3 {row.family} {row.size} seed {row.seed}"
    return f"{drawn} {row.contender}: {cost}, {gap}, {row.seconds:.2f} s {row.broken}"
