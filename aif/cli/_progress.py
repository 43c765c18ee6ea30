"""A progress bar for long steps; plain lines where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def step_bar(title: str) -> Iterator[Callable[[str, float], None]]:
    """``progress(step, fraction)``: one bar per step, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        seen: set[str] = set()

        def say(step: str, _fraction: float) -> None:
            if step not in seen:
                seen.add(step)
                print(f"{title}: {step}", file=sys.stderr, flush=True)

        yield say
        return
    columns = TextColumn("{task.description:<44}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, object] = {}

        def show(step: str, fraction: float) -> None:
            if step not in tasks:
                for earlier in bars.task_ids:
                    bars.update(earlier, completed=1.0)
                tasks[step] = bars.add_task(step, total=1.0)
            bars.update(bars.task_ids[-1], completed=fraction)

        yield show
