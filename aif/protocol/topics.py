"""Every MQTT topic of the system; no other module holds a topic string.

Decides the names of topics, how they are parsed back and which filters select them. Does not decide who may
publish where. Invariants: what a builder makes, ``parse`` returns as an equal value; no level holds a
separator, a wildcard or a control character (MQTT 3.1.1 §4.7)::

    aif/ch/<aiw>/<aim>/<port>[/<consumer>]      data, AIF1 frames
    aif/dev/<device>/up/<what>                  device to Controller
    aif/dev/<device>/down/<what>                Controller to device
    aif/dev/<device>/status | announce          retained
    aif/att/<device>/req | evd                  attestation
    aif/enrol/enrol.<device>/req | rsp          enrolment; the level is the factory certificate's name
    aif/mdl/<release>                           model chunks, 16 hexadecimal digits of the release id
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.protocol.identifiers import check_aiw_name, check_device_name, device_of_enrolment_cn, enrolment_cn
from aif.protocol.limits import MAX_TOPIC_LEVEL

MAX_TOPIC = 6 * (MAX_TOPIC_LEVEL + 1)
_LEVEL = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{MAX_TOPIC_LEVEL - 1}}}")
_RELEASE = re.compile(r"[0-9a-f]{16}")


class Up(StrEnum):
    """What a device tells the Controller."""

    HELLO = "hello"
    STATUS = "status"
    REPORT = "report"
    LOG = "log"
    RESULT = "result"


class Down(StrEnum):
    """What the Controller tells a device."""

    DEPLOY = "deploy"
    GRANT = "grant"
    COMMAND = "command"
    TIME = "time"
    CALL = "call"


class Retained(StrEnum):
    """What the broker keeps about a device for whoever comes later."""

    STATUS = "status"
    ANNOUNCE = "announce"


class Attestation(StrEnum):
    """The two messages of an attestation."""

    REQUEST = "req"
    EVIDENCE = "evd"


class Enrolment(StrEnum):
    """The two messages of an enrolment."""

    REQUEST = "req"
    RESPONSE = "rsp"


@dataclass(frozen=True, slots=True)
class DataTopic:
    """Frames of one output port, or of one of its consumers when each has a channel of its own."""

    aiw: str
    aim: str
    port: str
    consumer: str | None = None

    def __post_init__(self) -> None:
        check_aiw_name(self.aiw)
        for level in (self.aim, self.port) if self.consumer is None else (self.aim, self.port, self.consumer):
            _check_level(level)

    def __str__(self) -> str:
        end = "" if self.consumer is None else f"/{self.consumer}"
        return f"aif/ch/{self.aiw}/{self.aim}/{self.port}{end}"


@dataclass(frozen=True, slots=True)
class UpTopic:
    """From a device to the Controller."""

    device: str
    what: Up

    def __post_init__(self) -> None:
        check_device_name(self.device)

    def __str__(self) -> str:
        return f"aif/dev/{self.device}/up/{self.what}"


@dataclass(frozen=True, slots=True)
class DownTopic:
    """From the Controller to a device."""

    device: str
    what: Down

    def __post_init__(self) -> None:
        check_device_name(self.device)

    def __str__(self) -> str:
        return f"aif/dev/{self.device}/down/{self.what}"


@dataclass(frozen=True, slots=True)
class RetainedTopic:
    """Retained knowledge about a device."""

    device: str
    what: Retained

    def __post_init__(self) -> None:
        check_device_name(self.device)

    def __str__(self) -> str:
        return f"aif/dev/{self.device}/{self.what}"


@dataclass(frozen=True, slots=True)
class AttestationTopic:
    """Attestation of one device."""

    device: str
    what: Attestation

    def __post_init__(self) -> None:
        check_device_name(self.device)

    def __str__(self) -> str:
        return f"aif/att/{self.device}/{self.what}"


@dataclass(frozen=True, slots=True)
class EnrolmentTopic:
    """Enrolment of one device."""

    device: str
    what: Enrolment

    def __post_init__(self) -> None:
        check_device_name(self.device)

    def __str__(self) -> str:
        return f"aif/enrol/{enrolment_cn(self.device)}/{self.what}"


@dataclass(frozen=True, slots=True)
class ModelTopic:
    """Ciphertext chunks of one release; ``release`` is the first 16 hexadecimal digits of its id."""

    release: str

    def __post_init__(self) -> None:
        if not _RELEASE.fullmatch(self.release):
            raise LocalProtocolError(f"{self.release[:40]!r} is not 16 hexadecimal digits of a release id")

    def __str__(self) -> str:
        return f"aif/mdl/{self.release}"


Topic = DataTopic | UpTopic | DownTopic | RetainedTopic | AttestationTopic | EnrolmentTopic | ModelTopic


def parse(topic: str) -> Topic:
    """The typed form of a topic that arrived.

    Raises:
        RemoteProtocolError: not a topic of this system.
    """
    if len(topic) > MAX_TOPIC:
        raise RemoteProtocolError(f"topic of {len(topic)} characters is longer than {MAX_TOPIC}")
    try:
        return _parse(topic.split("/"))
    except (LocalProtocolError, ValueError) as error:
        raise RemoteProtocolError(f"{topic[:96]!r} is not a topic of this system: {error}") from error


def _parse(levels: list[str]) -> Topic:
    match levels:
        case ["aif", "ch", aiw, aim, port]:
            return DataTopic(aiw, aim, port)
        case ["aif", "ch", aiw, aim, port, consumer]:
            return DataTopic(aiw, aim, port, consumer)
        case ["aif", "dev", device, "up", what]:
            return UpTopic(device, Up(what))
        case ["aif", "dev", device, "down", what]:
            return DownTopic(device, Down(what))
        case ["aif", "dev", device, what]:
            return RetainedTopic(device, Retained(what))
        case ["aif", "att", device, what]:
            return AttestationTopic(device, Attestation(what))
        case ["aif", "enrol", common_name, what]:
            return EnrolmentTopic(device_of_enrolment_cn(common_name), Enrolment(what))
        case ["aif", "mdl", release]:
            return ModelTopic(release)
    raise LocalProtocolError("unknown levels")


def up_filter(device: str | None = None, what: Up | None = None) -> str:
    """Everything, or one kind of thing, that one device, or every device, tells the Controller."""
    return f"aif/dev/{_device_or_any(device)}/up/{'+' if what is None else what}"


def down_filter(device: str) -> str:
    """Everything the Controller tells one device."""
    return f"aif/dev/{check_device_name(device)}/down/+"


def retained_filter(what: Retained, device: str | None = None) -> str:
    """One kind of retained knowledge about one device or every device."""
    return f"aif/dev/{_device_or_any(device)}/{what}"


def attestation_filter(what: Attestation, device: str | None = None) -> str:
    """Requests or evidence of one device or every device."""
    return f"aif/att/{_device_or_any(device)}/{what}"


def enrolment_filter(what: Enrolment, device: str | None = None) -> str:
    """Enrolment requests or responses of one device or every device."""
    return f"aif/enrol/{'+' if device is None else enrolment_cn(device)}/{what}"


def everything_filter() -> str:
    """All topics of the system, for an observer."""
    return "aif/#"


def _device_or_any(device: str | None) -> str:
    return "+" if device is None else check_device_name(device)


def _check_level(level: str) -> None:
    if not _LEVEL.fullmatch(level):
        raise LocalProtocolError(
            f"{level[:80]!r} cannot be a topic level",
            hint=f"use 1 to {MAX_TOPIC_LEVEL} of A-Z a-z 0-9 _ - and '.', not beginning with - or '.'",
        )
