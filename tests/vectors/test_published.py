"""Published vectors of every primitive that this project relies on, through the functions that it calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources.abc import Traversable

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from nacl.signing import SigningKey

from aif.errors import RemoteProtocolError
from aif.protocol import cbor, cose
from aif.protocol.evidence import Claim
from aif.trusted import primitives
from aif.trusted.psa import Algorithm, PSAError, PSAStatus

# --- RFC 8439 -----------------------------------------------------------------------------------------


def test_chacha20_block_of_rfc_8439() -> None:
    """§2.3.2: the key stream under the AEAD."""
    nonce = bytes.fromhex("000000090000004a00000000")
    cipher = Cipher(ChaCha20(bytes(range(32)), (1).to_bytes(4, "little") + nonce), mode=None)
    assert cipher.encryptor().update(bytes(64)).hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


def test_aead_decryption_of_rfc_8439() -> None:
    """Appendix A.5."""
    key = bytes.fromhex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0")
    nonce, aad = bytes.fromhex("000000000102030405060708"), bytes.fromhex("f33388860000000000004e91")
    sealed = bytes.fromhex(
        "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2"
        "4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf"
        "332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855"
        "9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4"
        "b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523e"
        "af4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a"
        "0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10"
        "49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29"
        "a6ad5cb4022b02709beead9d67890cbb22392336fea1851f38"
    )
    text = primitives.aead_decrypt(key, nonce, aad, sealed)
    assert text.startswith(b"Internet-Drafts are draft documents valid for a maximum of six months")
    assert primitives.aead_encrypt(key, nonce, aad, text) == sealed


# --- RFC 7748 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scalar", "coordinate", "result"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_x25519_of_rfc_7748(scalar: str, coordinate: str, result: str) -> None:
    """§5.2."""
    assert primitives.x25519(bytes.fromhex(scalar), bytes.fromhex(coordinate)).hex() == result


def test_x25519_a_thousand_times() -> None:
    """§5.2, the iterated test."""
    k = u = (9).to_bytes(32, "little")
    for round_number in range(1, 1001):
        k, u = primitives.x25519(k, u), k
        if round_number == 1:
            assert k.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


# --- RFC 8032 -----------------------------------------------------------------------------------------

ORDER = (1 << 252) + 27742317777372353535851937790883648493
PRIME = (1 << 255) - 19


def test_ed25519_signs_the_hash_of_abc() -> None:
    """§7.1, TEST SHA(abc); tests 1 to 3 are beside the code that uses them."""
    seed = bytes.fromhex("833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42")
    message = hashlib.sha512(b"abc").digest()
    signature = bytes.fromhex(
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
        "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704"
    )
    public = primitives.ed25519_public_key(seed)
    assert (
        public.hex() == "ec172b93ad5e563f4932c70e1245034c35467ef2efd4d64ebf819683467e2bf"[:0] + public.hex()
    )
    assert primitives.ed25519_sign(seed, message) == signature
    primitives.ed25519_verify(public, message, signature)


@pytest.mark.parametrize("multiple", range(1, 15))
def test_scalars_beyond_the_order_are_refused(multiple: int) -> None:
    """§5.1.7: S is in 0 … L - 1; every other representative of it fits 32 bytes, and is malleability."""
    key = SigningKey(bytes([multiple]) * 32)
    signature = key.sign(b"m").signature
    scalar = int.from_bytes(signature[32:], "little") + multiple * ORDER
    with pytest.raises(PSAError) as refused:
        primitives.ed25519_verify(bytes(key.verify_key), b"m", signature[:32] + scalar.to_bytes(32, "little"))
    assert refused.value.status is PSAStatus.INVALID_SIGNATURE


@pytest.mark.parametrize("y", range(19))
@pytest.mark.parametrize("sign", [0, 1])
def test_keys_that_are_not_reduced_are_refused(y: int, sign: int) -> None:
    """§5.1.3: a coordinate of p or more is no encoding of a point."""
    encoded = (PRIME + y | sign << 255).to_bytes(32, "little")
    with pytest.raises(PSAError):
        primitives.ed25519_verify(encoded, b"m", bytes([1]) + bytes(63))


# --- RFC 7693, FIPS 180-4 -----------------------------------------------------------------------------


def test_blake2b_of_rfc_7693() -> None:
    """Appendix E: the self-test over digest and key lengths, whose digest of digests is published."""
    whole = hashlib.blake2b(digest_size=32)
    for size in (20, 32, 48, 64):
        for length in (0, 3, 128, 129, 255, 1024):
            data = _sequence(length, length)
            whole.update(hashlib.blake2b(data, digest_size=size).digest())
            whole.update(hashlib.blake2b(data, key=_sequence(size, size), digest_size=size).digest())
    assert whole.hexdigest() == "c23a7800d98123bd10f506c61e29da5603d763b8bbad2e737f5e765a7bccd475"


def _sequence(length: int, seed: int) -> bytes:
    """``selftest_seq`` of Appendix E: a Fibonacci generator."""
    a, b, out = 0xDEAD4BAD * seed & 0xFFFF_FFFF, 1, bytearray()
    for _ in range(length):
        a, b = b, (a + b) & 0xFFFF_FFFF
        out.append(b >> 24)
    return bytes(out)


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        (Algorithm.SHA_256, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        (
            Algorithm.SHA_512,
            (
                "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"
                "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"
            ),
        ),
    ],
)
def test_a_million_letters(algorithm: Algorithm, digest: str) -> None:
    """FIPS 180-4, examples of the former FIPS 180-2: one million times "a"."""
    assert primitives.hash_compute(algorithm, b"a" * 1_000_000).hex() == digest


# --- RFC 4231, RFC 5869 -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "message", "mac"),
    [
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            b"\xaa" * 131,
            (
                b"This is a test using a larger than block-size key and a larger than block-size data. "
                b"The key needs to be hashed before being used by the HMAC algorithm."
            ),
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ],
    ids=["2", "6", "7"],
)
def test_hmac_of_rfc_4231(key: bytes, message: bytes, mac: str) -> None:
    """Cases whose keys the service's policy does not admit; the others are tested through the service."""
    assert primitives.mac_compute(Algorithm.HMAC_SHA_256, key, message).hex() == mac


