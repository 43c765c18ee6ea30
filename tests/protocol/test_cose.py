"""COSE_Sign1: agreement with an independent implementation, and refusal of everything it tolerates."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from cwt import COSE, COSEKey
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from aif.errors import RemoteProtocolError, SignatureInvalid, TrustError
from aif.protocol.cose import check_ed25519_key, parse1, sign1, verify1, verify_ed25519

KEY = SigningKey(bytes(range(32)))
PUBLIC = bytes(KEY.verify_key)
EDDSA = bytes.fromhex("a10127")
IDENTITY_POINT = bytes([1]) + bytes(31)

# RFC 8032 §7.1, tests 1 to 3: secret key, public key, message, signature
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]

# Encodings of the eight points of small order, and of two of them written beyond the field prime.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def cwt_key(kid: bytes | None = None, *, private: bool = False, public: bytes = PUBLIC) -> Any:
    """The same key for the independent implementation."""
    parameters: dict[int, object] = {1: 1, 3: -8, -1: 6, -2: public}
    if kid is not None:
        parameters[2] = kid
    if private:
        parameters[-4] = bytes(KEY)
    return COSEKey.new(parameters)


def document(protected: bytes, unprotected: dict[int, object], payload: bytes = b"hi") -> bytes:
    """A tagged COSE_Sign1 with a good signature over whatever header is given."""
    signature = KEY.sign(cbor2.dumps(["Signature1", protected, b"", payload])).signature
    return b"\xd2" + cbor2.dumps([protected, unprotected, payload, signature])


def verify(data: bytes) -> bytes:
    return verify1(data, PUBLIC, tagged=True, max_bytes=4096)


@given(st.binary(max_size=200), st.binary(max_size=20), st.none() | st.binary(min_size=1, max_size=32))
def test_our_documents_verify_in_cwt(payload: bytes, aad: bytes, kid: bytes | None) -> None:
    data = sign1(payload, KEY, external_aad=aad, tagged=True, kid=kid)
    assert COSE.new().decode(data, cwt_key(kid), external_aad=aad) == payload


@given(st.binary(max_size=200), st.binary(max_size=20), st.none() | st.binary(min_size=1, max_size=32))
def test_documents_of_cwt_verify_here_and_are_byte_equal(
    payload: bytes, aad: bytes, kid: bytes | None
) -> None:
    unprotected = {} if kid is None else {4: kid}
    data = COSE.new().encode_and_sign(
        payload, cwt_key(kid, private=True), protected={1: -8}, unprotected=unprotected, external_aad=aad
    )
    assert verify1(data, PUBLIC, external_aad=aad, tagged=True, max_bytes=4096) == payload
    assert parse1(data, tagged=True, max_bytes=4096).kid == kid
    assert sign1(payload, KEY, external_aad=aad, tagged=True, kid=kid) == data


def test_a_function_can_sign_instead_of_a_key() -> None:
    seen: list[bytes] = []

    def engine(message: bytes) -> bytes:
        seen.append(message)
        return bytes(KEY.sign(message).signature)

    assert sign1(b"hi", engine, tagged=False) == sign1(b"hi", KEY, tagged=False)
    assert cbor2.loads(seen[0]) == ["Signature1", EDDSA, b"", b"hi"]


TOLERATED_BY_CWT = {
    "algorithm only in the unprotected header": document(b"", {1: -8}),
    "no algorithm": document(b"", {}),
    "ES256 with an Ed25519 key": document(cbor2.dumps({1: -7}), {}),
    "conflicting algorithms": document(EDDSA, {1: -7}),
    "duplicate header key": document(bytes.fromhex("a201270126"), {}),
    "unknown crit": document(cbor2.dumps({1: -8, 2: [99], 99: 1}), {}),
    "trailing byte": document(EDDSA, {}) + b"\x00",
    "longer head in the protected header": document(bytes.fromhex("a1013807"), {}),
    "indefinite array": document(EDDSA, {}).replace(b"\xd2\x84", b"\xd2\x9f", 1) + b"\xff",
    "longer array head": document(EDDSA, {}).replace(b"\xd2\x84", b"\xd2\x98\x04", 1),
}


@pytest.mark.parametrize("name", TOLERATED_BY_CWT)
def test_what_cwt_tolerates_is_refused(name: str) -> None:
    data = TOLERATED_BY_CWT[name]
    assert COSE.new().decode(data, cwt_key()) == b"hi"
    with pytest.raises(RemoteProtocolError):
        verify(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (document(EDDSA, {5: b"x"}), "unprotected header: unknown key 5"),
        (document(EDDSA, {4: b"k", 5: b"x"}), "unprotected header: unknown key 5"),
        (document(EDDSA, {4: b"k" * 33}), "kid must be 1 to 32 bytes"),
        (document(EDDSA, {4: 7}), "kid must be a byte string"),
        (b"\xd2" + cbor2.dumps([EDDSA, {}, b"hi"]), "signature .key 3. is missing"),
        (b"\xd2" + cbor2.dumps([EDDSA, {}, b"hi", bytes(64), 0]), "unknown key 4"),
        (b"\xd2" + cbor2.dumps([EDDSA, {}, b"hi", bytes(63)]), "signature must be 64 bytes"),
        (b"\xd2" + cbor2.dumps([EDDSA, {}, None, bytes(64)]), "payload must be a byte string"),
        (b"\xd2" + cbor2.dumps([{1: -8}, {}, b"hi", bytes(64)]), "protected header must be a byte string"),
        (b"\xd2" + cbor2.dumps({1: 2}), "not an array"),
        (b"\xd2" + document(EDDSA, {}), "tag"),
        (b"\xd8\x12" + document(EDDSA, {})[1:], "must carry CBOR tag 18"),
        (document(EDDSA, {})[1:], "must carry CBOR tag 18"),
        (b"", "must carry CBOR tag 18"),
        (document(EDDSA, {}, bytes(5000)), "larger than the allowed 4096 B"),
    ],
)
def test_any_other_shape_is_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        verify(data)


def test_an_untagged_document_is_not_accepted_tagged_and_the_reverse() -> None:
    bare, tagged = sign1(b"hi", KEY, tagged=False), sign1(b"hi", KEY, tagged=True)
    assert tagged == b"\xd2" + bare
    assert verify1(bare, PUBLIC, tagged=False, max_bytes=200) == b"hi"
    with pytest.raises(RemoteProtocolError, match="must not carry"):
        verify1(tagged, PUBLIC, tagged=False, max_bytes=200)


def test_each_flipped_bit_is_refused() -> None:
    data = sign1(b"hello", KEY, external_aad=b"A", tagged=True, kid=b"k")
    accepted = []
    kid_at = data.index(b"\x04\x41k") + 2  # the key identifier is a hint and is not signed
    for bit in range(len(data) * 8):
        if bit // 8 == kid_at:
            continue
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            verify1(bytes(changed), PUBLIC, external_aad=b"A", tagged=True, max_bytes=200)
        except (RemoteProtocolError, SignatureInvalid):
            continue
        accepted.append(bit)
    assert accepted == []


def test_another_key_or_document_type_is_refused() -> None:
    data = sign1(b"hi", KEY, external_aad=b"AIF-TICKET-1", tagged=False)
    with pytest.raises(SignatureInvalid):
        verify1(data, PUBLIC, external_aad=b"AIF-RESULT-1", tagged=False, max_bytes=200)
    with pytest.raises(SignatureInvalid):
        verify1(
            data, SigningKey(bytes(32)).verify_key, external_aad=b"AIF-TICKET-1", tagged=False, max_bytes=200
        )


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_rfc_8032_vectors(secret: str, public: str, message: str, signature: str) -> None:
    key = SigningKey(bytes.fromhex(secret))
    assert bytes(key.verify_key).hex() == public
    assert key.sign(bytes.fromhex(message)).signature.hex() == signature
    verify_ed25519(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))
    with pytest.raises(SignatureInvalid):
        verify_ed25519(bytes.fromhex(public), bytes.fromhex(message) + b"\x00", bytes.fromhex(signature))


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_keys_of_small_order_verify_nothing(key: str) -> None:
    with pytest.raises(SignatureInvalid, match="prime-order group"):
        check_ed25519_key(bytes.fromhex(key))
    with pytest.raises(SignatureInvalid, match="prime-order group"):
        verify_ed25519(bytes.fromhex(key), b"forged", IDENTITY_POINT + bytes(32))


def test_a_forgery_under_a_small_order_key_that_cwt_accepts_is_refused() -> None:
    forged = b"\xd2" + cbor2.dumps([EDDSA, {}, b"forged", IDENTITY_POINT + bytes(32)])
    assert COSE.new().decode(forged, cwt_key(public=IDENTITY_POINT)) == b"forged"
    with pytest.raises(SignatureInvalid, match="prime-order group"):
        verify1(forged, IDENTITY_POINT, tagged=True, max_bytes=200)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_or_signature_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(SignatureInvalid):
        check_ed25519_key(bytes(length))
    with pytest.raises(SignatureInvalid):
        verify_ed25519(PUBLIC, b"", bytes(length))


def test_a_signature_with_a_scalar_beyond_the_group_order_is_refused() -> None:
    order = (1 << 252) + 27742317777372353535851937790883648493
    signature = bytes(KEY.sign(b"m").signature)
    scalar = int.from_bytes(signature[32:], "little") + order
    with pytest.raises(SignatureInvalid):
        verify_ed25519(PUBLIC, b"m", signature[:32] + scalar.to_bytes(32, "little"))


@given(st.binary(max_size=120))
def test_random_bytes_raise_only_our_errors(data: bytes) -> None:
    with pytest.raises((RemoteProtocolError, TrustError)):
        verify(b"\xd2" + data)
