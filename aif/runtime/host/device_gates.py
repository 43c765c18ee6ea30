"""A device's gates: what its Controller says outside their session, and the stamps on its own words.

Decides how much of it goes on to the Security Engine, which takes its time over each. Nothing is believed
here.

Invariants: before the key is known nothing passes; what an earlier Controller said is not new to this boot,
as far as the site's time was written down.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from aif.errors import PSAError, RemoteProtocolError
from aif.protocol.gate import ANY, Gate, StampNumbers
from aif.protocol.stamp import stamp
from aif.runtime.clock import Clock
from aif.runtime.logbook import LogBook
from aif.transport.base import Received
from aif.trusted.security_engine import SecurityEngine
from aif.trusted.state import DeviceState

RETRY_S = 0.1
"""The key is asked for again after this time when the Security Engine was lost."""

TOLD_MS = 10_000.0
"""What was refused is logged at most this often."""


class DeviceGates:
    """Gates of one device, one for each topic.

    Args:
        notes: of the device.
        engine: knows the key.
    """

    def __init__(self, notes: DeviceState, engine: SecurityEngine, *, clock: Clock, log: LogBook) -> None:
        self._engine, self._site_pk, self._clock, self._log = engine, notes.controller_pk, clock, log
        self._key = b""
        self._oldest = notes.time_floor_s * 1_000_000
        self._numbering = StampNumbers()
        self._gates: dict[str, Gate] = {}
        self._told_ms = -TOLD_MS

    async def open(self) -> None:
        """Get the key; waits for a Security Engine that was lost.

        Raises:
            SignatureInvalid: what this device holds as its site's key is none.
        """
        while not self._key:
            with suppress(PSAError):  # it is started again by ``engine_watch``
                self._key = await asyncio.to_thread(self._engine.stamp_key, self._site_pk)
            if not self._key:
                await self._clock.sleep(RETRY_S)

    def stamped(self, topic: str, message: bytes) -> bytes:
        """A message to the Controller, with this device's stamp."""
        return stamp(self._key, topic, message, self._numbering.next(self._clock.time_us()))

    def admit(self, received: Received) -> bytes | None:
        """The message that was received on one of this device's own topics; None when it goes no further."""
        if received.retained or not self._key:
            return None
        gate = self._gates.get(received.topic)
        if gate is None:
            gate = self._gates[received.topic] = Gate(received.topic, fresh=ANY, newest=self._oldest)
        now_ms = self._clock.monotonic_ms()
        try:
            return gate.admit(self._key, received.payload, now_ms)
        except RemoteProtocolError as error:
            if now_ms - self._told_ms >= TOLD_MS:
                self._told_ms = now_ms
                self._log.warning(
                    "messages stopped at the gate", topic=received.topic, cause=error.counter,
                    reason=str(error), so_far=sum(self.refused.values()),
                )  # fmt: skip
            return None

    @property
    def refused(self) -> Counter[str]:
        """What was refused, by cause."""
        return sum((gate.refused for gate in self._gates.values()), Counter())
