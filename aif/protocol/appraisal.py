"""Appraisal of Evidence (RFC 9334): the Verifier's ordered steps, their log, and the Attestation Result.

Decides the order in which a Verifier appraises evidence, and the bytes of a result. Does not decide what the
reference values are, nor what follows from a result. Invariants: nothing is trusted before the signature;
every step is recorded, the failing one too, and the first failure ends the appraisal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from aif.errors import (
    AttestationRejected,
    Expired,
    NotAuthorised,
    RemoteProtocolError,
    ReplayDetected,
    RollbackDetected,
    SignatureInvalid,
    TrustError,
)
from aif.protocol.cbor import Fields, decode, encode_document
from aif.protocol.cose import Sign, parse1, sign1, verify1
from aif.protocol.evidence import (
    DEBUG_LIFECYCLES,
    EDDSA,
    FIRMWARE_COMPONENT,
    PROFILE,
    AttestationRequest,
    Claims,
    Component,
    Evidence,
    Lifecycle,
    instance_id,
    open_alias_certificate,
    read_claims,
    read_evidence,
    token_nonce,
)
from aif.protocol.limits import (
    ATTESTATION_RESULT_VALIDITY_S,
    HASH_BYTES,
    ID_BYTES,
    MAX_COMPONENT_TEXT,
    MAX_EVIDENCE_BYTES,
    MAX_RESULT_BYTES,
    UINT32_MAX,
    UINT63_MAX,
)
from aif.protocol.wrap import check_x25519_key

_RESULT_AAD: Final = b"AIF-RESULT-1"


class Step(StrEnum):
    """Steps of an appraisal, in their order."""

    FORMAT = "format"
    KEY = "key"
    SIGNATURE = "signature"
    PROFILE = "profile"
    NONCE = "nonce"
    LIFECYCLE = "lifecycle"
    IMPLEMENTATION = "implementation"
    MEASUREMENT = "measurement"
    UNKNOWN = "unknown"
    DEBUG = "debug"
    GENERATION = "generation"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """A device's row in the Verifier's registry."""

    public_key: bytes
    """Ed25519: the attestation key, or with ``alias`` the device key that certifies it."""
    revoked: bool = False
    alias: bool = False
    algorithm: int = EDDSA


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """What the publishers signed as good, for one hardware class."""

    implementation_ids: frozenset[bytes]
    components: frozenset[Component]
    counters: Mapping[Component, int] = field(default_factory=dict)
    """Release counter of each component; 0 when absent."""
    minimum_counters: Mapping[str, int] = field(default_factory=dict)
    """Lowest acceptable counter per component type; 0 when absent."""


@dataclass(frozen=True, slots=True)
class AppraisalPolicy:
    """What a site demands beyond genuineness; ``policy_id`` names it in results."""

    policy_id: str
    required_components: frozenset[str] = frozenset()
    """Component types that the device's AIMs need."""
    allow_debug: bool = False


@dataclass(frozen=True, slots=True)
class AppraisalEntry:
    """One step that was taken."""

    step: Step
    ok: bool
    detail: str


class AppraisalLog:
    """The steps of one appraisal. The caller owns it, so it is complete after a rejection too."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[AppraisalEntry] = []

    @property
    def entries(self) -> tuple[AppraisalEntry, ...]:
        return tuple(self._entries)

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """Record a step; what fails inside becomes an AttestationRejected that names it."""
        try:
            yield
        except (RemoteProtocolError, TrustError) as error:
            self._entries.append(AppraisalEntry(step, ok=False, detail=error.message))
            raise AttestationRejected(
                f"evidence refused at step {step}: {error.message}", step=step, hint=error.hint
            ) from error
        self._entries.append(AppraisalEntry(step, ok=True, detail=""))


@dataclass(frozen=True, slots=True)
class Appraisal:
    """Evidence that passed every step."""

    claims: Claims
    session_pk: bytes
    mapping_version: int


@dataclass(frozen=True, slots=True)
class AttestationResult:
    """The Controller's word about one session of one device, which devices show to each other."""

    device_id: bytes
    passed: bool
    session_hash: bytes
    """SHA-256 of the session's X25519 public key."""
    mapping_version: int
    issued_s: int
    not_after_s: int
    policy_id: str


# --- Verifier -------------------------------------------------------------------------------------


