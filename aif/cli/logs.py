"""``aif logs``: the devices' logs, as they come to the Controller."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import HomeOption

app = typer.Typer(add_completion=False)


@app.command()
def logs(
    home: HomeOption = Path(".aif"),
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Keep printing what comes.")] = False,
) -> int:
    """Print the last log lines of every device and of the Controller; ``-f`` follows them."""
    import asyncio

    from aif.cli import _wiring as wiring
    from aif.transport import local

    async def show() -> int:
        async for line in local.stream(wiring.Home(home).socket, "logs", follow=follow):
            moment = datetime.fromtimestamp(line["time_us"] / 1e6, UTC).strftime("%H:%M:%S.%f")[:-3]
            facts = " ".join(f"{k}={v}" for k, v in line["facts"].items())
            print(f"{moment} {line['origin']:<12} {line['level']:<8} {line['event']} {facts}".rstrip())
            sys.stdout.flush()
        return 0

    return asyncio.run(show())
