"""Grants: each wrong field and each wrong circumstance is refused with its own error and counter."""

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
    DecryptionFailed,
    Expired,
    LocalProtocolError,
    RemoteProtocolError,
    ReplayDetected,
    RollbackDetected,
    SignatureInvalid,
    TrustError,
)
from aif.protocol.cbor import encode
from aif.protocol.grant import Grant, Role, RosterRow, grant_cause, issue_grant, open_grant
from aif.protocol.limits import MAX_GRANT_BYTES
from aif.protocol.numbers import AuthMode, Cause
from aif.protocol.wrap import unwrap, wrap
from aif.trusted.engine_messages import grant_of, row_of_grant

CONTROLLER = SigningKey(bytes([3]) * 32)
CONTROLLER_PK = bytes(CONTROLLER.verify_key)
SESSION_SK, EPHEMERAL_SK = bytes([7]) * 32, bytes([8]) * 32
SESSION_PK = crypto_scalarmult_base(SESSION_SK)
CONTEXT = hashlib.blake2b(b"AIF-GRANT-1", digest_size=32).digest()
NOW_S = 1_700_000_000
ROW = RosterRow(7, bytes([0x11]) * 16, bytes([0x22]) * 16, bytes([0x33]) * 16)
GRANT = Grant(
    channel_id=bytes([0x44]) * 16,
    epoch=1,
    roles=Role.SEND,
    sender_index=7,
    k_epoch=bytes(range(32)),
    valid_from_s=NOW_S,
    valid_to_s=NOW_S + 7200,
    max_frames=1 << 20,
    mapping_version=3,
    serial=9,
    auth_mode=AuthMode.AEAD,
    max_frame_bytes=4096,
    roster=(ROW,),
)


def issue(grant: Grant = GRANT) -> bytes:
    return issue_grant(grant, SESSION_PK, CONTROLLER, EPHEMERAL_SK)


def open_now(blob: bytes, **changed: Any) -> Grant:
    circumstances: dict[str, Any] = {"now_s": NOW_S, "highest_serial": 8, "mapping_version": 3}
    return open_grant(blob, SESSION_SK, CONTROLLER_PK, **circumstances | changed)


def document() -> dict[int, Any]:
    """The body of ``GRANT`` as a plain map, to be spoiled."""
    body: dict[int, Any] = cbor2.loads(unwrap(issue(), SESSION_SK, CONTEXT)[:-64])
    return body


def sealed(body: bytes) -> bytes:
    """Any body, properly signed and wrapped by the Controller."""
    signature = CONTROLLER.sign(b"AIF-GRANT-1" + SESSION_PK + body).signature
    return wrap(body + signature, SESSION_PK, EPHEMERAL_SK, CONTEXT)


UINT = st.integers(0, (1 << 32) - 1)
ROWS = st.builds(
    RosterRow,
    index=st.integers(0, 65535),
    aim_instance_id=st.binary(min_size=16, max_size=16),
    host_id=st.binary(min_size=16, max_size=16),
    grant_nonce=st.binary(min_size=16, max_size=16),
    sign_pk=st.binary(min_size=32, max_size=32),
)


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    rows = draw(
        st.lists(ROWS, min_size=1, max_size=5, unique_by=(lambda r: r.index, lambda r: r.grant_nonce))
    )
    roles = draw(st.sampled_from([Role.SEND, Role.RECEIVE, Role.SEND | Role.RECEIVE]))
    return Grant(
        channel_id=draw(st.binary(min_size=16, max_size=16)),
        epoch=draw(UINT),
        roles=roles,
        sender_index=rows[0].index if Role.SEND in roles else None,
        k_epoch=draw(st.none() | st.binary(min_size=32, max_size=32)),
        valid_from_s=draw(st.integers(0, NOW_S)),
        valid_to_s=draw(st.integers(NOW_S + 1, NOW_S * 2)),
        max_frames=draw(st.integers(1, (1 << 48) - 1)),
        mapping_version=draw(st.integers(3, 1 << 20)),
        serial=draw(st.integers(9, 1 << 40)),
        auth_mode=draw(st.sampled_from(AuthMode)),
        max_frame_bytes=draw(st.integers(91, 65536)),
        roster=tuple(rows),
    )


