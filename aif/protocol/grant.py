"""Grants: the Controller's permission to send or receive on one channel, and the epoch key to do so.

Decides the bytes of a grant and when a device may act on one. Does not decide who deserves a grant, nor what
the channel does with it. Invariants: a grant opens only with the session key it was made for and only if the
Controller signed that very recipient; a repeated grant is refused, so it can never reset a counter.

Bytes (ChaCha20-Poly1305 of RFC 8439, Ed25519 of RFC 8032, CBOR of RFC 8949 §4.2.1)::

    grant = wrap(body || Ed25519(grant key, "AIF-GRANT-1" || recipient_pk || body))
    body  = {0: version, 1: channel id, 2: epoch, 3: sender index?, 4: roles, 5: K_epoch?, 6: valid from,
             7: valid to, 8: max frames, 9: mapping version, 10: serial, 11: auth mode, 12: max frame,
             13: [[index, AIM instance, host, grant nonce, sign key?], ...], 14: [refused index, ...]?}
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import IntFlag
from types import MappingProxyType
from typing import Final

from nacl.bindings import crypto_scalarmult_base

from aif.errors import (
    DecryptionFailed,
    Expired,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    ReplayDetected,
    RollbackDetected,
    SignatureInvalid,
    TrustError,
)
from aif.protocol.cbor import Fields, decode, encode_document
from aif.protocol.cose import Sign, sign_ed25519, verify_ed25519
from aif.protocol.limits import (
    HASH_BYTES,
    ID_BYTES,
    KEY_BYTES,
    MAX_FRAME_BYTES,
    MAX_FRAME_COUNTER,
    MAX_GRANT_BYTES,
    MAX_ROSTER_ROWS,
    SIGNATURE_BYTES,
    UINT16_MAX,
    UINT32_MAX,
    UINT63_MAX,
    WRAP_OVERHEAD_BYTES,
)
from aif.protocol.numbers import SIGNED_OVERHEAD_BYTES, AuthMode, Cause
from aif.protocol.wrap import unwrap, wrap

GRANT_VERSION: Final = 1
_LABEL: Final = b"AIF-GRANT-1"
_CONTEXT: Final = hashlib.blake2b(_LABEL, digest_size=HASH_BYTES).digest()
_AUTH_CODES: Final = MappingProxyType({AuthMode.AEAD: 0, AuthMode.SIGNED: 1, AuthMode.CHECKPOINT: 2})
_AUTH_MODES: Final = MappingProxyType({code: mode for mode, code in _AUTH_CODES.items()})
_CAUSES: Final = MappingProxyType(
    {
        SignatureInvalid: Cause.GRANT_SIGNATURE,
        RemoteProtocolError: Cause.GRANT_SIGNATURE,  # not a document the Controller can have signed
        DecryptionFailed: Cause.GRANT_RECIPIENT,
        ReplayDetected: Cause.GRANT_SERIAL,
        Expired: Cause.GRANT_TIME,
        RollbackDetected: Cause.GRANT_MAPPING,
    }
)


class Role(IntFlag):
    """What the recipient may do on the channel."""

    SEND = 1
    RECEIVE = 2


@dataclass(frozen=True, slots=True)
class RosterRow:
    """One sender of the channel, as every member must know it."""

    index: int
    """Sender index in frame headers, 0 .. 65 535, never used twice within a channel and epoch."""
    aim_instance_id: bytes
    host_id: bytes
    grant_nonce: bytes
    """16 bytes, fresh for each boot and mapping: it makes the sender's key unique."""
    sign_pk: bytes | None = None
    """The sender's Ed25519 key for this boot; needed in the signed and checkpoint modes."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission and key for one channel and epoch."""

    channel_id: bytes
    epoch: int
    roles: Role
    sender_index: int | None
    """Present exactly when ``roles`` has SEND; it then is one of the roster's rows."""
    k_epoch: bytes | None = field(repr=False)
    """32 bytes; None when only the roster changed."""
    valid_from_s: int
    valid_to_s: int
    """Unix time, inclusive at both ends."""
    max_frames: int
    mapping_version: int
    serial: int
    """Grows with every grant a Controller gives to one session, from 1."""
    auth_mode: AuthMode
    max_frame_bytes: int
    roster: tuple[RosterRow, ...]
    refused: tuple[int, ...] = ()
    """Sender indexes of earlier epochs whose frames are refused from now on, without the usual grace: their
    device was revoked. A sender that merely left has its grace."""


