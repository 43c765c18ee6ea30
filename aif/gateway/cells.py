"""How a figure looks in a line or a table cell.

Decides glyphs, units and colours. Does not decide which figure stands where. Nothing here reads markup, so
a text from a device cannot style the screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from rich.table import Table
from rich.text import Text

WIDE_COLUMNS: Final = 96
"""From this width on there is room for device classes, implementations and longer bars."""
NONE: Final = "-"
"""Stands where a figure is not known."""
NEARLY_FULL: Final = 0.9
_SIZES: Final = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_STYLES: Final = {
    "running": "green",
    "completed": "green",
    "finished": "green",
    "trusted": "green",
    "failed": "red",
    "rejected": "red",
    "lost": "red",
    "degraded": "yellow",
    "paused": "yellow",
}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Signs that a terminal can show."""

    yes: str
    no: str
    full: str
    empty: str
    arrow: str
    dot: str


UNICODE: Final = Glyphs("✓", "✗", "█", "░", "→", "●")
ASCII: Final = Glyphs("+", "x", "#", "-", "->", "*")


def glyphs(encoding: str) -> Glyphs:
    """Signs for a stream of this encoding."""
    return UNICODE if encoding.lower().replace("-", "").startswith("utf") else ASCII


def state(word: str) -> Text:
    return Text(word, style=_STYLES.get(word, ""))


def percent(share: float | None) -> str:
    return NONE if share is None else f"{share:.1%}"


def size(bytes_: int) -> str:
    for unit, least in _SIZES:
        if bytes_ >= least:
            return f"{bytes_ / least:.1f} {unit}"
    return f"{bytes_} B"


def milliseconds(value_ms: float | None) -> str:
    if value_ms is None:
        return NONE
    return f"{value_ms:.2f}" if value_ms < 10 else f"{value_ms:,.0f}"


def microseconds(value_us: float | None) -> str:
    return NONE if value_us is None else f"{value_us:,.0f}"


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def bar(share: float, width: int, signs: Glyphs, *, budget: bool = False) -> Text:
    """Filled to a share; anything above nothing shows. A budget turns yellow when nearly full, red above."""
    steps = min(width, max(round(share * width), 1 if share > 0 else 0))
    style = "green"
    if budget and share > NEARLY_FULL:
        style = "yellow" if share <= 1 else "red"
    return Text.assemble((signs.full * steps, style), (signs.empty * (width - steps), "dim"))


def budget(used_bytes: int, limit_bytes: int, width: int, signs: Glyphs) -> Text:
    """How full a memory is: a bar and a share; just the size where there is no limit."""
    if limit_bytes <= 0:
        return Text(size(used_bytes) if used_bytes else NONE, style="" if used_bytes else "dim")
    share = used_bytes / limit_bytes
    return Text.assemble(bar(share, width, signs, budget=True), f" {share:>4.0%}")


def trouble(label: str, amount: int) -> Text:
    """A counter that should stay at zero."""
    return Text(f"{label} {amount:,}", style="bold red" if amount else "")


class Column(NamedTuple):
    """One column of a grid. One that ``grows`` takes the width that the others leave."""

    heading: str
    right: bool = False
    grows: bool = False


def grid(*columns: Column) -> Table:
    """A table without lines whose rows have one line each."""
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if column.grows else None,
        )
    return table
