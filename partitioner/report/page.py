"""A placement, or a choice of placements, as one HTML page that needs nothing else: no script, no address.

Decides what the page says beside the picture: the same tables as on the terminal, with captions and headings
for screen readers. A policy in the page forbids it to load anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from aif.model.aiw import Workflow
from aif.model.placement import Placement
from aif.model.standby import in_words
from partitioner.pareto import Front
from partitioner.problem.sentences import data_rate, power
from partitioner.report.compare import Comparison
from partitioner.report.drawing import shares
from partitioner.report.front_svg import front_svg
from partitioner.report.lanes_svg import lanes_svg, percent, safe
from partitioner.report.written import aim_rows

STYLE: Final = """\
:root{color-scheme:light dark;--ink:#1f2630;--soft:#4a5260;--page:#fff;--line:#c3cbd6;--head:#f2f5f9}
@media (prefers-color-scheme:dark){
:root{--ink:#e8ecf2;--soft:#b4bdca;--page:#12161c;--line:#46505e;--head:#1c222b}}
body{font:15px/1.5 'Segoe UI',Helvetica,Arial,sans-serif;color:var(--ink);background:var(--page);
margin:2rem auto;max-width:90rem;padding:0 1rem}
h1{font-size:1.5rem}figure{margin:1rem 0;overflow-x:auto}
table{border-collapse:collapse;margin:1.5rem 0;width:100%}
caption{text-align:left;font-weight:600;font-size:1.1rem;padding-bottom:.4rem}
th,td{text-align:left;vertical-align:top;border-bottom:1px solid var(--line);padding:.35rem .6rem}
th,td{overflow-wrap:anywhere}thead th{background:var(--head)}
summary{cursor:pointer}ul{margin:.3rem 0;padding-left:1.2rem}
"""


def placement_page(
    workflows: Sequence[Workflow], placement: Placement, comparison: Comparison | None = None
) -> str:
    """The picture of a placement, its tables, and how it differs from another one."""
    title = f"{placement.workflow}@{placement.workflow_version} on {placement.inventory}"
    parts = [_figure(lanes_svg(workflows, placement)), f"<p>{safe(verdict(placement))}</p>"]
    if comparison is not None:
        parts += _comparison(comparison)
    parts += [_aims(placement), _devices(placement)]
    if placement.paths:
        rows = (
            [p.id, f"{p.latency_ms:,.1f} ms", "none" if p.deadline_ms is None else f"{p.deadline_ms:,.0f} ms"]
            for p in placement.paths
        )
        parts.append(_table("Paths", ("path", "planned", "deadline"), rows))
    if placement.links:
        links = (
            [link.link, ", ".join(link.members), data_rate(link.bps), data_rate(link.limit_bps)]
            for link in placement.links
        )
        parts.append(_table("Links", ("link", "devices", "traffic", "may carry"), links))
    return _page(title, parts)


def front_page(front: Front, title: str) -> str:
    """The plot of a choice of plans and their table."""
    rows = (
        [
            str(number),
            f"{point.latency_ms:,.4g} ms",
            f"{point.power_mw:,.4g} mW",
            percent(point.plan.gap),
            f"--objective {point.option}",
        ]
        for number, point in enumerate(front.points, start=1)
    )
    columns = ("plan", "latency", "battery power", "gap", "options that give it again")
    return _page(title, [_figure(front_svg(front, title)), _table("Plans", columns, rows)])


def verdict(placement: Placement) -> str:
    """Objective, its terms and what is proven, in one sentence."""
    terms = ", ".join(f"{name} {value:.4g}" for name, value in placement.terms.items())
    proof = "proven optimal" if placement.gap == 0 else f"at most {placement.gap:.2%} above the optimum"
    return (
        f"objective {placement.objective:.5g} ({terms or 'nothing to pay'}); "
        f"bound {placement.bound:.5g}, {proof}; {placement.method}"
    )


def _page(title: str, parts: Sequence[str]) -> str:
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8"/>',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>',
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
            f"<title>{safe(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body><main>",
            f"<h1>{safe(title)}</h1>",
            *parts,
            "</main></body>",
            "</html>\n",
        ]
    )


def _figure(svg: str) -> str:
    return f"<figure>\n{svg}</figure>"


def _table(caption: str, columns: Sequence[str], rows: Iterator[list[str]]) -> str:
    head = "".join(f'<th scope="col">{safe(column)}</th>' for column in columns)
    lines = [f"<table><caption>{safe(caption)}</caption>", f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for first, *others in rows:
        cells = "".join(f"<td>{safe(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{safe(first)}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table>"])


def _aims(placement: Placement) -> str:
    columns = ("AIM", "device", "implementation", "latency", "why there", "why not elsewhere")
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    lines = ["<table><caption>AIMs</caption>", f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for row in aim_rows(placement):
        latency = f"{row.latency_us:,.0f} us ({row.rule})" if row.rule else ""
        elsewhere = "".join(f"<li>{safe(text)}</li>" for text in row.elsewhere)
        folded = f"<details><summary>others</summary><ul>{elsewhere}</ul></details>" if elsewhere else ""
        cells = "".join(
            f"<td>{safe(text)}</td>" for text in (row.device, row.implementation, latency, row.reason)
        )
        lines.append(f'<tr><th scope="row">{safe(row.aim)}</th>{cells}<td>{folded}</td></tr>')
    return "\n".join([*lines, "</tbody></table>"])


def _devices(placement: Placement) -> str:
    def rows() -> Iterator[list[str]]:
        for usage in placement.usage:
            share = shares(usage)
            used = [
                percent(share[name]) if name in share else "not budgeted" for name in ("RAM", "flash", "CPU")
            ]
            yield [usage.device, *used, power(usage.power_mw)]

    return _table("Devices", ("device", "RAM", "flash", "CPU", "power"), rows())


def _comparison(comparison: Comparison) -> list[str]:
    moved = (
        [in_words(m.aim), str(m.before or "not placed"), str(m.after or "not placed")]
        for m in comparison.moves
    )
    changed = ([c.name, *(f"{told} {c.unit}" for told in c.told)] for c in comparison.changes)
    remarks = [f"<p>{safe(remark)}</p>" for remark in comparison.remarks]
    return [
        f"<h2>Compared with {safe(comparison.before)}</h2>",
        *remarks,
        _table(f"Moved ({comparison.stayed} AIMs stayed)", ("AIM", "before", "now"), moved),
        _table("What that costs or saves", ("figure", "before", "now", "difference"), changed),
    ]
