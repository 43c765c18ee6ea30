"""The signed deployment document: everything one device must know to run its part of a workflow.

It names AIM instances, implementations, parameters, model releases with install tickets, and the channels
that touch this device. The AIM's own contract (ports, types, queues) is not repeated: it is pinned by the
digest of the AIM's package. A document is signed by the Controller's deployment key (COSE_Sign1,
external_aad ``AIF-DEPLOY-1``) and carries a mapping version that only grows.

Keys are in no deployment document; they come as grants and wrapped content keys, after attestation.

Invariant: who holds a Deployment from ``verify`` need not check lengths, counts or ranges again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from aif.errors import RemoteProtocolError, RollbackDetected, TrustError
from aif.model.degrading import LEAST_RATE
from aif.model.delivery import MAX_CARRIED_BYTES, MAX_FAN
from aif.model.ports import MAX_QUEUE_DEPTH, AuthMode
from aif.protocol import cose, documents
from aif.protocol.limits import HASH_BYTES, MAX_MODEL_BYTES
from aif.protocol.numbers import (
    CHANNEL_ID_BYTES,
    FRAGMENT_HEADER_BYTES,
    HOST_LIMITS,
    SIGNED_OVERHEAD_BYTES,
)

EXTERNAL_AAD = b"AIF-DEPLOY-1"
MAX_DOCUMENT_BYTES = 256 * 1024
VERSION = 1

MIN_FRAME_BYTES = SIGNED_OVERHEAD_BYTES + FRAGMENT_HEADER_BYTES + 1
"""Least that a channel may allow: room for one byte of a message in fragments."""


@dataclass(frozen=True, slots=True)
class ModelRelease:
    """One release in the Store and this device's permission to install it.

    ``sha256`` and ``bytes_`` are those of the plaintext; what is downloaded is in the ticket, which is empty
    for a release that the device has.
    """

    component: str
    path: str
    counter: int
    sha256: bytes
    bytes_: int
    arena_bytes: int
    ticket: bytes


@dataclass(frozen=True, slots=True)
class DeployedAIM:
    """One AIM instance. ``package_sha256`` pins contract and code."""

    id: str
    use: str
    package_sha256: bytes
    implementation: str
    parameters: Mapping[str, bool | int | float | str | tuple[float, ...]]
    model: ModelRelease | None = None


@dataclass(frozen=True, slots=True)
class LocalChannel:
    """Both ends are on this device; values are handed over without encoding."""

    source: str
    destination: str
    delay_records: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Terms of an acknowledged channel, and of the channel that its acknowledgements have for themselves.

    Attributes:
        other: id of the channel in the other direction.
        window: messages that may be unacknowledged.
        fan: records that one turn of the producer gives at most.
        returns: whether this channel is the one for acknowledgements.
        state_bytes: most that an acknowledgement carries of state; 0 for a consumer that keeps none.
    """

    other: bytes
    window: int
    fan: int
    returns: bool = False
    state_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RemoteChannel:
    """One sealed channel with an end here. Destinations are ``aim.port`` with the device of each.

    ``max_frame_bytes`` and ``max_message_bytes`` are the least of what its receivers hold; a message counts
    with its header.
    """

    channel_id: bytes
    topic: str
    source: str
    source_device: str
    destinations: tuple[str, ...]
    destination_devices: tuple[str, ...]
    auth: AuthMode
    qos: int
    max_messages: int
    max_delay_ms: float
    max_bytes: int
    delay_records: int
    max_frame_bytes: int = HOST_LIMITS.max_frame_bytes
    max_message_bytes: int = HOST_LIMITS.max_message_bytes
    acknowledged: Acknowledged | None = None

    @property
    def returns(self) -> bool:
        """Whether it carries acknowledgements, and no records."""
        return self.acknowledged is not None and self.acknowledged.returns

    @property
    def within_host(self) -> bool:
        """Whether both ends are on one device; its frames go from one to the other without a broker."""
        return {self.source_device} == set(self.destination_devices)


@dataclass(frozen=True, slots=True)
class BoundaryPort:
    """A port of the workflow itself, joined to an AIM's port here; the far end is the Controller."""

    name: str
    port: str
    is_output: bool


@dataclass(frozen=True, slots=True)
class Deployment:
    """One device's part of one workflow under one mapping version."""

    version: int
    device: str
    aiw_id: str
    workflow: str
    workflow_version: str
    mapping_version: int
    issued_us: int
    store_url: str
    aims: tuple[DeployedAIM, ...]
    local_channels: tuple[LocalChannel, ...]
    remote_channels: tuple[RemoteChannel, ...]
    boundary: tuple[BoundaryPort, ...]
    plain_models: bool = False
    """Whether the site lets its devices install models that are not encrypted."""
    rate: float = 1.0
    """Share of its full rate at which the workflow runs, for AIMs that set a pace."""
    standbys: tuple[DeployedAIM, ...] = ()
    """AIMs that run elsewhere and are kept ready here: code checked, model installed, nothing started."""


