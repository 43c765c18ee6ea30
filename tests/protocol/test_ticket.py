"""Install tickets: each field wrong alone is refused with its own error, in the device's order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from aif.errors import (
    AIFError,
    ArenaOverflow,
    Expired,
    FlashOverflow,
    LocalProtocolError,
    NotAuthorised,
    RemoteProtocolError,
    RollbackDetected,
    SignatureInvalid,
    TrustError,
)
from aif.protocol.cbor import encode
from aif.protocol.cose import parse1, sign1
from aif.protocol.ticket import (
    ComponentState,
    FirmwareRange,
    InstallTarget,
    ModelAEAD,
    Slot,
    Ticket,
    TicketCheck,
    VerifiedTicket,
    issue_ticket,
    verify_ticket,
)

KEY = SigningKey(bytes([4]) * 32)
PUBLIC = bytes(KEY.verify_key)
NOW_S = 1_700_000_000
TICKET = Ticket(
    device_id=bytes([1]) * 16,
    nonce=bytes([2]) * 16,
    release_counter=5,
    component="kws",
    slot=Slot.B,
    plaintext_sha256=bytes([3]) * 32,
    plaintext_bytes=10_000,
    ciphertext_sha256=bytes([4]) * 32,
    ciphertext_bytes=10_048,
    arena_bytes=8_192,
    firmware=FirmwareRange(10, 20, 1),
    not_after_s=NOW_S,
    hw_class=bytes([5]) * 16,
)
PLAIN = replace(
    TICKET, aead=ModelAEAD.NONE, ciphertext_bytes=10_000, ciphertext_sha256=TICKET.plaintext_sha256
)
STATE = ComponentState(counter_floor=4, inactive_slot=Slot.B, slot_bytes=10_000)
TARGET = InstallTarget(
    device_id=bytes([1]) * 16,
    hw_class=bytes([5]) * 16,
    firmware_version=20,
    abi=1,
    time_floor_s=NOW_S,
    components={"kws": STATE},
    arena_bytes=8_192,
)


def verify(
    data: bytes, target: InstallTarget = TARGET, *, allow_plain: bool = False, passed: Any = None
) -> VerifiedTicket:
    return verify_ticket(data, PUBLIC, target, allow_plain=allow_plain, passed=passed)


def document() -> dict[int, Any]:
    """The payload of ``TICKET`` as a plain map, to be spoiled."""
    data = issue_ticket(TICKET, KEY)
    payload: dict[int, Any] = cbor2.loads(parse1(data, tagged=False, max_bytes=512).unverified_payload)
    return payload


def signed(payload: bytes, *, aad: bytes = b"AIF-TICKET-1") -> bytes:
    return sign1(payload, KEY, external_aad=aad, tagged=False)


def test_a_good_ticket_passes_every_check_in_order() -> None:
    passed: list[TicketCheck] = []
    verified = verify(issue_ticket(TICKET, KEY), passed=passed)
    assert verified.ticket == TICKET
    assert passed == list(TicketCheck)
    assert len(verified.digest) == 32


def test_size_is_as_planned() -> None:
    ticket = replace(
        TICKET,
        component="k",
        release_counter=1 << 16,
        plaintext_bytes=1 << 16,
        ciphertext_bytes=(1 << 16) + 16 * 16,
        arena_bytes=1 << 16,
    )
    sizes = {len(issue_ticket(replace(ticket, component="k" * n), KEY)) for n in (1, 2, 3)}
    assert sizes == {247, 248, 249}  # one byte per character of the name


def test_the_digest_is_over_the_payload_not_the_signature() -> None:
    first, second = issue_ticket(TICKET, KEY), issue_ticket(replace(TICKET, nonce=bytes(16)), KEY)
    assert verify(first).digest == verify(first).digest != verify(second).digest


WRONG_TARGETS: list[tuple[dict[str, Any], type[AIFError], TicketCheck]] = [
    ({"device_id": bytes(16)}, NotAuthorised, TicketCheck.DEVICE),
    ({"hw_class": bytes(16)}, NotAuthorised, TicketCheck.HW_CLASS),
    ({"firmware_version": 9}, NotAuthorised, TicketCheck.FIRMWARE),
    ({"firmware_version": 21}, NotAuthorised, TicketCheck.FIRMWARE),
    ({"abi": 2}, NotAuthorised, TicketCheck.FIRMWARE),
    ({"time_floor_s": NOW_S + 1}, Expired, TicketCheck.TIME),
    ({"components": {}}, NotAuthorised, TicketCheck.COUNTER),
    ({"components": {"kws": replace(STATE, counter_floor=5)}}, RollbackDetected, TicketCheck.COUNTER),
    ({"components": {"kws": replace(STATE, inactive_slot=Slot.A)}}, NotAuthorised, TicketCheck.SLOT),
    ({"components": {"kws": replace(STATE, slot_bytes=9_999)}}, FlashOverflow, TicketCheck.LENGTH),
    ({"arena_bytes": 8_191}, ArenaOverflow, TicketCheck.ARENA),
]


@pytest.mark.parametrize(("wrong", "error", "check"), WRONG_TARGETS)
def test_each_mismatch_alone_stops_at_its_own_check(
    wrong: dict[str, Any], error: type[AIFError], check: TicketCheck
) -> None:
    passed: list[TicketCheck] = []
    with pytest.raises(error):
        verify(issue_ticket(TICKET, KEY), replace(TARGET, **wrong), passed=passed)
    order = list(TicketCheck)
    assert passed == order[: order.index(check)]


def test_the_figures_of_an_overflow_are_told() -> None:
    with pytest.raises(ArenaOverflow) as refused:
        verify(issue_ticket(TICKET, KEY), replace(TARGET, arena_bytes=100))
    assert (refused.value.needed_bytes, refused.value.available_bytes) == (8_192, 100)


def test_a_plain_model_needs_a_policy_that_allows_it() -> None:
    passed: list[TicketCheck] = []
    with pytest.raises(NotAuthorised, match="not encrypted"):
        verify(issue_ticket(PLAIN, KEY), passed=passed)
    assert passed == list(TicketCheck)[:-1]
    assert verify(issue_ticket(PLAIN, KEY), allow_plain=True).ticket == PLAIN
    assert verify(issue_ticket(TICKET, KEY), allow_plain=True).ticket == TICKET


def test_a_ticket_by_anybody_else_or_of_another_type_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        verify(issue_ticket(TICKET, SigningKey(bytes(32))))
    with pytest.raises(SignatureInvalid):
        verify(signed(encode(document()), aad=b"AIF-RESULT-1"))


def test_the_envelope_is_exactly_one_shape() -> None:
    payload = encode(document())
    with pytest.raises(RemoteProtocolError, match="unprotected header must be empty"):
        verify(sign1(payload, KEY, external_aad=b"AIF-TICKET-1", tagged=False, kid=b"k"))
    with pytest.raises(RemoteProtocolError, match="not carry CBOR tag"):
        verify(sign1(payload, KEY, external_aad=b"AIF-TICKET-1", tagged=True))
    with pytest.raises(RemoteProtocolError, match="larger than the allowed 512 B"):
        verify(bytes(513))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (1, 2, "version 2 is not supported"),
        (2, bytes(15), "device id must be 16 bytes"),
        (3, bytes(17), "ticket nonce must be 16 bytes"),
        (4, 0, "release counter must be"),
        (4, 1 << 32, "release counter must be"),
        (5, "kws", "component:slot must be"),
        (5, "kws:C", "component:slot must be"),
        (5, ":A", "component:slot must be"),
        (5, "k ws:A", "component:slot must be"),
        (5, "k" * 66, "component:slot must be"),
        (5, b"kws:A", "component:slot must be text"),
        (6, bytes(31), "plaintext sha256 must be 32 bytes"),
        (7, 0, "plaintext length must be"),
        (7, 9_999_999, "does not follow"),
        (7, 1 << 40, "plaintext length must be"),
        (8, bytes(33), "ciphertext sha256 must be 32 bytes"),
        (9, 10_047, "does not follow"),
        (9, 0, "ciphertext length must be"),
        (10, 1023, "chunk size must be"),
        (10, 16_385, "chunk size must be"),
        (10, 1024, "does not follow"),
        (11, 2, "AEAD id must be"),
        (11, 0, "does not follow"),
        (12, 1 << 32, "arena bytes must be"),
        (13, [10, 20], "compatible firmware: abi .key 2. is missing"),
        (13, [10, 20, 1, 1], "at most 3 items"),
        (13, [20, 10, 1], "min is above max"),
        (13, [-1, 10, 1], "min must be"),
        (14, -1, "not-after must be"),
        (15, bytes(15), "hw class must be 16 bytes"),
        (16, 0, "unknown key 16"),
        (0, 0, "unknown key 0"),
    ],
)
def test_each_field_wrong_alone_is_named(key: int, value: object, message: str) -> None:
    payload = document()
    payload[key] = value
    with pytest.raises(RemoteProtocolError, match=message):
        verify(signed(encode(payload)))


@pytest.mark.parametrize("key", range(1, 16))
def test_each_missing_field_is_refused(key: int) -> None:
    payload = document()
    del payload[key]
    with pytest.raises(RemoteProtocolError, match="missing"):
        verify(signed(encode(payload)))


def test_plain_digests_must_agree() -> None:
    with pytest.raises(LocalProtocolError, match="both digests must be equal"):
        issue_ticket(replace(PLAIN, ciphertext_sha256=bytes(32)), KEY)


def test_a_contradictory_ticket_is_never_issued() -> None:
    with pytest.raises(LocalProtocolError, match="does not follow"):
        issue_ticket(replace(TICKET, ciphertext_bytes=10_000), KEY)


@given(
    st.integers(1, 1 << 20),
    st.sampled_from([1024, 4096, 16_384]),
    st.integers(1, (1 << 32) - 1),
    st.booleans(),
)
def test_round_trip(length: int, chunk: int, counter: int, plain: bool) -> None:
    sealed_bytes = length if plain else length + 16 * -(-length // chunk)
    ticket = replace(
        PLAIN if plain else TICKET,
        plaintext_bytes=length,
        ciphertext_bytes=sealed_bytes,
        chunk_bytes=chunk,
        release_counter=counter,
    )
    state = ComponentState(counter_floor=counter - 1, inactive_slot=Slot.B, slot_bytes=length)
    target = replace(TARGET, components={"kws": state})
    assert verify(issue_ticket(ticket, KEY), target, allow_plain=plain).ticket == ticket


def test_every_flipped_bit_is_refused() -> None:
    data = issue_ticket(TICKET, KEY)
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((SignatureInvalid, RemoteProtocolError)):
            verify(bytes(changed))


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_our_errors(data: bytes) -> None:
    with pytest.raises((TrustError, RemoteProtocolError)):
        verify(data)
    with pytest.raises((TrustError, RemoteProtocolError)):
        verify(signed(data))
