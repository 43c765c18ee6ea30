"""The screen of a whole site: devices, links, workflows with their AIMs, and what happened.

Decides what a person sees and what gives way on a small terminal. Does not decide when it is drawn
(``cli.top``) or what the figures are (``site_record``).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from aif.gateway import cells
from aif.gateway.cells import WIDE_COLUMNS, Column, Glyphs
from aif.gateway.panels import filled, one_line
from aif.gateway.site_view import TRUSTED, AIMLine, DeviceLine, SiteView, WorkflowLine
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES

_STALE_S = 3.0
"""A device speaks every second; a longer silence is shown."""
_FIXED_LINES = 6
"""Header, headings and the line at the bottom."""


_GIVES_WAY = (("events", 3), ("links", 0), ("AIMs", 3), ("devices", 1), ("events", 1))
"""What loses rows first when there are too many, and how few are left to it."""


def _shared_out(wanted: Mapping[str, int], height: int) -> dict[str, int]:
    """Rows for each part in a terminal of ``height`` lines."""
    rows = dict(wanted)
    over = sum(rows.values()) - max(0, height - _FIXED_LINES)
    for part, least in _GIVES_WAY:
        taken = min(max(0, rows[part] - least), max(0, over))
        rows[part] -= taken
        over -= taken
    return rows


class SitePanels:
    """A renderable: the whole screen at one moment.

    ``limited`` keeps it to the height of the terminal; otherwise every row is there.
    """

    def __init__(
        self, view: SiteView, signs: Glyphs = cells.UNICODE, *, limited: bool = True, keys: str = ""
    ) -> None:
        self._view, self._signs, self._limited, self._keys = view, signs, limited, keys

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, view = options.max_width, self._view
        wide = width >= WIDE_COLUMNS
        aims = [row for one in view.workflows for row in self._workflow_rows(one, wide=wide)]
        events = self._events() or [one_line(Text("none yet", style="dim"))]
        room = {
            "devices": len(view.devices), "links": len(view.links), "AIMs": len(aims),
            "events": max(1, len(events)),
        }  # fmt: skip
        if self._limited:
            room = _shared_out(room, console.size.height - 1)
        yield self._header()
        yield filled(self._device_table(width), self._device_rows(width), max(1, room["devices"]))
        if room["links"]:
            yield filled(self._link_table(), self._link_rows(width), room["links"])
        yield filled(self._aim_table(width), aims, max(1, room["AIMs"]))
        yield Text("events", style="dim")
        yield from events[max(0, len(events) - room["events"]) :]
        if self._keys:
            yield one_line(Text(self._keys, style="dim"))

    # --- header --------------------------------------------------------------------------------------

    def _header(self) -> Text:
        view = self._view
        if view.silent_s is not None:
            waited = f" for {cells.clock(view.silent_s)}" if view.started_us else ""
            text = f"{self._signs.dot} the Controller does not answer{waited}; asking again"
            return one_line(Text(text, style="bold yellow"))
        up_s = max(0.0, (view.time_us - view.started_us) / 1e6)
        trusted = sum(device.trust == TRUSTED for device in view.devices)
        working = sum(one.state not in FINAL_WORKFLOW_STATES for one in view.workflows)
        line = Text.assemble(
            (f"{self._signs.dot} ", "green"), (_moment(view.time_us), "bold"),
            f"  Controller up {cells.clock(up_s)}",
            f"  {trusted} of {len(view.devices)} devices trusted",
            f"  {working} workflow{'' if working == 1 else 's'} running",
        )  # fmt: skip
        if view.restarts:
            line.append(f"  it was started anew {view.restarts}x", "yellow")
        return one_line(line)

    # --- devices and links -----------------------------------------------------------------------------

    def _device_table(self, width: int) -> Table:
        wide = width >= WIDE_COLUMNS
        return cells.grid(
            Column("device"), Column("trust"), *([Column("rtt p95 ms", right=True)] if wide else []),
            Column("AIMs", right=True),
            Column("CPU plan", right=True), Column("busy", right=True),
            *([Column("RAM plan", right=True)] if wide else []), Column("RAM"),
            *([Column("flash")] if wide else []), Column("", grows=True),
        )  # fmt: skip

    def _device_rows(self, width: int) -> list[list[RenderableType]]:
        wide = width >= WIDE_COLUMNS
        rows: list[list[RenderableType]] = []
        for one in self._view.devices:
            bars = 6 if wide else 3
            ram = cells.budget(one.ram_bytes, one.ram_limit_bytes, bars, self._signs)
            flash = cells.budget(one.flash_bytes, one.flash_limit_bytes, bars, self._signs)
            planned = cells.size(one.planned_ram_bytes) if one.planned_ram_bytes else cells.NONE
            rows.append(
                [
                    Text(one.device), cells.state(one.trust),
                    *([_milliseconds(one)] if wide else []), f"{one.aims}", _cpu(one),
                    cells.percent(one.busy) if one.aims else cells.NONE,
                    *([planned] if wide else []), ram, *([flash] if wide else []), _remark(one),
                ]
            )  # fmt: skip
        return rows or [[Text("none has said hello", style="dim")]]

    def _link_table(self) -> Table:
        return cells.grid(
            Column("link"), Column("between", grows=True), Column("planned", right=True),
            Column("of", right=True), Column(""),
        )  # fmt: skip

    def _link_rows(self, width: int) -> list[list[RenderableType]]:
        bar = max(4, width // 10)
        return [
            [
                Text(one.link), Text(", ".join(one.members)), _kbps(one.planned_bps),
                _kbps(one.limit_bps, known=one.limit_bps > 0),
                cells.bar(one.planned_bps / max(1, one.limit_bps), bar, self._signs, budget=True),
            ]
            for one in self._view.links
        ]  # fmt: skip

    # --- workflows -------------------------------------------------------------------------------------

    def _aim_table(self, width: int) -> Table:
        wide = width >= WIDE_COLUMNS
        return cells.grid(
            Column("workflow / AIM", grows=True), Column("device"), *([Column("as")] if wide else []),
            Column("state"), Column("rate/s", right=True), Column("p50 µs", right=True),
            *([Column("p99 µs", right=True)] if wide else []), Column("queue", right=True),
            Column("sealed", right=True), Column("lost", right=True), Column("rej.", right=True),
        )  # fmt: skip

    def _workflow_rows(self, one: WorkflowLine, *, wide: bool) -> list[list[RenderableType]]:
        title = Text(one.aiw, style="bold")
        if one.note:
            title.append(f"  {one.note}", "yellow")
        head: list[RenderableType] = [title, "", *([""] if wide else []), cells.state(one.state)]
        if one.state in FINAL_WORKFLOW_STATES:
            return [head]
        return [head, *(self._aim_row(aim, wide=wide) for aim in one.aims)]

    def _aim_row(self, aim: AIMLine, *, wide: bool) -> list[RenderableType]:
        return [
            Text(f"  {aim.aim}"), Text(aim.device),
            *([Text(aim.implementation, style="dim")] if wide else []),
            cells.state(aim.state or cells.NONE), f"{aim.rate_hz:,.1f}", cells.microseconds(aim.p50_us),
            *([cells.microseconds(aim.p99_us)] if wide else []), f"{aim.waiting:,}", f"{aim.sealed:,}",
            _count(aim.lost), _count(aim.rejected),
        ]  # fmt: skip

    # --- events ----------------------------------------------------------------------------------------

    def _events(self) -> list[Text]:
        """Lines of all events, newest last; some have a second: what may help, or the stages of a move."""
        lines = []
        for event in self._view.events:
            style = {"warning": "yellow", "error": "red"}.get(event.level, "")
            words = event.words.replace("->", self._signs.arrow)
            took = f" in {cells.milliseconds(max(event.stages_ms.values()))} ms" if event.stages_ms else ""
            line = Text.assemble(
                (f"{_moment(event.time_us)} {event.origin} ", "dim"),
                (event.event + took, "bold green" if took else style), f": {words}" if words else "",
                (f"  {event.times:,}x" if event.times > 1 else "", "dim"),
            )  # fmt: skip
            lines.append(line)
            if event.hint:
                lines.append(Text(f"         may help: {event.hint}", style="dim"))
            if event.stages_ms:
                stages = ", ".join(f"{name} {cells.milliseconds(ms)}" for name, ms in event.stages_ms.items())
                lines.append(Text(f"         after ms: {stages}", style="dim"))
        return [one_line(line) for line in lines]


def _moment(time_us: int) -> str:
    """UTC, as in ``aif logs``."""
    try:
        return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%H:%M:%S")
    except (OverflowError, ValueError, OSError):  # a device may say any time
        return "--:--:--"


def _cpu(one: DeviceLine) -> str:
    if not one.cpu_limit:
        return cells.NONE
    return f"{one.planned_cpu:.1%}/{one.cpu_limit:.0%}"


def _remark(one: DeviceLine) -> Text:
    if one.trust != TRUSTED:
        return Text(one.reason, style="yellow")
    if one.drained:
        return Text("drained: no AIM is put there", style="yellow")
    if one.heard_s is not None and one.heard_s > _STALE_S:
        return Text(f"silent for {one.heard_s:.0f} s", style="yellow")
    remark = Text("answers slowly  " if one.slow else "", style="yellow")
    if one.battery is not None:
        remark.append(f"battery {one.battery:.0%}", "" if one.battery_state == "good" else "yellow")
    return remark


def _milliseconds(one: DeviceLine) -> str:
    return cells.NONE if one.rtt_p95_ms is None else cells.milliseconds(one.rtt_p95_ms)


def _kbps(bps: int, *, known: bool = True) -> str:
    return f"{bps / 1000:,.1f} kbit/s" if known else cells.NONE


def _count(amount: int) -> Text:
    return Text(f"{amount:,}", style="bold red" if amount else "")
