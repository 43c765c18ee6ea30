"""``aif broker``: the embedded MQTT broker on loopback, and the set-up of one for many machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import HomeOption
from aif.cli.broker_check import check
from aif.cli.broker_config import config
from aif.cli.broker_start import start

app = typer.Typer(add_completion=False)
app.command("config")(config)
app.command("check")(check)
app.command("start")(start)


@app.callback(invoke_without_command=True)
def broker(
    context: typer.Context,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="TCP port on 127.0.0.1.")] = 1883,
    home: HomeOption = Path(".aif"),
) -> int:
    """Run a broker for this machine until stopped (Ctrl-C). It has no TLS and no access rules.

    For many machines, `aif broker config` writes a complete Mosquitto set-up; `aif broker start` starts it.
    """
    if context.invoked_subcommand is not None:
        return 0
    import asyncio

    from aif.cli import _wiring as wiring
    from aif.runtime.processes import die_with_parent, say_ready
    from aif.transport.embedded_broker import EmbeddedBroker

    die_with_parent()

    async def serve() -> None:
        logs = wiring.Home(home).logs
        logs.mkdir(parents=True, exist_ok=True)
        async with EmbeddedBroker(logs / "broker.log", port=port) as running:
            print(f"broker on mqtt://127.0.0.1:{running.address.port}", file=wiring.stderr(), flush=True)
            say_ready(port=running.address.port)
            await asyncio.Event().wait()

    return wiring.run_until_signalled(serve())
