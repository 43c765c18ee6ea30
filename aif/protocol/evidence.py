"""Attestation in the words of RFC 9334: Evidence, its appraisal, and the Attestation Result.

Decides the bytes of request, evidence and result, and the order in which a Verifier appraises evidence.
Does not decide what the reference values are, nor what follows from a result. Invariants: nothing is trusted
before the signature; the token's nonce binds it to the session key that will receive grants; every step is
recorded, the failing one too, and the first failure ends the appraisal.

The token is a tagged COSE_Sign1 (RFC 9052) of an EAT (RFC 9711) with the claim keys of RFC 9783, signed
with EdDSA. Claims that this profile does not define are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
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
from aif.protocol.limits import (
    ATTESTATION_RESULT_VALIDITY_S,
    HASH_BYTES,
    ID_BYTES,
    KEY_BYTES,
    MAX_COMPONENT_TEXT,
    MAX_COMPONENTS,
    MAX_EVIDENCE_BYTES,
    MAX_REQUEST_BYTES,
    MAX_RESULT_BYTES,
    NONCE_BYTES,
    UINT16_MAX,
    UINT32_MAX,
    UINT63_MAX,
)
from aif.protocol.wrap import check_x25519_key

EVIDENCE_VERSION: Final = 1
PROFILE: Final = "urn:x-tinyaif:attestation:1"
FIRMWARE_COMPONENT: Final = "firmware"
"""Component type whose measurement the alias certificate vouches for."""
_EDDSA: Final = -8  # RFC 9053 §2.2
_ALIAS_AAD: Final = b"AIF-ALIAS-1"
_RESULT_AAD: Final = b"AIF-RESULT-1"
_INSTANCE_PREFIX: Final = b"\x01"  # RFC 9783 §4.2.1: a random-like UEID
_MAX_ALIAS_BYTES: Final = 256
_CLIENT_RANGE: Final = (1 << 31) - 1  # RFC 9783 §4.1.2: a signed 32-bit number


class Claim(IntEnum):
    """Claim keys: RFC 9711, RFC 9783, and two of this project in the private range."""

    NONCE = 10
    INSTANCE_ID = 256
    PROFILE = 265
    BOOT_SEED = 268
    CLIENT_ID = 2394
    LIFECYCLE = 2395
    IMPLEMENTATION_ID = 2396
    COMPONENTS = 2399
    ITS_GENERATION = -70001
    MAPPING_VERSION = -70002


class Lifecycle(IntEnum):
    """High byte of the security life cycle (RFC 9783 §4.3.1)."""

    UNKNOWN = 0x00
    ASSEMBLY_AND_TEST = 0x10
    ROT_PROVISIONING = 0x20
    SECURED = 0x30
    NON_ROT_DEBUG = 0x40
    RECOVERABLE_ROT_DEBUG = 0x50
    DECOMMISSIONED = 0x60


SECURED: Final = Lifecycle.SECURED << 8
_DEBUG: Final = (Lifecycle.NON_ROT_DEBUG, Lifecycle.RECOVERABLE_ROT_DEBUG)


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
class AttestationRequest:
    """The Verifier's challenge: a fresh nonce, good for one answer until ``not_after_s`` (Unix time)."""

    nonce: bytes
    not_after_s: int


@dataclass(frozen=True, slots=True)
class Component:
    """One measured part: boot stage, firmware or runtime, an installed model, the configuration."""

    type: str
    measurement: bytes
    """SHA-256 or BLAKE2b-256 of the part; for a model, SHA-256 of its plaintext."""
    version: str
    """For a model, its release counter in decimal."""
    signer: bytes
    """SHA-256 of the public key that signed the part."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a device knows of itself when it is asked."""

    implementation_id: bytes
    boot_seed: bytes
    """32 random bytes of this boot."""
    components: tuple[Component, ...]
    its_generation: int
    lifecycle: int = SECURED
    client_id: int = 1


