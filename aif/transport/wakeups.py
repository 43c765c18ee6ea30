"""What a broker may send without waking this process: an acknowledgement that nobody waits for.

At QoS 1 every message is answered by a PUBACK of four bytes, ahead of the message that somebody waits for.
To wake up for it costs as much as to wake up for a message: a quarter of the processor time of a round trip.
Linux lets few bytes lie until more have come (SO_RCVLOWAT, socket(7)).

Decides whether it may, and whether what was read must be acknowledged to the broker's kernel at once. Both
hang on one thing: a broker with Nagle's algorithm (RFC 896) sends nothing small while something small of it
is unacknowledged, and this side acknowledges late (RFC 1122 §4.2.3.2). That it has none is never assumed but
shown: a message left in one segment; its PUBACK came and was read by itself, then another packet; and no
segment that could have acknowledged the PUBACK was sent meanwhile.

Does not read or write, and knows nobody who waits: the link says ``often`` for them, and in any case before
long.

Invariants: no broker is taken for one without delay that is not; the attempts to show it hold such a broker
back at most ``TRIES`` times per connection, each time for as long as a late acknowledgement (40 ms).
"""

from __future__ import annotations

import socket
import struct
from typing import Protocol

from aif.transport.packets import PUBACK_BYTES

TRIES = 8
"""Attempts per connection to show that the broker does not delay."""

LIES_S = 0.25
"""How long an acknowledgement may lie unread."""

SMALL_BYTES = 536
"""Nagle's algorithm lets whole segments pass; the smallest default of their size (RFC 1122 §4.2.2.6)."""

_SEGMENTS_SENT = struct.Struct("=136xI")
"""``tcpi_segs_out`` of ``struct tcp_info`` (linux/tcp.h): all that were sent, acknowledgements among them."""


class Options(Protocol):
    """A TCP socket's options, as a socket of any event loop has them."""

    def getsockopt(self, level: int, name: int, size: int, /) -> bytes: ...

    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...


class Wakeups:
    """One connection. ``None`` for a socket: every byte wakes, as with TLS, whose records are all longer."""

    __slots__ = (
        "_lone",
        "_options",
        "_quick_ack",
        "_sent",
        "_tries",
        "_two_came",
        "prompt",
        "rare",
        "watching",
    )

    def __init__(self, options: Options | None) -> None:
        self._options = options
        self._quick_ack: int | None = getattr(socket, "TCP_QUICKACK", None)
        self.prompt = False
        """It was shown that the broker does not delay."""
        self.rare = False
        """Something short may lie unread now."""
        self.watching = self._segments_sent() is not None
        """It is still to be shown: ``writing``, ``reading`` and ``read`` are worth their calls."""
        self._tries = TRIES
        self._sent: int | None = None  # segments, before the newest message was written
        self._lone = False  # its PUBACK was read, and nothing was written after it
        self._two_came = False  # and there is more to read, though no other segment was sent

    def writing(self, *, newest: bool) -> None:
        """Packets will be given to the socket.

        Args:
            newest: a message at QoS 1 is among them, newer than all that were written before.
        """
        self._lone, self._sent = False, self._segments_sent() if newest else None

    def reading(self) -> None:
        """Bytes are there and will be read now."""
        self._two_came = (
            self._lone and self._sent is not None and self._segments_sent() == (self._sent + 1) % (1 << 32)
        )

    def read(self, size_bytes: int) -> None:
        """So many were."""
        if self._two_came and size_bytes < SMALL_BYTES:
            self.prompt = True
        self._lone = False
        self.watching = self._tries > 0 and not self.prompt

    def answer_nothing(self, *, alone: bool) -> None:
        """Nothing was written in answer to what was read.

        Let the kernel acknowledge it at once, for a broker that may wait for it. The option does not last
        (tcp(7)), and costs a system call and a packet.

        Args:
            alone: it was the PUBACK of the newest message at QoS 1, and nothing else.
        """
        if self.prompt or self._options is None or self._quick_ack is None:
            return
        if alone and self.watching and self._tries:
            self._tries -= 1
            self._lone = True
        else:
            self._options.setsockopt(socket.IPPROTO_TCP, self._quick_ack, 1)

    def seldom(self) -> None:
        """Nobody waits for an acknowledgement: it shall wake us together with what follows it."""
        self._wake_at(PUBACK_BYTES + 1)

    def often(self) -> None:
        """Every byte shall wake us, those that lie here among them."""
        self._wake_at(1)

    def _wake_at(self, size_bytes: int) -> None:
        if self._options is not None:
            self._options.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)
            self.rare = size_bytes > 1

    def _segments_sent(self) -> int | None:
        """On this connection; None where the system does not say."""
        name: int | None = getattr(socket, "TCP_INFO", None)
        if self._options is None or name is None:
            return None
        try:
            told = self._options.getsockopt(socket.IPPROTO_TCP, name, _SEGMENTS_SENT.size)
        except OSError:
            return None  # the connection is over
        if len(told) < _SEGMENTS_SENT.size:
            return None
        (sent,) = _SEGMENTS_SENT.unpack(told)
        return int(sent)
