"""Messages larger than a frame: cutting, and reassembly inside fixed bounds.

    0..3 message id u32 | 4..5 index u16 | 6..7 total u16 | 8..11 message length u32 | bytes

Decides layout, completeness and what is given up. Does not authenticate: a piece comes here only after its
own frame was good. Time is an argument.

Invariants: a message is complete only with all indices and the exact length; memory stays below
``REASSEMBLY_BYTES`` per channel whatever is announced, because only received bytes are kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.protocol.frame import Buffer
from aif.protocol.numbers import (
    FRAGMENT_COST_BYTES,
    FRAGMENT_HEADER_BYTES,
    FRAGMENT_LIMIT,
    FRAGMENT_TIMEOUT_MS,
    REASSEMBLY_BYTES,
    Cause,
    ChannelLimits,
)

_HEAD = struct.Struct(">IHHI")


@dataclass(frozen=True, slots=True)
class Fragment:
    """One piece of a message of ``message_bytes`` bytes."""

    message_id: int
    index: int
    total: int
    message_bytes: int
    chunk: bytes


def encode_fragments(message_id: int, message: Buffer, chunk_bytes: int) -> Iterator[bytes]:
    """Plaintexts of the frames that carry ``message``, each with at most ``chunk_bytes`` of it."""
    size = len(message)
    total = max(1, -(-size // chunk_bytes))
    if total > FRAGMENT_LIMIT:
        raise LocalProtocolError(
            f"a message of {size} bytes would need {total} fragments, at most {FRAGMENT_LIMIT} exist",
            hint="raise max_frame_bytes of the receivers",
        )
    view = memoryview(message)
    for index in range(total):
        head = _HEAD.pack(message_id, index, total, size)
        yield head + view[index * chunk_bytes : (index + 1) * chunk_bytes]


def decode_fragment(plaintext: bytes, max_message_bytes: int) -> Fragment:
    """One fragment, consistent in itself.

    Raises:
        RemoteProtocolError: counter ``fragment.size`` or ``fragment.order``.
    """
    if len(plaintext) < FRAGMENT_HEADER_BYTES:
        raise _refused(Cause.FRAGMENT_SIZE)
    message_id, index, total, message_bytes = _HEAD.unpack_from(plaintext)
    if index >= total:
        raise _refused(Cause.FRAGMENT_ORDER)
    chunk = plaintext[FRAGMENT_HEADER_BYTES:]
    # an empty piece would let 65 535 fragments announce a message of one byte
    if message_bytes > max_message_bytes or len(chunk) > message_bytes or not (chunk or total == 1):
        raise _refused(Cause.FRAGMENT_SIZE)
    return Fragment(message_id, index, total, message_bytes, chunk)


@dataclass(slots=True)
class _Partial:
    total: int
    message_bytes: int
    dies_ms: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    kept_bytes: int = 0

    def fits(self, piece: Fragment) -> Cause | None:
        if (piece.total, piece.message_bytes) != (self.total, self.message_bytes):
            return Cause.FRAGMENT_ORDER
        if piece.index in self.pieces:
            return Cause.FRAGMENT_ORDER
        size = self.kept_bytes + len(piece.chunk)
        last = len(self.pieces) + 1 == self.total
        wrong = size != self.message_bytes if last else size > self.message_bytes
        return Cause.FRAGMENT_SIZE if wrong else None


class Reassembler:
    """Partial messages of one channel, keyed by sender (any hashable) and message id."""

    __slots__ = ("_held_bytes", "_limits", "_partials")

    def __init__(self, limits: ChannelLimits) -> None:
        self._limits = limits
        self._partials: dict[tuple[object, int], _Partial] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._partials)

    def add(self, sender: object, piece: Fragment, *, now_ms: float) -> bytes | None:
        """Keep a piece; the message if it is complete now.

        Args:
            sender: whose piece it is.
            piece: checked by ``decode_fragment``.
            now_ms: starts the life of a new partial message.

        Raises:
            RemoteProtocolError: ``fragment.order`` for a repeated or contradicting piece, ``fragment.size``
                for a wrong sum or when the memory of the channel is used up (that message is given up).
        """
        key = (sender, piece.message_id)
        partial = self._partials.get(key)
        fresh = _Partial(piece.total, piece.message_bytes, now_ms + FRAGMENT_TIMEOUT_MS)
        candidate = partial or fresh
        cause = candidate.fits(piece)
        if cause is not None:
            raise _refused(cause)
        cost = len(piece.chunk) + FRAGMENT_COST_BYTES
        if self._held_bytes + cost > REASSEMBLY_BYTES:
            self._forget(key)
            raise _refused(Cause.FRAGMENT_SIZE)
        self._partials[key] = candidate
        self._held_bytes += cost
        candidate.pieces[piece.index] = piece.chunk
        candidate.kept_bytes += len(piece.chunk)
        if len(candidate.pieces) < candidate.total:
            return None
        self._forget(key)
        return b"".join(candidate.pieces[index] for index in range(candidate.total))

    def make_room(self, sender: object, piece: Fragment) -> bool:
        """Give up the sender's oldest partial message if ``piece`` starts one too many; whether it did."""
        if (sender, piece.message_id) in self._partials or piece.total == 1:
            return False
        own = [key for key in self._partials if key[0] == sender]
        if len(own) < self._limits.max_partial_messages:
            return False
        self._forget(own[0])
        return True

    def expire(self, now_ms: float) -> int:
        """Give up partial messages whose time is over; their number."""
        dead = [key for key, partial in self._partials.items() if now_ms >= partial.dies_ms]
        for key in dead:
            self._forget(key)
        return len(dead)

    def forget_sender(self, sender: object) -> int:
        """Give up everything of a sender that is gone; the number of messages."""
        dead = [key for key in self._partials if key[0] == sender]
        for key in dead:
            self._forget(key)
        return len(dead)

    def _forget(self, key: tuple[object, int]) -> None:
        partial = self._partials.pop(key, None)
        if partial is not None:
            self._held_bytes -= partial.kept_bytes + FRAGMENT_COST_BYTES * len(partial.pieces)


def _refused(cause: Cause) -> RemoteProtocolError:
    return RemoteProtocolError("fragment does not fit", counter=cause)
