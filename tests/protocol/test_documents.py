"""Dataclasses on the wire: round trips, and refusal of everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.protocol import cbor, documents

MAX_BYTES = 1 << 20


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True, slots=True)
class Inner:
    name: str
    raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class Outer:
    number: int
    share: float
    flag: bool
    colour: Colour
    level: Level
    inner: Inner
    inners: tuple[Inner, ...]
    names: Mapping[str, int]
    parameters: Mapping[str, bool | int | float | str | tuple[float, ...]]
    pair: tuple[int, str]
    maybe: Inner | None = None
    later: int = 7
    tags: tuple[str, ...] = field(default=())
    gaps: tuple[int | None, ...] = ()


integers = st.integers(-(1 << 64), (1 << 64) - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
inners = st.builds(Inner, texts, st.none() | st.binary(max_size=20))
values = st.booleans() | integers | floats | texts | st.lists(floats, max_size=3).map(tuple)
outers = st.builds(
    Outer,
    integers,
    floats,
    st.booleans(),
    st.sampled_from(Colour),
    st.sampled_from(Level),
    inners,
    st.lists(inners, max_size=3).map(tuple),
    st.dictionaries(texts, integers, max_size=3),
    st.dictionaries(texts, values, max_size=3),
    st.tuples(integers, texts),
    st.none() | inners,
    integers,
    st.lists(texts, max_size=3).map(tuple),
    st.lists(st.none() | integers, max_size=3).map(tuple),
)
SAMPLE = Outer(
    1, 0.5, True, Colour.RED, Level.LOW, Inner("a"),
    (Inner("b", b"x"),), {"k": 1}, {"p": (1.0, 2.0)}, (1, "x"),
)  # fmt: skip


def decode(data: bytes) -> Outer:
    return documents.decode(Outer, data, max_bytes=MAX_BYTES)


def plain(**changes: Any) -> bytes:
    """The sample with some fields replaced (or left out, for ``...``) by raw CBOR values."""
    raw = cbor.decode(documents.encode(SAMPLE), max_bytes=MAX_BYTES)
    assert isinstance(raw, dict)
    names = list(Outer.__dataclass_fields__)
    for name, value in changes.items():
        raw[names.index(name)] = value
    return cbor.encode({key: value for key, value in raw.items() if value is not ...})


@given(outers)
def test_a_document_comes_back_as_it_was(document: Outer) -> None:
    data = documents.encode(document)
    assert decode(data) == document
    assert documents.encode(decode(data)) == data


def test_the_bytes_of_a_document_are_fixed() -> None:
    assert documents.encode(Inner("a", b"x")).hex() == "a2006161014178"
    assert documents.encode(Inner("a")).hex() == "a1006161"


@given(st.binary(max_size=60))
@example(b"")
@example(b"\xa1\x00\xf6")
def test_arbitrary_bytes_raise_one_error_only(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(data)


raw_values = st.recursive(
    st.none() | st.booleans() | integers | floats | texts | st.binary(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 16) | texts, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(list(Outer.__dataclass_fields__)), raw_values, max_size=4))
def test_wrong_fields_raise_one_error_or_make_a_document_of_the_declared_types(
    changes: dict[str, Any],
) -> None:
    try:
        document = decode(plain(**changes))
    except RemoteProtocolError:
        return
    assert type(document.number) is int
    assert type(document.share) is float
    assert type(document.flag) is bool
    assert isinstance(document.inners, tuple)
    assert documents.decode(Outer, documents.encode(document), max_bytes=MAX_BYTES) == document


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": True}, "Outer.number must be int, not bool"),
        ({"number": 1.0}, "Outer.number must be int, not float"),
        ({"number": ...}, "Outer lacks the field number"),
        ({"number": None}, "Outer.number is null, where it must be left out"),
        ({"maybe": None}, "Outer.maybe is null, where it must be left out"),
        ({"flag": 1}, "Outer.flag must be bool, not int"),
        ({"colour": "green"}, "Outer.colour is 'green', not a Colour"),
        ({"colour": []}, r"Outer.colour is \[\], not a Colour"),
        ({"level": True}, "Outer.level is True, not a Level"),
        ({"level": 1.0}, "Outer.level is 1.0, not a Level"),
        ({"inner": 5}, "Outer.inner must be a map, not int"),
        ({"maybe": {0: 5}}, "Outer.maybe.name must be str, not int"),
        ({"inners": [{0: "a"}, {}]}, r"Outer.inners\[1\] lacks the field name"),
        ({"inners": {}}, "Outer.inners must be a list of at most 8192 items"),
        ({"tags": ["x"] * 8193}, "Outer.tags must be a list of at most 8192 items"),
        ({"names": {1: 1}}, "Outer.names must be str, not int"),
        ({"parameters": {"p": [True]}}, r"Outer.parameters\['p'\] has a value of the wrong type \(list\)"),
        ({"pair": [1]}, "Outer.pair must be a list of 2 items, not 1"),
        ({"pair": ["x", 1]}, r"Outer.pair\[0\] must be int, not str"),
        ({"tags": ["x" * 65_537]}, r"Outer.tags\[0\] is too long"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=f"^{message}"):
        decode(plain(**change))


@pytest.mark.parametrize("key", [99, "x" * 5000, -1])
def test_unknown_fields_are_refused_in_few_words(key: int | str) -> None:
    raw = cbor.decode(documents.encode(SAMPLE), max_bytes=MAX_BYTES)
    assert isinstance(raw, dict)
    with pytest.raises(RemoteProtocolError, match="holds the unknown field") as refused:
        decode(cbor.encode({**raw, key: 1}))
    assert len(str(refused.value)) < 120


def test_a_long_wrong_value_is_not_repeated_in_the_error() -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        decode(plain(colour="x" * 60_000))
    assert len(str(refused.value)) < 120


def test_an_integer_stands_for_a_float() -> None:
    assert decode(plain(share=2)).share == 2.0


def test_documents_written_before_a_field_was_appended_have_its_default() -> None:
    assert decode(plain(later=..., tags=...)) == SAMPLE


def test_size_is_checked_first() -> None:
    with pytest.raises(RemoteProtocolError, match="larger than the allowed 3 B"):
        documents.decode(Inner, documents.encode(Inner("abc")), max_bytes=3)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1 << 64, {1, 2}, "\ud800"])
def test_what_no_document_carries_is_refused_at_home(number: Any) -> None:
    with pytest.raises(LocalProtocolError):
        documents.encode(make_dataclass("Any", [("value", Any)])(number))
