"""Messages of one length, side by side in one piece of memory, as records of fixed size are.

Decides how such messages are held. Does not decide what they mean, nor how a frame carries them.

Why there is a class for it: measuring, cutting and joining each message of a bundle costs about 0.15 us per
message at either end, where all the rest takes 0.3 to 0.5. Whoever knows this class does it once for all of
them; to everybody else it is a sequence of bytes.

Invariant: ``data`` holds whole messages, at least one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import overload


@lru_cache(maxsize=64)
def _cut(size_bytes: int) -> struct.Struct:
    return struct.Struct(f"{size_bytes}s")


@dataclass(frozen=True, slots=True)
class Packed(Sequence[bytes]):
    """Messages of ``size_bytes`` each, in order.

    Attributes:
        data: all of them, joined.
        size_bytes: length of each, at least 1; it divides the length of ``data``, which is not empty.
    """

    data: bytes
    size_bytes: int

    def __len__(self) -> int:
        return len(self.data) // self.size_bytes

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        size = self.size_bytes
        if isinstance(index, int):
            begin = range(0, len(self.data), size)[index]
            return self.data[begin : begin + size]
        places = range(len(self))[index]
        if places.step == 1 and places:
            return Packed(self.data[places.start * size : places.stop * size], size)
        return [self[place] for place in places]

    def __iter__(self) -> Iterator[bytes]:
        # `struct` cuts them in 0.03 us each, slices take 0.09
        return chain.from_iterable(_cut(self.size_bytes).iter_unpack(self.data))

    def __add__(self, other: Packed) -> Packed:
        """These and others of the same length behind them."""
        if other.size_bytes != self.size_bytes:
            raise ValueError(f"messages of {self.size_bytes} B and {other.size_bytes} B do not pack together")
        return Packed(self.data + other.data, self.size_bytes)

    def share(self, lead_bytes: int) -> bool:
        """Whether all messages begin with the same ``lead_bytes``, of which each has at least so many."""
        data, size, count = self.data, self.size_bytes, len(self)
        return all(data[at::size] == data[at : at + 1] * count for at in range(lead_bytes))


def pack(messages: Sequence[bytes]) -> Packed:
    """Messages of one length, at least one of them."""
    return Packed(b"".join(messages), len(messages[0]))
