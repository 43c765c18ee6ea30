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
import contextlib
import os
import random
import socket
import ssl
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from aif.errors import (
    AIFError,
    BrokerRefused,
    LocalProtocolError,
    NotConnected,
    PublishTimeout,
    RemoteProtocolError,
    TransportError,
)
from aif.transport import packets
from aif.transport.address import BrokerAddress, Rotation
from aif.transport.backoff import Backoff
from aif.transport.base import Handler, LastWill, Limits, Received, Statistics, check_message, check_qos
from aif.transport.confirmations import Confirmations, Unconfirmed
from aif.transport.endpoint import Endpoint
from aif.transport.fast_link import FastLink
from aif.transport.filters import Entry
from aif.transport.mqtt import FILTERS_PER_PACKET, MAX_CLIENT_ID_BYTES, UNSUBSCRIBE_TIMEOUT_S
from aif.transport.packets import PacketType
from aif.transport.tls import refusal

CLOSE_GRACE_S = 2.0
"""How long ``aclose`` lets the last messages be written before it cuts the connection."""

_topic = lru_cache(maxsize=4_096)(packets.text)


class FastSubscription:
    """A filter in force on a broker connection."""

    def __init__(self, transport: FastTransport, entry: Entry[Handler]) -> None:
        self._transport, self._entry = transport, entry

    @property
    def topic_filter(self) -> str:
        return self._entry.topic_filter

    async def aclose(self) -> None:
        """Stop receiving. Without a connection there is nothing to tell the broker.

        Raises:
            TransportError: the broker did not confirm in time; the handler is silent all the same.
        """
        await self._transport.unsubscribe(self._entry)


