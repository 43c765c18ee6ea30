"""The transport contract: what every way of moving bytes promises to the layers above.

Decides the shape of a received message, the bounds, the counters and the calls. Does not decide what a
topic or a payload means, who may talk to whom (``aif.trusted``) or how bytes travel (``.mqtt``, ``.memory``).

Promises of every implementation:

* All calls and all callbacks happen on the event loop thread; handlers run in arrival order and are plain
  functions. A handler that raises is reported to the loop's exception handler; the next message still comes.
* QoS 0 is at most once, QoS 1 at least once towards the handler: a message is acknowledged to the broker
  after its handler returned. QoS 2 is not offered: the frames above carry counters.
* Everything is bounded; what is dropped or refused is counted in :class:`Statistics`.
* ``connected`` turns true only when all subscriptions are in force again.
* A message that is too large is refused here. Sent on, it would make a broker close the connection, and a
  client at QoS 1 would repeat it for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from aif.errors import LocalProtocolError, MessageTooLarge
from aif.transport.filters import check_topic

MAX_PACKET_BYTES = 1_048_576
"""Largest MQTT packet that the brokers we start or configure accept (1 MiB)."""

MAX_PAYLOAD_BYTES = MAX_PACKET_BYTES - 2_048
"""Largest payload; the rest holds a topic of the longest allowed size and the header."""


class Received(NamedTuple):
    """A message as it arrived. ``duplicate`` is the sender's word (DUP), ``retained`` the broker's.

    A tuple, because one is made per message, and a frozen dataclass takes three times as long.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retained: bool = False
    duplicate: bool = False

    def __repr__(self) -> str:
        size = f"{len(self.payload)} B"
        return f"Received({self.topic!r}, {size}, {self.qos=}, {self.retained=}, {self.duplicate=})"


@dataclass(frozen=True, slots=True)
class LastWill:
    """What the broker publishes for a client that went away without saying so."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 1
    retain: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionChange:
    """The connection came up (subscriptions in force) or went down, and why."""

    connected: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one transport. Outgoing bounds hold per QoS, incoming bounds for all messages together."""

    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    outgoing_messages: int = 10_000
    outgoing_bytes: int = 67_108_864
    incoming_messages: int = 10_000
    incoming_bytes: int = 67_108_864

    def __post_init__(self) -> None:
        if not 1 <= self.max_payload_bytes <= MAX_PAYLOAD_BYTES:
            raise LocalProtocolError(
                f"max_payload_bytes is {self.max_payload_bytes}, allowed are 1 to {MAX_PAYLOAD_BYTES}"
            )
        if min(self.outgoing_bytes, self.incoming_bytes) < self.max_payload_bytes:
            raise LocalProtocolError("a queue must hold at least one message of the largest size")
        if min(self.outgoing_messages, self.incoming_messages) < 1:
            raise LocalProtocolError("a queue must hold at least one message")


@dataclass(slots=True)
class Statistics:
    """Counters since construction. Payload bytes only."""

    sent: int = 0
    """Messages accepted for sending."""
    sent_bytes: int = 0
    received: int = 0
    """Messages given to a handler."""
    received_bytes: int = 0
    refused: int = 0
    """Messages not accepted because the outgoing queue was full."""
    dropped_outgoing: int = 0
    """Messages accepted and then lost with the connection before they were written (QoS 0) or confirmed."""
    dropped_incoming: int = 0
    """Messages that arrived and were dropped: queue full, malformed or too large."""
    unmatched: int = 0
    """Messages that arrived for a filter which is no longer subscribed."""
    handler_errors: int = 0
    reconnects: int = 0


Handler = Callable[[Received], None]
ConnectionCallback = Callable[[ConnectionChange], None]


class Subscription(Protocol):
    """A topic filter in force. After ``aclose`` returned its handler is never called again."""

    @property
    def topic_filter(self) -> str: ...

    async def aclose(self) -> None: ...


class Transport(Protocol):
    """One connection of one client; connects once, reconnects by itself, ends with ``aclose``."""

    @property
    def client_id(self) -> str: ...

    @property
    def connected(self) -> bool: ...

    @property
    def statistics(self) -> Statistics:
        """A copy of the counters."""
        ...

    @property
    def max_payload_bytes(self) -> int: ...

    async def connect(self) -> None:
        """Reach the broker.

        Raises:
            BrokerRefused: nobody listens, the broker says no, or it does not answer in time.
            LocalProtocolError: called twice.
        """
        ...

    async def aclose(self) -> None:
        """Say goodbye (no last will), stop all callbacks and free everything. May be called again."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def send(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """Hand a message over without waiting.

        Raises:
            NotConnected: there is no connection now.
            MessageTooLarge: the payload is larger than ``max_payload_bytes``.
            TransportError: the outgoing queue is full (counted as ``refused``).
            LocalProtocolError: the topic or the QoS is not allowed.
        """
        ...

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, timeout: float = 10.0
    ) -> None:
        """Hand a message over when there is room; at QoS 1 return when the broker confirmed it.

        A message whose confirmation is late may still arrive. ``timeout`` is in seconds.

        Raises:
            PublishTimeout: no room or no confirmation in time.
            NotConnected, MessageTooLarge, LocalProtocolError: as in :meth:`send`.
        """
        ...

    async def subscribe(
        self, topic_filter: str, handler: Handler, *, qos: int = 0, timeout: float = 10.0
    ) -> Subscription:
        """Receive what the filter covers; returns when the broker confirmed (which is no proof of access).

        Raises:
            BrokerRefused: the broker refuses the filter.
            TransportError: no confirmation in time.
            NotConnected: there is no connection now, or it was lost while waiting.
            LocalProtocolError: malformed, or overlaps another filter of this connection.
        """
        ...

    def on_connection(self, callback: ConnectionCallback) -> Callable[[], None]:
        """Call back at every later change of ``connected``; the returned function ends that."""
        ...


def check_message(topic: str, payload: bytes, qos: int, max_payload_bytes: int) -> None:
    """Accept a message for sending.

    Raises:
        MessageTooLarge: payload over ``max_payload_bytes``.
        LocalProtocolError: QoS other than 0 and 1, or a topic that is not allowed.
    """
    check_topic(topic)
    check_qos(qos)
    if len(payload) > max_payload_bytes:
        raise MessageTooLarge(
            f"message on {topic} has {len(payload):,} B, at most {max_payload_bytes:,} B can be carried",
            hint="send it in chunks",
        )


def check_qos(qos: int) -> None:
    """Accept QoS 0 or 1.

    Raises:
        LocalProtocolError: anything else.
    """
    if qos not in {0, 1}:
        raise LocalProtocolError(f"QoS {qos!r} is not offered", hint="use 0 or 1")
