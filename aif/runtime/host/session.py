"""A device's session with its Controller: enrolment once, then one trusted session per boot.

Hello -> challenge -> evidence -> grants for the two control channels -> sealed control messages. Whatever is
lost on the way is asked for again; when the Controller falls silent the device says Hello anew. Nothing of
a workflow is decided here: control messages go to ``on_message``.

Invariants: what anybody could have sent changes nothing; nothing is sent in clear but the signed Hello, the
enrolment request and the evidence; a lost connection costs messages, never the session's life. Whatever needs
a long-term key or the session key is done by the Security Engine (``engine_requests``). A new session of the
engine keeps the boot: the hello names the same boot and another key.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from nacl.signing import SigningKey

from aif.errors import (
    AIFError,
    LocalProtocolError,
    NotConnected,
    PSAError,
    TransportError,
)
from aif.protocol import control
from aif.protocol.control import (
    CertificateRequest,
    ControlMessage,
    Heartbeat,
    Hello,
    InstalledRelease,
    LogLine,
    SiteCertificate,
    Unfit,
)
from aif.protocol.evidence import Component
from aif.protocol.numbers import HOST_LIMITS, AuthMode, ChannelLimits
from aif.protocol.ticket import ticket_digest
from aif.protocol.topics import (
    Attestation,
    AttestationTopic,
    Down,
    DownTopic,
    Up,
    UpTopic,
)
from aif.runtime.agreed import CLOCK_SKEW_WARNING_S, CONTROL_QOS, CONTROLLER_SILENCE_S
from aif.runtime.books import log_channel_event
from aif.runtime.clock import Clock
from aif.runtime.host.device_gates import DeviceGates
from aif.runtime.host.engine_requests import EngineRequests
from aif.runtime.host.enrolling_device import DeviceEnrolment
from aif.runtime.host.unanswered import Unanswered
from aif.runtime.logbook import LogBook
from aif.transport.base import ConnectionChange, Received, Transport
from aif.trusted.client_folder import CertificateKeeper, ClientFolder
from aif.trusted.communication import CommunicationService, SealedChannel
from aif.trusted.security_engine import SecurityEngine
from aif.trusted.state import DeviceState, StateFile

HELLO_INTERVAL_S = 1.0
NO_TICKET = bytes(32)
"""Stands for the digest of a ticket, of a release that was given up."""

TRUSTED_TICK_S = 1.0
"""How often a trusted device looks whether the Controller is silent, or its certificate old."""

CALL_INTERVAL_MS = 200.0
"""Calls that follow another one faster are not even verified."""

POLL_INTERVAL_S = 0.1

KEY_REQUEST_INTERVAL_S = 2.0
"""A new key for a channel that has stopped is asked for this often until it comes."""

TIME_FLOOR_STEP_S = 60
"""The time floor is written down when the site's time is this far above it."""


