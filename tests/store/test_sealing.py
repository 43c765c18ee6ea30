"""The signed metadata of a sealed release: read back as written, refused when it contradicts itself."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from aif.errors import TrustError
from aif.protocol.chunks import SealedRelease
from store.release import Release
from store.sealing import MAX_HW_CLASSES, Sealing, hw_classes_of, sealing_of

MODEL = bytes(range(256)) * 40
DIGEST = hashlib.sha256(MODEL)
SEALED = SealedRelease("kws", 3, DIGEST.digest(), len(MODEL))
SEALING = Sealing(SEALED, b"\x05" * 32)


def release(**sealed: Any) -> Release:
    return Release(
        "aim/v/kws/3", "v", "kws", 3, "model", "ab" * 32, SEALED.ciphertext_bytes, DIGEST.hexdigest(),
        {"name": "kws", "sealed": SEALING.to_custom() | sealed},
    )  # fmt: skip


def test_a_sealing_is_read_as_it_was_written() -> None:
    assert sealing_of(release()) == SEALING


def test_a_plain_release_has_none() -> None:
    plain = replace(release(), custom={}, sha256=DIGEST.hexdigest())
    assert sealing_of(plain) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"aead": 0},
        {"aead": 2},
        {"aead": "1"},
        {"aead": True},
        {"chunk_bytes": 1023},
        {"chunk_bytes": 2048},  # another number of tags than the listed length has
        {"chunk_bytes": None},
        {"plaintext_bytes": 0},
        {"plaintext_bytes": len(MODEL) - 1},
        {"plaintext_bytes": 1 << 40},
        {"key_commitment": "05" * 31},
        {"key_commitment": "no digits"},
        {"key_commitment": 5},
        {"more": 1},
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(TrustError, match="aim/v/kws/3 is malformed"):
        sealing_of(release(**changes))


@pytest.mark.parametrize("entry", [[], "sealed", {"aead": 1}, 7])
def test_an_entry_of_another_form_is_refused(entry: object) -> None:
    with pytest.raises(TrustError, match="is malformed"):
        sealing_of(replace(release(), custom={"sealed": entry}))


def test_a_ciphertext_that_does_not_say_so_is_refused() -> None:
    with pytest.raises(TrustError, match="neither"):
        sealing_of(replace(release(), custom={}))


def test_hardware_classes_are_names() -> None:
    assert hw_classes_of(release()) == frozenset()
    assert hw_classes_of(replace(release(), custom={"hw_classes": ["a/b"]})) == {"a/b"}
    for wrong in ("a/b", [1], [""], ["a"] * (MAX_HW_CLASSES + 1), {"a": 1}):
        with pytest.raises(TrustError, match="hw_classes"):
            hw_classes_of(replace(release(), custom={"hw_classes": wrong}))
