"""The bounded queue between the thread that receives and the loop that handles.

Decides what is dropped when messages come faster than they are handled: the oldest QoS 0 message first, then
the newest QoS 1 message, because those before it are already promised to be handled. Knows nothing of
topics or handlers.

Invariants: never more than ``max_messages`` or ``max_bytes``; messages leave in the order they came;
``offered == taken + dropped + waiting``. ``offer`` and ``take`` may run in different threads.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from aif.transport.base import Received


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message with what its acknowledgement needs: packet id and number of the connection it came on."""

    message: Received
    packet_id: int = 0
    connection: int = 0


class Inbox:
    """Messages that wait for their handler."""

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._lock = threading.Lock()
        self._queues: tuple[deque[tuple[int, Arrival]], ...] = (deque(), deque())  # by QoS; number, arrival
        self._number = 0
        self._waiting_bytes = 0
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._queues[0]) + len(self._queues[1])

    @property
    def dropped(self) -> int:
        """Messages dropped so far."""
        return self._dropped

    def offer(self, arrival: Arrival) -> bool:
        """Put a message at the end, dropping what the bounds do not allow; whether this one was kept."""
        droppable = self._queues[0]
        kept = True
        with self._lock:
            self._number += 1
            self._queues[arrival.message.qos].append((self._number, arrival))
            self._waiting_bytes += len(arrival.message.payload)
            while len(self) > self._max_messages or self._waiting_bytes > self._max_bytes:
                _, victim = droppable.popleft() if droppable else self._queues[1].pop()
                self._waiting_bytes -= len(victim.message.payload)
                self._dropped += 1
                kept = kept and victim is not arrival
        return kept

    def take(self, at_most: int) -> list[Arrival]:
        """Remove and return the oldest messages."""
        first, second = self._queues
        batch: list[Arrival] = []
        with self._lock:
            while len(batch) < at_most and (first or second):
                queue = first if not second or (first and first[0][0] < second[0][0]) else second
                batch.append(queue.popleft()[1])
            self._waiting_bytes -= sum(len(arrival.message.payload) for arrival in batch)
        return batch