class DeviceSession:
    """Everything between one device and its Controller."""

    def __init__(
        self,
        state: StateFile[DeviceState],
        transport: Transport,
        engine: SecurityEngine,
        *,
        clock: Clock,
        random: Callable[[int], bytes],
        log: LogBook,
        components: Callable[[], Iterable[Component]],
        on_message: Callable[[ControlMessage], None],
        limits: ChannelLimits = HOST_LIMITS,
        tls: ClientFolder | None = None,
        battery: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._tls, self._keeper = tls, CertificateKeeper(tls) if tls is not None else None
        self._state, self._transport, self._engine, self._clock = state, transport, engine, clock
        self._random, self._log = random, log
        self._on_message, self._battery = on_message, battery
        loaded = state.load()
        self.device, self._site_public = loaded.device, loaded.controller_pk
        self._gates = DeviceGates(loaded, engine, clock=clock, log=log)
        self._frame_key = SigningKey(random(32))
        self._boot_id = random(16)
        self._unfit = ""
        self._keys_asked_ms: dict[bytes, float] = {}
        self._told_skew_s = 0.0
        self._unanswered = Unanswered(clock, log)
        self._last_heard_ms = clock.monotonic_ms()
        self._controller_us = 0
        """The Controller's wall clock in the newest of its words."""
        self._called_ms = float("-inf")
        self.trusted = asyncio.Event()
        self.communication = CommunicationService(
            publish=self._publish, now_ms=clock.monotonic_ms, call_later=self._call_later, limits=limits
        )
        up_id, up_topic = control.control_channel(self.device, up=True)
        down_id, self._down_topic = control.control_channel(self.device, up=False)
        self._control_ids = {up_id, down_id}
        self._up = self.communication.open_sender(
            SealedChannel(up_id, up_topic, AuthMode.AEAD, qos=CONTROL_QOS)
        )
        self._down = self.communication.open_receiver(
            SealedChannel(down_id, self._down_topic, AuthMode.AEAD, qos=CONTROL_QOS),
            self._control_payloads,
            lambda event: log_channel_event(log, event, self._down_topic),
        )
        self._requests = EngineRequests(
            state, engine, self.communication,
            frame_key=bytes(self._frame_key), control_ids=self._control_ids, components=components,
            send_evidence=self._send_evidence, keyed=self._keyed, clock=clock, log=log,
        )  # fmt: skip

    # --- life --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the session alive until cancelled.

        Raises:
            EnrolmentRefused: the device was never provisioned, or has used its secret.
        """
        end_watch = self._transport.on_connection(self._connection_changed)
        try:
            await self._serve()
        finally:
            end_watch()

    async def _serve(self) -> None:
        await self._gates.open()
        if not self._state.load().enrolled:
            enrolment = DeviceEnrolment(
                self._state, self._transport, self._engine,
                clock=self._clock, random=self._random, log=self._log, tls=self._tls,
            )  # fmt: skip
            await enrolment.run()
        await self._requests.bind_notes()
        subscriptions = [
            await self._transport.subscribe(
                str(AttestationTopic(self.device, Attestation.REQUEST)), self._attestation_request, qos=1
            ),
            await self._transport.subscribe(str(DownTopic(self.device, Down.GRANT)), self._grant, qos=1),
            await self._transport.subscribe(str(DownTopic(self.device, Down.CALL)), self._call, qos=1),
            await self._transport.subscribe(self._down_topic, self._control_frame, qos=CONTROL_QOS),
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_trusted())
                tasks.create_task(self._requests.run())
                tasks.create_task(self._poll())
        finally:
            for subscription in subscriptions:
                with suppress(TransportError):
                    await subscription.aclose()

    @property
    def connected(self) -> bool:
        return self._transport.connected

    def send(self, message: ControlMessage) -> None:
        """Seal one control message; without a session or a connection it is dropped (states are repeated)."""
        if not self._up.keyed:
            return
        packed = control.pack(message)
        try:
            if len(packed) > control.MAX_MESSAGE_BYTES:
                raise LocalProtocolError(f"a control message of {len(packed):,} B is too long")
            self._up.send(packed)
        except NotConnected:
            return  # the log says so once, when the connection ends
        except AIFError as error:
            if not isinstance(message, LogLine):  # a line about a line that cannot be sent would not end
                self._log.warning("control message dropped", code=error.code, reason=str(error))

    def flush(self) -> None:
        """Send at once what still waits for company; for the moment before the connection is closed."""
        with suppress(TransportError):
            self._up.flush()

    def _heartbeat(self, number: int = 0) -> Heartbeat:
        return Heartbeat(self._clock.time_us(), number, self._battery())

    def renew(self) -> None:
        """The Security Engine was started again: introduce its new session to the Controller."""
        if not self._state.load().enrolled:
            return
        self.trusted.clear()
        self._unanswered.restart()
        self._requests.enqueue(self._requests.bind_notes)
        self._requests.enqueue(self._say_hello)

    def give_up(self, reason: str) -> None:
        """This host is unfit: say so, for as long as somebody hears it, and never ask for trust again."""
        self._unfit = reason
        self.trusted.clear()
        self.send(Unfit(reason))

    def _connection_changed(self, change: ConnectionChange) -> None:
        if change.connected:
            self._log.info("connected to the broker again")
            self.send(self._heartbeat())  # a Controller that has given it up calls it
        else:
            self._log.warning("the connection to the broker is lost", reason=change.reason)

    async def _keep_trusted(self) -> None:
        while not self._unfit:
            silent_s = (self._clock.monotonic_ms() - self._last_heard_ms) / 1000.0
            if self.trusted.is_set() and silent_s > CONTROLLER_SILENCE_S:
                self._log.warning(
                    "the Controller is silent; asking for a new session", seconds=round(silent_s, 1)
                )
                self.trusted.clear()
                self._unanswered.restart()
            if self.trusted.is_set():
                if silent_s > TRUSTED_TICK_S:
                    self.send(self._heartbeat())  # whoever is not asked shows itself
                if self._keeper is not None and (
                    request := self._keeper.wanted(self._clock.monotonic_ms(), self._now())
                ):
                    self.send(CertificateRequest(request))
                await self._clock.sleep(TRUSTED_TICK_S)
            else:
                await self._say_hello()
                self._unanswered.tell(
                    "the Controller does not answer",
                    "is it running, on the same broker? `aif status` there says whether it refused it",
                )
                with suppress(TimeoutError):
                    async with asyncio.timeout(HELLO_INTERVAL_S):
                        await self.trusted.wait()
        while True:
            self.send(Unfit(self._unfit))
            await self._clock.sleep(TRUSTED_TICK_S)

    async def _poll(self) -> None:
        while True:
            with suppress(TransportError):
                self.communication.poll()
            self._ask_for_keys()
            await self._clock.sleep(POLL_INTERVAL_S)

    def _ask_for_keys(self) -> None:
        """Ask for a new epoch of channels that have stopped, and again while it does not come."""
        now_ms, stopped = self._clock.monotonic_ms(), self.communication.stopped()
        asked = {channel: at_ms for channel, at_ms in self._keys_asked_ms.items() if channel in stopped}
        for channel, epoch in stopped.items():
            if now_ms - asked.get(channel, -math.inf) >= KEY_REQUEST_INTERVAL_S * 1000:
                asked[channel] = now_ms
                self.send(control.KeyWanted(channel, epoch))
        self._keys_asked_ms = asked

    def _publish(self, topic: str, payload: bytes, qos: int) -> None:
        self._transport.send(topic, payload, qos=qos)

    def _call_later(self, delay_ms: float, function: Callable[[], None]) -> None:
        def run() -> None:
            with suppress(TransportError):  # what was not sent is counted by its channel's next watermark
                function()

        loop = asyncio.get_running_loop()
        if delay_ms > 0:
            loop.call_later(delay_ms / 1000.0, run)
        else:
            loop.call_soon(run)

    # --- trust -------------------------------------------------------------------------------------

    async def _say_hello(self) -> None:
        state = self._state.load()
        installed = tuple(
            InstalledRelease(
                m.component, m.counter, m.sha256, m.slot, ticket_digest(m.ticket) if m.ticket else NO_TICKET
            )
            for m in state.installed
        )
        hello = Hello(
            self.device,
            self._boot_id,
            self._engine.session_pk,
            bytes(self._frame_key.verify_key),
            self._clock.time_us(),
            state.mapping_floor,
            installed,
        )
        # A lost engine is noticed and started again by ``engine_watch``; the next hello is a new one's.
        with suppress(TransportError, PSAError):
            message = await asyncio.to_thread(control.sign_hello, hello, self._engine.sign_as_device)
            topic = str(UpTopic(self.device, Up.HELLO))
            self._publish(topic, self._gates.stamped(topic, message), 1)

    def _call(self, received: Received) -> None:
        """A Controller that has no session with this device asks for a Hello, as one that was started anew.

        What is older than its newest word is a replay. Nothing else happens than what its silence leads to.
        """
        now_ms, message = self._clock.monotonic_ms(), self._gates.admit(received)
        if message is None or now_ms - self._called_ms < CALL_INTERVAL_MS:
            return
        self._called_ms = now_ms
        try:
            call = control.verify_call(message, self._site_public, device=self.device)
        except AIFError as error:
            self._log.warning("call refused", code=error.code, reason=str(error))
            return
        if call.time_us <= self._controller_us or self._unfit:
            return
        self._controller_us = call.time_us
        if self.trusted.is_set():
            self._log.info("the Controller asks for a new session")
            self.renew()

    def _attestation_request(self, received: Received) -> None:
        challenge = self._gates.admit(received)
        if challenge is not None:
            self._requests.enqueue(partial(self._requests.attest, challenge))

    def _send_evidence(self, evidence: bytes) -> None:
        topic = str(AttestationTopic(self.device, Attestation.EVIDENCE))
        self._publish(topic, self._gates.stamped(topic, evidence), 1)

    def _grant(self, received: Received) -> None:
        grant = self._gates.admit(received)
        if grant is not None:
            self._requests.enqueue(partial(self._requests.open_grant, grant))

    def _keyed(self, channel: bytes, epoch: int) -> None:
        """A channel has its keys: those of data are confirmed, also again; both of control make a session."""
        if channel not in self._control_ids and self.communication.keyed(channel):
            self.send(control.Keyed(channel, epoch))
        if not self.trusted.is_set() and self._up.keyed and self._down.keyed:
            self._last_heard_ms = self._clock.monotonic_ms()
            self.trusted.set()
            self._log.info("session with the Controller is trusted")
            self.send(self._heartbeat())

    def troubles(self) -> dict[str, int]:
        """What went wrong between this device and its Controller, by cause."""
        channels = Counter(self.communication.statistics(self._control_ids).causes)
        return dict(self._gates.refused + self._requests.troubles() + channels)

    # --- control messages --------------------------------------------------------------------------

    def _control_frame(self, received: Received) -> None:
        self._down.receive(received.payload, retained=received.retained)

    def _control_payloads(self, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            self._control_payload(payload)

    def _control_payload(self, payload: bytes) -> None:
        self._last_heard_ms = self._clock.monotonic_ms()
        try:
            message = control.unpack(payload)
        except AIFError as error:
            self._log.warning("control message refused", code=error.code, reason=str(error))
            return
        if isinstance(message, Heartbeat):
            self.send(self._heartbeat(message.number))
            self.flush()
            self._controller_us = max(self._controller_us, message.time_us)
            self._take_time(message.time_us)
        elif isinstance(message, SiteCertificate):
            self._take_certificate(message.certificate)
        else:
            self._on_message(message)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time_us() / 1e6, UTC)

    def _take_certificate(self, certificate: bytes) -> None:
        if self._keeper is None:
            return
        try:
            self._keeper.take(certificate, self._now())
            self._log.info("certificate renewed")
        except AIFError as error:
            self._log.warning("certificate refused", code=error.code, reason=str(error))

    def _take_time(self, time_us: int) -> None:
        """The Controller's time is the site's: it is the floor, and a large difference is worth a word."""
        state = self._state.load()
        skew_s = (self._clock.time_us() - time_us) / 1e6
        if abs(skew_s) > CLOCK_SKEW_WARNING_S < abs(skew_s - self._told_skew_s):
            self._told_skew_s = skew_s
            self._log.warning(
                "this device's clock differs from the Controller's",
                skew_s=round(skew_s, 1),
                hint="set the clock; ages, deadlines and grants depend on it",
            )
        if time_us // 1_000_000 > state.time_floor_s + TIME_FLOOR_STEP_S:
            self._requests.enqueue(partial(self._requests.raise_time_floor, time_us // 1_000_000))
