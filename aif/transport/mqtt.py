"""A transport over an MQTT 3.1.1 broker.

Decides when the connection counts as up, what is repeated after it came back and what is dropped. Does not
know what topics or payloads mean, and leaves socket and thread to :mod:`aif.transport.paho_link`.

Invariants:

* Everything here runs on the event loop thread.
* The session is clean: after a reconnect every filter is in force again before ``connected`` is announced; a
  connection on which one is refused is given up.
* A QoS 1 message is confirmed to the broker only after its handler returned.
* QoS 1 messages on their way when a connection breaks are sent again on the next one; QoS 0 messages are
  lost and counted.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aif.errors import BrokerRefused, LocalProtocolError, NotConnected, PublishTimeout, TransportError
from aif.transport.address import BrokerAddress, Rotation
from aif.transport.backoff import Backoff
from aif.transport.base import Handler, LastWill, Limits, Statistics, check_message, check_qos
from aif.transport.endpoint import Endpoint
from aif.transport.filters import Entry
from aif.transport.outbox import Outbox, Ticket
from aif.transport.tls import refusal

if TYPE_CHECKING:
    from aif.transport.paho_link import PahoLink

BATCH_MESSAGES = 256
"""Messages handled before other work of the event loop gets its turn."""

FILTERS_PER_PACKET = 64
"""Filters in one SUBSCRIBE packet; 64 of the longest filters stay far below the packet bound."""

MAX_CLIENT_ID_BYTES = 256

ROOM_TURN_S = 0.5
"""How long one look at a full outgoing queue may block a worker thread."""

UNSUBSCRIBE_TIMEOUT_S = 10.0


@dataclass(slots=True)
class _Unconfirmed:
    """A QoS 1 message whose sender waits. ``events`` counts completions of its packet id to wait for."""

    done: asyncio.Future[None]
    events: int = 1


class MQTTSubscription:
    """A filter in force on a broker connection."""

    def __init__(self, transport: MQTTTransport, entry: Entry[Handler]) -> None:
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


class MQTTTransport(Endpoint):
    """One client of one broker."""

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

        Args:
            broker: an address or its URL, or the nodes of a cluster (a sequence, or URLs with commas
                between). After each failure the next is tried; :meth:`connect` tries every one once.
            client_id: up to 256 bytes; empty lets the broker choose. A second client with the same id takes
                the connection over.
            will: published by the broker when this client goes away without ``aclose``.
            tls: needs an ``mqtts`` address; without it an ``mqtts`` address uses the system's authorities.
            keep_alive_s: 1 to 65 535 seconds; a silent connection is given up after at most twice this.
            connect_timeout_s: for a connection to a broker, until this client and its filters are accepted.
            limits: bounds of queues and messages.
            backoff: the delay between attempts to reconnect.
            rng: its jitter; the system's source unless given.

        Raises:
            LocalProtocolError: a value that is not allowed.
            TransportError: a malformed URL.
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
        self._link: PahoLink | None = None
        self._first: asyncio.Future[None] | None = None
        self._settling: asyncio.TimerHandle
        self._resubscribing: set[int] = set()
        self._replies: dict[int, asyncio.Future[None]] = {}  # by packet id of SUBSCRIBE or UNSUBSCRIBE
        self._unconfirmed: dict[int, _Unconfirmed] = {}  # by packet id of PUBLISH
        self._outboxes = tuple(
            Outbox(max_messages=self.limits.outgoing_messages, max_bytes=self.limits.outgoing_bytes)
            for _ in (0, 1)
        )
        self._unusable = 0

    @property
    def _broker(self) -> BrokerAddress:
        return self._brokers.current

    @property
    def statistics(self) -> Statistics:
        unusable = self._unusable if self._link is None else self._link.unusable
        return replace(self._counters, dropped_incoming=self.inbox.dropped + unusable)

    @property
    def link(self) -> PahoLink | None:
        """The connection underneath, for diagnosis only."""
        return self._link

    async def connect(self) -> None:
        if self._used:
            raise LocalProtocolError("a transport connects once", hint="make a new one")
        self._used = True
        from aif.transport.paho_link import PahoLink

        loop = asyncio.get_running_loop()
        self._first = loop.create_future()
        self._settling = loop.call_later(self._connect_timeout_s, self._unsettled)
        self._link = PahoLink(
            self._brokers,
            self.inbox,
            self,
            client_id=self._client_id,
            will=self.will,
            tls=self._tls,
            connect_timeout_s=self._connect_timeout_s,
            limits=self.limits,
            backoff=self._backoff,
            rng=self._rng,
        )
        self._link.start(self._keep_alive_s)
        try:
            async with asyncio.timeout(self._connect_timeout_s * len(self._brokers)):
                await self._first
        except TimeoutError:
            await self.aclose()
            raise refusal(self._broker, f"no answer within {self._connect_timeout_s:g} s", None) from None
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        self._used = True
        link, self._link = self._link, None
        if link is None:
            return
        self._settling.cancel()
        if self._connected:
            self._announce_down("closed by this program")
        for waiting in self._unconfirmed.values():
            if not waiting.done.done():
                gone = NotConnected(f"the connection to {self._broker} was closed by this program")
                waiting.done.set_exception(gone)
        await link.stop()
        self._unusable = link.unusable
        self._counters.dropped_outgoing += sum(outbox.abandon() for outbox in self._outboxes)

    def send(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        self._hand_over(topic, payload, qos=qos, retain=retain)

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, timeout: float = 10.0
    ) -> None:
        check_message(topic, payload, qos, self.limits.max_payload_bytes)
        try:
            async with asyncio.timeout(timeout):
                await self._room(qos, len(payload))
                if qos == 0:
                    self._hand_over(topic, payload, qos=qos, retain=retain)
                else:
                    await self._confirm(topic, payload, retain=retain)
        except TimeoutError:
            raise PublishTimeout(
                f"{self._broker} did not confirm a message on {topic} within {timeout:g} s",
                hint="the message may still arrive; check the broker's load and its access rules",
            ) from None

    async def subscribe(
        self, topic_filter: str, handler: Handler, *, qos: int = 0, timeout: float = 10.0
    ) -> MQTTSubscription:
        check_qos(qos)
        link = self._live_link()
        entry = self.table.add(topic_filter, qos, handler)
        try:
            await self._reply(link.subscribe([(topic_filter, qos)]), f"filter {topic_filter}", timeout)
        except BaseException:
            self.table.remove(entry)
            raise
        return MQTTSubscription(self, entry)

    async def unsubscribe(self, entry: Entry[Handler]) -> None:
        """End a subscription; see :meth:`MQTTSubscription.aclose`."""
        if not self.table.remove(entry):
            return
        if self._link is not None and self._connected:
            packet_id = self._link.unsubscribe(entry.topic_filter)
            try:
                await self._reply(packet_id, f"end of filter {entry.topic_filter}", UNSUBSCRIBE_TIMEOUT_S)
            except NotConnected:
                return  # the session is clean: the broker forgot the filter with the connection

    # --- sending ----------------------------------------------------------------------------------

    def _live_link(self) -> PahoLink:
        if self._link is None or not self._connected:
            raise NotConnected(
                f"there is no connection to {self._broker}",
                hint="wait for on_connection, or check the broker",
            )
        return self._link

    def _hand_over(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        """Give a message to the link; returns its packet id."""
        check_message(topic, payload, qos, self.limits.max_payload_bytes)
        link = self._live_link()
        outbox = self._outboxes[qos]
        if not outbox.has_room(len(payload)):
            self._counters.refused += 1
            raise TransportError(
                f"the outgoing queue to {self._broker} is full ({len(outbox)} messages wait)",
                hint="send more slowly, or await publish()",
            )
        info = link.publish(topic, payload, qos, retain=retain)
        if info is None:
            raise NotConnected(f"the connection to {self._broker} takes no message now")
        if qos == 0 and info.mid in self._unconfirmed:
            # Packet ids count messages of both QoS and wrap at 65 535. paho reports the writing of this one
            # under the id that a QoS 1 message still waits on: its sender has to see both reports.
            self._unconfirmed[info.mid].events += 1
        outbox.add(info, len(payload))
        self._counters.sent += 1
        self._counters.sent_bytes += len(payload)
        return info.mid

    async def _room(self, qos: int, size_bytes: int) -> None:
        outbox = self._outboxes[qos]
        self._live_link()
        while not outbox.has_room(size_bytes):
            await asyncio.get_running_loop().run_in_executor(None, _wait, outbox.oldest)
            self._live_link()

    async def _confirm(self, topic: str, payload: bytes, *, retain: bool) -> None:
        link = self._live_link()
        link.report_confirmations(on=True)
        packet_id = 0  # never an id on the wire (§2.3.1)
        try:
            packet_id = self._hand_over(topic, payload, qos=1, retain=retain)
            waiting = _Unconfirmed(asyncio.get_running_loop().create_future())
            self._unconfirmed[packet_id] = waiting
            await waiting.done
        finally:
            self._unconfirmed.pop(packet_id, None)
            if not self._unconfirmed:
                link.report_confirmations(on=False)

    async def _reply(self, packet_id: int | None, what: str, timeout_s: float) -> None:
        """Wait for the broker's answer to a SUBSCRIBE or UNSUBSCRIBE."""
        if packet_id is None:
            raise NotConnected(f"the connection to {self._broker} was just lost")
        reply = self._replies[packet_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await reply
        except TimeoutError:
            raise TransportError(
                f"{self._broker} did not confirm the {what} within {timeout_s:g} s"
            ) from None
        finally:
            del self._replies[packet_id]

    # --- what the link tells ----------------------------------------------------------------------

    def opened(self) -> None:
        """Give the broker its time to accept this client and its filters."""
        self._settling.cancel()
        loop = asyncio.get_running_loop()
        self._settling = loop.call_later(self._connect_timeout_s, self._unsettled)

    def _unsettled(self) -> None:
        if self._link is not None and not self._connected:
            self._link.give_up()

    def accepted(self) -> None:
        """Subscribe again to everything; the connection is announced when the broker confirmed that."""
        if self._link is None:
            return
        filters = [(entry.topic_filter, entry.qos) for entry in self.table]
        self._resubscribing = set()
        for start in range(0, len(filters), FILTERS_PER_PACKET):
            packet_id = self._link.subscribe(filters[start : start + FILTERS_PER_PACKET])
            if packet_id is None:
                return  # lost again; the next connection starts over
            self._resubscribing.add(packet_id)
        if not filters:
            self._announce_up()

    def replied(self, packet_id: int, refusals: Sequence[str]) -> None:
        """Wake who waits for this answer, or count it towards the re-subscription."""
        why = f"{self._broker} refuses a filter: {', '.join(refusals)}"
        error = BrokerRefused(why, hint="the broker's access rules must allow it") if refusals else None
        reply = self._replies.get(packet_id)
        if packet_id in self._resubscribing:
            self._resubscribing.discard(packet_id)
            if error is not None:  # a node of a cluster that is not whole, or a right that was taken away
                self._report(error)
                if self._link is not None:
                    self._link.give_up()
            elif not self._resubscribing:
                self._announce_up()
        elif reply is not None and not reply.done():
            if error is not None:
                reply.set_exception(error)
            else:
                reply.set_result(None)

    def lost(self, reason: str, broker: BrokerAddress, error: BaseException | None, failures: int) -> None:
        """Tell who waits for the connection, or who believed in it."""
        if self._link is None:
            return
        if self._first is not None and not self._first.done():
            if failures + 1 >= len(self._brokers):
                self._first.set_exception(refusal(broker, reason, error))
        elif self._connected:
            self._announce_down(reason)

    def ready(self) -> None:
        """Handle what arrived; at most one batch of messages at a time."""
        link = self._link
        if link is None:
            return
        link.rearm()
        while link.confirmed:
            waiting = self._unconfirmed.get(link.confirmed.popleft())
            if waiting is not None:
                waiting.events -= 1
                if waiting.events == 0 and not waiting.done.done():
                    waiting.done.set_result(None)
        batch = self.inbox.take(BATCH_MESSAGES)
        for arrival in batch:
            self._deliver(arrival.message)
            link.acknowledge(arrival)
        link.acknowledge_bytes()
        if len(batch) == BATCH_MESSAGES:
            asyncio.get_running_loop().call_soon(self.ready)

    def _announce_up(self) -> None:
        if self._connected or self._link is None:
            return
        self._connected = True
        self._settling.cancel()
        self._link.settled()
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        else:
            self._counters.reconnects += 1
        self._announce(f"connected to {self._broker}")

    def _announce_down(self, reason: str) -> None:
        self._connected = False
        self._resubscribing = set()
        if self._link is not None:  # on aclose() what waits is still written
            self._counters.dropped_outgoing += self._outboxes[0].abandon()
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(NotConnected(f"the connection to {self._broker} was lost: {reason}"))
        self._announce(reason)


def _wait(ticket: Ticket) -> None:
    """Block until a message is settled, lost, or the turn is over."""
    try:
        ticket.wait_for_publish(ROOM_TURN_S)
    except RuntimeError:
        return  # lost with its connection; the caller looks at the connection next
