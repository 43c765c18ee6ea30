"""Canonical bytes of records: shared vectors, round trips, hostile bytes, and strictness towards authors."""

from __future__ import annotations

import array
import copy
import json
import random
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aif.errors import InvalidRecord, RecordTooLarge
from aif.model.codec import Alternative, Codec, Record, compile_record
from aif.model.records import (
    Array,
    FixedArray,
    Node,
    RecordType,
    Scalar,
    Struct,
    Variant,
    lower,
    max_size,
    min_size,
)
from aif.model.tensors import swapped
from tests.model.record_samples import NUMBERS, TYPES, plain, values

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "records.json").read_text(encoding="utf-8"))


def codec(text: str, **limits: Any) -> Codec:
    return compile_record(RecordType.parse(text), **limits)


def from_bits(digits: str) -> float:
    """A float from its bits, most significant first; float32 NaNs keep sign and payload."""
    bits = int(digits, 16)
    if len(digits) == 8:
        bits = bits >> 31 << 63 | 0x7FF << 52 | (bits & 0x7F_FFFF) << 29
    value: float = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    return value


def from_json(node: Node, value: Any) -> Any:
    """The value that a vector writes down."""
    match node:
        case Scalar("float32" | "float64") if isinstance(value, str):
            return from_bits(value)
        case Struct(members):
            return {member.name: from_json(member.type, value[member.name]) for member in members}
        case Array(element) | FixedArray(element):
            return [from_json(element, item) for item in value]
        case Variant() if isinstance(value, list):
            return Alternative(*value)
        case _:
            return value


@pytest.mark.parametrize("vector", VECTORS["accept"], ids=lambda vector: vector["name"])
def test_published_encodings(vector: dict[str, Any]) -> None:
    record = RecordType.parse(vector["type"])
    raw = bytes.fromhex(vector["hex"].replace("|", ""))
    value = from_json(record.root, vector["value"])
    compiled = compile_record(record)
    assert compiled.encode(value).hex(" ") == raw.hex(" ")
    decoded = compiled.decode(raw)
    assert compiled.encode(decoded) == raw
    assert plain(decoded) == plain(value)
    for buffer in (bytearray(raw), memoryview(raw), memoryview(b"\0" + raw)[1:]):
        assert compiled.encode(compiled.decode(buffer)) == raw
    for end in range(len(raw)):
        with pytest.raises(InvalidRecord):
            compiled.decode(raw[:end])
    with pytest.raises(InvalidRecord, match="1 B too many"):
        compiled.decode(raw + b"\0")


@pytest.mark.parametrize("vector", VECTORS["refuse"], ids=lambda vector: vector["name"])
def test_bytes_that_are_no_encoding(vector: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecord) as caught:
        codec(vector["type"]).decode(bytes.fromhex(vector["hex"]))
    assert vector["says"] in str(caught.value)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_one_value_has_one_encoding(data: st.DataObject) -> None:
    record = data.draw(TYPES)
    value = data.draw(values(record.root))
    compiled = compile_record(record)
    raw = compiled.encode(value)
    assert min_size(record) <= len(raw) <= (max_size(record) or len(raw))
    decoded = compiled.decode(raw)
    assert plain(decoded) == plain(value)
    assert compiled.encode(decoded) == raw


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_an_encoding_or_an_invalid_record(data: st.DataObject) -> None:
    record = data.draw(TYPES)
    compiled = compile_record(record)
    raw = bytearray(data.draw(st.binary(max_size=40) | values(record.root).map(compiled.encode)))
    if raw:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(0, 255))
    try:
        decoded = compiled.decode(raw)
    except InvalidRecord as error:
        assert str(error).startswith("record")  # noqa: PT017 - either outcome is right
    else:
        assert compiled.encode(decoded) == raw


def test_many_random_bytes_per_type() -> None:
    rng = random.Random(4)
    accepted = 0
    for vector in VECTORS["accept"]:
        compiled = codec(vector["type"])
        for _ in range(400):
            raw = bytes(rng.choices((0, 1, 2, 255, 127), k=rng.randrange(40)))
            try:
                decoded = compiled.decode(raw)
            except InvalidRecord:
                continue
            accepted += 1
            assert compiled.encode(decoded) == raw
    assert accepted > 100


