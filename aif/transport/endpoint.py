"""What all transports do alike: counting, telling about the connection, giving a message to its handler.

Decides how foreign code (handlers, callbacks) is called and what happens when it fails. Does not decide when
a connection is up or how bytes travel; the transports built on it do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from aif.transport.base import (
    ConnectionCallback,
    ConnectionChange,
    Handler,
    LastWill,
    Limits,
    Received,
    Statistics,
    check_message,
)
from aif.transport.filters import SubscriptionTable
from aif.transport.inbox import Inbox


class Endpoint:
    """The half of a transport that faces its user. Event loop thread only, except ``inbox.offer``."""

    def __init__(self, client_id: str, will: LastWill | None, limits: Limits | None) -> None:
        self.limits = limits or Limits()
        if will is not None:
            check_message(will.topic, will.payload, will.qos, self.limits.max_payload_bytes)
        self.will = will
        self.table: SubscriptionTable[Handler] = SubscriptionTable()
        self.inbox = Inbox(max_messages=self.limits.incoming_messages, max_bytes=self.limits.incoming_bytes)
        self._client_id = client_id
        self._connected = False
        self._used = False
        self._counters = Statistics()
        self._callbacks: list[ConnectionCallback] = []

    @property
    def client_id(self) -> str:
        return self._client_id

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def max_payload_bytes(self) -> int:
        return self.limits.max_payload_bytes

    @property
    def statistics(self) -> Statistics:
        return replace(self._counters, dropped_incoming=self.inbox.dropped)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def connect(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError

    def on_connection(self, callback: ConnectionCallback) -> Callable[[], None]:
        self._callbacks.append(callback)

        def forget() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return forget

    def _announce(self, reason: str) -> None:
        change = ConnectionChange(connected=self._connected, reason=reason)
        for callback in tuple(self._callbacks):
            try:
                callback(change)
            except Exception as error:  # noqa: BLE001 - foreign code; reported, and the others still hear
                self._report(error)

    def _deliver(self, message: Received) -> None:
        entry = self.table.match(message.topic)
        if entry is None:
            self._counters.unmatched += 1
            return
        self._counters.received += 1
        self._counters.received_bytes += len(message.payload)
        try:
            entry.value(message)
        except Exception as error:  # noqa: BLE001 - foreign code; reported, and the next message comes
            self._counters.handler_errors += 1
            self._report(error)

    def _report(self, error: Exception) -> None:
        context = {"message": f"in a callback of transport {self._client_id!r}", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
