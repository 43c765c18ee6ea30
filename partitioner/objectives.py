"""Objectives other than those of the workflow's file: by weight, or one after the other.

Decides how names and weights become the weights of workflows, how an order of objectives becomes weights, and
how a plan is measured in physical units whatever it was planned for. An order is planned by weights alone:
each later objective gets a weight so small that all of it together is worth ``TOLERANCE`` of what was reached
before (decision 33). The weights are returned, so every plan can be made again with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Final

from aif.errors import PlacementError
from aif.model.aiw import Objectives, Workflow
from aif.model.check import nearest
from partitioner.planner import Plan
from partitioner.policy import (
    LATENCY_SCALE_US,
    MIGRATION_SCALE_BYTES,
    POWER_SCALE_MW,
    TRAFFIC_SCALE_BYTES_PER_S,
)
from partitioner.problem.build import MAX_OBJECTIVE_WEIGHT, rebuilt
from partitioner.problem.evaluate import Choice, evaluate
from partitioner.problem.parts import PlacementProblem

NAMES: Final = tuple(field.name for field in fields(Objectives))
TOLERANCE: Final = 0.01
"""Share of what earlier objectives reached that later ones may cost."""

FIRST_WEIGHT: Final = 100.0
LEAST_WEIGHT: Final = 1e-4

UNITS: Final[Mapping[str, tuple[str, float]]] = {
    "latency": ("ms", LATENCY_SCALE_US / 1000.0),
    "energy": ("mW", POWER_SCALE_MW),
    "traffic": ("B/s", TRAFFIC_SCALE_BYTES_PER_S),
    "balance": ("of the fullest device", 1.0),
    "exposure": ("records/s", 1.0),
    "migration": ("B", MIGRATION_SCALE_BYTES),
    "devices": ("devices", 1.0),
}
"""Unit of each objective, and how much of it is one objective unit."""

Weights = Mapping[str, float]
Solve = Callable[[Weights], Plan]
"""Plans with weights; the caller decides time, seed and everything else."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """A plan and the weights that give it again."""

    weights: Weights
    plan: Plan

    @property
    def option(self) -> str:
        """The weights as ``aif plan --objective`` takes them."""
        return written(self.weights)


def read_weights(text: str) -> dict[str, float]:
    """``energy`` or ``energy=1,latency=0.2`` as weights; a name alone weighs 1.

    Raises:
        PlacementError: an unknown name, one that comes twice, or a weight out of range.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, given, value = (piece.strip() for piece in part.partition("="))
        _check(name, weights)
        try:
            weights[name] = float(value) if given else 1.0
        except ValueError:
            raise PlacementError(f"{name} has the weight {value!r}", hint=f"write {name}=0.5") from None
        if not 0 <= weights[name] <= MAX_OBJECTIVE_WEIGHT:
            raise PlacementError(
                f"{name} has the weight {value}", hint=f"weights are 0 to {MAX_OBJECTIVE_WEIGHT:,.0f}"
            )
    if not any(weights.values()):
        raise PlacementError(f"all objectives of {text!r} weigh nothing", hint="give one a weight above 0")
    return weights


def read_order(text: str) -> tuple[str, ...]:
    """``latency,energy``: the most important first.

    Raises:
        PlacementError: an unknown name, or one that comes twice.
    """
    names: dict[str, float] = {}
    for name in (part.strip() for part in text.split(",")):
        _check(name, names)
        names[name] = 1.0
    return tuple(names)


def _check(name: str, known: Mapping[str, float]) -> None:
    if name not in NAMES:
        raise PlacementError(f"there is no objective {name!r}", hint=nearest(name, NAMES))
    if name in known:
        raise PlacementError(f"objective {name} is given twice", hint="give each one once")


def written(weights: Weights) -> str:
    """Weights as an option that gives them again."""
    return ",".join(f"{name}={weight:.6g}" for name, weight in weights.items() if weight)


def weighing(workflows: Sequence[Workflow], weights: Weights) -> tuple[Workflow, ...]:
    """The same workflows with these weights; objectives that are not named weigh nothing."""
    objectives = Objectives(**{name: weights.get(name, 0.0) for name in NAMES})
    return tuple(replace(w, metadata=replace(w.metadata, objectives=objectives)) for w in workflows)


def in_order(solve: Solve, order: Sequence[str], tolerance: float = TOLERANCE) -> Weighted:
    """Plan for the first objective, then for the next ones at almost no cost to those before.

    With optimal plans the weighted sum of the earlier objectives grows by at most ``tolerance`` of the share
    of the last of them; a plan in which the first one grows by more is not taken.
    """
    weights = {order[0]: FIRST_WEIGHT}
    best = Weighted(weights, solve(weights))
    for before, name in pairwise(order):
        now = figures(best.plan)
        worth = tolerance * best.weights[before] * now[before] / UNITS[before][1]
        costs = now[name] / UNITS[name][1]
        weight = worth / costs if costs and worth else LEAST_WEIGHT
        weight = float(f"{min(max(weight, LEAST_WEIGHT), MAX_OBJECTIVE_WEIGHT):.6g}")
        trial = {**best.weights, name: weight}
        plan = solve(trial)
        first = now[order[0]]
        kept = figures(plan)[order[0]] <= first * (1.0 + 2.0 * tolerance) + 1e-9
        best = Weighted(trial, plan) if kept else best
    return best


def figures(plan: Plan) -> dict[str, float]:
    """Every objective of a plan in its unit (``UNITS``), whatever weights the plan was made with.

    ``migration`` is not known here, since it needs to be told what runs now: 0.
    """
    ones = _unweighted(plan.problem)
    evaluation = evaluate(ones, _same(plan.choice, ones))
    return {name: evaluation.terms.get(name, 0.0) * UNITS[name][1] for name in NAMES}


def _unweighted(problem: PlacementProblem) -> PlacementProblem:
    workflows = weighing(problem.workflows, dict.fromkeys(NAMES, 1.0))
    return rebuilt(problem, workflows=workflows)


def _same(choice: Choice, problem: PlacementProblem) -> Choice:
    """The same devices and implementations in a problem that differs only in its prices."""
    found = {}
    for number, chosen in choice.items():
        here = problem.items[number].on(chosen.device)
        found[number] = next(c for c in here if c.implementation == chosen.implementation)
    return found
