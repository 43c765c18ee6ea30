"""Type text, its rules, sizes, annotations, compatible ends, and lowering."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aif.errors import ModelError, RecordTypeMismatch, TypeSyntaxError
from aif.model.records import (
    MAX_NESTING,
    Annotation,
    Array,
    Empty,
    Extension,
    FixedArray,
    Member,
    Node,
    PortType,
    RecordType,
    Scalar,
    String,
    Struct,
    Variant,
    compatible,
    fixed_size,
    lower,
    max_size,
    min_size,
    resolve,
)

EVENT = (
    "{uint64 t_us; string label; float32 confidence; boolean is_final; int8[4] scores;"
    " { | uint8 percent} battery} GestureEvent_t"
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        (" \n", ""),
        ("byte[] bitstream_t", "uint8[] bitstream_t"),
        (
            "{int32 frameNumber;int16 x;\tint16 y;byte[]frame}frame_t",
            "{int32 frameNumber; int16 x; int16 y; uint8[] frame} frame_t",
        ),
        ("{int32 i32|int64 i64} variant_t", "{int32 i32 | int64 i64} variant_t"),
        (EVENT, EVENT),
        ("((int8))", "int8"),
        ("(int8[10])[49]", "int8[49][10]"),
        ("(int8[])[3]", "int8[3][]"),
        ("float32[][6]", "float32[][6]"),
        ("{}", "{}"),
        ("{;;}", "{}"),
        ("{int8 a;}", "{int8 a}"),
        ("{|}", "{ | }"),
        ("{int8 a|}", "{int8 a | }"),
        ("{int8 int8; byte byte}", "{int8 int8; uint8 byte}"),
        ("{{int8 _}a}", "{{int8 _} a}"),
        ("{" * MAX_NESTING + "int8 a" + "} a" * (MAX_NESTING - 1) + "}",) * 2,
    ],
)
def test_a_type_text_has_one_canonical_form(text: str, canonical: str) -> None:
    record = RecordType.parse(text)
    assert str(record) == canonical
    assert RecordType.parse(canonical) == record


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("in8", 0, "did you mean 'int8'?"),
        ("Features_t", 0, "unknown type 'Features_t'"),
        ("int8 x[4]", 6, "write 'TYPE[...] x'"),
        ("{int8 a, int8 b}", 7, "unexpected ','"),
        ("int8   é", 7, "unexpected 'é'"),
        ("{int8}", 5, "expected a name, found '}'"),
        ("{int8 a", 7, "expected ';', '|' or '}', found the end"),
        ("{int8 a | int8 b; int8 c}", 16, "expected '|' or '}', found ';'"),
        ("{int8 a; int8 a}", 0, "the name 'a' is used twice"),
        ("{int8 a | uint8 a}", 0, "the name 'a' is used twice"),
        ("{" + "|" * 256 + "}", 0, "2..256 alternatives"),
        ("int8[", 5, "expected ']' or a length"),
        ("int8[0]", 5, "found '0'"),
        ("int8[07]", 5, "found '07'"),
        ("int8[4 4]", 7, "expected ']'"),
        ("int8[-1]", 5, "unexpected '-'"),
        ("int8[99999999999999999999]", 5, "expected ']' or a length"),
        ("int8[16777216]", 0, "a length is 1..16777215"),
        ("int8[9999][9999]", 0, "every record would be larger than 16,777,215 B"),
        ("{}[]", 0, "an array element takes at least one byte"),
        ("{int8 a; {{} b}[3] c}", 9, "an array element takes at least one byte"),
        ("(int8", 5, "expected ')'"),
        ("()", 1, "expected a type"),
        ("int8 a b", 7, "expected the end of the type"),
        ("int8]", 4, "expected a name or the end of the type"),
        ("int8\0", 4, "unexpected '\\x00'"),
        ("٣", 0, "unexpected"),
        ("{" * 17, 17, "nested more than 16 deep"),
        ("(" * 17, 17, "nested more than 16 deep"),
        ("int8" + "[1]" * 17, 55, "nested more than 16 deep"),
        ("{int8" + "[1]" * 16 + " a}", 0, "nested more than 16 deep"),
        ("[" * 5000, 4096, "at most 4096 characters"),
    ],
)
def test_a_syntax_error_says_where_and_what(text: str, position: int, says: str) -> None:
    with pytest.raises(TypeSyntaxError) as caught:
        RecordType.parse(text)
    assert caught.value.position == position
    assert says in str(caught.value)


@given(st.text(alphabet="{}[]();| \nabint8string0123_é", max_size=60))
@settings(max_examples=300)
def test_any_text_is_a_type_or_a_syntax_error(text: str) -> None:
    try:
        record = RecordType.parse(text)
    except TypeSyntaxError as error:
        assert 0 <= error.position <= len(text)  # noqa: PT017 - either outcome is right
    else:
        assert RecordType.parse(str(record)) == record


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
LEAVES: st.SearchStrategy[Node] = st.sampled_from(
    [String(), *(Scalar(name) for name in ("int8", "uint16", "float32", "float64", "boolean"))]
)


def _inside(types: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    members = st.lists(st.builds(Member, types, NAMES), max_size=4, unique_by=lambda member: member.name)
    options = st.lists(
        st.builds(Member, types, NAMES), min_size=1, max_size=3, unique_by=lambda option: option.name
    )
    elements = types.filter(lambda node: min_size(RecordType(node)) > 0)
    return st.one_of(
        members.map(lambda found: Struct(tuple(found))),
        options.map(lambda found: Variant((Member(Empty()), *found))),
        options.filter(lambda found: len(found) > 1).map(lambda found: Variant(tuple(found))),
        elements.map(Array),
        st.builds(FixedArray, elements, st.integers(1, 9)),
    )


TYPES = st.builds(RecordType, st.recursive(LEAVES, _inside, max_leaves=8), st.just("") | NAMES)


@given(TYPES)
def test_parsing_undoes_printing(record: RecordType) -> None:
    assert RecordType.parse(str(record)) == record


@given(TYPES)
def test_lowering_leaves_no_extension_or_says_why(record: RecordType) -> None:
    try:
        lowered = lower(record)
    except ModelError as error:
        assert "no form in MPAI-AIF V2" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert lowered.extensions == Extension.NONE
        assert lower(lowered) == lowered


def test_types_made_by_hand_obey_the_same_rules() -> None:
    for wrong in (
        lambda: Scalar("int24"),
        lambda: Member(Scalar("int8"), "2nd"),
        lambda: Member(Scalar("int8")),
        lambda: Member(Empty(), "nothing"),
        lambda: Struct((Member(Empty()),)),
        lambda: Variant((Member(Scalar("int8"), "a"),)),
        lambda: FixedArray(Scalar("int8"), 0),
        lambda: Array(Struct(())),
        lambda: RecordType(Empty(), "nothing"),
        lambda: RecordType(Scalar("int8"), "a b"),
    ):
        with pytest.raises(ModelError):
            wrong()


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("", 0, 0),
        ("int8[49][10]", 490, 490),
        ("{uint64 t_us; int16[6] sample}", 20, 20),
        ("{int8 a | uint8 b}", 2, 2),
        ("{ | float64 x}", 1, 9),
        ("{ | float64 x}[3]", 3, 27),
        ("string", 4, None),
        ("int8[]", 4, None),
        ("{ | int8[] x}", 1, None),
        ("string[3]", 12, None),
        (EVENT, 22, None),
    ],
)
def test_sizes(text: str, least: int, most: int | None) -> None:
    record = RecordType.parse(text)
    assert (min_size(record), max_size(record)) == (least, most)
    assert fixed_size(record) == (least if least == most else None)


@pytest.mark.parametrize(
    ("text", "extensions"),
    [
        ("{int32 a; {int8 b | int16 c}[] d} e", Extension.NONE),
        ("{{byte[] x} a; int8 b}", Extension.NONE),
        ("{|}", Extension.NONE),
        ("boolean[]", Extension.BOOLEAN),
        ("string", Extension.STRING),
        ("int8[3][4]", Extension.FIXED_LENGTH),
        ("int8[][]", Extension.NESTED_ARRAY),
        ("{ | int8 a}[]", Extension.NESTED_ARRAY),
        ("{int8[2] a}[]", Extension.NESTED_ARRAY | Extension.FIXED_LENGTH),
        (EVENT, Extension.BOOLEAN | Extension.STRING | Extension.FIXED_LENGTH),
    ],
)
def test_extensions_are_flagged(text: str, extensions: Extension) -> None:
    assert RecordType.parse(text).extensions == extensions


@pytest.mark.parametrize(
    ("text", "lowered"),
    [
        (
            EVENT,
            EVENT.replace("string", "uint8[]").replace("boolean", "uint8").replace("int8[4]", "int8[]"),
        ),
        ("int8[49][10]", "int8[]"),
        ("float32[][6]", "float32[]"),
        ("boolean[3]", "uint8[]"),
        ("{int8 a; boolean b}[2][3]", "{int8 a; uint8 b}[]"),
    ],
)
def test_lowering(text: str, lowered: str) -> None:
    assert str(lower(RecordType.parse(text))) == lowered


@pytest.mark.parametrize("text", ["int8[][]", "int8[6][]", "string[]", "{int8[4] s}[]", "{ | int8 a}[]"])
def test_what_the_standard_cannot_say_is_not_lowered(text: str) -> None:
    with pytest.raises(ModelError, match="has no form in MPAI-AIF V2") as caught:
        lower(RecordType.parse(text))
    assert str(RecordType.parse(text)) in str(caught.value)


def _port(text: str, **annotation: object) -> PortType:
    note = Annotation(**annotation) if annotation else None  # type: ignore[arg-type]  # rows of a table
    return PortType(RecordType.parse(text), note)


@pytest.mark.parametrize(
    ("source", "destination", "says"),
    [
        (
            "int16[16000]",
            "int8[49][10]",
            "differ: the source gives int16[16000], the destination takes int8[",
        ),
        ("int8[4]", "int8[5]", "gives int8[4], the destination takes int8[5]"),
        ("int8[4]", "int8[]", "gives int8[4], the destination takes int8[]"),
        ("", "int8", "gives nothing, the destination takes int8"),
        ("{int8 a}", "{int8 b}", "gives int8 a, the destination takes int8 b"),
        ("{int8 a; {string l} b}", "{int8 a; {byte[] l} b}", "at b.l: the source gives string, the"),
        ("{{int8 v; int8 w}[3][] a}", "{{int8 v; int16 w}[3][] a}", "at a[][].w: the source gives int8"),
        ("{int8 a}", "{int8 a; int8 b}", "takes 2 members, among them int8 b"),
        ("{int8 a | int8 b | }", "{int8 a | int8 b}", "gives 3 members, among them an empty alternative"),
        ("{int8 a; int8 b}", "{int8 a | int8 b}", "takes {int8 a | int8 b}"),
    ],
)
def test_a_mismatch_names_the_first_difference_from_both_sides(
    source: str, destination: str, says: str
) -> None:
    with pytest.raises(RecordTypeMismatch) as caught:
        compatible(_port(source), _port(destination))
    assert says in str(caught.value)


def test_spelling_does_not_matter_between_ends() -> None:
    merged = compatible(_port("{byte a;} from_t"), _port("({uint8 a}) to_t"))
    assert str(merged) == "{uint8 a} from_t"


def test_one_sided_annotations_hold_for_both() -> None:
    quantised = _port("int8[36]", scale=0.5, zero_point=-12)
    with_unit = _port("int8[36]", unit="dB")
    both = Annotation(scale=0.5, zero_point=-12, unit="dB")
    assert compatible(quantised, _port("int8[36]")).annotation == quantised.annotation
    assert compatible(_port("int8[36]"), quantised).annotation == quantised.annotation
    assert compatible(quantised, with_unit).annotation == both
    assert compatible(with_unit, quantised).annotation == both
    assert str(compatible(with_unit, quantised)) == "int8[36] scale=0.5 zero_point=-12 unit=dB"


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"scale": 0.25, "zero_point": -12}, "scale=0.5, the destination scale=0.25"),
        ({"scale": 0.5, "zero_point": 0}, "zero_point=-12, the destination zero_point=0"),
        ({"scale": (0.5, 0.5), "zero_point": (0, 0), "axis": 0}, "destination scale=(0.5, 0.5)"),
        ({"unit": "mg"}, "unit=dB, the destination unit=mg"),
    ],
)
def test_different_annotations_do_not_fit(other: dict[str, object], says: str) -> None:
    with pytest.raises(RecordTypeMismatch) as caught:
        compatible(_port("int8[2]", scale=0.5, zero_point=-12, unit="dB"), _port("int8[2]", **other))
    assert says in str(caught.value)


def test_labels_of_opaque_payloads_must_match() -> None:
    record = RecordType.parse("uint8[]")
    view = PortType(record, label="OSD-SPO-V1.5")
    assert compatible(view, view) == view
    with pytest.raises(RecordTypeMismatch, match=r"gives OSD-SPO-V1\.5, the destination takes none"):
        compatible(view, PortType(record))


@pytest.mark.parametrize(
    ("text", "annotation", "says"),
    [
        ("int8", {"scale": 0.1}, "belong together"),
        ("int8", {"zero_point": 1}, "belong together"),
        ("int8", {"scale": 0.0, "zero_point": 0}, "finite number above 0"),
        ("int8", {"scale": float("nan"), "zero_point": 0}, "finite number above 0"),
        ("int8", {"scale": float("inf"), "zero_point": 0}, "finite number above 0"),
        ("int8", {"scale": 1.0, "zero_point": 128}, "zero point of int8 is -128..127"),
        ("uint8", {"scale": 1.0, "zero_point": -1}, "zero point of uint8 is 0..255"),
        ("float32", {"scale": 1.0, "zero_point": 0}, "quantises integers, not float32"),
        ("boolean", {"scale": 1.0, "zero_point": 0}, "quantises integers, not boolean"),
        ("string", {"unit": "dB"}, "needs a number or an array of numbers"),
        ("int8", {"unit": ""}, "1..64 printable characters"),
        ("int8", {"unit": "a\nb"}, "1..64 printable characters"),
        ("int8[2]", {"scale": (0.1, 0.2), "zero_point": (0, 0)}, "need the axis"),
        ("int8[2]", {"scale": 0.1, "zero_point": 0, "axis": 0}, "makes scale and zero_point lists"),
        ("int8[2]", {"scale": (0.1, 0.2), "zero_point": (0,), "axis": 0}, "2 scales but 1 zero points"),
        ("int8[3][2]", {"scale": (0.1, 0.2), "zero_point": (0, 0), "axis": 0}, "2 scales along axis 0"),
        ("int8[2]", {"scale": (0.1, 0.2), "zero_point": (0, 0), "axis": 1}, "2 scales along axis 1"),
        ("int8[]", {"scale": (0.1, 0.2), "zero_point": (0, 0), "axis": 0}, "2 scales along axis 0"),
    ],
)
def test_an_annotation_that_means_nothing_is_refused(
    text: str, annotation: dict[str, object], says: str
) -> None:
    with pytest.raises(ModelError) as caught:
        _port(text, **annotation)
    assert says in str(caught.value)


def test_resolve_takes_a_name_or_a_text() -> None:
    types = {"Features_t": _port("int8[36]", scale=0.5, zero_point=0)}
    assert resolve("Features_t", types) is types["Features_t"]
    assert resolve(" int8[36] ", types) == _port("int8[36]")
    assert resolve("int8", types) == _port("int8")
    assert resolve("", types) == PortType(RecordType(Empty()))
    with pytest.raises(TypeSyntaxError, match="did you mean 'Features_t'"):
        resolve("Feature_t", types)
    with pytest.raises(TypeSyntaxError, match="at most 4096 characters"):
        resolve("F" * 5000, types)
