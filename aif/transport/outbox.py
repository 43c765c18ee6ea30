"""The ledger of messages handed to the client library and not yet on their way.

Decides whether one more message may be handed over. Does not hold messages: the library does, without a
bound of its own at QoS 0. A message is settled when it was written to the socket (QoS 0) or confirmed by the
broker (QoS 1).
"""

from __future__ import annotations

from collections import deque
from typing import Protocol


class Ticket(Protocol):
    """What the library gives back for a message."""

    def is_published(self) -> bool:
        """Whether it is settled; raises RuntimeError when it was lost with its connection."""
        ...

    def wait_for_publish(self, timeout: float | None = None) -> None:
        """Block until it is settled or ``timeout`` seconds are over; raises like :meth:`is_published`."""
        ...


class Outbox:
    """Unsettled messages of one QoS, oldest first."""

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._open: deque[tuple[Ticket, int]] = deque()
        self._open_bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def oldest(self) -> Ticket:
        """The message that was handed over first."""
        return self._open[0][0]

    def has_room(self, size_bytes: int) -> bool:
        """Whether a message of this size may be handed over now."""
        if self._full(size_bytes):
            self._settle()
        return not self._full(size_bytes)

    def add(self, ticket: Ticket, size_bytes: int) -> None:
        self._open.append((ticket, size_bytes))
        self._open_bytes += size_bytes

    def abandon(self) -> int:
        """Forget all messages; returns how many of them were never settled."""
        lost = sum(not _settled(ticket) for ticket, _ in self._open)
        self._open.clear()
        self._open_bytes = 0
        return lost

    def _full(self, size_bytes: int) -> bool:
        return len(self._open) >= self._max_messages or self._open_bytes + size_bytes > self._max_bytes

    def _settle(self) -> None:
        while self._open and _settled(self._open[0][0]):
            self._open_bytes -= self._open.popleft()[1]


def _settled(ticket: Ticket) -> bool:
    try:
        return ticket.is_published()
    except RuntimeError:
        return False
