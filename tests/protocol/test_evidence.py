"""Attestation: each lie alone stops at its own step, and the log says so."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult_base
from nacl.signing import SigningKey

from aif.errors import (
    AttestationRejected,
    Expired,
    LocalProtocolError,
    NotAuthorised,
    RemoteProtocolError,
    RollbackDetected,
    SignatureInvalid,
    TrustError,
)
from aif.protocol.appraisal import (
    Appraisal,
    AppraisalLog,
    AppraisalPolicy,
    AttestationKey,
    ReferenceValues,
    Step,
    appraise,
    build_result,
    issue_result,
    verify_result,
)
from aif.protocol.cbor import encode
from aif.protocol.cose import parse1, sign1
from aif.protocol.evidence import (
    PROFILE,
    AttestationRequest,
    Claim,
    Component,
    Measured,
    build_claims,
    encode_request,
    instance_id,
    issue_alias_certificate,
    issue_evidence,
    read_evidence,
    read_request,
    token_nonce,
)
from aif.protocol.limits import MAX_EVIDENCE_BYTES

DEVICE, ALIAS, OTHER, CONTROLLER = (SigningKey(bytes([n]) * 32) for n in (1, 2, 9, 3))
DEVICE_PK, ALIAS_PK, CONTROLLER_PK = (bytes(key.verify_key) for key in (DEVICE, ALIAS, CONTROLLER))
SESSION_PK = crypto_scalarmult_base(bytes([7]) * 32)
OTHER_SESSION_PK = crypto_scalarmult_base(bytes([8]) * 32)
SMALL_ORDER = bytes(32)
NOW_S = 1_700_000_000
REQUEST = AttestationRequest(bytes(range(32)), NOW_S + 10)
SIGNER = bytes([0x51]) * 32
FIRMWARE = Component("firmware", bytes([0x61]) * 32, "12", SIGNER)
MODEL = Component("model:gesture", bytes([0x62]) * 32, "4", SIGNER)
OLD_MODEL = Component("model:gesture", bytes([0x63]) * 32, "3", SIGNER)
MEASURED = Measured(bytes([0x71]) * 32, bytes([0x72]) * 32, (FIRMWARE, MODEL), its_generation=17)
REFERENCE = ReferenceValues(
    implementation_ids=frozenset({bytes([0x71]) * 32}),
    components=frozenset({FIRMWARE, MODEL, OLD_MODEL}),
    counters={MODEL: 4, OLD_MODEL: 3, FIRMWARE: 12},
    minimum_counters={"model:gesture": 4},
)
POLICY = AppraisalPolicy("default", frozenset({"model:gesture"}))
KEY = AttestationKey(DEVICE_PK)


def answer(measured: Measured = MEASURED, signer: SigningKey = DEVICE, **changed: Any) -> bytes:
    """Evidence of an otherwise honest device; ``changed`` replaces claims."""
    claims = build_claims(REQUEST, SESSION_PK, 3, bytes(signer.verify_key), measured)
    return issue_evidence(replace(claims, **changed), SESSION_PK, signer)


def altered(**message: Any) -> bytes:
    """Honest evidence with fields of the message around the token replaced."""
    document: dict[int, Any] = cbor2.loads(answer())
    return encode(document | {int(key[1:]): value for key, value in message.items()})


def with_claims(claims: dict[int, object], *, without: tuple[int, ...] = ()) -> bytes:
    """Evidence whose token holds these claims, properly signed."""
    token = parse1(read_evidence(answer()).token, tagged=True, max_bytes=MAX_EVIDENCE_BYTES)
    payload: dict[int, object] = cbor2.loads(token.unverified_payload) | claims
    for key in without:
        del payload[key]
    return altered(_1=sign1(encode(payload), DEVICE, tagged=True))


def small_order_answer() -> bytes:
    """A genuine device that names a session key with which anybody could open its grants."""
    return issue_evidence(build_claims(REQUEST, SMALL_ORDER, 3, DEVICE_PK, MEASURED), SMALL_ORDER, DEVICE)


def judge(data: bytes, log: AppraisalLog | None = None, **changed: Any) -> Appraisal:
    circumstances: dict[str, Any] = {
        "request": REQUEST,
        "mapping_version": 3,
        "key": KEY,
        "reference": REFERENCE,
        "last_generation": 17,
        "policy": POLICY,
        "now_s": NOW_S,
        "log": log or AppraisalLog(),
    }
    return appraise(data, **circumstances | changed)


def test_honest_evidence_passes_every_step_in_order() -> None:
    log = AppraisalLog()
    appraisal = judge(answer(), log)
    assert [(entry.step, entry.ok) for entry in log.entries] == [(step, True) for step in Step]
    assert appraisal.session_pk == SESSION_PK
    assert appraisal.mapping_version == 3
    assert appraisal.claims.measured == MEASURED


def components(*parts: Component) -> Measured:
    return replace(MEASURED, components=parts)


FORGED_FIRMWARE = replace(FIRMWARE, measurement=bytes(32))
STRANGER = Component("rootkit", bytes(32), "1", SIGNER)

LIES: dict[str, tuple[Step, bytes, dict[str, Any]]] = {
    "too large": (Step.FORMAT, bytes(MAX_EVIDENCE_BYTES + 1), {}),
    "not CBOR": (Step.FORMAT, b"\xff", {}),
    "trailing byte": (Step.FORMAT, answer() + b"\x00", {}),
    "other version": (Step.FORMAT, altered(_0=2), {}),
    "unknown field": (Step.FORMAT, altered(_9=0), {}),
    "short session key": (Step.FORMAT, altered(_2=bytes(31)), {}),
    "token is no COSE_Sign1": (Step.FORMAT, altered(_1=b"\xd2\x80"), {}),
    "claim of a wrong type": (Step.FORMAT, with_claims({Claim.LIFECYCLE: "secured"}), {}),
    "claim missing": (Step.FORMAT, with_claims({}, without=(Claim.BOOT_SEED,)), {}),
    "component with an unknown key": (
        Step.FORMAT,
        with_claims({Claim.COMPONENTS: [{1: "a", 2: bytes(32), 4: "1", 5: bytes(32), 6: "x"}]}),
        {},
    ),
    "unknown device": (Step.KEY, answer(), {"key": None}),
    "revoked key": (Step.KEY, answer(), {"key": replace(KEY, revoked=True)}),
    "key registered for ES256": (Step.KEY, answer(), {"key": replace(KEY, algorithm=-7)}),
    "alias certificate missing": (Step.KEY, answer(), {"key": replace(KEY, alias=True)}),
    "alias certificate unexpected": (
        Step.KEY,
        altered(_4=issue_alias_certificate(ALIAS_PK, bytes(32), DEVICE)),
        {},
    ),
    "signed by another key": (Step.SIGNATURE, answer(signer=OTHER), {}),
    "small-order key in the registry": (
        Step.SIGNATURE,
        answer(),
        {"key": AttestationKey(bytes([1]) + bytes(31))},
    ),
    "names another key": (Step.SIGNATURE, answer(instance_id=instance_id(ALIAS_PK)), {}),
    "other profile": (Step.PROFILE, answer(profile="tag:psacertified.org,2023:psa#tfm"), {}),
    "no request outstanding": (Step.NONCE, answer(), {"request": None}),
    "request expired": (Step.NONCE, answer(), {"now_s": NOW_S + 11}),
    "other nonce": (Step.NONCE, answer(), {"request": replace(REQUEST, nonce=bytes(32))}),
    "session key swapped under way": (Step.NONCE, altered(_2=OTHER_SESSION_PK), {}),
    "session key of small order": (Step.NONCE, small_order_answer(), {}),
    "mapping swapped under way": (Step.NONCE, altered(_3=4), {}),
    "old mapping": (Step.NONCE, answer(), {"mapping_version": 4}),
    "mapping claim differs": (Step.NONCE, with_claims({Claim.MAPPING_VERSION: 2}), {}),
    "unknown life cycle": (Step.LIFECYCLE, answer(replace(MEASURED, lifecycle=0)), {}),
    "provisioning": (Step.LIFECYCLE, answer(replace(MEASURED, lifecycle=0x2000)), {}),
    "decommissioned": (Step.LIFECYCLE, answer(replace(MEASURED, lifecycle=0x6000)), {}),
    "beyond the table": (Step.LIFECYCLE, answer(replace(MEASURED, lifecycle=0xFF00)), {}),
    "other implementation": (
        Step.IMPLEMENTATION,
        answer(replace(MEASURED, implementation_id=bytes(32))),
        {},
    ),
    "firmware changed": (Step.MEASUREMENT, answer(components(FORGED_FIRMWARE, MODEL)), {}),
    "other signer": (
        Step.MEASUREMENT,
        answer(components(FIRMWARE, replace(MODEL, signer=bytes(32)))),
        {},
    ),
    "version relabelled": (
        Step.MEASUREMENT,
        answer(components(FIRMWARE, replace(OLD_MODEL, version="4"))),
        {},
    ),
    "model below the minimum": (Step.MEASUREMENT, answer(components(FIRMWARE, OLD_MODEL)), {}),
    "component twice": (Step.MEASUREMENT, answer(components(FIRMWARE, MODEL, MODEL)), {}),
    "unknown component": (Step.UNKNOWN, answer(components(FIRMWARE, MODEL, STRANGER)), {}),
    "unknown claim": (Step.UNKNOWN, with_claims({-70003: 1}), {}),
    "debug state": (Step.DEBUG, answer(replace(MEASURED, lifecycle=0x4000)), {}),
    "recoverable debug state": (Step.DEBUG, answer(replace(MEASURED, lifecycle=0x5000)), {}),
    "storage restored": (Step.GENERATION, answer(), {"last_generation": 18}),
    "required model absent": (Step.POLICY, answer(components(FIRMWARE)), {}),
}


@pytest.mark.parametrize("name", LIES)
def test_each_lie_alone_stops_at_its_own_step(name: str) -> None:
    step, data, circumstances = LIES[name]
    log = AppraisalLog()
    with pytest.raises(AttestationRejected, match=f"at step {step}: ") as refused:
        judge(data, log, **circumstances)
    assert refused.value.step == step
    order = list(Step)
    assert [entry.step for entry in log.entries] == order[: order.index(step) + 1]
    assert [entry.ok for entry in log.entries] == [True] * order.index(step) + [False]
    assert log.entries[-1].detail


def test_every_step_has_a_lie() -> None:
    assert {step for step, _, _ in LIES.values()} == set(Step)


def test_a_debug_device_passes_where_the_policy_allows_it() -> None:
    debug = answer(replace(MEASURED, lifecycle=0x4000))
    assert judge(debug, policy=replace(POLICY, allow_debug=True)).claims.measured.lifecycle == 0x4000


def test_the_last_second_of_a_request_counts() -> None:
    assert judge(answer(), now_s=NOW_S + 10)


# --- firmware with a boot stage -------------------------------------------------------------------

ALIAS_KEY = AttestationKey(DEVICE_PK, alias=True)


def firmware_answer(
    *, measured: Measured = MEASURED, booted: bytes = FIRMWARE.measurement, by: SigningKey = DEVICE
) -> bytes:
    claims = build_claims(REQUEST, SESSION_PK, 3, ALIAS_PK, measured)
    alias = issue_alias_certificate(ALIAS_PK, booted, by)
    return issue_evidence(claims, SESSION_PK, ALIAS, alias_certificate=alias)


def test_firmware_speaks_with_the_key_its_boot_stage_vouches_for() -> None:
    assert judge(firmware_answer(), key=ALIAS_KEY).claims.instance_id == instance_id(ALIAS_PK)


def test_flipped_firmware_that_lies_about_itself_is_found() -> None:
    with pytest.raises(AttestationRejected, match="not the firmware that was booted") as refused:
        judge(firmware_answer(booted=bytes(32)), key=ALIAS_KEY)
    assert refused.value.step == Step.MEASUREMENT


def test_firmware_that_leaves_itself_out_is_found() -> None:
    with pytest.raises(AttestationRejected, match="not the firmware that was booted"):
        judge(firmware_answer(measured=components(MODEL)), key=ALIAS_KEY)


def test_an_alias_certificate_by_another_device_is_refused() -> None:
    with pytest.raises(AttestationRejected) as refused:
        judge(firmware_answer(by=OTHER), key=ALIAS_KEY)
    assert refused.value.step == Step.KEY
    assert isinstance(refused.value.__cause__, SignatureInvalid)


def test_another_signed_document_is_no_alias_certificate() -> None:
    payload = encode({1: ALIAS_PK, 2: FIRMWARE.measurement})
    claims = build_claims(REQUEST, SESSION_PK, 3, ALIAS_PK, MEASURED)
    wrong = sign1(payload, DEVICE, external_aad=b"AIF-TICKET-1", tagged=False)
    with pytest.raises(AttestationRejected) as refused:
        judge(issue_evidence(claims, SESSION_PK, ALIAS, alias_certificate=wrong), key=ALIAS_KEY)
    assert refused.value.step == Step.KEY


# --- bytes ----------------------------------------------------------------------------------------


def test_the_token_is_an_eat_with_the_registered_keys() -> None:
    token = parse1(read_evidence(answer()).token, tagged=True, max_bytes=MAX_EVIDENCE_BYTES)
    claims: dict[int, Any] = cbor2.loads(token.unverified_payload)
    assert set(claims) == {10, 256, 265, 268, 2394, 2395, 2396, 2399, -70001, -70002}
    assert claims[10] == hashlib.sha256(REQUEST.nonce + SESSION_PK + b"\x00\x00\x00\x03").digest()
    assert claims[10] == token_nonce(REQUEST.nonce, SESSION_PK, 3)
    assert claims[256] == b"\x01" + hashlib.sha256(DEVICE_PK).digest()
    assert claims[265] == PROFILE
    assert claims[2399][0] == {1: "firmware", 2: FIRMWARE.measurement, 4: "12", 5: SIGNER}


def test_a_request_round_trips_and_its_fields_are_checked() -> None:
    assert read_request(encode_request(REQUEST)) == REQUEST
    for document, message in (
        ({1: bytes(31), 2: 0}, "nonce must be 32 bytes"),
        ({1: bytes(32), 2: -1}, "not-after must be"),
        ({1: bytes(32)}, "not-after .key 2. is missing"),
        ({1: bytes(32), 2: 0, 3: 0}, "unknown key 3"),
    ):
        with pytest.raises(RemoteProtocolError, match=message):
            read_request(encode(document))


def test_evidence_that_breaks_its_own_format_is_never_sent() -> None:
    with pytest.raises(LocalProtocolError, match="implementation id"):
        answer(replace(MEASURED, implementation_id=b"short"))
    with pytest.raises(LocalProtocolError, match="components"):
        answer(components(*[replace(MODEL, type=f"m{n}") for n in range(33)]))
    many = [Component(f"{'m' * 60}{n}", bytes(32), "v" * 64, SIGNER) for n in range(30)]
    with pytest.raises(LocalProtocolError, match="larger than"):
        answer(components(*many))


@given(
    st.lists(st.text(min_size=1, max_size=64), max_size=8, unique=True),
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.integers(0, 65535),
    st.integers(0, (1 << 63) - 1),
)
def test_claims_round_trip(types: list[str], client: int, lifecycle: int, generation: int) -> None:
    parts = tuple(Component(name, bytes(32), "1", SIGNER) for name in types)
    measured = replace(
        MEASURED,
        components=parts,
        client_id=client,
        lifecycle=lifecycle & 0xFF | 0x3000,
        its_generation=generation,
    )
    reference = replace(REFERENCE, components=frozenset(parts), minimum_counters={})
    appraisal = judge(
        answer(measured), reference=reference, policy=AppraisalPolicy("any"), last_generation=generation
    )
    assert appraisal.claims.measured == measured


@given(st.integers(0, len(answer()) * 8 - 1))
def test_any_flipped_bit_is_rejected(bit: int) -> None:
    changed = bytearray(answer())
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(AttestationRejected):
        judge(bytes(changed))


@given(st.binary(max_size=300))
def test_random_bytes_are_rejected_and_nothing_else_is_raised(data: bytes) -> None:
    with pytest.raises(AttestationRejected):
        judge(data)
    with pytest.raises(AttestationRejected):
        judge(altered(_1=sign1(data, DEVICE, tagged=True)))


# --- Attestation Result ---------------------------------------------------------------------------

RESULT = build_result(
    device_id=bytes(16),
    passed=True,
    session_pk=SESSION_PK,
    mapping_version=3,
    issued_s=NOW_S,
    policy_id="default",
)


def show(data: bytes, **changed: Any) -> object:
    circumstances: dict[str, Any] = {
        "device_id": bytes(16),
        "session_pk": SESSION_PK,
        "mapping_version": 3,
        "now_s": NOW_S + 300,
    }
    return verify_result(data, CONTROLLER_PK, **circumstances | changed)


def test_a_result_is_believed_for_five_minutes() -> None:
    assert show(issue_result(RESULT, CONTROLLER)) == RESULT
    with pytest.raises(Expired):
        show(issue_result(RESULT, CONTROLLER), now_s=NOW_S + 301)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"device_id": bytes([1]) * 16}, NotAuthorised),
        ({"session_pk": OTHER_SESSION_PK}, NotAuthorised),
        ({"mapping_version": 4}, RollbackDetected),
    ],
)
def test_a_result_about_something_else_is_refused(changed: dict[str, Any], error: type[TrustError]) -> None:
    with pytest.raises(error):
        show(issue_result(RESULT, CONTROLLER), **changed)


def test_a_failed_result_is_no_admission() -> None:
    with pytest.raises(AttestationRejected) as refused:
        show(issue_result(replace(RESULT, passed=False), CONTROLLER))
    assert refused.value.step == "result"


def test_a_result_by_anybody_else_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        show(issue_result(RESULT, OTHER))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (1, bytes(15), "device id must be"),
        (2, 1, "passed must be true or false"),
        (3, bytes(31), "session hash must be"),
        (4, -1, "mapping version must be"),
        (5, "now", "issued must be"),
        (6, NOW_S + 301, "valid for more than 5 minutes"),
        (6, NOW_S, "valid for more than 5 minutes, or not at all"),
        (7, "", "policy id must be"),
        (8, 0, "unknown key 8"),
    ],
)
def test_each_field_of_a_result_is_checked(key: int, value: object, message: str) -> None:
    token = parse1(issue_result(RESULT, CONTROLLER), tagged=True, max_bytes=512)
    document: dict[int, object] = cbor2.loads(token.unverified_payload) | {key: value}
    data = sign1(encode(document), CONTROLLER, external_aad=b"AIF-RESULT-1", tagged=True)
    with pytest.raises(RemoteProtocolError, match=message):
        show(data)


@given(st.binary(max_size=200))
def test_random_results_raise_only_our_errors(data: bytes) -> None:
    with pytest.raises((TrustError, RemoteProtocolError)):
        show(data)
    with pytest.raises((TrustError, RemoteProtocolError)):
        show(sign1(data, CONTROLLER, external_aad=b"AIF-RESULT-1", tagged=True))
