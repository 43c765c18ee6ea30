"""Generated record code: the same as the long way, whatever comes; and taken, not avoided."""

from __future__ import annotations

import math
import re
from typing import Any, NoReturn

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aif.errors import InvalidRecord, LocalProtocolError, RecordTooLarge
from aif.model.codec import compile_batches, compile_record
from aif.model.packed import Packed
from aif.model.record_code import BLOCK_RECORDS, LongWay, RecordCode, generate
from aif.model.record_plans import compile_plan
from aif.model.records import RecordType
from aif.model.tensors import MemberError
from aif.model.type_tree import size_range
from tests.model.record_samples import TYPES, plain, values

LIMIT = 1 << 20
LEAD = b"twelve bytes"


def _refuse(*_: Any) -> NoReturn:
    raise AssertionError("the long way was taken")


def alone(record: RecordType, lead_bytes: int = 0) -> RecordCode:
    """Code that has no long way to fall back on."""
    return generate(record.root, LongWay(_refuse, _refuse), payload_bytes=LIMIT, lead_bytes=lead_bytes)


def has_nan(value: Any) -> bool:
    shown = plain(value)
    if isinstance(shown, dict):
        return any(map(has_nan, shown.values()))
    if isinstance(shown, list | tuple):
        return any(map(has_nan, shown))
    return shown == "nan" or (isinstance(value, float) and math.isnan(value))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_usual_values_take_the_short_way_and_give_the_same(data: st.DataObject) -> None:
    record = data.draw(TYPES)
    value = data.draw(values(record.root))
    assume(not has_nan(value))
    expected = compile_plan(record.root).encode(value)
    code = alone(record)
    raw = code.encode(value)
    assert raw == expected
    decoded = code.decode(raw)
    assert plain(decoded) == plain(compile_plan(record.root).decode(memoryview(raw), 0)[0])
    assert code.encode(decoded) == raw


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_as_the_long_way_reads_them(data: st.DataObject) -> None:
    record = data.draw(TYPES)
    compiled, plan = compile_record(record), compile_plan(record.root)
    raw = bytearray(data.draw(st.binary(max_size=40) | values(record.root).map(compiled.encode)))
    if raw:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))]
    try:
        expected, end = plan.decode(memoryview(bytes(raw)), 0)
        accepted = end == len(raw)
    except MemberError:
        accepted = False
    if accepted:
        assert plain(compiled.decode(bytes(raw))) == plain(expected)
    else:
        with pytest.raises(InvalidRecord):
            compiled.decode(bytes(raw))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_batches_are_records_one_by_one(data: st.DataObject) -> None:
    record = data.draw(TYPES)
    some = data.draw(st.lists(values(record.root), max_size=4))
    one, many = compile_record(record), compile_batches(record, lead_bytes=len(LEAD))
    payloads = many.encode_all(LEAD, some)
    assert list(payloads) == [LEAD + one.encode(value) for value in some]
    expected = [plain(one.decode(payload[len(LEAD) :])) for payload in payloads]
    assert [plain(value) for value in many.decode_all(payloads)] == expected
    assert [plain(many.decode(payload)) for payload in payloads] == expected


def test_no_text_of_a_type_gets_into_the_source() -> None:
    record = RecordType.parse(
        "{int8 zebra; {string yak | uint8[] xerus} walrus; {float32 vole}[] urchin} toad"
    )
    source = alone(record, lead_bytes=12).source
    assert not [
        name for name in ("zebra", "yak", "xerus", "walrus", "vole", "urchin", "toad") if name in source
    ]
    names = set(re.findall(r"[A-Za-z_]\w*\d", source))
    assert names
    assert all(re.fullmatch(r"[mk]\d+", name) for name in names)


def test_a_batch_with_one_wrong_value_gives_nothing_and_says_why() -> None:
    batches = compile_batches(RecordType.parse("{int8 n; string s}"), lead_bytes=12, label="mic.audio")
    good = {"n": 1, "s": "x"}
    with pytest.raises(InvalidRecord, match=r"mic\.audio\.n: int8 takes an integer -128\.\.127, not 128"):
        batches.encode_all(LEAD, [good, {"n": 128, "s": "x"}])
    payload = batches.encode_all(LEAD, [good])[0]
    with pytest.raises(InvalidRecord, match=r"mic\.audio\.s: a count of 1 needs 1 B, 0 B are left"):
        batches.decode_all([payload, payload[:-1]])
    with pytest.raises(InvalidRecord, match="11 B are shorter than what stands before a record"):
        batches.decode(payload[:11])
    with pytest.raises(LocalProtocolError, match="the lead has 11 B, it must have 12"):
        batches.encode_all(LEAD[1:], [good])


def test_records_of_fixed_size_lie_side_by_side() -> None:
    batches = compile_batches(RecordType.parse("{int8 n; boolean b}"), lead_bytes=12, label="mic.audio")
    made = [{"n": n, "b": n > 1} for n in range(4)]
    packed = batches.encode_all(LEAD, made)
    assert isinstance(packed, Packed)
    assert [value._asdict() for value in batches.decode_all(packed)] == made
    assert type(batches.encode_all(LEAD, made[:1])) is list
    wrong = Packed(packed.data[:-1] + b"\2", packed.size_bytes)
    with pytest.raises(InvalidRecord, match=r"mic\.audio\.b: a boolean is 00 or 01"):
        batches.decode_all(wrong)
    for size, said in ((28, "14 B too many"), (7, "7 B are shorter")):
        with pytest.raises(InvalidRecord, match=said):
            batches.decode_all(Packed(packed.data, size))


@pytest.mark.parametrize("count", [2, BLOCK_RECORDS - 1, BLOCK_RECORDS, 2 * BLOCK_RECORDS + 5])
@pytest.mark.parametrize(
    "text",
    [
        "{uint16 n; uint8[3] data}",
        "{uint16 n}",
        "{uint16 n; {uint8 m} inner}",
        "{uint16 n; float32[2] x}",
        "uint16",
    ],
)
def test_any_number_side_by_side_is_read_as_one_by_one(text: str, count: int) -> None:
    record = RecordType.parse(text)
    batches = compile_batches(record, lead_bytes=len(LEAD))
    size = len(LEAD) + size_range(record.root)[0]
    raw = bytes(at * 7 & 63 for at in range(count * size))  # no float is a NaN
    found = batches.decode_all(Packed(raw, size))
    assert found == [batches.decode(raw[at : at + size]) for at in range(0, len(raw), size)]
    assert {type(value) for value in found} == {type(batches.decode(raw[:size]))}


def test_limits_hold_with_a_lead() -> None:
    batches = compile_batches(RecordType.parse("uint8[]"), lead_bytes=12, payload_bytes=8)
    assert batches.decode_all(batches.encode_all(LEAD, [b"1234"]))[0].tobytes() == b"1234"
    with pytest.raises(RecordTooLarge, match="9 B, the limit is 8 B"):
        batches.encode_all(LEAD, [b"12345"])
    with pytest.raises(RecordTooLarge, match="9 B, the limit is 8 B"):
        batches.decode_all([LEAD + b"\5\0\0\0" + b"12345"])


def test_nan_bits_survive_a_batch() -> None:
    batches = compile_batches(RecordType.parse("{float32 a; boolean b}"), lead_bytes=12)
    raw = [LEAD + bytes.fromhex("0100a07f01"), LEAD + bytes.fromhex("0000803f00")]
    assert list(batches.encode_all(LEAD, batches.decode_all(raw))) == raw
    with pytest.raises(InvalidRecord, match="a boolean is 00 or 01"):
        batches.decode(LEAD + bytes.fromhex("0000803f02"))
