"""The picture of a workflow: boxes with their ports, lines with record types, colours for devices.

Decides shapes, sizes and colours. No two texts overlap: between columns there is a zone where all lines run
straight and carry their labels, and a zone where they bend; labels are cut to their space and complete in
the tool tip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Final

from aif.config.graph import INPUTS, OUTPUTS, Box, Graph, Layout, Line, arrange

BOX_WIDTH: Final = 220
HEADER: Final = 44
ROW: Final = 20
LABEL_ZONE: Final = 112
BEND_ZONE: Final = 68
GAP: Final = 26
MARGIN: Final = 28
LANE: Final = 20
BEND_HEIGHT: Final = 22
CHARACTER: Final = 6.7
"""Mean width of a character of the 12 px text, px; labels are cut with it."""

SMALL: Final = 5.9
BOLD: Final = 7.9

PALETTE: Final = (
    ("#e8f1fb", "#2f6fb0"), ("#fdf0e1", "#c26d0a"), ("#e9f6ec", "#2e8b46"), ("#f5eafa", "#8a46ad"),
    ("#fdeaea", "#c0392b"), ("#e6f5f5", "#15808a"), ("#faf6dd", "#8f7d0b"), ("#f0f0f3", "#565b73"),
)  # fmt: skip
"""Fill and stroke per device, in order; repeated when there are more devices."""

NEUTRAL: Final = ("#f7f8fa", "#5b6472")

STYLE: Final = (
    "text{font-family:'DejaVu Sans','Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#1f2630}"
    ".id{font-weight:600;font-size:13px}.use{font-size:10.5px;fill:#5b6472}.port{font-size:10.5px}"
    ".type{font-size:10.5px;fill:#4a5260}.line{fill:none;stroke:#7b8594;stroke-width:1.4}"
    ".remote{stroke:#1f2630;stroke-width:2.2}.feedback{stroke-dasharray:5 4}"
)


ARROW: Final = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="#4a5260"/></marker></defs>'
)


@dataclass(slots=True)
class _Canvas:
    """Elements in drawing order, and how far the drawing reaches."""

    lines: list[str] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    height: float = 0.0


def svg(graph: Graph) -> str:
    """An SVG document; it needs no script, no font file and no network."""
    layout = arrange(graph)
    top = _tops(layout)
    left = {box.id: MARGIN + number * (BOX_WIDTH + LABEL_ZONE + BEND_ZONE)
            for number, column in enumerate(layout.columns) for box in column}  # fmt: skip
    canvas = _Canvas()
    canvas.height = max(
        (top[box.id] + _height(box) for column in layout.columns for box in column), default=MARGIN
    )
    colours = {device: PALETTE[number % len(PALETTE)] for number, device in enumerate(graph.devices)}
    # where colours have to be used again, a number in the box and in the legend tells the devices apart
    numbers = {device: n for n, device in enumerate(graph.devices, 1)} if len(colours) > len(PALETTE) else {}
    for box in graph.boxes.values():
        number = numbers.get(box.device)
        canvas.boxes.append(_drawn(box, left[box.id], top[box.id], colours.get(box.device, NEUTRAL), number))
    labelled: set[tuple[str, str]] = set()
    for line, bends in layout.routes:
        _route(canvas, graph, line, bends, left, top)
        _label(canvas, graph, line, left, top, labelled)
    for number, line in enumerate(layout.feedback):
        _feedback(canvas, graph, line, number, left, top)
        _label(canvas, graph, line, left, top, labelled)
    canvas.height += LANE * (len(layout.feedback) + 1) + 8
    width = (
        2 * MARGIN + len(layout.columns) * BOX_WIDTH + (len(layout.columns) - 1) * (LABEL_ZONE + BEND_ZONE)
    )
    if any(left[line.source] == max(left.values()) for line in layout.feedback):
        width += LABEL_ZONE + BEND_ZONE
    legend = _legend(canvas, colours, numbers, width)
    size = f'width="{width}" height="{canvas.height:.0f}"'
    view = f'viewBox="0 0 {width} {canvas.height:.0f}" role="img" aria-label="{escape(graph.name)}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view}>',
            f"<title>{escape(graph.name)}</title>",
            f"<style>{STYLE}</style>",
            ARROW,
            f'<rect {size} fill="#ffffff"/>',
            *canvas.lines,
            *canvas.boxes,
            *canvas.labels,
            *legend,
            "</svg>\n",
        ]
    )


def _height(box: Box) -> int:
    return BEND_HEIGHT if box.bend else HEADER + ROW * box.rows + 8


def _tops(layout: Layout) -> dict[str, float]:
    """The upper edge of every box: near the boxes it is connected with, never over another."""
    into: dict[str, list[tuple[str, str, str]]] = {}
    for line, bends in layout.routes:
        stops = [line.source, *(bend.id for bend in bends), line.destination]
        for before, after in pairwise(stops):
            into.setdefault(after, []).append((before, line.output, line.input))
    boxes = {box.id: box for column in layout.columns for box in column}
    top: dict[str, float] = {}
    for column in layout.columns:
        free = float(MARGIN)
        for box in column:
            wanted = [
                _port_y(boxes[before], top[before], output, out=True) - _port_y(box, 0.0, name, out=False)
                for before, output, name in into.get(box.id, ())
                if before in top
            ]
            top[box.id] = max(free, sum(wanted) / len(wanted) if wanted else free)
            free = top[box.id] + _height(box) + GAP
        _pull_up(column, top, into)
    return top


def _pull_up(column: list[Box], top: dict[str, float], into: Mapping[str, object]) -> None:
    """Boxes without a source stand right above what follows them, not at the far top."""
    for position in range(len(column) - 2, -1, -1):
        box, below = column[position], column[position + 1]
        if box.id not in into:
            top[box.id] = max(top[box.id], top[below.id] - GAP - _height(box))


def _port_y(box: Box, top: float, name: str, *, out: bool) -> float:
    if box.bend:
        return top + BEND_HEIGHT / 2
    names = box.outputs if out else box.inputs
    row = names.index(name) if name in names else 0
    return top + HEADER + ROW * row + ROW / 2


def _drawn(box: Box, x: float, y: float, colours: tuple[str, str], number: int | None) -> str:
    fill, stroke = colours
    height = _height(box)
    boundary = box.id in (INPUTS, OUTPUTS)
    name = {INPUTS: "inputs", OUTPUTS: "outputs"}.get(box.id, box.id)
    dashes = ' stroke-dasharray="6 4"' if boundary else ""
    place = f" on {box.device}" if box.device else ""
    shape = (
        f'<rect x="{x}" y="{y:.1f}" width="{BOX_WIDTH}" height="{height}" rx="{16 if boundary else 7}" '
        f'fill="{fill}" stroke="{stroke}" stroke-width="1.5"{dashes}/>'
    )
    parts = [
        f"<g><title>{escape(f'{name}: {box.title}{place}')}</title>",
        shape,
        _text("id", x + 12, y + 19, cut(name, BOX_WIDTH - (24 if number is None else 54), BOLD)),
        _text("use", x + 12, y + 34, cut(box.title, BOX_WIDTH - 24, SMALL)),
        "</g>",
    ]
    if number is not None:
        parts.append(_text("port", x + BOX_WIDTH - 10, y + 19, f"{number}", more=' text-anchor="end"'))
    for names, others, out in ((box.inputs, box.outputs, False), (box.outputs, box.inputs, True)):
        for row, port in enumerate(names):
            opposite = len(others[row]) * SMALL if row < len(others) else 0.0
            room = max(BOX_WIDTH / 2 - 14, BOX_WIDTH - 28 - opposite)
            at = _port_y(box, y, port, out=out)
            edge = x + BOX_WIDTH if out else x
            text_x = edge - 10 if out else edge + 10
            anchor = ' text-anchor="end"' if out else ""
            parts.append(f'<circle cx="{edge}" cy="{at:.1f}" r="3.2" fill="#ffffff" stroke="{stroke}"/>')
            parts.append(_text("port", text_x, at + 3.5, cut(port, room, SMALL), port, anchor))
    return "".join(parts)


def _text(css: str, x: float, y: float, shown: str, whole: str = "", more: str = "") -> str:
    title = f"<title>{escape(whole)}</title>" if whole and whole != shown else ""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}"{more}>{title}{escape(shown)}</text>'


def cut(text: str, width: float, character: float) -> str:
    """``text`` less its middle where it does not fit into ``width`` px, ``character`` px each.

    Names of one building begin alike, and differ at their ends.
    """
    room = max(3, int(width / character))
    if len(text) <= room:
        return text
    tail = (room - 1) * 2 // 5
    return f"{text[: room - 1 - tail]}…{text[len(text) - tail :]}"


def _path(graph: Graph, line: Line, drawn: str, *more: str) -> str:
    devices = graph.boxes[line.source].device, graph.boxes[line.destination].device
    remote = ["remote"] if all(devices) and devices[0] != devices[1] else []
    css = " ".join(["line", *remote, *more])
    ends = f"{line.source}.{line.output} → {line.destination}.{line.input}"
    delay = f", delay {line.delay}" if line.delay else ""
    tip = escape(f"{ends}: {line.type_text or 'empty record'}{delay}")
    return f'<path class="{css}" d="{drawn}" marker-end="url(#tip)"><title>{tip}</title></path>'


def _route(
    canvas: _Canvas,
    graph: Graph,
    line: Line,
    bends: list[Box],
    left: Mapping[str, float],
    top: Mapping[str, float],
) -> None:
    source, destination = graph.boxes[line.source], graph.boxes[line.destination]
    y = _port_y(source, top[source.id], line.output, out=True)
    x = left[source.id] + BOX_WIDTH
    path = [f"M{x} {y:.1f}"]
    for stop in [*bends, destination]:
        end = _port_y(stop, top[stop.id], line.input, out=False)
        x += LABEL_ZONE
        reach = x + BEND_ZONE
        middle = (x + reach) / 2
        arrival = reach - 4 if stop is destination else reach
        path.append(f"H{x:.1f}C{middle:.1f} {y:.1f} {middle:.1f} {end:.1f} {arrival:.1f} {end:.1f}")
        x, y = reach, end
        if stop.bend:
            x += BOX_WIDTH
            path.append(f"H{x:.1f}")
    canvas.lines.append(_path(graph, line, "".join(path)))


def _feedback(
    canvas: _Canvas,
    graph: Graph,
    line: Line,
    number: int,
    left: Mapping[str, float],
    top: Mapping[str, float],
) -> None:
    """Right of the source down to a lane of its own, back to the left, and up to the reader."""
    source, destination = graph.boxes[line.source], graph.boxes[line.destination]
    start = _port_y(source, top[source.id], line.output, out=True)
    end = _port_y(destination, top[destination.id], line.input, out=False)
    lane = canvas.height + LANE * (number + 1)
    right = left[source.id] + BOX_WIDTH + LABEL_ZONE + 8 + 5 * (number % 10)
    turn = left[destination.id] - 18 - 4 * (number % 4)
    x = left[source.id] + BOX_WIDTH
    path = f"M{x} {start:.1f}H{right}V{lane:.1f}H{turn}V{end:.1f}H{left[destination.id] - 4}"
    canvas.lines.append(_path(graph, line, path, "feedback"))
    text = cut(f"delay {line.delay}", right - turn - 16, SMALL)
    canvas.labels.append(_text("type", turn + 10, lane - 4, text))


def _label(
    canvas: _Canvas,
    graph: Graph,
    line: Line,
    left: Mapping[str, float],
    top: Mapping[str, float],
    done: set[tuple[str, str]],
) -> None:
    """The record type above the line, once per output port."""
    if (line.source, line.output) in done:
        return
    done.add((line.source, line.output))
    shown = cut(line.type_name, LABEL_ZONE - 8, SMALL)
    x = left[line.source] + BOX_WIDTH + 8
    y = _port_y(graph.boxes[line.source], top[line.source], line.output, out=True) - 4
    canvas.labels.append(_text("type", x, y, shown, line.type_text))


def _legend(
    canvas: _Canvas, colours: Mapping[str, tuple[str, str]], numbers: Mapping[str, int], width: float
) -> list[str]:
    """Which colour is which device, in as many rows as needed."""
    x, parts = float(MARGIN), []
    for device, (fill, stroke) in colours.items():
        name = cut(device, 180, CHARACTER)
        if device in numbers:
            name = f"{numbers[device]} {name}"
        space = 28 + len(name) * CHARACTER + 20
        if x > MARGIN and x + space > width - MARGIN:
            x = float(MARGIN)
            canvas.height += ROW
        y = canvas.height - 4
        place = f'x="{x:.1f}" y="{y - 11:.1f}" width="18" height="12" rx="3"'
        parts.append(f'<rect {place} fill="{fill}" stroke="{stroke}"/>')
        parts.append(_text("port", x + 25, y, name, device))
        x += space
    canvas.height += ROW if colours else 0
    return parts
