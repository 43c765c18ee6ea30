"""How a model release is sealed: the part of its signed metadata that install tickets are made of.

Decides the names and ranges of these fields and how they are read back. It holds no key and seals nothing
(``aif.protocol.chunks`` does); whether a release is trusted is decided by TUF metadata (``client``).

TUF lists length and SHA-256 of the ciphertext, ``measurement`` is the SHA-256 of the plaintext, and the rest
is in ``custom["sealed"]``::

    {"aead": 1, "chunk_bytes": 4096, "plaintext_bytes": N, "key_commitment": 64 hexadecimal digits}

A release without this entry is plain. ``custom["hw_classes"]`` lists the hardware classes that a model was
built for; without it, or empty, it suits every one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aif.errors import AIFError, TrustError
from aif.protocol.chunks import SealedRelease
from aif.protocol.limits import HASH_BYTES
from aif.protocol.ticket import ModelAEAD
from store.release import Release

SEALED: Final = "sealed"
HW_CLASSES: Final = "hw_classes"
_FIELDS: Final = frozenset({"aead", "chunk_bytes", "plaintext_bytes", "key_commitment"})
MAX_HW_CLASSES: Final = 64


@dataclass(frozen=True, slots=True)
class Sealing:
    """What the chunks of a release are bound to, and what it says about its content key."""

    release: SealedRelease
    key_commitment: bytes

    def to_custom(self) -> dict[str, object]:
        """The ``sealed`` entry of the release's metadata."""
        return {
            "aead": int(self.release.aead),
            "chunk_bytes": self.release.chunk_bytes,
            "plaintext_bytes": self.release.plaintext_bytes,
            "key_commitment": self.key_commitment.hex(),
        }


def sealing_of(release: Release) -> Sealing | None:
    """How a release is sealed; None when it is plain.

    Raises:
        TrustError: the signed entry is malformed or contradicts the rest of the release.
    """
    entry = release.custom.get(SEALED)
    if entry is None:
        if release.measurement != release.sha256:
            raise _malformed(release, "it says neither that it is sealed nor that it is plain")
        return None
    if not isinstance(entry, Mapping) or set(entry) != _FIELDS:
        raise _malformed(release, f"{SEALED} has the fields {', '.join(sorted(_FIELDS))}")
    aead, chunk_bytes, plaintext_bytes = (
        entry["aead"],
        entry["chunk_bytes"],
        entry["plaintext_bytes"],
    )
    if not all(type(value) is int for value in (aead, chunk_bytes, plaintext_bytes)):
        raise _malformed(release, "aead, chunk_bytes and plaintext_bytes are whole numbers")
    try:
        commitment = bytes.fromhex(entry["key_commitment"])
        sealed = SealedRelease(
            release.component,
            release.counter,
            bytes.fromhex(release.measurement),
            plaintext_bytes,
            chunk_bytes,
            ModelAEAD(aead),
        )
    except (AIFError, ValueError, TypeError) as error:
        raise _malformed(release, str(error)) from error
    if len(commitment) != HASH_BYTES or sealed.ciphertext_bytes != release.length:
        raise _malformed(release, "its lengths do not belong together")
    return Sealing(sealed, commitment)


def hw_classes_of(release: Release) -> frozenset[str]:
    """Names of the hardware classes that a model was built for; empty for any.

    Raises:
        TrustError: the signed entry is malformed.
    """
    names = release.custom.get(HW_CLASSES, [])
    if (
        not isinstance(names, list)
        or len(names) > MAX_HW_CLASSES
        or not all(isinstance(name, str) and name for name in names)
    ):
        raise _malformed(release, f"{HW_CLASSES} is a list of at most {MAX_HW_CLASSES} names")
    return frozenset(names)


def _malformed(release: Release, why: str) -> TrustError:
    return TrustError(
        f"the signed entry {release.path} is malformed: {why}",
        hint="ask the publisher to publish it again with a higher counter",
    )
