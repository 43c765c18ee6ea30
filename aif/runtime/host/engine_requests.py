"""What the Controller asks of a device's Security Engine: Evidence, and the opening of grants.

Decides in which order and how much may wait; nothing of it is believed here, the engine checks every grant.
A grant that was opened goes to its channel. When a session is trusted is decided by ``session``.

Invariants: one request at a time, asked in a thread, in order of arrival: the engine may be busy with a
model. What waits is bounded; what is dropped is asked for again. A repeated grant never resets a counter.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace

from aif.errors import (
    AIFError,
    LocalProtocolError,
    ProtocolError,
    PSAError,
    ReplayDetected,
    TransportError,
    TrustError,
)
from aif.protocol.evidence import Component
from aif.protocol.grant import Grant, grant_cause
from aif.runtime.clock import Clock
from aif.runtime.logbook import LogBook
from aif.trusted.bound_notes import BoundNotes
from aif.trusted.communication import CommunicationService
from aif.trusted.security_engine import SecurityEngine
from aif.trusted.state import DeviceState, StateFile

EPOCHS_KEPT = 4_096
"""Channels whose last epoch is remembered, also after they were closed; four times what a host may have."""

MAX_ENGINE_REQUESTS = 256
"""Challenges and grants that may wait for the Security Engine; more are dropped, and asked for again."""


class EngineRequests:
    """Requests of one device to its Security Engine.

    Args:
        state: the device's notes.
        engine: asked for all of it.
        communication: takes the channel keys of grants.
        frame_key: seed of this boot's frame-signing key.
        control_ids: the channels whose grants are not confirmed.
        components: what is measured now, for Evidence.
        send_evidence: takes an answer to the Controller.
        keyed: hears of every grant that was taken, with its channel and epoch.
    """

    def __init__(
        self,
        state: StateFile[DeviceState],
        engine: SecurityEngine,
        communication: CommunicationService,
        *,
        frame_key: bytes,
        control_ids: Collection[bytes],
        components: Callable[[], Iterable[Component]],
        send_evidence: Callable[[bytes], None],
        keyed: Callable[[bytes, int], None],
        clock: Clock,
        log: LogBook,
    ) -> None:
        self._state, self._engine, self._communication = state, engine, communication
        self._frame_key, self._control_ids, self._components = frame_key, control_ids, components
        self._send_evidence, self._keyed = send_evidence, keyed
        self._clock, self._log = clock, log
        self._notes = BoundNotes(state, engine)
        self._requests: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(MAX_ENGINE_REQUESTS)
        self._epochs: dict[bytes, int] = {}
        self._grants_refused: Counter[str] = Counter()

    def enqueue(self, request: Callable[[], Awaitable[None]]) -> None:
        with suppress(asyncio.QueueFull):
            self._requests.put_nowait(request)

    @property
    def waiting(self) -> int:
        return self._requests.qsize()

    async def run(self) -> None:
        """Ask one after another, until cancelled."""
        while True:
            request = await self._requests.get()
            await request()

    async def bind_notes(self) -> None:
        """Notes that are older than the engine's floors are lifted to them."""
        with suppress(PSAError):  # a lost engine is started again, and asked then
            if fallen := await asyncio.to_thread(self._notes.take_up):
                self._log.error(
                    "this device's notes were older than its Security Engine remembers",
                    floors=", ".join(fallen),
                    hint="somebody has put an old device.cbor in place; its models come anew",
                )

    async def attest(self, challenge: bytes) -> None:
        """Answer a challenge with Evidence."""
        try:
            components, mapping_version = list(self._components()), self._state.load().mapping_floor
            evidence = await asyncio.to_thread(self._engine.attest, challenge, components, mapping_version)
            self._send_evidence(evidence)
        except AIFError as error:
            self._log.warning("attestation request not answered", code=error.code, reason=str(error))

    async def open_grant(self, blob: bytes) -> None:
        """Take the keys of a channel, if they are for this boot."""
        now_s = self._clock.time_us() // 1_000_000
        try:
            grant = await asyncio.to_thread(self._engine.open_grant, blob, now_s)
            self._apply(grant)
        except ReplayDetected as error:
            self._count_refusal(error)
            return  # a redelivery, or a recording: either way it changes nothing
        except TransportError:
            self._log.warning("the last words under an old key were not sent: no connection")
        except AIFError as error:
            self._count_refusal(error)
            self._log.warning("grant refused", code=error.code, reason=str(error), hint=error.hint)
            return
        self._keyed(grant.channel_id, grant.epoch)

    def _apply(self, grant: Grant) -> None:
        """Hand a grant to its channel.

        A channel that was closed and opened again since must not start its counters over under the same key.
        """
        channel = grant.channel_id
        if self._epochs.get(channel) != grant.epoch:
            self._communication.apply_grant(grant, self._frame_key)
            self._epochs[channel] = grant.epoch
            if len(self._epochs) > EPOCHS_KEPT:
                del self._epochs[next(iter(self._epochs))]

    def _count_refusal(self, error: AIFError) -> None:
        if isinstance(error, TrustError | ProtocolError):
            with suppress(LocalProtocolError):  # the engine was lost, or no grant was at fault
                self._grants_refused[str(grant_cause(error))] += 1

    def troubles(self) -> Counter[str]:
        """Grants that were refused, by cause."""
        return Counter(self._grants_refused)

    async def raise_time_floor(self, time_s: int) -> None:
        def change(notes: DeviceState) -> DeviceState:
            return replace(notes, time_floor_s=max(notes.time_floor_s, time_s))

        await asyncio.to_thread(self._state.update, change)
