"""Attester against Verifier: what is accepted, and at which step everything else is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from nacl.signing import SigningKey

from aif.errors import AIFError, AttestationRejected, RemoteProtocolError, SignatureInvalid
from aif.protocol.appraisal import AppraisalLog, AppraisalPolicy, Step, verify_result
from aif.protocol.evidence import Component
from aif.protocol.limits import ATTESTATION_REQUEST_VALIDITY_S, MAX_COMPONENT_TEXT
from aif.trusted.attestation import (
    MAX_FALSE_ANSWERS,
    RUNTIME_COMPONENT,
    Attester,
    Verdict,
    Verifier,
    aim_component,
    implementation_id,
    model_component,
    part,
)

NOW_S = 1_700_000_000
ROOT = b"store root"
HW = "board/arch"
RUNTIME = part(RUNTIME_COMPONENT, b"r" * 32, "0.1.0", ROOT)
AIM = part(aim_component("Kws@1.0"), b"a" * 32, "1.0", ROOT)
GOOD = {"runtime": [RUNTIME], "aims": [AIM]}
POLICY = AppraisalPolicy("site", frozenset({RUNTIME_COMPONENT}))
SEED = b"\x01" * 32
SESSION = b"\x02" * 32


RESULT_KEY = SigningKey(b"\x07" * 32)


def sign_result(message: bytes) -> bytes:
    return RESULT_KEY.sign(message).signature


def counting() -> Callable[[int], bytes]:
    drawn = iter(range(1, 1000))
    return lambda size: next(drawn).to_bytes(size)


@dataclass
class Meeting:
    """One device and one Verifier; a test changes one thing about either."""

    verifier: Verifier = field(default_factory=lambda: Verifier(POLICY, counting(), sign_result))
    attester: Attester = field(default_factory=lambda: Attester(SEED, HW, SESSION, b"\x03" * 32))
    components: tuple[Component, ...] = (RUNTIME, AIM)
    mapping: int = 7
    answered_mapping: int = 7
    generation: int = 4
    identity_pk: bytes = bytes(SigningKey(SEED).verify_key)
    hw_class: str = HW
    revoked: bool = False
    reference: Mapping[str, list[Component]] = field(default_factory=lambda: GOOD)
    last_generation: int = 4
    delay_s: int = 0

    def answer(self) -> bytes:
        request = self.verifier.challenge("left", mapping_version=self.mapping, now_s=NOW_S)
        return self.attester.evidence(
            request,
            components=self.components,
            mapping_version=self.answered_mapping,
            generation=self.generation,
        )

    def appraise(self, evidence: bytes, log: AppraisalLog | None = None) -> Verdict:
        return self.verifier.appraise(
            "left", b"d" * 16, evidence, identity_pk=self.identity_pk, revoked=self.revoked,
            hw_class=self.hw_class, reference=self.reference, last_generation=self.last_generation,
            now_s=NOW_S + self.delay_s, log=log,
        )  # fmt: skip


def test_good_evidence_is_accepted() -> None:
    meeting = Meeting()
    verdict = meeting.appraise(meeting.answer())
    assert verdict.session_pk == SESSION
    assert verdict.generation == 4
    result = verdict.result
    assert (result.passed, result.mapping_version, result.policy_id) == (True, 7, "site")
    assert result.session_hash == hashlib.sha256(SESSION).digest()
    assert (result.issued_s, result.not_after_s) == (NOW_S, NOW_S + 300)
    assert verdict.steps == tuple(f"{step}: ok" for step in Step)


OTHER = Attester(b"\x09" * 32, HW, SESSION, b"\x03" * 32)


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"revoked": True}, "key"),
        ({"attester": OTHER}, "signature"),
        ({"identity_pk": bytes(SigningKey(b"\x08" * 32).verify_key)}, "signature"),
        ({"answered_mapping": 6}, "nonce"),
        ({"delay_s": ATTESTATION_REQUEST_VALIDITY_S + 1}, "nonce"),
        ({"hw_class": "another/arch"}, "implementation"),
        ({"components": (replace(RUNTIME, measurement=b"x" * 32), AIM)}, "measurement"),
        ({"components": (replace(RUNTIME, version="0.2.0"), AIM)}, "measurement"),
        ({"components": (replace(RUNTIME, signer=b"x" * 32), AIM)}, "measurement"),
        ({"components": (RUNTIME, replace(AIM, type="aim:Other@1.0"))}, "unknown"),
        ({"reference": {"runtime": [RUNTIME]}}, "unknown"),
        ({"generation": 3}, "generation"),
        ({"components": (AIM,)}, "policy"),
    ],
)
def test_every_lie_is_refused_at_its_step(change: dict[str, Any], step: str) -> None:
    meeting = replace(Meeting(), **change)
    with pytest.raises(AttestationRejected) as refused:
        meeting.appraise(meeting.answer())
    assert refused.value.step == step


def test_every_flipped_bit_is_refused() -> None:
    evidence = Meeting().answer()
    for at in range(len(evidence)):
        changed = bytearray(evidence)
        changed[at] ^= 1 << at % 8
        meeting = Meeting()
        meeting.answer()  # the same nonce: the randomness is counted
        with pytest.raises(AttestationRejected):
            meeting.appraise(bytes(changed))
    meeting = Meeting()
    meeting.answer()
    meeting.appraise(evidence)  # unchanged it passes


def test_the_result_is_signed_and_speaks_for_the_session() -> None:
    meeting = Meeting()
    signed = meeting.appraise(meeting.answer()).signed_result
    known: dict[str, Any] = {
        "device_id": b"d" * 16,
        "session_pk": SESSION,
        "mapping_version": 7,
        "now_s": NOW_S,
    }
    assert verify_result(signed, bytes(RESULT_KEY.verify_key), **known).passed
    with pytest.raises(SignatureInvalid):
        verify_result(signed, bytes(SigningKey(b"\x08" * 32).verify_key), **known)
    refusal = meeting.verifier.refusal(b"d" * 16, SESSION, 7, now_s=NOW_S)
    with pytest.raises(AttestationRejected, match="did not pass"):
        verify_result(refusal, bytes(RESULT_KEY.verify_key), **known)


@pytest.mark.parametrize("false", [b"", b"\xff" * 80, bytes(5_000)])
def test_what_anybody_may_have_sent_leaves_the_challenge_open(false: bytes) -> None:
    meeting = Meeting()
    evidence = meeting.answer()
    for _ in range(MAX_FALSE_ANSWERS - 1):
        with pytest.raises(AttestationRejected):
            meeting.appraise(false)
    assert meeting.appraise(evidence).result.passed


def test_old_evidence_of_the_device_itself_leaves_the_challenge_open() -> None:
    meeting = Meeting()
    old = meeting.answer()
    evidence = meeting.answer()
    with pytest.raises(AttestationRejected) as refused:
        meeting.appraise(old)
    assert refused.value.step == "nonce"
    assert meeting.appraise(evidence).result.passed


def test_false_answers_cost_bounded_work() -> None:
    meeting = Meeting()
    evidence = meeting.answer()
    for _ in range(MAX_FALSE_ANSWERS):
        with pytest.raises(AttestationRejected):
            meeting.appraise(b"false")
    log = AppraisalLog()
    with pytest.raises(AttestationRejected, match="too many false answers"):
        meeting.appraise(evidence, log)
    assert log.entries == ()  # not even looked at
    assert meeting.appraise(meeting.answer()).result.passed  # the next challenge starts anew


def test_the_device_s_own_bad_answer_ends_the_challenge() -> None:
    meeting = Meeting(components=(AIM,))
    evidence = meeting.answer()
    log = AppraisalLog()
    with pytest.raises(AttestationRejected):
        meeting.appraise(evidence, log)
    assert [entry.ok for entry in log.entries] == [True] * 11 + [False]
    with pytest.raises(AttestationRejected, match="nobody asked for"):
        meeting.appraise(evidence)


def test_an_answer_counts_once() -> None:
    meeting = Meeting()
    evidence = meeting.answer()
    meeting.appraise(evidence)
    with pytest.raises(AttestationRejected, match="left sent evidence that nobody asked for") as refused:
        meeting.appraise(evidence)
    assert refused.value.step == "nonce"


def test_a_new_challenge_makes_the_old_one_void() -> None:
    meeting = Meeting()
    old = meeting.answer()
    meeting.answer()
    with pytest.raises(AttestationRejected) as refused:
        meeting.appraise(old)
    assert refused.value.step == "nonce"


def test_the_answer_of_one_device_does_not_serve_another() -> None:
    meeting = Meeting()
    evidence = meeting.answer()
    meeting.verifier.challenge("right", mapping_version=7, now_s=NOW_S)
    with pytest.raises(AttestationRejected) as refused:
        meeting.verifier.appraise(
            "right", b"e" * 16, evidence, identity_pk=bytes(SigningKey(b"\x08" * 32).verify_key),
            revoked=False, hw_class=HW, reference=GOOD, last_generation=0, now_s=NOW_S,
        )  # fmt: skip
    assert refused.value.step == "signature"


def test_what_is_expected_and_until_when() -> None:
    meeting = Meeting()
    assert not meeting.verifier.expects("left")
    evidence = meeting.answer()
    assert meeting.verifier.expects("left")
    assert meeting.verifier.expects("left", now_s=NOW_S + ATTESTATION_REQUEST_VALIDITY_S)
    assert not meeting.verifier.expects("left", now_s=NOW_S + ATTESTATION_REQUEST_VALIDITY_S + 1)
    assert not meeting.verifier.expects("right")
    meeting.appraise(evidence)
    assert not meeting.verifier.expects("left")


@pytest.mark.parametrize("request_", [b"", b"\xff" * 20, b"\xa1\x01\x41x"])
def test_a_malformed_challenge_is_not_answered(request_: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Meeting().attester.evidence(request_, components=(), mapping_version=0, generation=0)


def test_names_of_any_length_fit_into_a_claim() -> None:
    for name in (aim_component, model_component):
        assert name("Kws@1.0").endswith(":Kws@1.0")
        long, longer = name("x" * 200), name("x" * 201)
        assert len(long) <= MAX_COMPONENT_TEXT
        assert long != longer
    long_named = part(aim_component("x" * 200), b"a" * 32, "1.0", ROOT)
    meeting = Meeting(components=(RUNTIME, long_named), reference={"all": [RUNTIME, long_named]})
    assert meeting.appraise(meeting.answer()).result.passed


def test_hardware_classes_differ() -> None:
    assert implementation_id("a") != implementation_id("b")
    assert len(implementation_id("a")) == 32


def test_more_parts_than_a_token_holds_are_an_error_of_this_project() -> None:
    many = tuple(part(aim_component(f"A{n}@1.0"), b"a" * 32, "1.0", ROOT) for n in range(100))
    with pytest.raises(AIFError):
        Meeting(components=many).answer()
