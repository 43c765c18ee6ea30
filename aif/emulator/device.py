"""One emulated device: budgets, sensors that play recordings, and engines inside their declared memory.

Decides: what may run here, in which engine, in how much arena, and what its sensors give.
Does not: fetch or verify models beyond their digest, talk to anyone, or start AIMs.

Invariants:
    * No engine without an admitted owner, one per owner, and never a larger arena than the owner was charged.
    * A microcontroller runs TFLite-Micro only, in a child process; what happens to one model happens to no
      other.
    * Releasing an owner closes its engine, so that memory is given back only when it is free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aif.authoring.recording import read_recording
from aif.emulator.battery import Battery
from aif.emulator.budget import Budget
from aif.emulator.energy import ExecutionModel
from aif.emulator.engine import LoadedModel
from aif.emulator.sensors import ReplayClock, ReplaySensor, check_speed
from aif.emulator.settings import Replay, battery_of, replays_of
from aif.engines.base import DEFAULT_CONFIG, Engine, EngineConfig
from aif.engines.registry import open_engine
from aif.errors import ArenaOverflow, EngineUnavailable, NotFound, ResourceExceeded
from aif.model.aim import Implementation, Runtime
from aif.model.inventory import Device, DeviceClass


class EmulatedDevice:
    """A device of the inventory that exists only as this process (and the children of its engines).

    Args:
        device: its declared properties; all budgets are hard.
        recordings: folder of ``<name>.npz`` files for its sensors.
        clock: time for the sensors.
        follow: sensors begin again at the end of their recording.
        speed: speed of all sensors, instead of the inventory's; 1 is real time.
        config: limits of the engines.

    Raises:
        ConfigError: the ``emulator`` mapping of the device is wrong, with all findings.
        ModelError: ``speed`` is out of range.
    """

    def __init__(
        self,
        device: Device,
        recordings: Path,
        *,
        clock: ReplayClock,
        follow: bool = False,
        speed: float | None = None,
        config: EngineConfig = DEFAULT_CONFIG,
    ) -> None:
        if speed is not None:
            check_speed(speed)
        self._device, self._recordings, self._clock = device, recordings, clock
        self._follow, self._speed, self._config = follow, speed, config
        self._replays = replays_of(device)
        start, has_battery = battery_of(device), device.energy.source == "battery"
        self.battery = Battery(device.energy, start, clock.monotonic_ms()) if has_battery else None
        self._execution, self._invocation_uj = ExecutionModel(device), dict[str, float]()
        self._budget = Budget(device)
        self._sensors: dict[str, ReplaySensor] = {}
        self._models: dict[str, LoadedModel] = {}

    @property
    def device(self) -> Device:
        return self._device

    def admit(
        self, owner: str, implementation: Implementation, *, queue_bytes: int, model_bytes: int
    ) -> None:
        """Charge one AIM instance to the budgets; all of it, or nothing and an error.

        Raises:
            ResourceExceeded: RAM, a storage unit or sensors; ``FlashOverflow``: flash.
            NotFound: a sensor that it requires has nothing to play.
            AlreadyRunning: the owner is charged already.
        """
        for kind in implementation.requires.sensors:
            self._recording_file(kind)
        self._budget.admit(owner, implementation, queue_bytes=queue_bytes, model_bytes=model_bytes)
        cost = self._execution.cost(implementation)
        self._invocation_uj[owner] = cost.energy_uj if cost is not None else 0.0

    def release(self, owner: str) -> None:
        """Close the owner's engine and give back what it was charged; unknown owners are ignored.

        A sensor that nobody requires any more begins its recording anew for the next one who does.
        """
        model = self._models.pop(owner, None)
        if model is not None:
            model.close()
        self._budget.release(owner)
        self._invocation_uj.pop(owner, None)
        in_use = self._budget.sensors_in_use()
        self._sensors = {kind: sensor for kind, sensor in self._sensors.items() if kind in in_use}

    def sensor(self, kind: str) -> ReplaySensor:
        """The sensor of that kind; an AIM that is restarted goes on where it was.

        Raises:
            NotFound: this device has none, or no recording for it.
            InvalidRecord: the recording is damaged.
        """
        if kind not in self._sensors:
            replay, path = self._recording_file(kind)
            speed = replay.speed if self._speed is None else self._speed
            self._sensors[kind] = ReplaySensor(
                read_recording(path), clock=self._clock, speed=speed, repeat=self._follow
            )
        return self._sensors[kind]

    def open_engine(
        self, owner: str, implementation: Implementation, model: bytes, sha256: bytes, arena_bytes: int
    ) -> LoadedModel:
        """Load a model for one instance, in place of the one it had; may take a second.

        Args:
            owner: an admitted instance.
            implementation: names the runtime.
            model: bytes of a .tflite file.
            sha256: its digest, 32 bytes, from signed metadata.
            arena_bytes: exact size of the tensor arena (TFLite-Micro only).

        Raises:
            LengthOrHashMismatch: other bytes than the signed ones.
            ArenaOverflow: the model needs more, or the release asks for more than the owner was charged.
            EngineError: the model cannot run here (``EngineUnavailable``: no such runtime on this device).
            ResourceExceeded: the owner was not admitted.
        """

        def open_(runtime: str) -> Engine:
            return open_engine(
                runtime, model, sha256=sha256.hex(), arena_bytes=arena_bytes, name=owner, config=self._config
            )

        return self.hold_engine(owner, implementation, arena_bytes, open_)

    def hold_engine(
        self, owner: str, implementation: Implementation, arena_bytes: int, open_: Callable[[str], Engine]
    ) -> LoadedModel:
        """Like ``open_engine`` for a model that somebody else opens.

        Args:
            owner: an admitted instance.
            implementation: names the runtime.
            arena_bytes: exact size of the tensor arena (TFLite-Micro only).
            open_: opens it, given the name of the runtime; may take a second.

        Raises:
            ArenaOverflow, EngineError, ResourceExceeded: as ``open_engine``, or what ``open_`` raises.
        """
        runtime = self._runtime(owner, implementation)
        self._check_admitted(owner)
        if runtime is Runtime.TFLM and arena_bytes > self._budget.arena_bytes(owner):
            raise ArenaOverflow(
                owner,
                needed_bytes=arena_bytes,
                available_bytes=self._budget.arena_bytes(owner),
                hint=f"the release asks for more than arena_bytes of implementation {implementation.id} in "
                "aim.yaml: raise it there, or publish a model that needs less",
            )
        previous = self._models.pop(owner, None)
        if previous is not None:
            previous.close()
        loaded = LoadedModel(open_(runtime))
        try:
            self._check_admitted(owner)  # it may have been released while its model was loaded
        except ResourceExceeded:
            loaded.close()
            raise
        self._models[owner] = loaded
        return loaded

    def engine_blocks(self, implementation: Implementation) -> bool:
        """Whether ``infer`` waits for another process, so that it must not run on the event loop."""
        return implementation.runtime is Runtime.TFLM

    def battery_level(
        self, invocations: Mapping[str, int], *, sent_bytes: int, received_bytes: int
    ) -> float | None:
        """How full the battery is (0..1) after all this; None on mains.

        Args:
            invocations: of each owner, since it was admitted.
            sent_bytes: by its radio, since it began.
            received_bytes: as ``sent_bytes``.
        """
        if self.battery is None:
            return None
        self.battery.idled(self._clock.monotonic_ms())
        self.battery.worked(invocations, self._invocation_uj)
        self.battery.sent(sent_bytes, received_bytes)
        return self.battery.level

    def usage(self) -> Any:
        """A ``budget.Usage``: what is taken of the budgets, in bytes."""
        return self._budget.usage()

    def free(self) -> tuple[int, int, tuple[int, ...]]:
        """Bytes that are left: RAM, program flash, and each of the device's storage units."""
        return self._budget.free()

    def close(self) -> None:
        """Close every engine and release every owner. Allowed any number of times."""
        while self._models:
            self._models.popitem()[1].close()
        self._sensors.clear()
        self._budget.release_all()

    def _check_admitted(self, owner: str) -> None:
        if owner not in self._budget:
            raise ResourceExceeded(
                f"{owner} was not admitted to {self._device.id}, so no memory is set aside for its model"
            )

    def _runtime(self, owner: str, implementation: Implementation) -> Runtime:
        device, runtime = self._device, implementation.runtime
        if runtime not in device.runtimes:
            offered = ", ".join(sorted(device.runtimes)) or "nothing"
            raise EngineUnavailable(
                f"{owner} needs the runtime {runtime}, {device.id} runs {offered}",
                hint="choose another implementation, or place the AIM on another device",
            )
        micro = device.device_class is DeviceClass.MCU
        engines = (Runtime.TFLM,) if micro else (Runtime.TFLITE, Runtime.TFLM)
        if runtime not in engines:
            raise EngineUnavailable(
                f"{owner} has a model for the runtime {runtime}, which the emulated {device.device_class} "
                f"{device.id} cannot load",
                hint=f"implementations with a model run here in {' or '.join(engines)}",
            )
        return runtime

    def _recording_file(self, kind: str) -> tuple[Replay, Path]:
        """What the sensor plays, and the file, which exists.

        Raises:
            NotFound: no such sensor, nothing declared for it, or no such file.
        """
        replay = self._replays.get(kind)
        if replay is None:
            has = sorted({sensor.kind for sensor in self._device.sensors})
            if kind not in has:
                raise NotFound(
                    f"{self._device.id} has no sensor {kind!r}", hint=f"it has: {', '.join(has) or 'none'}"
                )
            raise NotFound(
                f"the sensor {kind} of {self._device.id} has nothing to play",
                hint=f"give it emulator: {{replay: {{{kind}: {{recording: NAME}}}}}} in the inventory",
            )
        path = self._recordings / f"{replay.recording}.npz"
        if not path.is_file():
            raise NotFound(
                f"the recording {replay.recording} for the sensor {kind} of {self._device.id} is not in "
                f"{self._recordings}",
                hint="run `aif train` first",
            )
        return replay, path
