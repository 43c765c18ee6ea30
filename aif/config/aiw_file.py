"""The AIW file (``NAME.aiw.yaml``): its keys, ranges and defaults.

Field order is the canonical key order. Names that must exist elsewhere are checked in ``workflow.py``.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from aif.config.aim_file import ChannelEntry, Identity, InputEntry, SubAIMEntry, TopologyEntry, Types
from aif.config.fields import (
    AimId,
    EndPoint,
    Ms,
    Name,
    SchemaNumber,
    Share,
    Table,
    Word,
    as_list,
    either,
    problem,
)
from aif.model.aim import Profile
from aif.model.degrading import LEAST_RATE

Weight = Annotated[float, Field(ge=0, le=1e9)]


class BindEntry(Table):
    """The device with this sensor or actuator holds the boundary port."""

    sensor: Word | None = None
    actuator: Word | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.sensor is None) == (self.actuator is None):
            raise problem("must be {sensor: kind} or {actuator: kind}")
        return self


class BoundaryInput(InputEntry):
    """What enters the workflow."""

    bind: BindEntry | None = None


class BoundaryOutput(Table):
    """What leaves the workflow; the type is that of its source."""

    source: Annotated[
        list[EndPoint], Field(alias="from", description="the aim.port it comes from"),
        either(str | list[EndPoint], as_list),
    ] = Field(default_factory=list)  # fmt: skip
    bind: BindEntry | None = None


def _output(value: object) -> object:
    return {"from": value} if isinstance(value, str | list) else value


class PathEntry(Table):
    """End-to-end limit, transfers and queueing included."""

    id: AimId
    start: Annotated[EndPoint, Field(alias="from", description="output port where the record leaves")]
    to: Annotated[EndPoint, Field(description="input port where it is delivered")]
    deadline_ms: Ms
    percentile: Annotated[Share, Field(gt=0)] = 0.99


class ObjectivesEntry(Table):
    """Weights of the placement's cost terms."""

    latency: Annotated[Weight, Field(description="sum of path latencies / 100 ms")] = 1.0
    energy: Annotated[Weight, Field(description="mean power / 1 mW, mains devices excluded")] = 1.0
    traffic: Annotated[Weight, Field(description="bytes/s on links / 1000")] = 0.0
    balance: Annotated[Weight, Field(description="highest CPU or RAM use / 1")] = 0.0
    exposure: Annotated[Weight, Field(description="records/s leaving a zone / 1")] = 0.0
    migration: Annotated[Weight, Field(description="AIMs moved / 1")] = 0.0
    devices: Annotated[Weight, Field(description="devices that run an AIM / 1")] = 0.0


class AvailabilityEntry(Table):
    """The service wanted."""

    target: Annotated[Share | None, Field(description="share of time, 0..1")] = None
    remap_within_ms: Annotated[Ms | None, Field(description="time to re-map after a loss (ms)")] = None
    standby: Annotated[
        list[AimId],
        Field(description="AIMs kept ready on a second device, which takes over when the first is lost"),
    ] = Field(default_factory=list)
    on_degraded: Literal["stop", "continue"] = "stop"
    optional: Annotated[
        list[AimId],
        Field(description="AIMs that are left out where there is no room for all, the first first"),
    ] = Field(default_factory=list)
    least_rate: Annotated[
        Share,
        Field(ge=LEAST_RATE, description="lowest share of its rate that is accepted where there is no room"),
    ] = 1.0
    slow_down: Annotated[
        Literal["first", "last"], Field(description="before or after optional AIMs are left out")
    ] = "first"


class AIWFile(Table):
    """An AI Workflow: which AIMs, how they are connected, and what is asked of the whole."""

    schema_number: SchemaNumber
    aiw: Identity
    profile: Literal["basic", "secure"] = Profile.BASIC.value
    trusted_scope: Annotated[
        Literal["aim", "aiw"], Field(description="aim: each AIM is trusted alone; aiw: the V2 rule")
    ] = "aim"
    types: Types = Field(default_factory=dict)
    inputs: dict[Name, BoundaryInput] = Field(default_factory=dict)
    aims: Annotated[list[SubAIMEntry], Field(min_length=1, max_length=4096)]
    outputs: dict[Name, Annotated[BoundaryOutput, either(str | list[str] | BoundaryOutput, _output)]] = Field(
        default_factory=dict
    )
    topology: list[TopologyEntry] = Field(default_factory=list)
    channels: list[ChannelEntry] = Field(default_factory=list)
    paths: list[PathEntry] = Field(default_factory=list)
    objectives: ObjectivesEntry = ObjectivesEntry()
    availability: AvailabilityEntry = AvailabilityEntry()
