"""A transport over an MQTT 3.1.1 broker without a thread: the event loop itself reads and writes packets.

Promises what :mod:`aif.transport.base` asks for, as the paho transport does, at a fraction of its cost per
message. Decides when the connection counts as up, what is repeated after it came back, and when bytes leave.
Layouts are in ``packets.py``.

When bytes leave: at the end of the turn of the loop in which they were sent, or of the batch of arrivals that
they answer, in one write; earlier if many wait. So a burst costs few system calls, and a single message waits
for nothing.

Invariants:

* The session is clean: after a reconnect every filter is in force again before ``connected`` is announced; a
  connection on which one is refused is given up.
* A QoS 1 message is confirmed to the broker only after its handler returned.
* QoS 1 messages on their way when a connection breaks are sent again on the next one, in order and marked as
  repeated; QoS 0 messages that were not written are lost and counted.
* Nothing that arrived is dropped for want of room: while handlers are slow, nothing is read.
* TCP_NODELAY is set on every socket, and what was read is acknowledged at once (RFC 896, RFC 1122 §4.2.3.2).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from aif.errors import (
    AIFError,
    LocalProtocolError,
    NotConnected,
    PublishTimeout,
    RemoteProtocolError,
    TransportError,
)
from aif.transport import packets
from aif.transport.base import Received, Statistics, check_message
from aif.transport.broker_client import BrokerClient
from aif.transport.confirmations import Confirmations, Unconfirmed
from aif.transport.fast_link import FastLink
from aif.transport.filters import check_topic
from aif.transport.packets import PacketType
from aif.transport.tls import refusal

CLOSE_GRACE_S = 2.0
"""How long ``aclose`` lets the last messages be written before it cuts the connection."""


@lru_cache(maxsize=4_096)
def _topic(topic: str) -> bytes:
    """A topic as it is written; checked and encoded once."""
    check_topic(topic)
    return packets.text(topic)


class FastTransport(BrokerClient[FastLink]):
    """One client of one broker. Event loop thread only.

    Of ``limits`` the bounds for incoming messages are not needed, because none of them ever waits here.
    """

    def _prepare(self) -> None:
        self._failures = 0
        self._keeper: asyncio.Task[None] | None = None
        self._unconfirmed = Confirmations()
        self._room_wanted: set[asyncio.Future[None]] = set()
        self._awaited = 0  # confirmations that somebody waits for

    @property
    def socket(self) -> socket.socket | None:
        """The live socket, for diagnosis only."""
        return None if self._link is None else self._link.socket

    @property
    def statistics(self) -> Statistics:
        return replace(self._counters)

    # --- connecting -------------------------------------------------------------------------------

    async def connect(self) -> None:
        if self._used:
            raise LocalProtocolError("a transport connects once", hint="make a new one")
        self._used = True
        loop = asyncio.get_running_loop()
        self._first = loop.create_future()
        self._keeper = loop.create_task(self._keep_connected())
        try:
            await self._first
        except BaseException:
            await self.aclose()
            raise

    async def _keep_connected(self) -> None:
        while True:
            cause: BaseException | None = None
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    self._link = link = await self._open()
                    await asyncio.shield(link.accepted)
            except TimeoutError:
                reason = f"no answer within {self._connect_timeout_s:g} s"
            except AIFError as error:
                reason, cause = str(error), error.__cause__
            except OSError as error:
                reason, cause = _reason(error), error
            else:
                late = asyncio.get_running_loop().call_later(self._connect_timeout_s, self._unsettled, link)
                self._accepted(link)
                reason = await asyncio.shield(link.closed)
                late.cancel()
            if self._link is not None:
                self._link.abort()
            self._lost(reason, cause)
            self._brokers.advance()
            await asyncio.sleep(self._backoff.delay_s(self._failures, self._rng))
            self._failures += 1

    async def _open(self) -> FastLink:
        broker = self._broker
        tls = (self._tls or ssl.create_default_context()) if broker.tls else None
        greeting = packets.connect(
            self._client_id, self._keep_alive_s, self.will, broker.username, broker.password
        )
        _, link = await asyncio.get_running_loop().create_connection(
            lambda: FastLink(self, greeting, self._keep_alive_s), broker.host, broker.port, ssl=tls
        )
        return link

    def _accepted(self, link: FastLink) -> None:
        """Subscribe again to everything, repeat what was not confirmed; announced when the broker replied."""
        settled = self._restore_filters()
        for packet in self._unconfirmed.repeated():
            link.write(packet)
        if settled:
            self._announce_up()

    def _unsettled(self, link: FastLink) -> None:
        if link is self._link and not self._connected:
            link.abort(f"its filters were not in force within {self._connect_timeout_s:g} s")

    def _announce_up(self) -> None:
        self._failures = 0
        super()._announce_up()

    def _lost(self, reason: str, cause: BaseException | None) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._counters.dropped_outgoing += link.waiting_messages
        if self._first is not None and not self._first.done() and self._failures + 1 >= len(self._brokers):
            self._first.set_exception(refusal(self._broker, reason, cause))
        self._go_down(reason, f"the connection to {self._broker} was lost: {reason}")

    def _go_down(self, reason: str, told: str) -> None:
        self._fail_replies(NotConnected(told))
        self._wake_senders()
        if self._connected:
            self._connected = False
            self._announce(reason)

    async def aclose(self) -> None:
        self._used = True
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        keeper.cancel()
        link, self._link = self._link, None
        told = f"the connection to {self._broker} was closed by this program"
        self._go_down("closed by this program", told)
        if link is not None:
            await link.finish(CLOSE_GRACE_S)
            self._counters.dropped_outgoing += link.waiting_messages
        self._counters.dropped_outgoing += self._unconfirmed.abandon(NotConnected(told))
        await asyncio.wait({keeper})

    # --- sending ----------------------------------------------------------------------------------

    def send(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        if qos not in {0, 1} or len(payload) > self.limits.max_payload_bytes:
            check_message(topic, payload, qos, self.limits.max_payload_bytes)
        link = self._link
        if link is None or not self._connected:
            link = self._live_link()
        if not self._has_room(link, qos, len(payload)):
            self._counters.refused += 1
            waiting = link.waiting_messages if qos == 0 else len(self._unconfirmed)
            raise TransportError(
                f"the outgoing queue to {self._broker} is full ({waiting} messages wait)",
                hint="send more slowly, or await publish()",
            )
        self._hand_over(link, topic, payload, qos, retain=retain, done=None)

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, timeout: float = 10.0
    ) -> None:
        check_message(topic, payload, qos, self.limits.max_payload_bytes)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                while not self._has_room(link := self._live_link(), qos, len(payload)):
                    room = loop.create_future()
                    self._room_wanted.add(room)
                    link.listen()
                    try:
                        await room
                    finally:
                        self._room_wanted.discard(room)
                done = loop.create_future() if qos else None
                self._hand_over(link, topic, payload, qos, retain=retain, done=done)
                if done is not None:
                    self._awaited += 1
                    try:
                        link.listen()
                        await done
                    finally:
                        self._awaited -= 1
        except TimeoutError:
            raise PublishTimeout(
                f"{self._broker} did not confirm a message on {topic} within {timeout:g} s",
                hint="the message may still arrive; check the broker's load and its access rules",
            ) from None

    def _has_room(self, link: FastLink, qos: int, size_bytes: int) -> bool:
        limits = self.limits
        if qos:
            messages, waiting_bytes = len(self._unconfirmed), self._unconfirmed.waiting_bytes
        else:
            messages, waiting_bytes = link.waiting_messages, link.waiting_bytes
        return messages < limits.outgoing_messages and waiting_bytes + size_bytes <= limits.outgoing_bytes

    def _hand_over(
        self,
        link: FastLink,
        topic: str,
        payload: bytes,
        qos: int,
        *,
        retain: bool,
        done: asyncio.Future[None] | None,
    ) -> None:
        if qos == 0:
            link.write(
                packets.publish(_topic(topic), payload, qos=0, retain=retain, packet_id=0), message=True
            )
        else:
            message = Unconfirmed(_topic(topic), payload, retain, done)
            if packet := self._unconfirmed.add(message, self._replies):
                link.write(packet)
        self._counters.sent += 1
        self._counters.sent_bytes += len(payload)

    def _next_id(self) -> int:
        return self._unconfirmed.next_id(self._replies)

    def _wake_senders(self) -> None:
        for room in self._room_wanted:
            if not room.done():
                room.set_result(None)

    @property
    def patient(self) -> bool:
        return not (self._awaited or self._replies or self._room_wanted)

    @property
    def unconfirmed(self) -> int:
        return len(self._unconfirmed)

    @property
    def newest_id(self) -> int:
        return self._unconfirmed.newest_id

    def written(self) -> None:
        """Messages left the link's queue."""
        if self._room_wanted:
            self._wake_senders()

    # --- asking the broker ------------------------------------------------------------------------

    def _ask(self, filters: Sequence[tuple[str, int]]) -> int | None:
        packet_id = self._next_id()
        return self._write(packet_id, packets.subscribe(packet_id, filters))

    def _ask_no_more(self, topic_filter: str) -> int | None:
        packet_id = self._next_id()
        return self._write(packet_id, packets.unsubscribe(packet_id, topic_filter))

    def _write(self, packet_id: int, packet: bytes) -> int | None:
        if self._link is None:
            return None
        self._link.listen()
        self._link.write(packet)
        return packet_id

    def _give_up(self, reason: str) -> None:
        if self._link is not None:
            self._link.abort(reason)

    # --- what the link reads ----------------------------------------------------------------------

    def arrived(self, link: FastLink, first: int, body: bytes) -> None:
        """Act on one packet after CONNACK.

        Raises:
            RemoteProtocolError: the broker does not speak MQTT 3.1.1; the connection must end.
        """
        if first & 0xF0 == packets.PUBLISH:
            raw_topic, packet_id, payload = packets.split_publish(first, body)
            topic = _decoded(raw_topic)
            if topic is None or len(payload) > self.limits.max_payload_bytes:
                self._counters.dropped_incoming += 1
            else:
                retained, duplicate = bool(first & packets.RETAIN), bool(first & packets.DUP)
                self._deliver(Received(topic, payload, first >> 1 & 1, retained, duplicate))
            if packet_id:
                link.acknowledge(packet_id)
            return
        kind = first >> 4
        if kind == PacketType.PUBACK:
            if packet := self._unconfirmed.confirmed(packets.packet_id_of(body), self._replies):
                link.write(packet)
            if self._room_wanted:
                self._wake_senders()
        elif kind == PacketType.SUBACK:
            refused = packets.REFUSED_FILTER in body[2:]
            self.replied(packets.packet_id_of(body, more=1), ["Unspecified error"] if refused else ())
        elif kind == PacketType.UNSUBACK:
            self.replied(packets.packet_id_of(body), ())
        elif kind != PacketType.PINGRESP:
            raise RemoteProtocolError(f"a packet of type {kind} came from the broker")


def _reason(error: OSError) -> str:
    """What went wrong, in the system's words; asyncio puts its own into ``strerror``."""
    if isinstance(error, socket.gaierror | ssl.SSLError) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


@lru_cache(maxsize=4_096)
def _decoded(raw_topic: bytes) -> str | None:
    """None if it is not UTF-8."""
    try:
        return raw_topic.decode()
    except UnicodeDecodeError:
        return None
