"""The published vectors are what this code makes, and they verify as any implementation must find."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from aif.protocol import deployment
from aif.protocol.appraisal import (
    AppraisalLog,
    AppraisalPolicy,
    AttestationKey,
    ReferenceValues,
    appraise,
    verify_result,
)
from aif.protocol.content_keys import KeyUse, check_commitment, open_hand_over, unwrap_content_key
from aif.protocol.cose import verify1
from aif.protocol.enrolment import open_request, open_response
from aif.protocol.evidence import read_request
from aif.protocol.grant import open_grant
from aif.protocol.identifiers import id16
from aif.protocol.pairing import read_pairing_code
from aif.protocol.ticket import ComponentState, InstallTarget, Slot, verify_ticket
from aif.protocol.wrap import unwrap

HERE = Path(__file__).parent.parent / "vectors"
VECTORS: dict[str, dict[str, Any]] = json.loads((HERE / "documents.json").read_text(encoding="utf-8"))
MAKER = runpy.run_path(str(HERE / "make_documents.py"))


def raw(group: str, name: str) -> bytes:
    return bytes.fromhex(VECTORS[group][name])


def test_the_file_is_what_the_code_makes() -> None:
    assert MAKER["documents"]() == VECTORS


def test_identifiers() -> None:
    assert id16("device", "mcu-1") == raw("identifiers", "device mcu-1")
    assert id16("hwclass", "cortex-m4") == raw("identifiers", "hwclass cortex-m4")


@pytest.mark.parametrize(("name", "tagged"), [("tagged", True), ("untagged", False), ("with_kid_6b", True)])
def test_cose(name: str, tagged: bool) -> None:
    payload = verify1(
        raw("cose_sign1", name),
        raw("cose_sign1", "public_key"),
        external_aad=raw("cose_sign1", "external_aad"),
        tagged=tagged,
        max_bytes=200,
    )
    assert payload == raw("cose_sign1", "payload")


def test_wrap() -> None:
    opened = unwrap(raw("wrap", "blob"), raw("wrap", "recipient_sk"), raw("wrap", "context"))
    assert opened == raw("wrap", "plaintext")


@pytest.mark.parametrize("group", ["grant", "grant_signed"])
def test_grants(group: str) -> None:
    grant = open_grant(
        raw(group, "blob"),
        raw(group, "session_sk"),
        raw(group, "controller_pk"),
        now_s=VECTORS[group]["now_s"],
        highest_serial=0,
        mapping_version=0,
    )
    assert grant.k_epoch == raw(group, "k_epoch")
    assert str(grant.auth_mode) == VECTORS[group]["auth_mode"]


@pytest.mark.parametrize(("name", "alias"), [("evidence_host", False), ("evidence_firmware", True)])
def test_evidence(name: str, alias: bool) -> None:
    measured = MAKER["measured"]()
    log = AppraisalLog()
    appraisal = appraise(
        raw("attestation", name),
        request=read_request(raw("attestation", "request")),
        mapping_version=VECTORS["attestation"]["mapping_version"],
        key=AttestationKey(raw("attestation", "device_pk"), alias=alias),
        reference=ReferenceValues(frozenset({measured.implementation_id}), frozenset(measured.components)),
        last_generation=0,
        policy=AppraisalPolicy("default"),
        now_s=VECTORS["attestation"]["now_s"],
        log=log,
    )
    assert appraisal.session_pk == raw("attestation", "session_pk")
    assert appraisal.claims.nonce == raw("attestation", "token_nonce")
    assert all(entry.ok for entry in log.entries)


def test_attestation_result() -> None:
    result = verify_result(
        raw("attestation", "result"),
        raw("attestation", "controller_pk"),
        device_id=raw("identifiers", "device mcu-1"),
        session_pk=raw("attestation", "session_pk"),
        mapping_version=3,
        now_s=VECTORS["attestation"]["now_s"],
    )
    assert result.passed


def test_enrolment() -> None:
    device_id = raw("enrolment", "device_id")
    secret = read_pairing_code(VECTORS["enrolment"]["pairing_code"], device_id)
    assert secret == raw("enrolment", "secret")
    request = open_request(raw("enrolment", "request"), secret, device_id=device_id)
    response = open_response(
        raw("enrolment", "response"), raw("enrolment", "request"), secret, raw("enrolment", "controller_pk")
    )
    assert response.device_nonce == request.nonce


def test_content_keys() -> None:
    key, session_sk = raw("content_key", "content_key"), raw("content_key", "session_sk")
    for use in KeyUse:
        wrapped = raw("content_key", use.name.lower())
        assert unwrap_content_key(wrapped, session_sk, raw("content_key", "ticket_digest"), use) == key
    check_commitment(key, raw("content_key", "release_id"), raw("content_key", "commitment"))
    (handed,) = open_hand_over(raw("content_key", "hand_over"), session_sk)
    assert (handed.path, handed.key) == (VECTORS["content_key"]["path"], key)


@pytest.mark.parametrize("group", ["ticket", "ticket_plain"])
def test_tickets(group: str) -> None:
    target = InstallTarget(
        device_id=raw("identifiers", "device mcu-1"),
        hw_class=raw("identifiers", "hwclass cortex-m4"),
        firmware_version=15,
        abi=1,
        time_floor_s=VECTORS[group]["now_s"],
        components={"gesture": ComponentState(counter_floor=3, inactive_slot=Slot.B, slot_bytes=65_536)},
        arena_bytes=16_384,
    )
    verified = verify_ticket(
        raw(group, "ticket"), raw(group, "ticket_pk"), target, allow_plain=group == "ticket_plain"
    )
    assert verified.ticket.release_counter == 4


def test_a_deployment() -> None:
    found = deployment.verify(
        raw("deployment", "document"), raw("deployment", "deployment_pk"),
        device=VECTORS["deployment"]["device"], mapping_floor=3,
    )  # fmt: skip
    assert [aim.use for aim in found.aims] == ["Scale@1.0", "Classify@1.2"]
    assert [(c.max_frame_bytes, c.max_message_bytes) for c in found.remote_channels] == [(4_096, 16_384)]
