"""Chunks of a release: one ciphertext for all devices, opened piece by piece before it is kept.

Decides the id of a release, the bytes of a sealed chunk and of a chunk message, and when the pieces are the
model. Does not decide who gets the content key (``wrap``) nor which release a device may have (``ticket``).

Invariants: a chunk opens only at its place in its release, so truncation, reordering and splicing fail before
anything is kept; ``ModelAssembly`` gives out a model only when its whole SHA-256 is the one of the ticket.
A content key must never serve two releases: the nonce is the index alone.

Bytes (ChaCha20-Poly1305 of RFC 8439 §2.8, BLAKE2b-256 of RFC 7693, CBOR of RFC 8949 §4.2.1)::

    release_id = BLAKE2b-256(CBOR {1: component, 2: release counter, 3: plaintext sha256,
                                   4: plaintext length, 5: chunk size, 6: AEAD id})
    chunk i    = ChaCha20-Poly1305(content key, nonce = 0^8 || i (4),
                                   aad = "AIF-CHNK" || release_id (32) || i (4) || total (4) || last (1))
    message    = i (4) || chunk i
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from aif.errors import DecryptionFailed, LengthOrHashMismatch, LocalProtocolError, RemoteProtocolError
from aif.protocol.cbor import encode
from aif.protocol.limits import (
    DEFAULT_CHUNK_BYTES,
    HASH_BYTES,
    KEY_BYTES,
    MAX_CHUNK_BYTES,
    MAX_MODEL_BYTES,
    MIN_CHUNK_BYTES,
    TAG_BYTES,
    UINT32_MAX,
)
from aif.protocol.ticket import ModelAEAD, Ticket

INDEX_BYTES: Final = 4
"""Index in front of a chunk message."""
_LABEL: Final = b"AIF-CHNK"


@dataclass(frozen=True)
class SealedRelease:
    """What makes the chunks of one release its own."""

    component: str
    release_counter: int
    plaintext_sha256: bytes
    plaintext_bytes: int
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    aead: ModelAEAD = ModelAEAD.CHACHA20_POLY1305

    def __post_init__(self) -> None:
        if self.aead is not ModelAEAD.CHACHA20_POLY1305:
            raise LocalProtocolError("only an encrypted release has sealed chunks")
        if not (
            MIN_CHUNK_BYTES <= self.chunk_bytes <= MAX_CHUNK_BYTES
            and 1 <= self.plaintext_bytes <= MAX_MODEL_BYTES
            and 1 <= self.release_counter <= UINT32_MAX
            and len(self.plaintext_sha256) == HASH_BYTES
        ):
            raise LocalProtocolError("a release has a counter, a SHA-256, a length and a chunk size in range")

    @classmethod
    def of_ticket(cls, ticket: Ticket) -> SealedRelease:
        """The release that a ticket names.

        Raises:
            LocalProtocolError: it is not encrypted.
        """
        return cls(
            ticket.component,
            ticket.release_counter,
            ticket.plaintext_sha256,
            ticket.plaintext_bytes,
            ticket.chunk_bytes,
            ticket.aead,
        )

    @cached_property
    def release_id(self) -> bytes:
        """32 bytes; its first 16 hexadecimal digits name the release on the wire."""
        document = {
            1: self.component,
            2: self.release_counter,
            3: self.plaintext_sha256,
            4: self.plaintext_bytes,
            5: self.chunk_bytes,
            6: int(self.aead),
        }
        return hashlib.blake2b(encode(document), digest_size=HASH_BYTES).digest()

    @property
    def total(self) -> int:
        """Number of chunks, at least 1."""
        return -(-self.plaintext_bytes // self.chunk_bytes)

    @property
    def ciphertext_bytes(self) -> int:
        return self.plaintext_bytes + self.total * TAG_BYTES

    def size_bytes(self, index: int) -> int:
        """Plaintext bytes of one chunk; the last one may be shorter.

        Raises:
            RemoteProtocolError: there is no such chunk.
        """
        if not 0 <= index < self.total:
            raise RemoteProtocolError(
                f"chunk {index} of {self.component!r}: the release has chunks 0 to {self.total - 1}"
            )
        return min(self.chunk_bytes, self.plaintext_bytes - index * self.chunk_bytes)


class ChunkCipher:
    """Seals and opens the chunks of one release under its content key of 32 bytes."""

    __slots__ = ("_aead", "release")

    def __init__(self, content_key: bytes, release: SealedRelease) -> None:
        if len(content_key) != KEY_BYTES:
            raise LocalProtocolError(f"a content key has {KEY_BYTES} bytes")
        self._aead, self.release = ChaCha20Poly1305(content_key), release

    def seal(self, index: int, plaintext: bytes) -> bytes:
        """Chunk ``index``: the plaintext's length and 16 bytes.

        Raises:
            LocalProtocolError: ``plaintext`` is not as long as this chunk.
        """
        if len(plaintext) != self.release.size_bytes(index):
            raise LocalProtocolError(f"chunk {index} has {self.release.size_bytes(index)} B of plaintext")
        return self._aead.encrypt(_nonce(index), plaintext, self._aad(index))

    def open(self, index: int, sealed: bytes) -> bytes:
        """The plaintext of chunk ``index``.

        Raises:
            RemoteProtocolError: there is no such chunk, or it has another length.
            DecryptionFailed: changed, of another place or release, or another content key.
        """
        expected = self.release.size_bytes(index) + TAG_BYTES
        if len(sealed) != expected:
            raise RemoteProtocolError(f"chunk {index}: {len(sealed)} B, the release says {expected} B")
        try:
            return self._aead.decrypt(_nonce(index), sealed, self._aad(index))
        except InvalidTag as error:
            raise DecryptionFailed(
                f"chunk {index} of {self.release.component!r} is not of this release and key",
                hint="ask for the chunk again; if it stays so, for a new ticket",
            ) from error

    def _aad(self, index: int) -> bytes:
        total = self.release.total
        place = index.to_bytes(INDEX_BYTES) + total.to_bytes(4) + bytes([index == total - 1])
        return _LABEL + self.release.release_id + place


class ModelAssembly:
    """Collects the chunks of one release, in any order."""

    def __init__(self, cipher: ChunkCipher) -> None:
        self._cipher = cipher
        self._plaintext = bytearray(cipher.release.plaintext_bytes)
        self._missing = set(range(cipher.release.total))

    @property
    def missing(self) -> tuple[int, ...]:
        """Indexes that have not come, ascending."""
        return tuple(sorted(self._missing))

    def add(self, index: int, sealed: bytes) -> None:
        """Open one chunk and keep it; a chunk that came before is checked and changes nothing.

        Raises:
            RemoteProtocolError, DecryptionFailed: as ``ChunkCipher.open``; nothing was kept.
        """
        plaintext = self._cipher.open(index, sealed)
        start = index * self._cipher.release.chunk_bytes
        self._plaintext[start : start + len(plaintext)] = plaintext
        self._missing.discard(index)

    def finish(self) -> bytes:
        """The whole model. The assembly is empty afterwards, whatever the outcome.

        Raises:
            LengthOrHashMismatch: chunks are missing, or the whole is not what was signed.
        """
        release, missing = self._cipher.release, self.missing
        model = bytes(self._plaintext)
        self._plaintext[:] = bytes(len(self._plaintext))
        self._missing = set(range(release.total))
        if missing:
            raise LengthOrHashMismatch(
                f"{len(missing)} of {release.total} chunks of {release.component!r} are missing, "
                f"the first is {missing[0]}"
            )
        if not hmac.compare_digest(hashlib.sha256(model).digest(), release.plaintext_sha256):
            raise LengthOrHashMismatch(
                f"the opened chunks of {release.component!r} are not the model that was signed",
                hint="the publisher sealed other bytes than the ticket names: publish the release again",
            )
        return model


def seal_model(content_key: bytes, release: SealedRelease, model: bytes) -> tuple[bytes, ...]:
    """All chunks of a model, in order; their concatenation is the ciphertext that a store keeps.

    Raises:
        LocalProtocolError: ``model`` is not the plaintext of ``release``.
    """
    if len(model) != release.plaintext_bytes or hashlib.sha256(model).digest() != release.plaintext_sha256:
        raise LocalProtocolError("the model is not the plaintext that the release names")
    cipher, size = ChunkCipher(content_key, release), release.chunk_bytes
    return tuple(cipher.seal(i, model[i * size : (i + 1) * size]) for i in range(release.total))


def split_ciphertext(release: SealedRelease, ciphertext: bytes) -> tuple[bytes, ...]:
    """The chunks of a ciphertext as a store keeps it.

    Raises:
        RemoteProtocolError: not as long as the release says.
    """
    if len(ciphertext) != release.ciphertext_bytes:
        raise RemoteProtocolError(
            f"ciphertext of {len(ciphertext):,} B, the release says {release.ciphertext_bytes:,} B"
        )
    size = release.chunk_bytes + TAG_BYTES
    return tuple(ciphertext[start : start + size] for start in range(0, len(ciphertext), size))


def encode_chunk_message(index: int, sealed: bytes) -> bytes:
    """A chunk as it travels alone."""
    return index.to_bytes(INDEX_BYTES) + sealed


def decode_chunk_message(data: bytes) -> tuple[int, bytes]:
    """Index and sealed chunk of a chunk message; whether the release has it, ``ChunkCipher.open`` says.

    Raises:
        RemoteProtocolError: shorter or longer than any chunk message.
    """
    if not INDEX_BYTES + TAG_BYTES < len(data) <= INDEX_BYTES + MAX_CHUNK_BYTES + TAG_BYTES:
        raise RemoteProtocolError(f"a chunk message of {len(data)} B cannot hold a chunk")
    return int.from_bytes(data[:INDEX_BYTES]), data[INDEX_BYTES:]


def _nonce(index: int) -> bytes:
    return bytes(8) + index.to_bytes(INDEX_BYTES)
