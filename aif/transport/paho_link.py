"""paho-mqtt's half of the MQTT transport: the library's client and its network thread.

Decides how the socket is set up, how long to wait between attempts to reconnect and what crosses over to the
event loop. Does not decide what a connection is good for; :class:`LinkEvents` is told and does.

How it works: the thread that paho runs reads and writes the socket and also waits between two attempts, so
:meth:`PahoLink.stop` can end that wait at once. Arrivals and confirmations are left in two queues with one
wake-up per batch; rarer events cross one by one, in order.

Invariants:

* TCP_NODELAY is set on every socket. Without it a QoS 1 exchange waits for delayed acknowledgements, tens
  of milliseconds each (RFC 896, RFC 1122 §4.2.3.2).
* No callback raises: an exception would end paho's thread unseen.
* A message is acknowledged only on the connection it came on; the ids start anew on the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from aif.transport.address import BrokerAddress, Rotation
from aif.transport.backoff import Backoff
from aif.transport.base import LastWill, Limits, Received
from aif.transport.inbox import Arrival, Inbox

MAX_IN_FLIGHT = 100
"""Unconfirmed QoS 1 messages on the wire; the embedded broker's own bound for the other direction."""

CLOSE_GRACE_S = 2.0
"""How long :meth:`PahoLink.stop` lets the last messages be written before it cuts the connection."""