@given(st.lists(st.sampled_from(NUMBERS), min_size=2, max_size=8), st.binary(min_size=64, max_size=64))
def test_structs_of_numbers_are_packed_as_numpy_packs_them(kinds: list[str], noise: bytes) -> None:
    layout = np.dtype([(f"m{i}", np.dtype(kind).newbyteorder("<")) for i, kind in enumerate(kinds)])
    raw = noise[: layout.itemsize]
    compiled = codec("{" + "; ".join(f"{kind} m{i}" for i, kind in enumerate(kinds)) + "}")
    decoded = compiled.decode(raw)
    assert compiled.encode(decoded) == raw
    expected = np.frombuffer(raw, layout)[0]
    np.testing.assert_array_equal([float(x) for x in decoded], [float(x) for x in expected.item()])


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_the_bits_of_every_float_are_kept(narrow: int, wide: int) -> None:
    compiled = codec("{float32 a; float64 b; float32[1] c; { | float32 x} d}")
    raw = struct.pack("<IQIBI", narrow, wide, narrow, 1, narrow)
    assert compiled.encode(compiled.decode(raw)) == raw


def test_a_float64_nan_stays_a_nan_in_float32() -> None:
    only_low_bits = from_bits("7ff0000000000001")
    for text, value in (("float32", only_low_bits), ("float32[2]", [1.0, only_low_bits])):
        assert codec(text).encode(value)[-4:] == bytes.fromhex("0000c07f")
    signalling = from_bits("7fa00001")
    assert codec("float32[2]").encode([1.0, signalling]).hex(" ") == "00 00 80 3f 01 00 a0 7f"


def test_lowering_text_and_booleans_keeps_the_bytes() -> None:
    record = RecordType.parse("{string label; boolean ok; {boolean a | string b} c}")
    raw = compile_record(record).encode({"label": "wave", "ok": True, "c": ("b", "é")})
    lowered = compile_record(lower(record))
    assert lowered.encode(lowered.decode(raw)) == raw


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "int8[]",
        "boolean[]",
        "string",
        "{int8 a | string b}[]",
        "uint8[][]",
        "{int8 a}[]",
        "{ | int8 a}[15000000]",
    ],
)
def test_a_lying_count_allocates_nothing(text: str) -> None:
    compiled = codec(text)
    hostile = b"\xff\xff\xff\x7f" + bytes(1000)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRecord):
            compiled.decode(hostile)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_payload_bytes_bounds_both_directions() -> None:
    compiled = codec("uint8[]", payload_bytes=8, label="mic.audio")
    assert compiled.decode(compiled.encode(b"1234")).tobytes() == b"1234"
    with pytest.raises(RecordTooLarge, match=r"mic\.audio: 9 B, the limit is 8 B"):
        compiled.encode(b"12345")
    with pytest.raises(RecordTooLarge, match=r"mic\.audio: 9 B, the limit is 8 B"):
        compiled.decode(b"\5\0\0\0" + b"12345")
    with pytest.raises(RecordTooLarge, match="takes at least 490 B, the limit is 489 B"):
        codec("int8[49][10]", payload_bytes=489)


def test_compiling_is_done_once() -> None:
    assert codec("{int8 a}", label="x") is codec("{int8 a }", label="x")
    assert codec("{int8 a}").record_class is codec("{int8 a}", label="x").record_class


# --- what authors write ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    t_us: int
    xyz: Any


class Lazy:
    """A buffer is asked for nothing but its bytes."""

    t_us = 5
    xyz = array.array("h", [1, 2, 3])


SAMPLE = "{uint64 t_us; int16[3] xyz}"


@pytest.mark.parametrize(
    "write",
    [
        lambda _made: {"t_us": 5, "xyz": [1, 2, 3]},
        lambda _made: {"xyz": (1, 2, 3), "t_us": np.uint64(5)},
        lambda _made: MappingProxyType({"t_us": 5, "xyz": range(1, 4)}),
        lambda _made: Sample(5, array.array("h", [1, 2, 3])),
        lambda _made: SimpleNamespace(t_us=5, xyz=b"\1\0\2\0\3\0"),
        lambda _made: Lazy(),
        lambda made: made(t_us=5, xyz=np.array([1, 2, 3], np.int16)),
        lambda made: made(t_us=4, xyz=np.array([1, 2, 3], "<i2").data)._replace(t_us=5),
        lambda made: copy.copy(made(t_us=5, xyz=[1, 2, 3])),
    ],
)
def test_a_struct_may_be_written_in_many_ways(write: Callable[[type[Record] | None], object]) -> None:
    compiled = codec(SAMPLE)
    assert compiled.encode(write(compiled.record_class)) == bytes.fromhex("0500000000000000 010002000300")


