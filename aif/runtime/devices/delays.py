"""How long a device takes to answer, and how many of its answers are lost: figures without a clock.

The Controller's sealed questions are taken together in windows. A window gives the median and the 95th
percentile of its round trips and the share of questions without an answer; exponential averages of these are
what is known of the way to the device.

Decides nothing about whether that is good or bad (``sensing``). Round trips and times are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, inf

WINDOW_QUESTIONS = 8

WEIGHT = 0.25
"""Of the newest window in the averages."""

STALE_MS = 300_000.0
"""Averages that are older begin anew."""


@dataclass(frozen=True, slots=True)
class Window:
    """Some questions in a row; round trips of infinity where none was answered."""

    p50_ms: float
    p95_ms: float
    loss: float


@dataclass(slots=True)
class Delays:
    """The questions to one device over all its sessions."""

    p50_ms: float = 0.0
    p95_ms: float = 0.0
    loss: float = 0.0
    samples: int = 0
    """Answers behind the averages; 0 where nothing was measured."""
    updated_ms: float = -inf
    newest: Window | None = None
    _asked: int = 0
    _answers_ms: list[float] = field(default_factory=list)

    def asked(self, now_ms: float) -> Window | None:
        """A question is sent; the window that is full now, if one is."""
        window = None
        if self._asked == WINDOW_QUESTIONS:
            window = self._close(now_ms)
        self._asked += 1
        return window

    def answered(self, rtt_ms: float) -> None:
        """A question was answered, in this window or in the one before."""
        if len(self._answers_ms) < 2 * WINDOW_QUESTIONS:
            self._answers_ms.append(rtt_ms)

    def restart(self) -> None:
        """Begin the window anew: its questions are not those of the device's session."""
        self._asked, self.newest = 0, None
        self._answers_ms.clear()

    def _close(self, now_ms: float) -> Window:
        answers = sorted(self._answers_ms)
        window = Window(
            answers[ceil(0.5 * len(answers)) - 1] if answers else inf,
            answers[ceil(0.95 * len(answers)) - 1] if answers else inf,
            max(0.0, 1.0 - len(answers) / self._asked),
        )
        self.restart()
        self.newest = window
        if now_ms - self.updated_ms > STALE_MS:
            self.loss, self.samples = window.loss, 0
        if answers and not self.samples:
            self.p50_ms, self.p95_ms = window.p50_ms, window.p95_ms
        if answers:
            self.p50_ms += WEIGHT * (window.p50_ms - self.p50_ms)
            self.p95_ms += WEIGHT * (window.p95_ms - self.p95_ms)
            self.samples += len(answers)
        self.loss += WEIGHT * (window.loss - self.loss)
        self.updated_ms = now_ms
        return window
