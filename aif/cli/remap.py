"""``aif remap``: what would move if a device were not there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import HomeOption

app = typer.Typer(add_completion=False)


@app.command()
def remap(
    without: Annotated[
        str, typer.Option("--without", help="Device that is thought away; none shows what is due now.")
    ] = "",
    home: HomeOption = Path(".aif"),
) -> None:
    """Show which AIMs would move, and where to; nothing is changed (`aif device drain` does it)."""
    import asyncio

    from aif.cli import _wiring as wiring
    from aif.transport import local

    moves = asyncio.run(local.call(wiring.Home(home).socket, "proposal", device=without))
    for aiw, of_one in moves.items():
        print(f"{aiw}: {'nothing moves' if not of_one else ''}")
        for move in of_one:
            print(f"  {move}")
    if not moves:
        print("no workflow runs")
