from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from aif.emulator.budget import Usage
from aif.emulator.device import EmulatedDevice
from aif.engines.arena import smallest_arena
from aif.engines.tflm import TFLMEngine
from aif.errors import (
    ArenaOverflow,
    ConfigError,
    EndOfData,
    EngineCrashed,
    EngineError,
    EngineUnavailable,
    InvalidRecord,
    LengthOrHashMismatch,
    ModelError,
    NotFound,
    ResourceExceeded,
)
from aif.model.aim import Implementation, Requirements, Runtime
from aif.model.inventory import Device, DeviceClass, Sensor, StorageUnit
from aif.runtime.clock import SystemClock
from aif.runtime.host.platform import Engine, Platform
from aif.sdk import Sensor as SDKSensor

if TYPE_CHECKING:
    from tests.emulator.conftest import VirtualClock

ZEROS = np.zeros((1, 8), np.int8)
ARENA_BYTES = 4_096

MCU = Device(
    id="mcu-1",
    device_class=DeviceClass.MCU,
    board="demo",
    ram_bytes=20_000,
    flash_bytes=60_000,
    runtimes=frozenset({Runtime.PYTHON, Runtime.TFLM}),
    storage=(StorageUnit("internal_flash", 16_384),),
    sensors=(Sensor("imu", 50.0), Sensor("microphone")),
    emulator={"replay": {"imu": {"recording": "imu_held_out", "speed": 40}}},
)
GATEWAY = replace(
    MCU, id="gw-1", device_class=DeviceClass.GATEWAY, flash_bytes=0, runtimes=frozenset({Runtime.TFLITE}),
    storage=(StorageUnit("disk", 10**9),), sensors=(), emulator={},
)  # fmt: skip
TFLM = Implementation("mcu", Runtime.TFLM, 6_000, arena_bytes=ARENA_BYTES, flash_bytes=30_000)
TFLITE = Implementation("gateway", Runtime.TFLITE, 9_000)
SOURCE = Implementation("mcu", Runtime.PYTHON, 1_000, requires=Requirements(sensors=("imu",)))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def no_leaks(model: bytes) -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture
def mcu(no_leaks: None, recordings: Path, clock: VirtualClock) -> Iterator[EmulatedDevice]:
    device = EmulatedDevice(MCU, recordings, clock=clock)
    yield device
    device.close()


def admit(device: EmulatedDevice, owner: str, what: Implementation = TFLM, model_bytes: int = 2_000) -> None:
    device.admit(owner, what, queue_bytes=100, model_bytes=model_bytes)


def load(device: EmulatedDevice, owner: str, model: bytes, arena_bytes: int = ARENA_BYTES) -> Engine:
    what = TFLITE if Runtime.TFLITE in device.device.runtimes else TFLM
    return device.open_engine(owner, what, model, sha256(model).digest(), arena_bytes)


def runs(model: bytes, arena_bytes: int) -> bool:
    try:
        TFLMEngine(model, arena_bytes).close()
    except EngineError:
        return False
    return True


def child_of(device: EmulatedDevice, owner: str) -> int:
    engine = device._models[owner]._engine
    assert isinstance(engine, TFLMEngine)
    return engine.pid


def test_it_is_a_platform_of_the_runtime(recordings: Path) -> None:
    device: Platform = EmulatedDevice(MCU, recordings, clock=SystemClock(), follow=True, speed=None)
    sensor: SDKSensor = device.sensor("imu")
    assert asyncio.run(sensor.read()).annotation["index"] == 0
    assert device.device is MCU
    assert device.engine_blocks(TFLM)
    assert not device.engine_blocks(TFLITE)
    device.close()


@pytest.mark.integration
def test_a_model_runs_in_a_child_within_exactly_the_deployed_arena(mcu: EmulatedDevice, model: bytes) -> None:
    admit(mcu, "gesture/classifier")
    engine = load(mcu, "gesture/classifier", model, arena_bytes=3_008)
    (found,) = engine.infer(ZEROS.tobytes())
    assert found.shape == (1, 4)
    assert mcu._models["gesture/classifier"]._engine.arena_bytes == 3_008
    assert child_of(mcu, "gesture/classifier") != os.getpid()
    assert mcu.usage() == Usage(6_100, 20_000, 34_000, 76_384, ARENA_BYTES)
    engine.close()


@pytest.mark.integration
def test_a_gateway_gives_the_same_answer_in_this_process(
    mcu: EmulatedDevice, model: bytes, recordings: Path, clock: VirtualClock
) -> None:
    admit(mcu, "a/b")
    gateway = EmulatedDevice(GATEWAY, recordings, clock=clock)
    admit(gateway, "a/b", TFLITE)
    (micro,), (lite,) = (load(device, "a/b", model).infer(ZEROS) for device in (mcu, gateway))
    assert np.abs(micro.astype(int) - lite.astype(int)).max() <= 2  # other kernels, in steps of 1/256
    assert gateway.usage() == Usage(9_100, 20_000, 4_000, 10**9, 0)
    gateway.close()


