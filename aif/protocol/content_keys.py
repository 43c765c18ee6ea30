"""Content keys on their way: from publisher to site, and from site to device.

Decides the bytes of a hand-over and of a wrapped key, and how a release commits to its key. Does not decide
who gets a key, nor draw one: keys and ephemeral keys are arguments.

A release has one content key for all devices. Its publisher hands it to a site sealed to the site's public
key; the site wraps it for one boot of one device under the digest of that device's install ticket. A
hand-over needs no signature: the signed metadata of the release commits to its key, and a forged one opens
nothing.

Invariant: a key that was wrapped to be used inside a Security Engine does not open where plaintext may leave
it, because the two uses have different contexts. Which of the two a device gets, the site decides.

Bytes (``wrap`` is X25519, BLAKE2b and ChaCha20-Poly1305, see there; BLAKE2b-256 of RFC 7693)::

    commitment = BLAKE2b-256(key = content key, "AIF-CKEY-1" || release_id)
    hand-over  = wrap({0: version, 1: [{0: path, 1: content key}, ...]}, site, BLAKE2b-256("AIF-CKEY-1"))
    run        = wrap(content key, session, ticket digest)
    in place   = wrap(content key, session, BLAKE2b-256("AIF-INPLACE-1" || ticket digest))
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from aif.errors import DecryptionFailed, LocalProtocolError, RemoteProtocolError
from aif.protocol import documents
from aif.protocol.limits import HASH_BYTES, KEY_BYTES, MAX_HAND_OVER_BYTES, WRAP_OVERHEAD_BYTES
from aif.protocol.wrap import unwrap, wrap

HAND_OVER_VERSION: Final = 1
_LABEL: Final = b"AIF-CKEY-1"
_IN_PLACE: Final = b"AIF-INPLACE-1"
_CONTEXT: Final = hashlib.blake2b(_LABEL, digest_size=HASH_BYTES).digest()


class KeyUse(StrEnum):
    """What a device may do with a wrapped content key."""

    RUN = "run"
    """Decrypt and run the model inside the Security Engine, and nowhere else."""
    IN_PLACE = "in place"
    """Also write the plaintext into a slot, from which firmware executes it."""


@dataclass(frozen=True, slots=True)
class ContentKey:
    """The key of the release at ``path`` in a store; 32 bytes."""

    path: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _HandOver:
    version: int
    keys: tuple[ContentKey, ...]


def commitment(content_key: bytes, release_id: bytes) -> bytes:
    """What the signed metadata of a release says about its key, 32 bytes; it does not help to guess it."""
    _check_key(content_key)
    return hashlib.blake2b(_LABEL + release_id, key=content_key, digest_size=HASH_BYTES).digest()


def check_commitment(content_key: bytes, release_id: bytes, expected: bytes) -> None:
    """Raise unless the key is the one that the release was published with.

    Raises:
        DecryptionFailed: another key.
    """
    if not hmac.compare_digest(commitment(content_key, release_id), expected):
        raise DecryptionFailed(
            "the content key is not the one that the release was published with",
            hint="ask the publisher to hand over its keys again",
        )


def seal_hand_over(keys: Iterable[ContentKey], site_pk: bytes, ephemeral_sk: bytes) -> bytes:
    """Content keys for one site.

    Args:
        keys: at most as many as ``MAX_HAND_OVER_BYTES`` hold, about 10,000.
        site_pk: the site's X25519 public key.
        ephemeral_sk: 32 fresh random bytes.

    Raises:
        LocalProtocolError: too many keys, or one that is none.
        RemoteProtocolError: the site's key is of small order.
    """
    listed = tuple(keys)
    for one in listed:
        _check_key(one.key)
    body = documents.encode(_HandOver(HAND_OVER_VERSION, listed))
    if len(body) > MAX_HAND_OVER_BYTES - WRAP_OVERHEAD_BYTES or len(listed) > documents.MAX_ITEMS:
        raise LocalProtocolError(
            f"{len(listed):,} keys are more than one hand-over carries",
            hint="hand over some of them at a time",
        )
    return wrap(body, site_pk, ephemeral_sk, _CONTEXT)


def open_hand_over(data: bytes, site_sk: bytes) -> tuple[ContentKey, ...]:
    """The keys that a publisher handed to this site.

    Raises:
        DecryptionFailed: made for another site, or changed.
        RemoteProtocolError: too large or malformed.
    """
    if len(data) > MAX_HAND_OVER_BYTES:
        raise RemoteProtocolError(
            f"a hand-over of {len(data):,} B, at most {MAX_HAND_OVER_BYTES:,} B are read"
        )
    opened = documents.decode(_HandOver, unwrap(data, site_sk, _CONTEXT), max_bytes=MAX_HAND_OVER_BYTES)
    if opened.version != HAND_OVER_VERSION:
        raise RemoteProtocolError(f"hand-over: version {opened.version} is not known")
    if any(len(one.key) != KEY_BYTES for one in opened.keys):
        raise RemoteProtocolError(f"hand-over: a content key has {KEY_BYTES} bytes")
    return opened.keys


def wrap_content_key(
    content_key: bytes, session_pk: bytes, ephemeral_sk: bytes, ticket_digest: bytes, use: KeyUse
) -> bytes:
    """A content key for one boot of one device, 80 bytes.

    Args:
        content_key: 32 bytes.
        session_pk: the attested X25519 key of the device's boot.
        ephemeral_sk: 32 fresh random bytes.
        ticket_digest: of the ticket under which the device has or gets the release.
        use: what the device may do with it.

    Raises:
        RemoteProtocolError: the session key is of small order.
    """
    _check_key(content_key)
    return wrap(content_key, session_pk, ephemeral_sk, _context(ticket_digest, use))


def unwrap_content_key(blob: bytes, session_sk: bytes, ticket_digest: bytes, use: KeyUse) -> bytes:
    """The content key in ``blob``.

    Raises:
        DecryptionFailed: for another session, ticket or use, or changed.
        RemoteProtocolError: not as long as a wrapped key.
    """
    if len(blob) != KEY_BYTES + WRAP_OVERHEAD_BYTES:
        raise RemoteProtocolError(
            f"a wrapped content key has {KEY_BYTES + WRAP_OVERHEAD_BYTES} bytes, not {len(blob)}"
        )
    return unwrap(blob, session_sk, _context(ticket_digest, use))


def _context(ticket_digest: bytes, use: KeyUse) -> bytes:
    if use is KeyUse.RUN:
        return ticket_digest
    return hashlib.blake2b(_IN_PLACE + ticket_digest, digest_size=HASH_BYTES).digest()


def _check_key(content_key: bytes) -> None:
    if len(content_key) != KEY_BYTES:
        raise LocalProtocolError(f"a content key has {KEY_BYTES} bytes")
