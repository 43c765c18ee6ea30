"""Canonical bytes of records: every record type is compiled once into calls of `struct.Struct`.

Decides: the bytes of a value and the value of bytes. Does not decide: what a type is (``type_tree.py``),
which buffers an array accepts (``tensors.py``), nor what stands around a record on the wire.

Encoding (little-endian, no padding): members in order; a uint32 count before the elements of a variable
array and before the bytes of a string; a uint8 tag, the position of the alternative, before the value of a
variant. Protocol headers around a record have their own byte order.

Values: struct -> `Record` (accepted: a mapping or any object with these attributes); array of scalars ->
memoryview; other array -> tuple; variant -> `Alternative`, or None for its only empty alternative; a variant
of one alternative and nothing (``{ | uint8 percent}``, our idiom for *optional*) -> that value or None;
string -> str; an empty message -> None. Decoded values are immutable and refer to the received buffer,
which must not change while they are in use.

Invariants: one value has exactly one encoding; what `Codec.decode` accepts, `Codec.encode` reproduces byte
for byte; bytes from outside raise `InvalidRecord` and nothing else, and never make the decoder allocate
more than they pay for.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from aif.errors import InvalidRecord, RecordTooLarge
from aif.model.record_plans import Encode, Plan, compile_plan
from aif.model.record_values import Alternative, Record, record_class
from aif.model.records import RecordType
from aif.model.tensors import PACK_ERRORS, MemberError
from aif.model.type_tree import MAX_RECORD_BYTES, Struct, size_range

__all__ = ["Alternative", "Buffer", "Codec", "Record", "compile_record"]

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Codec:
    """The compiled codec of one record type.

    Attributes:
        encode: value -> canonical bytes; raises `InvalidRecord` naming the member, `RecordTooLarge`.
        decode: bytes -> value; raises `InvalidRecord` naming the member, `RecordTooLarge`.
        record_class: the class of decoded values where the type is a struct:
            ``Event = codec.record_class; Event(t_us=1, label="wave")``.
    """

    record: RecordType
    payload_bytes: int
    encode: Callable[[Any], bytes]
    decode: Callable[[Buffer], Any]
    record_class: type[Record] | None


@functools.lru_cache(maxsize=1024)
def compile_record(
    record: RecordType, *, payload_bytes: int = MAX_RECORD_BYTES, label: str = "record"
) -> Codec:
    """The codec of ``record``, compiled at the first call.

    Args:
        record: the type.
        payload_bytes: largest encoding in either direction (a port's `payload_bytes`).
        label: what error messages call the record, such as the name of the port.

    Raises:
        RecordTooLarge: no record of this type fits.
    """
    least_bytes = size_range(record.root)[0]
    if least_bytes > payload_bytes:
        raise RecordTooLarge(
            f"{label}: {record} takes at least {least_bytes:,} B, the limit is {payload_bytes:,} B"
        )
    plan = compile_plan(record.root)
    encode, decode = _bounded(plan, payload_bytes, label)
    if not isinstance(record.root, Struct):
        return Codec(record, payload_bytes, encode, decode, None)
    own = record_class(record.root)
    if plan.layout is None:
        return Codec(record, payload_bytes, encode, decode, own)
    return Codec(record, payload_bytes, *_directly(plan.layout, own, encode, decode), own)


def _bounded(plan: Plan, payload_bytes: int, label: str) -> tuple[Encode, Callable[[Buffer], Any]]:
    encode_root, decode_root = plan.encode, plan.decode

    def encode(value: Any) -> bytes:
        try:
            raw = encode_root(value)
        except MemberError as error:
            raise InvalidRecord(error.located(label)) from None
        if len(raw) > payload_bytes:
            raise _too_large(label, len(raw), payload_bytes)
        return raw

    def decode(buffer: Buffer) -> Any:
        view = memoryview(buffer).toreadonly()
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B")
        length = len(view)
        if length > payload_bytes:
            raise _too_large(label, length, payload_bytes)
        try:
            value, end = decode_root(view, 0)
        except MemberError as error:
            raise InvalidRecord(error.located(label)) from None
        if end != length:
            raise InvalidRecord(f"{label}: {length - end} B too many, the record ends at byte {end}")
        return value

    return encode, decode


def _directly(
    layout: struct.Struct, own: type[Record], encode: Encode, decode: Callable[[Buffer], Any]
) -> tuple[Encode, Callable[[Buffer], Any]]:
    """Short cuts for a struct of plain numbers; what they do not take goes the long way, which explains."""
    pack, unpack, make = layout.pack, layout.unpack, functools.partial(tuple.__new__, own)

    def encode_directly(value: Any) -> bytes:
        if type(value) is own:
            try:
                return pack(*value)
            except PACK_ERRORS:
                return encode(value)
        return encode(value)

    def decode_directly(buffer: Buffer) -> Any:
        try:
            return make(unpack(buffer))
        except struct.error:
            return decode(buffer)

    return encode_directly, decode_directly


def _too_large(label: str, length: int, limit: int) -> RecordTooLarge:
    return RecordTooLarge(
        f"{label}: {length:,} B, the limit is {limit:,} B",
        hint="raise payload_bytes of the port, or send less",
    )
