"""Ports, references to them, and the settings of the Channels that join them.

Decides what a Port is; not whether two Ports fit together (``records.compatible``) nor who reads them.

Source: MPAI-AIF V2, AIM metadata, ``Ports`` and ``Topology``; queue options as in V3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from aif.errors import ModelError
from aif.model.records import PortType

BOUNDARY = "aiw"
"""The reserved AIM id that stands for the workflow's own boundary in a Port reference."""

AIM_ID = re.compile(r"[a-z][a-z0-9_]*")
"""One segment of an AIM id inside a workflow; ids of expanded composites join segments with ``.``."""

PORT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_PAYLOAD_BYTES = 16_777_215
MAX_QUEUE_DEPTH = 65_535
DEFAULT_QUEUE_DEPTH = 8


class Direction(StrEnum):
    """``InputOutput`` and ``OutputInput`` of the standard's JSON."""

    INPUT = "input"
    OUTPUT = "output"


class Overflow(StrEnum):
    """What a write to a full input queue does."""

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"


class AuthMode(StrEnum):
    """How a receiver knows the producer of a channel's messages (``auth`` in the AIW file)."""

    AEAD = "aead"
    """Whoever holds the key: only for one producer and one consumer."""

    SIGNED = "signed"
    """Every message is covered by the producer's signature before it is delivered."""

    CHECKPOINT = "checkpoint"
    """Delivered on the AEAD tag; the producer signs a hash of the interval afterwards."""


@dataclass(frozen=True, slots=True, order=True)
class PortRef:
    """``aim.port``; the AIM part may itself contain dots (an AIM inside a composite)."""

    aim: str
    port: str

    @classmethod
    def parse(cls, text: str) -> PortRef:
        """Read ``classifier.event``.

        Raises:
            ModelError: the text is not two names joined by a dot.
        """
        aim, dot, port = text.rpartition(".")
        if not dot or not PORT_NAME.fullmatch(port) or not all(AIM_ID.fullmatch(s) for s in aim.split(".")):
            raise ModelError(
                f"{text!r} is not a port reference", hint="write aim.port, such as classifier.event"
            )
        return cls(aim, port)

    def __str__(self) -> str:
        return f"{self.aim}.{self.port}"

    @property
    def at_boundary(self) -> bool:
        return self.aim == BOUNDARY


@dataclass(frozen=True, slots=True)
class Port:
    """A named, typed, directed end on an AIM.

    ``payload_bytes`` is the largest encoded record (0..16,777,215). ``consumes`` and ``emits`` are mean
    records per invocation; ``rate_hz`` is records per second where the author states it.
    ``queue_depth``, ``overflow``, ``max_age_ms`` and ``optional`` apply to inputs only.
    """

    name: str
    direction: Direction
    type: PortType
    payload_bytes: int
    rate_hz: float | None = None
    consumes: float = 1.0
    emits: float = 1.0
    max_age_ms: float | None = None
    queue_depth: int = DEFAULT_QUEUE_DEPTH
    overflow: Overflow = Overflow.BLOCK
    optional: bool = False


class LocalPolicy(StrEnum):
    """What a channel does between two AIMs in one process; between processes everything is sealed."""

    PLAIN = "plain"
    """The reader gets the writer's value itself."""
    SEALED = "sealed"
    """Records are encoded, sealed, opened and decoded as if the ends were on two devices."""


class Delivery(StrEnum):
    """What a channel promises about its messages (``delivery`` in the AIW file)."""

    BEST_EFFORT = "best_effort"
    """Each at most once; what is lost is counted."""
    ACKNOWLEDGED = "acknowledged"
    """Each is kept by its producer until everything that came of it is done with, and taken once."""


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """When waiting messages leave as one frame; ``max_messages`` 1 turns bundling off."""

    max_messages: int = 64
    max_delay_ms: float = 1.0
    max_bytes: int = 32_768


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """One connection from an output Port to an input Port.

    ``auth`` None means the default (aead for one consumer, else signed). ``delay_records`` > 0 declares
    that the reader starts with that many empty turns, which is what makes a cycle legal. ``local`` says what
    happens when both ends are on one host; between hosts every channel is sealed, and so is an acknowledged
    one everywhere.
    """

    source: PortRef
    destination: PortRef
    auth: AuthMode | None = None
    qos: int = 0
    bundle: BundleSettings = BundleSettings()
    delay_records: int = 0
    local: LocalPolicy = LocalPolicy.PLAIN
    delivery: Delivery = Delivery.BEST_EFFORT

    @property
    def acknowledged(self) -> bool:
        return self.delivery is Delivery.ACKNOWLEDGED

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination}"