@dataclass(frozen=True, slots=True)
class Claims:
    """The token's payload. ``unknown`` holds claim keys that this profile does not define."""

    nonce: bytes
    instance_id: bytes
    profile: str
    mapping_version: int
    measured: Measured
    unknown: frozenset[object] = frozenset()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a device answers. ``alias_certificate`` comes from firmware with a boot stage of its own."""

    token: bytes
    session_pk: bytes
    mapping_version: int
    alias_certificate: bytes | None = None


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """A device's row in the Verifier's registry."""

    public_key: bytes
    """Ed25519: the attestation key, or with ``alias`` the device key that certifies it."""
    revoked: bool = False
    alias: bool = False
    algorithm: int = _EDDSA


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


# --- Attester -------------------------------------------------------------------------------------


def token_nonce(nonce: bytes, session_pk: bytes, mapping_version: int) -> bytes:
    """SHA-256(nonce || session pk || mapping version as u32): binds evidence to key and mapping."""
    return hashlib.sha256(nonce + session_pk + mapping_version.to_bytes(4)).digest()


def instance_id(attestation_pk: bytes) -> bytes:
    """``01 || SHA-256(attestation public key)``, 33 bytes (RFC 9783 §4.2.1)."""
    return _INSTANCE_PREFIX + hashlib.sha256(attestation_pk).digest()


def build_claims(
    request: AttestationRequest,
    session_pk: bytes,
    mapping_version: int,
    attestation_pk: bytes,
    measured: Measured,
) -> Claims:
    """The claims that answer ``request`` for one session."""
    return Claims(
        nonce=token_nonce(request.nonce, session_pk, mapping_version),
        instance_id=instance_id(attestation_pk),
        profile=PROFILE,
        mapping_version=mapping_version,
        measured=measured,
    )


def issue_evidence(
    claims: Claims, session_pk: bytes, sign: Sign, *, alias_certificate: bytes | None = None
) -> bytes:
    """Sign the claims with the attestation key and put the evidence message around the token.

    Raises:
        LocalProtocolError: the evidence would break its own format.
    """
    payload = encode_document(_claims_document(claims), _read_claims)
    document: dict[int, object] = {
        0: EVIDENCE_VERSION,
        1: sign1(payload, sign, tagged=True),
        2: session_pk,
        3: claims.mapping_version,
    }
    if alias_certificate is not None:
        document[4] = alias_certificate
    return encode_document(document, read_evidence)


def issue_alias_certificate(alias_pk: bytes, firmware_hash: bytes, sign: Sign) -> bytes:
    """The boot stage's word that this firmware runs with this attestation key, by the device key."""
    payload = encode_document({1: alias_pk, 2: firmware_hash}, _read_alias)
    return sign1(payload, sign, external_aad=_ALIAS_AAD, tagged=False)


def encode_request(request: AttestationRequest) -> bytes:
    """The challenge as sent."""
    return encode_document({1: request.nonce, 2: request.not_after_s}, read_request)


def read_request(data: bytes) -> AttestationRequest:
    """The challenge as received.

    Raises:
        RemoteProtocolError: malformed.
    """
    fields = Fields(decode(data, max_bytes=MAX_REQUEST_BYTES), "attestation request")
    request = AttestationRequest(
        fields.bytes(1, "nonce", length=NONCE_BYTES), fields.uint(2, "not-after", maximum=UINT63_MAX)
    )
    fields.done()
    return request


# --- Verifier -------------------------------------------------------------------------------------


def read_evidence(data: bytes) -> Evidence:
    """The evidence message, nothing of it verified.

    Raises:
        RemoteProtocolError: larger than 4 KiB or malformed.
    """
    fields = Fields(decode(data, max_bytes=MAX_EVIDENCE_BYTES), "evidence")
    fields.version(0, EVIDENCE_VERSION)
    evidence = Evidence(
        token=fields.bytes(1, "token", max_length=MAX_EVIDENCE_BYTES),
        session_pk=fields.bytes(2, "session key", length=KEY_BYTES),
        mapping_version=fields.uint(3, "mapping version", maximum=UINT32_MAX),
        alias_certificate=fields.bytes(4, "alias certificate", max_length=_MAX_ALIAS_BYTES)
        if 4 in fields
        else None,
    )
    fields.done()
    return evidence


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
        claims = _read_claims(token.unverified_payload)
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
        if measured.lifecycle >> 8 not in (Lifecycle.SECURED, *_DEBUG):
            raise NotAuthorised(f"security life cycle 0x{measured.lifecycle:04x} is not operational")
    with log.step(Step.IMPLEMENTATION):
        if measured.implementation_id not in reference.implementation_ids:
            raise NotAuthorised("the implementation does not belong to the device's hardware class")
    with log.step(Step.MEASUREMENT):
        _check_measurements(measured.components, reference, vouched)
    with log.step(Step.UNKNOWN):
        _refuse_unknown(claims, reference)
    with log.step(Step.DEBUG):
        if measured.lifecycle >> 8 in _DEBUG and not policy.allow_debug:
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
    if key.algorithm != _EDDSA:
        raise NotAuthorised(
            f"the key is registered for COSE algorithm {key.algorithm}, the token uses {_EDDSA}"
        )
    if key.alias is not (evidence.alias_certificate is not None):
        raise NotAuthorised(f"the device must {'' if key.alias else 'not '}send an alias certificate")
    if evidence.alias_certificate is None:
        return key.public_key, None
    return _read_alias(
        verify1(
            evidence.alias_certificate,
            key.public_key,
            external_aad=_ALIAS_AAD,
            tagged=False,
            max_bytes=_MAX_ALIAS_BYTES,
        )
    )


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
                f"component {component.type!r} version {component.version!r} is not a reference value"
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


