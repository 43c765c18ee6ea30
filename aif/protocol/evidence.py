"""Evidence, in the words of RFC 9334: the challenge, a device's claims, and the message that carries them.

Decides the bytes of request and evidence. Whether evidence is believed is decided by ``appraisal``.
Invariant: the token's nonce binds it to the session key that will receive grants, and to a mapping.

The token is a tagged COSE_Sign1 (RFC 9052) of an EAT (RFC 9711) with the claim keys of RFC 9783, signed
with EdDSA. Claims that this profile does not define are refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from aif.protocol.cbor import Fields, decode, encode_document
from aif.protocol.cose import Sign, sign1, verify1
from aif.protocol.limits import (
    HASH_BYTES,
    KEY_BYTES,
    MAX_COMPONENT_TEXT,
    MAX_COMPONENTS,
    MAX_EVIDENCE_BYTES,
    MAX_REQUEST_BYTES,
    NONCE_BYTES,
    UINT16_MAX,
    UINT32_MAX,
    UINT63_MAX,
)

EVIDENCE_VERSION: Final = 1
PROFILE: Final = "urn:x-tinyaif:attestation:1"
FIRMWARE_COMPONENT: Final = "firmware"
"""Component type whose measurement the alias certificate vouches for."""
EDDSA: Final = -8  # RFC 9053 §2.2
_ALIAS_AAD: Final = b"AIF-ALIAS-1"
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
DEBUG_LIFECYCLES: Final = (Lifecycle.NON_ROT_DEBUG, Lifecycle.RECOVERABLE_ROT_DEBUG)


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
    payload = encode_document(_claims_document(claims), read_claims)
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


def open_alias_certificate(certificate: bytes, device_pk: bytes) -> tuple[bytes, bytes]:
    """The attestation key and the firmware hash that a device key vouches for.

    Raises:
        RemoteProtocolError: malformed.
        SignatureInvalid: not by that device key.
    """
    return _read_alias(
        verify1(certificate, device_pk, external_aad=_ALIAS_AAD, tagged=False, max_bytes=_MAX_ALIAS_BYTES)
    )


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


def read_claims(payload: bytes) -> Claims:
    """The payload of a token, nothing of it verified.

    Raises:
        RemoteProtocolError: malformed.
    """
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
