"""``aif remap``: is there a better mapping for what runs, and move to it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from aif.cli._options import HomeOption
from aif.errors import PlacementError

app = typer.Typer(add_completion=False)


@app.command()
def remap(
    aiw: Annotated[
        str, typer.Argument(help="Workflow, as `aif status` names it; the only one if it is left out.")
    ] = "",
    move: Annotated[
        list[str],
        typer.Option(
            "--move", help="Put an AIM on a device: AIM=DEVICE; others stay if they can. Repeatable."
        ),
    ] = [],  # noqa: B006  # typer copies it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Move without a question.")] = False,
    without: Annotated[
        str, typer.Option("--without", help="Only show what would move if this device were not there.")
    ] = "",
    home: HomeOption = Path(".aif"),
) -> None:
    """Show a better mapping of a running workflow, and move to it; other AIMs work on meanwhile.

    Nothing moves when nothing is better. `aif device drain` empties a device.
    """
    from aif.cli import _wiring as wiring
    from aif.transport import local

    socket = wiring.Home(home).socket
    if without:
        if aiw or move or yes:
            raise PlacementError("--without only shows", hint="`aif device drain` moves AIMs off a device")
        _show_without(asyncio.run(local.call(socket, "proposal", device=without)))
        return
    wanted = dict(_wish(one) for one in move)
    found = asyncio.run(local.call(socket, "improvement", aiw=aiw, places=wanted))
    if not found["moves"] or not (wanted or found["better"]):
        print(f"{found['aiw']}: nothing moves; {_no_better(found)}")
        return
    _show(found)
    if dry_run:
        return
    if not yes and not _agreed():
        print("nothing was moved")
        return
    done = asyncio.run(local.call(socket, "move", aiw=found["aiw"], places=found["places"]))
    stages = ", ".join(f"{name} {ms:,.0f}" for name, ms in done["stages_ms"].items())
    print(f"{found['aiw']} is moved; mapping {done['mapping_version']}; after ms: {stages}")


def _wish(text: str) -> tuple[str, tuple[str, str]]:
    aim, equals, device = text.partition("=")
    if not (aim and equals and device):
        raise PlacementError(f"--move {text} names no place", hint="write --move AIM=DEVICE")
    return aim, (device, "")


def _show_without(moves: Mapping[str, Any]) -> None:
    for aiw, of_one in moves.items():
        print(f"{aiw}: {'nothing moves' if not of_one else ''}".rstrip())
        for one in of_one:
            print(f"  {one}")
    if not moves:
        print("no workflow runs")


def _no_better(found: Mapping[str, Any]) -> str:
    if found["gap"]:
        return f"no better mapping was found; one that costs {found['gap']:.1%} less is not ruled out"
    return "no mapping is better"


def _show(found: Mapping[str, Any]) -> None:
    print(f"{found['aiw']}:")
    for one in found["moves"]:
        print(f"  {one['aim']}: {one['from']} -> {one['to']}")
    if found["gain"] is None:
        print("  where they are now is not possible any more")
    else:
        change = "saves" if found["gain"] >= 0 else "costs"
        print(
            f"  objective {found['before']:.5g} -> {found['after']:.5g}: "
            f"{change} {abs(found['gain']):.1%}" + ("" if found["gain"] >= 0 else " more")
        )
    print(
        f"  to move: {found['model_bytes']:,} B of models, "
        f"up to {found['state_bytes']:,} B of state, where channels are acknowledged"
    )


def _agreed() -> bool:
    """Ask a person.

    Raises:
        PlacementError: nobody is there to answer.
    """
    if not sys.stdin.isatty():
        raise PlacementError("nobody is here to agree", hint="say --yes, or --dry-run")
    return typer.confirm("move?", default=False)
