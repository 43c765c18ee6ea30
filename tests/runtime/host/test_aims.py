"""From a deployed AIM to an object: parameters, models, contexts."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aif.engines.base import TensorSpec
from aif.errors import CreationFailed, EngineError, NotAuthorised, NotFound
from aif.model.aim import (
    AIMMetadata,
    Implementation,
    ModelRef,
    Parameter,
    Requirements,
    Runtime,
    TrustedService,
)
from aif.model.inventory import Device, DeviceClass
from aif.model.ports import Direction, Port
from aif.model.records import PortType, RecordType
from aif.protocol.deployment import DeployedAIM, ModelRelease
from aif.runtime.host.aims import AIMFactory
from aif.runtime.host.platform import Usage
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.sdk import AIM
from aif.trusted.engine_owner import EngineCrypto, EngineOwner, EngineStorage
from tests.runtime.virtual_clock import VirtualClock

MODULE = """
from aif.sdk import AIM


class Scaled(AIM):
    def process(self, a):
        return {"out": self.context.parameters["gain"] * a}
"""
RELEASE = ModelRelease("kws", "models/kws", 1, b"h" * 32, 5, 4096, b"")
INT8 = PortType(RecordType.parse("int8[2][2]"))


class Loaded:
    """An engine that doubles and negates."""

    def __init__(self, outputs: int) -> None:
        self.closed = False
        self._outputs = outputs

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("input_0", (1, 2, 2), "int8"),)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.inputs[: self._outputs]

    def infer(self, *inputs: Any) -> tuple[Any, ...]:
        doubled = np.asarray(inputs[0], np.int8).reshape(1, 2, 2) * 2
        return (doubled, np.array([[7]], np.int8), doubled)[: self._outputs]

    def reset(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        self.closed = True


class Bench:
    """A device without budgets."""

    def __init__(self, *, outputs: int = 2) -> None:
        self.opened: list[Loaded] = []
        self._outputs = outputs

    @property
    def device(self) -> Device:
        return Device("left", DeviceClass.GATEWAY, "board", 1, 1, frozenset())

    def admit(
        self, owner: str, implementation: Implementation, *, queue_bytes: int, model_bytes: int
    ) -> None:
        """Everything fits."""

    def release(self, owner: str) -> None:
        """Nothing is counted."""

    def sensor(self, kind: str) -> Any:
        return f"sensor {kind}"

    def open_engine(self, *_: object) -> Loaded:
        self.opened.append(Loaded(self._outputs))
        return self.opened[-1]

    def engine_blocks(self, _: Implementation) -> bool:
        return False

    def usage(self) -> Usage:
        return Usage(0, 0, 0, 0, 0)

    def free(self) -> tuple[int, int, tuple[int, ...]]:
        return 0, 0, ()

    def close(self) -> None:
        """Nothing is open."""


class Folders(dict[str, AIMMetadata]):
    def __init__(self, contract: AIMMetadata, folder: Path) -> None:
        super().__init__({contract.reference: contract})
        self._folder = folder

    def folder(self, _reference: str, /) -> Path:
        return self._folder


GLUED = Implementation(
    "any", Runtime.PYTHON, 1, entry="module:Scaled", requires=Requirements(sensors=("imu",))
)
BARE = Implementation("bare", Runtime.TFLITE, 1, model=ModelRef("kws"))
CONTRACT = AIMMetadata(
    "Scaled", "1.0", "demo",
    inputs=(Port("a", Direction.INPUT, INT8, 4),),
    outputs=(
        Port("out", Direction.OUTPUT, INT8, 4),
        Port("n", Direction.OUTPUT, PortType(RecordType.parse("int8")), 1),
    ),
    parameters=(Parameter("gain", "number", minimum=0.0), Parameter("mode", "string", "fast")),
    implementations=(GLUED, BARE),
)  # fmt: skip


def deployed(**parameters: Any) -> DeployedAIM:
    return DeployedAIM("s", "Scaled@1.0", b"p" * 32, "any", parameters)


def factory(tmp_path: Path, bench: Bench, log: io.StringIO | None = None) -> AIMFactory:
    (tmp_path / "module.py").write_text(MODULE)
    (tmp_path / "aim.yaml").write_text("schema: 1\n")
    book = LogBook("left", VirtualClock(), log or io.StringIO())
    return AIMFactory(AIMLibrary(Folders(CONTRACT, tmp_path)), bench, book, bench.open_engine)


def made(tmp_path: Path, bench: Bench, aim: DeployedAIM, implementation: Implementation = GLUED) -> AIM:
    return factory(tmp_path, bench).maker("owner", aim, CONTRACT, implementation)()


def test_parameters_are_completed_with_their_defaults(tmp_path: Path) -> None:
    aim = made(tmp_path, Bench(), deployed(gain=2.5))
    assert aim.context.parameters == {"gain": 2.5, "mode": "fast"}
    assert aim.process(a=2) == {"out": 5.0}


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({}, "parameter gain of s is required"),
        ({"gain": -1.0}, "parameter gain of s must be at least 0"),
        ({"gain": "x"}, "parameter gain of s must be a number"),
        ({"gain": 1.0, "gian": 2}, r"Scaled@1\.0 has no parameter 'gian'"),
    ],
)
def test_parameters_are_checked_before_anything_runs(
    tmp_path: Path, parameters: dict[str, Any], reason: str
) -> None:
    bench = Bench()
    with pytest.raises(CreationFailed, match=reason):
        made(tmp_path, bench, deployed(**parameters))
    assert bench.opened == []


def test_an_aim_sees_its_sensors_and_its_log_and_nothing_else(tmp_path: Path) -> None:
    stream = io.StringIO()
    aim = factory(tmp_path, Bench(), stream).maker("owner", deployed(gain=1.0), CONTRACT, GLUED)()
    assert str(aim.context.sensor("imu")) == "sensor imu"
    with pytest.raises(NotFound, match="owner does not require a sensor 'microphone'") as refused:
        aim.context.sensor("microphone")
    assert refused.value.hint == "add it to requires.sensors in aim.yaml"
    with pytest.raises(NotFound, match="owner has no model"):
        _ = aim.context.model
    aim.context.log("seen", event="x", aim="forged", count=2)
    assert '"event": "seen"' in stream.getvalue()
    assert '"aim": "owner"' in stream.getvalue()


def test_a_model_without_glue_feeds_its_ports_in_order(tmp_path: Path) -> None:
    aim = made(tmp_path, Bench(), replace(deployed(gain=1.0), model=RELEASE), BARE)
    result = aim.process(a=memoryview(bytes([1, 2, 3, 4])).cast("b", (2, 2)))
    assert result["out"].tolist() == [[2, 4], [6, 8]]
    assert (result["n"], type(result["n"])) == (7, int)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_model_with_other_outputs_than_its_aim_is_told(tmp_path: Path, outputs: int) -> None:
    aim = made(tmp_path, Bench(outputs=outputs), replace(deployed(gain=1.0), model=RELEASE), BARE)
    with pytest.raises(EngineError, match=f"the model has {outputs} outputs, its AIM 2"):
        aim.process(a=memoryview(bytes(4)).cast("b", (2, 2)))


def test_neither_entry_nor_model_is_nothing_to_run(tmp_path: Path) -> None:
    with pytest.raises(CreationFailed, match=r"Scaled@1\.0/bare has neither entry nor model"):
        made(tmp_path, Bench(), deployed(gain=1.0), BARE)


@pytest.mark.parametrize("service", TrustedService)
def test_a_service_that_is_not_declared_is_not_given(tmp_path: Path, service: TrustedService) -> None:
    asked: list[tuple[object, ...]] = []
    owner = EngineOwner(lambda *call: asked.append(call), b"o" * 16)
    declared = replace(GLUED, requires=Requirements(services=(service,)))
    maker = factory(tmp_path, Bench()).maker
    aim = maker("owner", deployed(gain=1.0), CONTRACT, declared, owner)()
    given = getattr(aim.context, service)
    assert (
        type(given) is {TrustedService.STORAGE: EngineStorage, TrustedService.CRYPTO: EngineCrypto}[service]
    )
    (other,) = set(TrustedService) - {service}
    with pytest.raises(
        NotAuthorised, match=f"^owner does not declare that it uses the {other} service$"
    ) as refused:
        getattr(aim.context, other)
    assert refused.value.hint == f"add {other} to requires.services in aim.yaml"
    assert not asked


def test_a_trial_has_no_services(tmp_path: Path) -> None:
    declared = replace(GLUED, requires=Requirements(services=(TrustedService.STORAGE,)))
    aim = made(tmp_path, Bench(), deployed(gain=1.0), declared)
    with pytest.raises(NotFound, match=r"^there is no storage service here$"):
        _ = aim.context.storage


def test_every_start_has_an_engine_of_its_own_and_no_other_is_left_open(tmp_path: Path) -> None:
    bench = Bench()
    makes = factory(tmp_path, bench)
    make = makes.maker("owner", replace(deployed(gain=1.0), model=RELEASE), CONTRACT, BARE)
    assert len(bench.opened) == 1  # what does not fit is found before anything starts
    first = make()
    assert first.context.model is bench.opened[0]
    second = make()
    assert second.context.model is bench.opened[1]
    assert [engine.closed for engine in bench.opened] == [True, False]
    makes.close("owner")
    makes.close("owner")
    assert all(engine.closed for engine in bench.opened)
