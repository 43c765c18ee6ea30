"""Many small messages in one frame: the layout of a bundle, and when one is flushed.

    0..1      n        u16, 1 <= n <= 1024
    2..1+2n   len[i]   u16 each, 0 allowed
    2+2n..    payload[0] || ... || payload[n-1]

Decides layout and flush policy. Does not seal, and reads no clock: time is an argument.

Invariant: messages leave in the order they were added, each exactly once.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.model.packed import Packed
from aif.protocol.frame import Buffer
from aif.protocol.numbers import (
    BUNDLE_BUSY_TURNS,
    BUNDLE_DEFAULT_BYTES,
    BUNDLE_DEFAULT_DELAY_MS,
    BUNDLE_DEFAULT_MESSAGE_BYTES,
    BUNDLE_DEFAULT_MESSAGES,
    BUNDLE_LENGTH_LIMIT,
    BUNDLE_MAX_MESSAGES,
    BUNDLE_TURN_MS,
    SIGNED_OVERHEAD_BYTES,
    Cause,
)

_COUNT_BYTES = 2
_LENGTH_BYTES = 2


@lru_cache(maxsize=BUNDLE_MAX_MESSAGES + 1)
def _lengths(count: int) -> struct.Struct:
    return struct.Struct(f">{count}H")


def bundle_bytes(payloads: Sequence[Buffer]) -> int:
    """Plaintext size of a bundle of these payloads."""
    size = len(payloads.data) if type(payloads) is Packed else sum(map(len, payloads))
    return _COUNT_BYTES + _LENGTH_BYTES * len(payloads) + size


def encode_bundle(payloads: Sequence[Buffer]) -> bytes:
    """Plaintext of types 5 and 6.

    Args:
        payloads: 1..1024 messages of at most 65 535 bytes each.
    """
    count = len(payloads)
    if not 1 <= count <= BUNDLE_MAX_MESSAGES:
        raise LocalProtocolError(f"a bundle holds 1..{BUNDLE_MAX_MESSAGES} messages, not {count}")
    if type(payloads) is Packed and payloads.size_bytes < BUNDLE_LENGTH_LIMIT:
        lengths = payloads.size_bytes.to_bytes(_LENGTH_BYTES, "big") * count
        return b"".join((count.to_bytes(_COUNT_BYTES, "big"), lengths, payloads.data))
    sizes = list(map(len, payloads))
    if max(sizes) >= BUNDLE_LENGTH_LIMIT:
        raise LocalProtocolError(f"a bundled message has at most {BUNDLE_LENGTH_LIMIT - 1} bytes")
    return b"".join((count.to_bytes(_COUNT_BYTES, "big"), _lengths(count).pack(*sizes), *payloads))


def decode_bundle(plaintext: bytes) -> Sequence[bytes]:
    """Payloads in position order, `Packed` if all have one length.

    Raises:
        RemoteProtocolError: counter ``bundle.malformed``; the whole frame is dropped.
    """
    size = len(plaintext)
    count = int.from_bytes(plaintext[:_COUNT_BYTES], "big")
    start = _COUNT_BYTES + _LENGTH_BYTES * count
    if size < _COUNT_BYTES or not 1 <= count <= BUNDLE_MAX_MESSAGES or start > size:
        raise _malformed()
    first = plaintext[_COUNT_BYTES : _COUNT_BYTES + _LENGTH_BYTES]
    length = int.from_bytes(first, "big")
    if length and plaintext[_COUNT_BYTES:start] == first * count:
        if start + count * length != size:
            raise _malformed()
        return Packed(plaintext[start:], length)
    ends = list(accumulate(_lengths(count).unpack_from(plaintext, _COUNT_BYTES), initial=start))
    if ends[-1] != size:
        raise _malformed()
    return [plaintext[a:b] for a, b in pairwise(ends)]


def _malformed() -> RemoteProtocolError:
    return RemoteProtocolError("bundle is malformed", counter=Cause.BUNDLE_MALFORMED)


@dataclass(frozen=True, slots=True)
class BundlePolicy:
    """When a channel flushes; ``max_messages=1`` turns bundling off."""

    max_messages: int = BUNDLE_DEFAULT_MESSAGES
    max_delay_ms: float = BUNDLE_DEFAULT_DELAY_MS
    max_bytes: int = BUNDLE_DEFAULT_BYTES
    max_message_bytes: int = BUNDLE_DEFAULT_MESSAGE_BYTES

    def __post_init__(self) -> None:
        if not 1 <= self.max_messages <= BUNDLE_MAX_MESSAGES:
            raise LocalProtocolError(f"max_messages {self.max_messages} is outside 1..{BUNDLE_MAX_MESSAGES}")
        if not 0 <= self.max_message_bytes < BUNDLE_LENGTH_LIMIT:
            raise LocalProtocolError(
                f"max_message_bytes {self.max_message_bytes} is outside 0..{BUNDLE_LENGTH_LIMIT - 1}"
            )
        if self.max_bytes < 0 or self.max_delay_ms < 0:
            raise LocalProtocolError("max_bytes and max_delay_ms cannot be negative")


class Bundler:
    """Collects messages of one channel and says which batches leave now, and when the rest does.

    A batch is a sequence of payloads for ``ChannelSender.seal_batch``: one becomes a data frame, several a
    bundle. A message too large for the policy first flushes what is waiting, so order holds.

    Messages come in turns. The first message of a turn leaves at once; what comes within ``BUNDLE_TURN_MS``
    waits for ``flush``, which ends the turn. The owner calls it when ``wait_ms`` is over: 0 means as soon as
    whatever runs now has run. So neither an answer nor a burst ever waits for a timer, and a single message
    needs no second look. Only a stream whose messages come one per turn, more than ``BUNDLE_BUSY_TURNS`` of
    them within ``max_delay_ms``, is worth a wait of that long; it goes on while it fills bundles. A message
    found waiting alone was no stream: its sender waits for an answer; the next guess needs twice the turns.
    """

    __slots__ = (
        "_batch", "_busy", "_bytes", "_capacity", "_filled", "_oldest_ms", "_open", "_policy", "_since_ms",
        "_threshold", "_turns",
    )  # fmt: skip

    def __init__(self, policy: BundlePolicy, max_frame_bytes: int) -> None:
        self._policy = policy
        self._capacity = min(policy.max_bytes, max_frame_bytes - SIGNED_OVERHEAD_BYTES)
        self._batch: Sequence[Buffer] = []
        self._bytes = _COUNT_BYTES
        self._oldest_ms = 0.0
        self._open = False
        self._busy = False
        self._filled = False
        self._turns = 0
        self._since_ms = float("-inf")
        self._threshold = BUNDLE_BUSY_TURNS

    def add(self, payload: Buffer, now_ms: float) -> list[Sequence[Buffer]]:
        """Take a message; the batches to send now, oldest first (often none)."""
        if self.leaves_alone(now_ms):
            return [[payload]]
        policy = self._policy
        cost = _LENGTH_BYTES + len(payload)
        if len(payload) > policy.max_message_bytes or _COUNT_BYTES + cost > self._capacity:
            return [*self._take(), [payload]]
        out = self._take() if self._bytes + cost > self._capacity else []
        self._collect([payload], cost, now_ms)
        if len(self._batch) >= policy.max_messages or now_ms - self._oldest_ms >= policy.max_delay_ms:
            out += self._take()
        return out

    def leaves_alone(self, now_ms: float) -> bool:
        """Begin a turn if this is the time for one; whether its message leaves at once, without ``add``."""
        return self._policy.max_messages == 1 or (self._begins_turn(now_ms) and not self._holds_turn(now_ms))

    def add_all(self, payloads: Sequence[Buffer], now_ms: float) -> list[Sequence[Buffer]]:
        """Take messages that were written together; the batches to send now, oldest first.

        The same as `add` for each of them, except that they bundle where `add` sends the first of a turn at
        once: those that begin a turn leave together, all of them.
        """
        policy, count = self._policy, len(payloads)
        ends: Sequence[int]  # behind each message: what those up to it cost
        if type(payloads) is Packed:
            cost = _LENGTH_BYTES + payloads.size_bytes
            ends, largest = range(0, cost * count + 1, cost), cost
        else:
            costs = [_LENGTH_BYTES + size for size in map(len, payloads)]
            ends, largest = list(accumulate(costs, initial=0)), max(costs, default=0)
        longest = min(policy.max_message_bytes + _LENGTH_BYTES, self._capacity - _COUNT_BYTES)
        if policy.max_messages == 1 or count < 2 or largest > longest:
            return [batch for payload in payloads for batch in self.add(payload, now_ms)]
        out: list[Sequence[Buffer]] = []
        at_once = self._begins_turn(now_ms) and not self._holds_turn(now_ms)
        taken = 0
        while taken < count:
            # as many as the policy allows, then as many of these as the bytes allow
            upto = min(count, taken + policy.max_messages - len(self._batch))
            room = ends[taken] + self._capacity - self._bytes
            if ends[upto] > room:
                upto = bisect_right(ends, room) - 1
            self._collect(payloads[taken:upto], ends[upto] - ends[taken], now_ms)
            taken = upto
            if taken < count or len(self._batch) >= policy.max_messages:
                out += self._take()
        if at_once or now_ms - self._oldest_ms >= policy.max_delay_ms:
            out += self._take()
        return out

    def _collect(self, payloads: Sequence[Buffer], cost: int, now_ms: float) -> None:
        """Let messages wait, which cost so many bytes in a bundle."""
        batch = self._batch
        if not batch:
            self._oldest_ms, self._batch = now_ms, payloads
        elif type(batch) is Packed and type(payloads) is Packed and batch.size_bytes == payloads.size_bytes:
            self._batch = batch + payloads
        elif type(batch) is list:
            batch += payloads
        else:
            self._batch = [*batch, *payloads]
        self._bytes += cost

    def _begins_turn(self, now_ms: float) -> bool:
        """Whether this message is the first of a turn: the last one was ended, or nothing of it waits."""
        idle = not self._batch and not self._busy
        return not self._open or (idle and now_ms - self._oldest_ms >= BUNDLE_TURN_MS)

    def _holds_turn(self, now_ms: float) -> bool:
        """Begin a turn; whether even its first message waits, because turns come thick and fast."""
        self._open, self._filled = True, False
        if not self._busy:
            if now_ms - self._since_ms >= self._policy.max_delay_ms:
                self._since_ms, self._turns = now_ms, 0
            self._turns += 1
            self._busy = self._turns > self._threshold
        self._oldest_ms = now_ms
        return self._busy

    def _take(self) -> list[Sequence[Buffer]]:
        """The batch that is full, if one waits; the turn goes on."""
        if not self._batch:
            return []
        self._filled = True
        out, self._batch, self._bytes = [self._batch], [], _COUNT_BYTES
        return out

    def wait_ms(self, now_ms: float) -> float | None:
        """Time until ``flush`` must be called, 0 for the end of this turn; None while nothing waits."""
        if self._busy and self._open:
            return max(0.0, self._oldest_ms + self._policy.max_delay_ms - now_ms)
        return 0.0 if self._batch else None

    def flush(self) -> list[Sequence[Buffer]]:
        """Everything that waits: at the end of a turn, at port close, before a watermark and a new epoch."""
        if self._busy and not self._filled and len(self._batch) < BUNDLE_BUSY_TURNS:
            self._busy, self._turns = False, 0
            if len(self._batch) == 1:
                self._threshold *= 2
        out = self._take()
        self._open = self._filled = False
        return out
