"""Decoders of the services, from names and the engine's messages to what children and devices report."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import cbor2
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nacl.bindings import crypto_scalarmult_base

from aif.authoring.datasets import read_object_array
from aif.engines.base import TensorSpec
from aif.errors import (
    AIFError,
    DecryptionFailed,
    EngineError,
    InvalidRecord,
    ModelError,
    RemoteProtocolError,
)
from aif.gateway.device_metrics import read_metrics
from aif.model.ports import PortRef
from aif.protocol.chunks import (
    ChunkCipher,
    SealedRelease,
    decode_chunk_message,
    encode_chunk_message,
    seal_model,
    split_ciphertext,
)
from aif.protocol.identifiers import check_aiw_name, check_device_name
from aif.protocol.ticket import ModelAEAD
from aif.protocol.wrap import unwrap, wrap
from aif.transport.base import check_message
from aif.transport.filters import check_filter, check_topic
from aif.trusted.authority import CertificateAuthority
from aif.trusted.certificates import Role, Subject
from aif.trusted.engine_messages import (
    AREA_OPERATIONS,
    CRYPTO_OPERATIONS,
    ENGINE_OPERATIONS,
    STORAGE_OPERATIONS,
    Request,
    check_arguments,
    decode_answer,
    decode_request,
    encode_error,
    encode_request,
    encode_result,
)
from aif.trusted.psa import PSAError, PSAStatus, StorageFlag
from aif.trusted.records import RecordId, RecordKeys, open_record, seal_record
from store.release import check_sha256, check_vendor, split_path
from tests.fuzz.campaign import Decoder, without_folder
from tests.fuzz.inputs import JSON_LEAVES, damaged_text, damaged_tree
from tests.fuzz.trust import written

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = bytes(range(32))


# --- names -----------------------------------------------------------------------------------------


def _names() -> Decoder:
    """Every check of a name that comes from outside: topics, filters, devices, workflows, releases."""
    checks = (
        check_topic, check_filter, check_device_name, check_aiw_name, check_vendor, check_sha256, split_path,
        PortRef.parse, lambda name: check_message(name, b"", 0, max_payload_bytes=10),
    )  # fmt: skip
    texts = (
        "aif/ch/w/a",
        "aif/+/x/#",
        "mcu-1",
        "Gesture-1",
        "acme",
        "0" * 64,
        "aim/acme/kws/1",
        "a.out",
        "t",
    )
    words = ("/", "#", "+", "\0", "..", "é", "-", "\n", "x" * 300, "٣", "\u017f", "/" * 70, "$", "\ufeff")

    def feed(data: bytes) -> None:
        check = checks[data[0] % len(checks)] if data else checks[0]
        check(data[1:].decode())

    def craft(rng: Random) -> bytes:
        which = rng.randrange(len(checks))
        return bytes([which]) + damaged_text(rng, (texts[which],), words).encode()

    seeds = tuple(bytes([n]) + name.encode() for n, name in enumerate(texts))
    return Decoder("names", seeds, lambda: feed, (AIFError, UnicodeDecodeError), craft)


# --- Security Engine ------------------------------------------------------------------------------

_SIGNATURES = {**STORAGE_OPERATIONS, **CRYPTO_OPERATIONS, **ENGINE_OPERATIONS, **AREA_OPERATIONS}


def _engine_request() -> Decoder:
    seeds = (
        encode_request(Request(1, "psa_its_set", [1, b"x", 0])),
        encode_request(Request(2, "psa_import_key", [[0x1200, 0x0600_0009, 0x200, 256, 0, 0], bytes(32)])),
        encode_request(Request(3, "attest", [bytes(32), [[b"x"]], 5])),
    )
    trees = [cbor2.loads(seed) for seed in seeds]

    def feed(data: bytes) -> None:
        request = decode_request(data)
        assert encode_request(request) == data
        check_arguments(request.arguments, _SIGNATURES.get(request.operation, ()))

    def craft(rng: Random) -> bytes:
        return written(rng, damaged_tree(rng, rng.choice(trees)))

    return Decoder("engine request", seeds, lambda: feed, (RemoteProtocolError, PSAError), craft)


def _engine_answer() -> Decoder:
    seeds = (
        encode_result(7, [b"result", 1]),
        encode_error(7, PSAError(PSAStatus.INVALID_SIGNATURE, "no")),
        encode_error(7, DecryptionFailed("no", hint="try")),
    )
    trees = [cbor2.loads(seed) for seed in seeds]

    def craft(rng: Random) -> bytes:
        return written(rng, damaged_tree(rng, rng.choice(trees)))

    return Decoder("engine answer", seeds, lambda: lambda data: decode_answer(data, 7), (AIFError,), craft)


# --- sealed things --------------------------------------------------------------------------------


def _stored_record() -> Decoder:
    keys, record = RecordKeys.derive(KEY, "test"), RecordId(bytes(16), bytes(8))
    flags = (StorageFlag(0), StorageFlag.NO_CONFIDENTIALITY)
    seeds = tuple(
        bytes([n]) + seal_record(keys, record, flag, 1, body, bytes(24))
        for n, flag in enumerate(flags)
        for body in (b"", b"secret")
    )

    def feed(data: bytes) -> None:
        sealed = data[1:]
        flag = flags[data[0] % 2] if data else flags[0]
        body = open_record(keys, record, flag, 1, sealed)
        assert bytes([flags.index(flag)]) + sealed in seeds, body

    return Decoder("stored record", seeds, lambda: feed, (PSAError,))


def _wrap() -> Decoder:
    context, secret = bytes([7]) * 32, bytes(range(32, 64))
    seed = wrap(b"content key", crypto_scalarmult_base(secret), bytes(range(64, 96)), context)

    def feed(data: bytes) -> None:
        assert unwrap(data, secret, context) == b"content key"

    return Decoder("wrap", (seed,), lambda: feed, (RemoteProtocolError, DecryptionFailed))


def _chunks() -> Decoder:
    model = bytes(range(256)) * 17
    release = SealedRelease("kws", 3, sha256(model).digest(), len(model), 1024, ModelAEAD.CHACHA20_POLY1305)
    chunks = seal_model(KEY, release, model)
    cipher = ChunkCipher(KEY, release)

    def feed(data: bytes) -> None:
        if data[:1] == b"\xff":
            assert len(split_ciphertext(release, data[1:])) == release.total
            return
        index, sealed = decode_chunk_message(data)
        plaintext = cipher.open(index, sealed)
        assert model[index * 1024 :].startswith(plaintext)

    def craft(rng: Random) -> bytes:
        """Chunks under the numbers of others."""
        return encode_chunk_message(rng.randrange(7), rng.choice(chunks))

    seeds = (
        *(encode_chunk_message(n, sealed) for n, sealed in enumerate(chunks)),
        b"\xff" + b"".join(chunks),
    )
    return Decoder("chunks", seeds, lambda: feed, (RemoteProtocolError, DecryptionFailed), craft)


# --- certificates ---------------------------------------------------------------------------------


def _signing_request(folder: Path) -> Decoder:
    """What gets through must be a request of its own key; issued is always a certificate for the device."""
    authority = CertificateAuthority.open_or_create(folder / "ca", lambda n: bytes([3]) * n, now=NOW)
    subject = Subject(Role.DEVICE, "mcu-1")
    key = ec.derive_private_key(12345, ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    other = ec.derive_private_key(12345, ec.SECP384R1())
    seeds = tuple(
        each.public_bytes(serialization.Encoding.DER)
        for each in (builder.sign(key, hashes.SHA256()), builder.sign(other, hashes.SHA256()))
    )

    def feed(data: bytes) -> None:
        issued = x509.load_der_x509_certificate(authority.certify(data, subject, now=NOW))
        assert issued.subject == subject.name

    return Decoder("signing request", seeds, lambda: feed, (RemoteProtocolError,))


def _old_certificate(folder: Path) -> Decoder:
    """Credentials that lie on a disk: any bytes have a verdict."""
    authority = CertificateAuthority.open_or_create(folder / "ca", lambda n: bytes([3]) * n, now=NOW)
    subject = Subject(Role.DEVICE, "mcu-1")
    credentials = authority.issue(subject, now=NOW)
    seed = credentials.certificate + credentials.key

    def feed(data: bytes) -> None:
        if authority.replacement_reason(data, subject, now=NOW):
            raise RemoteProtocolError("to be replaced")

    return Decoder("certificate", (seed,), lambda: feed, (RemoteProtocolError,))


# --- reports --------------------------------------------------------------------------------------


def _device_metrics() -> Decoder:
    tree: dict[str, Any] = {
        "aims": {"a": {"invocations": 5, "process_us": {"3": 4, "200": 1}}},
        "channels": {"c": {"records": 5, "latency_us": {"3": 4}, "verified": 3}},
        "messages": {"sealed": 1, "verified": 2, "rejected": 0, "lost": 0},
        "usage": {"ram": 1, "ram_limit": 2, "flash": 3, "flash_limit": 4, "arena": 5},
    }

    def feed(data: bytes) -> None:
        values = json.loads(data)
        read_metrics(values if isinstance(values, dict) else {})

    def craft(rng: Random) -> bytes:
        return json.dumps(damaged_tree(rng, tree, JSON_LEAVES)).encode()

    return Decoder("device metrics", (json.dumps(tree).encode(),), lambda: feed, (ValueError,), craft)


def _tensor_details() -> Decoder:
    """What the interpreter's process says about a model; the process parses the model of whoever made it."""
    tree = {
        "shape": [1, 96], "dtype": "int8", "scales": [0.5], "zero_points": [3],
    }  # fmt: skip

    def feed(data: bytes) -> None:
        details = json.loads(data)
        if not isinstance(details, dict):
            raise EngineError("not a description")
        TensorSpec.from_details(details, name="input_0")

    def craft(rng: Random) -> bytes:
        return json.dumps(damaged_tree(rng, tree, JSON_LEAVES)).encode()

    errors = (EngineError, ModelError, ValueError)
    return Decoder("tensor details", (json.dumps(tree).encode(),), lambda: feed, errors, craft)


