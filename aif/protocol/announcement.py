"""What a device says of itself, and the copy that its Controller signs for whoever comes later.

A device announces over its sealed channel (``control``), so its word is its own. The Controller keeps the
newest one at the broker, retained and signed: no retained word of a device is trusted directly. Decides which
words are acceptable; not what is done with them.

Invariants: every text is short and of harmless characters, every number in the range that inventory files
have, every list short; the signed copy names the device and the time at which it was heard.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from aif.errors import RemoteProtocolError
from aif.model.inventory import DeviceClass, Sensor
from aif.protocol import cose, documents

MAX_ANNOUNCEMENT_BYTES: Final = 16_384
MAX_PARTS: Final = 64
"""Sensors, actuators, radios, runtimes, storage units: each."""
MAX_AMOUNT: Final = 2**53
AAD: Final = b"AIF-ANNOUNCE-1"
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


@dataclass(frozen=True, slots=True)
class AnnouncedUnit:
    """A storage unit, and what of it is free (bytes)."""

    kind: str
    bytes_: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Announcement:
    """A device's hardware, what it can execute, and what of it is free.

    Attributes:
        device_class: role and power.
        board: name of the hardware.
        arch: instruction set.
        os: operating system, ``none`` without.
        software: version of this framework there.
        cores: processor cores.
        ram_bytes: what the base firmware or OS leaves for AIMs; ``ram_free_bytes`` of it are free.
        flash_bytes: as ``ram_bytes``, for code and constants.
        runtimes: version of each runtime that it has.
        clock_hz: processor clock.
        instructions_per_s: sustained, one core; so are ``macs_per_s`` and ``dmips``.
    """

    kind: ClassVar[int] = 31
    device_class: DeviceClass
    board: str
    arch: str
    os: str
    software: str
    cores: int
    ram_bytes: int
    ram_free_bytes: int
    flash_bytes: int
    flash_free_bytes: int
    runtimes: Mapping[str, str]
    clock_hz: float | None = None
    instructions_per_s: float | None = None
    dmips: float | None = None
    macs_per_s: float | None = None
    storage: tuple[AnnouncedUnit, ...] = ()
    sensors: tuple[Sensor, ...] = ()
    actuators: tuple[Sensor, ...] = ()
    radios: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptAnnouncement:
    """The Controller's copy: who said it, when it was heard, and what."""

    device: str
    heard_us: int
    announcement: Announcement


def sign_announcement(kept: KeptAnnouncement, signer: Callable[[bytes], bytes]) -> bytes:
    return cose.sign1(documents.encode(kept), signer, external_aad=AAD, tagged=True)


def verify_announcement(data: bytes, controller_public: bytes, *, device: str) -> KeptAnnouncement:
    """Read a retained copy.

    Raises:
        SignatureInvalid, RemoteProtocolError: not signed by this Controller's site, or of another device.
    """
    payload = cose.verify1(
        data, controller_public, external_aad=AAD, tagged=True, max_bytes=MAX_ANNOUNCEMENT_BYTES
    )
    kept = documents.decode(KeptAnnouncement, payload, max_bytes=MAX_ANNOUNCEMENT_BYTES)
    if kept.device != device:
        raise RemoteProtocolError(f"the announcement on {device}'s topic is of {kept.device}")
    check_announcement(kept.announcement)
    return kept


def check_announcement(said: Announcement) -> None:
    """Refuse what no inventory could hold.

    Raises:
        RemoteProtocolError: says which part.
    """
    for name in ("board", "arch", "os", "software"):
        _word(getattr(said, name), name)
    for part, names in (("runtimes", said.runtimes), ("radios", said.radios)):
        _few(names, part)
        for name in names:
            _word(name, part)
    for version in said.runtimes.values():
        _word(version, "the version of a runtime")
    _amount(said.cores, "cores", most=4096, least=1)
    for total, free in ((said.ram_bytes, said.ram_free_bytes), (said.flash_bytes, said.flash_free_bytes)):
        _amount(total, "memory")
        _amount(free, "free memory", most=total)
    for part in ("clock_hz", "instructions_per_s", "dmips", "macs_per_s"):
        _speed(getattr(said, part), part)
    _few(said.storage, "storage")
    for unit in said.storage:
        _word(unit.kind, "storage")
        _amount(unit.bytes_, "storage")
        _amount(unit.free_bytes, "free storage", most=unit.bytes_)
    _few(said.sensors, "sensors")
    _few(said.actuators, "actuators")
    for one in (*said.sensors, *said.actuators):
        _word(one.kind, "a sensor or actuator")
        _amount(one.count, "a count of sensors", most=10_000, least=1)
        _speed(one.rate_hz, "the rate of a sensor")


def _word(text: str, part: str) -> None:
    if not _WORD.fullmatch(text):
        raise RemoteProtocolError(f"an announcement holds {part} that is no plain word of 64 characters")


def _few(values: object, part: str) -> None:
    if isinstance(values, tuple | Mapping) and len(values) > MAX_PARTS:
        raise RemoteProtocolError(f"an announcement holds more than {MAX_PARTS} {part}")


def _amount(value: int, part: str, *, most: int = MAX_AMOUNT, least: int = 0) -> None:
    if not least <= value <= most:
        raise RemoteProtocolError(f"an announcement holds {part} out of range")


def _speed(value: float | None, part: str) -> None:
    if value is not None and not (math.isfinite(value) and 0 < value <= MAX_AMOUNT):
        raise RemoteProtocolError(f"an announcement holds {part} out of range")
