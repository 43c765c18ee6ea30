"""What this device announces of itself, as its platform and what is installed say."""

from __future__ import annotations

from collections.abc import Mapping

from aif import __version__
from aif.protocol.announcement import AnnouncedUnit, Announcement
from aif.runtime.clock import Clock
from aif.runtime.host.platform import Platform
from aif.runtime.host.session import DeviceSession

INTERVAL_S = 30.0
"""A device announces itself when its session is new, and then this often: what is free changes."""

LOOK_S = 1.0
"""How often it is looked whether the session is a new one."""


async def announce(
    session: DeviceSession, platform: Platform, versions: Mapping[str, str], clock: Clock
) -> None:
    """Say what this device is when its session is new, and then now and again, until cancelled."""
    while True:
        await session.trusted.wait()
        session.send(announcement(platform, versions))
        due_ms = clock.monotonic_ms() + INTERVAL_S * 1000
        while session.trusted.is_set() and clock.monotonic_ms() < due_ms:
            await clock.sleep(LOOK_S)


def announcement(platform: Platform, versions: Mapping[str, str]) -> Announcement:
    """The announcement now; ``versions`` are those of installed runtimes, by name."""
    device = platform.device
    ram_free_bytes, flash_free_bytes, units_free_bytes = platform.free()
    return Announcement(
        device_class=device.device_class,
        board=device.board,
        arch=device.arch,
        os=device.os,
        software=__version__,
        cores=device.cores,
        ram_bytes=device.ram_bytes,
        ram_free_bytes=max(0, ram_free_bytes),
        flash_bytes=device.flash_bytes,
        flash_free_bytes=max(0, flash_free_bytes),
        runtimes={str(runtime): versions.get(str(runtime), "unknown") for runtime in sorted(device.runtimes)},
        clock_hz=device.clock_hz,
        instructions_per_s=device.instructions_per_s,
        dmips=device.dmips,
        macs_per_s=device.macs_per_s,
        storage=tuple(
            AnnouncedUnit(unit.kind, unit.bytes_, max(0, free_bytes))
            for unit, free_bytes in zip(device.storage, units_free_bytes, strict=True)
        ),
        sensors=device.sensors,
        actuators=device.actuators,
        radios=device.radios,
    )