@given(grants())
def test_what_is_granted_opens_to_the_same_value(grant: Grant) -> None:
    assert open_now(issue(grant)) == grant


def test_sizes_follow_the_layout() -> None:
    full = replace(GRANT, serial=1000, max_frame_bytes=1024)
    assert len(issue(full)) == 259  # one row; a serial up to 255 takes one byte less
    signing = replace(ROW, sign_pk=bytes(32))
    assert len(issue(replace(full, roster=(signing,)))) == 259 + 34
    more = replace(ROW, index=8, grant_nonce=bytes(16))
    assert len(issue(replace(full, roster=(ROW, more)))) == 259 + 53


def test_a_full_roster_fits_and_one_more_row_does_not() -> None:
    rows = [RosterRow(index, bytes(16), bytes(16), index.to_bytes(16), bytes(32)) for index in range(257)]
    blob = issue(replace(GRANT, roster=tuple(rows[:256])))
    assert len(blob) < MAX_GRANT_BYTES
    assert len(open_now(blob).roster) == 256
    with pytest.raises(LocalProtocolError, match="at most 256"):
        issue(replace(GRANT, roster=tuple(rows)))


@pytest.mark.parametrize(
    ("circumstance", "error", "cause"),
    [
        ({"now_s": NOW_S - 1}, Expired, Cause.GRANT_TIME),
        ({"now_s": NOW_S + 7201}, Expired, Cause.GRANT_TIME),
        ({"highest_serial": 9}, ReplayDetected, Cause.GRANT_SERIAL),
        ({"highest_serial": 10}, ReplayDetected, Cause.GRANT_SERIAL),
        ({"mapping_version": 4}, RollbackDetected, Cause.GRANT_MAPPING),
    ],
)
def test_each_wrong_circumstance_has_its_own_error_and_counter(
    circumstance: dict[str, int], error: type[TrustError], cause: Cause
) -> None:
    with pytest.raises(error) as refused:
        open_now(issue(), **circumstance)
    assert type(refused.value) is error
    assert grant_cause(refused.value) is cause


@pytest.mark.parametrize(
    "circumstance", [{"now_s": NOW_S + 7200}, {"highest_serial": 0}, {"mapping_version": 0}]
)
def test_the_edges_of_validity_are_inside(circumstance: dict[str, int]) -> None:
    assert open_now(issue(), **circumstance) == GRANT


def test_another_session_cannot_open_it() -> None:
    with pytest.raises(DecryptionFailed) as refused:
        open_grant(issue(), bytes([9]) * 32, CONTROLLER_PK, now_s=NOW_S, highest_serial=8, mapping_version=3)
    assert grant_cause(refused.value) is Cause.GRANT_RECIPIENT


def test_a_member_cannot_pass_its_grant_on_in_a_new_wrap() -> None:
    stolen = unwrap(issue(), SESSION_SK, CONTEXT)
    victim_sk = bytes([9]) * 32
    rewrapped = wrap(stolen, crypto_scalarmult_base(victim_sk), EPHEMERAL_SK, CONTEXT)
    with pytest.raises(SignatureInvalid) as refused:
        open_grant(rewrapped, victim_sk, CONTROLLER_PK, now_s=NOW_S, highest_serial=8, mapping_version=3)
    assert grant_cause(refused.value) is Cause.GRANT_SIGNATURE


