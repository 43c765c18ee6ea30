"""What a release is: its path, its digests, its metadata.

Decides which names, counters and metadata are allowed, the same way for the publisher and for the client.
It does not decide whether a release is trusted: that is TUF metadata (``client``).

Invariants: the path alone names vendor, component and counter; metadata cannot contradict it. Every release
is also a Reference Value for attestation (RFC 9334 §2.1): what a device measures when it runs the release
must equal ``measurement``, and a counter below the one allowed is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from aif.errors import StoreError, TrustError
from store.limits import MAX_BLOB_BYTES, MAX_COUNTER, MAX_CUSTOM_BYTES, MAX_CUSTOM_DEPTH

KINDS: Final = frozenset({"model", "aim", "aiw", "runtime", "firmware", "vectors"})
"""what may be published: a model, an AIM package, an AIW package, the manifest of a runtime, a firmware
image, golden vectors of a model"""

_VENDOR: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_COMPONENT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_COUNTER: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Release:
    """One published version of one component.

    Attributes:
        path: ``aim/<vendor>/<component>/<counter>``, the TUF target path.
        vendor: the publisher who signs it, ``[a-z][a-z0-9_-]*``, at most 64 characters.
        component: ``[A-Za-z][A-Za-z0-9_-]*``, at most 64 characters.
        counter: release counter, 0 … 2**32 - 1; only grows, also when old content returns.
        kind: one of ``KINDS``; a client may meet a newer kind.
        sha256: digest of the stored bytes, 64 hexadecimal digits.
        length: size of the stored bytes, in bytes, 1 … ``MAX_BLOB_BYTES``.
        measurement: SHA-256 of what runs (the plaintext), 64 hexadecimal digits; equals ``sha256`` unless the
            stored bytes are a ciphertext.
        custom: the publisher's metadata: name, version, runtime, arena_bytes, record types, …
        yanked: why the release was withdrawn; empty when it was not.
    """

    path: str
    vendor: str
    component: str
    counter: int
    kind: str
    sha256: str
    length: int
    measurement: str
    custom: Mapping[str, object] = field(hash=False)
    yanked: str = ""

    def yanked_for(self, reason: str) -> Release:
        """This release, withdrawn."""
        return replace(self, yanked=reason)

    def target_custom(self) -> dict[str, object]:
        """The signed ``custom`` field of the TUF target; ``release_from_target`` reads it back."""
        signed: dict[str, object] = {
            "kind": self.kind,
            "measurement": self.measurement,
            "release": self.custom,
        }
        return signed | ({"yanked": self.yanked} if self.yanked else {})


def release_path(vendor: str, component: str, counter: int) -> str:
    """The target path of a release.

    Raises:
        StoreError: a name or the counter is outside its range.
    """
    check_vendor(vendor)
    if not _COMPONENT.fullmatch(component):
        raise StoreError(
            f"component {component!r} is not a valid name",
            hint="use a letter first, then letters, digits, '_' or '-', at most 64 characters",
        )
    if not 0 <= counter <= MAX_COUNTER:
        raise StoreError(f"release counter {counter} is outside 0 … {MAX_COUNTER}")
    return f"aim/{vendor}/{component}/{counter}"


def check_vendor(vendor: str) -> None:
    """Raise ``StoreError`` unless ``vendor`` may name a publisher."""
    if not _VENDOR.fullmatch(vendor):
        raise StoreError(
            f"vendor {vendor!r} is not a valid name",
            hint="lower-case: a letter first, then letters, digits, '_' or '-', at most 64 characters",
        )


def split_path(path: str) -> tuple[str, str, int]:
    """Vendor, component and counter of a target path.

    Raises:
        StoreError: it is not the path of a release.
    """
    parts = path.split("/") if len(path) <= 256 else []
    if len(parts) != 4 or parts[0] != "aim" or not _COUNTER.fullmatch(parts[3]):
        raise StoreError(
            f"{path[:256]!r} is not the path of a release", hint="write aim/<vendor>/<component>/<counter>"
        )
    vendor, component, counter = parts[1], parts[2], int(parts[3])
    release_path(vendor, component, counter)
    return vendor, component, counter


def check_sha256(text: str) -> str:
    """``text`` itself.

    Raises:
        StoreError: it is not 64 lower-case hexadecimal digits. It becomes a file name: nothing else may pass.
    """
    if not _SHA256.fullmatch(text):
        raise StoreError(f"{text[:80]!r} is not a SHA-256 digest in lower-case hexadecimal")
    return text


def check_custom(custom: Mapping[str, object]) -> dict[str, object]:
    """The metadata of a release as plain JSON values, copied.

    Canonical JSON, over which TUF signs, has no fractions; write them as text or in a smaller unit.

    Raises:
        StoreError: not JSON, a float, deeper than ``MAX_CUSTOM_DEPTH``, or larger than ``MAX_CUSTOM_BYTES``.
    """
    _check_json(custom, "custom", MAX_CUSTOM_DEPTH)
    text = json.dumps(custom, sort_keys=True)
    if len(text) > MAX_CUSTOM_BYTES:
        raise StoreError(f"release metadata takes {len(text)} B, {MAX_CUSTOM_BYTES} B are allowed")
    copied: dict[str, object] = json.loads(text)
    return copied


def _check_json(value: object, where: str, depth: int) -> None:
    if depth < 0:
        raise StoreError(f"release metadata is nested deeper than {MAX_CUSTOM_DEPTH} levels at {where[:120]}")
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise StoreError(f"release metadata has the key {key!r} at {where}; keys are text")
            _check_json(item, f"{where}.{key}", depth - 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_json(item, f"{where}[{index}]", depth - 1)
    else:
        raise StoreError(
            f"release metadata holds a {type(value).__name__} at {where}",
            hint="use text, whole numbers, true/false, lists and mappings; write 0.1 as the text '0.1'",
        )


def release_from_target(path: str, length: int, hashes: Mapping[str, str], custom: object) -> Release:
    """Read a release out of a TUF target whose signatures were verified.

    A signature proves who wrote the entry, not that it is well formed, so every field is checked.

    Raises:
        TrustError: a field is missing, of the wrong type, or out of range.
    """
    try:
        return _read_target(path, length, hashes, custom)
    except StoreError as error:
        raise TrustError(
            f"the signed entry {path[:256]!r} is malformed: {error}",
            hint="ask the publisher to publish it again with a higher counter",
        ) from error


def _read_target(path: str, length: int, hashes: Mapping[str, str], custom: object) -> Release:
    vendor, component, counter = split_path(path)
    sha256 = check_sha256(hashes.get("sha256", ""))
    if not 1 <= length <= MAX_BLOB_BYTES:
        raise StoreError(f"length {length} B is outside 1 … {MAX_BLOB_BYTES}")
    if not isinstance(custom, Mapping):
        raise StoreError("it has no custom field")
    kind, measurement, yanked = (custom.get(key, "") for key in ("kind", "measurement", "yanked"))
    if not (isinstance(kind, str) and isinstance(measurement, str) and isinstance(yanked, str)):
        raise StoreError("kind, measurement and yanked must be text")
    metadata = custom.get("release")
    if not isinstance(metadata, Mapping):
        raise StoreError("custom.release must be a mapping")
    return Release(
        path=path,
        vendor=vendor,
        component=component,
        counter=counter,
        kind=kind,
        sha256=sha256,
        length=length,
        measurement=check_sha256(measurement),
        custom=check_custom(metadata),
        yanked=yanked,
    )