@pytest.mark.integration
def test_an_arena_one_byte_too_small_names_a_size_that_works(mcu: EmulatedDevice, model: bytes) -> None:
    admit(mcu, "a/b")
    smallest = smallest_arena(model).smallest_bytes
    while runs(model, smallest - 1):
        smallest -= 1
    assert load(mcu, "a/b", model, smallest).infer(ZEROS)[0].shape == (1, 4)
    with pytest.raises(ArenaOverflow) as caught:
        load(mcu, "a/b", model, smallest - 1)
    needed = caught.value.needed_bytes
    assert smallest <= needed <= smallest + 16
    assert caught.value.available_bytes == smallest - 1
    assert str(caught.value) == f"a/b needs an arena of {needed:,} B, {smallest - 1:,} B are available"
    assert load(mcu, "a/b", model, needed).infer(ZEROS)[0].shape == (1, 4)


def test_a_release_cannot_take_a_larger_arena_than_was_charged(mcu: EmulatedDevice, model: bytes) -> None:
    admit(mcu, "a/b")
    with pytest.raises(ArenaOverflow) as caught:
        load(mcu, "a/b", model, ARENA_BYTES + 1)
    assert str(caught.value) == "a/b needs an arena of 4,097 B, 4,096 B are available"
    assert caught.value.hint.startswith("the release asks for more than arena_bytes of implementation mcu")


@pytest.mark.integration
def test_a_killed_child_hurts_its_own_aim_only_and_can_be_replaced(mcu: EmulatedDevice, model: bytes) -> None:
    for owner in ("a/first", "a/second"):
        admit(mcu, owner, replace(TFLM, flash_bytes=1_000))
    first, second = (load(mcu, owner, model) for owner in ("a/first", "a/second"))
    (expected,) = first.infer(ZEROS)
    os.kill(child_of(mcu, "a/first"), signal.SIGKILL)
    with pytest.raises(EngineCrashed, match=r"the TFLite-Micro process died \(SIGKILL\)"):
        first.infer(ZEROS)
    assert (second.infer(ZEROS)[0] == expected).all()
    assert (load(mcu, "a/first", model).infer(ZEROS)[0] == expected).all()
    assert mcu.usage().arena_bytes == 2 * ARENA_BYTES


@pytest.mark.integration
def test_opening_again_and_releasing_end_the_child_before(mcu: EmulatedDevice, model: bytes) -> None:
    admit(mcu, "a/b")
    load(mcu, "a/b", model)
    before = child_of(mcu, "a/b")
    engine = load(mcu, "a/b", model)
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    pid = child_of(mcu, "a/b")
    mcu.release("a/b")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(EngineCrashed, match="the engine is closed"):
        engine.infer(ZEROS)
    assert mcu.usage().ram_bytes == 0
    mcu.release("a/b")


def test_no_engine_without_admission(mcu: EmulatedDevice, model: bytes) -> None:
    with pytest.raises(ResourceExceeded, match="a/b was not admitted to mcu-1"):
        load(mcu, "a/b", model)
    admit(mcu, "a/b")
    mcu.close()
    with pytest.raises(ResourceExceeded, match="a/b was not admitted to mcu-1"):
        load(mcu, "a/b", model)


def test_an_owner_released_while_its_model_loads_gets_no_engine(
    recordings: Path, clock: VirtualClock, model: bytes
) -> None:
    gateway = EmulatedDevice(GATEWAY, recordings, clock=clock)
    admit(gateway, "a/b", TFLITE)

    class ReleasingDigest(bytes):
        def hex(self, *_arguments: object) -> str:  # called between the two checks
            gateway.release("a/b")
            return bytes(self).hex()

    with pytest.raises(ResourceExceeded, match="a/b was not admitted to gw-1"):
        gateway.open_engine("a/b", TFLITE, model, ReleasingDigest(sha256(model).digest()), 0)
    assert not gateway._models


@pytest.mark.parametrize("device", [MCU, GATEWAY], ids=["mcu", "gateway"])
def test_only_the_signed_bytes_are_opened(
    device: Device, recordings: Path, clock: VirtualClock, model: bytes
) -> None:
    emulated = EmulatedDevice(device, recordings, clock=clock)
    what = TFLM if device is MCU else TFLITE
    admit(emulated, "a/b", what)
    tampered = model[:-1] + bytes([model[-1] ^ 1])
    with pytest.raises(LengthOrHashMismatch, match="a/b: SHA-256 is"):
        emulated.open_engine("a/b", what, tampered, sha256(model).digest(), ARENA_BYTES)
    with pytest.raises(EngineError, match="is not a SHA-256 digest"):
        emulated.open_engine("a/b", what, model, b"", ARENA_BYTES)
    emulated.close()


