"""Every decoder of the project by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzz import files, frames, trust
from tests.fuzz.campaign import Decoder

DECODERS: Mapping[str, Callable[[Path], Decoder]] = {**frames.FACTORIES, **trust.FACTORIES, **files.FACTORIES}
"""A factory gets an empty folder of its own."""
