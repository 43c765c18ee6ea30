"""A subscriber to everything that looks for plaintext where only sealed frames belong.

Decides which byte strings give known plaintext away and whether a message holds one. Does not decide what
follows, opens no frame and has no key: it sees what anyone on the broker sees.

Invariants: a message that holds a needle at any offset is found; one that holds none is not (the table only
rules positions out, the comparison is of all 16 bytes, and sealed bytes equal a given needle with probability
2**-128). It needs a connection of its own, since the filters of one connection may not overlap.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from aif.authoring.recording import Recording
from aif.errors import LocalProtocolError, TransportError
from aif.transport.base import Received, Subscription, Transport

NEEDLE_BYTES: Final = 16
MIN_DISTINCT_BYTES: Final = 6
"""A needle with fewer distinct values, such as a stretch of silence, may occur anywhere by chance."""
MAX_NEEDLES: Final = 200_000
MAX_FINDS: Final = 10
"""Finds that are described; all are counted."""

_SLOTS_PER_NEEDLE_BITS: Final = 5
"""32 table slots per needle let 3 % of random positions through to the comparison."""
_MIXER: Final = np.uint64(0x9E3779B97F4A7C15)
"""2**64 / golden ratio: multiplicative hashing (Knuth, TAOCP vol. 3, §6.4)."""

Bytes = npt.NDArray[np.uint8]


class Needles:
    """Pieces of known plaintext, and a table that rules out almost every other position at once."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """Prepare a search.

        Args:
            pieces: byte strings of 16 bytes each.

        Raises:
            LocalProtocolError: none, or one of another length; a search for nothing would always succeed.
        """
        self._pieces = frozenset(pieces)
        if not self._pieces:
            raise LocalProtocolError("there is no known plaintext to look for")
        if any(len(piece) != NEEDLE_BYTES for piece in self._pieces):
            raise LocalProtocolError(f"a needle has {NEEDLE_BYTES} bytes")
        bits = min(24, len(self._pieces).bit_length() + _SLOTS_PER_NEEDLE_BITS)
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, np.bool_)
        heads = np.frombuffer(b"".join(self._pieces), "<u8")[::2]
        self._table[(heads * _MIXER) >> self._shift] = True

    def __len__(self) -> int:
        return len(self._pieces)

    def first_in(self, payload: bytes) -> int | None:
        """Offset of the first needle in ``payload``, at any alignment; None if it holds none."""
        positions = len(payload) - NEEDLE_BYTES + 1
        if positions < 1:
            return None
        heads: npt.NDArray[np.uint64] = np.ndarray((positions,), "<u8", payload, 0, (1,))
        for start in np.flatnonzero(self._table[(heads * _MIXER) >> self._shift]).tolist():
            if payload[start : start + NEEDLE_BYTES] in self._pieces:
                return int(start)
        return None


def needles_from_recording(recording: Recording) -> Needles:
    """Needles from raw sensor windows as they would stand in a record: little-endian, row by row.

    The windows are cut into pieces one after the other, so 31 bytes in a row hold a whole one. Of very long
    recordings evenly spread pieces are taken.

    Raises:
        LocalProtocolError: every piece is too uniform to be told from chance.
    """
    rows = recording.samples.reshape(len(recording), -1).astype("<i2").view(np.uint8)
    per_window = rows.shape[1] // NEEDLE_BYTES
    pieces = rows[:, : per_window * NEEDLE_BYTES].reshape(-1, NEEDLE_BYTES)
    if len(pieces) > MAX_NEEDLES:
        pieces = pieces[np.linspace(0, len(pieces) - 1, MAX_NEEDLES).astype(np.int64)]
    return Needles(piece.tobytes() for piece in _telling(pieces))


def _telling(pieces: Bytes) -> Bytes:
    """Those with enough distinct byte values."""
    ordered = np.sort(pieces, axis=1)
    distinct = 1 + np.count_nonzero(np.diff(ordered, axis=1), axis=1)
    chosen: Bytes = pieces[distinct >= MIN_DISTINCT_BYTES]
    return chosen


@dataclass(frozen=True, slots=True)
class Find:
    """A message that held known plaintext, and where."""

    topic: str
    offset: int


@dataclass(frozen=True, slots=True)
class WireReport:
    """What was seen. ``missed`` arrived and was dropped unseen; ``finds`` are the first of ``plaintext``."""

    messages: int
    bytes_: int
    plaintext: int
    missed: int
    finds: tuple[Find, ...]


class WireTap:
    """Watches everything that a broker carries, as long as the ``async with`` block lasts."""

    def __init__(self, transport: Transport, needles: Needles) -> None:
        """Prepare to watch over a connected transport that has no other filter; the caller closes it."""
        self._transport, self._needles = transport, needles
        self._messages = self._bytes = self._plaintext = 0
        self._finds: list[Find] = []
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        """Subscribe to everything.

        Raises:
            TransportError: the broker refuses, or there is no connection.
        """
        self._subscription = await self._transport.subscribe("#", self._look, qos=0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._subscription is not None:
            with suppress(TransportError):  # the broker is gone or slow; nothing more is watched either way
                await self._subscription.aclose()
            self._subscription = None

    def report(self) -> WireReport:
        """What was seen until now."""
        missed = self._transport.statistics.dropped_incoming
        return WireReport(self._messages, self._bytes, self._plaintext, missed, tuple(self._finds))

    def _look(self, message: Received) -> None:
        self._messages += 1
        self._bytes += len(message.payload)
        offset = self._needles.first_in(message.payload)
        if offset is not None:
            self._plaintext += 1
            if len(self._finds) < MAX_FINDS:
                self._finds.append(Find(message.topic, offset))