def test_a_record_is_immutable_and_shows_its_members() -> None:
    record = codec("{uint8 a; string class; int8 _hidden}").decode(b"\1\1\0\0\0x\xff")
    assert (record.a, getattr(record, "class"), record[2]) == (1, "x", -1)
    assert record._asdict() == {"a": 1, "class": "x", "_hidden": -1}
    assert repr(record) == "Record(a=1, class='x', _hidden=-1)"
    with pytest.raises(AttributeError):
        record.a = 2
    with pytest.raises(InvalidRecord, match="missing class, _hidden; unknown 'b'"):
        type(record)(a=1, b=2)


def test_members_may_be_named_like_anything() -> None:
    compiled = codec(
        "{uint8 __len__; uint8 __class__; uint8 count; uint8 index; uint8 _fields; uint8 cls; uint8 self}"
    )
    record = compiled.decode(bytes(range(7)))
    assert len(record) == 7
    assert (record.count, record.index, record.cls, record.self) == (2, 3, 5, 6)
    assert type(record).__mro__[1] is Record
    assert compiled.encode(record._replace(self=9))[-1] == 9


def test_numpy_scalars_are_numbers_and_booleans() -> None:
    raw = codec("{int8 a; boolean b; float32 c; boolean[2] d}").encode(
        {"a": np.int64(-1), "b": np.True_, "c": np.float64(1.0), "d": [np.False_, True]}
    )
    assert raw.hex(" ") == "ff 01 00 00 80 3f 00 01"


