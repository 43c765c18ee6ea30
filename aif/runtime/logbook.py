"""Structured logs of one process: to its own stream, and to whoever listens, with bounds and without secrets.

A log line is an event name and facts; a fact that is called as one of the line's own fields (``level``) gets
a trailing underscore there. Values whose names suggest a secret are replaced; bytes are never logged; a flood
is cut to a rate and counted.

Invariants: logging raises nothing, whatever it is given and wherever the stream ends; a listener is called on
the event loop that was running when the LogBook was made, and not for what it logs itself.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TextIO

from aif.protocol.control import LogLine
from aif.runtime.clock import Clock

MAX_LINES_PER_S = 50
MAX_FACTS = 32
MAX_TEXT = 2_000
_SECRET = re.compile(
    r"seed|secret|password|passphrase|private|k_epoch|token|pairing|(^|_)keys?$", re.IGNORECASE
)
_INTEGER_LIMIT = 1 << 63


class LogBook:
    """Writes JSON lines to ``stream`` and hands each LogLine to ``forward`` (when set).

    It may be used from any thread.
    """

    def __init__(self, origin: str, clock: Clock, stream: TextIO | None = None) -> None:
        self.origin = origin
        self.forward: Callable[[LogLine], None] | None = None
        self._clock = clock
        self._stream = stream or sys.stderr
        self._second = 0
        self._lines = 0
        self._suppressed = 0
        self._lock = threading.Lock()
        self._forwarding = False
        self._thread = threading.get_ident()
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def info(self, event: str, /, **facts: Any) -> None:
        self._write("info", event, facts)

    def warning(self, event: str, /, **facts: Any) -> None:
        self._write("warning", event, facts)

    def error(self, event: str, /, **facts: Any) -> None:
        self._write("error", event, facts)

    def _write(self, level: str, event: str, facts: Mapping[str, Any]) -> None:
        now_us = self._clock.time_us()
        with self._lock:
            if not self._allowed(now_us // 1_000_000):
                return
            shown = {_text(name): _shown(name, value) for name, value in list(facts.items())[:MAX_FACTS]}
            if self._suppressed:
                shown["suppressed"], self._suppressed = self._suppressed, 0
            line = LogLine(now_us, level, _text(event), shown)
            own = {"time_us": now_us, "origin": self.origin, "level": level, "event": line.event}
            record = own | {f"{name}_" if name in own else name: value for name, value in shown.items()}
            with suppress(OSError, ValueError):  # the reader of the stream has gone
                self._stream.write(json.dumps(record) + "\n")
                self._stream.flush()
        if threading.get_ident() == self._thread:
            self._forward(line)
        elif self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and with it whoever listened
                self._loop.call_soon_threadsafe(self._forward, line)

    def _forward(self, line: LogLine) -> None:
        if self.forward is None or self._forwarding:
            return
        self._forwarding = True
        try:
            self.forward(line)
        finally:
            self._forwarding = False

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
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < _INTEGER_LIMIT:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if isinstance(value, Mapping):
        return _text({str(k): _shown(str(k), v) for k, v in list(value.items())[:MAX_FACTS]})
    return _text(value)


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001  # an author's __str__; a log line is no place to fail
        text = f"[{type(value).__name__} that cannot be shown: {type(error).__name__}]"
    return text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode()
