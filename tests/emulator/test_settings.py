from __future__ import annotations

from dataclasses import replace

import pytest

from aif.emulator.battery import BatteryStart
from aif.emulator.settings import Replay, battery_of, replays_of
from aif.errors import ConfigError
from aif.model.aim import Runtime
from aif.model.inventory import Device, DeviceClass, Energy, Sensor


def device(emulator: object) -> Device:
    return Device(
        id="mcu-1",
        device_class=DeviceClass.MCU,
        board="demo",
        ram_bytes=0,
        flash_bytes=0,
        runtimes=frozenset({Runtime.TFLM}),
        sensors=(Sensor("imu"), Sensor("microphone")),
        energy=Energy("battery", battery_mwh=740.0),
        emulator=emulator,  # type: ignore[arg-type]  # an inventory may hold anything
    )


def test_settings_are_read() -> None:
    assert replays_of(device({})) == {}
    assert replays_of(device({"replay": {}})) == {}
    assert replays_of(
        device(
            {
                "replay": {
                    "imu": {"recording": "imu_held_out", "speed": 40},
                    "microphone": {"recording": "words-1.2"},
                }
            }
        )
    ) == {"imu": Replay("imu_held_out", 40.0), "microphone": Replay("words-1.2", 1.0)}


@pytest.mark.parametrize(
    ("emulator", "message", "hint"),
    [
        ([], "emulator is [], not a mapping", "write it as {key: value}"),
        ({"repaly": {}}, "emulator has the unknown key 'repaly'", "did you mean 'replay'?"),
        ({1: {}}, "emulator has the unknown key 1", "known: battery, replay"),
        ({"replay": "imu"}, "emulator.replay is 'imu', not a mapping", "write it as {key: value}"),
        ({"replay": {"imu": "x"}}, "emulator.replay.imu is 'x', not a mapping", "write it as {key: value}"),
        (
            {"replay": {"imo": {"recording": "x"}}},
            "has no sensor 'imo' for emulator.replay.imo",
            "did you mean 'imu'?",
        ),
        (
            {"replay": {"imu": {"speed": 1}}},
            "emulator.replay.imu lacks the key 'recording'",
            "name a file without .npz",
        ),
        (
            {"replay": {"imu": {"recording": "x", "sped": 1}}},
            "emulator.replay.imu has the unknown key 'sped'",
            "did you mean 'speed'?",
        ),
        (
            {"replay": {"imu": {"recording": "x", "speed": "fast"}}},
            "emulator.replay.imu.speed is 'fast', not a number",
            "1 is real time",
        ),
        (
            {"replay": {"imu": {"recording": "x", "speed": True}}},
            "emulator.replay.imu.speed is True, not a number",
            "1 is real time",
        ),
        (
            {"replay": {"imu": {"recording": "x", "speed": 0}}},
            "emulator.replay.imu.speed: a replay speed of 0 is not above 0 and at most 1e+06",
            "1 is real time, 40 is forty times as fast",
        ),
    ],
)
def test_what_is_wrong_is_said_with_a_way_out(emulator: object, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replays_of(device(emulator))
    assert [(f.message, f.hint) for f in caught.value.findings] == [(f"device mcu-1: {message}", hint)]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "", ".hidden", "x" * 65, "x\n", 7, None])
def test_a_recording_cannot_lead_out_of_its_folder(name: object) -> None:
    with pytest.raises(ConfigError, match=r"recording is|lacks the key 'recording'"):
        replays_of(device({"replay": {"imu": {"recording": name}}}))


def test_all_findings_come_at_once() -> None:
    with pytest.raises(ConfigError, match=r"\(and 2 more\)") as caught:
        replays_of(device({"speed": 1, "replay": {"imu": {"speed": 1}, "gps": {"recording": "x"}}}))
    assert len({finding.code for finding in caught.value.findings}) == 3
    assert (
        "error[AIF-E0102]: device mcu-1: emulator has the unknown key 'speed'" in caught.value.diagnostics()
    )


def test_a_battery_begins_as_it_is_told() -> None:
    assert battery_of(device({})) == BatteryStart(1.0, 1.0)
    assert battery_of(device({"battery": {"level": 0.25, "speed": 60}})) == BatteryStart(0.25, 60.0)


@pytest.mark.parametrize(
    ("battery", "message"),
    [
        (0.3, "emulator.battery is 0.3, not a mapping"),
        ({"level": 1.1}, "emulator.battery.level is 1.1, not a number from 0 to 1"),
        ({"level": True}, "emulator.battery.level is True, not a number from 0 to 1"),
        ({"level": float("nan")}, "emulator.battery.level is nan, not a number from 0 to 1"),
        ({"speed": -1}, "emulator.battery.speed is -1, not a number from 0 to 1,000,000"),
        ({"levle": 0.3}, "emulator.battery has the unknown key 'levle'"),
    ],
)
def test_a_wrong_battery_is_told(battery: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        battery_of(device({"battery": battery}))
    assert message in str(caught.value)


def test_a_device_on_mains_begins_with_no_battery() -> None:
    mains = replace(device({"battery": {"level": 0.3}}), energy=Energy())
    with pytest.raises(ConfigError, match=r"has no battery for emulator\.battery"):
        battery_of(mains)