@pytest.mark.parametrize(
    ("device", "runtime", "message", "hint"),
    [
        (MCU, Runtime.TFLITE, "a/b needs the runtime tflite, mcu-1 runs python, tflm", "choose another"),
        (
            replace(MCU, runtimes=frozenset(Runtime)),
            Runtime.TFLITE,
            "a/b has a model for the runtime tflite, which the emulated mcu mcu-1 cannot load",
            "implementations with a model run here in tflm",
        ),
        (
            replace(GATEWAY, runtimes=frozenset(Runtime)),
            Runtime.PYTHON,
            "a/b has a model for the runtime python, which the emulated gateway gw-1 cannot load",
            "implementations with a model run here in tflite or tflm",
        ),
    ],
)
def test_a_runtime_that_the_device_lacks_is_named(
    device: Device,
    runtime: Runtime,
    message: str,
    hint: str,
    recordings: Path,
    clock: VirtualClock,
    model: bytes,
) -> None:
    emulated = EmulatedDevice(device, recordings, clock=clock)
    what = replace(TFLITE, runtime=runtime)
    admit(emulated, "a/b", what)
    with pytest.raises(EngineUnavailable) as caught:
        emulated.open_engine("a/b", what, model, sha256(model).digest(), 0)
    assert str(caught.value) == message
    assert caught.value.hint.startswith(hint)


def test_the_inventory_s_speed_holds_unless_another_is_given(recordings: Path, clock: VirtualClock) -> None:
    async def two(device: EmulatedDevice) -> None:
        sensor = device.sensor("imu")
        await sensor.read()
        await sensor.read()

    asyncio.run(two(EmulatedDevice(MCU, recordings, clock=clock)))
    asyncio.run(two(EmulatedDevice(MCU, recordings, clock=clock, speed=2.0)))
    assert clock.slept_ms == pytest.approx([25.0, 500.0])
    with pytest.raises(ModelError, match="a replay speed of 0 is not above 0"):
        EmulatedDevice(MCU, recordings, clock=clock, speed=0)


def test_a_recording_ends_unless_it_is_followed(recordings: Path, clock: VirtualClock) -> None:
    async def read(device: EmulatedDevice, count: int) -> int:
        readings = [await device.sensor("imu").read() for _ in range(count)]
        return int(readings[-1].annotation["index"])

    assert asyncio.run(read(EmulatedDevice(MCU, recordings, clock=clock, follow=True), 11)) == 10
    with pytest.raises(EndOfData):
        asyncio.run(read(EmulatedDevice(MCU, recordings, clock=clock), 5))


def test_a_restarted_aim_reads_on_and_a_new_deployment_reads_from_the_start(mcu: EmulatedDevice) -> None:
    def index() -> int:
        reading = asyncio.run(mcu.sensor("imu").read())
        return int(reading.annotation["index"])

    admit(mcu, "a/imu", SOURCE, 0)
    assert [index(), index()] == [0, 1]
    mcu.release("a/other")
    assert index() == 2
    mcu.release("a/imu")
    admit(mcu, "b/imu", SOURCE, 0)
    assert index() == 0


def test_a_missing_sensor_or_recording_is_told_before_anything_is_charged(
    mcu: EmulatedDevice, recordings: Path
) -> None:
    with pytest.raises(NotFound, match="mcu-1 has no sensor 'gps'") as caught:
        mcu.sensor("gps")
    assert caught.value.hint == "it has: imu, microphone"
    with pytest.raises(NotFound, match="the sensor microphone of mcu-1 has nothing to play") as caught:
        mcu.sensor("microphone")
    assert caught.value.hint == "give it emulator: {replay: {microphone: {recording: NAME}}} in the inventory"
    (recordings / "imu_held_out.npz").unlink()
    with pytest.raises(NotFound) as caught:
        admit(mcu, "a/imu", SOURCE, 0)
    assert str(caught.value) == (
        f"the recording imu_held_out for the sensor imu of mcu-1 is not in {recordings}"
    )
    assert caught.value.hint == "run `aif train` first"
    assert mcu.usage().ram_bytes == 0


def test_a_damaged_recording_is_told(mcu: EmulatedDevice, recordings: Path) -> None:
    (recordings / "imu_held_out.npz").write_bytes(b"PK\x03\x04 not a recording")
    with pytest.raises(InvalidRecord, match=r"imu_held_out\.npz is not a recording"):
        mcu.sensor("imu")


def test_wrong_settings_are_told_at_once(recordings: Path, clock: VirtualClock) -> None:
    with pytest.raises(ConfigError, match="device mcu-1: emulator has the unknown key 'replays'"):
        EmulatedDevice(replace(MCU, emulator={"replays": {}}), recordings, clock=clock)
