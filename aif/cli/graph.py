"""``aif graph``: a workflow as Mermaid text or as an SVG picture."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aif.cli.validate import aim_library
from aif.errors import PlacementError

if TYPE_CHECKING:
    from aif.model.aiw import Workflow
    from aif.model.placement import Placement

app = typer.Typer(add_completion=False)


class Format(StrEnum):
    """What to print."""

    MERMAID = "mermaid"
    SVG = "svg"


@app.command()
def graph(
    workflow: Annotated[Path, typer.Argument(help="Workflow file or folder.")],
    aims: Annotated[
        list[Path] | None,
        typer.Option(help="AIM library folder; may be repeated. Default: the one that is installed."),
    ] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="Default: by the output's ending, else mermaid.")
    ] = None,
    placement: Annotated[
        Path | None, typer.Option(help="Plan written by aif plan --format json; colours show the devices.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: the screen.")
    ] = None,
) -> None:
    """Draw a workflow, composite AIMs expanded."""
    from aif.config import load_catalogue, load_workflow
    from aif.config.format import write_atomically
    from aif.config.graph import graph_of, mermaid
    from aif.config.svg import svg
    from aif.model.stand_ins import with_stand_ins

    catalogue = load_catalogue(aims or aim_library())
    loaded = load_workflow(workflow, catalogue)
    plan = _placement(placement, loaded.workflow) if placement else None
    as_placed = with_stand_ins(loaded.workflow, catalogue, plan.stand_ins if plan else {})
    drawn = graph_of(as_placed, plan)
    as_svg = form is Format.SVG or (form is None and output is not None and output.suffix == ".svg")
    text = svg(drawn) if as_svg else mermaid(drawn)
    for warning in loaded.warnings:
        print(warning.render(), file=sys.stderr)
    if output is None:
        print(text, end="")
    else:
        write_atomically(output, text)


def _placement(path: Path, workflow: Workflow) -> Placement:
    """The plan in a file, when it is one of this workflow."""
    from aif.cli._plan_file import read_plan

    plan = read_plan(path)
    if plan.workflow != workflow.name:
        raise PlacementError(f"{path.as_posix()} places {plan.workflow}, not {workflow.name}")
    return plan
