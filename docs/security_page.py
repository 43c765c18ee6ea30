# ruff: noqa: INP001  # a script beside the pages, not a package
"""Writes the page on security from ``threats.yaml``, and refuses to when a test it names is not there.

Decides how a threat reads and what its state is; what threats there are, and what is missing, the file says.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

DOCS: Final = Path(__file__).resolve().parent
ROOT: Final = DOCS.parent
KINDS: Final = {
    "S": "Spoofing", "T": "Tampering", "R": "Repudiation", "I": "Information disclosure",
    "D": "Denial of service", "E": "Elevation of privilege",
}  # fmt: skip
KEYS: Final = {"id", "kind", "threat", "mitigation", "tests", "gap"}
TITLE: Final = """\
# Security

{introduction}
"""


class ThreatsError(Exception):
    """``threats.yaml`` says something that is not so."""


def load() -> dict[str, Any]:
    """The file as plain values."""
    found: dict[str, Any] = YAML(typ="safe").load((DOCS / "threats.yaml").read_text(encoding="utf-8"))
    return found


def security(source: Mapping[str, Any], root: Path = ROOT) -> str:
    """The whole page.

    Raises:
        ThreatsError: a test that is not there, an unknown key, a repeated id, or a row that says nothing.
    """
    found = list(problems(source, root))
    if found:
        raise ThreatsError("docs/threats.yaml: " + "; ".join(found))
    threats = source["threats"]
    states = [state(row, root) for row in threats]
    counted = ", ".join(f"{states.count(each)} {each}" for each in ("shown", "partly", "open"))
    parts = [TITLE.format(introduction=source["introduction"]), f"{len(threats)} threats: {counted}.\n"]
    parts.append("## Threats, mitigations, tests\n")
    for kind, name in KINDS.items():
        parts += [f"### {name}\n", "| | threat | mitigation | tests | missing |", "|---|---|---|---|---|"]
        parts += [_row(row, root) for row in threats if row["kind"] == kind]
        parts.append("")
    parts += ["## Keys\n", "| key | lives | use |", "|---|---|---|"]
    parts += [f"| {' | '.join(row)} |" for row in source["keys"]]
    parts.append("")
    for section in source.get("sections", ()):
        parts += [f"## {section['title']}\n", section["text"]]
    parts += ["## What this does not give\n", *(f"- {limit}" for limit in source["limits"])]
    return "\n".join(parts) + "\n"


def problems(source: Mapping[str, Any], root: Path) -> Iterator[str]:
    """What is wrong with the file, in words."""
    seen: set[str] = set()
    for row in source["threats"]:
        name = row.get("id", "a row without id")
        if name in seen:
            yield f"{name} occurs twice"
        seen.add(name)
        if row.keys() - KEYS or not KEYS - {"gap"} <= row.keys() or row["kind"] not in KINDS:
            yield f"{name} has keys other than {', '.join(sorted(KEYS))}, or an unknown kind"
            continue
        if not row["tests"] and not row.get("gap"):
            yield f"{name} has no test and does not say what is missing"
        for test in row["tests"]:
            if standing(test, root) is None:
                yield f"{name} names {test}, which is not there"


def state(row: Mapping[str, Any], root: Path = ROOT) -> str:
    """shown, partly or open; a row whose tests are all expected to fail is open too."""
    working = [test for test in row["tests"] if standing(test, root) == "passes"]
    if not working:
        return "open"
    return "partly" if row.get("gap") or len(working) < len(row["tests"]) else "shown"


def standing(name: str, root: Path = ROOT) -> str | None:
    """``passes``, ``defect`` for an expected failure, None for a test that does not exist."""
    path, _, function = name.partition("::")
    file = root / path
    return _tests(file).get(function) if path.startswith("tests/") and file.is_file() else None


@cache
def _tests(file: Path) -> dict[str, str]:
    """Test functions of a file; those of classes under their own names too."""
    found = {}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            failing = any("mark.xfail" in ast.unparse(each) for each in _marks(node))
            found[node.name] = "defect" if failing else "passes"
    return found


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr]:
    """Decorators that mean the whole test; a mark inside ``parametrize`` means one case."""
    for decorator in node.decorator_list:
        if "parametrize" not in ast.unparse(getattr(decorator, "func", decorator)):
            yield decorator


def _row(row: Mapping[str, Any], root: Path) -> str:
    tests = "<br>".join(
        f"`{test}`" + (" (known defect)" if standing(test, root) == "defect" else "") for test in row["tests"]
    )
    cells = (
        f"{row['id']} **{state(row, root)}**", row["threat"], row["mitigation"], tests, row.get("gap", ""),
    )  # fmt: skip
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
