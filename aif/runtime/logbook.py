"""Structured logs of one process: to its own stream, and to whoever listens, with bounds and without secrets.

A log line is an event name and facts. Values whose names suggest a secret are replaced; bytes are never
logged; a flood is cut to a rate and counted.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from aif.protocol.control import LogLine
from aif.runtime.clock import Clock

MAX_LINES_PER_S = 50
MAX_TEXT = 2_000
_SECRET = re.compile(r"seed|secret|password|private|k_epoch|token|pairing", re.IGNORECASE)


class LogBook:
    """Writes JSON lines to ``stream`` and hands each LogLine to ``forward`` (when set)."""

    def __init__(self, origin: str, clock: Clock, stream: TextIO | None = None) -> None:
        self.origin = origin
        self.forward: Callable[[LogLine], None] | None = None
        self._clock = clock
        self._stream = stream or sys.stderr
        self._second = 0
        self._lines = 0
        self._suppressed = 0

    def info(self, event: str, **facts: Any) -> None:
        self._write("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        self._write("warning", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        self._write("error", event, facts)

    def _write(self, level: str, event: str, facts: Mapping[str, Any]) -> None:
        now_us = self._clock.time_us()
        if not self._allowed(now_us // 1_000_000):
            return
        shown = {name: _shown(name, value) for name, value in facts.items()}
        if self._suppressed:
            shown["suppressed"], self._suppressed = self._suppressed, 0
        line = LogLine(now_us, level, event[:MAX_TEXT], shown)
        record = {"time_us": now_us, "origin": self.origin, "level": level, "event": line.event, **shown}
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()
        if self.forward is not None:
            self.forward(line)

    def _allowed(self, second: int) -> bool:
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > MAX_LINES_PER_S:
            self._suppressed += 1
            return False
        return True


def _shown(name: str, value: Any) -> str | int | float | bool | None:
    if _SECRET.search(name):
        return "[redacted]"
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    return str(value)[:MAX_TEXT]
