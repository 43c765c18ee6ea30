"""A whole site on one machine: broker, store, Controller and devices as processes of their own.

The same commands, wire and keys as a site of many machines; only that one parent starts and ends them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aif.model.inventory import Device, DeviceClass, Inventory
from aif.runtime.processes import ProcessGroup
from aif.transport.clients import DEFAULT_CLIENT, Client


@dataclass(frozen=True, slots=True)
class LocalSiteOptions:
    """What the processes of a local site need to know."""

    home: Path
    inventory: Path
    aims: tuple[Path, ...] = ()
    broker_url: str = ""
    """Empty starts the embedded broker."""
    follow: bool = False
    speed: float | None = None
    client: Client = DEFAULT_CLIENT


class LocalSite:
    """Starts the processes of a site in order; they end with the group they belong to."""

    def __init__(self, processes: ProcessGroup, options: LocalSiteOptions) -> None:
        self._processes, self._options = processes, options
        self.broker_url = options.broker_url

    async def start_services(self) -> None:
        """Broker (unless one was given), store and Controller, each when the one before it serves.

        Raises:
            StartFailed: one of them did not come up; the message holds the end of its log.
        """
        home = ["--home", os.fspath(self._options.home)]
        if not self.broker_url:
            ready = await self._processes.start("broker", ["broker", "--port", "0", *home], wait=True)
            self.broker_url = f"mqtt://127.0.0.1:{ready['port']}"
        ready = await self._processes.start("store", ["store", "serve", "--port", "0", *home], wait=True)
        arguments = ["controller", "--broker", self.broker_url, "--store", str(ready["url"]), *home]
        arguments += ["--client", self._options.client]
        await self._processes.start("controller", arguments, wait=True)

    async def start_devices(self, inventory: Inventory) -> None:
        """One process per device; they announce themselves to the Controller."""
        for device in inventory.devices:
            await self._processes.start(device.id, self._device_arguments(device), wait=False)

    def _device_arguments(self, device: Device) -> Sequence[str]:
        options = self._options
        verb = "mcu" if device.device_class is DeviceClass.MCU else "host"
        arguments = [
            verb, "--device", device.id, "--inventory", os.fspath(options.inventory),
            "--broker", self.broker_url, "--home", os.fspath(options.home), "--client", options.client,
        ]  # fmt: skip
        for folder in options.aims:
            arguments += ["--aims", os.fspath(folder)]
        if options.follow:
            arguments.append("--follow")
        if options.speed is not None:
            arguments += ["--speed", str(options.speed)]
        return arguments

    def pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self._processes.children.items()}
