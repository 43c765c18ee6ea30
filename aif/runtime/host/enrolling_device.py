"""A device's side of its enrolment: it asks until the site answers, once in its life or after a reset.

Decides when to ask again and which answer counts. The site's side is ``enrolling``.

Invariants: the pairing secret is used up by the answer that was accepted, and by no other; the anchors of the
site are written down before the Security Engine is told of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from aif.errors import AIFError, EnrolmentRefused, TransportError
from aif.protocol.enrolment import EnrolmentRequest, build_request, open_response
from aif.protocol.identifiers import id16
from aif.protocol.topics import Enrolment, EnrolmentTopic
from aif.runtime.clock import Clock
from aif.runtime.host.device_gates import DeviceGates
from aif.runtime.host.unanswered import Unanswered
from aif.runtime.logbook import LogBook
from aif.transport.base import Received, Transport
from aif.trusted.client_folder import ClientFolder
from aif.trusted.security_engine import SecurityEngine
from aif.trusted.state import DeviceState, StateFile

REQUEST_INTERVAL_S = 1.0


class DeviceEnrolment:
    """One enrolment of one device."""

    def __init__(
        self,
        state: StateFile[DeviceState],
        transport: Transport,
        engine: SecurityEngine,
        *,
        clock: Clock,
        random: Callable[[int], bytes],
        log: LogBook,
        tls: ClientFolder | None = None,
    ) -> None:
        self._state, self._transport, self._engine = state, transport, engine
        self._gates = DeviceGates(state.load(), engine, clock=clock, log=log)
        self._clock, self._random, self._log, self._tls = clock, random, log, tls
        self._unanswered = Unanswered(clock, log)
        self._answers: asyncio.Queue[bytes] = asyncio.Queue(8)

    async def run(self) -> None:
        """Ask until the site answers. With TLS that is done on a connection of its own.

        Raises:
            EnrolmentRefused: the device was never provisioned, or has used its secret.
        """
        state = self._state.load()
        device, secret = state.device, state.secret
        if secret is None:
            raise EnrolmentRefused(
                f"{device} has no enrolment secret", hint="provision it with `aif device add`"
            )
        await self._gates.open()
        topic = EnrolmentTopic(device, Enrolment.RESPONSE)
        subscription = await self._transport.subscribe(str(topic), self._response, qos=1)
        request = await asyncio.to_thread(
            build_request,
            EnrolmentRequest(
                id16("device", device),
                self._engine.identity_pk,
                self._engine.exchange_pk,
                self._random(32),
                id16("hwclass", state.hw_class),
                self._tls.request() if self._tls is not None else None,
            ),
            secret,
            self._engine.sign_as_device,
        )
        self._log.info("enrolling")
        enrolled = False
        while not enrolled:
            with suppress(TransportError):
                asked = str(EnrolmentTopic(device, Enrolment.REQUEST))
                self._transport.send(asked, self._gates.stamped(asked, request), qos=1)
            with suppress(TimeoutError):
                async with asyncio.timeout(REQUEST_INTERVAL_S):
                    while not enrolled:
                        enrolled = self._accept(await self._answers.get(), request, secret)
            self._unanswered.tell(
                "nobody answers the enrolment",
                "is the Controller running, on the same broker? its log says whether it refused; an "
                "enrolment window is open for 15 minutes after `aif device add`",
            )
        with suppress(TransportError):
            await subscription.aclose()
        anchors = self._state.load()
        await asyncio.to_thread(
            self._engine.enrolled, grant_pk=anchors.grant_pk or b"", ticket_pk=anchors.ticket_pk or b""
        )
        self._log.info("enrolled")

    def _accept(self, answer: bytes, request: bytes, secret: bytes) -> bool:
        """Take up the site's answer; False when this is not one."""
        state = self._state.load()
        try:
            response = open_response(answer, request, secret, state.controller_pk)
            if self._tls is not None:
                if response.certificate is None:
                    raise EnrolmentRefused("the site's answer holds no certificate for the broker")
                now = datetime.fromtimestamp(self._clock.time_us() / 1e6, UTC)
                self._tls.take(response.certificate, now=now)
        except AIFError as error:
            self._log.warning("enrolment answer refused", code=error.code, reason=str(error))
            return False
        anchors = response.anchors
        self._state.update(
            lambda current: replace(
                current,
                secret=None,
                store_root=anchors.store_root,
                grant_pk=anchors.grant_pk,
                ticket_pk=anchors.ticket_pk,
                deployment_pk=anchors.deployment_pk,
                result_pk=anchors.result_pk,
                time_floor_s=response.time_s,
            )
        )
        return True

    def _response(self, received: Received) -> None:
        with suppress(asyncio.QueueFull):
            self._answers.put_nowait(received.payload)
