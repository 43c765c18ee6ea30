"""The one door to inference engines: check the digest, then open the engine a device declares.

Decides: which engine serves which runtime name, and that nothing parses bytes whose digest was not checked.
Does not: fetch models, or verify signatures (the caller knows ``sha256`` from signed metadata).

Invariants: no other package names an engine; a model whose digest differs is refused before any parser,
in any process, sees it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from enum import StrEnum
from hashlib import sha256 as digest_of
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from aif.engines.base import DEFAULT_CONFIG, Engine, EngineConfig
from aif.errors import EngineError, EngineUnavailable, LengthOrHashMismatch

MAX_MODEL_BYTES: Final = 64 << 20
"""Bytes of one model file."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Runtime(StrEnum):
    """Names of inference runtimes, as inventories and AIM metadata write them."""

    TFLITE = "tflite"
    """LiteRT, for gateways and edge boxes."""
    TFLM = "tflm"
    """TFLite-Micro inside a declared arena, for MCUs."""


_PACKAGES: Final = {Runtime.TFLITE: ("ai-edge-litert", "tflite-runtime"), Runtime.TFLM: ("tflite-micro",)}
"""What brings each of them; the first that is installed is used."""


def open_engine(
    runtime: str,
    model: bytes,
    *,
    sha256: str,
    arena_bytes: int = 0,
    name: str = "the model",
    config: EngineConfig = DEFAULT_CONFIG,
) -> Engine:
    """Verify a model and load it.

    Args:
        runtime: a ``Runtime`` name.
        model: bytes of a .tflite file, at most ``MAX_MODEL_BYTES``.
        sha256: expected digest, 64 lower-case hexadecimal digits, from signed metadata.
        arena_bytes: tensor arena; wanted by ``tflm``, without meaning for ``tflite``.
        name: what messages call the model.
        config: limits and switches.

    Raises:
        LengthOrHashMismatch: the bytes are not the model that was signed.
        EngineUnavailable: this runtime is unknown or not installed.
        ArenaOverflow: the arena is too small, with the size that works.
        EngineError: the engine refused the model; ``EngineCrashed`` if its process died.
    """
    verify_model(model, sha256=sha256, name=name)
    if runtime == Runtime.TFLITE:
        from aif.engines.tflite import LiteRTEngine

        return LiteRTEngine(model, config)
    if runtime == Runtime.TFLM:
        from aif.engines.arena import open_within_arena

        return open_within_arena(model, arena_bytes, name=name, config=config)
    known = ", ".join(Runtime)
    raise EngineUnavailable(f"no inference runtime is called {runtime!r}", hint=f"known runtimes: {known}")


def load_runtime(runtime: str) -> None:
    """Load the code of an inference runtime into this process, without a model.

    Raises:
        EngineUnavailable: this runtime is unknown or not installed.
    """
    if runtime not in _PACKAGES:
        known = ", ".join(Runtime)
        text = f"no inference runtime is called {runtime!r}"
        raise EngineUnavailable(text, hint=f"known runtimes: {known}")
    if runtime == Runtime.TFLITE:  # models of the other one run in processes of their own
        from aif.engines.tflite import load_package

        load_package()


def installed_versions() -> dict[str, str]:
    """The version of each inference runtime that is installed here, by its name; nothing is loaded."""
    found: dict[str, str] = {}
    for runtime, packages in _PACKAGES.items():
        for package in packages:
            with suppress(PackageNotFoundError):
                found.setdefault(str(runtime), version(package))
    return found


def verify_model(model: bytes, *, sha256: str, name: str = "the model") -> None:
    """Raise unless ``model`` has this SHA-256 (FIPS 180-4) and an acceptable length.

    Raises:
        EngineError: ``sha256`` is not a digest, or the length is not acceptable.
        LengthOrHashMismatch: another digest.
    """
    if not _SHA256.fullmatch(sha256):
        raise EngineError(
            f"{name}: {sha256[:80]!r} is not a SHA-256 digest (64 lower-case hexadecimal digits)"
        )
    if not 0 < len(model) <= MAX_MODEL_BYTES:
        raise EngineError(f"{name}: {len(model):,} B, a model file has 1 B to {MAX_MODEL_BYTES:,} B")
    found = digest_of(model).hexdigest()
    if found != sha256:
        raise LengthOrHashMismatch(
            f"{name}: SHA-256 is {found}, the signed metadata says {sha256}",
            hint="the bytes were damaged or replaced: fetch the model from the store again",
        )
