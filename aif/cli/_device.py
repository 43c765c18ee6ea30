"""What ``aif host`` and ``aif mcu`` share: one device's process, from its checks to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aif.cli import _wiring as wiring
from aif.cli._broker_access import BrokerOptions, broker_access
from aif.config import load_inventory
from aif.errors import ModelError
from aif.model.inventory import DeviceClass
from aif.runtime.clock import SystemClock
from aif.runtime.logbook import LogBook
from aif.runtime.processes import collect_rarely, die_with_parent, only_one
from aif.trusted.certificates import Subject
from aif.trusted.client_folder import ClientFolder


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
        TransportError: the broker's address is wrong, or it was to be found and cannot.
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
    subject = Subject.device(name)
    disk = remote_disk.resolve() if remote_disk else None

    async def run() -> None:
        options = broker
        if broker.broker.startswith(wiring.MDNS):
            found = await wiring.found_on_network(
                broker.broker,
                place.device_state(name).load().controller_pk,
                tls=ClientFolder(place.device_tls(name), subject).own.exists(),
                log=LogBook(name, SystemClock(), wiring.stderr()),
            )
            options = replace(broker, broker=found)
        await wiring.run_device(
            name,
            home=place,
            inventory=inventory,
            broker=broker_access(options, place.device_tls(name), subject),
            aims=aims,
            follow=follow,
            speed=speed,
            remote_disk=disk,
            log_stream=wiring.stderr(),
        )

    with only_one(place.device(name) / "running.lock", f"device {name}"):
        return wiring.run_until_signalled(run())
