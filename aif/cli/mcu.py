"""``aif mcu``: run one emulated microcontroller (tier 1: the TFLite-Micro interpreter in a child process)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import DEFAULT_BROKER, AimsOption, BrokerOption, HomeOption, InventoryOption

app = typer.Typer(add_completion=False)


@app.command()
def mcu(
    device: Annotated[
        str, typer.Option("--device", help="Device id in the inventory; its class must be mcu.")
    ],
    inventory: InventoryOption,
    broker: BrokerOption = DEFAULT_BROKER,
    home: HomeOption = Path(".aif"),
    aims: AimsOption = [],  # noqa: B006  # typer copies it
    follow: Annotated[bool, typer.Option("--follow", help="Replay recordings for ever.")] = False,
    speed: Annotated[float | None, typer.Option("--speed", help="Replay this many times faster.")] = None,
) -> int:
    """Run one emulated microcontroller until stopped (Ctrl-C)."""
    from aif.cli import _wiring as wiring
    from aif.config import load_inventory
    from aif.errors import ModelError
    from aif.model.inventory import DeviceClass
    from aif.runtime.processes import die_with_parent

    die_with_parent()
    declared = load_inventory(inventory).device(device)
    if declared.device_class is not DeviceClass.MCU:
        raise ModelError(
            f"{device} is a device of class {declared.device_class}, not mcu", hint="start it with `aif host`"
        )
    return wiring.run_until_signalled(
        wiring.run_device(
            device,
            home=wiring.Home(home),
            inventory=inventory,
            broker=broker,
            aims=aims,
            follow=follow,
            speed=speed,
            log_stream=wiring.stderr(),
        )
    )
