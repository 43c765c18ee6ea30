"""``aif host``: run the AIMs of one gateway or edge device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import (
    AimsOption,
    BrokerOption,
    CAOption,
    CertOption,
    ClientOption,
    HomeOption,
    InventoryOption,
    KeyOption,
    RemoteDiskOption,
)
from aif.transport.clients import DEFAULT_CLIENT

app = typer.Typer(add_completion=False)


@app.command()
def host(
    device: Annotated[str, typer.Option("--device", help="Device id in the inventory.")],
    inventory: InventoryOption,
    broker: BrokerOption = "",
    home: HomeOption = Path(".aif"),
    aims: AimsOption = [],  # noqa: B006  # typer copies it
    follow: Annotated[bool, typer.Option("--follow", help="Replay recordings for ever.")] = False,
    speed: Annotated[float | None, typer.Option("--speed", help="Replay this many times faster.")] = None,
    ca: CAOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    client: ClientOption = DEFAULT_CLIENT,
    remote_disk: RemoteDiskOption = None,
) -> int:
    """Run one device's AIMs until stopped (Ctrl-C)."""
    from aif.cli._broker_access import BrokerOptions
    from aif.cli._device import serve_device

    return serve_device(
        device,
        inventory=inventory,
        broker=BrokerOptions(broker, ca, cert, key, client),
        home=home,
        aims=aims,
        follow=follow,
        speed=speed,
        remote_disk=remote_disk,
    )
