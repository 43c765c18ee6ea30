"""The messages that are sent, and the receiver's proof that exactly these arrived.

Decides content, sequence and digest. The pool is made before the clock starts, for every contender alike;
message *n* of a run is entry ``n % len(pool)``. Receivers check the sequence of every message and keep a
CRC-32 over the content of all of them; in the end it must be that of what was sent.

Invariant: one lost, repeated, reordered or altered message raises :class:`InvalidRun` or changes the digest.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from aif.protocol.numbers import BUNDLE_DEFAULT_MESSAGES

SEQUENCE_BYTES = 4
"""A message is a uint32 sequence number (little-endian) and its data; together ``size_bytes``."""

BURST_MESSAGES = 256
"""Messages handed over between two looks at the clock and the receiver's progress."""

WINDOW_BYTES = 8 << 20
"""Content on its way at any time; keeps what a fast sender piles up in the broker bounded."""

WINDOW_PUBLISHES = 8_192
"""The same in packets: below the queues of all clients here, so that none of them has to drop."""

WINDOW_STEPS = 8
"""The receiver reports its progress so many times per window."""

POOL_BYTES = 16 << 20
POOL_MESSAGES = 16_384

Buffer = bytes | memoryview


class InvalidRun(Exception):  # noqa: N818 - a verdict on a measurement, not an error of the program
    """A run whose figures mean nothing: a message was lost, repeated, altered or not checked."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes that follow from message size and bundle; both sides compute the same."""

    size_bytes: int
    bundle: int

    @property
    def data_bytes(self) -> int:
        return self.size_bytes - SEQUENCE_BYTES

    @property
    def burst(self) -> int:
        """Messages per burst, a multiple of the bundle."""
        bundle = max(1, self.bundle)
        most = max(1, min(BURST_MESSAGES, WINDOW_BYTES // WINDOW_STEPS // self.size_bytes))
        return bundle * max(1, most // bundle)

    @property
    def step(self) -> int:
        """Messages between two progress reports, a multiple of the burst."""
        per_packet = self.bundle or BUNDLE_DEFAULT_MESSAGES  # the default bundles a burst as far as it may
        window = min(WINDOW_BYTES // self.size_bytes, WINDOW_PUBLISHES * per_packet)
        return self.burst * max(1, window // WINDOW_STEPS // self.burst)

    @property
    def window(self) -> int:
        """Messages that may be on their way."""
        return self.step * WINDOW_STEPS

    @property
    def pool(self) -> int:
        """Distinct messages, a multiple of the burst."""
        most = min(POOL_MESSAGES, POOL_BYTES // self.size_bytes)
        return self.burst * max(1, most // self.burst)


class Pool:
    """The distinct messages of a run, from its seed."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self._bytes = random.Random(seed).randbytes(shape.pool * shape.data_bytes)

    def data(self, index: int) -> bytes:
        """Data of entry ``index``, 0 to ``shape.pool - 1``."""
        size = self.shape.data_bytes
        return self._bytes[index * size : (index + 1) * size]

    def digest(self, count: int) -> int:
        """CRC-32 over the data of the first ``count`` messages of a run."""
        cycles, rest = divmod(count, self.shape.pool)
        crc = 0
        for _ in range(cycles):
            crc = zlib.crc32(self._bytes, crc)
        return zlib.crc32(memoryview(self._bytes)[: rest * self.shape.data_bytes], crc)


class Verifier:
    """Counts, checks the sequence and digests what arrives, a batch at a time."""

    def __init__(self, pool_size: int) -> None:
        self.count = 0
        self.crc = 0
        self._expected = list(range(pool_size)) * 2
        self._pool = pool_size

    def take(self, sequences: Sequence[int], contents: Sequence[Buffer]) -> None:
        """Check the next messages.

        Args:
            sequences: at most a pool's length.
            contents: their data, in the same order.

        Raises:
            InvalidRun: a gap, a repetition or a swap.
        """
        start = self.count % self._pool
        if sequences != self._expected[start : start + len(sequences)]:
            where = next(
                (
                    i
                    for i, (a, b) in enumerate(zip(sequences, self._expected[start:], strict=False))
                    if a != b
                ),
                0,
            )
            raise InvalidRun(
                f"message {self.count + where}: sequence {sequences[where]} where "
                f"{self._expected[start + where]} was due: a message was lost, repeated or swapped"
            )
        self.crc = zlib.crc32(b"".join(contents), self.crc)
        self.count += len(sequences)
