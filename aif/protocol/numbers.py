"""Names and numbers of the AIF1 frame: types, modes, drop causes, limits and defaults.

Decides nothing but values; the rules that use them stand beside this file. Units are suffixes.
Limits marked *wire* are part of the format and bind every implementation; the others are policies of this
implementation and may be lowered by configuration or by a grant.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from aif.model.inventory import DeviceClass
from aif.model.ports import AuthMode as AuthMode  # noqa: PLC0414  # the alias tells strict typing of a re-export

VERSION = 1
"""Wire: high four bits of the first byte."""

HEADER_BYTES = 10
"""Wire: version and type 1, epoch 1, sender 2, counter 6."""

TAG_BYTES = 16
"""Wire: Poly1305 tag (RFC 8439 §2.8)."""

SIGNATURE_BYTES = 64
"""Wire: Ed25519 signature (RFC 8032 §5.1.6)."""

OVERHEAD_BYTES = HEADER_BYTES + TAG_BYTES
"""Wire: bytes that an unsigned frame adds to its plaintext."""

SIGNED_OVERHEAD_BYTES = OVERHEAD_BYTES + SIGNATURE_BYTES
"""Wire: bytes that a signed frame adds to its plaintext."""

KEY_BYTES = 32
"""Wire: ChaCha20-Poly1305 key and Ed25519 seed (RFC 8439 §2.3, RFC 8032 §5.1.5)."""

DIGEST_BYTES = 32
"""Wire: BLAKE2b-256 (RFC 7693)."""

CHANNEL_ID_BYTES = 16
"""Wire: BLAKE2b-128 over the description of the channel."""

ID_BYTES = 16
"""Wire: device, AIM instance and hardware class ids, and grant nonces."""

COUNTER_LIMIT = (1 << 48) - 1
"""Wire: frames per sender and epoch; the counter is 48 bit and its last value is never used."""

SENDER_INDEX_LIMIT = 1 << 16
"""Wire: sender indexes are below this."""

EPOCH_LIMIT = 1 << 32
"""Wire: epochs are below this; the header carries their low eight bits."""

WINDOW_FRAMES = 64
"""Wire: a counter is acceptable while it is less than this behind the highest one (RFC 4303 §3.4.3)."""

TAG_PREFIX_BYTES = 8
"""Bytes of the tag kept per window slot, to tell a redelivery from a second frame with the same counter."""

# --- bundles --------------------------------------------------------------------------------------

BUNDLE_MAX_MESSAGES = 1024
"""Wire: messages in one bundle."""

BUNDLE_DEFAULT_MESSAGES = 64
"""Messages after which a bundle is flushed."""

BUNDLE_DEFAULT_DELAY_MS = 1
"""Age of the oldest message, in ms, at which a bundle is flushed."""

BUNDLE_TURN_MS = 0.05
"""What follows a message within this time was written together with it: a write takes a tenth of that, an
answer over a broker at least twice as long. So nobody has to be woken to say that a turn is over."""

BUNDLE_BUSY_TURNS = 8
"""Single messages within ``max_delay_ms`` beyond which waiting for company pays: a frame costs its sender and
the broker about as much as eight messages inside one; an exchange over a broker makes at most five a ms."""

BUNDLE_DEFAULT_BYTES = 32_768
"""Plaintext bytes (lengths included) that a bundle may reach."""

BUNDLE_DEFAULT_MESSAGE_BYTES = 4096
"""A longer message travels alone."""

BUNDLE_LENGTH_LIMIT = 1 << 16
"""Wire: lengths inside a bundle are u16."""

# --- watermarks -----------------------------------------------------------------------------------

WATERMARK_BYTES = 17
"""Wire: flags 1, first 6, count 4, messages 6."""

WATERMARK_TRAFFIC_MS = 1_000
"""A watermark at least this often while frames are sent."""

WATERMARK_IDLE_MS = 10_000
"""A watermark at least this often while nothing is sent."""

WATERMARK_FRAMES = 32_768
"""Frames after which a watermark is due whatever the time."""

CHECKPOINT_FRAMES = 32
"""The same in checkpoint mode: one signature per 32 frames costs 2 B per frame."""

WATERMARK_GRACE_MS = 2_000
"""Time after a watermark in which frames it covers may still arrive."""

MISSED_HEARTBEATS = 3
"""Watermarks that may be missed before a sender counts as silent."""

UNVERIFIED_INTERVALS = 2
"""Checkpoint intervals in a row that could not be checked before delivery stops."""

OPEN_INTERVALS = 1_024
"""Watermark intervals of one sender that may wait for late frames; beyond it the oldest is settled early."""

OPEN_DIGESTS = 4_096
"""Frame digests kept per sender for checkpoints (32 B each); a longer interval cannot be checked."""

# --- fragments ------------------------------------------------------------------------------------

FRAGMENT_HEADER_BYTES = 12
"""Wire: message id 4, index 2, total 2, message length 4."""

FRAGMENT_LIMIT = (1 << 16) - 1
"""Wire: fragments of one message."""

FRAGMENT_TIMEOUT_MS = 5_000
"""Life of a partial message, from its first fragment."""

FRAGMENT_COST_BYTES = 256
"""Memory one kept fragment costs beside its bytes (table entry, object header, digest)."""

REASSEMBLY_BYTES = 40 * 1024 * 1024
"""Memory of all partial messages of one channel: eight of 4 MiB and their book-keeping."""

# --- control --------------------------------------------------------------------------------------

CONTROL_BODY_BYTES = 256
"""Wire: CBOR behind the control code."""

# --- receivers ------------------------------------------------------------------------------------

HELD_MS = 1_000
"""Time a frame with unknown sender or of the next epoch may wait for the roster."""

HELD_FRAMES = 64
"""Such frames per channel."""

HELD_BYTES = 64 * 1024
"""Bytes of such frames per channel."""

EPOCH_GRACE_MS = 30_000
"""Time the previous epoch is still accepted after a switch."""

RETIRE_GRACE_MS = 2_000
"""Time a leaving sender may still reconcile."""

EVENT_LIMIT = 1_024
"""Events of one channel that wait to be fetched; beyond it the oldest is dropped and counted."""

DEFAULT_MAX_FRAMES = 1 << 20
"""Frames after which the epoch key is changed."""


class FrameType(IntEnum):
    """Low four bits of the first byte; 10 to 15 are reserved."""

    DATA = 0
    DATA_SIGNED = 1
    WATERMARK = 2
    FRAGMENT = 3
    CONTROL = 4
    BUNDLE = 5
    BUNDLE_SIGNED = 6
    FRAGMENT_SIGNED = 7
    WATERMARK_SIGNED = 8
    CONTROL_SIGNED = 9


class ControlCode(IntEnum):
    """First byte of a control frame's plaintext; other values are reserved."""

    EPOCH_SWITCH = 1
    PORT_RESET = 2
    END_OF_STREAM = 3
    """The producer has finished: no message will follow, in this epoch or a later one."""


