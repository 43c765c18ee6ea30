# ruff: noqa: INP001  # a script beside the pages, not a package
"""Writes the pages that follow the code: commands, keys of files, error codes, threats and their tests.

``python docs/generate.py`` writes them, ``python docs/generate.py --check`` fails when one is out of date.
Decides how they look; what they say comes from the command line's own help, the JSON Schemas, the headings of
the error pages, and ``threats.yaml`` (``security_page``).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import security_page

DOCS: Final = Path(__file__).resolve().parent
WIDTH: Final = 100
"""Columns of help texts."""

NOTE: Final = "<!-- written by docs/generate.py; do not edit -->\n"
ABOUT_FILES: Final = """\
All files are YAML 1.2 and begin with `schema: 1`. Unknown keys are errors. A quantity is a plain number in
the unit that ends its key, or a text with a unit (`16KiB`, `250kbps`, `40ms`). `aif schema KIND` prints
the JSON Schema for an editor, `aif validate` checks, `aif fmt` rewrites in canonical form.
"""
ABOUT_COMMANDS: Final = """\
`aif VERB --help` prints the same. Exit codes: 0 done, 130 stopped by Ctrl-C, else the family of the
[error](../errors/index.md).
"""
ABOUT_COUNTERS: Final = """\
What devices drop or miss is counted by cause; `aif status`, `aif top` and the summary of a run show what is
above 0. A refused frame is never answered, and costs its sender nothing but itself.
"""
ABOUT_ERRORS: Final = """\
Every error has a code, and every code a page. Exit codes of `aif` follow the family: 2 files and models,
4 placement, 5 protocol, 6 trust, 7 store, 8 transport, 9 life cycle, 10 resources, 11 engines, 1 the rest.
"""
FILES: Final = {
    "aim": ("AIM contract", "`aim.yaml` in the folder of each AIM."),
    "aiw": ("Workflow", "`NAME.aiw.yaml` in the folder of each workflow."),
    "inventory": ("Inventory", "`inventory.yaml`: the devices and what connects them."),
}


def main() -> None:
    """Write or check every page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail when a page is out of date"
    )
    check: bool = parser.parse_args().check
    stale = []
    for path, text in pages().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.relative_to(DOCS).as_posix())
        if not check:
            partial = path.with_suffix(".partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
    if check and stale:
        sys.exit(f"not up to date: {', '.join(stale)}; run python docs/generate.py")


def pages() -> dict[Path, str]:
    """Text of every generated page."""
    return {
        DOCS / "reference" / "cli.md": command_line(),
        DOCS / "reference" / "files.md": files(),
        DOCS / "reference" / "counters.md": counters(),
        DOCS / "errors" / "index.md": errors(),
        DOCS / "security.md": NOTE + "\n" + security_page.security(security_page.load()),
    }


# --- command line -----------------------------------------------------------------------------------------


def command_line() -> str:
    """Every verb with its help."""
    os.environ.pop("AIF_HOME", None)  # its value would show as a default
    from aif.cli.main import GROUPS

    parts = [NOTE, "# Command line\n", ABOUT_COMMANDS]
    for title, verbs in GROUPS.items():
        parts.append(f"## {title}\n")
        for name, verb in verbs.items():
            parts.append(f"### aif {name}\n")
            module = importlib.import_module(f"aif.cli.{verb.module}")
            parts += [f"```text\n{text}\n```\n" for text in _helps(module.app, f"aif {name}")]
    return "\n".join(parts)


def _helps(app: Any, name: str) -> Iterator[str]:
    from typer.main import get_command

    yield from _help_of(get_command(app), name)


def _help_of(command: Any, name: str) -> Iterator[str]:
    command.rich_markup_mode = None  # plain text, the same on every terminal
    context = command.context_class(
        command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH, color=False
    )
    yield "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    for word, inner in getattr(command, "commands", {}).items():
        yield from _help_of(inner, f"{name} {word}")


# --- counters ---------------------------------------------------------------------------------------------


def counters() -> str:
    """What each counter of a channel counts."""
    from aif.gateway.causes import MEANS

    rows = [f"| `{cause}` | {words} |" for cause, words in MEANS.items()]
    return "\n".join(
        [NOTE, "# Counters\n", ABOUT_COUNTERS, "| counter | counts what is |", "|---|---|", *rows, ""]
    )


# --- configuration files ----------------------------------------------------------------------------------


def files() -> str:
    """Every key of every kind of file."""
    from aif.config.schema import json_schema

    parts = [NOTE, "# Configuration files\n", ABOUT_FILES]
    for kind, (title, where) in FILES.items():
        schema = json_schema(kind)
        definitions: Any = schema.get("$defs", {})
        parts += [f"## {title}\n", f"{where}\n", *_table(schema)]
        for name, definition in definitions.items():
            if definition.get("properties"):
                parts += [f"### {title}: {_entry(name)}\n", *_described(definition), *_table(definition)]
    return "\n".join(parts)


def _entry(name: str) -> str:
    return name.removesuffix("Entry").removesuffix("File")


def _described(schema: Mapping[str, Any]) -> list[str]:
    text = " ".join(str(schema.get("description", "")).split())
    return [f"{text}\n"] if text else []


def _table(schema: Mapping[str, Any]) -> list[str]:
    required = set(schema.get("required", ()))
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, field in schema.get("properties", {}).items():
        default = "required" if key in required else _default(field)
        meaning = " ".join(str(field.get("description", "")).split())
        rows.append(f"| `{key}` | {_cell(_values(field))} | {_cell(default)} | {_cell(meaning)} |")
    return ["\n".join(rows) + "\n"]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    return "" if value in (None, "", [], {}) or isinstance(value, dict) else f"`{str(value).lower()}`"


def _values(field: Mapping[str, Any]) -> str:
    """What a key takes, in words."""
    if "$ref" in field:
        return _entry(field["$ref"].rsplit("/", 1)[-1])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        kinds = [_values(option) for option in field["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    match field.get("type"):
        case "array":
            return f"list of {_values(field.get('items', {}))}"
        case "object":
            inner = next(iter(field.get("patternProperties", {}).values()), field.get("additionalProperties"))
            return f"map of names to {_values(inner)}" if isinstance(inner, dict) else "map"
        case "string" if "a share" in field.get("description", ""):
            return "share"
        case "string":
            return "quantity" if "with its unit" in field.get("description", "") else "text"
        case None:
            return "any value"
        case kind:
            return f"{kind}{_range(field)}"


def _range(field: Mapping[str, Any]) -> str:
    low = field.get("exclusiveMinimum", field.get("minimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    if low is None and high is None:
        return ""
    above = ">" if "exclusiveMinimum" in field else "≥"
    lower = "" if low is None else f" {above} {low:,}"
    return lower + ("" if high is None or high > 10**15 else f" ≤ {high:,}")


# --- errors -----------------------------------------------------------------------------------------------


def errors() -> str:
    """A table of the error pages, and their order."""
    found = sorted((DOCS / "errors").glob("AIF-*.md"))
    rows = []
    for page in found:
        lines = page.read_text(encoding="utf-8").splitlines()
        code, _, name = lines[0].removeprefix("# ").partition(" ")
        rows.append(f"| [{code}]({page.name}) | {name} | {lines[2]} |")
    return "\n".join(
        [
            NOTE,
            "# Errors\n",
            ABOUT_ERRORS,
            "| code | name | meaning |",
            "|---|---|---|",
            *rows,
            "",
            "```{toctree}\n:hidden:\n",
            *(page.stem for page in found),
            "```\n",
        ]
    )


if __name__ == "__main__":
    main()
