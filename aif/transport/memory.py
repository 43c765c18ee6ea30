"""A broker and its clients in one process: the same contract without sockets, threads or chance.

Decides who gets a message as an MQTT 3.1.1 broker would, and what goes wrong on the way (``.faults``).
Does not know what topics or payloads mean.

Invariants: everything happens on the event loop through ``call_soon`` and ``call_later``, so with a virtual
clock a run is repeatable step by step; messages of one sender reach one receiver in order unless a fault
says otherwise; a stopped broker forgets its retained messages, as one without persistence does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from aif.errors import BrokerRefused, LocalProtocolError, NotConnected, PublishTimeout, TransportError
from aif.transport.base import (
    Handler,
    LastWill,
    Limits,
    Received,
    check_message,
    check_qos,
)
from aif.transport.endpoint import Endpoint
from aif.transport.faults import Delivery, Fault
from aif.transport.filters import Entry, matches
from aif.transport.inbox import Arrival

BATCH_MESSAGES = 256
"""Messages handled before other work of the event loop gets its turn."""

MAX_RETAINED = 10_000
"""Retained messages a broker keeps."""

MAX_HELD = 10_000
"""QoS 1 messages that wait for the end of one client's partition."""


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A published message; ``confirmed`` is what its sender waits for at QoS 1."""

    sender: str
    message: Received
    retain: bool
    confirmed: asyncio.Future[None] | None


class MemoryBroker:
    """Routes messages between the transports attached to it."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        """Applied in order to every delivery."""
        self.dropped = 0
        """Deliveries lost to a fault, to a partition or to a full table of retained messages."""
        self._running = True
        self._clients: dict[str, MemoryTransport] = {}
        self._retained: dict[str, tuple[str, Received]] = {}
        self._partitioned: set[str] = set()
        self._severed: set[str] = set()
        self._held: dict[str, deque[_Outgoing | Delivery]] = {}
        self._names = 0

    # --- faults on whole clients ------------------------------------------------------------------

    def stop(self) -> None:
        """Vanish as a killed process does: every client loses its connection, no last will is sent."""
        self._running = False
        self._retained.clear()
        self._held.clear()
        for client in tuple(self._clients.values()):
            client.lose("the broker stopped")

    def start(self) -> None:
        """Come back; clients reconnect and subscribe again, in the order they first connected."""
        self._running = True
        for client in tuple(self._clients.values()):
            self._readmit(client)

    def partition(self, client_id: str) -> None:
        """Let nothing pass to or from a client, unnoticed by both: QoS 0 is lost, QoS 1 waits."""
        self._partitioned.add(client_id)

    def sever(self, client_id: str) -> None:
        """Break a client's connection; its last will is published. It stays away until :meth:`heal`."""
        self._severed.add(client_id)
        client = self._clients.get(client_id)
        if client is not None:
            client.lose("the connection broke")
            self._publish_will(client)

    def heal(self, client_id: str) -> None:
        """End a partition or a severed connection; what waited passes, in order."""
        self._partitioned.discard(client_id)
        self._severed.discard(client_id)
        for item in self._held.pop(client_id, ()):
            if isinstance(item, Delivery):
                self._hand_over(item)
            else:
                self._route(item)
        if (client := self._clients.get(client_id)) is not None:
            client.reachable()
            self._readmit(client)

    # --- what transports call ---------------------------------------------------------------------

    def admit(self, client: MemoryTransport, client_id: str) -> str:
        if not self._running or client_id in self._severed:
            raise BrokerRefused("the memory broker is not reachable", hint="start() it, or heal() the client")
        if not client_id:
            self._names += 1
            client_id = f"memory-{self._names}"
        if (previous := self._clients.pop(client_id, None)) is not None:  # [MQTT-3.1.4-2]
            previous.lose("another client took the id over")
            self._publish_will(previous)
        self._clients[client_id] = client
        return client_id

    def _readmit(self, client: MemoryTransport) -> None:
        if self._running and client.client_id not in self._severed:
            client.restore()

    def dismiss(self, client: MemoryTransport, *, will: bool) -> None:
        if self._clients.get(client.client_id) is client:
            del self._clients[client.client_id]
            self._held.pop(client.client_id, None)
            if will:
                self._publish_will(client)

    def _publish_will(self, client: MemoryTransport) -> None:
        if (will := client.will) is not None:
            message = Received(will.topic, will.payload, will.qos)
            self._route(_Outgoing(client.client_id, message, will.retain, None))

    def cut_off(self, client_id: str) -> bool:
        return client_id in self._partitioned

    def _hold(self, client_id: str, item: _Outgoing | Delivery) -> None:
        waiting = self._held.setdefault(client_id, deque())
        if len(waiting) < MAX_HELD:
            waiting.append(item)
        else:
            self.dropped += 1

    def accept(self, outgoing: _Outgoing) -> None:
        if self.cut_off(outgoing.sender):
            if outgoing.message.qos > 0:
                self._hold(outgoing.sender, outgoing)
            else:
                self.dropped += 1
        else:
            self._route(outgoing)

    def _route(self, outgoing: _Outgoing) -> None:
        message = outgoing.message
        if outgoing.retain:
            self._retain(outgoing.sender, message)
        for client in tuple(self._clients.values()):
            entry = client.table.match(message.topic)
            if entry is not None and client.connected:
                copy = message._replace(qos=min(message.qos, entry.qos))
                self._dispatch(Delivery(outgoing.sender, client.client_id, copy))
        if (confirmed := outgoing.confirmed) is not None:
            asyncio.get_running_loop().call_soon(_resolve, confirmed)

    def _retain(self, sender: str, message: Received) -> None:
        if not message.payload:
            self._retained.pop(message.topic, None)  # [MQTT-3.3.1-10]
        elif message.topic in self._retained or len(self._retained) < MAX_RETAINED:
            self._retained[message.topic] = (sender, message)
        else:
            self.dropped += 1

    def replay_retained(self, client: MemoryTransport, entry: Entry[Handler]) -> None:
        for sender, message in tuple(self._retained.values()):
            if matches(entry.topic_filter, message.topic):
                copy = message._replace(qos=min(message.qos, entry.qos), retained=True)
                self._dispatch(Delivery(sender, client.client_id, copy))

    def _dispatch(self, delivery: Delivery) -> None:
        deliveries = [delivery]
        for fault in self.faults:
            deliveries = [after for before in deliveries for after in fault(before)]
        self.dropped += not deliveries
        for each in deliveries:
            if each.delay_s > 0:
                asyncio.get_running_loop().call_later(each.delay_s, self._hand_over, each)
            else:
                self._hand_over(each)

    def _hand_over(self, delivery: Delivery) -> None:
        client = self._clients.get(delivery.receiver)
        if client is None or not client.connected:
            self.dropped += 1
        elif not self.cut_off(delivery.receiver):
            client.arrive(delivery.message)
        elif delivery.message.qos > 0:
            self._hold(delivery.receiver, delivery)
        else:
            self.dropped += 1


