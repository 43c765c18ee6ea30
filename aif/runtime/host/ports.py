"""Run-time ends of Channels: bounded input queues and output ports.

An AIM sees its own ports: it reads inputs and writes outputs. The standard's calls Port_Output_Read,
Port_Input_Write, Port_Probe, Port_Select, Port_Reset and Port_CountPendingMessages are ``read``,
``write``, ``ready``, ``select``, ``reset`` and ``pending`` here.

Invariants: a queue never holds more than ``queue_depth`` records; what is dropped is counted; a reader
sees records in order of arrival; when every producer has finished a drained queue raises ``EndOfStream``;
when the reader has gone, writes are counted and forgotten, so that no producer waits for nobody.

Source: MPAI-AIF V2, Basic API, ports and messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aif.errors import PortTimeout
from aif.model.ports import Overflow, Port


class EndOfStream(Exception):  # noqa: N818  # a condition that ends a loop, as StopAsyncIteration is
    """Every producer of this input has finished and its queue is drained."""


@dataclass(frozen=True, slots=True)
class Message:
    """One record in transit. ``t_us``: when its source record was made, microseconds since the epoch.

    ``Message(None, 0)`` is an empty turn, as the reader of a delayed channel starts with: it has no age.
    """

    value: Any
    t_us: int

    @property
    def is_empty_turn(self) -> bool:
        return self.value is None and self.t_us == 0


@dataclass(frozen=True, slots=True)
class NumberedMessage(Message):
    """A record of an acknowledged channel, and who it is (``protocol.numbering``)."""

    identity: int


@dataclass(slots=True)
class PortCounters:
    """What went through an input queue.

    Lost are: ``overflowed`` at a full queue, ``expired`` by age, ``unmatched`` for want of a partner, and
    ``discarded`` when the reader had gone or ``reset`` its port.
    """

    received: int = 0
    taken: int = 0
    overflowed: int = 0
    expired: int = 0
    unmatched: int = 0
    discarded: int = 0


class InputPort:
    """A bounded queue in front of an AIM.

    Args:
        port: the contract's port.
        producers: how many channels end here; each of them says ``finish`` once.
        time_us: wall clock, microseconds since the epoch.
    """

    def __init__(self, port: Port, *, producers: int, time_us: Callable[[], int]) -> None:
        self.port = port
        self.counters = PortCounters()
        self._queue: deque[Message] = deque()
        self._open_producers = producers
        self._closed = False
        self._time_us = time_us
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._watchers: set[asyncio.Event] = set()

    # --- the producing side ------------------------------------------------------------------------

    def offer(self, message: Message) -> bool:
        """Put without waiting. A full queue applies its policy; False when this record was dropped.

        A producer that cannot wait (another device) uses this: for it, BLOCK means that the newest is
        dropped.
        """
        self.counters.received += 1
        if self._closed:
            self.counters.discarded += 1
            return False
        if len(self._queue) >= self.port.queue_depth:
            self.counters.overflowed += 1
            if self.port.overflow is not Overflow.DROP_OLDEST:
                return False
            self._queue.popleft()
        self._append(message)
        return True

    def offer_all(self, values: Sequence[Any], t_us: int) -> None:
        """Put records of one age without waiting, as `offer` would one by one."""
        if self._closed or len(self._queue) + len(values) > self.port.queue_depth:
            for value in values:
                self.offer(Message(value, t_us))
            return
        self.counters.received += len(values)
        self._queue.extend([Message(value, t_us) for value in values])
        self._wake()

    async def put(self, message: Message) -> None:
        """Put, waiting for room when the policy is BLOCK (a neighbour in the same process)."""
        if self.port.overflow is Overflow.BLOCK:
            while len(self._queue) >= self.port.queue_depth and not self._closed:
                self._writable.clear()
                await self._writable.wait()
        self.offer(message)

    def finish(self) -> None:
        """One producer will send nothing more."""
        self._open_producers -= 1
        self._wake()

    def _append(self, message: Message) -> None:
        self._queue.append(message)
        self._wake()

    def _wake(self) -> None:
        self._readable.set()
        for event in self._watchers:
            event.set()

    # --- the reading side --------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        return len(self._queue) >= self.port.queue_depth

    @property
    def closed(self) -> bool:
        """The reader has gone."""
        return self._closed

    @property
    def finished(self) -> bool:
        """No producer is left and nothing is queued."""
        return self._open_producers <= 0 and not self._queue

    @property
    def ready(self) -> bool:
        self._expire()
        return bool(self._queue)

    def peek(self) -> Message:
        return self._queue[0]

    def take(self) -> Message:
        """Remove the oldest record. The caller made sure that there is one."""
        message = self._queue.popleft()
        self.counters.taken += 1
        self._writable.set()
        return message

    def newest(self) -> Message:
        """Remove everything and return the newest record."""
        while len(self._queue) > 1:
            self.take()
        return self.take()

    async def read(self, timeout: float | None = None) -> Message:
        """The oldest record, waiting for one.

        Raises:
            PortTimeout: none came within ``timeout`` seconds.
            EndOfStream: none can come any more.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self.ready:
                    if self.finished:
                        raise EndOfStream(self.port.name)
                    self._readable.clear()
                    await self._readable.wait()
        except TimeoutError:
            raise PortTimeout(f"nothing arrived on {self.port.name} within {timeout:g} s") from None
        return self.take()

    def reset(self) -> int:
        """Delete all pending records; returns how many there were."""
        count = len(self._queue)
        self._queue.clear()
        self.counters.discarded += count
        self._writable.set()
        return count

    def restart(self) -> None:
        """All that is pending will be sent again: the queue of an acknowledged channel begins anew."""
        self._queue.clear()
        self._open_producers = 1

    def close(self) -> None:
        """The reader has gone: what is queued and what still comes is discarded; nobody waits for room."""
        self._closed = True
        self.reset()

    def watch(self, event: asyncio.Event) -> None:
        self._watchers.add(event)

    def unwatch(self, event: asyncio.Event) -> None:
        self._watchers.discard(event)

    def _expire(self) -> None:
        if self.port.max_age_ms is None:
            return
        while self._queue and self.too_old(self._queue[0]):
            self._queue.popleft()
            self.counters.expired += 1
            self._writable.set()

    def too_old(self, message: Message) -> bool:
        """Whether a record is older than this port's ``max_age_ms``."""
        limit = self.port.max_age_ms
        if limit is None or message.is_empty_turn:
            return False
        return message.t_us < self._time_us() - int(limit * 1000)


