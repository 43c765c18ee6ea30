"""What one record type does to write and to read a value, as nested functions compiled once.

Decides: the canonical bytes of every kind of type except runs of scalars (``fused.py``) and arrays of
scalars (``tensors.py``). Does not decide: limits on whole records, and how errors are told (``codec.py``).

Invariants: reading checks every size against the bytes left before it allocates; nesting of calls is bounded
by the nesting of the type; an error carries the path of the member it happened in.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aif.model.fused import Fused, is_fusible
from aif.model.record_values import Alternative, member_reader, record_class
from aif.model.tensors import MemberError, Tensor, kind_of
from aif.model.type_tree import (
    COUNT_BYTES,
    Array,
    Empty,
    FixedArray,
    Member,
    Node,
    Scalar,
    String,
    Struct,
    Variant,
    size_range,
)

Encode: TypeAlias = Callable[[Any], bytes]
Decode: TypeAlias = Callable[[memoryview, int], tuple[Any, int]]  # (view, offset) -> (value, next offset)

_COUNT: Final = struct.Struct("<I")
_MAX_COUNT: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Plan:
    """How one type is written and read; both raise `MemberError` for what the type does not allow."""

    encode: Encode
    decode: Decode


def compile_plan(node: Node) -> Plan:
    """The plan of ``node``, its inner types compiled into it."""
    match node:
        case Empty():
            return Plan(_encode_empty, lambda _view, offset: (None, offset))
        case Scalar():
            fused = Fused.of((node,), ("",))
            return Plan(
                lambda value: fused.encode((value,)),
                lambda view, offset: (fused.decode(view, offset)[0], offset + fused.size_bytes),
            )
        case String():
            return Plan(_encode_string, _decode_string)
        case Struct():
            return _compile_struct(node)
        case Variant():
            return _compile_variant(node)
        case Array() | FixedArray():
            tensor = Tensor.of(node)
            return _compile_elements(node) if tensor is None else _compile_tensor(tensor)


def _encode_empty(value: Any) -> bytes:
    if value is not None:
        raise MemberError(f"nothing (None) is sent here, not {kind_of(value)}")
    return b""


def _encode_string(value: Any) -> bytes:
    if not isinstance(value, str):
        raise MemberError(f"string takes str, not {kind_of(value)}")
    try:
        raw = value.encode()
    except UnicodeEncodeError as error:
        raise MemberError(f"a lone surrogate at character {error.start} has no UTF-8 form") from None
    return _COUNT.pack(len(raw)) + raw


def _decode_string(view: memoryview, offset: int) -> tuple[str, int]:
    start, end = _counted(view, offset, 1)[1:]
    try:
        return str(view[start:end], "utf-8"), end
    except UnicodeDecodeError as error:
        raise MemberError(f"invalid UTF-8 at its byte {error.start}") from None


def _counted(view: memoryview, offset: int, least_bytes: int) -> tuple[int, int, int]:
    """A count, where its elements start, and where they would end at ``least_bytes`` each.

    Raises:
        MemberError: the bytes left cannot hold so many; nothing has been allocated by then.
    """
    start = offset + COUNT_BYTES
    if start > len(view):
        raise _short(view, offset, COUNT_BYTES)
    count: int = _COUNT.unpack_from(view, offset)[0]
    end = start + count * least_bytes
    if end > len(view):
        raise MemberError(
            f"a count of {count:,} needs {count * least_bytes:,} B, {len(view) - start:,} B are left"
        )
    return count, start, end


def _short(view: memoryview, offset: int, needed: int) -> MemberError:
    left = max(0, len(view) - offset)
    return MemberError(f"ends too early: {needed} B needed at byte {offset}, {left} B are left")


def _compile_tensor(tensor: Tensor) -> Plan:
    encode_elements, decode_elements, row_bytes = tensor.encode, tensor.decode, tensor.row_bytes

    def encode(value: Any) -> bytes:
        raw = encode_elements(value)
        return _COUNT.pack(len(raw) // row_bytes) + raw

    def decode(view: memoryview, offset: int) -> tuple[memoryview, int]:
        _, start, end = _counted(view, offset, row_bytes)
        return decode_elements(view[start:end]), end

    def decode_fixed(view: memoryview, offset: int) -> tuple[memoryview, int]:
        end = offset + row_bytes
        if end > len(view):
            raise _short(view, offset, row_bytes)
        return decode_elements(view[offset:end]), end

    return Plan(encode, decode) if tensor.variable else Plan(encode_elements, decode_fixed)


def _compile_elements(node: Array | FixedArray) -> Plan:
    plan = compile_plan(node.element)
    encode_element, decode_element = plan.encode, plan.decode
    least_bytes = size_range(node.element)[0]
    length = node.length if isinstance(node, FixedArray) else None

    def encode(value: Any) -> bytes:
        if isinstance(value, str | bytes | bytearray) or not isinstance(value, Sequence):
            raise MemberError(f"an array takes a sequence, not {kind_of(value)}")
        if len(value) > _MAX_COUNT if length is None else len(value) != length:
            raise MemberError(
                f"{_MAX_COUNT if length is None else length} elements expected, not {len(value)}"
            )
        parts = [_COUNT.pack(len(value))] if length is None else []
        before = len(parts)
        try:
            parts.extend(map(encode_element, value))
        except MemberError as error:
            raise error.within(f"[{len(parts) - before}]") from None
        return b"".join(parts)

    def decode(view: memoryview, offset: int) -> tuple[tuple[Any, ...], int]:
        if length is None:
            count, offset, _ = _counted(view, offset, least_bytes)
        elif length * least_bytes > len(view) - offset:
            raise _short(view, offset, length * least_bytes)
        else:
            count = length
        values: list[Any] = []
        try:
            for _ in itertools.repeat(None, count):
                value, offset = decode_element(view, offset)
                values.append(value)
        except MemberError as error:
            raise error.within(f"[{len(values)}]") from None
        return tuple(values), offset

    return Plan(encode, decode)


def _compile_variant(node: Variant) -> Plan:
    options = node.alternatives
    plans = [compile_plan(option.type) for option in options]
    names = [option.name or str(tag) for tag, option in enumerate(options)]
    empty = [tag for tag, option in enumerate(options) if not option.name]
    none_tag = empty[0] if len(empty) == 1 else None  # what None stands for
    bare_tag = 1 - empty[0] if _is_optional(node) else None  # what any other value stands for
    return Plan(
        _variant_encoder(names, plans, none_tag, bare_tag), _variant_decoder(names, plans, none_tag, bare_tag)
    )


def _variant_encoder(
    names: Sequence[str], plans: Sequence[Plan], none_tag: int | None, bare_tag: int | None
) -> Encode:
    tags = {name: tag for tag, name in enumerate(names)}

    def encode(value: Any) -> bytes:
        if value is None and none_tag is not None:
            return bytes([none_tag])
        if bare_tag is not None:
            tag, inner = bare_tag, value
        elif isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
            if value[0] not in tags:
                raise MemberError(f"no alternative {value[0]!r:.40}; there are {', '.join(names)}")
            tag, inner = tags[value[0]], value[1]
        else:
            raise MemberError(f"a variant takes Alternative(name, value), not {kind_of(value)}")
        try:
            return bytes([tag]) + plans[tag].encode(inner)
        except MemberError as error:
            raise error.within("." + names[tag]) from None

    return encode


def _variant_decoder(
    names: Sequence[str], plans: Sequence[Plan], none_tag: int | None, bare_tag: int | None
) -> Decode:
    told = {none_tag, bare_tag}  # alternatives whose value alone says which they are

    def decode(view: memoryview, offset: int) -> tuple[Any, int]:
        if offset >= len(view):
            raise _short(view, offset, 1)
        tag = view[offset]
        if tag >= len(plans):
            raise MemberError(f"tag {tag} is none of 0..{len(plans) - 1}")
        try:
            value, offset = plans[tag].decode(view, offset + 1)
        except MemberError as error:
            raise error.within("." + names[tag]) from None
        return (value if tag in told else Alternative(names[tag], value)), offset

    return decode


def _is_optional(node: Variant) -> bool:
    """Whether a bare value or None says all: one named alternative, one empty, and no None of its own."""
    named = [option.type for option in node.alternatives if option.name]
    if len(node.alternatives) != 2 or len(named) != 1:
        return False
    inner = named[0]
    return not (isinstance(inner, Variant) and sum(not option.name for option in inner.alternatives) == 1)


def _compile_struct(node: Struct) -> Plan:
    make = functools.partial(tuple.__new__, record_class(node))
    read = member_reader(node)
    segments = _segments(node.members)
    if len(segments) == 1 and isinstance(segments[0], Fused):
        fused = segments[0]
        pack, unpack, size = fused.encode, fused.decode, fused.size_bytes
        return Plan(
            lambda value: pack(read(value)),
            lambda view, offset: (make(unpack(view, offset)), offset + size),
        )
    writers: list[Encode] = []
    readers: list[Callable[[memoryview, int, list[Any]], int]] = []
    position = 0
    for segment in segments:
        if isinstance(segment, Fused):
            end = position + segment.length
            writers.append(_fused_writer(segment, slice(position, end)))
            readers.append(_fused_reader(segment))
        else:
            end = position + 1
            plan = compile_plan(segment.type)
            writers.append(_member_writer(plan.encode, position, "." + segment.name))
            readers.append(_member_decoder(plan.decode, "." + segment.name))
        position = end

    def encode(value: Any) -> bytes:
        members = read(value)
        return b"".join([write(members) for write in writers])

    def decode(view: memoryview, offset: int) -> tuple[Any, int]:
        members: list[Any] = []
        for step in readers:
            offset = step(view, offset, members)
        return make(members), offset

    return Plan(encode, decode)


def _segments(members: Sequence[Member]) -> list[Fused | Member]:
    """Runs of members with one `struct.Struct` each, and between them the members that need more."""
    segments: list[Fused | Member] = []
    for fusible, run in itertools.groupby(members, lambda member: is_fusible(member.type)):
        together = tuple(run)
        if fusible:
            types = tuple(member.type for member in together)
            segments.append(Fused.of(types, tuple("." + member.name for member in together)))
        else:
            segments += together
    return segments


def _fused_writer(fused: Fused, place: slice) -> Encode:
    return lambda members: fused.encode(members[place])


def _fused_reader(fused: Fused) -> Callable[[memoryview, int, list[Any]], int]:
    decode, size = fused.decode, fused.size_bytes

    def step(view: memoryview, offset: int, members: list[Any]) -> int:
        members += decode(view, offset)
        return offset + size

    return step


def _member_writer(encode: Encode, place: int, path: str) -> Encode:
    def write(members: Any) -> bytes:
        try:
            return encode(members[place])
        except MemberError as error:
            raise error.within(path) from None

    return write


def _member_decoder(decode: Decode, path: str) -> Callable[[memoryview, int, list[Any]], int]:
    def step(view: memoryview, offset: int, members: list[Any]) -> int:
        try:
            value, offset = decode(view, offset)
        except MemberError as error:
            raise error.within(path) from None
        members.append(value)
        return offset

    return step
