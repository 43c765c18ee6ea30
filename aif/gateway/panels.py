"""The parts of the live screen, drawn from a run's record.

Decides what a person sees of a running workflow and what gives way on a small terminal. Does not decide when
it is drawn (``live``) or what the figures are (``run_record``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from aif.gateway import cells
from aif.gateway.cells import WIDE_COLUMNS, Column, Glyphs
from aif.gateway.run_record import Prediction, RunRecord
from aif.gateway.wire_tap import WireReport
from aif.model.standby import in_words, served_by

COMING_UP = frozenset({"planned", "deploying"})

_HEADER_LINES, _HEADINGS, _GAPS = 2, 3, 4
_PREDICTIONS = 6


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows each part may have, and whether blank lines fit between them."""

    predictions: int
    channels: int
    devices: int
    gaps: bool

    @classmethod
    def fitting(cls, height: int, *, channels: int, devices: int, footer: int) -> Rows:
        """Share out a terminal's lines: blank lines go first, then predictions, channels, devices.

        Args:
            height: lines of the terminal; one stays free for the cursor.
            channels: rows wanted.
            devices: rows wanted.
            footer: lines below the parts.
        """
        room = height - 1 - _HEADER_LINES - _HEADINGS - footer
        over = _PREDICTIONS + channels + devices + _GAPS - room
        if over <= 0:
            return cls(_PREDICTIONS, channels, devices, gaps=True)
        over -= _GAPS
        left = []
        for wanted, least in ((_PREDICTIONS, 3), (channels, 3), (devices, 1)):
            given = max(min(wanted, least), wanted - max(0, over))
            over -= wanted - given
            left.append(given)
        return cls(left[0], left[1], left[2], gaps=False)


