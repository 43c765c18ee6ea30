"""A site of three gateways with an endless workflow of three AIMs, each device in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.terminals import Desk, Started
from tests.runtime.mapping.test_remapping import GOES_ON, THREE
from tests.runtime.site import AIMS, write_aim

DEVICES = ("left", "right", "spare")
AIW = "Adding-1"


@dataclass(slots=True)
class SmallSite:
    """``double`` runs on right or spare; ``count`` and ``add`` are pinned to left."""

    terminals: Desk
    inventory: Path
    aims: Path
    broker_url: str
    store_url: str
    controller: Started
    devices: dict[str, Started] = field(default_factory=dict)

    @classmethod
    async def start(
        cls, terminals: Desk, folder: Path, *, workflow: str = GOES_ON, inventory: str = THREE
    ) -> SmallSite:
        """Everything up, and the workflow running."""
        aims, file = folder / "aims", folder / "inventory.yaml"
        for name, (contract, module) in AIMS.items():
            write_aim(aims / name, contract, module)
        file.write_text(inventory)
        (folder / "adding.aiw.yaml").write_text(workflow)
        await terminals.ok("store", "publish", "--aims", aims)
        _, broker = await terminals.broker()
        _, store = await terminals.store()
        site = cls(terminals, file, aims, broker, store, await terminals.controller(broker, store))
        for name in DEVICES:
            await terminals.ok("device", "add", name, "--inventory", file)
            await site.start_device(name)
        for device in site.devices.values():
            await device.until("session with the Controller is trusted")
        await terminals.ok("deploy", folder / "adding.aiw.yaml", "--inventory", file, "--aims", aims)
        return site

    async def start_device(self, name: str) -> Started:
        self.devices[name] = await self.terminals.start(
            "host", "--device", name, "--inventory", self.inventory, "--broker", self.broker_url,
            "--aims", self.aims,
        )  # fmt: skip
        return self.devices[name]
