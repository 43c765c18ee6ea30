"""Encryption Service: published vectors through the PSA functions, and keys that do one thing only."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_generichash_blake2b_salt_personal

from aif.trusted.encryption import MAX_DERIVATIONS, EncryptionService, OwnerCrypto
from aif.trusted.key_ring import MAX_VOLATILE_KEYS_PER_OWNER, Key
from aif.trusted.psa import (
    Algorithm,
    DerivationStep,
    KeyAttributes,
    KeyLifetime,
    KeyType,
    KeyUsage,
    PSAError,
    PSAStatus,
)
from aif.trusted.security_core import selftest
from aif.trusted.storage import StorageService

ANNA, BORIS = bytes([1]) * 16, bytes([2]) * 16
SIGN, VERIFY = KeyUsage.SIGN_MESSAGE, KeyUsage.VERIFY_MESSAGE
AEAD = KeyAttributes(KeyType.CHACHA20, Algorithm.CHACHA20_POLY1305, KeyUsage.ENCRYPT | KeyUsage.DECRYPT, 256)
EDDSA = KeyAttributes(KeyType.ED25519_KEY_PAIR, Algorithm.PURE_EDDSA, SIGN | VERIFY, 255)
EDDSA_PUBLIC = KeyAttributes(KeyType.ED25519_PUBLIC_KEY, Algorithm.PURE_EDDSA, VERIFY, 255)
X25519 = KeyAttributes(KeyType.X25519_KEY_PAIR, Algorithm.ECDH, KeyUsage.DERIVE, 255)
AGREE = KeyAttributes(KeyType.X25519_KEY_PAIR, Algorithm.ECDH_HKDF_SHA_256, KeyUsage.DERIVE, 255)


def mac_key(algorithm: Algorithm, bits: int, usage: KeyUsage = SIGN | VERIFY) -> KeyAttributes:
    return KeyAttributes(KeyType.HMAC, algorithm, usage, bits)


def derive_key(bits: int) -> KeyAttributes:
    return KeyAttributes(KeyType.DERIVE, Algorithm.HKDF_SHA_256, KeyUsage.DERIVE, bits)


@pytest.fixture
def crypto() -> OwnerCrypto:
    return EncryptionService(random=os.urandom).of(ANNA)


def refused(status: PSAStatus) -> pytest.RaisesExc[PSAError]:
    return pytest.RaisesExc(PSAError, check=lambda error: error.status is status)


# --- published vectors ----------------------------------------------------------------------------


def test_the_engine_tests_itself() -> None:
    selftest()


@pytest.mark.parametrize(
    ("algorithm", "message", "digest"),
    [
        # FIPS 180-4 examples (CSRC, SHA256.pdf and SHA512.pdf)
        (Algorithm.SHA_256, b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Algorithm.SHA_256,
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (
            Algorithm.SHA_512,
            b"abc",
            (
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
                "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
            ),
        ),
        # BLAKE2b with 32 bytes of digest, as the reference implementation of RFC 7693 gives it
        (Algorithm.BLAKE2B_256, b"abc", "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"),
    ],
)
def test_hashes(crypto: OwnerCrypto, algorithm: Algorithm, message: bytes, digest: str) -> None:
    assert crypto.psa_hash_compute(algorithm, message).hex() == digest


@pytest.mark.parametrize(
    ("algorithm", "key", "message", "mac"),
    [
        # RFC 4231 cases 1, 3 and 4; case 2 has a key that is too short for the policy
        (
            Algorithm.HMAC_SHA_256,
            b"\x0b" * 20,
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            Algorithm.HMAC_SHA_512,
            b"\x0b" * 20,
            b"Hi There",
            (
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
                "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"
            ),
        ),
        (
            Algorithm.HMAC_SHA_256,
            b"\xaa" * 20,
            b"\xdd" * 50,
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
        (
            Algorithm.HMAC_SHA_256,
            bytes(range(1, 26)),
            b"\xcd" * 50,
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        ),
    ],
)
def test_macs(crypto: OwnerCrypto, algorithm: Algorithm, key: bytes, message: bytes, mac: str) -> None:
    handle = crypto.psa_import_key(mac_key(algorithm, len(key) * 8), key)
    assert crypto.psa_mac_compute(handle, algorithm, message).hex() == mac
    crypto.psa_mac_verify(handle, algorithm, message, bytes.fromhex(mac))
    for wrong in (b"", bytes.fromhex(mac)[:-1], bytes(len(mac) // 2)):
        with refused(PSAStatus.INVALID_SIGNATURE):
            crypto.psa_mac_verify(handle, algorithm, message, wrong)


@given(st.binary(min_size=16, max_size=64), st.binary(max_size=300))
def test_keyed_blake2b_is_that_of_libsodium(key: bytes, message: bytes) -> None:
    crypto = EncryptionService(random=os.urandom).of(ANNA)
    handle = crypto.psa_import_key(mac_key(Algorithm.BLAKE2B_256_MAC, len(key) * 8), key)
    expected = crypto_generichash_blake2b_salt_personal(message, digest_size=32, key=key)
    assert crypto.psa_mac_compute(handle, Algorithm.BLAKE2B_256_MAC, message) == expected


def test_chacha20_poly1305(crypto: OwnerCrypto) -> None:
    """RFC 8439 §2.8.2."""
    key = crypto.psa_import_key(AEAD, bytes(range(0x80, 0xA0)))
    nonce, aad = bytes.fromhex("070000004041424344454647"), bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    sealed = crypto.psa_aead_encrypt(key, Algorithm.CHACHA20_POLY1305, nonce, aad, text)
    assert sealed.hex() == (
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
        "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
        "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b6116"
        "1ae10b594f09e26a7e902ecbd0600691"
    )
    assert crypto.psa_aead_decrypt(key, Algorithm.CHACHA20_POLY1305, nonce, aad, sealed) == text
    for wrong in (
        (bytes(12), aad, sealed),
        (nonce, b"", sealed),
        (nonce, aad, sealed[:-1]),
        (nonce, aad, b""),
    ):
        with refused(PSAStatus.INVALID_SIGNATURE):
            crypto.psa_aead_decrypt(key, Algorithm.CHACHA20_POLY1305, *wrong)
    with refused(PSAStatus.INVALID_ARGUMENT):
        crypto.psa_aead_encrypt(key, Algorithm.CHACHA20_POLY1305, bytes(8), b"", b"")


@pytest.mark.parametrize(
    ("seed", "public", "message", "signature"),
    [
        # RFC 8032 §7.1, tests 1 to 3
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            (
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
                "d25bf5f0595bbe24655141438e7a100b"
            ),
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            (
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
                "387b2eaeb4302aeeb00d291612bb0c00"
            ),
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            (
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
                "4a7c15e9716ed28dc027beceea1ec40a"
            ),
        ),
    ],
)
def test_ed25519(crypto: OwnerCrypto, seed: str, public: str, message: str, signature: str) -> None:
    key, text = crypto.psa_import_key(EDDSA, bytes.fromhex(seed)), bytes.fromhex(message)
    assert crypto.psa_export_public_key(key).hex() == public
    made = crypto.psa_sign_message(key, Algorithm.PURE_EDDSA, text)
    assert made.hex() == signature
    peer = crypto.psa_import_key(EDDSA_PUBLIC, bytes.fromhex(public))
    for verifier in (key, peer):
        crypto.psa_verify_message(verifier, Algorithm.PURE_EDDSA, text, made)
        with refused(PSAStatus.INVALID_SIGNATURE):
            crypto.psa_verify_message(verifier, Algorithm.PURE_EDDSA, text + b"x", made)
        with refused(PSAStatus.INVALID_SIGNATURE):
            crypto.psa_verify_message(verifier, Algorithm.PURE_EDDSA, text, made[:-1])


def test_a_public_key_of_small_order_verifies_nothing(crypto: OwnerCrypto) -> None:
    key = crypto.psa_import_key(EDDSA_PUBLIC, bytes([1]) + bytes(31))
    with refused(PSAStatus.INVALID_SIGNATURE):
        crypto.psa_verify_message(key, Algorithm.PURE_EDDSA, b"", bytes([1]) + bytes(63))


def test_x25519(crypto: OwnerCrypto) -> None:
    """RFC 7748 §6.1."""
    secrets = (
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    )
    alice, bob = (crypto.psa_import_key(X25519, bytes.fromhex(secret)) for secret in secrets)
    alice_pk, bob_pk = crypto.psa_export_public_key(alice), crypto.psa_export_public_key(bob)
    assert alice_pk.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert crypto.psa_raw_key_agreement(Algorithm.ECDH, alice, bob_pk).hex() == shared
    assert crypto.psa_raw_key_agreement(Algorithm.ECDH, bob, alice_pk).hex() == shared
    for peer in (bytes(32), bytes([1]) + bytes(31), b"short"):
        with refused(PSAStatus.INVALID_ARGUMENT):
            crypto.psa_raw_key_agreement(Algorithm.ECDH, alice, peer)


@pytest.mark.parametrize(
    ("secret", "salt", "info", "output"),
    [
        # RFC 5869 A.1 to A.3
        (
            b"\x0b" * 22,
            bytes(range(13)),
            bytes(range(0xF0, 0xFA)),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)),
            bytes(range(0x60, 0xB0)),
            bytes(range(0xB0, 0x100)),
            (
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
                "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
            ),
        ),
        (
            b"\x0b" * 22,
            b"",
            b"",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_hkdf(crypto: OwnerCrypto, secret: bytes, salt: bytes, info: bytes, output: str) -> None:
    if len(secret) > 64:  # longer than the policy's 512 bits: only the algorithm is shown
        from aif.trusted.primitives import hkdf_expand, hkdf_extract

        key = hkdf_extract(Algorithm.HKDF_SHA_256, salt, secret)
        assert hkdf_expand(Algorithm.HKDF_SHA_256, key, info, len(output) // 2).hex() == output
        return
    handle = crypto.psa_import_key(derive_key(len(secret) * 8), secret)
    operation = crypto.psa_key_derivation_setup(Algorithm.HKDF_SHA_256)
    if salt:
        crypto.psa_key_derivation_input_bytes(operation, DerivationStep.SALT, salt)
    crypto.psa_key_derivation_input_key(operation, DerivationStep.SECRET, handle)
    crypto.psa_key_derivation_input_bytes(operation, DerivationStep.INFO, info)
    parts = [crypto.psa_key_derivation_output_bytes(operation, n) for n in (1, 20, 21)]
    assert b"".join(parts).hex() == output


# --- policy ---------------------------------------------------------------------------------------


def test_a_key_does_what_its_policy_says_and_nothing_else(crypto: OwnerCrypto) -> None:
    only_sign = crypto.psa_generate_key(mac_key(Algorithm.HMAC_SHA_256, 256, SIGN))
    crypto.psa_mac_compute(only_sign, Algorithm.HMAC_SHA_256, b"")
    with refused(PSAStatus.NOT_PERMITTED):
        crypto.psa_mac_verify(only_sign, Algorithm.HMAC_SHA_256, b"", b"")
    with refused(PSAStatus.NOT_PERMITTED):
        crypto.psa_mac_compute(only_sign, Algorithm.HMAC_SHA_512, b"")
    raw = crypto.psa_generate_key(X25519)
    agree = crypto.psa_generate_key(AGREE)
    peer = crypto.psa_export_public_key(raw)
    with refused(PSAStatus.NOT_PERMITTED):  # its shared secret goes into HKDF and never out
        crypto.psa_raw_key_agreement(Algorithm.ECDH, agree, peer)
    with refused(PSAStatus.NOT_SUPPORTED):
        crypto.psa_raw_key_agreement(Algorithm.ECDH_HKDF_SHA_256, agree, peer)
    operation = crypto.psa_key_derivation_setup(Algorithm.HKDF_SHA_256)
    with refused(PSAStatus.NOT_PERMITTED):
        crypto.psa_key_derivation_key_agreement(operation, DerivationStep.SECRET, raw, peer)
    sealer = crypto.psa_generate_key(
        KeyAttributes(KeyType.CHACHA20, Algorithm.CHACHA20_POLY1305, KeyUsage.ENCRYPT, 256)
    )
    sealed = crypto.psa_aead_encrypt(sealer, Algorithm.CHACHA20_POLY1305, bytes(12), b"", b"text")
    with refused(PSAStatus.NOT_PERMITTED):
        crypto.psa_aead_decrypt(sealer, Algorithm.CHACHA20_POLY1305, bytes(12), b"", sealed)
    verifier = crypto.psa_import_key(
        EDDSA_PUBLIC, crypto.psa_export_public_key(crypto.psa_generate_key(EDDSA))
    )
    with refused(PSAStatus.NOT_PERMITTED):
        crypto.psa_sign_message(verifier, Algorithm.PURE_EDDSA, b"")
    with refused(PSAStatus.INVALID_ARGUMENT):
        crypto.psa_export_public_key(sealer)
    with refused(PSAStatus.NOT_SUPPORTED):
        crypto.psa_hash_compute(Algorithm.PURE_EDDSA, b"")
    with refused(PSAStatus.NOT_SUPPORTED):
        crypto.psa_hash_compute(0x1234, b"")


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        (KeyAttributes(KeyType.HMAC, Algorithm.CHACHA20_POLY1305, SIGN, 256), PSAStatus.NOT_SUPPORTED),
        (KeyAttributes(KeyType.HMAC, Algorithm.HMAC_SHA_256, KeyUsage.NONE, 256), PSAStatus.INVALID_ARGUMENT),
        (KeyAttributes(KeyType.HMAC, Algorithm.HMAC_SHA_256, SIGN, 120), PSAStatus.INVALID_ARGUMENT),
        (KeyAttributes(KeyType.HMAC, Algorithm.HMAC_SHA_256, SIGN, 129), PSAStatus.INVALID_ARGUMENT),
        (KeyAttributes(KeyType.HMAC, Algorithm.HMAC_SHA_256, SIGN, 520), PSAStatus.INVALID_ARGUMENT),
        # two purposes for one key, and an export flag (PSA_KEY_USAGE_EXPORT is 1)
        (mac_key(Algorithm.HMAC_SHA_256, 256, SIGN | KeyUsage.DERIVE), PSAStatus.INVALID_ARGUMENT),
        (mac_key(Algorithm.HMAC_SHA_256, 256, SIGN | KeyUsage(1)), PSAStatus.INVALID_ARGUMENT),
        (replace(AEAD, bits=128), PSAStatus.INVALID_ARGUMENT),
        (EDDSA_PUBLIC, PSAStatus.INVALID_ARGUMENT),
    ],
)
def test_keys_that_cannot_be_are_refused(
    crypto: OwnerCrypto, attributes: KeyAttributes, status: PSAStatus
) -> None:
    with refused(status):
        crypto.psa_generate_key(attributes)


def test_owners_cannot_touch_each_others_keys() -> None:
    service = EncryptionService(random=os.urandom)
    anna, boris = service.of(ANNA), service.of(BORIS)
    key = anna.psa_generate_key(EDDSA)
    assert service.of(ANNA).psa_get_key_attributes(key).key_id == key
    for act in (boris.psa_export_public_key, boris.psa_destroy_key, boris.psa_get_key_attributes):
        with refused(PSAStatus.INVALID_HANDLE):
            act(key)
    anna.psa_destroy_key(key)
    with refused(PSAStatus.INVALID_HANDLE):
        anna.psa_sign_message(key, Algorithm.PURE_EDDSA, b"")
    with refused(PSAStatus.INVALID_ARGUMENT):
        service.of(b"short")


def test_no_text_of_a_key_shows_it() -> None:
    material = b"thirty-two bytes of key material"
    key = Key(AEAD, material)
    assert "thirty" not in f"{key!r} {key} {key.attributes}"
    assert material.hex() not in repr(key)


def test_keys_and_random_bytes_are_bounded(crypto: OwnerCrypto) -> None:
    keys = [crypto.psa_generate_key(AEAD) for _ in range(MAX_VOLATILE_KEYS_PER_OWNER)]
    assert len(set(keys)) == MAX_VOLATILE_KEYS_PER_OWNER
    with refused(PSAStatus.INSUFFICIENT_MEMORY):
        crypto.psa_generate_key(AEAD)
    crypto.psa_destroy_key(keys[0])
    crypto.psa_generate_key(AEAD)
    with refused(PSAStatus.INVALID_ARGUMENT):
        crypto.psa_import_key(AEAD, bytes(31))
    assert len(crypto.psa_generate_random(64 << 10)) == 64 << 10
    for size in (-1, (64 << 10) + 1):
        with refused(PSAStatus.INVALID_ARGUMENT):
            crypto.psa_generate_random(size)


def test_persistent_keys_survive_and_volatile_ones_do_not(tmp_path: Path) -> None:
    persistent = KeyAttributes(
        KeyType.ED25519_KEY_PAIR, Algorithm.PURE_EDDSA, SIGN, 255, KeyLifetime.PERSISTENT, 7
    )
    storage = StorageService(tmp_path, bytes(32), random=os.urandom)
    crypto = EncryptionService(random=os.urandom, store=storage.keys).of(ANNA)
    assert crypto.psa_generate_key(persistent) == 7
    volatile, public = crypto.psa_generate_key(EDDSA), crypto.psa_export_public_key(7)
    with refused(PSAStatus.ALREADY_EXISTS):
        crypto.psa_generate_key(persistent)
    storage.close()

    storage = StorageService(tmp_path, bytes(32), random=os.urandom)
    service = EncryptionService(random=os.urandom, store=storage.keys)
    crypto = service.of(ANNA)
    assert crypto.psa_export_public_key(7) == public
    assert crypto.psa_get_key_attributes(7) == persistent
    for handle in (volatile, 8, 0, -1, 1 << 40):
        with refused(PSAStatus.INVALID_HANDLE):
            crypto.psa_export_public_key(handle)
    with refused(PSAStatus.INVALID_HANDLE):
        service.of(BORIS).psa_export_public_key(7)
    crypto.psa_destroy_key(7)
    with refused(PSAStatus.INVALID_HANDLE):
        crypto.psa_destroy_key(7)
    storage.close()


@pytest.mark.parametrize("key_id", [0, 0x40000000, -1])
def test_persistent_keys_need_an_id_of_their_range(tmp_path: Path, key_id: int) -> None:
    storage = StorageService(tmp_path, bytes(32), random=os.urandom)
    attributes = KeyAttributes(
        KeyType.DERIVE, Algorithm.HKDF_SHA_256, KeyUsage.DERIVE, 256, KeyLifetime.PERSISTENT, key_id
    )
    with refused(PSAStatus.INVALID_ARGUMENT):
        EncryptionService(random=os.urandom, store=storage.keys).of(ANNA).psa_generate_key(attributes)
    with refused(PSAStatus.NOT_SUPPORTED):
        EncryptionService(random=os.urandom).of(ANNA).psa_generate_key(attributes)
    storage.close()


def test_two_sides_derive_the_same_key_without_seeing_a_secret(crypto: OwnerCrypto) -> None:
    alice, bob = crypto.psa_generate_key(AGREE), crypto.psa_generate_key(AGREE)
    sealed = []
    for own, peer in ((alice, bob), (bob, alice)):
        operation = crypto.psa_key_derivation_setup(Algorithm.HKDF_SHA_256)
        crypto.psa_key_derivation_key_agreement(
            operation, DerivationStep.SECRET, own, crypto.psa_export_public_key(peer)
        )
        crypto.psa_key_derivation_input_bytes(operation, DerivationStep.INFO, b"channel 1")
        key = crypto.psa_key_derivation_output_key(AEAD, operation)
        sealed.append(crypto.psa_aead_encrypt(key, Algorithm.CHACHA20_POLY1305, bytes(12), b"", b"text"))
        crypto.psa_key_derivation_abort(operation)
        crypto.psa_key_derivation_abort(operation)
    assert sealed[0] == sealed[1]


def test_a_derivation_keeps_its_order_and_its_capacity(crypto: OwnerCrypto) -> None:
    key = crypto.psa_generate_key(derive_key(256))
    setup = crypto.psa_key_derivation_setup
    salt, info, secret = DerivationStep.SALT, DerivationStep.INFO, DerivationStep.SECRET
    operation = setup(Algorithm.HKDF_SHA_256)
    with refused(PSAStatus.BAD_STATE):
        crypto.psa_key_derivation_output_bytes(operation, 1)
    with refused(PSAStatus.INVALID_ARGUMENT):
        crypto.psa_key_derivation_input_bytes(operation, secret, b"a secret from outside")
    with refused(PSAStatus.INVALID_ARGUMENT):
        crypto.psa_key_derivation_input_key(operation, salt, key)
    crypto.psa_key_derivation_input_key(operation, secret, key)
    with refused(PSAStatus.BAD_STATE):
        crypto.psa_key_derivation_input_key(operation, secret, key)
    with refused(PSAStatus.BAD_STATE):
        crypto.psa_key_derivation_input_bytes(operation, salt, b"too late")
    crypto.psa_key_derivation_output_bytes(operation, 255 * 32 - 1)
    with refused(PSAStatus.BAD_STATE):
        crypto.psa_key_derivation_input_bytes(operation, info, b"too late")
    for length in (2, 0, -1):
        with refused(PSAStatus.INSUFFICIENT_DATA):
            crypto.psa_key_derivation_output_bytes(operation, length)
    crypto.psa_key_derivation_output_bytes(operation, 1)
    crypto.psa_key_derivation_abort(operation)
    with refused(PSAStatus.BAD_STATE):
        crypto.psa_key_derivation_output_bytes(operation, 1)
    with refused(PSAStatus.NOT_SUPPORTED):
        setup(Algorithm.SHA_256)
    for _ in range(MAX_DERIVATIONS):
        setup(Algorithm.HKDF_SHA_512)
    with refused(PSAStatus.INSUFFICIENT_MEMORY):
        setup(Algorithm.HKDF_SHA_256)
