"""What both clients of an MQTT broker do alike: their settings, filters in force, and answers they wait for.

Decides which settings are allowed, when the filters of a connection are in force again, and what a refused
filter means. Does not decide how packets travel nor when a connection is made or lost: the clients do, on
paho's thread (``mqtt.py``) or on the event loop alone (``fast.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Sequence
from typing import Generic, TypeVar

from aif.errors import AIFError, BrokerRefused, LocalProtocolError, NotConnected, TransportError
from aif.transport.address import BrokerAddress, Rotation
from aif.transport.backoff import Backoff
from aif.transport.base import Handler, LastWill, Limits, check_qos
from aif.transport.endpoint import Endpoint
from aif.transport.filters import Entry

FILTERS_PER_PACKET = 64
"""Filters in one SUBSCRIBE packet; 64 of the longest filters stay far below the packet bound."""

MAX_CLIENT_ID_BYTES = 256

UNSUBSCRIBE_TIMEOUT_S = 10.0

LinkT = TypeVar("LinkT")


class BrokerSubscription(Generic[LinkT]):
    """A filter in force on a broker connection."""

    def __init__(self, client: BrokerClient[LinkT], entry: Entry[Handler]) -> None:
        self._client, self._entry = client, entry

    @property
    def topic_filter(self) -> str:
        return self._entry.topic_filter

    async def aclose(self) -> None:
        """Stop receiving. Without a connection there is nothing to tell the broker.

        Raises:
            TransportError: the broker did not confirm in time; the handler is silent all the same.
        """
        await self._client.unsubscribe(self._entry)


class BrokerClient(Endpoint, Generic[LinkT]):
    """One client of one broker, without its connection, which is a ``LinkT``."""

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
        self._link: LinkT | None = None
        self._first: asyncio.Future[None] | None = None  # the first connection
        self._resubscribing: set[int] = set()
        self._replies: dict[int, asyncio.Future[None]] = {}  # by packet id of SUBSCRIBE or UNSUBSCRIBE
        self._prepare()

    @property
    def _broker(self) -> BrokerAddress:
        return self._brokers.current

    def _live_link(self) -> LinkT:
        if self._link is None or not self._connected:
            raise NotConnected(
                f"there is no connection to {self._broker}",
                hint="wait for on_connection, or check the broker",
            )
        return self._link

    # --- what a client adds -----------------------------------------------------------------------

    def _prepare(self) -> None:
        """Set up what only this client has; the last step of its making."""
        raise NotImplementedError

    def _ask(self, filters: Sequence[tuple[str, int]]) -> int | None:
        """Send one SUBSCRIBE for filters and their QoS; its packet id, None when the connection is gone."""
        raise NotImplementedError

    def _ask_no_more(self, topic_filter: str) -> int | None:
        """Send one UNSUBSCRIBE; its packet id, None when the connection is gone."""
        raise NotImplementedError

    def _give_up(self, reason: str) -> None:
        """End this connection; the next attempt follows."""
        raise NotImplementedError

    # --- filters ----------------------------------------------------------------------------------

    async def subscribe(
        self, topic_filter: str, handler: Handler, *, qos: int = 0, timeout: float = 10.0
    ) -> BrokerSubscription[LinkT]:
        check_qos(qos)
        self._live_link()
        entry = self.table.add(topic_filter, qos, handler)
        try:
            await self._reply(self._ask([(topic_filter, qos)]), f"filter {topic_filter}", timeout)
        except BaseException:
            self.table.remove(entry)
            raise
        return BrokerSubscription(self, entry)

    async def unsubscribe(self, entry: Entry[Handler]) -> None:
        """End a subscription; see :meth:`BrokerSubscription.aclose`."""
        if not self.table.remove(entry) or self._link is None or not self._connected:
            return
        with contextlib.suppress(NotConnected):  # a clean session: the broker forgets with the connection
            what = f"end of filter {entry.topic_filter}"
            await self._reply(self._ask_no_more(entry.topic_filter), what, UNSUBSCRIBE_TIMEOUT_S)

    def _restore_filters(self) -> bool:
        """Subscribe again to everything on a new connection; whether there is nothing to wait for."""
        filters = [(entry.topic_filter, entry.qos) for entry in self.table]
        self._resubscribing = set()
        for start in range(0, len(filters), FILTERS_PER_PACKET):
            packet_id = self._ask(filters[start : start + FILTERS_PER_PACKET])
            if packet_id is None:
                break  # lost again; the next connection starts over
            self._resubscribing.add(packet_id)
        return not filters

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

    def replied(self, packet_id: int, refusals: Sequence[str]) -> None:
        """Wake who waits for this answer, or count it towards the re-subscription."""
        why = f"{self._broker} refuses a filter: {', '.join(refusals)}"
        error = BrokerRefused(why, hint="the broker's access rules must allow it") if refusals else None
        reply = self._replies.get(packet_id)
        if packet_id in self._resubscribing:
            self._resubscribing.discard(packet_id)
            if error is not None:  # a node of a cluster that is not whole, or a right that was taken away
                self._report(error)
                self._give_up(error.message)
            elif not self._resubscribing:
                self._announce_up()
        elif reply is not None and not reply.done():
            if error is not None:
                reply.set_exception(error)
            else:
                reply.set_result(None)

    def _fail_replies(self, error: AIFError) -> None:
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(error)

    def _announce_up(self) -> None:
        """All filters are in force."""
        self._connected = True
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        else:
            self._counters.reconnects += 1
        self._announce(f"connected to {self._broker}")