async def select(ports: Sequence[InputPort], timeout: float | None = None) -> int:
    """Index of the first port that has a record (MPAI_AIFM_Port_Select).

    Raises:
        PortTimeout: none had one within ``timeout`` seconds.
        EndOfStream: all of them have finished.
    """
    changed = asyncio.Event()
    for port in ports:
        port.watch(changed)
    try:
        async with asyncio.timeout(timeout):
            while True:
                changed.clear()
                for index, port in enumerate(ports):
                    if port.ready:
                        return index
                if all(port.finished for port in ports):
                    raise EndOfStream(", ".join(port.port.name for port in ports))
                await changed.wait()
    except TimeoutError:
        names = ", ".join(port.port.name for port in ports)
        raise PortTimeout(f"nothing arrived on {names} within {timeout:g} s") from None
    finally:
        for port in ports:
            port.unwatch(changed)


Deliver = Callable[[Sequence[Any], int], Awaitable[None]]
"""Takes records in order, and when their source records were made, microseconds since the epoch."""


class OutputPort:
    """Where an AIM writes; every connected Channel gets each record once."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.written = 0
        self._channels: list[Deliver] = []

    def connect(self, deliver: Deliver) -> None:
        self._channels.append(deliver)

    def disconnect(self) -> None:
        """No Channel begins here any more, until others are connected."""
        self._channels = []  # a new list: a write that is under way goes through the old one

    async def write(self, value: Any, *, t_us: int) -> None:
        """Hand one record to every Channel; errors as in `write_many`."""
        await self.write_many((value,), t_us=t_us)

    async def write_many(self, values: Sequence[Any], *, t_us: int) -> None:
        """Hand records that were made together to every Channel, each of which carries them as one batch.

        Raises:
            InvalidRecord: one value is not of the port's record type; no remote Channel got any of them.
        """
        self.written += len(values)
        for deliver in self._channels:
            await deliver(values, t_us)