def appraise(
    data: bytes,
    *,
    request: AttestationRequest | None,
    mapping_version: int,
    key: AttestationKey | None,
    reference: ReferenceValues,
    last_generation: int,
    policy: AppraisalPolicy,
    now_s: int,
    log: AppraisalLog,
) -> Appraisal:
    """Appraise evidence against everything known about the device that sent it.

    Args:
        data: the evidence message as received.
        request: the device's one outstanding challenge, None when there is none; the caller forgets it
            before it calls, so that no answer is ever used twice.
        mapping_version: the mapping the device should have.
        key: the device's registered key, None when unknown.
        reference: reference values of the device's hardware class.
        last_generation: highest storage generation the device has reported.
        policy: the site's demands.
        now_s: Unix time.
        log: receives every step.

    Raises:
        AttestationRejected: at the first step that fails; ``step`` is one of ``Step``.
    """
    with log.step(Step.FORMAT):
        evidence = read_evidence(data)
        token = parse1(evidence.token, tagged=True, max_bytes=MAX_EVIDENCE_BYTES)
        claims = read_claims(token.unverified_payload)
    with log.step(Step.KEY):
        attestation_pk, vouched = _attestation_key(key, evidence)
    with log.step(Step.SIGNATURE):
        token.verify(attestation_pk)
        if claims.instance_id != instance_id(attestation_pk):
            raise SignatureInvalid("the token names another key than the one that signed it")
    with log.step(Step.PROFILE):
        if claims.profile != PROFILE:
            raise NotAuthorised(f"profile must be {PROFILE!r}, not {claims.profile!r}")
    with log.step(Step.NONCE):
        _check_binding(claims, evidence, request, mapping_version, now_s)
    measured = claims.measured
    with log.step(Step.LIFECYCLE):
        if measured.lifecycle >> 8 not in (Lifecycle.SECURED, *DEBUG_LIFECYCLES):
            raise NotAuthorised(f"security life cycle 0x{measured.lifecycle:04x} is not operational")
    with log.step(Step.IMPLEMENTATION):
        if measured.implementation_id not in reference.implementation_ids:
            raise NotAuthorised("the implementation does not belong to the device's hardware class")
    with log.step(Step.MEASUREMENT):
        _check_measurements(measured.components, reference, vouched)
    with log.step(Step.UNKNOWN):
        _refuse_unknown(claims, reference)
    with log.step(Step.DEBUG):
        if measured.lifecycle >> 8 in DEBUG_LIFECYCLES and not policy.allow_debug:
            raise NotAuthorised("the device is in a debug state")
    with log.step(Step.GENERATION):
        if measured.its_generation < last_generation:
            raise RollbackDetected(
                f"storage generation {measured.its_generation} is older than {last_generation}",
                hint="the device's storage was restored from a copy: enrol it again",
            )
    with log.step(Step.POLICY):
        missing = policy.required_components - {component.type for component in measured.components}
        if missing:
            raise NotAuthorised(f"policy {policy.policy_id!r} needs component {min(missing)!r}")
    return Appraisal(claims, evidence.session_pk, evidence.mapping_version)


def _attestation_key(key: AttestationKey | None, evidence: Evidence) -> tuple[bytes, bytes | None]:
    """The key that must have signed the token, and the firmware hash vouched for with it."""
    if key is None:
        raise NotAuthorised("the device's key is not known", hint="enrol the device first")
    if key.revoked:
        raise NotAuthorised("the device's key is revoked")
    if key.algorithm != EDDSA:
        raise NotAuthorised(
            f"the key is registered for COSE algorithm {key.algorithm}, the token uses {EDDSA}"
        )
    if key.alias is not (evidence.alias_certificate is not None):
        raise NotAuthorised(f"the device must {'' if key.alias else 'not '}send an alias certificate")
    if evidence.alias_certificate is None:
        return key.public_key, None
    return open_alias_certificate(evidence.alias_certificate, key.public_key)


def _check_binding(
    claims: Claims, evidence: Evidence, request: AttestationRequest | None, mapping_version: int, now_s: int
) -> None:
    if request is None:
        raise ReplayDetected("no request is outstanding for this device")
    if now_s > request.not_after_s:
        raise Expired(f"the request was good until {request.not_after_s}, and it is {now_s}")
    check_x25519_key(evidence.session_pk)
    if claims.nonce != token_nonce(request.nonce, evidence.session_pk, evidence.mapping_version):
        raise ReplayDetected("the token answers another request, session key or mapping")
    if not claims.mapping_version == evidence.mapping_version == mapping_version:
        raise RollbackDetected(f"the device has mapping {evidence.mapping_version}, not {mapping_version}")


