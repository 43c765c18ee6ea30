"""What Controller and device say to each other once the device is trusted.

Before trust there are only the signed Hello and Call (and the attestation messages of ``evidence``). After
it, both directions are ordinary AIF1 channels, one to one, keyed by grants; their payloads are the messages
below: CBOR ``[kind, body]``. Nothing here is sent in clear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.protocol import cbor, cose, documents
from aif.protocol.announcement import Announcement
from aif.protocol.frame import channel_id
from aif.protocol.lifecycle import Signal, State
from aif.protocol.limits import HASH_BYTES
from aif.protocol.topics import Down, DownTopic, Up, UpTopic

HELLO_AAD = b"AIF-HELLO-1"
CALL_AAD = b"AIF-CALL-1"
MAX_HELLO_BYTES = 8192
MAX_CALL_BYTES = 512
MAX_MESSAGE_BYTES = 512 * 1024
_ENVELOPE_BYTES = 16  # more than [kind, head of the body] takes
CONTROLLER = "controller"
"""The Controller's name where a device name is expected (senders, receivers, boundary ports)."""


@dataclass(frozen=True, slots=True)
class InstalledRelease:
    """A model release that rests on a device, the slot that holds it, and the ticket that brought it there.

    ``sha256`` is that of the plaintext; the content key is wrapped under ``ticket_digest``.
    """

    component: str
    counter: int
    sha256: bytes
    slot: str
    ticket_digest: bytes


@dataclass(frozen=True, slots=True)
class Hello:
    """A device's announcement of one boot, signed with its identity key.

    ``session_public`` (X25519) receives grants; ``frame_public`` (Ed25519) signs frames. Both live one boot.
    """

    device: str
    boot_id: bytes
    session_public: bytes
    frame_public: bytes
    time_us: int
    mapping_version: int
    installed: tuple[InstalledRelease, ...]


def sign_hello(hello: Hello, signer: Callable[[bytes], bytes]) -> bytes:
    return cose.sign1(documents.encode(hello), signer, external_aad=HELLO_AAD, tagged=True)


def verify_hello(data: bytes, identity_public: bytes, *, device: str) -> Hello:
    """Check a Hello against the identity key on file.

    Raises:
        SignatureInvalid, RemoteProtocolError: not signed by that device, or for another name.
    """
    payload = cose.verify1(
        data, identity_public, external_aad=HELLO_AAD, tagged=True, max_bytes=MAX_HELLO_BYTES
    )
    hello = documents.decode(Hello, payload, max_bytes=MAX_HELLO_BYTES)
    if hello.device != device:
        raise RemoteProtocolError(f"the hello on {device}'s topic names {hello.device}")
    if (len(hello.boot_id), len(hello.session_public), len(hello.frame_public)) != (16, 32, 32):
        raise RemoteProtocolError(f"the hello of {device} holds keys of the wrong length")
    if any(len(release.ticket_digest) != HASH_BYTES for release in hello.installed):
        raise RemoteProtocolError(f"the hello of {device} names a ticket by another digest than 32 bytes")
    return hello


@dataclass(frozen=True, slots=True)
class Call:
    """The Controller has no session with a device, and asks it to say Hello; signed with the site's key.

    ``time_us`` is the Controller's wall clock: a call that is not newer than its last word is a replay.
    """

    device: str
    time_us: int


def sign_call(call: Call, signer: Callable[[bytes], bytes]) -> bytes:
    return cose.sign1(documents.encode(call), signer, external_aad=CALL_AAD, tagged=True)


def verify_call(data: bytes, site_public: bytes, *, device: str) -> Call:
    """Check a Call against the site's key that the device was provisioned with.

    Raises:
        SignatureInvalid, RemoteProtocolError: not signed by that site, or for another device.
    """
    payload = cose.verify1(data, site_public, external_aad=CALL_AAD, tagged=True, max_bytes=MAX_CALL_BYTES)
    call = documents.decode(Call, payload, max_bytes=MAX_CALL_BYTES)
    if call.device != device:
        raise RemoteProtocolError(f"the call on {device}'s topic names {call.device}")
    return call


