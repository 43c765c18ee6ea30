"""Emulated storage units: files with a capacity, a write speed, wear, and power that may fail.

Decides: whether a file still fits, how long writing it would take, and how far a unit is worn.
Does not: wait (durations are returned, the caller's clock may let them pass), encrypt, or charge budgets.

Invariants:
    * A file is its old or its new content, also when the power fails at any step of a write: new content is
      written beside the old, so replacing a file takes room for both.
    * Wear only grows, and is counted before the pages are touched.
    * Opening a unit clears what an interrupted write left behind.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from aif.errors import InvalidRecord, LocalProtocolError, NotFound, ResourceExceeded
from aif.model.inventory import StorageUnit


@dataclass(frozen=True, slots=True)
class Medium:
    """How a kind of unit is written.

    Attributes:
        page_bytes: what is erased or rewritten at once.
        endurance_cycles: erasures that each page stands, None when that is no concern.
    """

    page_bytes: int
    endurance_cycles: int | None


MEDIA: Final = MappingProxyType({
    "internal_flash": Medium(4096, 10_000),
    "spiffs": Medium(4096, 100_000),
    "eefs": Medium(256, 1_000_000),
    "sdfs": Medium(512, None),
    "disk": Medium(4096, None),
})  # fmt: skip
"""Typical figures: microcontroller flash 10^4 cycles, serial NOR 10^5, EEPROM 10^6 (data sheets)."""

MAX_FILES: Final = 1024
"""Files of one unit."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_TORN: Final = ".torn."
_WEAR: Final = ".wear"
_MAX_ERASED_PAGES: Final = 10**15


@dataclass(frozen=True, slots=True)
class Wear:
    """Erased pages since the unit was made, and the mean cycles of a page, as if levelled perfectly."""

    erased_pages: int
    mean_cycles: float
    endurance_cycles: int | None


PowerCut = Callable[[int], None]
"""Called before each page of a write with the bytes already written, and once more (with all of them) before
the new content takes effect. It may raise: the unit then stays as a loss of power would leave it."""


def _steady(_written_bytes: int) -> None:
    """Power that never fails."""


class EmulatedUnit:
    """One storage unit, kept in a folder of its own.

    Args:
        unit: kind, capacity and write speed; ``write_bps`` None means that writing takes no time.
        folder: made if it does not exist; nothing else may be in it.
        power: fault injection.
    """

    def __init__(self, unit: StorageUnit, folder: Path, *, power: PowerCut = _steady) -> None:
        self._unit, self._folder, self._power = unit, folder, power
        self._medium = MEDIA.get(unit.kind, MEDIA["disk"])
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for torn in folder.glob(f"{_TORN}*"):
            torn.unlink()

    @property
    def used_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._files())

    @property
    def free_bytes(self) -> int:
        return max(0, self._unit.bytes_ - self.used_bytes)

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self._files()))

    def write(self, name: str, content: bytes) -> int:
        """Make ``content`` the whole of file ``name``.

        Returns:
            How long that would take on the device, in us.

        Raises:
            ResourceExceeded: no room (for the new beside the old), or too many files.
            InvalidRecord: the count of erased pages on disk is damaged.
            LocalProtocolError: not the name of a file.
        """
        path = self._path(name)
        if len(content) > self.free_bytes:
            raise ResourceExceeded(
                f"{name} needs {len(content):,} B on {self._unit.kind}, {self.free_bytes:,} B are available",
                hint="an old version stays until the new one is whole: remove what is no longer needed",
            )
        if not path.exists() and len(self._files()) >= MAX_FILES:
            raise ResourceExceeded(f"{self._unit.kind} holds {MAX_FILES:,} files, which is the most it can")
        page_bytes = self._medium.page_bytes
        self._count_erasures(-(-len(content) // page_bytes))
        torn = self._folder / f"{_TORN}{name}"
        with torn.open("wb") as file:
            for start in range(0, len(content), page_bytes):
                self._power(start)
                file.write(content[start : start + page_bytes])
                file.flush()
            os.fsync(file.fileno())
        self._power(len(content))
        torn.replace(path)
        _sync_folder(self._folder)
        return self.write_us(len(content))

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            NotFound: there is none of that name.
        """
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            held = ", ".join(self.names()) or "nothing"
            raise NotFound(f"{self._unit.kind} holds no {name}", hint=f"it holds: {held}") from None

    def remove(self, name: str) -> None:
        """Delete a file; one that does not exist is no error."""
        self._path(name).unlink(missing_ok=True)
        _sync_folder(self._folder)

    def write_us(self, content_bytes: int) -> int:
        """Time to write so many bytes at the declared speed (bits/s), in us, rounded up."""
        if self._unit.write_bps is None:
            return 0
        return -int(-8e6 * content_bytes // self._unit.write_bps)

    def wear(self) -> Wear:
        """How far this unit is worn.

        Raises:
            InvalidRecord: the count on disk is damaged.
        """
        erased = self._erased_pages()
        pages = max(1, self._unit.bytes_ // self._medium.page_bytes)
        return Wear(erased, erased / pages, self._medium.endurance_cycles)

    def _count_erasures(self, pages: int) -> None:
        torn = self._folder / f"{_TORN}{_WEAR}"  # no file can have this name
        torn.write_text(json.dumps(self._erased_pages() + pages))
        torn.replace(self._folder / _WEAR)

    def _erased_pages(self) -> int:
        path = self._folder / _WEAR
        try:
            with path.open("rb") as file:
                erased = json.loads(file.read(len(str(_MAX_ERASED_PAGES))))
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise InvalidRecord(f"{path} is damaged: {error}", hint="delete it to count from 0") from error
        if not isinstance(erased, int) or isinstance(erased, bool) or not 0 <= erased < _MAX_ERASED_PAGES:
            raise InvalidRecord(f"{path} is damaged: not a count", hint="delete it to count from 0")
        return erased

    def _files(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if not path.name.startswith(".")]

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise LocalProtocolError(
                f"{name[:80]!r} is not the name of a file on a storage unit",
                hint="up to 64 letters, digits and _ . -",
            )
        return self._folder / name


def _sync_folder(folder: Path) -> None:
    """Make a new or removed name survive a crash of this machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
