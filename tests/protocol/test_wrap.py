"""Wrap: opens for its recipient and context only; keys of small order are refused at both ends."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt, crypto_scalarmult_base

from aif.errors import DecryptionFailed, LocalProtocolError, RemoteProtocolError
from aif.protocol.wrap import check_x25519_key, unwrap, wrap

ALICE_SK, BOB_SK = bytes(range(32)), bytes(range(32, 64))
EPHEMERAL_SK = bytes(range(64, 96))
BOB_PK = crypto_scalarmult_base(BOB_SK)
CONTEXT = bytes([7]) * 32

# RFC 7748 §6.1: Alice's secret and public key, Bob's, and what they share
RFC_7748 = (
    "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
    "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
)

# The points of small order of Curve25519 and their unreduced forms, as listed by its author.
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def test_a_wrap_is_x25519_blake2b_and_chacha20_poly1305_as_written() -> None:
    ephemeral_sk, ephemeral_pk, recipient_sk, recipient_pk, shared = map(bytes.fromhex, RFC_7748)
    key = hashlib.blake2b(
        b"AIF-WRAP-1" + ephemeral_pk + recipient_pk + CONTEXT, key=shared, digest_size=32
    ).digest()
    sealed = crypto_aead_chacha20poly1305_ietf_encrypt(b"content key", b"", bytes(12), key)
    assert wrap(b"content key", recipient_pk, ephemeral_sk, CONTEXT) == ephemeral_pk + sealed
    assert unwrap(ephemeral_pk + sealed, recipient_sk, CONTEXT) == b"content key"


@given(st.binary(max_size=300), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_what_is_wrapped_unwraps(plaintext: bytes, ephemeral: bytes, context: bytes) -> None:
    blob = wrap(plaintext, BOB_PK, ephemeral, context)
    assert len(blob) == len(plaintext) + 48
    assert unwrap(blob, BOB_SK, context) == plaintext


def test_another_recipient_or_context_cannot_open() -> None:
    blob = wrap(b"key", BOB_PK, EPHEMERAL_SK, CONTEXT)
    with pytest.raises(DecryptionFailed):
        unwrap(blob, ALICE_SK, CONTEXT)
    with pytest.raises(DecryptionFailed):
        unwrap(blob, BOB_SK, bytes(32))


def test_each_flipped_bit_is_refused() -> None:
    blob = wrap(b"key", BOB_PK, EPHEMERAL_SK, CONTEXT)
    for bit in range(len(blob) * 8):
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecryptionFailed):
            unwrap(bytes(changed), BOB_SK, CONTEXT)


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_points_of_small_order_are_refused(point: str) -> None:
    key = bytes.fromhex(point)
    with pytest.raises(RemoteProtocolError, match="small order"):
        wrap(b"key", key, EPHEMERAL_SK, CONTEXT)
    with pytest.raises(RemoteProtocolError, match="small order"):
        check_x25519_key(key)
    with pytest.raises(DecryptionFailed):
        unwrap(key + bytes(20), BOB_SK, CONTEXT)


def test_good_keys_pass_and_other_lengths_do_not() -> None:
    check_x25519_key(BOB_PK)
    with pytest.raises(RemoteProtocolError, match="32 bytes, not 31"):
        check_x25519_key(BOB_PK[:31])


@pytest.mark.parametrize("length", [0, 32, 47])
def test_shorter_than_any_wrap_is_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match="shorter than 48"):
        unwrap(bytes(length), BOB_SK, CONTEXT)


@given(st.binary(min_size=48, max_size=120))
def test_random_bytes_do_not_open(blob: bytes) -> None:
    with pytest.raises(DecryptionFailed):
        unwrap(blob, BOB_SK, CONTEXT)


def test_wrong_lengths_of_our_own_are_our_own_error() -> None:
    with pytest.raises(LocalProtocolError):
        wrap(b"", BOB_PK, EPHEMERAL_SK, b"short")
    with pytest.raises(LocalProtocolError):
        unwrap(bytes(48), BOB_SK[:5], CONTEXT)
