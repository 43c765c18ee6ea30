"""One AIM by itself: records in, records out, as a host would run it but without a network.

Decides: how records are fed and what counts as a failure. The AIM runs in a real ``AIMInstance`` with its
real class, parameters, model and queues; every record is encoded and decoded by its port's type on the way in
and on the way out. Does not: plan, seal, or charge budgets (the declared arena holds, though).

Invariants: no record is dropped (an input waits until the AIM takes what it holds); time is virtual, so the
outcome does not depend on how fast the machine is; the first failure ends the trial and is raised as it was.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from aif.config import Catalogue, load_aim
from aif.errors import (
    AIFError,
    CreationFailed,
    EndOfData,
    NotFound,
    PortTimeout,
    UnconnectedPort,
)
from aif.model.aim import AIMMetadata, Implementation, ParameterValue, Runtime
from aif.model.codec import Codec, compile_record
from aif.model.inventory import Device, DeviceClass
from aif.model.ports import Overflow, Port
from aif.protocol.deployment import DeployedAIM, ModelRelease
from aif.runtime.host.aims import AIMFactory
from aif.runtime.host.instance import AIMInstance
from aif.runtime.host.platform import Engine, Usage
from aif.runtime.host.ports import InputPort, Message, OutputPort
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.sdk import Sensor, SensorReading

RECORD_PERIOD_US: Final = 1_000_000
"""Time between records of one input: record n of every input has the same source time stamp."""

TRIAL_ARENA_BYTES: Final = 1 << 20
"""Arena where the contract declares none."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One sensor reading of a trial (``sdk.SensorReading``)."""

    values: Any
    t_us: int = 0
    annotation: Mapping[str, Any] = field(default_factory=dict)


async def try_aim(
    folder: Path,
    records: Mapping[str, Sequence[Any]] | None = None,
    *,
    parameters: Mapping[str, ParameterValue] | None = None,
    implementation: str | None = None,
    model: bytes | None = None,
    sensors: Mapping[str, Sequence[SensorReading]] | None = None,
    at_most: int | None = None,
    timeout_s: float = 60.0,
) -> dict[str, list[Any]]:
    """Run the AIM in ``folder`` until its records or readings are used up.

    Args:
        folder: holds ``aim.yaml`` and the code.
        records: by input port, in order; the n-th of every input share a time stamp.
        parameters: those that differ from the defaults.
        implementation: an id; the first one by default.
        model: bytes of the model, where the implementation has one.
        sensors: readings by sensor kind; after the last one the sensor ends.
        at_most: stop when an output has given this many records (an AIM with a period never ends by itself).
        timeout_s: give up after this much real time.

    Returns:
        What came out, by output port; every output has an entry.

    Raises:
        ConfigError: ``aim.yaml`` is wrong.
        CreationFailed, UnknownPort, UnconnectedPort, NotFound: the trial does not suit the contract.
        InvalidRecord: a record, given or returned, is not of its port's type.
        AIMFailed: the AIM's code raised; the cause is what it raised.
        PortTimeout: it did not end in time.
    """
    contract = load_aim(folder)
    chosen = _choose(contract, implementation)
    library = AIMLibrary(Catalogue({contract.reference: contract}, {contract.reference: folder}))
    clock = _TrialClock()
    log = LogBook(contract.name, clock)
    bench = _Bench(clock, sensors or {})
    factory = AIMFactory(
        library,
        bench,
        log,
        lambda owner, of, release: bench.open_engine(
            owner, of, model or b"", release.sha256, release.arena_bytes
        ),
    )
    release = _release(contract, chosen, model)
    digest = library.digest(contract.reference)
    deployed = DeployedAIM(
        contract.name, contract.reference, digest, chosen.id, dict(parameters or {}), release
    )
    feeds = _feeds(contract, records or {})
    done = asyncio.Event()
    collected: dict[str, list[Any]] = {port.name: [] for port in contract.outputs}
    outputs = {p.name: _collector(contract, p, collected[p.name], at_most, done) for p in contract.outputs}
    make = factory.maker(contract.name, deployed, contract, chosen)
    instance = _Tried(
        contract.name,
        replace(contract, restart_limit=0),
        make,
        {
            port.name: InputPort(
                replace(port, overflow=Overflow.BLOCK, queue_depth=1), producers=1, time_us=clock.time_us
            )
            for port in contract.inputs
            if port.name in feeds
        },
        outputs,
        clock=clock,
        on_state=lambda _instance, _state, _detail: None,
        on_finished=lambda _instance: done.set(),
        blocking=bench.engine_blocks(chosen),
    )
    try:
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
            feeders = [group.create_task(_feed(instance.inputs[name], feed)) for name, feed in feeds.items()]
            instance.start()
            await done.wait()
            for feeder in feeders:
                feeder.cancel()
    except TimeoutError:
        raise PortTimeout(
            f"{contract.reference} did not end within {timeout_s:g} s",
            hint="does process() wait for something that never comes? at_most ends an AIM that never does",
        ) from None
    finally:
        await instance.stop()
        factory.close(contract.name)
    if instance.error is not None:
        raise instance.error
    return collected


class _Tried(AIMInstance):
    """An instance that keeps the error that ended it."""

    error: AIFError | None = None

    async def _live(self) -> None:
        try:
            await super()._live()
        except AIFError as error:
            self.error = error
            raise


# --- the contract's side --------------------------------------------------------------------------------