def issue_grant(grant: Grant, recipient_pk: bytes, sign: Sign, ephemeral_sk: bytes) -> bytes:
    """Sign and wrap a grant for one session key.

    Args:
        grant: what is granted.
        recipient_pk: the attested X25519 session key of the recipient's current boot.
        sign: the Controller's grant key.
        ephemeral_sk: 32 fresh random bytes.

    Raises:
        LocalProtocolError: the grant contradicts itself.
        RemoteProtocolError: the recipient's key is of small order.
    """
    body = encode_document(_document(grant), _read)
    signature = sign_ed25519(sign, _LABEL + recipient_pk + body)
    return wrap(body + signature, recipient_pk, ephemeral_sk, _CONTEXT)


def open_grant(
    blob: bytes,
    session_sk: bytes,
    controller_pk: bytes,
    *,
    now_s: int,
    highest_serial: int,
    mapping_version: int,
) -> Grant:
    """The grant in ``blob``, if this session may act on it now.

    Args:
        blob: as received.
        session_sk: this boot's X25519 secret key.
        controller_pk: the Controller's grant key, an anchor from enrolment.
        now_s: authenticated Unix time.
        highest_serial: highest serial accepted in this boot, 0 before the first.
        mapping_version: the mapping this device has; an older one is refused.

    Raises:
        DecryptionFailed: not for this session (``grant.recipient``).
        SignatureInvalid: not signed by the Controller for this session (``grant.signature``).
        RemoteProtocolError: malformed or contradictory (counted as ``grant.signature``).
        Expired: outside its validity (``grant.time``).
        ReplayDetected: serial not above the highest (``grant.serial``); a repeated grant changes nothing.
        RollbackDetected: of an earlier mapping (``grant.mapping``).
    """
    if not WRAP_OVERHEAD_BYTES + SIGNATURE_BYTES < len(blob) <= MAX_GRANT_BYTES:
        raise RemoteProtocolError(
            f"grant: {len(blob)} B is not the size of a grant", counter=Cause.GRANT_SIGNATURE
        )
    signed = unwrap(blob, session_sk, _CONTEXT)
    body, signature = signed[:-SIGNATURE_BYTES], signed[-SIGNATURE_BYTES:]
    verify_ed25519(controller_pk, _LABEL + crypto_scalarmult_base(session_sk) + body, signature)
    grant = _read(body)
    if not grant.valid_from_s <= now_s <= grant.valid_to_s:
        raise Expired(
            f"grant: valid from {grant.valid_from_s} to {grant.valid_to_s}, and it is {now_s}",
            hint="compare the device's time with the Controller's",
        )
    if grant.serial <= highest_serial:
        raise ReplayDetected(f"grant: serial {grant.serial} is not above {highest_serial}")
    if grant.mapping_version < mapping_version:
        raise RollbackDetected(f"grant: mapping {grant.mapping_version} is older than {mapping_version}")
    return grant


def grant_cause(error: TrustError | ProtocolError) -> Cause:
    """The counter of what ``open_grant`` raised.

    Raises:
        LocalProtocolError: ``open_grant`` does not raise such an error.
    """
    for kind, cause in _CAUSES.items():
        if isinstance(error, kind):
            return cause
    raise LocalProtocolError(f"no grant counter stands for {type(error).__name__}")


def _document(grant: Grant) -> dict[int, object]:
    document: dict[int, object] = {
        0: GRANT_VERSION,
        1: grant.channel_id,
        2: grant.epoch,
        4: int(grant.roles),
        6: grant.valid_from_s,
        7: grant.valid_to_s,
        8: grant.max_frames,
        9: grant.mapping_version,
        10: grant.serial,
        11: _AUTH_CODES[grant.auth_mode],
        12: grant.max_frame_bytes,
        13: [_row(row) for row in grant.roster],
    }
    if grant.sender_index is not None:
        document[3] = grant.sender_index
    if grant.k_epoch is not None:
        document[5] = grant.k_epoch
    if grant.refused:
        document[14] = list(grant.refused)
    return document


