import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from aif.config import Catalogue, load_aim, load_inventory, load_workflow
from aif.config.document import parse_document
from aif.config.format import format_file, format_text, write_atomically
from aif.errors import ConfigError

EXAMPLES = Path(__file__).parent / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))
TEXTS = {file.relative_to(EXAMPLES).as_posix(): file.read_text() for file in FILES}


def model(folder: Path, text: str, catalogue: Catalogue) -> object:
    """What a file's text means."""
    kind = parse_document(text, "x").kind
    file = folder / {"aim": "aim.yaml", "aiw": "w.aiw.yaml", "inventory": "inventory.yaml"}[kind]
    file.write_text(text)
    if kind == "aiw":
        return load_workflow(file, catalogue).workflow
    return load_aim(file) if kind == "aim" else load_inventory(file)


@pytest.mark.parametrize("name", TEXTS)
def test_formatting_is_idempotent_and_keeps_the_meaning(
    name: str, tmp_path: Path, catalogue: Catalogue
) -> None:
    once = format_text(TEXTS[name], name)
    assert format_text(once, name) == once
    assert model(tmp_path, once, catalogue) == model(tmp_path, TEXTS[name], catalogue)


def place_comments(text: str, draw: st.DataObject) -> tuple[str, list[str]]:
    """Put comments and blank lines anywhere between and behind lines."""
    out, comments = [], []
    for number, line in enumerate(text.splitlines()):
        choice = draw.draw(st.integers(0, 6))
        if choice == 1:
            comments.append(f"# own {number}.")
            out.append(" " * draw.draw(st.integers(0, 8)) + comments[-1])
        if choice == 2:
            out.append("")
        if choice == 3 and "#" not in line:
            comments.append(f"# end {number}.")
            out.append(line + draw.draw(st.sampled_from([" ", "   "])) + comments[-1])
        else:
            out.append(line)
    return "\n".join(out) + "\n", comments


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(TEXTS)), st.booleans(), st.data())
def test_no_comment_is_lost_wherever_it_stands(
    tmp_path: Path, catalogue: Catalogue, name: str, first: bool, data: st.DataObject
) -> None:
    base = format_text(TEXTS[name], name) if first else TEXTS[name]
    assume(": >-" not in base)  # a comment cannot stand inside a block of text
    text, comments = place_comments(base, data)
    once = format_text(text, name)
    for comment in comments:
        assert once.count(comment) == 1
    assert format_text(once, name) == once
    assert model(tmp_path, once, catalogue) == model(tmp_path, TEXTS[name], catalogue)


@settings(deadline=None)
@given(st.text(max_size=300), st.booleans())
def test_any_description_survives(text: str, in_flow: bool) -> None:
    quoted = '"' + "".join(f"\\U{ord(character):08x}" for character in text) + '"'
    identity = (
        f'aim: {{name: A, version: "1", implementer: x, description: {quoted}}}\n'
        if in_flow
        else f'aim:\n  name: A\n  version: "1"\n  implementer: x\n  description: {quoted}\n'
    )
    once = format_text(f"schema: 1\n{identity}", "x")
    aim = parse_document(once, "x").plain()["aim"]
    assert isinstance(aim, dict)
    assert aim["description"] == text
    assert format_text(once, "x") == once


def test_keys_units_and_topology_take_their_canonical_form() -> None:
    text = """\
# About this file.

aiw: {version: "1.0", name: W, implementer: me}
schema: 1
paths:
  - {deadline_ms: 0.25s, to: b.x, from: a.y, id: p}   # must be quick
topology:           # who reads whom
  - {input: b.x, output: a.y}  # the only one
  # last
aims:

  # the first
  - use: A@1
    id: a


  - {use: B@1, id: b}
"""
    assert (
        format_text(text, "x")
        == """\
# About this file.

schema: 1
aiw: {name: W, version: "1.0", implementer: me}
# who reads whom
# last
aims:
  # the first
  - id: a
    use: A@1

  - id: b
    use: B@1
    inputs:
      x: a.y  # the only one
paths:
  - {id: p, from: a.y, to: b.x, deadline_ms: 250}  # must be quick
"""
    )


def test_topology_joins_inputs_that_are_there_and_outputs_that_are_not() -> None:
    text = """\
schema: 1
aiw: {name: W, version: "1.0", implementer: me}
aims:
  - {id: a, use: A@1}
  - {id: b, use: B@1, inputs: {x: a.y}}
topology:
  - {output: a.z, input: b.x}
  - {output: b.y, input: aiw.out}
  - {output: c.y, input: d.x}
"""
    once = format_text(text, "x")
    assert "inputs: {x: [a.y, a.z]}" in once
    assert "outputs: {out: b.y}" in once
    assert "  - {output: c.y, input: d.x}" in once, "what leads nowhere stays where it can be seen"


def test_long_lines_are_broken_and_short_ones_kept() -> None:
    once = format_text(TEXTS["mmc_ust/mmc_ust.aiw.yaml"], "x")
    assert max(map(len, once.splitlines())) <= 110
    assert (
        "  - {id: recognition, use: SpeechRecognition@1.2, inputs: {InputSpeech: aiw.InputSpeech}}\n" in once
    )
    assert "    inputs:\n      RecognisedText: recognition.RecognisedText\n" in once


def test_a_wrong_file_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "w.aiw.yaml"
    file.write_text("schema: 1\naiw: {name: W}\n")
    with pytest.raises(ConfigError, match="missing key"):
        format_file(file)
    with pytest.raises(ConfigError, match="this is no AIM, workflow or inventory file"):
        format_text("a: 1\n", "x")


def test_a_file_is_replaced_in_one_step_and_keeps_its_permissions(tmp_path: Path) -> None:
    target, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_atomically(link, "new\n")
    assert target.read_bytes() == b"new\n"
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link.yaml", "real.yaml"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.yaml"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "x" * 100_000 + "\ud800")
    assert target.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.yaml"]
