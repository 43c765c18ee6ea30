"""Time as an argument: the one place of the runtime that knows which clock is used."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for records and documents, monotonic time for durations."""

    def time_us(self) -> int:
        """Microseconds since the Unix epoch."""
        ...

    def monotonic_ms(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clocks."""

    def time_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_ms(self) -> float:
        return time.monotonic_ns() / 1e6

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
