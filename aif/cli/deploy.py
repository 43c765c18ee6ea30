"""``aif deploy``: hand a workflow and its inventory to the Controller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import AimsOption, HomeOption, InventoryOption

app = typer.Typer(add_completion=False)


@app.command()
def deploy(
    workflow: Annotated[Path, typer.Argument(help="AIW file, or a workflow folder.")],
    inventory: InventoryOption,
    home: HomeOption = Path(".aif"),
    aims: AimsOption = [],  # noqa: B006  # typer copies it
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it runs.")] = True,
) -> int:
    """Place a workflow, deploy it, and wait until it runs on every device."""
    import asyncio

    from aif.cli import _wiring as wiring
    from aif.cli._agent import wait_until_running
    from aif.transport import local

    socket = wiring.Home(home).socket

    async def call() -> int:
        aiw: str = await local.call(
            socket,
            "deploy",
            workflow=str(workflow.resolve()),
            inventory=str(inventory.resolve()),
            aims=[str(folder.resolve()) for folder in aims],
        )
        print(f"{aiw} is planned")
        if wait:
            await wait_until_running(socket, aiw)
            print(f"{aiw} is running")
        return 0

    return asyncio.run(call())