def _row(row: RosterRow) -> list[object]:
    known: list[object] = [row.index, row.aim_instance_id, row.host_id, row.grant_nonce]
    return known if row.sign_pk is None else [*known, row.sign_pk]


def _read(body: bytes) -> Grant:
    fields = Fields(decode(body, max_bytes=MAX_GRANT_BYTES), "grant")
    fields.version(0, GRANT_VERSION)
    rows = fields.array(13, "roster", max_items=MAX_ROSTER_ROWS)
    grant = Grant(
        channel_id=fields.bytes(1, "channel id", length=ID_BYTES),
        epoch=fields.uint(2, "epoch", maximum=UINT32_MAX),
        sender_index=fields.uint(3, "sender index", maximum=UINT16_MAX) if 3 in fields else None,
        roles=Role(fields.uint(4, "roles", minimum=1, maximum=Role.SEND | Role.RECEIVE)),
        k_epoch=fields.bytes(5, "epoch key", length=KEY_BYTES) if 5 in fields else None,
        valid_from_s=fields.uint(6, "valid from", maximum=UINT63_MAX),
        valid_to_s=fields.uint(7, "valid to", maximum=UINT63_MAX),
        max_frames=fields.uint(8, "max frames", minimum=1, maximum=MAX_FRAME_COUNTER),
        mapping_version=fields.uint(9, "mapping version", maximum=UINT32_MAX),
        serial=fields.uint(10, "serial", minimum=1, maximum=UINT63_MAX),
        auth_mode=_AUTH_MODES[fields.uint(11, "auth mode", maximum=max(_AUTH_MODES))],
        max_frame_bytes=fields.uint(
            12, "max frame", minimum=SIGNED_OVERHEAD_BYTES + 1, maximum=MAX_FRAME_BYTES
        ),
        roster=tuple(_read_row(row, f"grant: roster row {position}") for position, row in enumerate(rows)),
        refused=_read_refused(fields) if 14 in fields else (),
    )
    fields.done()
    _refuse_contradictions(grant)
    return grant


def _read_refused(fields: Fields) -> tuple[int, ...]:
    indexes = fields.array(14, "refused", max_items=MAX_ROSTER_ROWS)
    row = Fields.of_row(indexes, "grant: refused")
    read = tuple(row.uint(n, "index", maximum=UINT16_MAX) for n in range(len(indexes)))
    if not read or list(read) != sorted(set(read)):
        raise RemoteProtocolError("grant: refused indexes must be there, grow, and occur once")
    return read


def _read_row(value: object, what: str) -> RosterRow:
    row = Fields.of_row(value, what)
    read = RosterRow(
        index=row.uint(0, "index", maximum=UINT16_MAX),
        aim_instance_id=row.bytes(1, "AIM instance", length=ID_BYTES),
        host_id=row.bytes(2, "host", length=ID_BYTES),
        grant_nonce=row.bytes(3, "grant nonce", length=ID_BYTES),
        sign_pk=row.bytes(4, "sign key", length=KEY_BYTES) if 4 in row else None,
    )
    row.done()
    return read


def _refuse_contradictions(grant: Grant) -> None:
    indexes = {row.index for row in grant.roster}
    nonces = {row.grant_nonce for row in grant.roster}
    if grant.valid_from_s >= grant.valid_to_s:
        raise RemoteProtocolError("grant: valid to must be after valid from")
    if len(indexes) < len(grant.roster) or len(nonces) < len(grant.roster):
        raise RemoteProtocolError("grant: a sender index or grant nonce occurs twice in the roster")
    if (Role.SEND in grant.roles) is not (grant.sender_index is not None):
        raise RemoteProtocolError("grant: a sender index is present exactly for the send role")
    if indexes & set(grant.refused):
        raise RemoteProtocolError("grant: a sender is both in the roster and refused")
    if grant.sender_index is not None and grant.sender_index not in indexes:
        raise RemoteProtocolError("grant: the sender is not in the roster")
    if grant.auth_mode is not AuthMode.AEAD and any(row.sign_pk is None for row in grant.roster):
        raise RemoteProtocolError(f"grant: {grant.auth_mode} needs a sign key in every roster row")
