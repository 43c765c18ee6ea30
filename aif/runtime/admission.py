"""The Controller's side of every device session: enrolment, hello, appraisal, control channels.

A device is trusted for one boot and one mapping at a time. Until its Evidence has been accepted it gets no
key; when it says Hello again (a new boot), everything it had is void. Nothing of a workflow is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from nacl.signing import SigningKey

from aif.errors import AIFError, AttestationRejected, TransportError
from aif.protocol import control, topics
from aif.protocol.control import CONTROLLER, ControlMessage, Heartbeat, Hello
from aif.protocol.evidence import Component
from aif.protocol.identifiers import id16
from aif.protocol.numbers import AuthMode
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
from aif.runtime.clock import Clock
from aif.runtime.devices import Site
from aif.runtime.grants import End, GrantOffice
from aif.runtime.logbook import LogBook
from aif.runtime.session import CONTROL_QOS
from aif.transport.base import Received, Transport
from aif.trusted.attestation import Verifier
from aif.trusted.communication import CommunicationService, SealedChannel, SecureReceiver, SecureSender

DEVICE_SILENCE_S = 6.0
CHALLENGE_PATIENCE_S = 3.0
"""A device that repeats its hello gets a new challenge after this long."""

REATTESTATION_S = 15 * 60.0


class Trust(StrEnum):
    """Where a device stands."""

    UNKNOWN = "unknown"
    APPRAISING = "appraising"
    TRUSTED = "trusted"
    REJECTED = "rejected"
    LOST = "lost"


@dataclass(slots=True)
class DeviceLink:
    """One device as the Controller sees it now."""

    device: str
    hello: Hello | None = None
    trust: Trust = Trust.UNKNOWN
    verdict: tuple[str, ...] = ()
    reason: str = ""
    attested_mapping: int = -1
    attested_ms: float = 0.0
    heard_ms: float = 0.0
    skew_s: float = 0.0
    up: SecureReceiver | None = None
    down: SecureSender | None = None
    challenged_ms: float = 0.0


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
        reference: Callable[[], Mapping[str, Iterable[Component]]],
        on_message: Callable[[str, ControlMessage], None],
        on_trust: Callable[[DeviceLink], None],
    ) -> None:
        self._site, self._transport, self.communication = site, transport, communication
        self._grants, self._verifier = grants, verifier
        self._clock, self._log, self._store_root = clock, log, store_root
        self._reference, self._on_message, self._on_trust = reference, on_message, on_trust
        self.links: dict[str, DeviceLink] = {}
        self._answers: dict[bytes, bytes] = {}

    async def start(self) -> None:
        """Listen to devices."""
        for what, qos in ((Up.HELLO, 1), (Up.STATUS, 1), (Up.REPORT, CONTROL_QOS)):
            await self._transport.subscribe(topics.up_filter(what=what), self._from_device, qos=qos)
        await self._transport.subscribe(
            topics.attestation_filter(Attestation.EVIDENCE), self._evidence, qos=1
        )
        await self._transport.subscribe(topics.enrolment_filter(Enrolment.REQUEST), self._enrolment, qos=1)

    def link(self, device: str) -> DeviceLink:
        return self.links.setdefault(device, DeviceLink(device))

    def trusted(self, device: str) -> bool:
        return self.link(device).trust is Trust.TRUSTED

    def send(self, device: str, message: ControlMessage) -> None:
        """Seal a control message for a trusted device; otherwise it is dropped (the Controller repeats itself)."""
        down = self.link(device).down
        if down is not None and down.keyed:
            try:
                down.send(control.pack(message))
            except TransportError as error:
                self._log.warning("control message dropped", device=device, reason=str(error))

    # --- what arrives ------------------------------------------------------------------------------

    def _from_device(self, received: Received) -> None:
        topic = topics.parse(received.topic)
        if not isinstance(topic, UpTopic) or received.retained:
            return
        if topic.what is Up.HELLO:
            self._hello(topic.device, received.payload)
        elif topic.what is Up.REPORT:
            up = self.link(topic.device).up
            if up is not None:
                up.receive(received.payload, retained=received.retained)
        elif topic.what is Up.STATUS:
            self._lost(topic.device, "its connection ended")

    def _enrolment(self, received: Received) -> None:
        topic = topics.parse(received.topic)
        if not isinstance(topic, EnrolmentTopic):
            return
        name = topic.device
        try:
            answer = self._answers.get(received.payload)
            if answer is None:
                now_s = self._clock.time_us() // 1_000_000
                answer = self._site.enrol(name, received.payload, self._store_root, now_s=now_s)
                self._answers = {received.payload: answer, **dict(list(self._answers.items())[:63])}
                self._log.info("device enrolled", device=name)
            self._transport.send(str(EnrolmentTopic(name, Enrolment.RESPONSE)), answer, qos=1)
        except AIFError as error:
            self._log.warning("enrolment refused", device=name, code=error.code, reason=str(error))

    def _hello(self, device: str, data: bytes) -> None:
        record = self._site.try_device(device)
        link = self.link(device)
        if record is None or record.enrolled_s is None or record.revoked:
            why = (
                "is not registered"
                if record is None
                else "is revoked"
                if record.revoked
                else "is not enrolled"
            )
            self._log.warning("hello ignored", device=device, reason=f"{device} {why}")
            return
        try:
            hello = control.verify_hello(data, record.identity_pk, device=device)
        except AIFError as error:
            self._log.warning("hello refused", device=device, code=error.code, reason=str(error))
            return
        same_boot = link.hello is not None and link.hello.boot_id == hello.boot_id
        waited_ms = self._clock.monotonic_ms() - link.challenged_ms
        if same_boot and self._verifier.expects(device) and waited_ms < CHALLENGE_PATIENCE_S * 1000:
            return  # its challenge is on the way
        link.hello = hello
        link.skew_s = (hello.time_us - self._clock.time_us()) / 1e6
        link.attested_mapping = -1
        self.challenge(device, mapping_version=None)

    def challenge(self, device: str, *, mapping_version: int | None) -> None:
        """Ask for Evidence about this boot under a mapping; None means the one the device last had."""
        link = self.link(device)
        if link.trust is not Trust.TRUSTED:
            link.trust = Trust.APPRAISING
        link.challenged_ms = self._clock.monotonic_ms()
        now_s = self._clock.time_us() // 1_000_000
        last = (
            link.attested_mapping
            if link.attested_mapping >= 0 or link.hello is None
            else link.hello.mapping_version
        )
        wanted = last if mapping_version is None else mapping_version
        request = self._verifier.challenge(device, mapping_version=wanted, now_s=now_s)
        try:
            self._transport.send(str(AttestationTopic(device, Attestation.REQUEST)), request, qos=1)
        except TransportError as error:
            self._log.warning("challenge not sent", device=device, reason=str(error))

    def _evidence(self, received: Received) -> None:
        topic = topics.parse(received.topic)
        if not isinstance(topic, AttestationTopic) or not self._verifier.expects(topic.device):
            return
        device = topic.device
        link, record = self.link(device), self._site.try_device(device)
        if record is None or link.hello is None:
            return
        try:
            verdict = self._verifier.appraise(
                device, id16("device", device), received.payload,
                identity_pk=record.identity_pk, revoked=record.revoked, hw_class=record.hw_class,
                reference=self._reference(), last_generation=record.last_generation,
                now_s=self._clock.time_us() // 1_000_000,
            )  # fmt: skip
            if verdict.session_pk != link.hello.session_public:
                raise AttestationRejected("evidence speaks for another session than the hello", step="nonce")
        except AttestationRejected as error:
            link.trust, link.reason = Trust.REJECTED, str(error)
            self._log.error("evidence rejected", device=device, step=error.step, reason=str(error))
            self._close(link)
            self._on_trust(link)
            return
        self._site.note_generation(device, verdict.generation)
        fresh_session = link.attested_mapping < 0
        link.verdict, link.reason = verdict.steps, ""
        link.attested_mapping = verdict.result.mapping_version
        link.attested_ms = link.heard_ms = self._clock.monotonic_ms()
        link.trust = Trust.TRUSTED
        self._log.info("evidence accepted", device=device, mapping_version=link.attested_mapping)
        if fresh_session:
            self._open(link)
        self._on_trust(link)

    # --- control channels --------------------------------------------------------------------------

    def _open(self, link: DeviceLink) -> None:
        """New control channels for a new session, and the grants for them."""
        self._close(link)
        device = link.device
        up_id, up_topic = control.control_channel(device, up=True)
        down_id, down_topic = control.control_channel(device, up=False)
        link.up = self.communication.open_receiver(
            SealedChannel(up_id, up_topic, AuthMode.AEAD, qos=CONTROL_QOS),
            lambda payload: self._control_payload(link, payload), lambda _: None,
        )  # fmt: skip
        link.down = self.communication.open_sender(
            SealedChannel(down_id, down_topic, AuthMode.AEAD, qos=CONTROL_QOS)
        )
        here, there = End(CONTROLLER, f"{device}.control"), End(device, "control")
        for channel_id, sender, receiver in ((up_id, there, here), (down_id, here, there)):
            for grant in self._grants.issue(
                channel_id, AuthMode.AEAD, [sender], [receiver], mapping_version=0
            ):
                if grant.device == CONTROLLER:
                    self.communication.apply_grant(grant.grant, b"")
                else:
                    self.send_grant(device, grant.sealed)
        self.send(device, Heartbeat(self._clock.time_us()))

    def send_grant(self, device: str, sealed: bytes) -> None:
        try:
            self._transport.send(str(DownTopic(device, Down.GRANT)), sealed, qos=1)
        except TransportError as error:
            self._log.warning("grant not sent", device=device, reason=str(error))

    def _close(self, link: DeviceLink) -> None:
        for end in (link.up, link.down):
            if end is not None:
                self.communication.close(end.channel.channel_id)
        link.up = link.down = None

    def _control_payload(self, link: DeviceLink, payload: bytes) -> None:
        link.heard_ms = self._clock.monotonic_ms()
        try:
            message = control.unpack(payload)
        except AIFError as error:
            self._log.warning("control message refused", device=link.device, reason=str(error))
            return
        if isinstance(message, Heartbeat):
            link.skew_s = (message.time_us - self._clock.time_us()) / 1e6
        else:
            self._on_message(link.device, message)

    def tick(self) -> None:
        """Once a second: heartbeats, silence, re-attestation."""
        now = self._clock.monotonic_ms()
        for link in self.links.values():
            if link.trust is not Trust.TRUSTED:
                continue
            self.send(link.device, Heartbeat(self._clock.time_us()))
            if now - link.heard_ms > DEVICE_SILENCE_S * 1000:
                self._lost(link.device, f"silent for {DEVICE_SILENCE_S:g} s")
            elif now - link.attested_ms > REATTESTATION_S * 1000 and not self._verifier.expects(link.device):
                self.challenge(link.device, mapping_version=None)

    def _lost(self, device: str, why: str) -> None:
        link = self.link(device)
        if link.trust is Trust.TRUSTED:
            link.trust, link.reason = Trust.LOST, why
            link.hello = None
            self._close(link)
            self._log.warning("device lost", device=device, reason=why)
            self._on_trust(link)

    def frame_public(self, device: str) -> bytes | None:
        hello = self.link(device).hello
        return hello.frame_public if hello else None


def controller_signer(seed: bytes) -> Callable[[bytes], bytes]:
    """A signing function over one of the Controller's keys."""
    key = SigningKey(seed)
    return lambda message: key.sign(message).signature
