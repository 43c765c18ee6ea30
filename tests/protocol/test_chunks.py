"""Chunks: a release opens only whole, in its order and with its key; its bytes are pinned."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt

from aif.errors import DecryptionFailed, LengthOrHashMismatch, LocalProtocolError, RemoteProtocolError
from aif.protocol.cbor import encode
from aif.protocol.chunks import (
    ChunkCipher,
    ModelAssembly,
    SealedRelease,
    decode_chunk_message,
    encode_chunk_message,
    seal_model,
    split_ciphertext,
)
from aif.protocol.ticket import FirmwareRange, ModelAEAD, Slot, Ticket

KEY = bytes(range(32))
MODEL = bytes(n % 251 for n in range(2500))


def release_of(model: bytes, **changes: object) -> SealedRelease:
    plain = SealedRelease("kws", 5, hashlib.sha256(model).digest(), len(model), 1024)
    return replace(plain, **changes)  # type: ignore[arg-type]


RELEASE = release_of(MODEL)
SEALED = seal_model(KEY, RELEASE, MODEL)


def assemble(chunks: list[tuple[int, bytes]], release: SealedRelease = RELEASE, key: bytes = KEY) -> bytes:
    assembly = ModelAssembly(ChunkCipher(key, release))
    for index, chunk in chunks:
        assembly.add(index, chunk)
    return assembly.finish()


def test_the_bytes_are_those_of_another_library() -> None:
    document = {1: "kws", 2: 5, 3: RELEASE.plaintext_sha256, 4: 2500, 5: 1024, 6: 1}
    release_id = hashlib.blake2b(encode(document), digest_size=32).digest()
    assert RELEASE.release_id == release_id
    for index, last in enumerate([0, 0, 1]):
        place = index.to_bytes(4) + (3).to_bytes(4) + bytes([last])
        expected = crypto_aead_chacha20poly1305_ietf_encrypt(
            MODEL[index * 1024 : index * 1024 + 1024],
            b"AIF-CHNK" + release_id + place,
            bytes(8) + index.to_bytes(4),
            KEY,
        )
        assert SEALED[index] == expected


def test_vector() -> None:
    assert RELEASE.release_id.hex() == "ba2a0d01bf1f21eebbbf65cbf1ded620aaa6c7fc1394a3036c7b35473e548442"
    assert (
        hashlib.sha256(b"".join(SEALED)).hexdigest()
        == "c5031abe0253c496d1adf0f3e010aec7a8090b26d4d05aae8834715957bc9a78"
    )


@given(
    model=st.binary(min_size=1, max_size=5000),
    size=st.integers(1024, 4096),
    key=st.binary(min_size=32, max_size=32),
    order=st.randoms(),
)
def test_what_is_sealed_opens_in_any_order(model: bytes, size: int, key: bytes, order: Random) -> None:
    release = release_of(model, chunk_bytes=size)
    chunks = seal_model(key, release, model)
    assert len(b"".join(chunks)) == release.ciphertext_bytes
    assert split_ciphertext(release, b"".join(chunks)) == chunks
    numbered = list(enumerate(chunks))
    order.shuffle(numbered)
    assert assemble(numbered, release, key) == model


@given(st.integers(0, 2), st.integers(0, (1024 + 16) * 8 - 1))
def test_any_changed_bit_is_refused_and_nothing_is_kept(index: int, bit: int) -> None:
    chunk = bytearray(SEALED[index])
    bit %= len(chunk) * 8
    chunk[bit // 8] ^= 1 << bit % 8
    assembly = ModelAssembly(ChunkCipher(KEY, RELEASE))
    with pytest.raises(DecryptionFailed):
        assembly.add(index, bytes(chunk))
    assert assembly.missing == (0, 1, 2)


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (release_of(MODEL, component="gesture"), KEY),
        (release_of(MODEL, release_counter=6), KEY),
        (release_of(MODEL[:-1] + b"x"), KEY),
        (RELEASE, bytes(32)),
    ],
)
def test_chunks_of_another_release_or_key_do_not_open(other: SealedRelease, key: bytes) -> None:
    with pytest.raises(DecryptionFailed):
        ChunkCipher(key, other).open(0, SEALED[0])


def test_swapped_and_truncated_releases_are_refused() -> None:
    with pytest.raises(DecryptionFailed):
        assemble([(0, SEALED[1])])
    # the second chunk passed off as the last one of a release that ends there
    shorter = release_of(MODEL, plaintext_bytes=2048)
    with pytest.raises(DecryptionFailed):
        ChunkCipher(KEY, shorter).open(1, SEALED[1])
    with pytest.raises(LengthOrHashMismatch, match="1 of 3 chunks of 'kws' are missing, the first is 2"):
        assemble([(0, SEALED[0]), (1, SEALED[1]), (1, SEALED[1])])


def test_a_publisher_that_sealed_other_bytes_is_found_by_the_whole_digest() -> None:
    lie = release_of(MODEL, plaintext_sha256=bytes(32))
    cipher = ChunkCipher(KEY, lie)
    chunks = [(i, cipher.seal(i, MODEL[i * 1024 : i * 1024 + 1024])) for i in range(3)]
    with pytest.raises(LengthOrHashMismatch, match="not the model that was signed"):
        assemble(chunks, lie)


@pytest.mark.parametrize(
    ("index", "chunk"), [(3, SEALED[2]), (-1, SEALED[0]), (0, SEALED[0][:-1]), (0, b""), (2, SEALED[0])]
)
def test_chunks_that_cannot_be_are_refused_before_decryption(index: int, chunk: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ChunkCipher(KEY, RELEASE).open(index, chunk)


def test_only_what_a_release_can_be_is_one() -> None:
    for wrong in (
        {"chunk_bytes": 1023},
        {"plaintext_bytes": 0},
        {"release_counter": 0},
        {"aead": ModelAEAD.NONE},
    ):
        with pytest.raises(LocalProtocolError):
            release_of(MODEL, **wrong)
    with pytest.raises(LocalProtocolError):
        seal_model(KEY, RELEASE, MODEL + b"x")
    with pytest.raises(RemoteProtocolError):
        split_ciphertext(RELEASE, b"".join(SEALED)[:-1])


def test_a_ticket_names_its_release() -> None:
    ticket = Ticket(
        bytes(16), bytes(16), 5, "kws", Slot.A, RELEASE.plaintext_sha256, 2500, bytes(32),
        2548, 0, FirmwareRange(1, 1, 1), 0, bytes(16), chunk_bytes=1024,
    )  # fmt: skip
    assert SealedRelease.of_ticket(ticket) == RELEASE


@given(st.integers(0, 2**32 - 1), st.binary(min_size=17, max_size=16 * 1024 + 16))
def test_chunk_messages_round_trip(index: int, chunk: bytes) -> None:
    assert decode_chunk_message(encode_chunk_message(index, chunk)) == (index, chunk)


@pytest.mark.parametrize("size", [0, 4, 20, 4 + 16 * 1024 + 17])
def test_chunk_messages_of_impossible_size_are_refused(size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_chunk_message(bytes(size))
