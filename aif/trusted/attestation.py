"""Attestation Service: the Attester of a device and the Verifier of a site (RFC 9334).

Builds Evidence by the rules of ``protocol.evidence`` and appraises it by those of ``protocol.appraisal``.
Decides which parts are measured and which names they have; the reference values come from the Store, where
their publishers signed them.

Measurement happens when a part is loaded; nothing watches it afterwards, and a host without a hardware root
can claim what it likes. Source: MPAI-AIF V2 Attestation Service; RFC 9334, RFC 9711, RFC 9783.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from nacl.signing import SigningKey

from aif.errors import AttestationRejected
from aif.protocol.appraisal import (
    AppraisalLog,
    AppraisalPolicy,
    AttestationKey,
    AttestationResult,
    ReferenceValues,
    Step,
    appraise,
    build_result,
    issue_result,
)
from aif.protocol.cose import Sign
from aif.protocol.evidence import (
    AttestationRequest,
    Component,
    Measured,
    build_claims,
    encode_request,
    issue_evidence,
    read_request,
)
from aif.protocol.limits import (
    ATTESTATION_REQUEST_VALIDITY_S,
    MAX_COMPONENT_TEXT,
    NONCE_BYTES,
)

RUNTIME_COMPONENT = "runtime:aif"


def aim_component(reference: str) -> str:
    """Component type of an AIM package, by its ``Name@version``."""
    return _named("aim:", reference)


def model_component(component: str) -> str:
    """Component type of an installed model, by its Store component."""
    return _named("model:", component)


def _named(kind: str, name: str) -> str:
    """A name that is too long for a claim is replaced by its digest."""
    text = kind + name
    return text if len(text) <= MAX_COMPONENT_TEXT else kind + hashlib.sha256(name.encode()).hexdigest()[:40]


def implementation_id(hw_class: str) -> bytes:
    """The claim 2396 of every device of a hardware class."""
    return hashlib.sha256(b"AIF-HWCLASS-1" + hw_class.encode()).digest()


def part(kind: str, measurement: bytes, version: str, store_root: bytes) -> Component:
    """A measured part; its signer is the Store root that vouches for whoever published it."""
    return Component(kind, measurement, version, hashlib.sha256(store_root).digest())


class Attester:
    """Answers challenges about this device's current boot.

    ``identity_seed`` (Ed25519) signs; ``session_pk`` (X25519) and ``boot_seed`` (32 bytes) are of this boot.
    """

    def __init__(self, identity_seed: bytes, hw_class: str, session_pk: bytes, boot_seed: bytes) -> None:
        self._key = SigningKey(identity_seed)
        self._hw_class, self._session_pk, self._boot_seed = hw_class, session_pk, boot_seed

    def evidence(
        self, request: bytes, *, components: Iterable[Component], mapping_version: int, generation: int
    ) -> bytes:
        """Evidence for one challenge.

        Raises:
            RemoteProtocolError: the challenge is malformed.
        """
        measured = Measured(
            implementation_id(self._hw_class), self._boot_seed, tuple(components), its_generation=generation
        )
        claims = build_claims(
            read_request(request), self._session_pk, mapping_version, bytes(self._key.verify_key), measured
        )
        return issue_evidence(claims, self._session_pk, lambda m: self._key.sign(m).signature)


UNPROVEN_STEPS = frozenset({Step.FORMAT, Step.KEY, Step.SIGNATURE, Step.PROFILE, Step.NONCE})
"""Steps that anybody's bytes can fail: failing them says nothing about the device."""

MAX_FALSE_ANSWERS = 256
"""Answers to one challenge that anybody could have sent and that are looked at: some 50 ms of work."""


