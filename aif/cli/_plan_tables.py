"""How plans, comparisons and choices of plans look on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING

from aif.gateway.cells import WIDE_COLUMNS
from aif.model.standby import in_words
from partitioner.problem.sentences import data_rate, power, size
from partitioner.report.drawing import FULL, shares
from partitioner.report.page import verdict
from partitioner.report.written import aim_rows

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from aif.model.placement import Placement, Usage
    from partitioner.pareto import Front
    from partitioner.report.compare import Comparison

PLAIN_WIDTH = 150
"""Columns of the table where the output is not a terminal."""

MAX_ELSEWHERE = 4
"""Answers why an AIM is not elsewhere; the cheapest places come first."""

BAR_WIDTH = 12
RIGHT = frozenset({"latency", "planned", "deadline", "power", "traffic", "before", "now", "difference"})
"""Columns of figures."""


def plain(render: Callable[[Console], None], width: int = PLAIN_WIDTH) -> str:
    """What ``render`` prints, without colours."""
    from rich.console import Console

    target = StringIO()
    render(Console(file=target, width=width, color_system=None))
    return "".join(line.rstrip() + "\n" for line in target.getvalue().splitlines())


def render_placement(placement: Placement, console: Console) -> None:
    """Print where each AIM goes and why, how full devices and links are, latencies and the objective."""
    title = f"{placement.workflow}@{placement.workflow_version}"
    console.print(
        f"[bold]{title}[/] on inventory [bold]{placement.inventory}[/] v{placement.inventory_version}"
    )
    wide = console.width >= WIDE_COLUMNS
    bar = BAR_WIDTH if wide else BAR_WIDTH // 3
    parts: list[RenderableType] = [_aims(placement, wide=wide), _devices(placement, bar)]
    if placement.links:
        parts.append(_links(placement, bar))
    if placement.paths:
        parts.append(_paths(placement, bar))
    for part in parts:
        console.print(part)
    console.print(f"{verdict(placement)} in {placement.seconds:.2f} s", soft_wrap=True, highlight=False)


def render_comparison(comparison: Comparison, console: Console) -> None:
    """Print which AIMs moved and which figures changed."""
    from rich.markup import escape

    console.print(f"compared with [bold]{escape(comparison.before)}[/]: {comparison.stayed} AIMs stayed")
    for remark in comparison.remarks:
        console.print(escape(remark))
    if comparison.moves:
        moved = _table("AIM", "from", "to")
        for move in comparison.moves:
            ends = (str(end) if end is not None else "not placed" for end in (move.before, move.after))
            moved.add_row(escape(in_words(move.aim)), *(escape(end) for end in ends))
        console.print(moved)
    changed = _table("figure", "before", "now", "difference")
    for change in comparison.changes:
        changed.add_row(escape(change.name), *(f"{value} {change.unit}".rstrip() for value in change.told))
    console.print(changed if comparison.changes else "no figure changed")


def render_front(front: Front, console: Console) -> None:
    """Print the choice between energy and latency, and how to make each plan again."""
    table = _table("plan", "latency", "power", "gap", "options that give it again")
    for number, point in enumerate(front.points, start=1):
        table.add_row(
            str(number),
            f"{point.latency_ms:,.4g} ms",
            f"{point.power_mw:,.4g} mW",
            f"{point.plan.gap:.2%}",
            f"--objective {point.option}",
        )
    console.print(table)
    best = "one plan is best in both" if len(front.points) == 1 else f"{len(front.points)} plans"
    console.print(f"{best}; {front.tried} were made, the others are no better in anything", highlight=False)


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in RIGHT else "left", overflow="fold")
    return table


def _aims(placement: Placement, *, wide: bool) -> Table:
    """Where each AIM goes; a narrow terminal has no room for the rejected devices."""
    from rich.markup import escape

    columns = ("AIM", "device", "implementation", "latency", "figure", "why there", "why not elsewhere")
    table = _table(*(columns if wide else ("AIM", "device", "latency", "why there")))
    for row in aim_rows(placement):
        latency = f"{row.latency_us:,.0f} us" if row.rule else ""
        elsewhere = "\n".join(row.elsewhere[:MAX_ELSEWHERE])
        if len(row.elsewhere) > MAX_ELSEWHERE:
            elsewhere += f"\nand {len(row.elsewhere) - MAX_ELSEWHERE} more (--format json has all)"
        cells = (row.aim, row.device, row.implementation, latency, row.rule, row.reason, elsewhere)
        shown = cells if wide else (row.aim, row.device, latency, row.reason)
        table.add_row(*(escape(cell) for cell in shown))
    return table


def _devices(placement: Placement, bar: int) -> Table:
    table = _table("device", "RAM", "flash", "CPU", "power")
    for usage in placement.usage:
        table.add_row(usage.device, *_bars(usage, bar), power(usage.power_mw))
    return table


def _bars(usage: Usage, bar: int) -> tuple[str, str, str]:
    share = shares(usage)
    ram = f"{size(usage.ram_bytes)} of {size(usage.ram_limit_bytes)}"
    flash = f"{size(usage.flash_bytes)} of {size(usage.flash_limit_bytes)}"
    cpu = f"{usage.cpu_share:.1%} of {usage.cpu_limit:.0%}"
    return (
        f"{_bar(share.get('RAM', 0.0), bar)} {ram}",
        f"{_bar(share['flash'], bar)} {flash}" if "flash" in share else "not budgeted",
        f"{_bar(share.get('CPU', 0.0), bar)} {cpu}",
    )


def _bar(share: float, width: int) -> str:
    """Filled to the used share; anything used shows at least one step."""
    steps = min(width, max(round(share * width), 1 if share > 0 else 0))
    colour = "red" if share > FULL else "green"
    return f"[{colour}]{'█' * steps}[/][dim]{'░' * (width - steps)}[/]"


def _links(placement: Placement, bar: int) -> Table:
    from rich.markup import escape

    table = _table("link", "devices", "traffic", "")
    for link in placement.links:
        share = link.bps / link.limit_bps if link.limit_bps else 0.0
        traffic = f"{data_rate(link.bps)} of {data_rate(link.limit_bps)}"
        table.add_row(escape(link.link), escape(", ".join(link.members)), traffic, _bar(share, bar))
    return table


def _paths(placement: Placement, width: int) -> Table:
    table = _table("path", "planned", "deadline", "")
    for path in placement.paths:
        deadline = "none" if path.deadline_ms is None else f"{path.deadline_ms:,.0f} ms"
        bar = "" if not path.deadline_ms else _bar(path.latency_ms / path.deadline_ms, width)
        table.add_row(path.id, f"{path.latency_ms:,.1f} ms", deadline, bar)
    return table