class FastTransport(Endpoint):
    """One client of one broker. Event loop thread only."""

    def __init__(
        self,
        broker: BrokerAddress | str | Sequence[BrokerAddress],
        *,
        client_id: str = "",
        will: LastWill | None = None,
        tls: ssl.SSLContext | None = None,
        keep_alive_s: int = 30,
        connect_timeout_s: float = 5.0,
        limits: Limits | None = None,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare a client; nothing is opened before :meth:`connect`.

        Arguments, bounds and errors are those of :class:`aif.transport.mqtt.MQTTTransport`; of ``limits`` the
        bounds for incoming messages are not needed, because none of them ever waits here.
        """
        super().__init__(client_id, will, limits)
        self._brokers = Rotation(broker)
        if not 1 <= keep_alive_s <= 65_535:
            raise LocalProtocolError(
                f"keep_alive_s is {keep_alive_s}, allowed are 1 to 65535",
                hint="a broker must notice the dead",
            )
        if tls is not None and not self._broker.tls:
            raise LocalProtocolError(f"{self._broker} would not use the TLS context", hint="write mqtts://")
        if len(client_id.encode()) > MAX_CLIENT_ID_BYTES:
            raise LocalProtocolError(f"the client id is longer than {MAX_CLIENT_ID_BYTES} B")
        self._tls, self._keep_alive_s, self._connect_timeout_s = tls, keep_alive_s, connect_timeout_s
        self._backoff, self._rng = backoff or Backoff(), rng or random.SystemRandom()
        self._failures = 0
        self._link: FastLink | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self._resubscribing: set[int] = set()
        self._replies: dict[int, asyncio.Future[None]] = {}  # by packet id of SUBSCRIBE or UNSUBSCRIBE
        self._unconfirmed = Confirmations()
        self._room_wanted: set[asyncio.Future[None]] = set()

    @property
    def _broker(self) -> BrokerAddress:
        return self._brokers.current

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
        filters = [(entry.topic_filter, entry.qos) for entry in self.table]
        self._resubscribing = set()
        for start in range(0, len(filters), FILTERS_PER_PACKET):
            packet_id = self._next_id()
            self._resubscribing.add(packet_id)
            link.write(packets.subscribe(packet_id, filters[start : start + FILTERS_PER_PACKET]))
        for packet in self._unconfirmed.repeated():
            link.write(packet)
        if not filters:
            self._announce_up()

    def _unsettled(self, link: FastLink) -> None:
        if link is self._link and not self._connected:
            link.abort(f"its filters were not in force within {self._connect_timeout_s:g} s")

    def _announce_up(self) -> None:
        self._connected, self._failures = True, 0
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        else:
            self._counters.reconnects += 1
        self._announce(f"connected to {self._broker}")

    def _lost(self, reason: str, cause: BaseException | None) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._counters.dropped_outgoing += link.waiting_messages
        if self._first is not None and not self._first.done() and self._failures + 1 >= len(self._brokers):
            self._first.set_exception(refusal(self._broker, reason, cause))
        self._go_down(reason, f"the connection to {self._broker} was lost: {reason}")

    def _go_down(self, reason: str, told: str) -> None:
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(NotConnected(told))
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
        check_message(topic, payload, qos, self.limits.max_payload_bytes)
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
                    try:
                        await room
                    finally:
                        self._room_wanted.discard(room)
                done = loop.create_future() if qos else None
                self._hand_over(link, topic, payload, qos, retain=retain, done=done)
                if done is not None:
                    await done
        except TimeoutError:
            raise PublishTimeout(
                f"{self._broker} did not confirm a message on {topic} within {timeout:g} s",
                hint="the message may still arrive; check the broker's load and its access rules",
            ) from None

    def _live_link(self) -> FastLink:
        if self._link is None or not self._connected:
            raise NotConnected(
                f"there is no connection to {self._broker}",
                hint="wait for on_connection, or check the broker",
            )
        return self._link

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

    def written(self) -> None:
        """Messages left the link's queue."""
        self._wake_senders()

    # --- subscribing ------------------------------------------------------------------------------

    async def subscribe(
        self, topic_filter: str, handler: Handler, *, qos: int = 0, timeout: float = 10.0
    ) -> FastSubscription:
        check_qos(qos)
        link = self._live_link()
        entry = self.table.add(topic_filter, qos, handler)
        packet_id = self._next_id()
        try:
            asked = packets.subscribe(packet_id, [(topic_filter, qos)])
            await self._reply(link, packet_id, asked, f"filter {topic_filter}", timeout)
        except BaseException:
            self.table.remove(entry)
            raise
        return FastSubscription(self, entry)

    async def unsubscribe(self, entry: Entry[Handler]) -> None:
        """End a subscription; see :meth:`FastSubscription.aclose`."""
        if not self.table.remove(entry) or self._link is None or not self._connected:
            return
        packet_id = self._next_id()
        asked = packets.unsubscribe(packet_id, entry.topic_filter)
        with contextlib.suppress(
            NotConnected
        ):  # the session is clean: the broker forgets with the connection
            what = f"end of filter {entry.topic_filter}"
            await self._reply(self._link, packet_id, asked, what, UNSUBSCRIBE_TIMEOUT_S)

    async def _reply(self, link: FastLink, packet_id: int, asked: bytes, what: str, timeout_s: float) -> None:
        """Ask the broker and wait for its answer."""
        reply = self._replies[packet_id] = asyncio.get_running_loop().create_future()
        link.write(asked)
        try:
            async with asyncio.timeout(timeout_s):
                await reply
        except TimeoutError:
            raise TransportError(
                f"{self._broker} did not confirm the {what} within {timeout_s:g} s"
            ) from None
        finally:
            del self._replies[packet_id]

    def _replied(self, packet_id: int, codes: bytes) -> None:
        error = None
        if packets.REFUSED_FILTER in codes:
            error = BrokerRefused(
                f"{self._broker} refuses a filter: Unspecified error",
                hint="the broker's access rules must allow it",
            )
        reply = self._replies.get(packet_id)
        if packet_id in self._resubscribing:
            self._resubscribing.discard(packet_id)
            if error is not None:  # a node of a cluster that is not whole, or a right that was taken away
                self._report(error)
                if self._link is not None:
                    self._link.abort(error.message)
            elif not self._resubscribing:
                self._announce_up()
        elif reply is not None and not reply.done():
            if error is not None:
                reply.set_exception(error)
            else:
                reply.set_result(None)

    # --- what the link reads ----------------------------------------------------------------------

    def arrived(self, link: FastLink, first: int, body: bytes) -> None:
        """Act on one packet after CONNACK.

        Raises:
            RemoteProtocolError: the broker does not speak MQTT 3.1.1; the connection must end.
        """
        if first & 0xF0 == packets.PUBLISH:
            topic, packet_id, payload = packets.split_publish(first, body)
            self._publish_arrived(first, topic, payload)
            if packet_id:
                link.acknowledge(packet_id)
            return
        kind = first >> 4
        if kind == PacketType.PUBACK:
            if packet := self._unconfirmed.confirmed(packets.packet_id_of(body), self._replies):
                link.write(packet)
            self._wake_senders()
        elif kind == PacketType.SUBACK:
            self._replied(packets.packet_id_of(body, more=1), body[2:])
        elif kind == PacketType.UNSUBACK:
            self._replied(packets.packet_id_of(body), b"")
        elif kind != PacketType.PINGRESP:
            raise RemoteProtocolError(f"a packet of type {kind} came from the broker")

    def _publish_arrived(self, first: int, raw_topic: bytes, payload: bytes) -> None:
        try:
            topic = _decoded(raw_topic)
        except UnicodeDecodeError:
            self._unusable()
            return
        if len(payload) > self.limits.max_payload_bytes:
            self._unusable()
            return
        retained, duplicate = bool(first & packets.RETAIN), bool(first & packets.DUP)
        self._deliver(Received(topic, payload, first >> 1 & 1, retained, duplicate))

    def _unusable(self) -> None:
        self._counters.dropped_incoming += 1


def _reason(error: OSError) -> str:
    """What went wrong, in the system's words; asyncio puts its own into ``strerror``."""
    if isinstance(error, socket.gaierror | ssl.SSLError) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


@lru_cache(maxsize=4_096)
def _decoded(raw_topic: bytes) -> str:
    return raw_topic.decode()
