"""QoS 1 messages until the broker confirmed them, and the packet ids of one client.

Decides which messages are on their way, which wait for their turn, and what is sent again on a new
connection. Does no I/O: packets to write are returned.

Invariants: at most ``MAX_IN_FLIGHT`` messages are on their way; messages leave in the order they were added,
repetitions included; no packet id is used by two of them at a time (MQTT 3.1.1 §2.3.1, §4.4, §4.6).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from aif.errors import AIFError
from aif.transport import packets

MAX_IN_FLIGHT = 100
"""Unconfirmed QoS 1 messages on the wire; the embedded broker's own bound for the other direction."""


@dataclass(slots=True)
class Unconfirmed:
    """One message; ``done`` is for a sender that waits."""

    topic: bytes
    """With its length, as it is written."""
    payload: bytes
    retain: bool
    done: asyncio.Future[None] | None
    packet: bytes = b""
    """As it was last written; empty while it waits for its turn."""


class Confirmations:
    """All unconfirmed messages of one client."""

    def __init__(self) -> None:
        self.waiting_bytes = 0
        """Payload bytes of all of them."""
        self.newest_id = 0
        """Packet id of the message that left last."""
        self._packet_id = 0
        self._in_flight: dict[int, Unconfirmed] = {}  # by packet id, oldest first
        self._queued: deque[Unconfirmed] = deque()

    def __len__(self) -> int:
        return len(self._in_flight) + len(self._queued)

    def next_id(self, taken: Collection[int]) -> int:
        """A packet id that no message uses and that is not in ``taken``, of which there must be few."""
        while True:
            self._packet_id = self._packet_id % 0xFFFF + 1
            if self._packet_id not in self._in_flight and self._packet_id not in taken:
                return self._packet_id

    def add(self, message: Unconfirmed, taken: Collection[int]) -> bytes:
        """Take a message; the packet to write now, or nothing if others come first."""
        self.waiting_bytes += len(message.payload)
        if len(self._in_flight) < MAX_IN_FLIGHT:
            return self._depart(message, taken)
        self._queued.append(message)
        return b""

    def confirmed(self, packet_id: int, taken: Collection[int]) -> bytes:
        """The broker has a message (or repeats itself); the packet that may leave in its place, if any."""
        message = self._in_flight.pop(packet_id, None)
        if message is None:
            return b""
        self.waiting_bytes -= len(message.payload)
        if message.done is not None and not message.done.done():
            message.done.set_result(None)
        return self._depart(self._queued.popleft(), taken) if self._queued else b""

    def repeated(self) -> list[bytes]:
        """What was on its way when the connection broke, marked as repeated."""
        for message in self._in_flight.values():
            message.packet = packets.repeated(message.packet)
        return [message.packet for message in self._in_flight.values()]

    def abandon(self, error: AIFError) -> int:
        """Forget everything and tell who waits; how many there were."""
        count = len(self)
        for message in (*self._in_flight.values(), *self._queued):
            if message.done is not None and not message.done.done():
                message.done.set_exception(error)
        self._in_flight.clear()
        self._queued.clear()
        self.waiting_bytes = 0
        return count

    def _depart(self, message: Unconfirmed, taken: Collection[int]) -> bytes:
        packet_id = self.next_id(taken)
        message.packet = packets.publish(
            message.topic, message.payload, qos=1, retain=message.retain, packet_id=packet_id
        )
        self._in_flight[packet_id] = message
        self.newest_id = packet_id
        return message.packet
