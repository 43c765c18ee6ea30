"""``aif stop``: stop a workflow, or the Controller with all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import HomeOption

app = typer.Typer(add_completion=False)


@app.command()
def stop(
    aiw: Annotated[
        str, typer.Argument(help="Workflow id, as `aif status` shows it; none stops the Controller.")
    ] = "",
    home: HomeOption = Path(".aif"),
) -> None:
    """Stop one workflow; without an id, stop all of them and the Controller."""
    import asyncio

    from aif.cli import _wiring as wiring
    from aif.transport import local

    socket = wiring.Home(home).socket
    if aiw:
        asyncio.run(local.call(socket, "stop", aiw=aiw))
        print(f"{aiw} is stopped")
    else:
        asyncio.run(local.call(socket, "shutdown"))
        print("the Controller is stopping")