def _choose(contract: AIMMetadata, implementation: str | None) -> Implementation:
    if contract.composition is not None:
        raise CreationFailed(
            f"{contract.reference} is a composite AIM and does nothing itself",
            kind="module",
            hint="try its parts",
        )
    if implementation is None:
        return contract.implementations[0]
    chosen = contract.implementation(implementation)
    if chosen is None:
        known = ", ".join(one.id for one in contract.implementations)
        raise CreationFailed(
            f"{contract.reference} has no implementation {implementation!r}",
            kind="module",
            hint=f"it has: {known}",
        )
    return chosen


def _release(contract: AIMMetadata, chosen: Implementation, model: bytes | None) -> ModelRelease | None:
    reference = chosen.model
    if reference is None:
        return None
    if model is None:
        raise NotFound(
            f"{contract.reference}/{chosen.id} needs the model {reference.component}",
            hint="give its bytes: try_aim(…, model=…)",
        )
    sha256 = bytes.fromhex(reference.sha256) if reference.sha256 else hashlib.sha256(model).digest()
    arena_bytes = chosen.arena_bytes or TRIAL_ARENA_BYTES
    return ModelRelease(reference.component, "", 1, sha256, len(model), arena_bytes, b"")


def _feeds(contract: AIMMetadata, records: Mapping[str, Sequence[Any]]) -> dict[str, list[Message]]:
    """Records as they would arrive from another device."""
    for name in records:
        contract.input(name)
    for port in contract.required_inputs():
        if port.name not in records:
            raise UnconnectedPort(
                f"{contract.reference} needs records for its input {port.name}",
                hint=f"records={{{port.name!r}: […]}}",
            )
    return {
        name: list(_arrivals(_codec(contract, contract.input(name)), values))
        for name, values in records.items()
    }


def _arrivals(codec: Codec, values: Iterable[Any]) -> Iterator[Message]:
    for number, value in enumerate(values):
        yield Message(codec.decode(codec.encode(value)), number * RECORD_PERIOD_US)


def _codec(contract: AIMMetadata, port: Port) -> Codec:
    label = f"{contract.name}.{port.name}"
    return compile_record(port.type.record, payload_bytes=port.payload_bytes, label=label)


async def _feed(port: InputPort, messages: Iterable[Message]) -> None:
    for message in messages:
        await port.put(message)
    port.finish()


def _collector(
    contract: AIMMetadata, port: Port, into: list[Any], at_most: int | None, done: asyncio.Event
) -> OutputPort:
    codec = _codec(contract, port)

    async def deliver(values: Sequence[Any], _t_us: int) -> None:
        for value in values:
            if at_most is None or len(into) < at_most:
                into.append(codec.decode(codec.encode(value)))
        if at_most is not None and len(into) >= at_most:
            done.set()

    output = OutputPort(port)
    output.connect(deliver)
    return output


# --- the machine's side ---------------------------------------------------------------------------------


class _TrialClock:
    """Time that moves when somebody sleeps or a sensor is read."""

    def __init__(self) -> None:
        self.now_us = 0

    def time_us(self) -> int:
        return self.now_us

    def monotonic_ms(self) -> float:
        return self.now_us / 1000.0

    async def sleep(self, seconds: float) -> None:
        self.now_us += round(seconds * 1e6)
        await asyncio.sleep(0)


class _ListedSensor:
    """A sensor that gives listed readings, then ends."""

    def __init__(self, kind: str, readings: Sequence[SensorReading], clock: _TrialClock) -> None:
        self._kind, self._clock = kind, clock
        self._readings = iter(readings)

    async def read(self) -> SensorReading:
        await asyncio.sleep(0)
        for reading in self._readings:
            self._clock.now_us = max(self._clock.now_us, reading.t_us)
            return reading
        raise EndOfData(f"the trial has no more readings of {self._kind}")


class _Bench:
    """A machine without limits (``runtime.platform.Platform``)."""

    def __init__(self, clock: _TrialClock, sensors: Mapping[str, Sequence[SensorReading]]) -> None:
        self._sensors = {kind: _ListedSensor(kind, readings, clock) for kind, readings in sensors.items()}
        self.device = Device("bench", DeviceClass.EDGE, "bench", 0, 0, frozenset(Runtime))

    def admit(
        self, owner: str, implementation: Implementation, *, queue_bytes: int, model_bytes: int
    ) -> None: ...

    def release(self, owner: str) -> None: ...

    def sensor(self, kind: str) -> Sensor:
        if kind not in self._sensors:
            raise NotFound(f"the trial has no sensor {kind}", hint=f"sensors={{{kind!r}: [Reading(…), …]}}")
        return self._sensors[kind]

    def open_engine(
        self, owner: str, implementation: Implementation, model: bytes, sha256: bytes, arena_bytes: int
    ) -> Engine:
        from aif.emulator.engine import LoadedModel
        from aif.engines.registry import open_engine

        return LoadedModel(
            open_engine(
                implementation.runtime,
                model,
                sha256=sha256.hex(),
                arena_bytes=arena_bytes,
                name=f"the model of {owner}",
            )
        )

    def engine_blocks(self, implementation: Implementation) -> bool:
        return implementation.runtime is Runtime.TFLM

    def usage(self) -> Usage:
        return Usage(0, 0, 0, 0, 0)

    def free(self) -> tuple[int, int, tuple[int, ...]]:
        return 0, 0, ()

    def close(self) -> None: ...