def _check_measurements(
    components: tuple[Component, ...], reference: ReferenceValues, vouched: bytes | None
) -> None:
    known_types = {component.type for component in reference.components}
    types = [component.type for component in components]
    if len(set(types)) < len(types):
        raise NotAuthorised("a component is reported twice")
    for component in components:
        if component.type in known_types and component not in reference.components:
            raise NotAuthorised(
                f"component {component.type!r} version {component.version!r} is not a reference value",
                hint="publish what the device runs (`aif store publish`), or install there what was "
                "published; a file that was edited since counts too, so start its process again afterwards",
            )
        minimum = reference.minimum_counters.get(component.type, 0)
        if component in reference.components and reference.counters.get(component, 0) < minimum:
            raise RollbackDetected(
                f"component {component.type!r} version {component.version!r} is below the minimum {minimum}"
            )
    if vouched is not None and vouched not in {
        c.measurement for c in components if c.type == FIRMWARE_COMPONENT
    }:
        raise NotAuthorised("the firmware that reports is not the firmware that was booted")


def _refuse_unknown(claims: Claims, reference: ReferenceValues) -> None:
    known_types = {component.type for component in reference.components}
    for component in claims.measured.components:
        if component.type not in known_types:
            raise NotAuthorised(f"component {component.type!r} has no reference value")
    if claims.unknown:
        keys = ", ".join(sorted(repr(key)[:40] for key in claims.unknown)[:4])
        raise NotAuthorised(f"the profile does not define claim {keys}")


# --- Attestation Result ---------------------------------------------------------------------------


def build_result(
    *, device_id: bytes, passed: bool, session_pk: bytes, mapping_version: int, issued_s: int, policy_id: str
) -> AttestationResult:
    """The result of one appraisal, valid for 5 minutes."""
    return AttestationResult(
        device_id=device_id,
        passed=passed,
        session_hash=hashlib.sha256(session_pk).digest(),
        mapping_version=mapping_version,
        issued_s=issued_s,
        not_after_s=issued_s + ATTESTATION_RESULT_VALIDITY_S,
        policy_id=policy_id,
    )


def issue_result(result: AttestationResult, sign: Sign) -> bytes:
    """Sign a result with the Controller's attestation-result key.

    Raises:
        LocalProtocolError: the result would break its own format.
    """
    document = {
        1: result.device_id,
        2: result.passed,
        3: result.session_hash,
        4: result.mapping_version,
        5: result.issued_s,
        6: result.not_after_s,
        7: result.policy_id,
    }
    return sign1(encode_document(document, _read_result), sign, external_aad=_RESULT_AAD, tagged=True)


def verify_result(
    data: bytes, result_pk: bytes, *, device_id: bytes, session_pk: bytes, mapping_version: int, now_s: int
) -> AttestationResult:
    """The result in ``data``, if it says that this session of this device passed and still holds.

    Raises:
        RemoteProtocolError: malformed.
        SignatureInvalid: not by the Controller.
        NotAuthorised: about another device or session.
        RollbackDetected: about an earlier mapping.
        Expired: no longer valid.
        AttestationRejected: the device did not pass (``step`` is "result").
    """
    payload = verify1(data, result_pk, external_aad=_RESULT_AAD, tagged=True, max_bytes=MAX_RESULT_BYTES)
    result = _read_result(payload)
    if result.device_id != device_id or result.session_hash != hashlib.sha256(session_pk).digest():
        raise NotAuthorised("attestation result: about another device or session")
    if result.mapping_version < mapping_version:
        raise RollbackDetected(
            f"attestation result: mapping {result.mapping_version} is older than {mapping_version}"
        )
    if now_s > result.not_after_s:
        raise Expired(f"attestation result: good until {result.not_after_s}, and it is {now_s}")
    if not result.passed:
        raise AttestationRejected("attestation result: the device did not pass", step="result")
    return result


def _read_result(payload: bytes) -> AttestationResult:
    fields = Fields(decode(payload, max_bytes=MAX_RESULT_BYTES), "attestation result")
    result = AttestationResult(
        device_id=fields.bytes(1, "device id", length=ID_BYTES),
        passed=fields.flag(2, "passed"),
        session_hash=fields.bytes(3, "session hash", length=HASH_BYTES),
        mapping_version=fields.uint(4, "mapping version", maximum=UINT32_MAX),
        issued_s=fields.uint(5, "issued", maximum=UINT63_MAX),
        not_after_s=fields.uint(6, "not-after", maximum=UINT63_MAX),
        policy_id=fields.text(7, "policy id", max_length=MAX_COMPONENT_TEXT),
    )
    fields.done()
    if not result.issued_s < result.not_after_s <= result.issued_s + ATTESTATION_RESULT_VALIDITY_S:
        raise RemoteProtocolError("attestation result: valid for more than 5 minutes, or not at all")
    return result
