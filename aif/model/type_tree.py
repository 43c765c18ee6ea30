"""The parts a record type is made of, the rules they obey, their canonical text and their sizes.

Decides: what a valid type is. Does not decide: how type text is read (``type_text.py``), nor the bytes
(``codec.py``).

Invariants: a value of these classes obeys every rule, however it was made; an array element takes at
least one byte, so a count on the wire bounds the work of a decoder.

Source: MPAI-AIF V2, "Information about types" (grammar). Fixed lengths are ours.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from aif.errors import ModelError

MAX_NESTING: Final = 16
MAX_ALTERNATIVES: Final = 256  # the tag is one byte
MAX_RECORD_BYTES: Final = 16_777_215  # upper end of a port's `payload_bytes`
COUNT_BYTES: Final = 4  # uint32 before the elements of a variable array and before the bytes of a string
TAG_BYTES: Final = 1
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

SCALAR_CODES: Final = MappingProxyType(
    {
        "int8": "b",
        "int16": "h",
        "int32": "i",
        "int64": "q",
        "uint8": "B",
        "uint16": "H",
        "uint32": "I",
        "uint64": "Q",
        "float32": "f",
        "float64": "d",
        "boolean": "?",
    }
)
"""Scalar name -> the code of the `struct` and `array` modules, in standard size."""


@dataclass(frozen=True, slots=True)
class Empty:
    """A message, or an alternative, without content."""


@dataclass(frozen=True, slots=True)
class String:
    """Text of any length, UTF-8 on the wire."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One number or boolean; ``name`` is a key of `SCALAR_CODES`."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in SCALAR_CODES:
            raise ModelError(f"{self.name!r} is not a scalar; the scalars are {', '.join(SCALAR_CODES)}")

    @property
    def code(self) -> str:
        return SCALAR_CODES[self.name]

    @property
    def size_bytes(self) -> int:
        return struct.calcsize("<" + self.code)

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Smallest and largest value of an integer, None for the others."""
        bits = 8 * self.size_bytes
        if self.name.startswith("uint"):
            return 0, (1 << bits) - 1
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if self.name.startswith("int") else None


@dataclass(frozen=True, slots=True)
class Member:
    """A named member of a struct or alternative of a variant; an empty alternative is ``Member(Empty())``."""

    type: Node
    name: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.type, Empty):
            if self.name:
                raise ModelError(f"{self.name!r}: an empty member has no name")
        elif not NAME.fullmatch(self.name):
            raise ModelError(f"{self.name!r} is not a name: a letter or '_', then letters, digits, '_'")

    def __str__(self) -> str:
        return f"{type_text(self.type)} {self.name}".strip()


@dataclass(frozen=True, slots=True)
class Struct:
    """Members in declaration order, without empty ones: those take no bytes and cannot be named."""

    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        _check_names(self.members)
        if not all(member.name for member in self.members):
            raise ModelError("a struct keeps no empty members: leave them out")


@dataclass(frozen=True, slots=True)
class Variant:
    """Exactly one of 2..256 alternatives; the tag on the wire is the position, from 0."""

    alternatives: tuple[Member, ...]

    def __post_init__(self) -> None:
        _check_names(self.alternatives)
        if not 2 <= len(self.alternatives) <= MAX_ALTERNATIVES:
            raise ModelError(
                f"a variant has 2..{MAX_ALTERNATIVES} alternatives, not {len(self.alternatives)}"
            )


@dataclass(frozen=True, slots=True)
class Array:
    """Any number of elements; the count travels with them."""

    element: Node

    def __post_init__(self) -> None:
        _check_element(self.element)


@dataclass(frozen=True, slots=True)
class FixedArray:
    """Exactly ``length`` elements; no count travels. Outermost dimension first, row-major as in C."""

    element: Node
    length: int

    def __post_init__(self) -> None:
        _check_element(self.element)
        if not 1 <= self.length <= MAX_RECORD_BYTES:
            raise ModelError(f"a length is 1..{MAX_RECORD_BYTES}, not {self.length}")


Node: TypeAlias = Empty | Scalar | String | Struct | Variant | Array | FixedArray


def _check_names(members: tuple[Member, ...]) -> None:
    names = [member.name for member in members if member.name]
    for name in names:
        if names.count(name) > 1:
            raise ModelError(f"the name {name!r} is used twice")


def _check_element(element: Node) -> None:
    if not size_range(element)[0]:
        raise ModelError("an array element takes at least one byte")


def children(node: Node) -> tuple[Node, ...]:
    """The types one level inside ``node``."""
    match node:
        case Struct(members) | Variant(members):
            return tuple(member.type for member in members)
        case Array(element) | FixedArray(element):
            return (element,)
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """``node`` and everything inside it, outermost first."""
    yield node
    for child in children(node):
        yield from walk(child)


def type_text(node: Node) -> str:
    """Canonical text of a type without its name; single spaces, no parentheses, ``uint8`` for ``byte``."""
    match node:
        case Scalar(name):
            return name
        case String():
            return "string"
        case Struct(members):
            return "{" + "; ".join(map(str, members)) + "}"
        case Variant(alternatives):
            return "{" + " | ".join(map(str, alternatives)) + "}"
        case Array() | FixedArray():
            shape, element = dimensions(node)
            return type_text(element) + "".join(f"[{'' if n is None else n}]" for n in shape)
        case Empty():
            return ""


def dimensions(node: Node) -> tuple[tuple[int | None, ...], Node]:
    """Lengths of an array, outermost first (None: variable), and what its innermost elements are."""
    shape: list[int | None] = []
    while isinstance(node, Array | FixedArray):
        shape.append(node.length if isinstance(node, FixedArray) else None)
        node = node.element
    return tuple(shape), node


def depth(node: Node) -> int:
    """Levels of structs, variants and array dimensions around the innermost element."""
    return max((1 + depth(child) for child in children(node)), default=0)


def size_range(node: Node) -> tuple[int, int | None]:
    """Smallest and largest encoding in bytes; None where a variable array or a string sets no limit."""
    match node:
        case Empty():
            return 0, 0
        case Scalar():
            return node.size_bytes, node.size_bytes
        case String() | Array():
            return COUNT_BYTES, None
        case FixedArray(element, length):
            low, high = size_range(element)
            return low * length, None if high is None else high * length
        case Struct(members):
            lows, highs = (
                zip(*(size_range(member.type) for member in members), strict=True) if members else ((), ())
            )
            return sum(lows), None if None in highs else sum(highs)
        case Variant(alternatives):
            lows, highs = zip(*(size_range(option.type) for option in alternatives), strict=True)
            return TAG_BYTES + min(lows), None if None in highs else TAG_BYTES + max(highs)


def is_fixed(node: Node) -> bool:
    """Whether the standard allows this as an array element (`recursive_base_type`)."""
    match node:
        case Scalar() | String():
            return True
        case Struct(members) | Variant(members):
            return bool(members) and all(is_fixed(member.type) for member in members)
        case _:
            return False
