"""Challenges to devices, and what their Evidence is worth: accepted, refused, or nobody's word.

Decides what an answer means for the trust of a device. The rules of an appraisal are ``trusted.attestation``;
what a session is given once Evidence was accepted is decided by ``admission``.

Invariants: Evidence that is not this device's own answer to an open challenge is logged and forgotten; what
is accepted speaks for one session key, that of the session that exists or of the Hello that was offered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from aif.errors import AttestationRejected, NotConnected, NotFound, StoreError, TransportError
from aif.protocol.appraisal import AppraisalLog
from aif.protocol.evidence import Component
from aif.protocol.identifiers import id16
from aif.protocol.topics import Attestation, AttestationTopic
from aif.runtime.clock import Clock
from aif.runtime.devices.audit_log import AuditLog
from aif.runtime.devices.gatekeeper import Gatekeeper
from aif.runtime.devices.links import Appraised, DeviceLink, Trust
from aif.runtime.devices.registry import Site
from aif.runtime.logbook import LogBook
from aif.transport.base import Transport
from aif.trusted.attestation import UNPROVEN_STEPS, Verdict, Verifier, steps_in_words

CHALLENGE_PATIENCE_S = 3.0
"""A challenge that was not answered is replaced after this long."""


class Accepted(Protocol):
    """Hears that Evidence was accepted; ``fresh`` when it speaks for a session that begins now."""

    def __call__(self, link: DeviceLink, *, fresh: bool) -> None: ...


class Appraiser:
    """The Verifier at work for all devices of a site.

    Args:
        gates: put the site's stamp on challenges.
        reference: reference values by component name.
        accepted: see there; the link says the rest.
        rejected: a device's own answer was refused, and why.
    """

    def __init__(
        self,
        site: Site,
        transport: Transport,
        verifier: Verifier,
        gates: Gatekeeper,
        *,
        clock: Clock,
        log: LogBook,
        audit: AuditLog,
        reference: Callable[[], Mapping[str, Iterable[Component]]],
        accepted: Accepted,
        rejected: Callable[[DeviceLink, str], None],
    ) -> None:
        self._site, self._transport, self._verifier, self._gates = site, transport, verifier, gates
        self._clock, self._log, self._audit = clock, log, audit
        self._reference, self._on_accept, self._on_reject = reference, accepted, rejected

    def expects(self, device: str) -> bool:
        """Whether a challenge of this device is open."""
        return self._verifier.expects(device)

    def challenge(self, link: DeviceLink, *, mapping_version: int) -> None:
        """Ask for fresh Evidence under a mapping; an earlier challenge is void."""
        if link.trust is not Trust.TRUSTED:
            link.trust = Trust.APPRAISING
        link.challenged_ms = self._clock.monotonic_ms()
        now_s = self._clock.time_us() // 1_000_000
        request = self._verifier.challenge(link.device, mapping_version=mapping_version, now_s=now_s)
        topic = AttestationTopic(link.device, Attestation.REQUEST)
        try:
            self._transport.send(str(topic), self._gates.stamped(link.device, topic, request), qos=1)
        except (NotConnected, NotFound):
            return  # asked again with the next hello; one that was removed is not
        except TransportError as error:
            self._log.warning("challenge not sent", device=link.device, reason=str(error))

    def take(self, link: DeviceLink, evidence: bytes) -> None:
        """What came as an answer to an open challenge."""
        device, record = link.device, self._site.try_device(link.device)
        if record is None:
            return
        steps, now_us = AppraisalLog(), self._clock.time_us()
        try:
            verdict = self._verifier.appraise(
                device, id16("device", device), evidence,
                identity_pk=record.identity_pk, revoked=record.revoked, hw_class=record.hw_class,
                reference=self._reference(), last_generation=record.last_generation,
                now_s=now_us // 1_000_000, log=steps,
            )  # fmt: skip
        except AttestationRejected as error:
            self._refuse(link, error, steps, proven=record.revoked or error.step not in UNPROVEN_STEPS)
        except StoreError as error:
            link.reason = f"no reference values: {error}"
            self._log.error("evidence not appraised", device=device, code=error.code, reason=str(error))
        else:
            self._site.note_generation(device, verdict.generation)
            passed = Appraised(True, now_us, verdict.steps, verdict.components, verdict.signed_result)
            self._accept(link, verdict, passed)

    def _refuse(
        self, link: DeviceLink, error: AttestationRejected, steps: AppraisalLog, *, proven: bool
    ) -> None:
        """Evidence was refused; only what is the device's own fresh word costs it its trust."""
        if not proven:
            self._log.warning("evidence ignored", device=link.device, step=error.step, reason=str(error))
            if link.trust is not Trust.TRUSTED:
                link.reason = str(error)
            return
        asked, now_us = link.offered or link.hello, self._clock.time_us()
        if asked is not None:
            result = self._verifier.refusal(
                id16("device", link.device), asked.session_public, asked.mapping_version,
                now_s=now_us // 1_000_000,
            )  # fmt: skip
            link.verdict = Appraised(False, now_us, steps_in_words(steps), (), result)
            self._audit.note("evidence rejected", link.device, step=error.step, result=_digest(result))
        boot = asked.boot_id if asked is not None else b""
        why = f"{error} ({error.hint})" if error.hint else str(error)
        if (boot, why) != (link.rejected_boot, link.reason):
            for step in steps_in_words(steps):
                self._log.info("appraisal step", device=link.device, step=step)
            self._log.error(
                "evidence rejected", device=link.device, step=error.step, reason=str(error), hint=error.hint
            )
        link.rejected_boot = boot
        self._on_reject(link, why)

    def _accept(self, link: DeviceLink, verdict: Verdict, appraised: Appraised) -> None:
        """Evidence was accepted; it speaks for the session that exists, or for the one that was offered."""
        offered, link.offered = link.offered, None
        fresh = offered is not None and verdict.session_pk == offered.session_public
        if not fresh and (link.hello is None or verdict.session_pk != link.hello.session_public):
            self._log.warning(
                "evidence ignored", device=link.device, reason="it speaks for another session than the hello"
            )
            return
        now_ms = self._clock.monotonic_ms()
        if fresh and offered is not None:
            link.installed = {release.component: release for release in offered.installed}
            link.hello, link.heard_ms = offered, now_ms
        link.verdict, link.reason = appraised, ""
        link.attested_mapping, link.attested_ms = verdict.result.mapping_version, now_ms
        link.trust = Trust.TRUSTED
        link.reputation.note_trusted(now_ms)
        self._audit.note("evidence accepted", link.device, result=_digest(verdict.signed_result))
        self._log.info(
            "evidence accepted", device=link.device, mapping_version=link.attested_mapping,
            steps="; ".join(verdict.steps),
        )  # fmt: skip
        self._on_accept(link, fresh=fresh)


def _digest(document: bytes) -> str:
    """A document's name in the audit log."""
    return hashlib.sha256(document).hexdigest()
