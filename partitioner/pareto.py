"""Energy against latency: the plans of which none is better in one without being worse in the other.

Decides which weights are tried: first one objective after the other in both orders, then between two
neighbouring points the weights for which both are equally good, largest distance first. If no plan is better
under those weights, none lies below the line between the two. So the points on the convex hull are found,
with weights that give each of them again; points above the hull are not looked for.

Source: Aneja and Nair, Bicriteria transportation problem, Management Science 25 (1979).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from partitioner.objectives import UNITS, Solve, Weighted, Weights, figures, in_order, written
from partitioner.planner import Plan

DEFAULT_POINTS: Final = 8
MAX_POINTS: Final = 100
SAME: Final = 1e-6
"""Relative difference below which two figures are equal."""


@dataclass(frozen=True, slots=True)
class Point:
    """A plan with its figures.

    Attributes:
        latency_ms: sum over all paths.
        power_mw: mean power drawn from batteries.
        option: value of ``--objective`` that gives the plan again.
        plan: the plan.
    """

    latency_ms: float
    power_mw: float
    option: str
    plan: Plan

    def dominates(self, other: Point) -> bool:
        """At least as good in both, and better in one or equal in both."""
        return _at_most(self.latency_ms, other.latency_ms) and _at_most(self.power_mw, other.power_mw)


@dataclass(frozen=True, slots=True)
class Front:
    """Points from the fastest to the most economical; ``tried`` plans were made for them."""

    points: tuple[Point, ...]
    tried: int


def _at_most(a: float, b: float) -> bool:
    return a <= b + SAME * max(abs(a), abs(b), SAME)


def front(solve: Solve, points: int = DEFAULT_POINTS) -> Front:
    """At most ``points`` plans, with their weights.

    Args:
        solve: plans with weights.
        points: 2..``MAX_POINTS``; no more plans than three times that are made.
    """
    tried = 0

    def counted(weights: Weights) -> Point:
        nonlocal tried
        tried += 1
        return _point(Weighted(weights, solve(weights)))

    fastest = _point(in_order(solve, ("latency", "energy")))
    leanest = _point(in_order(solve, ("energy", "latency")))
    tried += 4
    found = without_dominated([fastest, leanest])
    closed: set[tuple[str, str]] = set()
    while len(found) < points and tried < 3 * points + 4:
        open_ = [(a, b) for a, b in pairwise(found) if (a.option, b.option) not in closed]
        if not open_:
            break
        first, second = max(open_, key=lambda pair: _distance(found, *pair))
        new = counted(_between(first, second))
        if any(point.dominates(new) for point in found):
            closed.add((first.option, second.option))
        else:
            found = without_dominated([*found, new])
    return Front(tuple(found), tried)


def without_dominated(points: Sequence[Point]) -> list[Point]:
    """The points that no other is better than, fastest first; of equal ones the first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.latency_ms, p.power_mw)):
        if not any(other.dominates(point) for other in kept):
            kept.append(point)
    return kept


def _point(made: Weighted) -> Point:
    known = figures(made.plan)
    return Point(known["latency"], known["energy"], written(made.weights), made.plan)


def _between(first: Point, second: Point) -> dict[str, float]:
    """Weights for which both points cost the same; the larger is 100."""
    latency = abs(first.power_mw - second.power_mw) / UNITS["energy"][1]
    energy = abs(first.latency_ms - second.latency_ms) / UNITS["latency"][1]
    scale = 100.0 / max(latency, energy)
    return {"latency": float(f"{latency * scale:.6g}"), "energy": float(f"{energy * scale:.6g}")}


def _distance(points: Sequence[Point], first: Point, second: Point) -> float:
    wide = points[-1].latency_ms - points[0].latency_ms
    high = points[0].power_mw - points[-1].power_mw
    return (second.latency_ms - first.latency_ms) / (wide or 1.0) + (first.power_mw - second.power_mw) / (
        high or 1.0
    )


def front_json(front: Front) -> str:
    """The points as a JSON document: figures, the option that gives each again, and where its AIMs are."""
    plans = [
        {
            "latency_ms": point.latency_ms,
            "power_mw": point.power_mw,
            "gap": point.plan.gap,
            "objective": point.option,
            "where": dict(point.plan.where),
        }
        for point in front.points
    ]
    return (
        json.dumps({"schema": 1, "tried": front.tried, "plans": plans}, indent=2, ensure_ascii=False) + "\n"
    )