_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux only."""


class LinkEvents(Protocol):
    """What a link tells its owner, on the event loop thread."""

    def opened(self) -> None:
        """A socket was connected; the broker has not answered yet."""

    def accepted(self) -> None:
        """The broker accepted a new connection; no filter is in force on it."""

    def lost(self, reason: str, broker: BrokerAddress, error: BaseException | None, failures: int) -> None:
        """There is no connection, or an attempt to get one failed; the next attempt follows.

        ``error`` is what the socket raised, ``failures`` counts attempts that failed before this one.
        """

    def replied(self, packet_id: int, refusals: Sequence[str]) -> None:
        """The broker answered a SUBSCRIBE or UNSUBSCRIBE."""

    def ready(self) -> None:
        """Arrivals wait in the inbox or confirmations in ``confirmed``; told once until ``rearm``."""


class PahoLink:
    """One paho client with its thread, from :meth:`start` to :meth:`stop`."""

    def __init__(
        self,
        brokers: Rotation,
        inbox: Inbox,
        events: LinkEvents,
        *,
        client_id: str,
        will: LastWill | None,
        tls: ssl.SSLContext | None,
        connect_timeout_s: float,
        limits: Limits,
        backoff: Backoff,
        rng: random.Random,
    ) -> None:
        self.confirmed: deque[int] = deque()
        """Packet ids of messages that were settled while :meth:`report_confirmations` was on."""
        self.unusable = 0
        """Messages that arrived malformed, at QoS 2 or too large."""
        self._loop = asyncio.get_running_loop()
        self._brokers, self._inbox, self._events = brokers, inbox, events
        self._limits, self._backoff, self._rng = limits, backoff, rng
        self._closing = threading.Event()
        self._told = False
        self._connection = 0
        self._failures = 0
        self._keep_alive_s = 0
        self._socket_error: OSError | None = None
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=True, manual_ack=True
        )
        client.connect_timeout = connect_timeout_s
        client.max_queued_messages = limits.outgoing_messages
        client.max_inflight_messages = MAX_IN_FLIGHT
        client.reconnect_delay_set(0, 0)  # _wait_to_retry waits instead, and can be interrupted
        if brokers.current.tls:
            context = tls or ssl.create_default_context()
            context.sslsocket_class = _TellingSocket
            client.tls_set_context(context)
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.on_socket_open = self._paho_socket_open
        client.on_connect = self._paho_connect
        client.on_connect_fail = self._paho_connect_fail
        client.on_disconnect = self._paho_disconnect
        client.on_message = self._paho_message
        client.on_subscribe = self._paho_subscribed
        client.on_unsubscribe = self._paho_unsubscribed

    # --- event loop thread ------------------------------------------------------------------------

    @property
    def socket(self) -> socket.socket | None:
        """The live socket, if there is one."""
        connection = self._client.socket()
        return connection if isinstance(connection, socket.socket) else None

    def start(self, keep_alive_s: int) -> None:
        """Begin to connect, and to reconnect whenever the connection ends."""
        self._keep_alive_s = keep_alive_s
        self._aim()
        self._client.loop_start()

    async def stop(self) -> None:
        """Say goodbye to the broker, end the thread and free the sockets."""
        client = self._client
        self._closing.set()
        client.disconnect()
        stopped = self._loop.run_in_executor(None, _stop, client)
        done, _ = await asyncio.wait({stopped}, timeout=CLOSE_GRACE_S)
        if not done and (connection := self.socket) is not None:
            with contextlib.suppress(OSError):  # it ended by itself in this very moment
                connection.shutdown(socket.SHUT_RDWR)
        await stopped
        # paho closes its wake-up sockets in its finaliser; without these references that runs at once
        client.on_connect = client.on_disconnect = client.on_connect_fail = None
        client.on_message = client.on_subscribe = client.on_unsubscribe = None
        client.on_publish = client.on_socket_open = None

    def publish(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> paho.MQTTMessageInfo | None:
        """Give a message to paho; None when its queue is full or, at QoS 0, the connection is gone."""
        info = self._client.publish(topic, payload, qos, retain)
        if info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN and qos > 0:
            info.rc = MQTTErrorCode.MQTT_ERR_SUCCESS  # paho keeps it and sends it on the next connection
        return info if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> int | None:
        """Send one SUBSCRIBE; its packet id, or None when the connection is gone."""
        code, packet_id = self._client.subscribe(list(filters))
        return packet_id if code == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def unsubscribe(self, topic_filter: str) -> int | None:
        """Send one UNSUBSCRIBE; its packet id, or None when the connection is gone."""
        code, packet_id = self._client.unsubscribe(topic_filter)
        return packet_id if code == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def acknowledge(self, arrival: Arrival) -> None:
        """Confirm a handled QoS 1 message to the broker, unless its connection is gone."""
        if arrival.message.qos > 0 and arrival.connection == self._connection:
            self._client.ack(arrival.packet_id, arrival.message.qos)

    def report_confirmations(self, *, on: bool) -> None:
        """Fill ``confirmed`` or not. It costs paho more than the message itself, at QoS 0 too."""
        self._client.on_publish = self._paho_published if on else None

    def settled(self) -> None:
        """The connection serves: the next failure is a first one."""
        self._failures = 0

    def give_up(self) -> None:
        """End this connection; the next attempt follows after a growing delay."""
        if (opened := self.socket) is not None:
            with contextlib.suppress(OSError):  # it ended by itself in this very moment
                opened.shutdown(socket.SHUT_RDWR)

    def rearm(self) -> None:
        """Ask for the next ``ready``; call it before looking into the queues."""
        self._told = False

    def acknowledge_bytes(self) -> None:
        """Send the TCP acknowledgement of what was read without the usual delay of up to 40 ms.

        A broker that does not set TCP_NODELAY holds its next small packet back until this acknowledgement
        comes (Nagle's algorithm, RFC 896). The option does not last (tcp(7)). It costs a system call and a
        packet, so it is set once per batch, behind the answers that carry the acknowledgement along.
        """
        if _QUICK_ACK is not None and (opened := self.socket) is not None:
            with contextlib.suppress(OSError):
                opened.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    # --- paho's network thread --------------------------------------------------------------------

    def _post(self, callback: Callable[..., None], *arguments: Any) -> None:
        if not self._closing.is_set():
            try:
                self._loop.call_soon_threadsafe(callback, *arguments)
            except RuntimeError:  # the loop was closed under us: nobody is left to be told
                self._closing.set()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._post(self._events.ready)

    def _lost(self, reason: str, error: BaseException | None) -> None:
        self._post(self._events.lost, reason, self._brokers.current, error, self._failures)

    def _aim(self) -> None:
        """The next connection goes to the current broker."""
        broker = self._brokers.current
        self._client.username_pw_set(broker.username, broker.password)
        self._client.connect_async(broker.host, broker.port, self._keep_alive_s)

    def _wait_to_retry(self) -> None:
        self._connection += 1
        self._brokers.advance()
        if not self._closing.is_set():
            self._aim()
        self._closing.wait(self._backoff.delay_s(self._failures, self._rng))
        self._failures += 1

    def _paho_socket_open(self, client: paho.Client, _userdata: object, opened: object) -> None:
        if isinstance(opened, socket.socket):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(opened, _TellingSocket):
            opened.tell = self._socket_failed
        self._post(self._events.opened)
        if self._closing.is_set():  # stop() came while the connection was being made
            client.disconnect()

    def _socket_failed(self, error: OSError) -> None:
        self._socket_error = error

    def _paho_connect(
        self, client: paho.Client, _userdata: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if self._closing.is_set():
            client.disconnect()
        elif reason.is_failure:
            self._lost(f"the broker says: {reason}", None)
        else:
            self._post(self._events.accepted)

    def _paho_connect_fail(self, _client: paho.Client, _userdata: object) -> None:
        error = sys.exception()  # paho calls back from inside its except clause and passes nothing
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        self._lost(reason, error)
        self._wait_to_retry()

    def _paho_disconnect(
        self, _client: paho.Client, _userdata: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        error, self._socket_error = self._socket_error, None
        self._lost(f"the connection ended ({reason})", error)
        self._wait_to_retry()

    def _paho_message(self, client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        kept = False
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self.unusable += 1
        else:
            if message.qos > 1 or len(message.payload) > self._limits.max_payload_bytes:
                self.unusable += 1
            else:
                payload = bytes(message.payload)
                received = Received(topic, payload, message.qos, bool(message.retain), bool(message.dup))
                kept = self._inbox.offer(Arrival(received, message.mid, self._connection))
                self._tell()
        if message.qos > 0 and not kept:
            # A message that is never acknowledged would hold a place in the broker's window for ever.
            client.ack(message.mid, message.qos)

    def _paho_published(
        self, _client: paho.Client, _userdata: object, packet_id: int, _reason: object, _properties: object
    ) -> None:
        self.confirmed.append(packet_id)
        self._tell()

    def _paho_subscribed(
        self,
        _client: paho.Client,
        _userdata: object,
        packet_id: int,
        reasons: list[ReasonCode],
        _properties: object,
    ) -> None:
        refusals = [str(reason) for reason in reasons if reason.is_failure]
        self._post(self._events.replied, packet_id, refusals)

    def _paho_unsubscribed(
        self, _client: paho.Client, _userdata: object, packet_id: int, _reasons: object, _properties: object
    ) -> None:
        self._post(self._events.replied, packet_id, ())


class _TellingSocket(ssl.SSLSocket):
    """Tells why it failed: paho writes that to its log and reports an unspecified error."""

    tell: Callable[[OSError], None] | None = None

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  # the signature is ssl's
        try:
            super().do_handshake(block)
        except OSError:
            self.close()  # paho forgets it
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            if self.tell is not None:
                self.tell(error)
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            if self.tell is not None:
                self.tell(error)
                with contextlib.suppress(OSError):  # the alert that the peer sent before it closed
                    self.recv(1)
            raise


def _stop(client: paho.Client) -> None:
    """Block until paho's network thread has ended."""
    try:
        client.loop_stop()
    except AttributeError:
        return  # the thread ended between paho's look at it and its join: there is nothing to wait for
