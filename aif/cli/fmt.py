"""``aif fmt``: rewrite files in canonical form."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

import typer

from aif.errors import ConfigError

app = typer.Typer(add_completion=False)


@app.command()
def fmt(
    files: Annotated[list[Path], typer.Argument(help="AIM, workflow or inventory files.")],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 when a file would change.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Change nothing; print what would change.")] = False,
) -> int:
    """Rewrite files in canonical form, comments kept: key order, plain numbers, channels as inputs."""
    from aif.config.format import format_file, write_atomically

    changed = refused = 0
    for file in files:
        try:
            before, after = format_file(file)
        except ConfigError as wrong:
            refused += 1
            print(wrong.diagnostics(), end="\n\n")
            continue
        if before == after:
            continue
        changed += 1
        name = file.as_posix()
        if diff:
            lines = difflib.unified_diff(
                before.splitlines(True), after.splitlines(True), name, f"{name} (canonical)"
            )
            print("".join(lines), end="")
        if check:
            print(f"{name}: not in canonical form; run: aif fmt {name}")
        if not (check or diff):
            write_atomically(file, after)
            print(f"{name}: rewritten")
    if refused:
        return ConfigError.exit_code
    return 1 if check and changed else 0
