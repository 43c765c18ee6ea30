"""``aif device``: add, list and remove the devices a site knows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import HomeOption, InventoryOption

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Add, list and remove the devices a site knows."
)


@app.command()
def add(
    device: Annotated[str, typer.Argument(help="Device id in the inventory.")],
    inventory: InventoryOption,
    home: HomeOption = Path(".aif"),
) -> None:
    """Give a device its identity and open its enrolment window for 15 minutes."""
    from aif.cli import _wiring as wiring
    from aif.config import load_inventory
    from aif.runtime.devices import Site

    place = wiring.Home(home)
    declared = load_inventory(inventory).device(device)
    site = Site.open_or_create(place.site, os.urandom)
    now_s = int(wiring.now().timestamp())
    hw_class = wiring.device_hw_class(declared.board, declared.arch)
    keys = wiring.identity_of(place, device, hw_class)
    code = site.provision(device, hw_class, place.device_state(device), keys, now_s=now_s)
    print(f"device {device} added ({hw_class}); its identity is in {place.device(device)}")
    print(f"pairing code {code}; it may enrol for the next 15 minutes")


@app.command()
def remove(
    device: Annotated[str, typer.Argument(help="Device id, as `aif device list` shows it.")],
    home: HomeOption = Path(".aif"),
) -> None:
    """Forget a device: it gets no key any more, and may be added anew."""
    from aif.cli import _wiring as wiring
    from aif.runtime.devices import Site

    site = Site.open_or_create(wiring.Home(home).site, os.urandom)
    site.device(device)
    site.forget(device)
    print(f"device {device} removed")


@app.command("list")
def list_devices(home: HomeOption = Path(".aif")) -> None:
    """Show every device of the site's registry."""
    from aif.cli import _wiring as wiring
    from aif.runtime.devices import Site

    devices = Site.open_or_create(wiring.Home(home).site, os.urandom).state.devices
    for record in sorted(devices, key=lambda record: record.device):
        state = (
            "revoked"
            if record.revoked
            else "enrolled"
            if record.enrolled_s
            else f"secret {record.secret_state}"
        )
        print(f"{record.device:<16} {record.hw_class:<28} {state}")
