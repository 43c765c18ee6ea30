"""The Controller's side of every device session: hellos, calls, control messages, and when it ends.

A device is trusted for one boot and one mapping at a time. Until its Evidence has been accepted it gets no
key; what that is worth is decided by ``appraiser``. Nothing of a workflow is decided here.

Invariants: what anybody could have sent changes nothing. A Hello is only an offer until fresh Evidence speaks
for its session key, so a replayed one ends with the challenge; Evidence that is not this device's own answer
to an open challenge is logged and forgotten; a last will is a rumour, which only makes ``vigil`` ask. Only
devices of the registry take memory. When devices are lost, and for how long, is decided by ``vigil``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from aif.errors import AIFError, NotFound, TransportError
from aif.protocol import control, topics
from aif.protocol.control import (
    CertificateRequest,
    ControlMessage,
    Heartbeat,
    Hello,
    SiteCertificate,
    Unfit,
)
from aif.protocol.evidence import Component
from aif.protocol.topics import (
    Attestation,
    AttestationTopic,
    Down,
    DownTopic,
    Enrolment,
    EnrolmentTopic,
    Up,
    UpTopic,
)  # fmt: skip
from aif.runtime.agreed import CLOCK_SKEW_WARNING_S, CONTROL_QOS
from aif.runtime.clock import Clock
from aif.runtime.devices.appraiser import CHALLENGE_PATIENCE_S, Appraiser
from aif.runtime.devices.audit_log import AuditLog
from aif.runtime.devices.control_channels import ControlChannels
from aif.runtime.devices.enrolling import EnrolmentDesk
from aif.runtime.devices.gatekeeper import Gatekeeper
from aif.runtime.devices.grants import GrantOffice
from aif.runtime.devices.links import DeviceLink, Trust
from aif.runtime.devices.liveness import Answers, HeartbeatSettings
from aif.runtime.devices.registry import Site
from aif.runtime.devices.sensing import Sensing
from aif.runtime.devices.vigil import Vigil
from aif.runtime.logbook import LogBook
from aif.transport.base import ConnectionChange, Received, Transport
from aif.trusted.attestation import Verifier
from aif.trusted.communication import CommunicationService

CALL_INTERVAL_MS = 1_000.0
"""A device without a session that is heard is asked to say Hello at most this often."""

CALLING_S = 5.0
"""After its start the Controller asks devices to say Hello for this long: they may not have noticed it."""

HELLO_INTERVAL_MS = 500.0
"""Hellos that follow a challenge faster are ignored: whoever repeats old ones must not keep a device busy."""

REJECTED_PATIENCE_S = 10.0
"""A boot that was rejected is asked again only after this long: the Store may have learnt about it."""

REATTESTATION_S = 15 * 60.0
REATTESTATION_PATIENCE_S = 60.0
"""A device that does not answer its re-attestation for this long has lost its trust."""


class Admission:
    """All device sessions of a site."""

    def __init__(
        self,
        site: Site,
        transport: Transport,
        communication: CommunicationService,
        grants: GrantOffice,
        verifier: Verifier,
        *,
        clock: Clock,
        log: LogBook,
        store_root: bytes,
        audit: AuditLog,
        heartbeat: HeartbeatSettings | None = None,
        reference: Callable[[], Mapping[str, Iterable[Component]]],
        on_message: Callable[[str, ControlMessage], None],
        on_trust: Callable[[DeviceLink], None],
        on_stranger: Callable[[str, str], None],
        expected: Callable[[str], bool],
    ) -> None:
        self._site, self._transport, self.communication = site, transport, communication
        self._clock, self._log = clock, log
        self.gates = Gatekeeper(site, expected=expected, clock=clock, log=log)
        self._channels = ControlChannels(
            transport, communication, grants, self.gates, clock=clock, log=log, audit=audit
        )
        self._on_message, self._on_trust = on_message, on_trust
        self.links: dict[str, DeviceLink] = {}
        self.sensing = Sensing(log)
        self._audit, self._audit_failure = audit, ""
        self._on_stranger = on_stranger
        self._appraiser = Appraiser(
            site, transport, verifier, self.gates, clock=clock, log=log, audit=audit, reference=reference,
            accepted=self._accepted, rejected=lambda link, why: self._end(link, Trust.REJECTED, why),
        )  # fmt: skip
        self._desk = EnrolmentDesk(
            site, transport, clock=clock, log=log, store_root=store_root, audit=audit, on_stranger=on_stranger
        )
        self._end_watch: Callable[[], None] = lambda: None
        self._calling_until_ms = float("-inf")
        self._called_ms: dict[str, float] = {}
        self.vigil = Vigil(
            heartbeat or HeartbeatSettings(), clock=clock, log=log, devices=self.links.values,
            ask=self._ask, glance=self._glance,
            lost=lambda link, why: self._end(link, Trust.LOST, why), connected=lambda: transport.connected,
        )  # fmt: skip

    async def start(self) -> None:
        """Listen to devices."""
        for record in self._site.state.devices:
            if record.revoked:
                link = self.link(record.device)
                link.trust, link.reason = Trust.REJECTED, f"it was revoked: {record.reason}"
        self._end_watch = self._transport.on_connection(self._connection_changed)
        for what, qos in ((Up.HELLO, 1), (Up.STATUS, 1), (Up.REPORT, CONTROL_QOS)):
            await self._transport.subscribe(topics.up_filter(what=what), self._from_device, qos=qos)
        await self._transport.subscribe(
            topics.attestation_filter(Attestation.EVIDENCE), self._evidence, qos=1
        )
        await self._transport.subscribe(topics.enrolment_filter(Enrolment.REQUEST), self._enrolment, qos=1)
        self._calling_until_ms = self._clock.monotonic_ms() + CALLING_S * 1000
        self._call_all()

    def stop(self) -> None:
        """The connection is about to be closed, which is no news."""
        self._end_watch()
        self._audit.sign()

    def _connection_changed(self, change: ConnectionChange) -> None:
        if change.connected:
            self._log.info("connected to the broker again")
        else:
            self._log.warning("the connection to the broker is lost", reason=change.reason)

    def _ask(self, link: DeviceLink, number: int) -> None:
        if self._transport.connected:
            self.sensing.asked(link.device, self._clock.monotonic_ms())
        else:
            self.sensing.restart(link.device)
        self._glance(link, number)

    def _glance(self, link: DeviceLink, number: int) -> None:
        self.send(link.device, Heartbeat(self._clock.time_us(), number))

    def link(self, device: str) -> DeviceLink:
        """The link to a device that the caller knows to exist."""
        return self.links.setdefault(device, DeviceLink(device))

    def exclude(self, device: str, why: str) -> None:
        """A device is not trusted any more, from this moment on."""
        link = self.link(device)
        self._log.error("device excluded", device=device, reason=why)
        self._audit.note("excluded", device, reason=why)
        self._end(link, Trust.REJECTED, why)

    def trusted(self, device: str) -> bool:
        return self.link(device).trust is Trust.TRUSTED

    def send(self, device: str, message: ControlMessage) -> None:
        """Seal a control message for a trusted device; otherwise drop it (the Controller repeats itself)."""
        self._channels.send(self.links.get(device), message)

    def send_grant(self, device: str, sealed: bytes) -> None:
        """Send a grant to the device it is sealed for; the audit log keeps its digest."""
        self._channels.send_grant(device, sealed)

    # --- what arrives ------------------------------------------------------------------------------

    def _from_device(self, received: Received) -> None:
        topic = _topic_of(received)
        if not isinstance(topic, UpTopic) or received.retained:
            return
        if topic.what is Up.HELLO:
            hello = self.gates.admit(topic.device, topic, received.payload)
            if hello is not None:
                self._hello(topic.device, hello)
            return
        link = self.links.get(topic.device)
        if link is None:
            return
        if topic.what is Up.REPORT and link.up is not None:
            link.up.receive(received.payload, retained=received.retained)
        elif topic.what is Up.REPORT and link.trust is Trust.LOST:
            self._call(link.device)  # it does not know that its session has ended
        elif topic.what is Up.STATUS:
            self.vigil.rumour(link)

    def _enrolment(self, received: Received) -> None:
        topic = _topic_of(received)
        if isinstance(topic, EnrolmentTopic) and not received.retained:
            request = self.gates.admit(topic.device, topic, received.payload)
            if request is not None:
                self._desk.take(topic.device, request)

    def _hello(self, device: str, data: bytes) -> None:
        record = self._site.try_device(device)
        if record is None or record.enrolled_s is None or record.revoked:
            state = "not registered" if record is None else "revoked" if record.revoked else "not enrolled"
            self._log.warning("hello ignored", device=device, reason=f"{device} is {state}")
            self._on_stranger(device, state)
            return
        try:
            hello = control.verify_hello(data, record.identity_pk, device=device)
        except AIFError as error:
            self._log.warning("hello refused", device=device, code=error.code, reason=str(error))
            return
        link = self.link(device)
        now_ms = self._clock.monotonic_ms()
        waited_ms = now_ms - link.challenged_ms
        if waited_ms < (
            CHALLENGE_PATIENCE_S * 1000 if self._appraiser.expects(device) else HELLO_INTERVAL_MS
        ):
            return  # its challenge is on the way
        if hello.boot_id == link.rejected_boot and waited_ms < REJECTED_PATIENCE_S * 1000:
            return
        current = link.hello
        if current is not None and (hello.boot_id, hello.time_us) == (current.boot_id, current.time_us):
            return  # the hello of the session that exists, once more
        if link.offered is None or link.offered.boot_id != hello.boot_id:
            self._judge_clock(link, hello)
        link.offered = hello
        self.challenge(device, mapping_version=hello.mapping_version)

    def _judge_clock(self, link: DeviceLink, hello: Hello) -> None:
        skew_s = (hello.time_us - self._clock.time_us()) / 1e6
        if abs(skew_s) > CLOCK_SKEW_WARNING_S:
            self._log.warning(
                "a device's clock differs from the Controller's", device=link.device, skew_s=round(skew_s, 1),
                hint="set the clock there; ages, deadlines and grants depend on it",
            )  # fmt: skip

    def challenge(self, device: str, *, mapping_version: int) -> None:
        """Ask for fresh Evidence under a mapping; an earlier challenge is void."""
        self._appraiser.challenge(self.link(device), mapping_version=mapping_version)

    def _evidence(self, received: Received) -> None:
        topic = _topic_of(received)
        if isinstance(topic, AttestationTopic) and self._appraiser.expects(topic.device):
            evidence = self.gates.admit(topic.device, topic, received.payload)
            if evidence is not None:
                self._appraiser.take(self.link(topic.device), evidence)

    def _accepted(self, link: DeviceLink, *, fresh: bool) -> None:
        """Evidence spoke for the session that exists, or for a fresh one, which begins now."""
        if fresh:
            link.answers = Answers()
            self.sensing.restart(link.device)
            self._channels.open(link, lambda payloads: self._control_payloads(link, payloads))
        self._on_trust(link)

    # --- calls -------------------------------------------------------------------------------------

    def _call_all(self) -> None:
        """Devices that an earlier Controller had sessions with do not know yet that there is a new one."""
        for record in self._site.state.devices:
            link = self.links.get(record.device)
            if record.enrolled_s is not None and (link is None or link.trust is Trust.UNKNOWN):
                self._call(record.device)

    def _call(self, device: str) -> None:
        """Ask a device of the registry to say Hello."""
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._called_ms.get(device, float("-inf")) < CALL_INTERVAL_MS:
            return
        self._called_ms[device] = now_ms
        with suppress(TransportError, NotFound):  # it notices the silence
            call, topic = self._site.call(device, time_us=self._clock.time_us()), DownTopic(device, Down.CALL)
            self._transport.send(str(topic), self.gates.stamped(device, topic, call), qos=1)

    # --- control messages --------------------------------------------------------------------------

    def _control_payloads(self, link: DeviceLink, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            self._control_payload(link, payload)

    def _control_payload(self, link: DeviceLink, payload: bytes) -> None:
        link.heard_ms = self._clock.monotonic_ms()
        link.answers.heard()
        try:
            message = control.unpack(payload)
        except AIFError as error:
            self._log.warning("control message refused", device=link.device, reason=str(error))
            return
        if isinstance(message, Heartbeat):
            link.skew_s = (message.time_us - self._clock.time_us()) / 1e6
            if message.battery is not None:
                self.sensing.battery(link.device, message.battery, link.heard_ms)
            if message.number:
                answered = link.answers.answered(message.number, link.heard_ms)
                if answered is not None and answered.in_turn:
                    self.sensing.answered(link.device, answered.rtt_ms)
            else:
                self.vigil.welcome(link)
        elif isinstance(message, CertificateRequest):
            self._certify(link.device, message.request)
        elif isinstance(message, Unfit):
            self._log.error("device unfit", device=link.device, reason=message.reason)
            self._end(link, Trust.REJECTED, f"unfit: {message.reason}")
        else:
            self._on_message(link.device, message)

    def _certify(self, device: str, request: bytes) -> None:
        """A trusted device renews the certificate of its way to the broker."""
        try:
            certificate = self._site.certify(device, request, now_s=self._clock.time_us() // 1_000_000)
        except AIFError as error:
            self._log.warning("no certificate", device=device, code=error.code, reason=str(error))
        else:
            self.send(device, SiteCertificate(certificate))

    # --- time --------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Once a second: the audit log, the registry, re-attestation, control keys."""
        self._audit.tick()
        if self._audit.failure and self._audit.failure != self._audit_failure:
            self._log.error("the audit log cannot be written", reason=self._audit.failure)
        self._audit_failure = self._audit.failure
        if self._clock.monotonic_ms() < self._calling_until_ms:
            self._call_all()
        registered = {record.device for record in self._site.state.devices if not record.revoked}
        for link in self.links.values():
            if link.trust is not Trust.TRUSTED:
                continue
            if link.device not in registered:
                self._end(link, Trust.REJECTED, "it was removed from the registry")
                continue
            now_ms = self._clock.monotonic_ms()
            overdue_s = (now_ms - link.attested_ms) / 1000 - REATTESTATION_S
            if overdue_s > REATTESTATION_PATIENCE_S:
                link.sign_ms = now_ms
                self._end(link, Trust.LOST, f"no new evidence for {REATTESTATION_PATIENCE_S:g} s")
            elif overdue_s > 0 and now_ms - link.challenged_ms > CHALLENGE_PATIENCE_S * 1000:
                self.challenge(link.device, mapping_version=link.attested_mapping)
            elif self._channels.keys_are_old(link, now_ms):
                self._channels.renew_keys(link)

    def _end(self, link: DeviceLink, trust: Trust, why: str) -> None:
        """The session is over: no key, no word, until new Evidence is accepted."""
        link.trust, link.reason = trust, why
        link.hello = link.offered = None
        link.attested_mapping = -1
        self._channels.close(link)
        if trust is Trust.LOST:
            link.reputation.note_lost(self._clock.monotonic_ms())
            self._log.warning("device lost", device=link.device, reason=why)
        self._on_trust(link)


def _topic_of(received: Received) -> topics.Topic | None:
    """What a topic says; None for one that only a stranger would use, such as one that names no device."""
    try:
        return topics.parse(received.topic)
    except AIFError:
        return None
