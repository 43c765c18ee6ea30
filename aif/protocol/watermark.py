"""Watermarks: what a sender says it has sent, and when it says so.

    0        flags      bit 0 final, bit 1 hash present
    1..6     first      counter of the first frame since the previous watermark
    7..10    count      frames in the interval; first + count = this frame's own counter
    11..16   messages   messages sent in this epoch so far
    17..48   hash       checkpoint mode only:
                        H_i = b2("AIF1-WM" || H_{i-1} || d_first || ... || d_last)
                        H_0 = b2("AIF1-WM" || channel id || sender || epoch(4)),  d = b2(header || ct || tag)

Decides layout, hash chain and schedule. Does not compare a watermark with what arrived (``ledger.py``).

The chain covers ciphertext, not tags: whoever knows the key can make another ciphertext with the same tag.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from aif.errors import RemoteProtocolError
from aif.protocol.frame import digest
from aif.protocol.numbers import (
    CHECKPOINT_FRAMES,
    DIGEST_BYTES,
    WATERMARK_BYTES,
    WATERMARK_FRAMES,
    WATERMARK_IDLE_MS,
    WATERMARK_TRAFFIC_MS,
    AuthMode,
    Cause,
)

_BODY = struct.Struct(">BHIIHI")  # the two 48-bit values as 16 + 32 bits
_FINAL, _HASH = 1, 2
CHAIN_LABEL = b"AIF1-WM"
"""Prefix of every hash of the chain."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """One interval ``[first, first + count)`` and the number of messages since the epoch began."""

    first: int
    count: int
    messages: int
    final: bool = False
    hash: bytes | None = None

    def encode(self) -> bytes:
        flags = (_FINAL if self.final else 0) | (_HASH if self.hash is not None else 0)
        first, messages = self.first, self.messages
        low = 0xFFFF_FFFF
        body = _BODY.pack(flags, first >> 32, first & low, self.count, messages >> 32, messages & low)
        return body + (self.hash or b"")


def decode_watermark(plaintext: bytes, *, counter: int, mode: AuthMode) -> Watermark:
    """The watermark in a frame with this counter.

    Raises:
        RemoteProtocolError: wrong length, unknown flag, hash missing or unexpected in this mode, or an
            interval that does not end at the frame's own counter.
    """
    hashed = mode is AuthMode.CHECKPOINT
    if len(plaintext) != WATERMARK_BYTES + (DIGEST_BYTES if hashed else 0):
        raise _malformed()
    flags, first_high, first, count, messages_high, messages = _BODY.unpack_from(plaintext)
    first |= first_high << 32
    if flags & ~(_FINAL | _HASH) or bool(flags & _HASH) != hashed or first + count != counter:
        raise _malformed()
    chain = plaintext[WATERMARK_BYTES:] if hashed else None
    return Watermark(first, count, messages | messages_high << 32, bool(flags & _FINAL), chain)


def chain_start(channel: bytes, sender: int, epoch: int) -> bytes:
    """H_0 of a sender in an epoch."""
    return digest(CHAIN_LABEL + channel + sender.to_bytes(2, "big") + epoch.to_bytes(4, "big"))


def chain_link(previous: bytes, digests: Iterable[bytes]) -> bytes:
    """H_i from H_{i-1} and the digests of the interval's frames in counter order."""
    return digest(b"".join((CHAIN_LABEL, previous, *digests)))


def interval_frames(mode: AuthMode) -> int:
    """Frames after which ``ChannelSender`` seals a watermark by itself."""
    return CHECKPOINT_FRAMES if mode is AuthMode.CHECKPOINT else WATERMARK_FRAMES


class WatermarkSchedule:
    """When time makes a sender owe a watermark: after 1 s with traffic, after 10 s idle."""

    __slots__ = ("_last_ms",)

    def __init__(self, now_ms: float) -> None:
        self._last_ms = now_ms

    def due_ms(self, open_frames: int) -> float:
        """Time of the next watermark (in the past if overdue).

        Args:
            open_frames: frames since the last watermark (``ChannelSender.open_frames``).
        """
        return self._last_ms + (WATERMARK_TRAFFIC_MS if open_frames else WATERMARK_IDLE_MS)

    def sent(self, now_ms: float) -> None:
        """A watermark was sent."""
        self._last_ms = now_ms


def _malformed() -> RemoteProtocolError:
    return RemoteProtocolError("watermark is malformed", counter=Cause.FRAME_TYPE)
