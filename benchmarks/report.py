"""From rounds to metrics and tables.

Decides when a goal is met: the median reaches it and the worst round reaches 0.8 of it. Prints; measures
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchmarks.cell import Cell
from benchmarks.contenders import CONTENDERS
from benchmarks.harness import Round, Spread, ratios, spread

WORST_ROUND = 0.8
"""Share of a goal that the worst round must reach."""

Keep = Callable[[list["Metric"], dict[str, Any]], None]
"""Takes what was measured so far, so that an interruption loses nothing."""


def forget(metrics: list[Metric], table: dict[str, Any]) -> None:
    """Keeps nothing."""


Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure that stands for the project, with its goal."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    goal: float | None
    better: Better
    met: bool | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio to form: a cell against the best of its references."""

    name: str
    figure: str
    cell: Cell
    references: tuple[Cell, ...]
    goal: float | None
    better: Better

    def metric(self, rounds: Sequence[Round]) -> Metric | None:
        """None if nothing was measured for it."""
        found = ratios(rounds, self.figure, self.cell, self.references)
        return None if found is None else judged(self.name, found, "ratio", self.goal, self.better)


def judged(name: str, value: Spread, unit: str, goal: float | None, better: Better) -> Metric:
    """A metric with its verdict."""
    met = None
    if goal is not None and better == "higher":
        met = value.median >= goal and value.low >= WORST_ROUND * goal
    elif goal is not None:
        met = value.median <= goal and value.high <= goal / WORST_ROUND
    return Metric(name, value.median, value.low, value.high, unit, goal, better, met)


def rows(
    rounds: Sequence[Round], figure: str, reference: Sequence[Cell], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """One row per cell: ratio to the reference, and the columns' medians."""
    table = []
    for cell in sorted(
        rounds[0], key=lambda c: (c.broker, c.qos, c.size_bytes, c.contender, c.mode, c.bundle)
    ):
        ratio = ratios(rounds, figure, cell, reference)
        row: dict[str, Any] = {
            "row": cell.name,
            "what": CONTENDERS[cell.contender].note,
            "ratio": str(ratio) if ratio is not None else "",
        }
        for column in columns:
            value = spread(rounds, column, cell)
            row[column] = None if value is None else value.median
        table.append(row)
    return table


def print_table(title: str, table: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    print(f"\n{title}")
    width = max((len(row["row"]) for row in table), default=0)
    print(f"{'':{width}}  {'ratio [min-max]':>22}" + "".join(f"  {column:>17}" for column in columns))
    for row in table:
        cells = "".join(f"  {_number(row[column]):>17}" for column in columns)
        print(f"{row['row']:{width}}  {row['ratio']:>22}{cells}  {row['what']}")


def print_metrics(metrics: Sequence[Metric]) -> None:
    print("\ngoals")
    for metric in metrics:
        verdict = {True: "met", False: "MISSED", None: "context"}[metric.met]
        sign = "≥" if metric.better == "higher" else "≤"
        goal = "" if metric.goal is None else f"goal {sign} {metric.goal:g}"
        span = f"{metric.value:.3g} [{metric.low:.3g}-{metric.high:.3g}]"
        print(f"  {metric.name:52} {span:>24} {metric.unit:6} {goal:14} {verdict}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
