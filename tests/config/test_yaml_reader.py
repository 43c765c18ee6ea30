from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.config.document import MAX_DOCUMENT_BYTES, load_document, parse_document
from aif.config.yaml_reader import MAX_ALIASES, MAX_DEPTH, MAX_NODES, ScalarNode, descendants, resolve_plain
from aif.errors import ConfigError


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as wrong:
        parse_document(text, "a.yaml")
    return wrong.value.diagnostics()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"), ("no", "no"), ("Yes", "Yes"), ("true", True), ("FALSE", False), ("null", None),
        ("~", None), ("12", 12), ("-3", -3), ("0x1F", 31), ("0o17", 15), ("017", 17), ("1e3", 1000.0),
        (".5", 0.5), ("1.", 1.0), ("1_000", "1_000"), ("12:30:45", "12:30:45"), ("<<", "<<"),
        ("2001-01-01", "2001-01-01"), ("1.0.1", "1.0.1"),
    ],
)  # fmt: skip
def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    read = parse_document(f"key: {text}\n", "a.yaml").plain()["key"]
    assert (read, type(read)) == (value, type(value))


def test_quoted_scalars_are_text() -> None:
    document = parse_document("a: \"1\"\nb: 'true'\nc: |\n  12\nd: ''\n", "a.yaml")
    assert document.plain() == {"a": "1", "b": "true", "c": "12\n", "d": ""}


def test_every_value_knows_its_place() -> None:
    document = parse_document("top:\n  - {id: one, deep: [1, 22]}\n  -   name: x\n", "f.yaml")
    at = document.location(("top", 0, "deep", 1))
    assert (str(at), at.length, at.text) == ("f.yaml:2:25", 2, "  - {id: one, deep: [1, 22]}")
    assert str(document.location(("top", 1, "name"))) == "f.yaml:3:13"
    assert str(document.location(("top", 1, "name"), key=True)) == "f.yaml:3:7"
    assert str(document.location(("top", 0))) == "f.yaml:2:10", "an item is shown at its id"
    assert str(document.location(("top", 9))) == "f.yaml:1:1", "what is not there, at its owner"


def test_columns_count_characters_and_a_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + "ключ: µ  # ü\nb: x\n".encode())
    at = load_document(file).location(("ключ",))
    assert (at.line, at.column, at.text) == (1, 7, "ключ: µ  # ü")


def test_a_duplicate_key_is_refused_with_both_places() -> None:
    assert refused("a: 1\nb: {x: 1, y: 2, x: 3}\n") == (
        "error[AIF-E0106]: key 'x' is given twice\n"
        "  --> a.yaml:2:17\n"
        "2 | b: {x: 1, y: 2, x: 3}\n"
        "  |                 ^\n"
        "   = first given at a.yaml:2:5"
    )


def test_a_syntax_error_shows_the_line() -> None:
    assert refused("aiw: {name: Kws\nprofile: basic\n").startswith(
        "error[AIF-E0101]: YAML: expected ',' or '}', but got ':'\n"
        "  --> a.yaml:2:8\n"
        "2 | profile: basic\n"
        "  |        ^\n"
    )


def test_tabs_are_named() -> None:
    said = refused("a:\n\tb: 1\n")
    assert "a.yaml:2:1" in said
    assert "indent with spaces, not with tabs" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: !!python/object:os.system x\n",
            "tags such as tag:yaml.org,2002:python/object:os.system are",
        ),
        ("a: !x {b: 1}\n", "tags such as !x are not used here"),
        ("a: 1\n---\nb: 2\n", "a file holds one YAML document"),
        ("{a: 1}: 2\n", "a key must be a word, not a list or a map"),
        ("? [a]\n: 2\n", "a key must be a word, not a list or a map"),
        ("a: *nowhere\n", "alias *nowhere has no complete anchor before it"),
        ("a: &me {b: *me}\n", "alias *me has no complete anchor before it"),
        ("- a\n- b\n", "the file must be a map of keys"),
        ("word\n", "the file must be a map of keys"),
        ("", "the file holds no keys"),
        ("# only a comment\n", "the file holds no keys"),
        ("a: " + "9" * 65 + "\n", "a number of 65 characters"),
        ("a: " + "[" * (MAX_DEPTH + 1), f"nested more than {MAX_DEPTH} deep"),
        ("a: \x07\n", "YAML: special characters are not allowed"),
    ],
)
def test_what_is_not_acceptable_is_refused(text: str, message: str) -> None:
    assert message in refused(text)


def test_aliases_are_read_and_bounded() -> None:
    document = parse_document("a: &x {k: 1}\nb: *x\n", "a.yaml")
    assert document.plain() == {"a": {"k": 1}, "b": {"k": 1}}
    many = "a: &x 1\nb: [" + "*x, " * (MAX_ALIASES + 1) + "]\n"
    assert f"more than {MAX_ALIASES} aliases" in refused(many)


def test_all_spellings_of_line_breaks_count_as_one() -> None:
    document = parse_document("a: 1\r\nb: 2\rc: 3\n", "a.yaml")
    assert [document.location((key,)).line for key in "abc"] == [1, 2, 3]


def test_a_very_long_line_is_not_repeated() -> None:
    assert refused("a: [" + "x, " * 200 + "!t y]\n") == (
        "error[AIF-E0101]: tags such as !t are not used here\n  --> a.yaml:1:605\n   = help: remove the tag"
    )


def test_an_alias_bomb_is_refused_by_what_it_would_unfold_to() -> None:
    lines = ["a0: &a0 [" + "x, " * 10 + "]"]
    lines += [f"a{n}: &a{n} [" + f"*a{n - 1}, " * 10 + "]" for n in range(1, 7)]
    assert f"more than {MAX_NODES:,} values" in refused("\n".join(lines))


def test_size_and_encoding_are_checked_before_reading(tmp_path: Path) -> None:
    large, latin = tmp_path / "large.yaml", tmp_path / "latin.yaml"
    large.write_bytes(b"#" * (MAX_DOCUMENT_BYTES + 1))
    latin.write_bytes(b"a: 1\nb: \xe9t\xe9\n")
    with pytest.raises(ConfigError, match="the file is larger than 1,048,576 B"):
        load_document(large)
    with pytest.raises(ConfigError, match="the file is not UTF-8 text") as wrong:
        load_document(latin)
    assert str(wrong.value.findings[0].location).endswith("latin.yaml:2:4")
    with pytest.raises(ConfigError, match="No such file or directory"):
        load_document(tmp_path / "none.yaml")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        document = parse_document(text, "a.yaml")
    except ConfigError:
        return
    for node in descendants(document.root):
        assert 1 <= document.place(node).column <= len(document.lines[node.line - 1]) + 1


@given(st.from_regex(r"[-+0-9.eExob_aAfF~nulTrtsy]{0,12}", fullmatch=True))
def test_resolving_a_plain_scalar_never_fails_on_short_text(text: str) -> None:
    assert isinstance(resolve_plain(text), str | int | float | bool | None)


def test_scalars_keep_their_text() -> None:
    node, _, exists = parse_document("version: 1.10\n", "a.yaml").find(("version",))
    assert exists
    assert isinstance(node, ScalarNode)
    assert (node.text, node.value) == ("1.10", 1.1)
