"""Whatever stands in a file: it is read, or refused with a place and a reason."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from aif.config import Catalogue
from aif.config.aim import read_aim
from aif.config.document import Document, parse_document
from aif.config.findings import Findings
from aif.config.format import format_text
from aif.config.inventory import read_inventory
from aif.config.workflow import read_workflow
from aif.errors import ConfigError

EXAMPLES = Path(__file__).parent / "examples"
TEXTS = [file.read_text() for file in sorted(EXAMPLES.rglob("*.yaml"))]
WORDS = [
    "", "-1", "0", "1e9", ".inf", "null", "true", "[]", "{}", "[1, [2]]", "{a: {b: 1}}", "64KiB", "5 parsecs",
    "a.b", "aiw.x", "'", '"', "- ", ": ", "{", "}", "[", "]", "#", "&a ", "*a", "!t ", "|\n", ">\n", "\n",
    "\t", "---\n", "\x00", "\u2028", "\x85", "\r", "\r\n", "# c\r", "ä", "aims:", "inputs:", "aim:",
    "inventory:", "id:", "topology: [{output: a.b, input: c.d}]\n", "Features_t", "int8[", "\ufeff",
    "%YAML 1.1\n---\n",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 12))
        match draw(st.integers(0, 3)):
            case 0:
                text = text[:at] + text[at + length :]
            case 1:
                text = text[:at] + draw(st.sampled_from(WORDS)) + text[at:]
            case 2:
                text = text[:at] + draw(st.sampled_from(WORDS)) + text[at + length :]
            case _:
                lines = text.split("\n")
                here, there = (draw(st.integers(0, len(lines) - 1)) for _ in "ab")
                lines[here], lines[there] = lines[there], lines[here]
                text = "\n".join(lines)
    return text


@st.composite
def values_replaced(draw: st.DrawFn) -> str:
    """One value of a valid file replaced by another: the shape of the text stays right."""
    text = draw(st.sampled_from(TEXTS))
    starts = [position for position in range(len(text)) if text.startswith(": ", position)]
    at = draw(st.sampled_from(starts)) + 2
    end = min((e for stop in ",}\n" if (e := text.find(stop, at)) > 0), default=len(text))
    return text[:at] + draw(st.sampled_from(WORDS)) + text[end:]


def read(document: Document, catalogue: Catalogue) -> None:
    findings = Findings(document)
    match document.kind:
        case "aiw":
            read_workflow(findings, catalogue)
        case "inventory":
            read_inventory(findings)
        case _:
            read_aim(findings)
    findings.raise_errors()


def check(text: str, catalogue: Catalogue) -> None:
    try:
        read(parse_document(text, "x.yaml"), catalogue)
        once = format_text(text, "x.yaml")
    except ConfigError as wrong:
        refused = wrong
    else:
        assert format_text(once, "x.yaml") == once
        return
    assert refused.findings
    for one in refused.findings:
        assert one.message
        assert one.location is not None
        assert one.location.line >= 1
        assert 1 <= one.location.column <= len(one.location.text) + 1 or not one.location.text
    assert refused.diagnostics()


@settings(max_examples=300, deadline=None)
@given(text=mutated())
def test_mutated_text_is_read_or_refused(catalogue: Catalogue, text: str) -> None:
    check(text, catalogue)


@settings(max_examples=300, deadline=None)
@given(text=values_replaced())
def test_replaced_values_are_read_or_refused(catalogue: Catalogue, text: str) -> None:
    check(text, catalogue)