# --- bytes ----------------------------------------------------------------------------------------


def _claims_document(claims: Claims) -> dict[int, object]:
    measured = claims.measured
    return {
        Claim.NONCE: claims.nonce,
        Claim.INSTANCE_ID: claims.instance_id,
        Claim.PROFILE: claims.profile,
        Claim.BOOT_SEED: measured.boot_seed,
        Claim.CLIENT_ID: measured.client_id,
        Claim.LIFECYCLE: measured.lifecycle,
        Claim.IMPLEMENTATION_ID: measured.implementation_id,
        Claim.COMPONENTS: [
            {1: c.type, 2: c.measurement, 4: c.version, 5: c.signer} for c in measured.components
        ],
        Claim.ITS_GENERATION: measured.its_generation,
        Claim.MAPPING_VERSION: claims.mapping_version,
    }


def _read_claims(payload: bytes) -> Claims:
    fields = Fields(decode(payload, max_bytes=MAX_EVIDENCE_BYTES), "token")
    parts = fields.array(Claim.COMPONENTS, "components", max_items=MAX_COMPONENTS)
    measured = Measured(
        implementation_id=fields.bytes(Claim.IMPLEMENTATION_ID, "implementation id", length=HASH_BYTES),
        boot_seed=fields.bytes(Claim.BOOT_SEED, "boot seed", length=NONCE_BYTES),
        components=tuple(_read_component(part, f"token: component {i}") for i, part in enumerate(parts)),
        its_generation=fields.uint(Claim.ITS_GENERATION, "storage generation", maximum=UINT63_MAX),
        lifecycle=fields.uint(Claim.LIFECYCLE, "lifecycle", maximum=UINT16_MAX),
        client_id=fields.integer(
            Claim.CLIENT_ID, "client id", minimum=-_CLIENT_RANGE - 1, maximum=_CLIENT_RANGE
        ),
    )
    return Claims(
        nonce=fields.bytes(Claim.NONCE, "nonce", length=NONCE_BYTES),
        instance_id=fields.bytes(Claim.INSTANCE_ID, "instance id", length=1 + HASH_BYTES),
        profile=fields.text(Claim.PROFILE, "profile", max_length=MAX_COMPONENT_TEXT),
        mapping_version=fields.uint(Claim.MAPPING_VERSION, "mapping version", maximum=UINT32_MAX),
        measured=measured,
        unknown=fields.unread(),
    )


def _read_component(value: object, what: str) -> Component:
    fields = Fields(value, what)
    component = Component(
        type=fields.text(1, "type", max_length=MAX_COMPONENT_TEXT),
        measurement=fields.bytes(2, "measurement", length=HASH_BYTES),
        version=fields.text(4, "version", max_length=MAX_COMPONENT_TEXT),
        signer=fields.bytes(5, "signer", length=HASH_BYTES),
    )
    fields.done()
    return component


def _read_alias(payload: bytes) -> tuple[bytes, bytes]:
    fields = Fields(decode(payload, max_bytes=_MAX_ALIAS_BYTES), "alias certificate")
    pair = (
        fields.bytes(1, "alias key", length=KEY_BYTES),
        fields.bytes(2, "firmware hash", length=HASH_BYTES),
    )
    fields.done()
    return pair


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
