"""How an inventory says that a device is emulated: the ``emulator`` mapping of a device, checked.

Decides: its keys and values. Does not: look for the files that it names.

    emulator: {replay: {imu: {recording: imu_held_out, speed: 40}}, battery: {level: 0.3, speed: 1000}}
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from aif.config.codes import Code
from aif.emulator.battery import BatteryStart
from aif.emulator.sensors import MAX_SPEED, check_speed
from aif.errors import ConfigError, Diagnostic, ModelError
from aif.model.inventory import Device

KEYS: Final = ("replay", "battery")

RECORDING_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""A file name without its ending: it cannot lead out of the folder of recordings."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What one sensor plays: a recording's name, and how many times faster than real time."""

    recording: str
    speed: float = 1.0


def replays_of(device: Device) -> dict[str, Replay]:
    """The recordings that an emulated device plays, by sensor kind.

    Raises:
        ConfigError: everything that is wrong with the ``emulator`` mapping, at once.
    """
    reader = _Reader(device)
    found = dict(reader.replays())
    if reader.findings:
        raise ConfigError(reader.findings)
    return found


def battery_of(device: Device) -> BatteryStart:
    """What the battery of an emulated device begins with.

    Raises:
        ConfigError: everything that is wrong with it, at once.
    """
    reader = _Reader(device)
    start = reader.battery()
    if reader.findings:
        raise ConfigError(reader.findings)
    return start


class _Reader:
    """Reads one mapping and collects what is wrong with it."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.findings: list[Diagnostic] = []

    def replays(self) -> Iterator[tuple[str, Replay]]:
        settings = self._mapping("emulator", self._device.emulator, KEYS) or {}
        kinds = {sensor.kind for sensor in self._device.sensors}
        replays = self._mapping("emulator.replay", settings.get("replay", {}), None) or {}
        for kind, entry in replays.items():
            where = f"emulator.replay.{kind}"
            if kind not in kinds:
                self._add(Code.REFERENCE, f"has no sensor {kind!r} for {where}", _nearest(kind, kinds))
            values = self._mapping(where, entry, ("recording", "speed"))
            replay = None if values is None else self._replay(where, values)
            if replay is not None:
                yield kind, replay

    def battery(self) -> BatteryStart:
        settings = self._mapping("emulator", self._device.emulator, KEYS) or {}
        if "battery" not in settings:
            return BatteryStart()
        where = "emulator.battery"
        if self._device.energy.battery_mwh is None:
            self._add(Code.REFERENCE, f"has no battery for {where}", "give it energy: {source: battery, ...}")
        values = self._mapping(where, settings["battery"], ("level", "speed")) or {}
        level = self._number(f"{where}.level", values.get("level", 1.0), most=1.0)
        speed = self._number(f"{where}.speed", values.get("speed", 1.0), most=MAX_SPEED)
        return BatteryStart(level, speed)

    def _number(self, where: str, value: object, *, most: float) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= most:
            return float(value)
        self._add(Code.VALUE, f"{where} is {_shown(value)}, not a number from 0 to {most:,.0f}", "")
        return 1.0

    def _replay(self, where: str, entry: Mapping[str, object]) -> Replay | None:
        recording, speed = entry.get("recording"), entry.get("speed", 1.0)
        if recording is None:
            self._add(Code.MISSING_KEY, f"{where} lacks the key 'recording'", "name a file without .npz")
        elif not isinstance(recording, str) or not RECORDING_NAME.fullmatch(recording):
            problem = f"{where}.recording is {_shown(recording)}, not the name of a recording"
            self._add(Code.VALUE, problem, "up to 64 letters, digits and _ . -; no folder, no .npz")
        elif not isinstance(speed, int | float) or isinstance(speed, bool):
            self._add(Code.VALUE, f"{where}.speed is {_shown(speed)}, not a number", "1 is real time")
        else:
            try:
                check_speed(speed)
            except ModelError as error:
                self._add(Code.VALUE, f"{where}.speed: {error}", error.hint)
            else:
                return Replay(recording, float(speed))
        return None

    def _mapping(
        self, where: str, value: object, keys: Collection[str] | None
    ) -> Mapping[str, object] | None:
        """``value`` if it is a mapping; keys outside ``keys`` (None: any) are reported and left out."""
        if not isinstance(value, Mapping):
            self._add(Code.VALUE, f"{where} is {_shown(value)}, not a mapping", "write it as {key: value}")
            return None
        unknown = [] if keys is None else [key for key in value if key not in keys]
        for key in unknown:
            self._add(
                Code.UNKNOWN_KEY, f"{where} has the unknown key {_shown(key)}", _nearest(str(key), keys or ())
            )
        return {str(key): entry for key, entry in value.items() if key not in unknown}

    def _add(self, code: Code, problem: str, hint: str) -> None:
        self.findings.append(Diagnostic(code, f"device {self._device.id}: {problem}", hint=hint))


def _nearest(word: str, known: Collection[str]) -> str:
    close = get_close_matches(word, known, 1)
    return f"did you mean {close[0]!r}?" if close else "known: " + (", ".join(sorted(known)) or "none")


def _shown(value: object) -> str:
    return repr(value)[:60]
