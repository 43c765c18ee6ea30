"""The picture of a placement: a lane per device with bars of its use, AIMs from left to right, links below.

Decides shapes, sizes and colours; what is shown is decided in ``drawing``. The document needs no script, no
font file and no network; colours follow the reader's light or dark preference, and nothing is said by
colour alone: shares are written beside their bars, full ones are marked. Texts too long for their space lose
their middle, and are complete in the tool tip.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from aif.config.svg import SMALL, cut
from aif.model.aiw import Workflow
from aif.model.placement import LinkUsage, Placement, Usage
from aif.model.standby import in_words, served_by
from partitioner.problem.sentences import data_rate, listed, power, size
from partitioner.report.drawing import FULL, Block, Drawing, Lane, Wire, drawing_of, shares

MARGIN: Final = 20
TOP: Final = 58
HEAD: Final = 330
"""Width of the part of a lane that tells about the device, px."""

BLOCK: Final = (148, 40)
GAP: Final = 54
STACK: Final = 12
LANE: Final = 92
IDLE_LANE: Final = 40
BETWEEN: Final = 8
ROW: Final = 24
BAR: Final = (92, 9)
LINKS_WIDTH: Final = 760
MAX_IDLE: Final = 6
"""Idle devices and links drawn one by one; more are only counted."""

STYLE: Final = (
    "text{font-family:'DejaVu Sans','Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#1f2630}"
    ".h{font-size:16px;font-weight:600}.b{font-weight:600}.s{font-size:10.5px;fill:#4a5260}"
    ".page{fill:#fff}.lane{fill:#f2f5f9;stroke:#c3cbd6}.block{fill:#fff;stroke:#2f6fb0;stroke-width:1.4}"
    ".track{fill:#d5dbe4}.use{fill:#2e7d32}.over{fill:#b3261e}.alarm{fill:#a3180f;font-weight:600}"
    ".wire{fill:none;stroke:#6b7686;stroke-width:1.4}.remote{stroke:#1f2630;stroke-width:2.2}.tip{fill:#1f2630}"
    "@media (prefers-color-scheme:dark){text,.tip{fill:#e8ecf2}.s{fill:#b4bdca}.page{fill:#12161c}"
    ".lane{fill:#1c222b;stroke:#46505e}.block{fill:#12161c;stroke:#7db4ea}.track{fill:#3a4450}.use{fill:#6cc070}"
    ".over{fill:#ff8a80}.alarm{fill:#ffa79e}.wire{stroke:#8f9bab}.remote{stroke:#e8ecf2}}"
)
ARROW: Final = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'markerUnits="userSpaceOnUse" orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
)
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Corner = tuple[float, float]


def safe(text: str) -> str:
    """Text for XML and HTML: escaped, with what neither may hold replaced."""
    return escape(_NOT_XML.sub("\ufffd", text))


def lanes_svg(workflows: Sequence[Workflow], placement: Placement) -> str:
    """An SVG document.

    Args:
        workflows: what was placed; their Channels become the wires.
        placement: where the AIMs are, how full devices and links get.
    """
    drawing = drawing_of(workflows, placement)
    width = max(2 * MARGIN + HEAD + drawing.columns * (BLOCK[0] + GAP) + GAP, 2 * MARGIN + LINKS_WIDTH)
    lanes, corners, gutters, y = _lanes(drawing, width)
    wires = [_wire(wire, corners, gutters[wire.source]) for wire in drawing.wires]
    links, height = _links(placement.links, y + 12)
    return document(
        drawing.title, summary(drawing), width, height, [*lanes, *wires, *_blocks(drawing, corners), *links]
    )


def document(title: str, about: str, width: float, height: float, parts: Sequence[str]) -> str:
    """An SVG document around ``parts``: heading, description for screen readers, style."""
    size_px = f'width="{width:.0f}" height="{height:.0f}"'
    view = f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-labelledby="picture-title picture-desc"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size_px} {view}>',
            f'<title id="picture-title">{safe(title)}</title>',
            f'<desc id="picture-desc">{safe(about)}</desc>',
            f"<style>{STYLE}</style>",
            ARROW,
            f'<rect class="page" {size_px}/>',
            text_at(MARGIN, 34, title, (width - 2 * MARGIN, 10.2), "h"),
            *parts,
            "</svg>\n",
        ]
    )


def summary(drawing: Drawing) -> str:
    """The picture in sentences."""
    told = []
    for lane in drawing.lanes:
        if lane.blocks:
            use = "" if lane.usage is None else f" ({_shares_text(lane.usage)})"
            told.append(f"{lane.device}{use} runs {', '.join(block.key for block in lane.blocks)}.")
    idle = sum(not lane.blocks for lane in drawing.lanes)
    if idle:
        told.append(f"{idle} more {'device runs' if idle == 1 else 'devices run'} nothing.")
    return " ".join(told) or "Nothing is placed."


def text_at(
    x: float, y: float, text: str, room: tuple[float, float] = (1e9, SMALL), css: str = "", more: str = ""
) -> str:
    """A text, cut to ``room`` (px, px per character); whole in its tool tip when it had to be cut."""
    shown = cut(text, *room)
    title = f"<title>{safe(text)}</title>" if shown != text else ""
    kind = f' class="{css}"' if css else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}"{more}>{title}{safe(shown)}</text>'


def _shares_text(usage: Usage) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares(usage).items())


# --- lanes ---


def _lanes(
    drawing: Drawing, width: float
) -> tuple[list[str], dict[str, Corner], dict[str, tuple[float, float]], float]:
    """Background and device of each lane, each block's corner and the free lines beside its lane, the end."""
    parts: list[str] = []
    corners: dict[str, Corner] = {}
    gutters: dict[str, tuple[float, float]] = {}
    y = float(TOP)
    idle = 0
    for lane in drawing.lanes:
        if not lane.blocks:
            idle += 1
            if idle > MAX_IDLE:
                continue
        height = _height(lane)
        box = f'x="{MARGIN}" y="{y:.1f}" width="{width - 2 * MARGIN}" height="{height}" rx="8"'
        parts += [f'<rect class="lane" {box}/>', *_device(lane, y)]
        _stack(lane, y, height, corners)
        around = (y - BETWEEN / 2, y + height + BETWEEN / 2)
        gutters |= dict.fromkeys((block.key for block in lane.blocks), around)
        y += height + BETWEEN
    if idle > MAX_IDLE:
        parts.append(
            text_at(MARGIN + 12, y + 14, f"and {idle - MAX_IDLE} more devices that run nothing", css="s")
        )
        y += ROW
    return parts, corners, gutters, y


