"""A placement as text that other programs draw: Mermaid flow charts and Graphviz DOT.

Decides only the words of the two languages; what is shown is decided in ``drawing``.
Source: Mermaid flowchart syntax; the DOT language, https://graphviz.org/doc/info/lang.html.
"""

from __future__ import annotations

from collections.abc import Sequence

from aif.model.aiw import Workflow
from aif.model.placement import Placement, Usage
from aif.model.standby import served_by
from partitioner.problem.sentences import data_rate
from partitioner.report.drawing import drawing_of, shares


def mermaid(workflows: Sequence[Workflow], placement: Placement) -> str:
    """A flow chart: one box per device, thick arrows between devices, full devices in red."""
    drawing = drawing_of(workflows, placement)
    lanes = [lane for lane in drawing.lanes if lane.blocks]
    names = {a.aim: f"n{number}" for number, a in enumerate(placement.assignments)}
    lines = ["flowchart LR"]
    for number, lane in enumerate(lanes):
        lines.append(f'  subgraph d{number}["{_escaped(lane.device)}"]')
        for block in lane.blocks:
            code = f"<br/>{_escaped(block.implementation)}" if block.implementation else ""
            lines.append(f'    {names[block.key]}["{_escaped(block.key)}{code}"]')
        lines.append("  end")
    for wire in drawing.wires:
        arrow = "==>" if wire.remote else "-->"
        label = _escaped(wire.label)
        lines.append(f'  {names[wire.source]} {arrow}|"{label}"| {names[wire.destination]}')
    lines += [f"  style d{n} stroke:#c00,stroke-width:3px" for n, lane in enumerate(lanes) if lane.full]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def dot(workflows: Sequence[Workflow], placement: Placement) -> str:
    """A Graphviz digraph: a cluster per device with its use, bold edges between devices, links below."""
    drawing = drawing_of(workflows, placement)
    lanes = [lane for lane in drawing.lanes if lane.blocks]
    names = {a.aim: f"n{number}" for number, a in enumerate(placement.assignments)}
    lines = [
        "digraph placement {",
        f"  graph [rankdir=LR, label={_quoted(_caption(drawing.title, placement))}, fontname=sans];",
        "  node [shape=box, style=rounded, fontname=sans];",
        "  edge [fontname=sans, fontsize=10];",
    ]
    for number, lane in enumerate(lanes):
        colour = ', color="#c00000", penwidth=3' if lane.full else ""
        label = lane.device if lane.usage is None else f"{lane.device}\n{_use(lane.usage)}"
        lines += [f"  subgraph cluster_{number} {{", f"    graph [label={_quoted(label)}{colour}];"]
        for block in lane.blocks:
            code = f"\n{block.implementation}" if block.implementation else ""
            dashed = ', style="rounded,dashed"' if served_by(block.key) else ""
            lines.append(f"    {names[block.key]} [label={_quoted(block.key + code)}{dashed}];")
        lines.append("  }")
    for wire in drawing.wires:
        style = ", penwidth=2.5" if wire.remote else ""
        ends = f"{names[wire.source]} -> {names[wire.destination]}"
        lines.append(f"  {ends} [label={_quoted(wire.label)}{style}];")
    return "\n".join([*lines, "}\n"])


def _caption(title: str, placement: Placement) -> str:
    links = [
        f"{link.link}: {data_rate(link.bps)} of {data_rate(link.limit_bps)}"
        for link in placement.links
        if link.bps
    ]
    return "\n".join([title, *links])


def _use(usage: Usage) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares(usage).items())


def _quoted(text: str) -> str:
    """A DOT string; a backslash is doubled, a line break written as an escape."""
    clean = text.replace("\0", "").replace("\\", "\\\\").replace('"', '\\"')
    return '"' + clean.replace("\r", "").replace("\n", "\\n") + '"'
