"""Deterministic CBOR: one value, one encoding; everything a general decoder tolerates is refused."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.protocol.cbor import Fields, decode, encode


class Major(IntEnum):
    MAP = 5


class Unit(StrEnum):
    BYTES = "bytes"


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.binary(max_size=8)
)
KEYS = st.integers(-(1 << 64), (1 << 64) - 1) | st.text(max_size=4)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def same(left: object, right: object) -> bool:
    """Equality that tells 1 from True and 0.0 from -0.0."""
    return repr(left) == repr(right)


@given(VALUES)
def test_what_is_encoded_decodes_to_the_same_value(value: object) -> None:
    decoded = decode(encode(value), max_bytes=1 << 16)
    assert decoded == value
    assert encode(decoded) == encode(value)


@given(VALUES)
def test_an_independent_decoder_reads_our_bytes(value: object) -> None:
    assert cbor2.loads(encode(value)) == value


@given(st.binary(max_size=64))
def test_random_bytes_are_refused_or_are_the_one_encoding(data: bytes) -> None:
    try:
        value = decode(data, max_bytes=64)
    except RemoteProtocolError:
        return
    assert encode(value) == data


@pytest.mark.parametrize(
    ("value", "expected"),
    [  # RFC 8949 appendix A
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (1000, "1903e8"),
        (18446744073709551615, "1bffffffffffffffff"),
        (-18446744073709551616, "3bffffffffffffffff"),
        (-1, "20"),
        (1.5, "f93e00"),
        (100000.0, "fa47c35000"),
        (1.1, "fb3ff199999999999a"),
        (False, "f4"),
        (None, "f6"),
        (b"\x01\x02\x03\x04", "4401020304"),
        ("\u00fc", "62c3bc"),
        ([1, [2, 3], [4, 5]], "8301820203820405"),
        ({1: 2, 3: 4}, "a201020304"),
        ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    ],
)
def test_published_encodings(value: object, expected: str) -> None:
    assert encode(value).hex() == expected
    assert same(decode(bytes.fromhex(expected), max_bytes=64), value)


def test_keys_are_sorted_by_their_bytes_as_in_rfc_8949_section_4_2_1() -> None:
    document = {"aa": 5, 100: 1, 10: 0, -1: 2, "z": 3}
    assert encode(document).hex() == "a50a001864012002617a0362616105"


@pytest.mark.parametrize(
    ("trap", "why"),
    [
        ("1800", "deterministic"),  # 0 with a longer head
        ("190001", "deterministic"),
        ("a2010101", "ends early"),
        ("a201000101", "deterministic"),  # duplicate key
        ("a202000100", "deterministic"),  # wrong order
        ("a20100f500", "deterministic"),  # true as a second 1
        ("0000", "bytes follow"),
        ("9fff", "indefinite"),
        ("5f4101ff", "indefinite"),
        ("bf0100ff", "indefinite"),
        ("ff", "indefinite"),
        ("1c", "reserved"),
        ("c11a514b67b0", "tag"),  # a date
        ("c249010000000000000000", "tag"),  # a bignum
        ("c4821b7fffffffffffffff01", "tag"),  # a decimal with an absurd exponent
        ("d81c81d81d00", "tag"),  # a list that holds itself
        ("d8236128", "tag"),  # a regular expression
        ("f7", "simple"),
        ("f820", "simple"),
        ("f97e00", "cannot carry"),  # NaN
        ("f97c00", "cannot carry"),  # infinity
        ("fb3ff8000000000000", "deterministic"),  # 1.5 in 8 bytes
        ("61ff", "not valid"),  # not UTF-8
        ("a1410000", "map keys"),  # bytes as a key
        ("a1810000", "not valid CBOR"),  # an array as a key
        ("9b7fffffffffffffff", "ends early"),
        ("5b7fffffffffffffff", "ends early"),
        ("bbffffffffffffffff", "ends early"),
        ("", "ends early"),
        ("19", "ends early"),
    ],
)
def test_each_tolerance_of_a_general_decoder_is_refused(trap: str, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        decode(bytes.fromhex(trap), max_bytes=64)


def test_size_is_capped_before_parsing() -> None:
    with pytest.raises(RemoteProtocolError, match=r"65 B is larger than the allowed 64 B"):
        decode(b"\xff" * 65, max_bytes=64)


def test_depth_is_capped_without_recursion() -> None:
    assert decode(b"\x81" * 16 + b"\x00", max_bytes=64)
    with pytest.raises(RemoteProtocolError, match="more than 16 deep"):
        decode(b"\x81" * 17 + b"\x00", max_bytes=64)
    with pytest.raises(RemoteProtocolError, match="more than 2 deep"):
        decode(b"\x81\x81\x81\x00", max_bytes=64, max_depth=2)
    with pytest.raises(RemoteProtocolError, match="deep"):
        decode(b"\x81" * 1_000_000, max_bytes=1_000_000)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 1 << 64, object(), {1.5: 0}, {b"k": 0}, {True: 0}, {1, 2}, "\ud800"],
    ids=["nan", "infinity", "2**64", "object", "float key", "bytes key", "bool key", "set", "surrogate"],
)
def test_values_that_documents_do_not_carry_are_our_own_error(value: object) -> None:
    with pytest.raises(LocalProtocolError):
        encode(value)


def test_enumerations_are_encoded_as_their_values() -> None:
    document = {Major.MAP: Unit.BYTES, 1: [Major.MAP]}
    assert encode(document) == encode({5: "bytes", 1: [5]})


def test_a_value_nested_too_deeply_is_our_own_error() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(LocalProtocolError, match="deep"):
        encode(value)


def test_fields_read_each_type_and_refuse_leftovers() -> None:
    fields = Fields({1: b"ab", 2: 7, 3: "x", 4: True, 5: [1], 6: {1: 2}, 0: 1}, "note")
    fields.version(0, 1)
    assert fields.bytes(1, "name", length=2) == b"ab"
    assert fields.uint(2, "count", maximum=7) == 7
    assert fields.text(3, "label", max_length=1) == "x"
    assert fields.flag(4, "on")
    assert fields.array(5, "rows", max_items=1) == [1]
    with pytest.raises(RemoteProtocolError, match="note: unknown key 6"):
        fields.done()
    inner = fields.map(6, "more")
    fields.done()
    with pytest.raises(RemoteProtocolError, match="note: more: unknown key 1"):
        inner.done()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.bytes(9, "seal", length=2), "note: seal .key 9. is missing"),
        (lambda f: f.bytes(2, "seal", length=2), "note: seal must be a byte string, not int 7"),
        (lambda f: f.bytes(1, "seal", length=3), "note: seal must be 3 bytes, not bytes of length 2"),
        (lambda f: f.bytes(1, "seal", max_length=1), "1 to 1 bytes"),
        (lambda f: f.uint(2, "count", maximum=6), "integer from 0 to 6, not int 7"),
        (lambda f: f.uint(2, "count", maximum=9, minimum=8), "integer from 8 to 9"),
        (lambda f: f.uint(4, "count", maximum=6), "not bool"),
        (lambda f: f.flag(2, "on"), "true or false"),
        (lambda f: f.text(3, "label", max_length=0), "0 characters"),
        (lambda f: f.array(5, "rows", max_items=0), "at most 0 items"),
        (lambda f: f.map(2, "more"), "note: more: is not a map"),
        (lambda f: f.version(2, 1), "version 7 is not supported, only 1"),
    ],
)
def test_field_errors_name_the_document_and_the_field(call: Any, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        call(Fields({1: b"ab", 2: 7, 3: "x", 4: True, 5: [1]}, "note"))


def test_a_row_is_read_by_position_and_keeps_values_out_of_errors() -> None:
    row = Fields.of_row([1, b"secret-key"], "row 0")
    assert row.uint(0, "index", maximum=1) == 1
    with pytest.raises(RemoteProtocolError) as refused:
        row.bytes(1, "key", length=32)
    assert "secret" not in refused.value.diagnostics()
    with pytest.raises(RemoteProtocolError, match="not an array"):
        Fields.of_row({}, "row 0")