def _height(lane: Lane) -> int:
    if not lane.blocks:
        return IDLE_LANE
    highest = max(_at_column(lane.blocks).values())
    return max(LANE, 2 * STACK + highest * BLOCK[1] + (highest - 1) * STACK)


def _at_column(blocks: Sequence[Block]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for block in blocks:
        counts[block.column] = counts.get(block.column, 0) + 1
    return counts


def _stack(lane: Lane, y: float, height: int, corners: dict[str, Corner]) -> None:
    """Blocks of one column stand above each other, in the middle of the lane."""
    counts, placed = _at_column(lane.blocks), dict[int, int]()
    for block in lane.blocks:
        count, row = counts[block.column], placed.get(block.column, 0)
        placed[block.column] = row + 1
        used = count * BLOCK[1] + (count - 1) * STACK
        x = MARGIN + HEAD + GAP / 2 + block.column * (BLOCK[0] + GAP)
        corners[block.key] = (x, y + (height - used) / 2 + row * (BLOCK[1] + STACK))


def _device(lane: Lane, y: float) -> list[str]:
    x = MARGIN + 12
    parts = [text_at(x, y + 20, lane.device, (HEAD - 120, 8.2), "b")]
    usage = lane.usage
    if usage is None:
        return parts
    right = ' text-anchor="end"'
    parts.append(text_at(MARGIN + HEAD - 12, y + 20, power(usage.power_mw), css="s", more=right))
    if not lane.blocks:
        parts.append(text_at(x, y + 34, "runs nothing", css="s"))
        return parts
    figures = {
        "RAM": f"{size(usage.ram_bytes)} of {size(usage.ram_limit_bytes)}",
        "flash": f"{size(usage.flash_bytes)} of {size(usage.flash_limit_bytes)}",
        "CPU": f"{usage.cpu_share:.1%} of {usage.cpu_limit:.0%}",
    }
    for row, (name, share) in enumerate(shares(usage).items()):
        parts += bar(x, y + 42 + 18 * row, name, share, figures[name])
    return parts


def bar(
    x: float, y: float, name: str, share: float, figure: str, *, label: float = 40, room: float = 130
) -> list[str]:
    """``name``, a bar, the share in words and the figure; ``y`` is the line on which the text stands."""
    width, height = BAR
    filled = min(1.0, max(0.0, share)) * width
    filled = max(filled, 2.0) if share > 0 else 0.0
    over = share > FULL
    top = y - height + 1
    mark = " full" if over else ""
    start = x + label
    filled_bar = (
        f'<rect class="{"over" if over else "use"}" x="{start:.1f}" y="{top:.1f}" width="{filled:.1f}" '
        f'height="{height}" rx="2"/>'
    )
    return [
        text_at(x, y, name, (label - 4, SMALL), "s"),
        f'<rect class="track" x="{start:.1f}" y="{top:.1f}" width="{width}" height="{height}" rx="2"/>',
        filled_bar,
        text_at(start + width + 8, y, percent(share) + mark, css="alarm s" if over else "s"),
        text_at(start + width + 68, y, figure, (room, SMALL), "s"),
    ]


def percent(share: float) -> str:
    """A share in words; what is used but rounds to nothing says so."""
    return "< 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def _blocks(drawing: Drawing, corners: Mapping[str, Corner]) -> list[str]:
    parts = []
    for lane in drawing.lanes:
        for block in lane.blocks:
            x, y = corners[block.key]
            dashed = ' stroke-dasharray="5 4"' if served_by(block.key) else ""
            tip = f"{in_words(block.key)} on {lane.device}" + (
                f", {block.implementation}" if block.implementation else ""
            )
            room = BLOCK[0] - 18
            middle = 24 if not block.implementation else 17
            parts.append(
                f'<g><title>{safe(tip)}</title><rect class="block" x="{x:.1f}" y="{y:.1f}" '
                f'width="{BLOCK[0]}" height="{BLOCK[1]}" rx="6"{dashed}/>'
                + text_at(x + 10, y + middle, block.key, (room, 7.8), "b")
                + (
                    text_at(x + 10, y + 32, block.implementation, (room, SMALL), "s")
                    if block.implementation
                    else ""
                )
                + "</g>"
            )
    return parts


# --- wires and links ---


def _wire(wire: Wire, corners: Mapping[str, Corner], gutter: tuple[float, float]) -> str:
    """From the right edge to the left one; past other columns beside the lane, back under both.

    Args:
        wire: what to draw.
        corners: of all blocks.
        gutter: where nothing stands above and below the lane of its source.
    """
    (x1, y1), (x2, y2) = corners[wire.source], corners[wire.destination]
    x1, y1, y2 = x1 + BLOCK[0], y1 + BLOCK[1] / 2, y2 + BLOCK[1] / 2
    x2 -= 3
    if x2 <= x1:  # back to an earlier column, or to itself
        low = max(y1, y2) + BLOCK[1] / 2 + STACK / 2
        path = f"M{x1:.1f} {y1:.1f}h10V{low:.1f}H{x2 - 13:.1f}V{y2:.1f}h12"
    elif x2 - x1 <= GAP:
        bend = (x2 - x1) / 2
        path = f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    else:
        edge = gutter[1] if y2 >= y1 else gutter[0]
        bend = GAP / 2
        path = (
            f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x1:.1f} {edge:.1f} {x1 + bend:.1f} {edge:.1f}"
            f"H{x2 - GAP:.1f}C{x2 - bend:.1f} {edge:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        )
    tip = safe(f"{wire.source} to {wire.destination}: {wire.label}")
    css = "wire remote" if wire.remote else "wire"
    return f'<path class="{css}" d="{path}" marker-end="url(#tip)"><title>{tip}</title></path>'


def _links(links: Sequence[LinkUsage], y: float) -> tuple[list[str], float]:
    """A row per link with its traffic; busy ones first."""
    if not links:
        return [], y + 8
    parts = [text_at(MARGIN, y + 12, "Links", css="b")]
    y += 34
    busy = [link for link in links if link.bps]
    idle = [link for link in links if not link.bps]
    for link in [*busy, *idle[:MAX_IDLE]]:
        share = link.bps / link.limit_bps if link.limit_bps else float(link.bps > 0)
        figure = f"{data_rate(link.bps)} of {data_rate(link.limit_bps)}"
        parts.append(text_at(MARGIN + 12, y, link.link, (150, 7.6), "b"))
        parts += bar(MARGIN + 176, y, "", share, figure, label=0, room=160)
        parts.append(text_at(MARGIN + 500, y, listed(link.members), (LINKS_WIDTH - 500, SMALL), "s"))
        y += ROW
    if len(idle) > MAX_IDLE:
        parts.append(
            text_at(MARGIN + 12, y, f"and {len(idle) - MAX_IDLE} more links without traffic", css="s")
        )
        y += ROW
    return parts, y
