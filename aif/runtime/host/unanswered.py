"""Says now and then that a device gets no answer, so that a person who watches it knows what it waits for."""

from __future__ import annotations

from aif.runtime.clock import Clock
from aif.runtime.logbook import LogBook

WARNING_S = 15.0
"""A device that gets no answer says so after this long, and again after each such time."""


class Unanswered:
    """Since when a device waits for an answer."""

    def __init__(self, clock: Clock, log: LogBook) -> None:
        self._clock, self._log = clock, log
        self._told_ms = clock.monotonic_ms()

    def restart(self) -> None:
        """It waits from now on."""
        self._told_ms = self._clock.monotonic_ms()

    def tell(self, event: str, hint: str) -> None:
        """Log it, if it is time."""
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._told_ms > WARNING_S * 1000:
            self._told_ms = now_ms
            self._log.warning(event, hint=hint)
