"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq


class VirtualClock:
    """Implements ``Clock``; ``advance`` wakes whoever slept so long, in order."""

    def __init__(self, now_ms: float = 1_000_000.0) -> None:
        self.now_ms = now_ms
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = 0

    def time_us(self) -> int:
        return int(self.now_ms * 1000)

    def monotonic_ms(self) -> float:
        return self.now_ms

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._sleepers, (self.now_ms + seconds * 1000.0, self._number, woken))
        await woken

    async def advance(self, milliseconds: float) -> None:
        """Let time pass, and everything happen that then happens."""
        await settle()
        until = self.now_ms + milliseconds
        while self._sleepers and self._sleepers[0][0] <= until:
            self.now_ms, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await settle()
        self.now_ms = until


async def settle() -> None:
    """Until every task waits for something: an event, a queue, or the clock."""
    for _ in range(100):
        await asyncio.sleep(0)
