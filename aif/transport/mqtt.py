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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aif.errors import LocalProtocolError, NotConnected, PublishTimeout, TransportError
from aif.transport.address import BrokerAddress
from aif.transport.base import Statistics, check_message
from aif.transport.broker_client import BrokerClient
from aif.transport.outbox import Outbox, Ticket
from aif.transport.tls import refusal

if TYPE_CHECKING:
    from aif.transport.paho_link import PahoLink

BATCH_MESSAGES = 256
"""Messages handled before other work of the event loop gets its turn."""

ROOM_TURN_S = 0.5
"""How long one look at a full outgoing queue may block a worker thread."""


@dataclass(slots=True)
class _Unconfirmed:
    """A QoS 1 message whose sender waits. ``events`` counts completions of its packet id to wait for."""

    done: asyncio.Future[None]
    events: int = 1


class MQTTTransport(BrokerClient["PahoLink"]):
    """One client of one broker."""

    def _prepare(self) -> None:
        self._settling: asyncio.TimerHandle
        self._unconfirmed: dict[int, _Unconfirmed] = {}  # by packet id of PUBLISH
        self._outboxes = tuple(
            Outbox(max_messages=self.limits.outgoing_messages, max_bytes=self.limits.outgoing_bytes)
            for _ in (0, 1)
        )
        self._unusable = 0

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

    # --- sending ----------------------------------------------------------------------------------

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

    # --- asking the broker ------------------------------------------------------------------------

    def _ask(self, filters: Sequence[tuple[str, int]]) -> int | None:
        return None if self._link is None else self._link.subscribe(filters)

    def _ask_no_more(self, topic_filter: str) -> int | None:
        return None if self._link is None else self._link.unsubscribe(topic_filter)

    def _give_up(self, reason: str) -> None:  # noqa: ARG002 - paho says why a connection ended
        if self._link is not None:
            self._link.give_up()

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
        if self._link is not None and self._restore_filters():
            self._announce_up()

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
        self._settling.cancel()
        self._link.settled()
        super()._announce_up()

    def _announce_down(self, reason: str) -> None:
        self._connected = False
        self._resubscribing = set()
        if self._link is not None:  # on aclose() what waits is still written
            self._counters.dropped_outgoing += self._outboxes[0].abandon()
        self._fail_replies(NotConnected(f"the connection to {self._broker} was lost: {reason}"))
        self._announce(reason)


def _wait(ticket: Ticket) -> None:
    """Block until a message is settled, lost, or the turn is over."""
    try:
        ticket.wait_for_publish(ROOM_TURN_S)
    except RuntimeError:
        return  # lost with its connection; the caller looks at the connection next