def sign(deployment: Deployment, signer: Callable[[bytes], bytes]) -> bytes:
    """The document as COSE_Sign1."""
    return cose.sign1(documents.encode(deployment), signer, external_aad=EXTERNAL_AAD, tagged=True)


def verify(data: bytes, public_key: bytes, *, device: str, mapping_floor: int) -> Deployment:
    """Check signature, form, recipient and freshness.

    Raises:
        SignatureInvalid, RemoteProtocolError: not a document of this Controller.
        TrustError: made for another device, or an unknown version.
        RollbackDetected: older than the mapping this device already runs.
    """
    payload = cose.verify1(
        data, public_key, external_aad=EXTERNAL_AAD, tagged=True, max_bytes=MAX_DOCUMENT_BYTES
    )
    deployment = documents.decode(Deployment, payload, max_bytes=MAX_DOCUMENT_BYTES)
    if deployment.version != VERSION:
        raise TrustError(
            f"deployment document version {deployment.version} is not known; this host speaks {VERSION}"
        )
    if deployment.device != device:
        raise TrustError(f"this deployment document is for {deployment.device}, not for {device}")
    if deployment.mapping_version < mapping_floor:
        raise RollbackDetected(
            f"mapping version {deployment.mapping_version} is older than {mapping_floor}, "
            "which this device ran"
        )
    _check(deployment)
    return deployment


def _check(deployment: Deployment) -> None:
    """Refuse what would be found only in the middle of building it."""
    every = (*deployment.aims, *deployment.standbys)
    ids = [aim.id for aim in every]
    if len(set(ids)) < len(ids):
        raise RemoteProtocolError("the deployment document names an AIM twice")
    for aim in every:
        digests = [aim.package_sha256, *([aim.model.sha256] if aim.model else [])]
        if any(len(digest) != HASH_BYTES for digest in digests):
            raise RemoteProtocolError(f"AIM {aim.id}: a SHA-256 has {HASH_BYTES} bytes")
        if aim.model is not None and not 0 < aim.model.bytes_ <= MAX_MODEL_BYTES:
            raise RemoteProtocolError(f"AIM {aim.id}: a model has 1 to {MAX_MODEL_BYTES} bytes")
    if not LEAST_RATE <= deployment.rate <= 1.0:
        raise RemoteProtocolError(f"the rate of a workflow is a share of {LEAST_RATE:g} to 1")
    channels = {channel.channel_id: channel for channel in deployment.remote_channels}
    for channel in deployment.remote_channels:
        _check_channel(channel)
        if channel.acknowledged is not None:
            _check_acknowledged(channel, channel.acknowledged, channels.get(channel.acknowledged.other))
    delays = [c.delay_records for c in deployment.remote_channels]
    delays += [c.delay_records for c in deployment.local_channels]
    if delays and not 0 <= min(delays) <= max(delays) <= MAX_QUEUE_DEPTH:
        raise RemoteProtocolError(f"the delay of a channel is 0 to {MAX_QUEUE_DEPTH} records")


def _check_channel(channel: RemoteChannel) -> None:
    if len(channel.channel_id) != CHANNEL_ID_BYTES:
        raise RemoteProtocolError(f"channel {channel.topic}: an id has {CHANNEL_ID_BYTES} bytes")
    if not 0 < len(channel.destinations) == len(channel.destination_devices):
        raise RemoteProtocolError(f"channel {channel.topic}: every destination needs its device")
    if channel.qos not in (0, 1):
        raise RemoteProtocolError(f"channel {channel.topic}: the quality of service is 0 or 1")
    if not MIN_FRAME_BYTES <= channel.max_frame_bytes <= HOST_LIMITS.max_frame_bytes:
        raise RemoteProtocolError(
            f"channel {channel.topic}: a frame has {MIN_FRAME_BYTES} to {HOST_LIMITS.max_frame_bytes} bytes"
        )
    if not 0 < channel.max_message_bytes <= HOST_LIMITS.max_message_bytes:
        raise RemoteProtocolError(
            f"channel {channel.topic}: a message has 1 to {HOST_LIMITS.max_message_bytes} bytes"
        )


def _check_acknowledged(channel: RemoteChannel, terms: Acknowledged, other: RemoteChannel | None) -> None:
    """One producer, one consumer, and the same between them the other way round."""
    back = other.acknowledged if other is not None else None
    if (
        other is None
        or back is None
        or back != replace(terms, other=channel.channel_id, returns=not terms.returns)
        or channel.destinations != (other.source,)
        or channel.destination_devices != (other.source_device,)
    ):
        raise RemoteProtocolError(f"channel {channel.topic}: its acknowledgements have no way back")
    if not (0 < terms.window <= MAX_QUEUE_DEPTH and 0 < terms.fan <= MAX_FAN) or (
        channel.delay_records or not 0 <= terms.state_bytes <= MAX_CARRIED_BYTES
    ):
        raise RemoteProtocolError(f"channel {channel.topic}: its terms cannot be acknowledged")