# --- Controller to device -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Both ways: I am here, and my wall clock says so.

    The Controller's is a question with a number; a device answers it at once with the same number, and says
    how full its battery is (0..1) where it has one.
    """

    kind: ClassVar[int] = 1
    time_us: int
    number: int = 0
    battery: float | None = None

    def __post_init__(self) -> None:
        if self.battery is not None and not 0.0 <= self.battery <= 1.0:
            raise ValueError(f"a battery of {self.battery:g} is not between 0 and 1")


@dataclass(frozen=True, slots=True)
class ModelKey:
    """The content key of an installed or named release, wrapped for this boot (``content_keys``)."""

    component: str
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Deploy:
    """A signed deployment document, and the keys of its models for the device's current boot.

    The keys are outside the document because a document outlives a boot.
    """

    kind: ClassVar[int] = 2
    document: bytes
    keys: tuple[ModelKey, ...] = ()


@dataclass(frozen=True, slots=True)
class SignalAIMs:
    """A Signal for one AIM, or for all of a workflow when ``aim`` is empty."""

    kind: ClassVar[int] = 3
    aiw_id: str
    aim: str
    signal: Signal


@dataclass(frozen=True, slots=True)
class Undeploy:
    """Drop a workflow and everything that was prepared for it."""

    kind: ClassVar[int] = 4
    aiw_id: str


@dataclass(frozen=True, slots=True)
class BoundaryRecord:
    """One record at a boundary port: up for outputs, down for inputs. ``record`` is canonically encoded."""

    kind: ClassVar[int] = 5
    aiw_id: str
    port: str
    origin_us: int
    record: bytes


@dataclass(frozen=True, slots=True)
class ModelKeys:
    """Keys of models that are deployed already, for a session that is new."""

    kind: ClassVar[int] = 6
    keys: tuple[ModelKey, ...]


# --- device to Controller -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SiteCertificate:
    """The site's certificate (DER, X.509) for a device's way to the broker; it answers a request."""

    kind: ClassVar[int] = 7
    certificate: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """A long step: what, how far (``done`` of ``total``, in bytes or items)."""

    kind: ClassVar[int] = 16
    aiw_id: str
    step: str
    done: int
    total: int


class Phase(StrEnum):
    """How far one device is with its part of a workflow."""

    PREPARING = "preparing"
    PREPARED = "prepared"
    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a part of a workflow failed on a device: the error's code, words and hint."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class AIMReport:
    """State of one instance; ``detail`` says why, for failures and restarts."""

    state: State
    detail: str


@dataclass(frozen=True, slots=True)
class WorkflowStatus:
    """Everything about one workflow's part on a device; sent at every change and every second.

    Because it is a whole state and not an event, a lost message heals itself.
    """

    kind: ClassVar[int] = 17
    aiw_id: str
    mapping_version: int
    phase: Phase
    aims: Mapping[str, AIMReport]
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """Counters and histograms of one workflow on one device (see ``runtime.metrics`` for the names)."""

    kind: ClassVar[int] = 21
    aiw_id: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One structured log line (already redacted)."""

    kind: ClassVar[int] = 22
    time_us: int
    level: str
    event: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A signing request (DER, PKCS #10) for the next certificate; the sealed channel says whose it is."""

    kind: ClassVar[int] = 24
    request: bytes


@dataclass(frozen=True, slots=True)
class Unfit:
    """This device cannot do protected work any more, and says why; it drops what it runs."""

    kind: ClassVar[int] = 23
    reason: str


@dataclass(frozen=True, slots=True)
class Keyed:
    """This device has the key of an epoch of a channel: what is sealed under it can be opened here."""

    kind: ClassVar[int] = 27
    channel_id: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """A receiver here does not hear the sender of a channel any more and needs the key of a newer epoch.

    Said again and again until that comes: checkpoints of this epoch could not be verified.
    """

    kind: ClassVar[int] = 30
    channel_id: bytes
    epoch: int


ControlMessage = (
    Heartbeat | Deploy | SignalAIMs | Undeploy | BoundaryRecord | ModelKeys | SiteCertificate
    | Progress | WorkflowStatus | Metrics | LogLine | Unfit | CertificateRequest | Keyed
    | KeyWanted | Announcement
)  # fmt: skip

_KINDS: dict[int, type[Any]] = {
    cls.kind: cls
    for cls in (
        Heartbeat, Deploy, SignalAIMs, Undeploy, BoundaryRecord, ModelKeys, SiteCertificate,
        Progress, WorkflowStatus, Metrics, LogLine, Unfit, CertificateRequest, Keyed,
        KeyWanted, Announcement,
    )
}  # fmt: skip


def pack(message: ControlMessage) -> bytes:
    """The plaintext of one control frame.

    Raises:
        LocalProtocolError: longer than the peer takes, or with a value that no document carries.
    """
    body = documents.encode(message)
    if len(body) > MAX_MESSAGE_BYTES - _ENVELOPE_BYTES:
        raise LocalProtocolError(
            f"a {type(message).__name__} of {len(body):,} B is longer than a control message may be "
            f"({MAX_MESSAGE_BYTES:,} B)"
        )
    return cbor.encode([message.kind, body])


def unpack(payload: bytes | memoryview) -> ControlMessage:
    """Read one control message.

    Raises:
        RemoteProtocolError: unknown kind, wrong fields, or too long.
    """
    outer = cbor.decode(bytes(payload), max_bytes=MAX_MESSAGE_BYTES)
    if not (isinstance(outer, list) and len(outer) == 2 and isinstance(outer[1], bytes)):
        raise RemoteProtocolError("a control message is [kind, body]")
    cls = _KINDS.get(outer[0]) if type(outer[0]) is int else None
    if cls is None:
        shown = outer[0] if type(outer[0]) is int else type(outer[0]).__name__
        raise RemoteProtocolError(f"unknown control message {shown}")
    message: ControlMessage = documents.decode(cls, outer[1], max_bytes=MAX_MESSAGE_BYTES)
    return message


def control_channel(device: str, *, up: bool) -> tuple[bytes, str]:
    """(channel id, topic) of the sealed control channel from (``up``) or to a device."""
    topic = str(UpTopic(device, Up.REPORT) if up else DownTopic(device, Down.COMMAND))
    ends = (f"{device}.control", f"{CONTROLLER}.control")
    source, destination = ends if up else ends[::-1]
    return channel_id("aif", "1", source, [destination], data_type="control", topic=topic), topic
