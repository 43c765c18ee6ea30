"""Canonical bytes of records: every record type is compiled once, into code of its own (``record_code.py``).

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from aif.errors import InvalidRecord, LocalProtocolError, RecordTooLarge
from aif.model.record_code import LongWay, generate
from aif.model.record_plans import compile_plan
from aif.model.record_values import Alternative, Record, record_class
from aif.model.records import RecordType
from aif.model.tensors import MemberError
from aif.model.type_tree import MAX_RECORD_BYTES, Struct, size_range

__all__ = ["Alternative", "BatchCodec", "Buffer", "Codec", "Record", "compile_batches", "compile_record"]

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


@dataclass(frozen=True, slots=True)
class BatchCodec:
    """The compiled codec for many records of one type, each behind the same few bytes.

    Attributes:
        lead_bytes: how many bytes stand before each record.
        encode_all: (lead, values) -> lead + canonical bytes of each, side by side where all have one length
            (`Packed`); raises as `Codec.encode` for the first value that is wrong, and gives nothing then.
        decode_all: buffers -> list of values; raises as `Codec.decode` for the first buffer that is wrong.
        decode: one buffer -> its value.
    """

    lead_bytes: int
    encode_all: Callable[[bytes, Sequence[Any]], Sequence[bytes]]
    decode_all: Callable[[Sequence[bytes]], list[Any]]
    decode: Callable[[bytes], Any]


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
    code = generate(record.root, _long_way(record, payload_bytes, label), payload_bytes=payload_bytes)
    own = record_class(record.root) if isinstance(record.root, Struct) else None
    return Codec(record, payload_bytes, code.encode, code.decode, own)


@functools.lru_cache(maxsize=1024)
def compile_batches(
    record: RecordType, *, lead_bytes: int, payload_bytes: int = MAX_RECORD_BYTES, label: str = "record"
) -> BatchCodec:
    """The codec of many records at a time, each behind a lead of ``lead_bytes``.

    Arguments and errors are otherwise those of `compile_record`.
    """
    compile_record(record, payload_bytes=payload_bytes, label=label)
    long_way = _long_way(record, payload_bytes, label)

    def encode(lead: bytes, value: Any) -> bytes:
        if len(lead) != lead_bytes:
            raise LocalProtocolError(f"the lead has {len(lead)} B, it must have {lead_bytes}")
        return lead + long_way.encode(value)

    def decode(buffer: Buffer) -> Any:
        if len(buffer) < lead_bytes:
            raise InvalidRecord(f"{label}: {len(buffer)} B are shorter than what stands before a record")
        return long_way.decode(memoryview(buffer)[lead_bytes:])

    code = generate(record.root, LongWay(encode, decode), payload_bytes=payload_bytes, lead_bytes=lead_bytes)
    return BatchCodec(lead_bytes, code.encode_all, code.decode_all, code.decode)


def _long_way(record: RecordType, payload_bytes: int, label: str) -> LongWay:
    """What the generated code falls back on: looks at every value and every byte, and says what is wrong."""
    plan = compile_plan(record.root)
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

    return LongWay(encode, decode)


def _too_large(label: str, length: int, limit: int) -> RecordTooLarge:
    return RecordTooLarge(
        f"{label}: {length:,} B, the limit is {limit:,} B",
        hint="raise payload_bytes of the port, or send less",
    )
