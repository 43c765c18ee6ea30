"""Makes ``documents.json``: trust documents with fixed keys and nonces, to be reproduced elsewhere.

Run it after a deliberate change of a format; a test compares the file with what it makes. All byte strings
are hexadecimal. Secret keys here are counters and repeated bytes: nothing real may ever use them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from nacl.bindings import crypto_scalarmult_base
from nacl.signing import SigningKey

from aif.protocol.appraisal import build_result, issue_result
from aif.protocol.content_keys import ContentKey, KeyUse, commitment, seal_hand_over, wrap_content_key
from aif.protocol.cose import sign1
from aif.protocol.deployment import (
    VERSION,
    BoundaryPort,
    DeployedAIM,
    Deployment,
    LocalChannel,
    ModelRelease,
    RemoteChannel,
)
from aif.protocol.deployment import sign as sign_deployment
from aif.protocol.enrolment import Anchors, EnrolmentRequest, EnrolmentResponse, build_request, build_response
from aif.protocol.evidence import (
    AttestationRequest,
    Component,
    Measured,
    build_claims,
    encode_request,
    issue_alias_certificate,
    issue_evidence,
    token_nonce,
)
from aif.protocol.grant import Grant, Role, RosterRow, issue_grant
from aif.protocol.identifiers import id16
from aif.protocol.numbers import MCU_LIMITS, AuthMode
from aif.protocol.pairing import pairing_code
from aif.protocol.ticket import FirmwareRange, ModelAEAD, Slot, Ticket, issue_ticket
from aif.protocol.wrap import wrap

FILE = Path(__file__).with_name("documents.json")
NOW_S = 1_700_000_000

DEVICE_KEY = SigningKey(bytes([1]) * 32)
ALIAS_KEY = SigningKey(bytes([2]) * 32)
CONTROLLER_KEY = SigningKey(bytes([3]) * 32)
TICKET_KEY = SigningKey(bytes([4]) * 32)
DEPLOYMENT_KEY = SigningKey(bytes([5]) * 32)
FRAME_KEY = SigningKey(bytes([6]) * 32)
SESSION_SK = bytes([7]) * 32
SESSION_PK = crypto_scalarmult_base(SESSION_SK)
EPHEMERAL_SK = bytes([8]) * 32
SECRET = bytes(range(16))
DEVICE_ID = id16("device", "mcu-1")
HW_CLASS = id16("hwclass", "cortex-m4")


def documents() -> dict[str, dict[str, str | int | bool]]:
    """Every vector: its inputs and its bytes."""
    return {
        "identifiers": {
            "device mcu-1": DEVICE_ID.hex(),
            "aim GestureRecognition/classifier": id16("aim", "GestureRecognition/classifier").hex(),
            "hwclass cortex-m4": HW_CLASS.hex(),
        },
        "cose_sign1": _cose(),
        "wrap": _wrap(),
        "grant": _grant(AuthMode.AEAD),
        "grant_signed": _grant(AuthMode.SIGNED),
        "attestation": _attestation(),
        "enrolment": _enrolment(),
        "ticket": _ticket(ModelAEAD.CHACHA20_POLY1305),
        "ticket_plain": _ticket(ModelAEAD.NONE),
        "content_key": _content_key(),
        "deployment": _deployment(),
    }


def _cose() -> dict[str, str | int | bool]:
    return {
        "seed": bytes(CONTROLLER_KEY).hex(),
        "public_key": bytes(CONTROLLER_KEY.verify_key).hex(),
        "payload": b"hello".hex(),
        "external_aad": b"AIF-EXAMPLE".hex(),
        "tagged": sign1(b"hello", CONTROLLER_KEY, external_aad=b"AIF-EXAMPLE", tagged=True).hex(),
        "untagged": sign1(b"hello", CONTROLLER_KEY, external_aad=b"AIF-EXAMPLE", tagged=False).hex(),
        "with_kid_6b": sign1(
            b"hello", CONTROLLER_KEY, external_aad=b"AIF-EXAMPLE", tagged=True, kid=b"k"
        ).hex(),
    }


def _wrap() -> dict[str, str | int | bool]:
    context = hashlib.blake2b(b"example", digest_size=32).digest()
    return {
        "recipient_sk": SESSION_SK.hex(),
        "recipient_pk": SESSION_PK.hex(),
        "ephemeral_sk": EPHEMERAL_SK.hex(),
        "context": context.hex(),
        "plaintext": bytes(range(32)).hex(),
        "blob": wrap(bytes(range(32)), SESSION_PK, EPHEMERAL_SK, context).hex(),
    }


def _grant(mode: AuthMode) -> dict[str, str | int | bool]:
    sign_pk = None if mode is AuthMode.AEAD else bytes(FRAME_KEY.verify_key)
    grant = Grant(
        channel_id=bytes.fromhex("095982704029d599cbaebc1a9b73caa3"),
        epoch=1,
        roles=Role.SEND,
        sender_index=7,
        k_epoch=bytes(range(32)),
        valid_from_s=NOW_S,
        valid_to_s=NOW_S + 7200,
        max_frames=1 << 20,
        mapping_version=3,
        serial=9,
        auth_mode=mode,
        max_frame_bytes=4096,
        roster=(RosterRow(7, bytes([0x11]) * 16, bytes([0x22]) * 16, bytes([0x33]) * 16, sign_pk),),
    )
    return {
        "auth_mode": str(mode),
        "controller_seed": bytes(CONTROLLER_KEY).hex(),
        "controller_pk": bytes(CONTROLLER_KEY.verify_key).hex(),
        "session_sk": SESSION_SK.hex(),
        "ephemeral_sk": EPHEMERAL_SK.hex(),
        "now_s": NOW_S,
        "k_epoch": bytes(range(32)).hex(),
        "blob": issue_grant(grant, SESSION_PK, CONTROLLER_KEY, EPHEMERAL_SK).hex(),
    }


def measured() -> Measured:
    """What the example device reports."""
    signer = hashlib.sha256(b"publisher").digest()
    return Measured(
        implementation_id=hashlib.sha256(b"implementation").digest(),
        boot_seed=bytes(range(32)),
        components=(
            Component("firmware", hashlib.sha256(b"firmware").digest(), "12", signer),
            Component("model:gesture", hashlib.sha256(b"model").digest(), "4", signer),
        ),
        its_generation=17,
    )


def _attestation() -> dict[str, str | int | bool]:
    request = AttestationRequest(bytes(range(32)), NOW_S + 10)
    firmware_hash = measured().components[0].measurement
    alias_pk = bytes(ALIAS_KEY.verify_key)
    alias = issue_alias_certificate(alias_pk, firmware_hash, DEVICE_KEY)
    host_claims = build_claims(request, SESSION_PK, 3, bytes(DEVICE_KEY.verify_key), measured())
    firmware_claims = build_claims(request, SESSION_PK, 3, alias_pk, measured())
    result = build_result(
        device_id=DEVICE_ID,
        passed=True,
        session_pk=SESSION_PK,
        mapping_version=3,
        issued_s=NOW_S,
        policy_id="default",
    )
    return {
        "device_pk": bytes(DEVICE_KEY.verify_key).hex(),
        "alias_pk": alias_pk.hex(),
        "controller_pk": bytes(CONTROLLER_KEY.verify_key).hex(),
        "session_pk": SESSION_PK.hex(),
        "mapping_version": 3,
        "now_s": NOW_S,
        "request": encode_request(request).hex(),
        "token_nonce": token_nonce(request.nonce, SESSION_PK, 3).hex(),
        "alias_certificate": alias.hex(),
        "evidence_host": issue_evidence(host_claims, SESSION_PK, DEVICE_KEY).hex(),
        "evidence_firmware": issue_evidence(
            firmware_claims, SESSION_PK, ALIAS_KEY, alias_certificate=alias
        ).hex(),
        "result": issue_result(result, CONTROLLER_KEY).hex(),
    }


def _enrolment() -> dict[str, str | int | bool]:
    request = EnrolmentRequest(
        DEVICE_ID, bytes(DEVICE_KEY.verify_key), SESSION_PK, bytes([9]) * 32, HW_CLASS, csr=None
    )
    message = build_request(request, SECRET, DEVICE_KEY)
    anchors = Anchors(
        store_root=b'{"signed": {"_type": "root"}}',
        grant_pk=bytes(CONTROLLER_KEY.verify_key),
        ticket_pk=bytes(TICKET_KEY.verify_key),
        deployment_pk=bytes(DEPLOYMENT_KEY.verify_key),
    )
    response = EnrolmentResponse(DEVICE_ID, anchors, bytes([10]) * 32, request.nonce, NOW_S)
    return {
        "secret": SECRET.hex(),
        "device_id": DEVICE_ID.hex(),
        "pairing_code": pairing_code(SECRET, DEVICE_ID),
        "controller_pk": bytes(CONTROLLER_KEY.verify_key).hex(),
        "request": message.hex(),
        "response": build_response(response, message, SECRET, CONTROLLER_KEY).hex(),
    }


def _ticket(aead: ModelAEAD) -> dict[str, str | int | bool]:
    plain = aead is ModelAEAD.NONE
    plaintext = hashlib.sha256(b"model").digest()
    ticket = Ticket(
        device_id=DEVICE_ID,
        nonce=bytes([11]) * 16,
        release_counter=4,
        component="gesture",
        slot=Slot.B,
        plaintext_sha256=plaintext,
        plaintext_bytes=10_000,
        ciphertext_sha256=plaintext if plain else hashlib.sha256(b"sealed model").digest(),
        ciphertext_bytes=10_000 if plain else 10_048,
        arena_bytes=8_192,
        firmware=FirmwareRange(10, 20, 1),
        not_after_s=NOW_S + 86_400,
        hw_class=HW_CLASS,
        aead=aead,
    )
    data = issue_ticket(ticket, TICKET_KEY)
    return {
        "ticket_seed": bytes(TICKET_KEY).hex(),
        "ticket_pk": bytes(TICKET_KEY.verify_key).hex(),
        "now_s": NOW_S,
        "ticket": data.hex(),
    }


def _content_key() -> dict[str, str | int | bool]:
    key, digest, release_id = bytes(range(32)), bytes([12]) * 32, bytes([13]) * 32
    wraps = {use.name.lower(): wrap_content_key(key, SESSION_PK, EPHEMERAL_SK, digest, use) for use in KeyUse}
    return {
        "session_sk": SESSION_SK.hex(),
        "content_key": key.hex(),
        "ticket_digest": digest.hex(),
        **{name: blob.hex() for name, blob in wraps.items()},
        "release_id": release_id.hex(),
        "commitment": commitment(key, release_id).hex(),
        "path": "aim/tinyaif/gesture/4",
        "hand_over": seal_hand_over(
            [ContentKey("aim/tinyaif/gesture/4", key)], SESSION_PK, EPHEMERAL_SK
        ).hex(),
    }


def _deployment() -> dict[str, str | int | bool]:
    digest = hashlib.sha256(b"model").digest()
    model = ModelRelease("gesture", "aim/tinyaif/gesture/4", 4, digest, 10_000, 8_192, b"ticket")
    aims = (
        DeployedAIM("scale", "Scale@1.0", bytes([14]) * 32, "any", {"gain": 1.5, "taps": (0.25, 0.75)}),
        DeployedAIM("classify", "Classify@1.2", bytes([15]) * 32, "mcu", {"on": True}, model),
    )
    channel = RemoteChannel(
        bytes([16]) * 16, "aif/ch/w-1/sense/out", "sense.out", "gw-1", ("scale.in",), ("mcu-1",),
        AuthMode.AEAD, 0, 64, 1.0, 4_096, 0, MCU_LIMITS.max_frame_bytes, MCU_LIMITS.max_message_bytes,
    )  # fmt: skip
    document = Deployment(
        VERSION, "mcu-1", "w-1", "Gestures", "1.0", 3, NOW_S * 1_000_000, "https://store.example", aims,
        (LocalChannel("scale.out", "classify.in", 0),), (channel,),
        (BoundaryPort("gesture", "classify.out", is_output=True),), plain_models=False,
    )  # fmt: skip
    return {
        "deployment_seed": bytes(DEPLOYMENT_KEY).hex(),
        "deployment_pk": bytes(DEPLOYMENT_KEY.verify_key).hex(),
        "device": "mcu-1",
        "document": sign_deployment(document, lambda message: DEPLOYMENT_KEY.sign(message).signature).hex(),
    }


if __name__ == "__main__":
    fresh = FILE.with_suffix(".json.new")
    fresh.write_text(json.dumps(documents(), indent=1) + "\n", encoding="utf-8")
    fresh.replace(FILE)
