"""Reading one field of an event whose shape nobody promised.

Decides what a text, a count, a number or a collection is when it comes from outside; anything else reads as
the empty one. Does not decide what a field means.

Invariants: nothing here raises; texts are printable (no escape sequence reaches a terminal) and short;
numbers are finite; collections have at most ``MAX_ENTRIES`` entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

MAX_TEXT: Final = 500
"""Characters of one text."""
MAX_ENTRIES: Final = 2_000
"""Entries of one collection."""
MAX_COUNT: Final = 2**53
"""Largest count: what every JSON reader holds exactly (RFC 8259 §6)."""
_EMPTY: Final[Mapping[str, Any]] = {}


def text(value: object) -> str:
    """A printable text of at most ``MAX_TEXT`` characters; empty for anything but a text."""
    if not isinstance(value, str):
        return ""
    short = value[:MAX_TEXT]
    return short if short.isprintable() else "".join(c if c.isprintable() else "·" for c in short)


def count(value: object) -> int:
    """A whole number from 0 to ``MAX_COUNT``; 0 for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
        return value
    return 0


def number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) <= MAX_COUNT else None


def flag(value: object) -> bool:
    return value is True


def mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else _EMPTY


def entries(value: object) -> Iterator[tuple[str, Any]]:
    """Members of a mapping, their names made printable."""
    for name, member in islice(mapping(value).items(), MAX_ENTRIES):
        if isinstance(name, str):
            yield text(name), member


def items(value: object) -> Iterable[Any]:
    """Elements of a list."""
    return value[:MAX_ENTRIES] if isinstance(value, list | tuple) else ()
