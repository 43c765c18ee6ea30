"""What a neighbour in the same process sees of a record that was never encoded.

A reader must not be able to tell whether its writer is near or far. Far records come out of the codec;
near ones are handed over as they are, except that structs become the same `Record` values (by reference to
their members: arrays are not copied).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from aif.errors import InvalidRecord
from aif.model.record_values import member_reader, record_class
from aif.model.records import RecordType
from aif.model.tensors import MemberError
from aif.model.type_tree import Array, FixedArray, Node, Struct

Conform = Callable[[Any], Any]


def conforming(record: RecordType, label: str = "record") -> Conform:
    """A function from what an author may write to what a reader expects.

    It looks only at the members of structs; whether their values fit is the codec's business.
    """
    conform = _conform(record.root)
    if conform is None:
        return lambda value: value

    def named(value: Any) -> Any:
        try:
            return conform(value)
        except MemberError as error:
            raise InvalidRecord(error.located(label)) from None

    return named


@functools.lru_cache(maxsize=1024)
def _conform(node: Node) -> Conform | None:
    """None where a value is handed over as it is."""
    if isinstance(node, Struct):
        return _struct(node)
    if isinstance(node, Array | FixedArray) and (inner := _conform(node.element)) is not None:
        return lambda values: tuple(inner(value) for value in values)
    return None


def _struct(node: Struct) -> Conform:
    own, read = record_class(node), member_reader(node)
    inner = [_conform(member.type) for member in node.members]
    plain = not any(inner)

    def conform(value: Any) -> Any:
        if plain and type(value) is own:
            return value
        members = read(value)
        if plain:
            return tuple.__new__(own, members)
        return tuple.__new__(own, [m if f is None else f(m) for m, f in zip(members, inner, strict=True)])

    return conform
