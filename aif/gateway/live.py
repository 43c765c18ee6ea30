"""What a terminal shows while a workflow comes up, runs and ends.

Decides when something is drawn or said. Does not decide what it looks like (``panels``, ``summary_view``) and
starts nothing: no task, no thread, no process; whoever drives the run calls ``update`` as often as it likes.

Invariants: at most four drawings a second; without a terminal only whole lines are printed and nothing is
ever overwritten; the terminal is as before when the ``with`` block ends, however it ends.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from aif.gateway import cells
from aif.gateway.panels import COMING_UP, RunPanels
from aif.gateway.run_record import RunRecord
from aif.gateway.summary_view import print_summary
from aif.gateway.wire_tap import WireReport

DRAW_INTERVAL_S: Final = 0.25
STATUS_INTERVAL_S: Final = 2.0
PLAIN_WIDTH: Final = 110
"""Columns of tables where the output is not a terminal."""

NEVER_CAME_UP: Final = frozenset({"failed", "stopped"})

Watched = Callable[[], WireReport]


class Screen(Protocol):
    """One run's output, from its first step to its summary."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def phase(self, words: str) -> None:
        """A phase before the run begins; the one before it is done."""
        ...

    def progress(self, step: str, fraction: float) -> None:
        """How far the phase is: what it does now and 0..1 of that."""
        ...

    def watch(self, record: RunRecord, wire: Watched | None = None) -> None:
        """From now on show this run."""
        ...

    def update(self) -> None:
        """The record may have changed, or time has passed."""
        ...

    def final(self, summary: Mapping[str, Any]) -> None:
        """Show what came out."""
        ...


def open_screen(console: Console | None = None, *, now_s: Callable[[], float] = time.monotonic) -> Screen:
    """A live screen on a terminal; lines where the output goes elsewhere or the terminal cannot move back."""
    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=PLAIN_WIDTH)
    stream = console.file
    if isinstance(stream, io.TextIOWrapper) and not console.encoding.lower().startswith("utf"):
        stream.reconfigure(errors="replace")  # a name that it cannot write must not end the run
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveScreen(console, now_s=now_s) if live else PlainScreen(console, now_s=now_s)


class LiveScreen:
    """One screen that is drawn again in place; finished phases stay above it."""

    def __init__(self, console: Console, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._console, self._now_s = console, now_s
        self._signs = cells.glyphs(console.encoding)
        self._live = Live(self, console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._phase, self._since_s = "", now_s()
        self._step, self._fraction = "", 0.0
        self._panels: RunPanels | None = None
        self._came_up = False
        self._drawn_s = float("-inf")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_phase(done=error is None)
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._phase:
            waited = f"  {cells.clock(self._now_s() - self._since_s)}"
            line = Text.assemble((f"{self._signs.dot} ", "yellow"), self._phase, (waited, "dim"))
            if self._step:
                line.append(f"  {self._step} ", "dim")
                line.append_text(cells.bar(self._fraction, max(4, options.max_width // 6), self._signs))
            line.no_wrap, line.overflow = True, "ellipsis"
            yield line
        if self._panels is not None:
            yield self._panels

    def phase(self, words: str) -> None:
        self._close_phase(done=True)
        self._phase, self._since_s = words, self._now_s()
        self._draw()

    def progress(self, step: str, fraction: float) -> None:
        self._step, self._fraction = step, min(1.0, max(0.0, fraction))
        self.update()

    def watch(self, record: RunRecord, wire: Watched | None = None) -> None:
        self._close_phase(done=True)
        self._panels, self._came_up = RunPanels(record, wire, self._signs), False
        self._since_s = self._now_s()
        self._draw()

    def update(self) -> None:
        if self._panels is not None and not self._came_up and self._panels.record.state not in COMING_UP:
            self._came_up = True
            if self._panels.record.state not in NEVER_CAME_UP:
                devices = len(self._panels.record.device_ids())
                self._say_done(f"deployed to {devices} attested devices", done=True)
        if self._now_s() - self._drawn_s >= DRAW_INTERVAL_S:
            self._draw()

    def final(self, summary: Mapping[str, Any]) -> None:
        self._close_phase(done=True)
        self._live.stop()
        print_summary(self._console, summary)

    def _draw(self) -> None:
        self._drawn_s = self._now_s()
        if self._live.is_started:
            self._live.refresh()

    def _close_phase(self, *, done: bool) -> None:
        words, self._phase, self._step, self._fraction = self._phase, "", "", 0.0
        if words:
            self._say_done(words, done=done)

    def _say_done(self, words: str, *, done: bool) -> None:
        mark = (f"{self._signs.yes} ", "green") if done else (f"{self._signs.no} ", "red")
        seconds = f"  {self._now_s() - self._since_s:.1f} s"
        self._console.print(Text.assemble(mark, words, (seconds, "dim")), highlight=False)


class PlainScreen:
    """Lines for a file or a pipe: one at every change of phase, and a status every two seconds."""

    def __init__(self, console: Console, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._console, self._now_s = console, now_s
        self._started_s = now_s()
        self._record: RunRecord | None = None
        self._wire: Watched | None = None
        self._step = self._state = ""
        self._downloaded: set[tuple[str, str]] = set()
        self._said_s = now_s()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Every line is out already."""

    def phase(self, words: str) -> None:
        self._step = ""
        self._say(words)

    def progress(self, step: str, fraction: float) -> None:
        del fraction  # a line cannot grow
        if step != self._step:
            self._step = step
            self._say(f"  {step}")

    def watch(self, record: RunRecord, wire: Watched | None = None) -> None:
        self._record, self._wire, self._state = record, wire, ""
        self._downloaded.clear()
        self.update()

    def update(self) -> None:
        run = self._record
        if run is None:
            return
        for device, state in run.states.items():
            step, done, total = state.progress
            if total and done >= total and (device, step) not in self._downloaded:
                self._downloaded.add((device, step))
                self._say(f"  {device}: {step}, {cells.size(total)}")
        if run.state != self._state:
            self._state = run.state
            self._say(f"{run.workflow} is {run.state}" + (f": {run.note}" if run.note else ""))
        if run.state not in COMING_UP and not run.ended and self._due():
            self._say(self._status(run))

    def final(self, summary: Mapping[str, Any]) -> None:
        print_summary(self._console, summary)

    def _due(self) -> bool:
        now_s = self._now_s()
        if now_s - self._said_s < STATUS_INTERVAL_S:
            return False
        self._said_s = now_s
        return True

    def _status(self, run: RunRecord) -> str:
        messages, score = run.messages(), run.score
        parts = [f"windows {run.windows:,}" + (f"/{run.windows_total:,}" if run.windows_total else "")]
        if score.known or score.unseen:
            parts.append(
                f"accuracy {cells.percent(score.accuracy)}, noticed {cells.percent(score.detection)}, "
                f"false alarms {cells.percent(score.false_alarm)}"
            )
        parts.append(
            f"sealed {messages.sealed:,}, verified {messages.verified:,}, rejected {messages.rejected:,}, "
            f"lost {messages.lost:,}"
        )
        if self._wire is not None:
            wire = self._wire()
            parts.append(f"plaintext {wire.plaintext:,}/{wire.messages:,}")
        return "; ".join(parts)

    def _say(self, words: str) -> None:
        line = Text(f"[{self._now_s() - self._started_s:6.1f} s] {words}")
        self._console.print(line, soft_wrap=True, highlight=False)