# --- arrays of data packages ----------------------------------------------------------------------


def _object_array() -> Decoder:
    inner = np.empty(2, object)
    inner[:] = [np.arange(6, dtype=np.int16).reshape(2, 3), np.arange(3.0)]
    out = io.BytesIO()
    np.lib.format.write_array(out, inner, version=(1, 0), allow_pickle=True)
    whole = out.getvalue()
    head = whole[: 10 + int.from_bytes(whole[8:10], "little")]
    hostile: tuple[object, ...] = (print, Path("x"), {"a": 1}, [1], "x", b"x", range(3), RuntimeError)

    def craft(rng: Random) -> bytes:
        """Whole pickles of other things, and damaged ones."""
        return head + pickle.dumps(rng.choice(hostile), rng.randrange(6))

    return Decoder("object array", (whole,), lambda: read_object_array, (InvalidRecord,), craft)


FACTORIES: Mapping[str, Callable[[Path], Decoder]] = {
    "names": without_folder(_names),
    "engine request": without_folder(_engine_request),
    "engine answer": without_folder(_engine_answer),
    "stored record": without_folder(_stored_record),
    "wrap": without_folder(_wrap),
    "chunks": without_folder(_chunks),
    "signing request": _signing_request,
    "certificate": _old_certificate,
    "device metrics": without_folder(_device_metrics),
    "tensor details": without_folder(_tensor_details),
    "object array": without_folder(_object_array),
}
"""Decoders by name; each may write into the folder it gets."""
