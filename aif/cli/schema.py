"""``aif schema``: the JSON Schema of a file kind, for editors."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


class Kind(StrEnum):
    """The three kinds of files."""

    AIM = "aim"
    AIW = "aiw"
    INVENTORY = "inventory"


@app.command()
def schema(kind: Annotated[Kind, typer.Argument(help="Kind of file.")]) -> None:
    """Print the JSON Schema (draft 2020-12) of a file kind.

    Editors that know YAML schemas use it for completion: write it to a file and name that file in the
    first line, as in: # yaml-language-server: $schema=aiw.schema.json
    """
    from aif.config.schema import json_schema

    print(json.dumps(json_schema(kind.value), indent=2, ensure_ascii=False))
