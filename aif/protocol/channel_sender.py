"""The sending end of one channel: payloads in, frames out.

Decides type, counter and signature of every frame, and after how many of them a watermark must stand. Does
not decide when to send (``Bundler``, ``WatermarkSchedule``) and does no I/O. Not safe for concurrent use.

Invariants: the counter is taken before sealing, so a frame that fails or is never published consumes it and
no (key, nonce) repeats; an object never starts over: a new epoch, boot or mapping gets a new key and a new
object; an old frame is never sealed again; ``seal_batch`` and ``seal_fragments`` never seal more than
``interval_frames`` frames without a watermark, so that a receiver can check every checkpoint. They put it in
front of the frame that would be one too many; whoever has time before that, while nobody waits, seals it as
soon as ``frames`` has come to ``watermark_at``.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from aif.errors import LocalProtocolError
from aif.protocol.bundle import bundle_bytes, encode_bundle
from aif.protocol.fragment import encode_fragments
from aif.protocol.frame import SIGNED_TYPES, Buffer, FrameSealer, digest
from aif.protocol.numbers import (
    CONTROL_BODY_BYTES,
    COUNTER_LIMIT,
    DEFAULT_MAX_FRAMES,
    DIGEST_BYTES,
    FRAGMENT_HEADER_BYTES,
    HOST_LIMITS,
    OVERHEAD_BYTES,
    SIGNED_OVERHEAD_BYTES,
    WATERMARK_BYTES,
    AuthMode,
    Cause,
    ControlCode,
    FrameType,
)
from aif.protocol.watermark import CHAIN_LABEL, Watermark, chain_start, interval_frames

_MINIMUM_FRAME = SIGNED_OVERHEAD_BYTES + WATERMARK_BYTES + DIGEST_BYTES


class ChannelSender:
    """Seals everything one AIM instance sends on one channel in one epoch."""

    __slots__ = (
        "_aead",
        "_bundle",
        "_chain",
        "_control",
        "_data",
        "_first",
        "_fragment",
        "_interval",
        "_limit",
        "_max_frame_bytes",
        "_max_message_bytes",
        "_max_payload",
        "_message_id",
        "_overhead",
        "_sealer",
        "_watermark",
        "frames",
        "messages",
        "watermark_at",
    )

    def __init__(
        self,
        channel: bytes,
        epoch: int,
        sender: int,
        key: bytes,
        mode: AuthMode,
        *,
        sign_key: bytes | None = None,
        max_frames: int = DEFAULT_MAX_FRAMES,
        max_frame_bytes: int = HOST_LIMITS.max_frame_bytes,
        max_message_bytes: int = HOST_LIMITS.max_message_bytes,
        first_interval: int = 0,
    ) -> None:
        """Bind the sender.

        Args:
            channel: 16-byte channel id.
            epoch: 32-bit epoch.
            sender: index given by the Controller.
            key: ``sender_key`` of this epoch.
            mode: the channel's ``auth``.
            sign_key: 32-byte Ed25519 seed; needed unless the mode is ``aead``.
            max_frames: of the grant.
            max_frame_bytes: of the grant, the minimum over the receivers.
            max_message_bytes: longest message the receivers reassemble.
            first_interval: frames before the first watermark; 0 for as many as between others, which is most.
        """
        if mode is not AuthMode.AEAD and sign_key is None:
            raise LocalProtocolError(f"a sender in {mode} mode needs a frame-sign key")
        if max_frame_bytes < _MINIMUM_FRAME:
            raise LocalProtocolError(f"max_frame_bytes {max_frame_bytes} is below {_MINIMUM_FRAME}")
        self._sealer = FrameSealer(channel, epoch, sender, key, sign_key)
        self._aead = mode is AuthMode.AEAD
        signed = mode is AuthMode.SIGNED
        self._data = FrameType.DATA_SIGNED if signed else FrameType.DATA
        self._bundle = FrameType.BUNDLE_SIGNED if signed else FrameType.BUNDLE
        self._fragment = FrameType.FRAGMENT_SIGNED if signed else FrameType.FRAGMENT
        self._watermark = FrameType.WATERMARK if self._aead else FrameType.WATERMARK_SIGNED
        self._control = FrameType.CONTROL if self._aead else FrameType.CONTROL_SIGNED
        self._overhead = SIGNED_OVERHEAD_BYTES if signed else OVERHEAD_BYTES
        self._limit = min(max_frames, COUNTER_LIMIT)
        self._max_frame_bytes, self._max_message_bytes = max_frame_bytes, max_message_bytes
        self._max_payload = max_frame_bytes - self._overhead
        self._interval = interval_frames(mode)
        self._first = 0
        self._message_id = 0
        self._chain = None if mode is not AuthMode.CHECKPOINT else _chain(chain_start(channel, sender, epoch))
        self.messages = 0
        """Messages sealed in this epoch."""
        self.frames = 0
        """Frames sealed, of every type; also the next counter. Written here alone, as the two others."""
        self.watermark_at = min(first_interval or self._interval, self._interval)
        """The count of frames with which a watermark is due, before the next frame at the latest."""

    @property
    def open_frames(self) -> int:
        """Frames since the last watermark."""
        return self.frames - self._first

    @property
    def remaining_frames(self) -> int:
        """Frames the grant still allows."""
        return self._limit - self.frames

    def seal(self, payload: Buffer) -> bytes:
        """One message in one frame.

        Raises:
            LocalProtocolError: the payload needs ``seal_fragments``, or the grant is exhausted.
        """
        if len(payload) > self._max_payload:
            raise LocalProtocolError(
                f"a payload of {len(payload)} bytes exceeds the {self._max_payload} bytes of a frame",
                hint="send it with seal_fragments, or raise max_frame_bytes of the receivers",
            )
        frame = self._frame(self._data, payload)
        self.messages += 1
        return frame

    def seal_bundle(self, payloads: Sequence[Buffer]) -> bytes:
        """Several messages, in order, in one frame."""
        plaintext = encode_bundle(payloads)
        if len(plaintext) > self._max_payload:
            raise LocalProtocolError(
                f"a bundle of {len(plaintext)} bytes exceeds the {self._max_payload} bytes of a frame"
            )
        frame = self._frame(self._bundle, plaintext)
        self.messages += len(payloads)
        return frame

    def seal_fragments(self, message: Buffer) -> list[bytes]:
        """One message in all the frames it needs, and the watermarks due before them; on error none."""
        if len(message) > self._max_message_bytes:
            raise LocalProtocolError(
                f"a message of {len(message)} bytes exceeds the limit of {self._max_message_bytes} bytes"
            )
        chunk = self._max_payload - FRAGMENT_HEADER_BYTES
        plaintexts = list(encode_fragments(self._message_id, message, chunk))
        count = len(plaintexts)
        if count + (self.open_frames + count - 1) // self._interval > self.remaining_frames:
            raise self._exhausted()
        self._message_id = (self._message_id + 1) & 0xFFFF_FFFF
        frames: list[bytes] = []
        for number, plaintext in enumerate(plaintexts, start=1):
            self._add_watermark(frames)
            frames.append(self._frame(self._fragment, plaintext))
            self.messages += number == count
        return frames

    def seal_batch(self, payloads: Sequence[Buffer]) -> list[bytes]:
        """Whatever frames carry these messages best: a batch of the ``Bundler``, or any other sequence.

        A watermark that is due stands before the first of them, and between them.
        """
        frames: list[bytes] = []
        if len(payloads) > 1 and bundle_bytes(payloads) <= self._max_payload:
            self._add_watermark(frames)
            frames.append(self.seal_bundle(payloads))
            return frames
        for payload in payloads:
            if len(payload) <= self._max_payload:
                self._add_watermark(frames)
                frames.append(self.seal(payload))
            else:
                frames += self.seal_fragments(payload)
        return frames

    def _add_watermark(self, frames: list[bytes]) -> None:
        if self.frames >= self.watermark_at:
            frames.append(self.seal_watermark())

    def seal_watermark(self, *, final: bool = False) -> bytes:
        """What has been sent since the last watermark; ``final`` when the sender leaves or the epoch ends."""
        chain = self._chain.digest() if self._chain is not None else None
        counter = self.frames
        mark = Watermark(self._first, counter - self._first, self.messages, final, chain)
        frame = self._frame(self._watermark, mark.encode())
        self._first = counter + 1
        self.watermark_at = self._first + self._interval
        if chain is not None:
            self._chain = _chain(chain)
        return frame

    def seal_control(self, code: ControlCode, body: bytes) -> bytes:
        """A control frame; ``body`` is deterministic CBOR of at most 256 bytes."""
        if len(body) > CONTROL_BODY_BYTES:
            raise LocalProtocolError(
                f"a control body has at most {CONTROL_BODY_BYTES} bytes, not {len(body)}"
            )
        return self._frame(self._control, bytes([code]) + body)

    def _frame(self, kind: FrameType, plaintext: Buffer) -> bytes:
        counter = self.frames
        if counter >= self._limit:
            raise self._exhausted()
        self.frames = counter + 1  # before sealing: a counter is never handed out twice
        body = self._sealer.seal(kind, counter, plaintext)
        if self._aead:
            return body
        if self._chain is not None:
            self._chain.update(digest(body))
        if not _SIGNS[kind]:
            return body
        return body + self._sealer.signature(body)

    def _exhausted(self) -> LocalProtocolError:
        return LocalProtocolError(
            f"{Cause.GRANT_EXHAUSTED}: {self.frames} of {self._limit} frames of this grant are used",
            hint="ask the Controller for the next epoch before the grant runs out",
        )


_SIGNS = tuple(kind in SIGNED_TYPES for kind in FrameType)


def _chain(previous: bytes) -> blake2b:
    return blake2b(CHAIN_LABEL + previous, digest_size=DIGEST_BYTES)
