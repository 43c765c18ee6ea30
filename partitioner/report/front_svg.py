"""The plot of energy against latency, in the style of the pictures of placements.

Decides axes, ticks and labels. Points are numbered as in the table beside them; the line between them is a
staircase, since only the points themselves are plans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from partitioner.pareto import Front, Point
from partitioner.report.lanes_svg import MARGIN, TOP, document, safe, text_at

WIDTH: Final = 760
HEIGHT: Final = 440
LEFT: Final = 96
PLOT_TOP: Final = TOP + 38
BOTTOM: Final = 64
RIGHT: Final = 40
TICKS: Final = 5
LABEL_APART: Final = 14
"""Numbers of points closer than this (px) would overlap."""


def front_svg(front: Front, title: str) -> str:
    """An SVG document with a point per plan; ``title`` says of what."""
    points = front.points
    about = " ".join(
        f"Plan {number}: {point.latency_ms:.4g} ms, {point.power_mw:.4g} mW."
        for number, point in enumerate(points, start=1)
    )
    across = _ticks([p.latency_ms for p in points])
    up = _ticks([p.power_mw for p in points])
    right, low = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(point: Point) -> tuple[float, float]:
        x = LEFT + (right - LEFT) * (point.latency_ms - across[0]) / (across[-1] - across[0])
        y = low - (low - PLOT_TOP) * (point.power_mw - up[0]) / (up[-1] - up[0])
        return x, y

    parts = _axes(across, up, right, low)
    spots = [at(point) for point in points]
    for (x1, y1), (x2, y2) in pairwise(spots):
        parts.append(f'<path class="wire" d="M{x1:.1f} {y1:.1f}H{x2:.1f}V{y2:.1f}"/>')
    shown: list[tuple[float, float]] = []
    for number, (point, (x, y)) in enumerate(zip(points, spots, strict=True), start=1):
        tip = f"plan {number}: {point.latency_ms:.4g} ms, {point.power_mw:.4g} mW, --objective {point.option}"
        parts.append(
            f'<circle class="use" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{safe(tip)}</title></circle>'
        )
        label = (x + 9, y - 8)
        if all(abs(label[0] - a) + abs(label[1] - b) > LABEL_APART for a, b in shown):
            parts.append(text_at(*label, str(number), css="b"))
            shown.append(label)
    return document(title, about or "No plan.", WIDTH, HEIGHT, parts)


def _axes(across: Sequence[float], up: Sequence[float], right: float, low: float) -> list[str]:
    top = PLOT_TOP
    parts = [f'<path class="wire" d="M{LEFT} {top}V{low}H{right}"/>']
    for value in across:
        x = LEFT + (right - LEFT) * (value - across[0]) / (across[-1] - across[0])
        parts.append(f'<path class="wire" d="M{x:.1f} {low}v5"/>')
        parts.append(text_at(x, low + 20, f"{value:.6g}", css="s", more=' text-anchor="middle"'))
    for value in up:
        y = low - (low - top) * (value - up[0]) / (up[-1] - up[0])
        parts.append(f'<path class="wire" d="M{LEFT} {y:.1f}h-5"/>')
        parts.append(text_at(LEFT - 9, y + 4, f"{value:.6g}", css="s", more=' text-anchor="end"'))
    parts.append(text_at(right, low + 44, "latency of all paths (ms)", more=' text-anchor="end"'))
    parts.append(text_at(MARGIN, TOP + 8, "mean power from batteries (mW)"))
    return parts


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers around the values; at least two."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    span = high - low or abs(high) * 0.2 or 1.0
    raw = span / TICKS
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(f * magnitude for f in (1.0, 2.0, 5.0, 10.0) if f * magnitude >= raw * (1 - 1e-9))
    first = math.floor(low / step - 1e-9)
    last = math.ceil(high / step + 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]