def test_a_grant_by_anybody_else_is_refused() -> None:
    forged = issue_grant(GRANT, SESSION_PK, SigningKey(bytes(32)), EPHEMERAL_SK)
    with pytest.raises(SignatureInvalid):
        open_now(forged)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (0, 2, "version 2 is not supported"),
        (1, bytes(15), "channel id must be 16 bytes"),
        (2, 1 << 32, "epoch must be"),
        (3, 65536, "sender index must be"),
        (3, 8, "not in the roster"),
        (3, None, "present exactly for the send role"),
        (4, 0, "roles must be"),
        (4, 4, "roles must be"),
        (4, 2, "present exactly for the send role"),
        (5, bytes(31), "epoch key must be 32 bytes"),
        (6, -1, "valid from must be"),
        (6, NOW_S + 7200, "valid to must be after"),
        (7, "soon", "valid to must be"),
        (8, 0, "max frames must be"),
        (8, 1 << 48, "max frames must be"),
        (9, 1 << 32, "mapping version must be"),
        (10, 0, "serial must be"),
        (11, 3, "auth mode must be"),
        (11, 1, "signed needs a sign key in every roster row"),
        (11, 2, "checkpoint needs a sign key in every roster row"),
        (12, 90, "max frame must be"),
        (12, 65537, "max frame must be"),
        (13, {}, "roster must be an array"),
        (13, [], "not in the roster"),
        (13, [7], "roster row 0: is not an array"),
        (13, [[7, bytes(16), bytes(16)]], "grant nonce .key 3. is missing"),
        (13, [[7, bytes(16), bytes(16), bytes(16), bytes(31)]], "sign key must be 32 bytes"),
        (13, [[7, bytes(16), bytes(16), bytes(16), bytes(32), 0]], "roster row 0: unknown key 5"),
        (13, [[7, bytes(16), bytes(16), bytes(16)], [7, bytes(16), bytes(16), bytes(15) + b"1"]], "twice"),
        (13, [[7, bytes(16), bytes(16), bytes(16)], [8, bytes(16), bytes(16), bytes(16)]], "twice"),
        (15, 0, "unknown key 15"),
    ],
)
def test_each_field_wrong_alone_is_named(key: int, value: object, message: str) -> None:
    body = document()
    body[key] = value
    if value is None:
        del body[key]
    with pytest.raises(RemoteProtocolError, match=message) as refused:
        open_now(sealed(encode(body)))
    assert grant_cause(refused.value) is Cause.GRANT_SIGNATURE


@pytest.mark.parametrize("key", [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13])
def test_each_missing_field_is_refused(key: int) -> None:
    body = document()
    del body[key]
    with pytest.raises(RemoteProtocolError):
        open_now(sealed(encode(body)))


def test_a_signed_body_in_another_encoding_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="deterministic"):
        open_now(sealed(encode(document()).replace(b"\x02\x01", b"\x02\x18\x01", 1)))


def test_a_contradictory_grant_is_never_issued() -> None:
    with pytest.raises(LocalProtocolError, match="not in the roster"):
        issue(replace(GRANT, sender_index=8))
    with pytest.raises(LocalProtocolError, match="serial"):
        issue(replace(GRANT, serial=0))


def test_other_errors_have_no_grant_counter() -> None:
    with pytest.raises(LocalProtocolError, match="TrustError"):
        grant_cause(TrustError("other"))


def test_a_grant_does_not_print_its_key() -> None:
    assert "k_epoch" not in repr(GRANT)


@given(st.integers(0, 8 * 257 - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    changed = bytearray(issue())
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecryptionFailed):
        open_now(bytes(changed))


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_our_errors(data: bytes) -> None:
    with pytest.raises((DecryptionFailed, RemoteProtocolError)):
        open_now(data)


@given(st.binary(max_size=300))
def test_random_bodies_that_are_signed_raise_only_our_errors(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        open_now(sealed(body))


def test_a_blob_beyond_the_cap_is_refused_unopened() -> None:
    with pytest.raises(RemoteProtocolError, match="not the size of a grant"):
        open_now(bytes(MAX_GRANT_BYTES + 1))


def test_refused_senders_travel_with_a_grant_and_through_the_engine() -> None:
    grant = replace(GRANT, roles=Role.RECEIVE, sender_index=None, refused=(2, 5))
    assert open_now(issue(grant)) == grant
    assert grant_of(cbor2.loads(cbor2.dumps(row_of_grant(grant)))) == grant
    closing = replace(grant, roster=())  # the channel's only sender was revoked
    assert open_now(issue(closing)) == closing


@pytest.mark.parametrize("refused", [[], [5, 2], [2, 2], [7], [65536], [-1], ["2"], 2, list(range(257))])
def test_refused_senders_are_checked(refused: object) -> None:
    with pytest.raises(RemoteProtocolError):
        open_now(sealed(cbor2.dumps({**document(), 14: refused}, canonical=True)))
