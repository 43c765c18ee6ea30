"""What the two processes of a run do with arriving messages: verify, echo, or answer the next round trip.

Decides when a stream has advanced, what an echo sends and when round trips are over. Opens nothing;
links call from whatever thread they receive in, one at a time.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.cell import Durations
from benchmarks.contenders.link import Link
from benchmarks.workload import BURST_MESSAGES, Buffer, Pool, Shape, Verifier

Fail = Callable[[str], None]


def cpu_s() -> float:
    """User and system time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Sink:
    """The receiver of a stream: verifies everything and reports progress every ``shape.step`` messages."""

    def __init__(self, shape: Shape, report: Callable[[int], None], fail: Fail) -> None:
        self._step, self._report, self.failed = shape.step, report, fail
        self.verifier = Verifier(shape.pool)
        self.cpu_at: list[float] = [cpu_s()]
        """Processor time when each step was complete; the first entry is the start."""

    @property
    def due(self) -> int:
        return min(BURST_MESSAGES, len(self.cpu_at) * self._step - self.verifier.count)

    def take(self, sequences: Sequence[int], contents: Sequence[Buffer]) -> None:
        self.verifier.take(sequences, contents)
        while self.verifier.count >= len(self.cpu_at) * self._step:
            self.cpu_at.append(cpu_s())
            self._report(self.verifier.count)


class Echo:
    """The far side of round trips: opens, decodes, makes the same message anew and sends it back."""

    due = 1

    def __init__(self, shape: Shape, fail: Fail) -> None:
        self.verifier = Verifier(shape.pool)
        self.failed = fail
        self.link: Link | None = None

    def take(self, sequences: Sequence[int], contents: Sequence[Buffer]) -> None:
        self.verifier.take(sequences, contents)
        if self.link is not None:
            prepare = self.link.prepare
            pairs = zip(sequences, contents, strict=True)
            self.link.send_burst([prepare(sequence, bytes(data)) for sequence, data in pairs])


class Pinger:
    """The near side: one message in flight, the next one leaves from within the arrival of the last."""

    due = 1

    def __init__(self, shape: Shape, durations: Durations, over: Callable[[], None], fail: Fail) -> None:
        self._durations, self._over, self.failed = durations, over, fail
        self.verifier = Verifier(shape.pool)
        self.trips_us: list[float] = []
        self._messages: list[Any] = []
        self._link: Link | None = None
        self._began_s = self._sent_s = 0.0

    def start(self, link: Link, messages: list[Any]) -> None:
        self._link, self._messages = link, messages
        self._began_s = self._sent_s = time.perf_counter()
        link.send_burst(messages[:1])

    def take(self, sequences: Sequence[int], contents: Sequence[Buffer]) -> None:
        now_s = time.perf_counter()
        self.verifier.take(sequences, contents)
        if self._sent_s - self._began_s >= self._durations.warm_up_s:
            self.trips_us.append((now_s - self._sent_s) * 1e6)
        running_s = now_s - self._began_s - self._durations.warm_up_s
        wanted = self._durations
        enough = running_s >= wanted.run_s and len(self.trips_us) >= wanted.round_trips
        if (enough or running_s >= wanted.longest_s) and self.trips_us:
            self._over()
        elif self._link is not None:
            place = self.verifier.count % len(self._messages)
            self._sent_s = time.perf_counter()
            self._link.send_burst(self._messages[place : place + 1])


class NothingExpected:
    """The driver of a stream: nobody should answer."""

    due = 1

    def __init__(self, fail: Fail) -> None:
        self.failed = fail

    def take(self, sequences: Sequence[int], contents: Sequence[Buffer]) -> None:
        self.failed(f"{len(sequences)} messages ({sum(map(len, contents))} B) came back on a one-way stream")


def make_pool(link: Link, shape: Shape, seed: int) -> tuple[Pool, list[Any]]:
    """The messages of a run in the form that this link sends."""
    pool = Pool(shape, seed)
    return pool, [link.prepare(index, pool.data(index)) for index in range(shape.pool)]
