"""Random record types, values of them as authors write them, and values reduced to what can be compared."""

from __future__ import annotations

import math
import struct
from functools import partial
from typing import Any

from hypothesis import strategies as st

from aif.model.codec import Alternative, Record
from aif.model.records import (
    Array,
    Empty,
    FixedArray,
    Member,
    Node,
    RecordType,
    Scalar,
    String,
    Struct,
    Variant,
    min_size,
)

NUMBERS = (
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64",
)  # fmt: skip


def plain(value: Any) -> Any:
    """A decoded or written value reduced to what can be compared: dicts, lists and numbers."""
    if isinstance(value, memoryview):
        return plain(value.tolist())
    if isinstance(value, Record):
        return {name: plain(member) for name, member in value._asdict().items()}
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, Alternative):
        return (value.name, plain(value.value))
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack(">d", value)
    return value


NAMES = ("a", "b", "c", "class", "_hidden", "count", "index", "__len__")
LEAVES: st.SearchStrategy[Node] = st.sampled_from([String(), Scalar("boolean"), *map(Scalar, NUMBERS)])


def _inside(types: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    members = st.lists(
        st.builds(Member, types, st.sampled_from(NAMES)), max_size=5, unique_by=lambda member: member.name
    )
    empty = Member(Empty())
    elements = types.filter(lambda node: min_size(RecordType(node)) > 0)
    return st.one_of(
        members.map(lambda found: Struct(tuple(found))),
        members.filter(lambda found: len(found) > 1).map(lambda found: Variant(tuple(found))),
        members.filter(bool).map(lambda found: Variant((*found, empty))),
        members.map(lambda found: Variant((empty, *found, empty))),
        elements.map(Array),
        st.builds(FixedArray, elements, st.integers(1, 3)),
    )


TYPES = st.recursive(LEAVES, _inside, max_leaves=8).map(RecordType)


def values(node: Node) -> st.SearchStrategy[Any]:
    """What an author may write for a type."""
    match node:
        case Scalar("boolean"):
            return st.booleans()
        case Scalar("float32"):
            return st.floats(width=32)
        case Scalar("float64"):
            return st.floats()
        case Scalar():
            low, high = node.bounds or (0, 0)
            return st.integers(low, high)
        case String():
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
        case Struct(members):
            return st.fixed_dictionaries({member.name: values(member.type) for member in members})
        case Variant(options):
            empty = sum(not option.name for option in options)
            named = [option for option in options if option.name]
            inner = named[0].type if len(options) == 2 and empty == 1 else None
            if inner and not (
                isinstance(inner, Variant) and [m.name for m in inner.alternatives].count("") == 1
            ):
                return st.none() | values(inner)
            choices = [
                st.none()
                if empty == 1 and not option.name
                else values(option.type).map(partial(Alternative, option.name or str(tag)))
                for tag, option in enumerate(options)
            ]
            return st.one_of(choices)
        case Array(element):
            return st.lists(values(element), max_size=3)
        case FixedArray(element, length):
            return st.lists(values(element), min_size=length, max_size=length)
        case Empty():
            return st.none()
