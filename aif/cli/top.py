"""``aif top``: a running site at a glance: devices, workflows, AIMs, and what happens to them."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aif.cli._options import HomeOption
from aif.errors import NotConnected, TransportError

if TYPE_CHECKING:
    from rich.console import Console

    from aif.gateway.site_record import SiteRecord

app = typer.Typer(add_completion=False)

ASKED_S = 0.5
"""The Controller is asked this often."""
RATES_S = 2.2
"""What --once waits between two looks, so that it has rates."""
PLAIN_WIDTH = 130
"""Columns where the output is not a terminal."""
ANSWER_S = 5.0
"""A Controller that takes longer to answer than this counts as silent."""


@app.command()
def top(
    home: HomeOption = Path(".aif"),
    once: Annotated[
        bool, typer.Option("--once", help="Print one screen and end; takes two seconds, for the rates.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and end.")] = False,
) -> None:
    """Show devices, links, workflows, AIMs and events of the running Controller; q or Ctrl-C leaves.

    Goes on when the Controller is started anew. Where the output is no terminal it is as with --once.
    """
    from rich.console import Console

    from aif.cli import _wiring as wiring

    socket = wiring.Home(home).socket
    console = Console()
    if once or as_json or not console.is_terminal or console.is_dumb_terminal:
        asyncio.run(_once(socket, as_json=as_json))
    else:
        wiring.run_until_signalled(_live(socket, console))


async def _once(socket: Path, *, as_json: bool) -> None:
    from rich.console import Console

    from aif.gateway import cells
    from aif.gateway.site_panels import SitePanels
    from aif.gateway.site_record import SiteRecord
    from aif.gateway.site_view import site_json

    record = SiteRecord()
    await _ask(socket, record)
    await asyncio.sleep(RATES_S)
    await _ask(socket, record)
    if as_json:
        print(json.dumps(site_json(record.view()), indent=1, allow_nan=False))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    with console.capture() as capture:
        console.print(
            SitePanels(record.view(), cells.glyphs(console.encoding), limited=False), highlight=False
        )
    for line in capture.get().splitlines():
        print(line.rstrip())


async def _live(socket: Path, console: Console) -> None:
    """Draw until q is pressed.

    Raises:
        NotConnected: no Controller was there from the beginning.
    """
    from rich.live import Live

    from aif.cli._keys import keys
    from aif.gateway import cells
    from aif.gateway.site_panels import SitePanels
    from aif.gateway.site_record import SiteRecord

    record, signs = SiteRecord(), cells.glyphs(console.encoding)
    await _ask(socket, record)
    leave = asyncio.Event()

    def pressed(key: str) -> None:
        if key in "qQ":
            leave.set()

    with (
        keys(pressed) as keyboard,
        Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as screen,
    ):
        words = "q leaves" if keyboard else "Ctrl-C leaves"
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(_keep_asking(socket, record))  # a slow answer must not hold the keys
            while not leave.is_set():
                screen.update(SitePanels(record.view(), signs, keys=words), refresh=True)
                with suppress(TimeoutError):
                    async with asyncio.timeout(ASKED_S):
                        await leave.wait()
            asking.cancel()


async def _keep_asking(socket: Path, record: SiteRecord) -> None:
    while True:
        try:
            await _ask(socket, record)
        except TransportError:
            record.silent()
        await asyncio.sleep(ASKED_S)


async def _ask(socket: Path, record: SiteRecord) -> None:
    """Ask once for everything that is new.

    Raises:
        NotConnected: the Controller does not answer.
        TransportError: what it answers cannot be read.
    """
    from aif.transport import local

    try:
        async with asyncio.timeout(ANSWER_S):
            status = await local.call(socket, "status", brief=True)
            after = 0 if record.forgets_lines(status) else record.last_line
            lines = [line async for line in local.stream(socket, "logs", after=after)]
    except TimeoutError:
        raise NotConnected("the Controller does not answer in time", hint="see its log") from None
    record.take(status, lines)
