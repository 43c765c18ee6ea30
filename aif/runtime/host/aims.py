"""From a deployed AIM to an object that runs: its context, its model, and models without glue code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aif.errors import CreationFailed, EngineError, NotAuthorised, NotFound
from aif.model.aim import AIMMetadata, Implementation, ParameterValue, Requirements, TrustedService
from aif.model.records import FixedArray, RecordType
from aif.protocol.deployment import DeployedAIM
from aif.runtime.host.models import OpenModel
from aif.runtime.host.platform import Engine, Sensors
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.sdk import AIM, Crypto, Model, Sensor, Storage
from aif.trusted.engine_owner import EngineOwner


class AIMContext:
    """What an AIM sees of the world (``sdk.Context``)."""

    def __init__(
        self, owner: str, parameters: Mapping[str, ParameterValue], engine: Engine | None, platform: Sensors,
        requires: Requirements, log: LogBook, services: EngineOwner | None,
    ) -> None:  # fmt: skip
        self.parameters = parameters
        self._owner, self._engine, self._platform = owner, engine, platform
        self._requires, self._log, self._services = requires, log, services

    @property
    def model(self) -> Model:
        if self._engine is None:
            raise NotFound(f"{self._owner} has no model", hint="name one in its implementation in aim.yaml")
        return self._engine

    def sensor(self, kind: str) -> Sensor:
        if kind not in self._requires.sensors:
            raise NotFound(
                f"{self._owner} does not require a sensor {kind!r}",
                hint="add it to requires.sensors in aim.yaml",
            )
        return self._platform.sensor(kind)

    @property
    def storage(self) -> Storage:
        return self._service(TrustedService.STORAGE).storage

    @property
    def crypto(self) -> Crypto:
        return self._service(TrustedService.CRYPTO).crypto

    def _service(self, service: TrustedService) -> EngineOwner:
        if service not in self._requires.services:
            raise NotAuthorised(
                f"{self._owner} does not declare that it uses the {service} service",
                hint=f"add {service} to requires.services in aim.yaml",
            )
        if self._services is None:
            raise NotFound(
                f"there is no {service} service here", hint="a trial has none; run the AIM on a device"
            )
        return self._services

    def log(self, event: str, /, **facts: Any) -> None:
        self._log.info(event, **{**facts, "aim": self._owner})


class ModelAIM(AIM):
    """A model without glue: input ports feed its inputs and output ports get its outputs, in order."""

    def __init__(self, contract: AIMMetadata) -> None:
        self._inputs = tuple(port.name for port in contract.inputs)
        self._outputs = tuple((port.name, _tensor_shape(port.type.record)) for port in contract.outputs)

    def process(self, **inputs: Any) -> Mapping[str, Any]:
        results = self.context.model.infer(*(inputs[name] for name in self._inputs))
        if len(results) != len(self._outputs):
            raise EngineError(
                f"the model has {len(results)} outputs, its AIM {len(self._outputs)}",
                hint="declare one output port for each output of the model, in their order",
            )
        pairs = zip(self._outputs, results, strict=True)
        return {name: result.reshape(shape) if shape else result.item() for (name, shape), result in pairs}


def _tensor_shape(record: RecordType) -> tuple[int, ...]:
    """Shape of a port's array, without the batch of one that models carry; () for a scalar."""
    shape, node = [], record.root
    while isinstance(node, FixedArray):
        shape.append(node.length)
        node = node.element
    return tuple(shape)


class AIMFactory:
    """Makes AIM objects on one device; opens a fresh engine for every start."""

    def __init__(self, library: AIMLibrary, platform: Sensors, log: LogBook, open_model: OpenModel) -> None:
        self._library, self._platform, self._log = library, platform, log
        self._open_model = open_model
        self._engines: dict[str, Engine] = {}

    def maker(
        self,
        owner: str,
        deployed: DeployedAIM,
        contract: AIMMetadata,
        implementation: Implementation,
        services: EngineOwner | None = None,
    ) -> Callable[[], AIM]:
        """Check that the AIM can be made, and return what makes it.

        ``services`` act in the AIM's name, as far as its contract declares them.

        The first engine is opened here, so that a model which does not fit is found before anything starts.

        Raises:
            CreationFailed, ResourceExceeded, EngineError, StoreError: it cannot run on this device.
        """
        cls = None
        if implementation.entry:
            cls = self._library.load_class(deployed.use, implementation)
        elif deployed.model is None:
            raise CreationFailed(
                f"{deployed.use}/{implementation.id} has neither entry nor model", kind="module"
            )
        parameters = _complete(contract, deployed)
        self._open(owner, deployed, implementation)
        first = True

        def make() -> AIM:
            nonlocal first
            if not first:
                self._open(owner, deployed, implementation)
            first = False
            aim = cls() if cls is not None else ModelAIM(contract)
            aim.context = AIMContext(
                owner, parameters, self._engines.get(owner), self._platform, implementation.requires,
                self._log, services,
            )  # fmt: skip
            return aim

        return make

    def _open(self, owner: str, deployed: DeployedAIM, implementation: Implementation) -> None:
        self.close(owner)
        if deployed.model is not None:
            self._engines[owner] = self._open_model(owner, implementation, deployed.model)

    def close(self, owner: str) -> None:
        engine = self._engines.pop(owner, None)
        if engine is not None:
            engine.close()


def _complete(contract: AIMMetadata, deployed: DeployedAIM) -> dict[str, ParameterValue]:
    """Parameters with defaults filled in, checked against the contract."""
    unknown = deployed.parameters.keys() - {parameter.name for parameter in contract.parameters}
    if unknown:
        raise CreationFailed(f"{deployed.use} has no parameter {min(unknown)!r}", kind="module")
    values: dict[str, ParameterValue] = {}
    for parameter in contract.parameters:
        value = deployed.parameters.get(parameter.name, parameter.default)
        problem = "is required" if value is None else parameter.problem_with(value)
        if problem:
            raise CreationFailed(f"parameter {parameter.name} of {deployed.id} {problem}", kind="module")
        assert value is not None  # noqa: S101  # the line above raised
        values[parameter.name] = value
    return values