class RunPanels:
    """A renderable: the whole screen of one run, as it is when drawn."""

    def __init__(
        self, record: RunRecord, wire: Callable[[], WireReport] | None, signs: Glyphs = cells.UNICODE
    ) -> None:
        self.record, self._wire, self._signs = record, wire, signs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, console.size.height
        yield from self._header(width)
        if self.record.state in COMING_UP:
            yield Text()
            yield self._arrivals(width, height - _HEADER_LINES - 3)
            return
        yield from self._parts(width, height)

    def _parts(self, width: int, height: int) -> RenderResult:
        counters = self._counters(width)
        devices, channels = self._device_rows(width), self._channel_rows()
        rows = Rows.fitting(height, channels=len(channels), devices=len(devices), footer=len(counters))
        gap = [Text()] if rows.gaps else []
        yield from gap
        yield self._predictions(rows.predictions)
        yield from gap
        figures = [Column(heading, right=True) for heading in ("records", "rate/s", "p50 ms", "p99 ms")]
        yield filled(cells.grid(Column("channel", grows=True), *figures), channels, rows.channels)
        yield from gap
        yield filled(self._device_table(width), devices, rows.devices)
        yield from gap
        yield from counters

    # --- header and footer ---------------------------------------------------------------------------

    def _header(self, width: int) -> list[Text]:
        run = self.record
        done = f"{run.windows:,}" + (f"/{run.windows_total:,}" if run.windows_total else "")
        first = Text.assemble(
            (run.workflow, "bold"), "  ", (f"{self._signs.dot} ", cells.state(run.state).style),
            cells.state(run.state), f"  {cells.clock(run.seconds)}  windows {done} ",
        )  # fmt: skip
        if run.windows_total:
            first.append_text(cells.bar(run.windows / run.windows_total, max(4, width // 8), self._signs))
        return [one_line(first), one_line(self._second_line())]

    def _second_line(self) -> Text:
        run, score = self.record, self.record.score
        if run.note:
            return Text(run.note, style="red" if run.state == "failed" else "yellow")
        if run.state in COMING_UP:
            devices = run.device_ids()
            trusted = sum(run.states[d].trust == "trusted" for d in devices if d in run.states)
            return Text(f"{trusted} of {len(devices)} devices are trusted", style="dim")
        if not (score.known or score.unseen):
            return Text("no window has been scored", style="dim")
        return Text.assemble(
            "accuracy ", (cells.percent(score.accuracy), "bold"),
            "   unseen kinds noticed ", (cells.percent(score.detection), "bold"),
            "   false alarms ", (cells.percent(score.false_alarm), "bold"),
        )  # fmt: skip

    def _counters(self, width: int) -> list[Text]:
        seen = self.record.messages()
        parts = [
            Text(f"sealed {seen.sealed:,}"), Text(f"verified {seen.verified:,}"),
            cells.trouble("rejected", seen.rejected), cells.trouble("lost", seen.lost),
        ]  # fmt: skip
        if self._wire is not None:
            wire = self._wire()
            of = f" of {wire.messages:,} watched" if width >= WIDE_COLUMNS else f"/{wire.messages:,}"
            of += f", {wire.missed:,} missed" if wire.missed else ""
            label = "plaintext on wire" if width >= WIDE_COLUMNS else "plaintext"
            parts.append(cells.trouble(label, wire.plaintext).append(of))
        lines = [one_line(Text("   " if width >= WIDE_COLUMNS else "  ").join(parts))]
        if self.record.last_warning:
            lines.append(one_line(Text(self.record.last_warning, style="yellow")))
        return lines

    # --- coming up -----------------------------------------------------------------------------------

    def _arrivals(self, width: int, room: int) -> Table:
        """Devices on their way: trust, phase, and the long step of each."""
        table = cells.grid(
            Column("device"),
            Column("trust"),
            Column("phase"),
            Column("step", grows=True),
            Column(""),
        )
        rows: list[list[RenderableType]] = []
        for device in self.record.device_ids():
            seen = self.record.states.get(device)
            if seen is None:
                rows.append([Text(device)])
                continue
            step, done, total = seen.progress
            moving = bool(total) and done < total
            bar = cells.bar(done / total, max(4, width // 8), self._signs) if moving else Text()
            size = f" {cells.size(done)} of {cells.size(total)}" if width >= WIDE_COLUMNS else ""
            trust = cells.state(seen.trust or "expected")
            rows.append(
                [
                    Text(device),
                    trust,
                    cells.state(seen.phase or cells.NONE),
                    Text(f"{step}{size}" if moving else step),
                    bar,
                ]
            )
        return filled(table, rows, max(1, room))

    # --- parts ---------------------------------------------------------------------------------------

    def _predictions(self, rows: int) -> Table:
        table = cells.grid(
            Column(""), Column("prediction", grows=True), Column("truth", grows=True),
            Column("sure", right=True), Column("", grows=True),
        )  # fmt: skip
        if not self.record.latest:
            table.add_row("", Text("none yet", style="dim"))
        latest = list(self.record.latest)
        for window in reversed(latest[max(0, len(latest) - rows) :]):
            table.add_row(*self._prediction(window))
        return table

    def _prediction(self, window: Prediction) -> list[RenderableType]:
        right = window.anomaly if window.unseen else window.predicted == window.truth
        mark = Text(self._signs.yes, style="green") if right else Text(self._signs.no, style="red")
        remark = Text()
        if window.unseen:
            remark = Text("unseen, noticed", "green") if window.anomaly else Text("unseen, missed", "red")
        elif window.anomaly:
            remark = Text("false alarm", "yellow")
        truth = Text(window.truth, style="italic" if window.unseen else "")
        sure = cells.NONE if window.confidence is None else f"{window.confidence:.2f}"
        return [mark, Text(window.predicted), truth, sure, remark]

    def _channel_rows(self) -> list[list[RenderableType]]:
        return [
            [
                Text(name.replace("->", self._signs.arrow)),
                f"{seen.records:,}",
                f"{self.record.rate_hz(name):,.1f}",
                *(
                    cells.milliseconds(
                        seen.latency_us.quantile(share) / 1000 if seen.latency_us.count else None
                    )
                    for share in (0.5, 0.99)
                ),
            ]
            for name, seen in self.record.channels().items()
        ]

    def _device_table(self, width: int) -> Table:
        return cells.grid(
            Column("device"), *([Column("class")] if width >= WIDE_COLUMNS else []),
            Column("AIM", grows=True), Column("as"), Column("state"), Column("p50 µs", right=True),
            Column("RAM"), Column("arena", right=True), Column("flash"),
        )  # fmt: skip

    def _device_rows(self, width: int) -> list[list[RenderableType]]:
        """One row per AIM; what belongs to the device stands in its first row."""
        run, wide = self.record, width >= WIDE_COLUMNS
        spent = run.aims()
        classes = {device.id: device.device_class for device in run.devices}
        rows: list[list[RenderableType]] = []
        for device in run.device_ids():
            memory = self._memory(device, 6 if wide else 3)
            states = run.states[device].aims if device in run.states else {}
            mine = [a for a in run.assignments if a.device == device]
            if not mine:
                rows.append(
                    [Text(device), *([Text(classes.get(device, ""))] if wide else []), *[""] * 4, *memory]
                )
            for number, aim in enumerate(mine):
                figures = spent.get(aim.aim)
                known = figures is not None and figures.process_us.count
                p50_us = figures.process_us.quantile(0.5) if figures is not None and known else None
                head = Text(device if number == 0 else "")
                kind = Text(classes.get(device, "") if number == 0 else "")
                rows.append(
                    [
                        head, *([kind] if wide else []), Text(in_words(aim.aim)),
                        Text(aim.implementation, style="dim"),
                        cells.state("standby" if served_by(aim.aim) else states.get(aim.aim, cells.NONE)),
                        cells.microseconds(p50_us),
                        *(memory if number == 0 else ["", "", ""]),
                    ]
                )  # fmt: skip
        return rows

    def _memory(self, device: str, width: int) -> list[RenderableType]:
        metrics = self.record.metrics.get(device)
        if metrics is None or metrics.usage is None:
            return [Text(cells.NONE, style="dim") for _ in range(3)]
        usage = metrics.usage
        return [
            cells.budget(usage.ram_bytes, usage.ram_limit_bytes, width, self._signs),
            cells.size(usage.arena_bytes) if usage.arena_bytes else cells.NONE,
            cells.budget(usage.flash_bytes, usage.flash_limit_bytes, width, self._signs),
        ]


def one_line(text: Text) -> Text:
    """Exactly one line, cut where the terminal ends."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def filled(table: Table, rows: list[list[RenderableType]], room: int) -> Table:
    """At most ``room`` rows; the last then says how many are left out."""
    shown = rows if len(rows) <= room else rows[: max(0, room - 1)]
    for row in shown:
        table.add_row(*row)
    if len(shown) < len(rows):
        table.add_row(Text(f"{len(rows) - len(shown)} more", style="dim"))
    return table