class MemorySubscription:
    """A filter in force on a memory broker."""

    def __init__(self, transport: MemoryTransport, entry: Entry[Handler]) -> None:
        self._transport, self._entry = transport, entry

    @property
    def topic_filter(self) -> str:
        return self._entry.topic_filter

    async def aclose(self) -> None:
        self._transport.table.remove(self._entry)


class MemoryTransport(Endpoint):
    """One client of a :class:`MemoryBroker`."""

    def __init__(
        self,
        broker: MemoryBroker,
        *,
        client_id: str = "",
        will: LastWill | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(client_id, will, limits)
        self._broker = broker
        self._waiters: set[asyncio.Future[None]] = set()
        self._drain_planned = False

    async def connect(self) -> None:
        if self._used:
            raise LocalProtocolError("a transport connects once", hint="make a new one")
        self._used = True
        self._client_id = self._broker.admit(self, self._client_id)
        self._connected = True
        self._announce("connected to the memory broker")

    async def aclose(self) -> None:
        self._leave("closed by this program", will=False)

    def crash(self) -> None:
        """End without a goodbye, as a process that died: the broker publishes the last will."""
        self._leave("crashed", will=True)

    def send(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        self._hand_over(topic, payload, qos=qos, retain=retain, confirmed=None)

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, timeout: float = 10.0
    ) -> None:
        check_message(topic, payload, qos, self.limits.max_payload_bytes)
        confirmed = asyncio.get_running_loop().create_future() if qos else None
        self._hand_over(topic, payload, qos=qos, retain=retain, confirmed=confirmed)
        if confirmed is not None:
            try:
                await self._wait(confirmed, timeout)
            except TimeoutError:
                raise PublishTimeout(
                    f"the memory broker did not confirm a message on {topic} within {timeout:g} s"
                ) from None

    async def subscribe(
        self, topic_filter: str, handler: Handler, *, qos: int = 0, timeout: float = 10.0
    ) -> MemorySubscription:
        check_qos(qos)
        self._check_connected()
        entry = self.table.add(topic_filter, qos, handler)
        try:
            await self._passable(timeout)
            self._check_connected()
        except BaseException as error:
            self.table.remove(entry)
            if isinstance(error, TimeoutError):
                raise TransportError(f"no answer to the subscription to {topic_filter}") from None
            raise
        self._broker.replay_retained(self, entry)
        return MemorySubscription(self, entry)

    # --- sending ----------------------------------------------------------------------------------

    def _check_connected(self) -> None:
        if not self._connected:
            raise NotConnected("there is no connection to the memory broker", hint="wait for on_connection")

    def _hand_over(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, confirmed: asyncio.Future[None] | None
    ) -> None:
        check_message(topic, payload, qos, self.limits.max_payload_bytes)
        self._check_connected()
        self._counters.sent += 1
        self._counters.sent_bytes += len(payload)
        message = Received(topic, bytes(payload), qos)
        self._broker.accept(_Outgoing(self._client_id, message, retain, confirmed))

    async def _passable(self, timeout_s: float) -> None:
        """Wait for the end of a partition; takes one turn of the loop at least, as a network would."""
        if self._broker.cut_off(self._client_id):
            await self._wait(asyncio.get_running_loop().create_future(), timeout_s)
        else:
            await asyncio.sleep(0)

    async def _wait(self, future: asyncio.Future[None], timeout_s: float) -> None:
        self._waiters.add(future)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        finally:
            self._waiters.discard(future)

    # --- what the broker calls --------------------------------------------------------------------

    def arrive(self, message: Received) -> None:
        self.inbox.offer(Arrival(message))
        self._plan_drain()

    def reachable(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def lose(self, reason: str) -> None:
        if self._connected:
            self._connected = False
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_exception(
                        NotConnected(f"the connection to the memory broker was lost: {reason}")
                    )
            self._announce(reason)

    def restore(self) -> None:
        if not self._connected:
            self._connected = True
            self._counters.reconnects += 1
            for entry in self.table:
                self._broker.replay_retained(self, entry)
            self._announce("connected to the memory broker")

    def _leave(self, reason: str, *, will: bool) -> None:
        self._used = True
        self.lose(reason)
        self._broker.dismiss(self, will=will)

    def _plan_drain(self) -> None:
        if not self._drain_planned:
            self._drain_planned = True
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        self._drain_planned = False
        for arrival in self.inbox.take(BATCH_MESSAGES):
            if self._connected:
                self._deliver(arrival.message)
        if len(self.inbox):
            self._plan_drain()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
