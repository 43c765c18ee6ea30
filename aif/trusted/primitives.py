"""Cryptographic algorithms by their PSA names: bytes in, bytes out, no keys kept and no policy.

Decides which library computes what, and that unusable inputs are PSA errors. Does not decide who may use a
key for what (``encryption``).

Source: FIPS 180-4 (SHA-2), RFC 7693 (BLAKE2b), RFC 2104 (HMAC), RFC 8439 (ChaCha20-Poly1305), RFC 8032
(Ed25519), RFC 7748 (X25519), RFC 5869 (HKDF).
"""

from __future__ import annotations

import hashlib
import hmac
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.signing import SigningKey

from aif.errors import SignatureInvalid
from aif.protocol.cose import verify_ed25519
from aif.protocol.limits import HASH_BYTES, KEY_BYTES
from aif.trusted.psa import Algorithm, PSAError, PSAStatus

AEAD_NONCE_BYTES: Final = 12
_HMAC_HASHES: Final = MappingProxyType({Algorithm.HMAC_SHA_256: "sha256", Algorithm.HMAC_SHA_512: "sha512"})
_HKDF_HASHES: Final = MappingProxyType(
    {
        Algorithm.HKDF_SHA_256: ("sha256", hashes.SHA256()),
        Algorithm.HKDF_SHA_512: ("sha512", hashes.SHA512()),
    }
)
_HKDF_BLOCKS: Final = 255
"""RFC 5869 §2.3: output is at most 255 digests long."""


def hash_compute(algorithm: Algorithm, data: bytes) -> bytes:
    """Digest of ``data``.

    Raises:
        PSAError: ``NOT_SUPPORTED``, not a hash algorithm.
    """
    match algorithm:
        case Algorithm.SHA_256:
            return hashlib.sha256(data).digest()
        case Algorithm.SHA_512:
            return hashlib.sha512(data).digest()
        case Algorithm.BLAKE2B_256:
            return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()
        case _:
            raise unsupported(algorithm, "a hash")


def mac_compute(algorithm: Algorithm, key: bytes, data: bytes) -> bytes:
    """MAC of ``data`` under a key of 16 to 64 bytes.

    Raises:
        PSAError: ``NOT_SUPPORTED``, not a MAC algorithm.
    """
    if algorithm in _HMAC_HASHES:
        return hmac.digest(key, data, _HMAC_HASHES[algorithm])
    if algorithm is Algorithm.BLAKE2B_256_MAC:
        return hashlib.blake2b(data, key=key, digest_size=HASH_BYTES).digest()
    raise unsupported(algorithm, "a MAC")


def mac_verify(algorithm: Algorithm, key: bytes, data: bytes, mac: bytes) -> None:
    """Check a MAC, in constant time.

    Raises:
        PSAError: ``INVALID_SIGNATURE``.
    """
    if not hmac.compare_digest(mac_compute(algorithm, key, data), mac):
        raise PSAError(PSAStatus.INVALID_SIGNATURE, "the MAC is not of this key and message")


def aead_encrypt(key: bytes, nonce: bytes, additional_data: bytes, plaintext: bytes) -> bytes:
    """Ciphertext and 16-byte tag. A nonce must never be used twice with one key."""
    _check_nonce(nonce)
    return ChaCha20Poly1305(key).encrypt(nonce, plaintext, additional_data)


def aead_decrypt(key: bytes, nonce: bytes, additional_data: bytes, ciphertext: bytes) -> bytes:
    """The plaintext.

    Raises:
        PSAError: ``INVALID_SIGNATURE``, not sealed with this key, nonce and additional data.
    """
    _check_nonce(nonce)
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, ciphertext, additional_data)
    except InvalidTag as error:
        raise PSAError(
            PSAStatus.INVALID_SIGNATURE, "the ciphertext is not of this key, nonce and additional data"
        ) from error


def ed25519_public_key(seed: bytes) -> bytes:
    return bytes(SigningKey(seed).verify_key)


def ed25519_sign(seed: bytes, message: bytes) -> bytes:
    return bytes(SigningKey(seed).sign(message).signature)


def ed25519_verify(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature.

    Raises:
        PSAError: ``INVALID_SIGNATURE``.
    """
    try:
        verify_ed25519(public_key, message, signature)
    except SignatureInvalid as error:
        raise PSAError(PSAStatus.INVALID_SIGNATURE, "the signature is not of this key and message") from error


def x25519_public_key(secret: bytes) -> bytes:
    return crypto_scalarmult_base(secret)


def x25519(secret: bytes, peer_public_key: bytes) -> bytes:
    """The shared secret of 32 bytes.

    Raises:
        PSAError: ``INVALID_ARGUMENT``, the peer's key has another length or is of small order.
    """
    if len(peer_public_key) != KEY_BYTES:
        raise PSAError(PSAStatus.INVALID_ARGUMENT, f"an X25519 key has {KEY_BYTES} bytes")
    try:
        return crypto_scalarmult(secret, peer_public_key)
    except RuntimeError as error:  # libsodium's answer to an all-zero result (RFC 7748 §6.1)
        raise PSAError(PSAStatus.INVALID_ARGUMENT, "the peer's X25519 key is of small order") from error


def hkdf_extract(algorithm: Algorithm, salt: bytes, secret: bytes) -> bytes:
    """The pseudo-random key of RFC 5869 §2.2; HMAC pads an empty salt to the zeros that stand for it."""
    return hmac.digest(salt, secret, _HKDF_HASHES[algorithm][0])


def hkdf_expand(algorithm: Algorithm, pseudo_random_key: bytes, info: bytes, length: int) -> bytes:
    """The first ``length`` bytes of output, 1 to ``hkdf_capacity`` (RFC 5869 §2.3)."""
    return HKDFExpand(_HKDF_HASHES[algorithm][1], length, info).derive(pseudo_random_key)


def hkdf_capacity(algorithm: Algorithm) -> int:
    """Bytes that one derivation can give.

    Raises:
        PSAError: ``NOT_SUPPORTED``, not a derivation algorithm.
    """
    if algorithm not in _HKDF_HASHES:
        raise unsupported(algorithm, "a key derivation")
    return _HKDF_BLOCKS * _HKDF_HASHES[algorithm][1].digest_size


def unsupported(algorithm: Algorithm, what: str) -> PSAError:
    return PSAError(PSAStatus.NOT_SUPPORTED, f"{algorithm.name} is not {what} algorithm of this service")


def _check_nonce(nonce: bytes) -> None:
    if len(nonce) != AEAD_NONCE_BYTES:
        raise PSAError(PSAStatus.INVALID_ARGUMENT, f"the nonce has {AEAD_NONCE_BYTES} bytes")