@dataclass(slots=True)
class _Challenge:
    request: AttestationRequest
    mapping_version: int
    false_answers: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of one appraisal, with its log in words and the Attestation Result that was signed over it."""

    result: AttestationResult
    session_pk: bytes
    generation: int
    steps: tuple[str, ...]
    components: tuple[Component, ...]
    signed_result: bytes


@dataclass(slots=True)
class Verifier:
    """Challenges devices and appraises their answers; one challenge is outstanding per device.

    A challenge ends with the device's own answer, good or bad, and never with what anybody else sent.
    """

    policy: AppraisalPolicy
    random: Callable[[int], bytes]
    sign_result: Sign
    _open: dict[str, _Challenge] = field(default_factory=dict)

    def challenge(self, device: str, *, mapping_version: int, now_s: int) -> bytes:
        """A fresh challenge; an earlier one of this device is void."""
        request = AttestationRequest(self.random(NONCE_BYTES), now_s + ATTESTATION_REQUEST_VALIDITY_S)
        self._open[device] = _Challenge(request, mapping_version)
        return encode_request(request)

    def expects(self, device: str, *, now_s: int | None = None) -> bool:
        """Whether an answer of this device is outstanding; with ``now_s``, whether it can be in time."""
        challenge = self._open.get(device)
        return challenge is not None and (now_s is None or now_s <= challenge.request.not_after_s)

    def appraise(
        self,
        device: str,
        device_id: bytes,
        evidence: bytes,
        *,
        identity_pk: bytes,
        revoked: bool,
        hw_class: str,
        reference: Mapping[str, Iterable[Component]],
        last_generation: int,
        now_s: int,
        log: AppraisalLog | None = None,
    ) -> Verdict:
        """Appraise one answer. What is not proven to be this device's own leaves the challenge open.

        Args:
            device: the name on whose topic it came.
            device_id: 16 bytes, for the result.
            evidence: as received.
            identity_pk: Ed25519 key of that device in the registry.
            revoked: whether the registry says so.
            hw_class: the hardware class it was provisioned with.
            reference: the good measurements by component type.
            last_generation: highest storage generation that was ever accepted from it.
            now_s: Unix time.
            log: receives every step; complete after a rejection too.

        Raises:
            AttestationRejected: ``step`` names the first step that failed.
        """
        log = log if log is not None else AppraisalLog()
        challenge = self._open.get(device)
        if challenge is None:
            raise AttestationRejected(f"{device} sent evidence that nobody asked for", step=Step.NONCE)
        if challenge.false_answers >= MAX_FALSE_ANSWERS:
            raise AttestationRejected(f"too many false answers for {device}", step=Step.NONCE)
        good = frozenset(component for parts in reference.values() for component in parts)
        try:
            appraisal = appraise(
                evidence,
                request=challenge.request,
                mapping_version=challenge.mapping_version,
                key=AttestationKey(identity_pk, revoked=revoked),
                reference=ReferenceValues(frozenset({implementation_id(hw_class)}), good),
                last_generation=last_generation,
                policy=self.policy,
                now_s=now_s,
                log=log,
            )
        except AttestationRejected as error:
            if error.step in UNPROVEN_STEPS:
                challenge.false_answers += 1
            else:
                del self._open[device]
            raise
        del self._open[device]
        result = build_result(
            device_id=device_id,
            passed=True,
            session_pk=appraisal.session_pk,
            mapping_version=appraisal.mapping_version,
            issued_s=now_s,
            policy_id=self.policy.policy_id,
        )
        measured = appraisal.claims.measured
        return Verdict(
            result,
            appraisal.session_pk,
            measured.its_generation,
            steps_in_words(log),
            measured.components,
            issue_result(result, self.sign_result),
        )

    def refusal(self, device_id: bytes, session_pk: bytes, mapping_version: int, *, now_s: int) -> bytes:
        """The signed Attestation Result of a session that did not pass."""
        result = build_result(
            device_id=device_id,
            passed=False,
            session_pk=session_pk,
            mapping_version=mapping_version,
            issued_s=now_s,
            policy_id=self.policy.policy_id,
        )
        return issue_result(result, self.sign_result)


def steps_in_words(log: AppraisalLog) -> tuple[str, ...]:
    """One line per step that was taken: its name, and ``ok`` or what was wrong."""
    return tuple(f"{entry.step}: {'ok' if entry.ok else entry.detail}" for entry in log.entries)
