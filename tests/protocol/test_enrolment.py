"""Enrolment: the code as typed, the life of its secret, and both messages with MAC and signature."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from nacl.bindings import crypto_scalarmult_base
from nacl.signing import SigningKey

from aif.errors import (
    EnrolmentRefused,
    Expired,
    LocalProtocolError,
    RemoteProtocolError,
    ReplayDetected,
    SignatureInvalid,
    TrustError,
)
from aif.protocol.cbor import encode
from aif.protocol.enrolment import (
    Anchors,
    EnrolmentRequest,
    EnrolmentResponse,
    build_request,
    build_response,
    check_author,
    check_new_device,
    open_request,
    open_response,
)
from aif.protocol.pairing import (
    SECRET_TRANSITIONS,
    EnrolmentSecret,
    SecretState,
    pairing_code,
    read_pairing_code,
)

DEVICE, CONTROLLER, OTHER = (SigningKey(bytes([n]) * 32) for n in (1, 3, 9))
DEVICE_PK, CONTROLLER_PK = bytes(DEVICE.verify_key), bytes(CONTROLLER.verify_key)
SECRET = bytes(range(16))
ID, OTHER_ID = bytes([0x21]) * 16, bytes([0x22]) * 16
NOW_S = 1_700_000_000
REQUEST = EnrolmentRequest(
    ID, DEVICE_PK, crypto_scalarmult_base(bytes([7]) * 32), bytes([9]) * 32, bytes([5]) * 16
)
MESSAGE = build_request(REQUEST, SECRET, DEVICE)
ANCHORS = Anchors(
    store_root=b"{}",
    grant_pk=CONTROLLER_PK,
    ticket_pk=bytes(OTHER.verify_key),
    deployment_pk=bytes(SigningKey(bytes([4]) * 32).verify_key),
)
RESPONSE = EnrolmentResponse(ID, ANCHORS, bytes([10]) * 32, REQUEST.nonce, NOW_S)
SMALL_ORDER_ED = bytes([1]) + bytes(31)


def answer(response: EnrolmentResponse = RESPONSE, key: SigningKey = CONTROLLER) -> bytes:
    return build_response(response, MESSAGE, SECRET, key)


def hear(data: bytes) -> EnrolmentResponse:
    return open_response(data, MESSAGE, SECRET, CONTROLLER_PK)


def mac(message: bytes) -> bytes:
    """The MAC as the layout says, computed apart."""
    key = hashlib.blake2b(b"AIF-ENROL-1" + ID, key=SECRET, digest_size=32).digest()
    return hashlib.blake2b(message, key=key, digest_size=32).digest()


def request_of(body: bytes, key: SigningKey = DEVICE) -> bytes:
    """Any request body with a good MAC and signature."""
    return body + mac(b"D" + body) + key.sign(b"AIF-ENROL-D" + body).signature


def response_of(body: bytes) -> bytes:
    """Any response body with a good MAC and signature."""
    bound = hashlib.blake2b(MESSAGE[:-96], digest_size=32).digest() + body
    return body + mac(b"C" + bound) + CONTROLLER.sign(b"AIF-ENROL-C" + bound).signature


# --- pairing code ---------------------------------------------------------------------------------


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_a_code_is_read_back_as_people_type_it(secret: bytes, device_id: bytes) -> None:
    code = pairing_code(secret, device_id)
    assert len(code) == 34
    assert set(code) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")
    sloppy = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    for typed in (code, sloppy, code.replace("-", ""), f"  {code}\n", code.replace("1", "I")):
        assert read_pairing_code(typed, device_id) == secret


def test_every_single_slip_of_a_character_is_told_or_changes_nothing() -> None:
    code = pairing_code(SECRET, ID)
    missed = 0
    for place in range(len(code)):
        for wrong in "0123456789ABCDEFGHJKMNPQRSTVWXYZ":
            if code[place] in ("-", wrong):
                continue
            try:
                read_pairing_code(code[:place] + wrong + code[place + 1 :], ID)
            except EnrolmentRefused:
                continue
            missed += 1
    assert missed <= 4  # 868 slips, 10 check bits: about one passes by chance


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "28 characters, not 0"),
        ("0" * 27, "28 characters, not 27"),
        ("0" * 29, "28 characters, not 29"),
        ("0" * 1000, "28 characters"),
        ("U" * 28, "character 1 of the pairing code"),
        ("0*" + "0" * 26, "character 2 of the pairing code"),
        ("8" + "0" * 27, "mistyped"),
        ("٣" * 28, "character 1"),
    ],
)
def test_other_texts_are_refused_with_the_reason(typed: str, message: str) -> None:
    with pytest.raises(EnrolmentRefused, match=message):
        read_pairing_code(typed, ID)


def test_the_code_of_another_device_is_refused() -> None:
    with pytest.raises(EnrolmentRefused, match="another device"):
        read_pairing_code(pairing_code(SECRET, ID), OTHER_ID)


@given(st.text(max_size=70))
def test_random_texts_raise_only_our_error(typed: str) -> None:
    with pytest.raises(EnrolmentRefused):
        read_pairing_code(typed, ID)


def test_a_short_secret_has_no_code() -> None:
    with pytest.raises(LocalProtocolError):
        pairing_code(b"1234", ID)


# --- life of the secret ---------------------------------------------------------------------------

CREATED = EnrolmentSecret(ID, SECRET)


def test_a_window_is_open_for_fifteen_minutes() -> None:
    opened = CREATED.open_window(NOW_S)
    assert opened.usable(NOW_S) == SECRET
    assert opened.usable(NOW_S + 899) == SECRET
    with pytest.raises(Expired, match="window has closed"):
        opened.usable(NOW_S + 900)
    assert opened.at(NOW_S + 900).secret is None


def test_the_fifth_wrong_mac_burns_the_secret() -> None:
    state = CREATED.open_window(NOW_S)
    for _ in range(4):
        state = state.wrong_mac()
        assert state.usable(NOW_S) == SECRET
    burned = state.wrong_mac()
    assert (burned.state, burned.secret) == (SecretState.BURNED, None)
    with pytest.raises(EnrolmentRefused, match="burned"):
        burned.usable(NOW_S)


def test_a_secret_is_used_once_and_only_in_its_window() -> None:
    with pytest.raises(EnrolmentRefused, match="no enrolment window"):
        CREATED.usable(NOW_S)
    used = CREATED.open_window(NOW_S).enrolled()
    assert used.secret is None
    with pytest.raises(ReplayDetected, match="has been used"):
        used.usable(NOW_S)
    with pytest.raises(LocalProtocolError, match="used cannot take: window opened"):
        used.open_window(NOW_S)
    with pytest.raises(LocalProtocolError, match="used cannot take: device enrolled"):
        used.enrolled()
    for closed in (used, CREATED):
        with pytest.raises(LocalProtocolError, match="takes no attempts"):
            closed.wrong_mac()


def test_a_secret_is_not_printed() -> None:
    assert SECRET.hex() not in repr(CREATED)
    assert repr(SECRET) not in repr(CREATED)


class SecretLife(RuleBasedStateMachine):
    """Any order of events: the secret exists exactly while it may still be needed."""

    def __init__(self) -> None:
        super().__init__()
        self.state = CREATED
        self.now_s = NOW_S
        self.seen = [SecretState.CREATED]

    def move(self, following: EnrolmentSecret) -> None:
        if following.state is not self.state.state:
            assert (self.state.state, following.state) in {
                (before, after) for (before, _), after in SECRET_TRANSITIONS.items()
            }
            self.seen.append(following.state)
        self.state = following

    @rule(seconds=st.integers(1, 1200))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds
        self.move(self.state.at(self.now_s))

    @precondition(lambda self: self.state.state is SecretState.CREATED)
    @rule()
    def window_opens(self) -> None:
        self.move(self.state.open_window(self.now_s))

    @precondition(lambda self: self.state.state is SecretState.OPEN)
    @rule(data=st.data())
    def request_arrives(self, data: st.DataObject) -> None:
        right = data.draw(st.booleans())
        self.move(self.state.enrolled() if right else self.state.wrong_mac())

    @invariant()
    def the_secret_is_there_while_it_may_be_needed(self) -> None:
        live = self.state.state in (SecretState.CREATED, SecretState.OPEN)
        assert (self.state.secret is not None) is live
        assert len(set(self.seen)) == len(self.seen)
        assert self.state.wrong_macs < 5 or self.state.state is SecretState.BURNED


TestSecretLife = SecretLife.TestCase


# --- messages -------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.none() | st.binary(min_size=1, max_size=2000))
def test_a_request_round_trips(nonce: bytes, csr: bytes | None) -> None:
    request = replace(REQUEST, nonce=nonce, csr=csr)
    assert open_request(build_request(request, SECRET, DEVICE), SECRET, device_id=ID) == request


@given(
    st.none() | st.binary(min_size=1, max_size=3000),
    st.none() | st.binary(min_size=1, max_size=16_000),
    st.integers(0, (1 << 63) - 1),
)
def test_a_response_round_trips(certificate: bytes | None, director: bytes | None, time_s: int) -> None:
    response = replace(
        RESPONSE,
        certificate=certificate,
        anchors=replace(ANCHORS, director_root=director, store_root=b"r" * 16_384),
        time_s=time_s,
    )
    assert hear(answer(response)) == response


def test_only_the_holder_of_the_code_is_heard() -> None:
    with pytest.raises(EnrolmentRefused, match="not made with this pairing code"):
        open_request(build_request(REQUEST, bytes(16), DEVICE), SECRET, device_id=ID)
    with pytest.raises(EnrolmentRefused, match="not made with this pairing code"):
        open_request(MESSAGE, SECRET, device_id=OTHER_ID)


def test_only_the_holder_of_the_named_key_is_heard() -> None:
    with pytest.raises(SignatureInvalid):
        open_request(build_request(REQUEST, SECRET, OTHER), SECRET, device_id=ID)


def test_keys_of_small_order_do_not_enrol() -> None:
    forged = build_request(
        replace(REQUEST, sign_pk=SMALL_ORDER_ED), SECRET, lambda _: SMALL_ORDER_ED + bytes(32)
    )
    with pytest.raises(SignatureInvalid, match="prime-order group"):
        open_request(forged, SECRET, device_id=ID)
    with pytest.raises(RemoteProtocolError, match="small order"):
        open_request(build_request(replace(REQUEST, kex_pk=bytes(32)), SECRET, DEVICE), SECRET, device_id=ID)


def test_a_request_about_another_device_is_refused() -> None:
    body = encode(cbor2.loads(MESSAGE[:-96]) | {1: OTHER_ID})
    with pytest.raises(RemoteProtocolError, match="about another device"):
        open_request(request_of(body), SECRET, device_id=ID)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (1, bytes(15), "device id must be"),
        (2, bytes(31), "identity key must be"),
        (3, bytes(33), "exchange key must be"),
        (4, bytes(16), "nonce must be"),
        (5, bytes(1), "hw class must be"),
        (6, b"", "CSR must be 1 to"),
        (6, bytes(3073), "CSR must be 1 to"),
        (7, 0, "unknown key 7"),
    ],
)
def test_each_field_of_a_request_is_checked(key: int, value: object, message: str) -> None:
    body = encode(cbor2.loads(MESSAGE[:-96]) | {key: value})
    with pytest.raises(RemoteProtocolError, match=message):
        open_request(request_of(body), SECRET, device_id=ID)


def test_a_device_or_key_that_is_known_already_is_refused() -> None:
    check_new_device(REQUEST, known_ids=set(), known_keys=set())
    for ids, keys, message in (
        ({ID}, set(), "enrolled already"),
        (set(), {REQUEST.sign_pk}, "same key"),
        (set(), {REQUEST.kex_pk}, "same key"),
    ):
        with pytest.raises(EnrolmentRefused, match=message):
            check_new_device(REQUEST, known_ids=ids, known_keys=keys)


def test_a_response_by_another_controller_or_code_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        hear(answer(key=OTHER))
    with pytest.raises(EnrolmentRefused):
        hear(build_response(RESPONSE, MESSAGE, bytes(16), CONTROLLER))


def test_a_recorded_response_does_not_answer_a_new_request() -> None:
    later = build_request(replace(REQUEST, nonce=bytes(32)), SECRET, DEVICE)
    with pytest.raises(EnrolmentRefused):
        open_response(answer(), later, SECRET, CONTROLLER_PK)


def test_a_request_is_no_response() -> None:
    with pytest.raises(EnrolmentRefused):
        hear(MESSAGE)


@pytest.mark.parametrize("field", ["grant_pk", "ticket_pk", "deployment_pk"])
def test_anchors_of_small_order_are_refused(field: str) -> None:
    changed: dict[str, Any] = {field: SMALL_ORDER_ED}
    with pytest.raises(SignatureInvalid, match="prime-order group"):
        hear(answer(replace(RESPONSE, anchors=replace(ANCHORS, **changed))))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (1, OTHER_ID, "for another device or request"),
        (5, bytes(32), "for another device or request"),
        (2, b"", "certificate must be"),
        (3, [], "anchors: is not a map"),
        (3, {}, "anchors: Store root .key 1. is missing"),
        (4, bytes(31), "controller nonce must be"),
        (6, -1, "time must be"),
        (7, 0, "unknown key 7"),
    ],
)
def test_each_field_of_a_response_is_checked(key: int, value: object, message: str) -> None:
    body = encode(cbor2.loads(answer()[:-96]) | {key: value})
    with pytest.raises(RemoteProtocolError, match=message):
        hear(response_of(body))


def test_anchors_hold_nothing_unknown() -> None:
    document: dict[int, Any] = cbor2.loads(answer()[:-96])
    with pytest.raises(RemoteProtocolError, match="anchors: unknown key 9"):
        hear(response_of(encode(document | {3: document[3] | {9: b"x"}})))


def test_fields_out_of_range_are_our_own_error() -> None:
    with pytest.raises(LocalProtocolError, match="nonce"):
        build_request(replace(REQUEST, nonce=b""), SECRET, DEVICE)
    with pytest.raises(LocalProtocolError, match="Store root"):
        answer(replace(RESPONSE, anchors=replace(ANCHORS, store_root=bytes(16_385))))


def test_any_flipped_bit_is_refused() -> None:
    for message, opened in (
        (MESSAGE, lambda data: open_request(data, SECRET, device_id=ID)),
        (answer(), hear),
    ):
        for bit in range(len(message) * 8):
            changed = bytearray(message)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises((EnrolmentRefused, SignatureInvalid)):
                opened(bytes(changed))


@pytest.mark.parametrize("length", [0, 96, 4097])
def test_sizes_that_no_request_has_are_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match="not the size of one"):
        open_request(bytes(length), SECRET, device_id=ID)


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_our_errors(data: bytes) -> None:
    for message in (data, request_of(data)):
        with pytest.raises((TrustError, RemoteProtocolError)):
            open_request(message, SECRET, device_id=ID)
    for message in (data, response_of(data)):
        with pytest.raises((TrustError, RemoteProtocolError)):
            hear(message)


def test_who_made_a_request_is_known_whatever_its_code() -> None:
    wrong_code = build_request(REQUEST, bytes(16), DEVICE)
    digest = check_author(wrong_code, bytes(DEVICE.verify_key))
    assert (
        digest
        == check_author(MESSAGE, bytes(DEVICE.verify_key))
        != check_author(
            build_request(replace(REQUEST, nonce=bytes([1]) * 32), SECRET, DEVICE), bytes(DEVICE.verify_key)
        )
    )
    with pytest.raises(SignatureInvalid):
        check_author(MESSAGE, bytes(OTHER.verify_key))
    for at in (0, len(MESSAGE) // 3, len(MESSAGE) - 1):
        changed = bytearray(MESSAGE)
        changed[at] ^= 1
        with pytest.raises(SignatureInvalid):
            check_author(bytes(changed), bytes(DEVICE.verify_key))
    with pytest.raises(RemoteProtocolError):
        check_author(bytes(96), bytes(DEVICE.verify_key))
