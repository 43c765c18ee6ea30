"""What ``aif host`` and ``aif mcu`` share: one device's process, from its checks to its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aif.cli import _wiring as wiring
from aif.cli._broker_access import BrokerOptions, broker_access
from aif.config import load_inventory
from aif.errors import ModelError
from aif.model.inventory import DeviceClass
from aif.runtime.processes import collect_rarely, die_with_parent, only_one
from aif.trusted.certificates import Subject


def serve_device(
    name: str,
    *,
    inventory: Path,
    broker: BrokerOptions,
    home: Path,
    aims: Sequence[Path],
    follow: bool,
    speed: float | None,
    remote_disk: Path | None,
    must_be_mcu: bool = False,
) -> int:
    """Run one device's AIMs until a signal ends it.

    Raises:
        ModelError: the inventory has no such device, or it is of another class.
        NotFound: it was never added.
        AlreadyRunning: another process runs it.
    """
    die_with_parent()
    collect_rarely()
    declared = load_inventory(inventory).device(name)
    if must_be_mcu and declared.device_class is not DeviceClass.MCU:
        raise ModelError(
            f"{name} is a device of class {declared.device_class}, not mcu", hint="start it with `aif host`"
        )
    place = wiring.Home(home)
    place.known_device(name, inventory)
    access = broker_access(broker, place.device_tls(name), Subject.device(name))
    with only_one(place.device(name) / "running.lock", f"device {name}"):
        return wiring.run_until_signalled(
            wiring.run_device(
                name,
                home=place,
                inventory=inventory,
                broker=access,
                aims=aims,
                follow=follow,
                speed=speed,
                remote_disk=remote_disk.resolve() if remote_disk else None,
                log_stream=wiring.stderr(),
            )
        )
