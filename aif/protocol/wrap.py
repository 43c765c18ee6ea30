"""Wrap: a few secret bytes sealed to one X25519 key (content keys and grants).

Decides the bytes of a wrap and that an all-zero shared secret is refused. Does not decide who the recipient
is, nor draw the ephemeral key: it is an argument and must be fresh for every wrap, because the AEAD nonce
is fixed and the key is unique only if the ephemeral key is.

Source: X25519 (RFC 7748 §5), keyed BLAKE2b-256 (RFC 7693), ChaCha20-Poly1305 (RFC 8439 §2.8)::

    ss  = X25519(ephemeral_sk, recipient_pk)                        all zero -> refused
    kw  = BLAKE2b-256(key = ss, "AIF-WRAP-1" || epk || recipient_pk || context)
    out = epk (32) || ChaCha20-Poly1305(kw, nonce = 0^12, aad = "", plaintext)
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

from aif.errors import DecryptionFailed, LocalProtocolError, RemoteProtocolError
from aif.protocol.limits import HASH_BYTES, KEY_BYTES, WRAP_OVERHEAD_BYTES

_LABEL: Final = b"AIF-WRAP-1"
_ZERO_NONCE: Final = bytes(12)
_PROBE_SK: Final = bytes([1] * KEY_BYTES)


def wrap(plaintext: bytes, recipient_pk: bytes, ephemeral_sk: bytes, context32: bytes) -> bytes:
    """Seal ``plaintext`` to ``recipient_pk``.

    Args:
        plaintext: any length; the result is 48 bytes longer.
        recipient_pk: X25519 public key, 32 bytes.
        ephemeral_sk: X25519 secret key, 32 fresh random bytes, used once and forgotten.
        context32: 32 bytes that name what is wrapped; the recipient must know the same bytes.

    Raises:
        RemoteProtocolError: the recipient's key is of small order.
    """
    _check_lengths(recipient_pk, ephemeral_sk, context32)
    ephemeral_pk = crypto_scalarmult_base(ephemeral_sk)
    try:
        shared = crypto_scalarmult(ephemeral_sk, recipient_pk)
    except RuntimeError as error:  # libsodium's answer to an all-zero result
        raise RemoteProtocolError("the recipient's X25519 key is of small order") from error
    key = _wrapping_key(shared, ephemeral_pk, recipient_pk, context32)
    return ephemeral_pk + ChaCha20Poly1305(key).encrypt(_ZERO_NONCE, plaintext, None)


def unwrap(blob: bytes, recipient_sk: bytes, context32: bytes) -> bytes:
    """Open what was wrapped to the public half of ``recipient_sk`` under the same context.

    Raises:
        RemoteProtocolError: shorter than any wrap.
        DecryptionFailed: for another recipient or context, changed, or made with a key of small order.
    """
    _check_lengths(recipient_sk, recipient_sk, context32)
    if len(blob) < WRAP_OVERHEAD_BYTES:
        raise RemoteProtocolError(f"wrap: {len(blob)} B is shorter than {WRAP_OVERHEAD_BYTES} B")
    ephemeral_pk, sealed = blob[:KEY_BYTES], blob[KEY_BYTES:]
    try:
        shared = crypto_scalarmult(recipient_sk, ephemeral_pk)
        key = _wrapping_key(shared, ephemeral_pk, crypto_scalarmult_base(recipient_sk), context32)
        return ChaCha20Poly1305(key).decrypt(_ZERO_NONCE, sealed, None)
    except (RuntimeError, InvalidTag) as error:
        raise DecryptionFailed("wrap: not for this key and context") from error


def check_x25519_key(public_key: bytes) -> None:
    """Refuse an X25519 public key with which every shared secret is zero (RFC 7748 §6.1).

    Raises:
        RemoteProtocolError: wrong length or small order.
    """
    if len(public_key) != KEY_BYTES:
        raise RemoteProtocolError(f"an X25519 key has {KEY_BYTES} bytes, not {len(public_key)}")
    try:
        # Scalars are multiples of the cofactor 8, so any one of them exposes a point of small order.
        crypto_scalarmult(_PROBE_SK, public_key)
    except RuntimeError as error:
        raise RemoteProtocolError("the X25519 key is of small order") from error


def _wrapping_key(shared: bytes, ephemeral_pk: bytes, recipient_pk: bytes, context32: bytes) -> bytes:
    message = _LABEL + ephemeral_pk + recipient_pk + context32
    return hashlib.blake2b(message, key=shared, digest_size=HASH_BYTES).digest()


def _check_lengths(first_key: bytes, second_key: bytes, context32: bytes) -> None:
    if not len(first_key) == len(second_key) == KEY_BYTES or len(context32) != HASH_BYTES:
        raise LocalProtocolError(f"wrap needs keys of {KEY_BYTES} B and a context of {HASH_BYTES} B")
