"""Sealed records and the head that dates them: the bytes and rules of secure storage, without I/O.

Decides how an asset is sealed for its owner, how the content of a whole store is summed up in one head, and
what a store may do when it starts. Does not read, write, or draw nonces.

Invariants: a record opens only for its owner, uid, flags and version; a head is valid only for exactly one
set of records, so that a store whose file was replaced by an older one is told apart by its anchor.

Source: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03, libsodium), BLAKE2b-256 (RFC 7693). Bytes::

    record = nonce (24) || XChaCha20-Poly1305(BLAKE2b(key of the store, owner), nonce, aad, body)
    aad    = "AIF-PS-1" || owner (16) || uid (8) || flags (4) || version (8)
    head   = generation g, digest = BLAKE2b(MAC key, g (8) || sorted (owner, uid, version (8), tag (16)))

A record without confidentiality is ``nonce || body || tag``; its body stands behind the aad instead.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from aif.protocol.limits import HASH_BYTES, KEY_BYTES, TAG_BYTES
from aif.trusted.psa import PSAError, PSAStatus, StorageFlag

NONCE_BYTES: Final = 24
RECORD_OVERHEAD_BYTES: Final = NONCE_BYTES + TAG_BYTES
OWNER_BYTES: Final = 16
UID_BYTES: Final = 8
_LABEL: Final = b"AIF-PS-1"


@dataclass(frozen=True, slots=True)
class RecordKeys:
    """Keys of one store, derived from the device's storage key."""

    seal: bytes = field(repr=False)
    mac: bytes = field(repr=False)

    @classmethod
    def derive(cls, storage_key: bytes, store: str) -> RecordKeys:
        """Keys of the store called ``store``; no two stores share one.

        Args:
            storage_key: 32 bytes.
            store: its name, the same at every start.
        """
        root = derive_key(storage_key, b"AIF-STORE-1" + store.encode())
        return cls(derive_key(root, b"seal"), derive_key(root, b"head"))


@dataclass(frozen=True, slots=True)
class RecordId:
    """Whose asset, and which."""

    owner: bytes
    uid: bytes


@dataclass(frozen=True, slots=True)
class RecordVersion:
    """What a head says about one record."""

    version: int
    tag: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """State of a whole store: ``generation`` grows with every protected change."""

    generation: int
    digest: bytes


class StartUp(Enum):
    """What a store does when it starts."""

    GO = "go"
    ROLL_FORWARD = "roll forward"
    """The process ended between the store's commit and its anchor: write the anchor now."""


def derive_key(key: bytes, label: bytes) -> bytes:
    """BLAKE2b-256 of a label under a 32-byte key."""
    return hashlib.blake2b(label, key=key, digest_size=KEY_BYTES).digest()


def seal_record(
    keys: RecordKeys, record: RecordId, flags: StorageFlag, version: int, body: bytes, nonce: bytes
) -> bytes:
    """Seal ``body``; the result is 40 bytes longer.

    Args:
        keys: the store's.
        record: owner of 16 bytes and uid of 8 bytes.
        flags: become part of what is authenticated.
        version: of this record, 0 to 2^63 - 1.
        body: any length.
        nonce: 24 fresh random bytes.
    """
    key, aad = derive_key(keys.seal, record.owner), _aad(record, flags, version)
    if StorageFlag.NO_CONFIDENTIALITY in flags:
        return nonce + body + crypto_aead_xchacha20poly1305_ietf_encrypt(b"", aad + body, nonce, key)
    return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(body, aad, nonce, key)


def open_record(keys: RecordKeys, record: RecordId, flags: StorageFlag, version: int, sealed: bytes) -> bytes:
    """The body of a record.

    Raises:
        PSAError: ``DATA_CORRUPT``, it is not what was stored there.
    """
    if len(sealed) < RECORD_OVERHEAD_BYTES:
        raise corrupt("a stored record is too short")
    key, aad = derive_key(keys.seal, record.owner), _aad(record, flags, version)
    nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        if StorageFlag.NO_CONFIDENTIALITY in flags:
            body, tag = rest[:-TAG_BYTES], rest[-TAG_BYTES:]
            crypto_aead_xchacha20poly1305_ietf_decrypt(tag, aad + body, nonce, key)
            return body
        return crypto_aead_xchacha20poly1305_ietf_decrypt(rest, aad, nonce, key)
    except CryptoError as error:
        raise corrupt("a stored record is not what was stored there") from error


def head_of(keys: RecordKeys, generation: int, records: Mapping[RecordId, RecordVersion]) -> Head:
    """The head of a store with these protected records."""
    mac = hashlib.blake2b(generation.to_bytes(8), key=keys.mac, digest_size=HASH_BYTES)
    for record, state in sorted(records.items(), key=lambda item: (item[0].owner, item[0].uid)):
        mac.update(record.owner + record.uid + state.version.to_bytes(8) + state.tag)
    return Head(generation, mac.digest())


def check_head(keys: RecordKeys, head: Head, records: Mapping[RecordId, RecordVersion]) -> None:
    """Refuse a head that is not of these records.

    Raises:
        PSAError: ``DATA_CORRUPT``.
    """
    if not hmac.compare_digest(head_of(keys, head.generation, records).digest, head.digest):
        raise corrupt("records were changed, added or removed behind the store's back")


def start_up(head: Head, anchors: Iterable[Head]) -> StartUp:
    """What to do with a store whose head fits its records, given the anchors that internal flash holds.

    ========================================  =========================================
    head and newest anchor                    then
    ========================================  =========================================
    same generation, same digest              go
    head one generation ahead                 roll the anchor forward, then go
    no anchor and generation 0                roll forward: the store is new
    anything else                             ``DATA_CORRUPT``: one of both was rewound
    ========================================  =========================================

    Raises:
        PSAError: ``DATA_CORRUPT``.
    """
    newest = max(anchors, key=lambda anchor: anchor.generation, default=None)
    expected = 0 if newest is None else newest.generation + 1
    if head.generation == expected:
        return StartUp.ROLL_FORWARD
    if newest is not None and head == newest:
        return StartUp.GO
    raise corrupt(
        f"the store is of generation {head.generation}, internal flash remembers "
        f"{'none' if newest is None else newest.generation}"
    )


def slot_of(generation: int) -> int:
    """Which of the two anchors a generation is written to: the older one."""
    return generation % 2


def corrupt(message: str) -> PSAError:
    """The error for storage that somebody else than this service wrote to."""
    return PSAError(
        PSAStatus.DATA_CORRUPT,
        message,
        hint="the files were restored, copied or edited: reset the device's storage and enrol it again",
    )


def _aad(record: RecordId, flags: StorageFlag, version: int) -> bytes:
    parts: Sequence[bytes] = (record.owner, record.uid, int(flags).to_bytes(4), version.to_bytes(8))
    return _LABEL + b"".join(parts)
