"""Where one machine keeps its state, and what this installation ships.

Decides the names of files and folders under ``--home``. Changes none of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import aif
from aif.config import Catalogue, load_catalogue
from aif.errors import NotFound
from aif.trusted.state import DeviceState, StateFile

PACKAGE = Path(aif.__file__).resolve().parent
SHIPPED_AIMS = PACKAGE.parent / "aims"
VENDOR = "tinyaif"


@dataclass(frozen=True, slots=True)
class Home:
    """Where one machine keeps its state."""

    root: Path

    @property
    def site(self) -> Path:
        return self.root / "site"

    @property
    def socket(self) -> Path:
        return self.site / "controller.sock"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def store_keys(self) -> Path:
        return self.root / "store-keys"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def recordings(self) -> Path:
        return self.root / "recordings"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def controller_tls(self) -> Path:
        return self.site / "tls"

    def device_tls(self, name: str) -> Path:
        return self.device(name) / "tls"

    def device(self, name: str) -> Path:
        return self.root / "devices" / name

    def engine(self, name: str) -> Path:
        """Private folder of a device's Security Engine: its root key and its storage."""
        return self.device(name).resolve() / "engine"

    def device_state(self, name: str) -> StateFile[DeviceState]:
        return StateFile(self.device(name) / "device.cbor", DeviceState)

    def known_device(self, name: str, inventory: Path | str = "FILE") -> StateFile[DeviceState]:
        """State of a device that has its identity here.

        Raises:
            NotFound: it was never added.
        """
        state = self.device_state(name)
        if not state.exists():
            raise NotFound(
                f"{name} has no identity in {self.device(name)}",
                hint=f"add it with `aif device add {name} --inventory {inventory}`",
            )
        return state


def catalogue(aims: Iterable[Path]) -> Catalogue:
    """The shipped AIM library and the user's folders."""
    return load_catalogue([SHIPPED_AIMS, *aims])


def device_hw_class(board: str, arch: str) -> str:
    """Hardware class of a device: what firmware and models are built for."""
    return f"{board}/{arch}"