@pytest.mark.parametrize(
    ("text", "value", "says"),
    [
        ("int8", 128, "record: int8 takes an integer -128..127, not 128"),
        ("uint8", -1, "record: uint8 takes an integer 0..255, not -1"),
        ("int32", 1.0, "record: int32 takes an integer -2147483648..2147483647, not 1.0"),
        ("int32", "1", "not str"),
        ("int32", None, "not NoneType"),
        ("float32", "1", "record: float32 takes a number, not str"),
        ("float32", 1e39, "record: float32 takes a number, not 1e+39"),
        ("float64", 10**400, "record: float64 takes a number"),
        ("boolean", 1, "record: boolean takes a bool, not int"),
        ("{uint8 a; boolean b}", {"a": 1, "b": "no"}, "record.b: boolean takes a bool, not str"),
        ("boolean[]", [True, 1], "record[1]: boolean takes a bool, not int"),
        ("boolean[2]", b"\1\2", "record[1]: a boolean is 00 or 01"),
        ("string", b"x", "record: string takes str, not bytes"),
        ("string", "a\ud800", "record: a lone surrogate at character 1"),
        ("", 0, "record: nothing (None) is sent here, not int"),
        ("{int8 a; int8 b}", {"a": 1}, "record: the members are a, b; missing b"),
        ("{int8 a; int8 b}", {"a": 1, "b": 2, "c": 3}, "unknown 'c'"),
        ("{int8 a; int8 b}", {"a": 1, 2: 3}, "missing b; unknown 2"),
        (
            "{int8 a; int8 b}",
            [1, 2],
            "record: a struct takes a mapping or an object with the members a, b, not list",
        ),
        ("{}", [], "record: a struct takes"),
        ("{}", {"a": 1}, "unknown 'a'"),
        (
            "{int8 a; {int8[4] s}[] b}",
            {"a": 1, "b": [{"s": [0] * 4}, {"s": [0, 0, 0, 200]}]},
            "record.b[1].s[3]: int8",
        ),
        ("int8[4]", [1, 2, 3], "record: int8[4] takes 4 elements, not 3"),
        ("int8[4]", 7, "record: int8[4] takes a buffer or a sequence of numbers, not int"),
        ("int8[4]", "abcd", "record: int8[4] takes a buffer or a sequence of numbers, not str"),
        ("int16[2][2]", [[1, 2], [3]], "record[1]: int16[2] takes 2 elements, not 1"),
        ("int16[2][2]", [[1, 2], [3, 70000]], "record[1][1]: int16 takes"),
        ("float32[][2]", [[1.0, 2.0], 3], "record[1]: float32[2] takes a buffer or a sequence"),
        ("int16[2]", b"123", "record: int16[2] takes 4 bytes, not 3"),
        ("int16[]", b"123", "record: int16[] takes 2 bytes each, not 3"),
        ("string[]", "ab", "record: an array takes a sequence, not str"),
        ("string[2]", ["a"], "record: 2 elements expected, not 1"),
        ("string[]", ["a", 1], "record[1]: string takes str"),
        ("{int8 a | int8 b}", None, "record: a variant takes Alternative(name, value), not NoneType"),
        ("{int8 a | int8 b}", 1, "record: a variant takes Alternative(name, value), not int"),
        ("{int8 a | int8 b}", ("c", 1), "record: no alternative 'c'; there are a, b"),
        ("{int8 a | int8 b}", ("b", 200), "record.b: int8 takes"),
        ("{ | uint8 percent}", 300, "record.percent: uint8 takes"),
        ("{ | uint8 percent}", ("percent", 3), "record.percent: uint8 takes an integer 0..255, not tuple"),
    ],
)
def test_a_value_that_does_not_fit_is_named(text: str, value: object, says: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        codec(text).encode(value)
    assert says in str(caught.value)


# --- tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*NUMBERS, "boolean"])
def test_tensors_meet_numpy(kind: str) -> None:
    dtype = np.dtype("bool" if kind == "boolean" else kind)
    window = np.arange(12).astype(dtype).reshape(3, 4)
    fixed, variable = codec(f"{kind}[3][4]"), codec(f"{kind}[][4]")
    raw = window.astype(dtype.newbyteorder("<")).tobytes()
    assert fixed.encode(window) == raw
    assert fixed.encode(window.tolist()) == raw
    assert fixed.encode(list(window)) == raw
    assert fixed.encode(np.asfortranarray(window)) == raw
    assert fixed.encode(np.repeat(window, 2, axis=0)[::2]) == raw
    assert fixed.encode(raw) == raw
    assert variable.encode(window) == b"\3\0\0\0" + raw
    back = np.asarray(variable.decode(variable.encode(window)))
    assert (back.dtype, back.shape) == (dtype, (3, 4))
    np.testing.assert_array_equal(back, window)
    empty = variable.encode(np.zeros((0, 4), dtype))
    assert empty == bytes(4)
    assert variable.encode(variable.decode(empty)) == empty
    assert np.asarray(variable.decode(empty)).dtype == dtype


@pytest.mark.parametrize(
    ("text", "value", "says"),
    [
        ("int8[4]", np.zeros(4, np.uint8), "format 'B', shape [4]"),
        ("int8[4]", np.zeros(4, np.float32), "format 'f', shape [4]"),
        ("int8[4]", np.zeros(4, np.int16), "format 'h', shape [4]"),
        ("int8[4]", np.zeros((2, 2), np.int8), "shape [2][2]"),
        ("int8[4]", np.zeros((1, 4), np.int8), "shape [1][4]"),
        ("int8[4]", np.int8(1), "shape"),
        ("int16[2]", np.zeros(2, ">i2"), "format '>h'"),
        (
            "int16[][2]",
            np.zeros((2, 3), np.int16),
            "int16[][2] takes a buffer of exactly its element type and shape",
        ),
        ("uint8[3]", np.array(["a", "b", "c"], "S1"), "ndarray"),
        ("float32[1]", np.zeros(1, np.float16), "format 'e'"),
        ("int64[1]", np.zeros(1, "M8[s]"), "int64[1] takes a buffer or a sequence of numbers, not ndarray"),
        ("int8[1]", np.array([None]), "format 'O'"),
    ],
)
def test_arrays_are_never_converted(text: str, value: object, says: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        codec(f"{{int8 n; {text} scores}}", label="event").encode({"n": 1, "scores": value})
    assert str(caught.value).startswith("event.scores: ")
    assert says in str(caught.value)


def test_decoded_arrays_share_the_message_and_cannot_change_it() -> None:
    message = bytearray(
        codec("{uint64 t_us; int16[100][6] window}").encode({"t_us": 1, "window": bytes(1200)})
    )
    window = codec("{uint64 t_us; int16[100][6] window}").decode(message).window
    message[8] = 7
    assert window[0, 0] == 7
    with pytest.raises(TypeError):
        window[0, 0] = 8
    shared = np.asarray(window)
    assert shared.shape == (100, 6)
    assert not shared.flags.writeable


def test_big_endian_hosts_reverse_each_element() -> None:
    assert swapped(bytes(range(8)), 4) == bytes([3, 2, 1, 0, 7, 6, 5, 4])
    assert swapped(bytes(range(4)), 1) == bytes(range(4))
