"""A near reader sees what a far one would: the codec is the measure."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest

from aif.errors import InvalidRecord
from aif.model.codec import compile_record
from aif.model.handover import conforming
from aif.model.record_values import Alternative, Record
from aif.model.records import RecordType


def far(record: RecordType, value: Any) -> Any:
    codec = compile_record(record)
    return codec.decode(codec.encode(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("int32", 5),
        ("string", "wave"),
        ("{int32 a; string b}", {"a": 1, "b": "x"}),
        ("{int32 a; {int8 c; int8 d} b}", {"a": 1, "b": {"c": 2, "d": 3}}),
        ("{int32 a; int32 b}[]", [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        ("int16[3]", np.array([1, 2, 3], np.int16)),
        ("int16[3]", [1, 2, 3]),
        ("int16[3]", array("h", [1, 2, 3])),
        ("int16[2][3]", np.arange(6, dtype=np.int16).reshape(2, 3)),
        ("int16[2][3]", np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3))),
        ("int16[]", np.arange(10, dtype=np.int16)[::2]),
        ("int16[]", []),
        ("int64[]", np.arange(3)),
        ("uint8[]", b"abc"),
        ("uint8[]", bytearray(b"abc")),
        ("float32[2]", (0.5, 1.5)),
        ("string[]", ["a", "b"]),
        ("{uint64 t_us; int8[4] scores}", {"t_us": 1, "scores": np.array([1, 2, 3, 4], np.int8)}),
        ("{ | uint8 percent}", None),
        ("{ | uint8 percent}", 87),
        ("{int32 i | {int8 a} s}", ("s", {"a": 1})),
        ("{int32 i | {int8 a} s}", Alternative("i", 3)),
    ],
)
def test_near_and_far_readers_see_the_same(text: str, value: Any) -> None:
    record = RecordType.parse(text)
    near, expected = conforming(record)(value), far(record, value)
    assert type(near) is type(expected)
    assert near == expected
    if isinstance(near, memoryview):
        assert near.readonly
        assert (near.format, near.shape, near.c_contiguous) == (expected.format, expected.shape, True)


def test_members_are_reached_by_name() -> None:
    near = conforming(RecordType.parse("{int32 a; {int8 c} b}"))({"a": 1, "b": {"c": 2}})
    assert isinstance(near, Record)
    assert (near.a, near.b.c) == (1, 2)  # type: ignore[attr-defined]  # fields come from the type text


def test_a_reader_cannot_change_what_another_reader_sees() -> None:
    samples = np.zeros(3, np.int16)
    near = conforming(RecordType.parse("int16[3]"))(samples)
    with pytest.raises(TypeError):
        near[0] = 1
    view = np.asarray(near)
    assert not view.flags.writeable
    assert np.shares_memory(view, samples)  # and yet nothing was copied


def test_a_record_goes_over_as_it_is() -> None:
    conform = conforming(RecordType.parse("{int32 a}"))
    first = conform({"a": 1})
    assert conform(first) is first


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        ("{int32 a}", {"b": 1}, "imu.out: the members are a; missing a; unknown 'b'"),
        ("{int32 a}", 5, "imu.out: a struct takes a mapping or an object with the members a, not int"),
        ("int16[3]", np.zeros(3, np.float64), "imu.out: int16.3. takes a buffer of exactly its element type"),
        ("int16[3]", [1, 2], "imu.out: int16.3. takes 3 elements, not 2"),
        ("{int32 i | int8 s}", 5, "imu.out: a variant takes Alternative"),
    ],
)
def test_what_is_not_built_like_the_type_is_named_with_its_port(text: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidRecord, match=message):
        conforming(RecordType.parse(text), "imu.out")(value)