class Cause(StrEnum):
    """Why something was dropped, or what was noticed: one counter each, and nothing finer is ever told."""

    FRAME_SHORT = "frame.short"
    FRAME_SIZE = "frame.size"
    FRAME_VERSION = "frame.version"
    FRAME_TYPE = "frame.type"
    """A reserved type, or a watermark or control plaintext that its type does not allow."""
    FRAME_MODE = "frame.mode"
    FRAME_EPOCH = "frame.epoch"
    FRAME_SENDER = "frame.sender"
    FRAME_TAG = "frame.tag"
    FRAME_SIGNATURE = "frame.signature"
    FRAME_RETAINED = "frame.retained"
    DUP_REDELIVERY = "dup.redelivery"
    REPLAY_WINDOW = "replay.window"
    REPLAY_STALE = "replay.stale"
    BUNDLE_MALFORMED = "bundle.malformed"
    FRAGMENT_ORDER = "fragment.order"
    FRAGMENT_SIZE = "fragment.size"
    FRAGMENT_TIMEOUT = "fragment.timeout"
    LOSS_GAP = "loss.gap"
    LOSS_TAIL = "loss.tail"
    CHANNEL_SILENT = "channel.silent"
    AUTH_UNVERIFIED = "auth.unverified"
    AUTH_MISMATCH = "auth.mismatch"
    GRANT_SIGNATURE = "grant.signature"
    GRANT_RECIPIENT = "grant.recipient"
    GRANT_SERIAL = "grant.serial"
    GRANT_TIME = "grant.time"
    GRANT_MAPPING = "grant.mapping"
    GRANT_EXHAUSTED = "grant.exhausted"
    GATE_STAMP = "gate.stamp"
    """Said outside a session, without the stamp of device and site."""
    GATE_RATE = "gate.rate"


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """What one class of device can hold per channel."""

    max_frame_bytes: int
    """Largest frame; a grant carries the minimum over the receivers."""
    max_message_bytes: int
    """Largest message after reassembly."""
    max_partial_messages: int
    """Messages of one sender that may be incomplete at a time."""
    max_senders: int
    """Senders of one channel and epoch."""
    max_channels: int
    """Channels of one device."""
    tag_failures_per_s: int
    """Failed frames per channel after which logs are sampled."""


HOST_LIMITS = ChannelLimits(
    max_frame_bytes=64 * 1024,
    max_message_bytes=4 * 1024 * 1024,
    max_partial_messages=8,
    max_senders=256,
    max_channels=1_024,
    tag_failures_per_s=1_000,
)
"""Gateways and edge boxes."""

MCU_LIMITS = ChannelLimits(
    max_frame_bytes=4 * 1024,
    max_message_bytes=16 * 1024,
    max_partial_messages=1,
    max_senders=16,
    max_channels=32,
    tag_failures_per_s=50,
)
"""Microcontrollers; the device profile may lower ``max_frame_bytes`` to 1 KiB."""


def limits_of(device_class: DeviceClass) -> ChannelLimits:
    """What a device of a class can hold."""
    return MCU_LIMITS if device_class is DeviceClass.MCU else HOST_LIMITS