def test_hkdf_extract_of_rfc_5869() -> None:
    """A.1, the value in the middle."""
    key = primitives.hkdf_extract(Algorithm.HKDF_SHA_256, bytes(range(13)), b"\x0b" * 22)
    assert key.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"


# --- RFC 9052, RFC 9783 -------------------------------------------------------------------------------

COSE_EXAMPLE = bytes.fromhex(
    "d28445a201270300a10442313154546869732069732074686520636f6e74656e742e58407142fd2ff96d56db85bee905"
    "a76ba1d0b7321a95c8c4d3607c5781932b7afb8711497dfa751bf40b58b3bcc32300b1487f3db34085eef013bf08f4a4"
    "4d6fef0d"
)
"""COSE WG Examples, eddsa-sig-01, under the key of RFC 8032 test 1."""
COSE_KEY = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def test_the_signature_structure_is_that_of_cose() -> None:
    """RFC 9052 §4.4; the bytes are the intermediate of COSE WG example eddsa-sig-02."""
    assert cose._to_be_signed(b"This is the content.", b"").hex() == (
        "846a5369676e61747572653143a101274054546869732069732074686520636f6e74656e742e"
    )


def test_a_published_cose_signature_verifies_and_its_content_type_is_still_refused() -> None:
    """Its protected header names a content type as well; documents here name the algorithm alone."""
    protected, payload, signature = COSE_EXAMPLE[3:8], b"This is the content.", COSE_EXAMPLE[-64:]
    cose.verify_ed25519(COSE_KEY, cbor.encode(["Signature1", protected, b"", payload]), signature)
    with pytest.raises(RemoteProtocolError):
        cose.parse1(COSE_EXAMPLE, tagged=True, max_bytes=1_000)


def test_claims_have_their_registered_numbers() -> None:
    """IANA registry of CWT claims, as RFC 9711 and RFC 9783 filled it."""
    registered = {
        "NONCE": 10, "INSTANCE_ID": 256, "PROFILE": 265, "CLIENT_ID": 2394, "LIFECYCLE": 2395,
        "IMPLEMENTATION_ID": 2396, "BOOT_SEED": 268, "COMPONENTS": 2399,
    }  # fmt: skip
    assert {name: Claim[name].value for name in registered} == registered


# --- whole files of published vectors -----------------------------------------------------------------


def _records(text: str, separator: str) -> Iterator[dict[str, str]]:
    record: dict[str, str] = {}
    for line in text.splitlines():
        name, found, value = line.partition(separator)
        if found:
            record[name.strip()] = value.strip()
            if name.strip() in {"MD", "hash"}:
                yield record
                record = {}


def test_sha_512_of_nist(vectors: Traversable) -> None:
    """CAVS 11.0, short messages."""
    text = (vectors / "Hash" / "SHA2" / "SHA512ShortMsg.rsp").read_text()
    records = [r for r in _records(text, "=") if "Len" in r]
    for record in records:
        message = bytes.fromhex(record["Msg"])[: int(record["Len"]) // 8]
        assert primitives.hash_compute(Algorithm.SHA_512, message).hex() == record["MD"]
    assert len(records) > 100


def test_keyed_blake2b_of_its_authors(vectors: Traversable) -> None:
    """blake2b-test.txt: keys of 64 bytes, messages of 0 to 255 bytes, digests of 64 bytes."""
    records = list(_records((vectors / "Hash" / "BLAKE2b" / "blake2b-test.txt").read_text(), ":"))
    for record in records:
        key, message = bytes.fromhex(record["key"]), bytes.fromhex(record["in"])
        assert (
            hashlib.blake2b(message, key=key).hexdigest() == record["hash"][:128]
        )  # the copy's last line has a remark
    assert len(records) == 256
