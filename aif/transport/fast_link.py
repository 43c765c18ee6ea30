"""One MQTT connection on the event loop: bytes in, packets out; packets in, few writes out.

Decides when to write, when to read on, and when a silent connection is dead. What a packet means is decided
by :class:`LinkOwner`.

Invariants: at most ``BATCH_PACKETS`` are handled before other work of the loop gets its turn, and nothing is
read meanwhile; packets leave in the order they were written; what waits here is at most what the owner
allowed plus acknowledgements, of which there is one per packet that was read.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Protocol, cast

from aif.errors import BrokerRefused, RemoteProtocolError
from aif.transport import packets
from aif.transport.base import MAX_PACKET_BYTES
from aif.transport.packets import PacketReader, PacketType
from aif.transport.wakeups import LIES_S, Wakeups

BATCH_PACKETS = 256
"""Packets handled before other work of the event loop gets its turn."""

WRITE_BYTES = 65_536
"""Bytes that are written at once without waiting for the end of the turn."""

READ_BYTES = 131_072
"""Most bytes in one read."""

CHUNK_BYTES = 262_144
"""Most bytes in one write; what the socket does not take at once is copied by asyncio, so not more."""

SILENT_LOOKS = 3
"""Looks, two per keep-alive, after each of which nothing may have come until the broker counts as dead."""


class LinkOwner(Protocol):
    """Who gives packets their meaning."""

    def arrived(self, link: FastLink, first: int, body: bytes) -> None:
        """Act on a packet that came after CONNACK; raises RemoteProtocolError to end the connection."""

    def written(self) -> None:
        """Messages that waited here were given to the socket."""

    @property
    def unconfirmed(self) -> int:
        """QoS 1 messages whose acknowledgements are due."""
        ...

    @property
    def newest_id(self) -> int:
        """Packet id of the message at QoS 1 that was written last."""
        ...

    @property
    def patient(self) -> bool:
        """Nobody waits for an acknowledgement now; when that changes, ``listen`` is called."""
        ...


class FastLink(asyncio.BufferedProtocol):
    """From a connected socket to its end."""

    def __init__(self, owner: LinkOwner, greeting: bytes, keep_alive_s: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.accepted: asyncio.Future[None] = self._loop.create_future()
        """Done when the broker said yes; BrokerRefused or RemoteProtocolError when it did not."""
        self.closed: asyncio.Future[str] = self._loop.create_future()
        """Done, with the reason, when the connection is over."""
        self.waiting_messages = 0
        """QoS 0 messages that the socket has not taken."""
        self.waiting_bytes = 0
        """Bytes of all packets that the socket has not taken."""
        self._owner, self._greeting, self._keep_alive_s = owner, greeting, keep_alive_s
        self._transport: asyncio.Transport | None = None
        self._reader = PacketReader(MAX_PACKET_BYTES)
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._arrivals: Iterator[tuple[int, bytes]] = iter(())
        self._waiting: deque[bytes] = deque()
        self._acknowledgements: list[bytes] = []
        self._greeted = self._paused = self._flushing = self._reading = self._holding = False
        self._finished = self._leaving = False
        self._reason = "the connection ended"
        self._silent_looks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._lying: asyncio.TimerHandle | None = None
        self._wakeups = Wakeups(None)
        self._read_bytes = self._written_id = 0

    @property
    def socket(self) -> socket.socket | None:
        """The live socket, if there is one."""
        opened = None if self._transport is None else self._transport.get_extra_info("socket")
        return opened if opened is None else opened._sock  # noqa: SLF001 - asyncio's wrapper hides shutdown()

    # --- asyncio ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # a stream, as asked for; other event loops have classes of their own for it
        self._transport = transport = cast("asyncio.Transport", transport)
        opened = transport.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if transport.get_extra_info("ssl_object") is None:
                self._wakeups = Wakeups(opened)
        transport.write(self._greeting)
        self._timer = self._loop.call_later(self._keep_alive_s / 2, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._lying):
            if timer is not None:
                timer.cancel()
        self._transport = None
        reason = f"{self._reason} ({exc})" if exc is not None else self._reason
        if not self.accepted.done():
            refused = BrokerRefused(reason)
            refused.__cause__ = exc
            self.accepted.set_exception(refused)
            self.accepted.exception()  # whoever waited may be gone
        if not self.closed.done():
            self.closed.set_result(reason)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where asyncio reads to; a view, because asyncio's TLS fills slices of it.

        One buffer for the life of the link: `asyncio.Protocol` makes a new one of 256 KiB for every read, and
        the allocator maps and unmaps it: half the time between a message and its answer (45 us, now 22).
        """
        if self._wakeups.watching:
            self._wakeups.reading()
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read."""
        self._silent_looks = 0
        self._read_bytes = nbytes
        if self._wakeups.watching:
            self._wakeups.read(nbytes)
        self._arrivals = self._reader.feed(bytes(self._buffer[:nbytes]))
        self._handle()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # --- reading ----------------------------------------------------------------------------------

    def _handle(self) -> None:
        """Give one batch of packets to the owner, then write what it wrote and what is acknowledged."""
        transport = self._transport
        if transport is None or self._finished:
            return
        count = 0
        self._reading = True
        try:
            for first, body in islice(self._arrivals, BATCH_PACKETS):
                count += 1
                if self._greeted:
                    self._owner.arrived(self, first, body)
                else:
                    self._answered(first, body)
                if self._finished:
                    return
        except RemoteProtocolError as error:
            self.abort(str(error))
            return
        finally:
            self._reading = False
        self._answer()
        if count == BATCH_PACKETS:
            self._holding = True
            transport.pause_reading()
            self._loop.call_soon(self._handle)
        elif self._holding:
            self._holding = False
            transport.resume_reading()

    def _answer(self) -> None:
        """Write what a batch led to: answers first, as somebody waits for them, then acknowledgements."""
        if self._acknowledgements:
            self._waiting += self._acknowledgements
            self.waiting_bytes += packets.PUBACK_BYTES * len(self._acknowledgements)
            self._acknowledgements.clear()
        if not self._flush():
            self._wakeups.answer_nothing(alone=self._wakeups.watching and self._newest_confirmed())
        if self._wakeups.prompt:
            self._choose_wakeups()

    def _newest_confirmed(self) -> bool:
        """Whether the PUBACK of the newest message was read, and nothing else."""
        if self._read_bytes != packets.PUBACK_BYTES:
            return False
        return bytes(self._buffer[: self._read_bytes]) == packets.puback(self._written_id)

    def _choose_wakeups(self) -> None:
        """Let a lone acknowledgement lie for a while, unless somebody waits for one or for a packet's end."""
        if self._wakeups.rare:
            if self._reader.within_packet:
                self._wakeups.often()
        elif self._owner.unconfirmed and self._owner.patient and not self._reader.within_packet:
            self._wakeups.seldom()
            if self._lying is None:
                self._lying = self._loop.call_later(LIES_S, self._look_for_lying)

    def _look_for_lying(self) -> None:
        self._lying = None
        self.listen()

    def listen(self) -> None:
        """Something short is waited for: read whatever comes, and what lies here already."""
        if self._wakeups.rare and self._transport is not None and not self._transport.is_closing():
            self._wakeups.often()

    def _answered(self, first: int, body: bytes) -> None:
        if first != PacketType.CONNACK << 4 or len(body) != 2:
            raise RemoteProtocolError("the broker did not answer CONNECT with CONNACK")
        if body[1]:
            said = packets.CONNECT_REFUSALS.get(body[1], f"return code {body[1]}")
            self.accepted.set_exception(BrokerRefused(f"the broker says: {said}"))
            self.accepted.exception()  # whoever waited may be gone
            self.abort(f"the broker says: {said}")
        else:
            self._greeted = True
            self.accepted.set_result(None)

    def acknowledge(self, packet_id: int) -> None:
        """Confirm a handled QoS 1 message, together with the others of this batch."""
        self._acknowledgements.append(packets.puback(packet_id))

    # --- writing ----------------------------------------------------------------------------------

    def write(self, packet: bytes, *, message: bool = False) -> None:
        """Put a packet at the end; it leaves at the end of this turn of the loop at the latest.

        Args:
            packet: whole.
            message: whether it is a QoS 0 message, which counts in ``waiting_messages``.
        """
        self._waiting.append(packet)
        self.waiting_bytes += len(packet)
        if message:
            self.waiting_messages += 1
        if self.waiting_bytes >= WRITE_BYTES:
            self._flush()
        elif not self._flushing and not self._reading:
            self._flushing = True
            self._loop.call_soon(self._end_of_turn)

    def _end_of_turn(self) -> None:
        self._flushing = False
        self._flush()

    def _flush(self) -> bool:
        """Write what waits, as far as the socket takes it; whether anything was written."""
        waiting = self._waiting
        if self._transport is None or not waiting:
            return False
        written = not self._paused
        if self._wakeups.watching:
            self._wakeups.writing(newest=self._owner.newest_id != self._written_id)
            self._written_id = self._owner.newest_id
        while waiting and not self._paused:
            if self.waiting_bytes <= CHUNK_BYTES:
                chunk = b"".join(waiting)
                waiting.clear()
                self.waiting_messages = 0
            else:
                chunk = self._next_chunk()
            self.waiting_bytes -= len(chunk)
            self._transport.write(chunk)
        self._owner.written()
        if self._leaving and not waiting:
            self._transport.close()
        return written

    def _next_chunk(self) -> bytes:
        taken, size = list[bytes](), 0
        while self._waiting and size < CHUNK_BYTES:
            packet = self._waiting.popleft()
            taken.append(packet)
            size += len(packet)
            # QoS 0 is the only PUBLISH without the bits of a QoS
            self.waiting_messages -= packet[0] & 0xF6 == packets.PUBLISH
        return b"".join(taken)

    # --- life -------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Twice per keep-alive: say that we are here, and give up on a broker that says nothing."""
        self._silent_looks += 1
        if self._silent_looks > SILENT_LOOKS:
            silent_s = self._silent_looks * self._keep_alive_s / 2
            self.abort(f"the broker was silent for {silent_s:.0f} s")
            return
        self.listen()
        self.write(packets.PINGREQ)
        self._timer = self._loop.call_later(self._keep_alive_s / 2, self._look)

    def abort(self, reason: str = "given up") -> None:
        """End the connection without a goodbye."""
        if not self._finished:
            self._reason = reason
        self._finished = True
        if self._transport is not None:
            self._transport.abort()

    async def finish(self, grace_s: float) -> None:
        """Write what waits and a goodbye, then end the connection; what is left counts as waiting."""
        self._finished = self._leaving = True  # nothing is read any more
        if self._transport is None:
            return
        self.write(packets.DISCONNECT)
        self._flush()
        await asyncio.wait({self.closed}, timeout=grace_s)
        self.abort()
        await self.closed
