"""How a driver keeps as many messages on their way as allowed, for as long as asked.

Decides when the next burst may leave. The receiver reports what it has verified over a local socket that is
the same for every contender, so that no contender pays for it more than another.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.cell import Plant
from benchmarks.contenders.link import Link
from benchmarks.workload import Shape

REPORT = struct.Struct("<Q")


class ProgressServer:
    """The receiver's end: accepts the driver at the first report."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(1)
        self._connection: socket.socket | None = None

    def report(self, count: int) -> None:
        if self._connection is None:
            self._connection, _ = self._listener.accept()
        self._connection.sendall(REPORT.pack(count))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._listener.close()


class Pace:
    """The driver's end: sends bursts of the pool, in order, within the window."""

    def __init__(self, link: Link, shape: Shape, messages: list[Any], path: str, plant: Plant) -> None:
        self._link, self._shape, self._messages, self._plant = link, shape, messages, plant
        self._progress = socket.socket(socket.AF_UNIX)
        self._progress.connect(path)
        self._progress.setblocking(not link.asynchronous)
        self._unread = b""
        self.sent = self.verified = 0

    async def send_for(self, seconds: float) -> tuple[float, int]:
        """Send for a time, at least one step, then wait until the receiver has verified everything.

        Returns:
            Seconds from the first message handed over to the last one verified, and messages sent.
        """
        shape, link, before = self._shape, self._link, self.sent
        began_s = time.perf_counter()
        while time.perf_counter() - began_s < seconds or self.sent % shape.step or self.sent == before:
            if self.sent - self.verified > shape.window - shape.burst:
                await self._hear()
                continue
            link.send_burst(self._next_burst())
            self.sent += shape.burst
            if link.asynchronous:
                await asyncio.sleep(0)
        link.flush()
        while self.verified < self.sent:
            await self._hear()
        return time.perf_counter() - began_s, self.sent - before

    def _next_burst(self) -> Sequence[Any]:
        place = self.sent % self._shape.pool
        burst = self._messages[place : place + self._shape.burst]
        if self._plant in _PLANTS and self.sent:
            burst, self._plant = _PLANTS[self._plant](burst), ""
        return burst

    async def _hear(self) -> None:
        if self._link.asynchronous:
            self._unread += await asyncio.get_running_loop().sock_recv(self._progress, 4096)
        else:
            self._unread += self._progress.recv(4096)
        whole = len(self._unread) // REPORT.size * REPORT.size
        if whole:
            (self.verified,) = REPORT.unpack(self._unread[whole - REPORT.size : whole])
            self._unread = self._unread[whole:]

    def close(self) -> None:
        self._progress.close()


_PLANTS: dict[Plant, Callable[[list[Any]], list[Any]]] = {
    "lose": lambda burst: burst[1:],
    "repeat": lambda burst: [burst[0], *burst],
    "swap": lambda burst: [burst[1], burst[0], *burst[2:]],
}
