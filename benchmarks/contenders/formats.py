"""Peers' messages on the wire: bare bytes, typed records, bundles of them, and the obvious protected stack.

Decides bytes, nothing about their way. Every format makes and reads whole lists so that none pays more calls
than it must. ``unpack`` raises on anything forged or damaged.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from nacl import bindings
from nacl.signing import SigningKey

from benchmarks.cell import Run
from benchmarks.workload import SEQUENCE_BYTES, Buffer

Batch = tuple[list[int], list[Buffer]]


class Raw:
    """Sequence number and data as they are."""

    bundle = 1

    def prepare(self, sequence: int, data: bytes) -> Any:
        return sequence.to_bytes(SEQUENCE_BYTES, "little") + data

    def pack(self, messages: Sequence[Any]) -> list[bytes]:
        return list(messages)

    def unpack(self, payloads: list[bytes]) -> Batch:
        first = int.from_bytes
        return (
            [first(payload[:SEQUENCE_BYTES], "little") for payload in payloads],
            [payload[SEQUENCE_BYTES:] for payload in payloads],
        )


class Typed(Raw):
    """One msgspec record per packet."""

    def __init__(self) -> None:
        msgspec: Any = importlib.import_module("msgspec")  # in the extra `bench` only
        record: Any = msgspec.defstruct("Record", [("sequence", int), ("data", bytes)], array_like=True)
        self._record = record
        self._encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
        self._decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(record).decode
        self._decode_all: Callable[[bytes], Any] = msgspec.msgpack.Decoder(list[record]).decode

    def prepare(self, sequence: int, data: bytes) -> Any:
        return self._record(sequence, data)

    def pack(self, messages: Sequence[Any]) -> list[bytes]:
        encode = self._encode
        return [encode(message) for message in messages]

    def unpack(self, payloads: list[bytes]) -> Batch:
        decode = self._decode
        return _split([decode(payload) for payload in payloads])


class Bundled(Typed):
    """K msgspec records per packet, unprotected: what bundling alone gives."""

    def __init__(self, bundle: int) -> None:
        super().__init__()
        self.bundle = bundle

    def pack(self, messages: Sequence[Any]) -> list[bytes]:
        encode, bundle = self._encode, self.bundle
        return [encode(messages[i : i + bundle]) for i in range(0, len(messages), bundle)]

    def unpack(self, payloads: list[bytes]) -> Batch:
        return _split(list(chain.from_iterable(map(self._decode_all, payloads))))


class Obvious(Typed):
    """What one writes first: per message a signature and an AEAD, both from PyNaCl, with fresh random nonces.

    Replays are refused by a growing sequence number, checked by the receiver as for every contender.
    """

    CONTEXT = b"aiw/aim/port"
    NONCE_BYTES = bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES

    def __init__(self, secret: bytes) -> None:
        super().__init__()
        self._key = secret
        self._signer = SigningKey(secret)
        self._verifier = self._signer.verify_key

    def pack(self, messages: Sequence[Any]) -> list[bytes]:
        return [self._seal(self._encode(message)) for message in messages]

    def _seal(self, encoded: bytes) -> bytes:
        nonce = os.urandom(self.NONCE_BYTES)
        signed = bytes(self._signer.sign(encoded))
        return nonce + bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            signed, self.CONTEXT, nonce, self._key
        )

    def unpack(self, payloads: list[bytes]) -> Batch:
        return _split([self._decode(self._open(payload)) for payload in payloads])

    def _open(self, payload: bytes) -> bytes:
        nonce, sealed = payload[: self.NONCE_BYTES], payload[self.NONCE_BYTES :]
        signed = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, self.CONTEXT, nonce, self._key)
        return self._verifier.verify(signed)


def _split(records: list[Any]) -> Batch:
    return [record.sequence for record in records], [record.data for record in records]


def format_of(run: Run) -> Raw:
    """The wire format that a contender's name asks for."""
    name = run.cell.contender
    if name == "obvious":
        return Obvious(bytes.fromhex(run.secret_hex))
    if name == "paho_bundled":
        return Bundled(run.cell.bundle)
    return Typed() if name.endswith("_typed") else Raw()
