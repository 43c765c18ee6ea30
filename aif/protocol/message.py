"""One inter-module message: a 12-byte header and the canonical record, the plaintext of an AIF1 frame.

```
0..7     origin   u64 big-endian, when the source record was made, microseconds since the Unix epoch
8..11    age      u32 big-endian, microseconds from then until this hop sent it (saturating)
12..     record   canonical encoding of the port's record type
```
The header is what ``max_age_ms``, joins by time stamp, and latency figures need; an AIM's record need
not repeat it. Frame headers and this one are big-endian, the record inside is little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from aif.errors import RemoteProtocolError
from aif.model.packed import Packed

HEADER = struct.Struct(">QI")
MAX_AGE_US = 0xFFFF_FFFF
MAX_ORIGIN_US = 0xFFFF_FFFF_FFFF_FFFF


_HEADER_OF = itemgetter(slice(HEADER.size))


def header(origin_us: int, now_us: int) -> bytes:
    """What stands before a record, or before each record of a batch.

    Args:
        origin_us: when the source record was made; what the header cannot hold is cut to its range.
        now_us: this sender's wall clock, in the same units.
    """
    if not 0 <= origin_us <= MAX_ORIGIN_US:
        origin_us = min(max(origin_us, 0), MAX_ORIGIN_US)
    age_us = now_us - origin_us
    if not 0 <= age_us <= MAX_AGE_US:
        age_us = min(max(age_us, 0), MAX_AGE_US)
    return HEADER.pack(origin_us, age_us)


def pack(origin_us: int, now_us: int, record: bytes | memoryview) -> bytes:
    """Header and record; arguments as in `header`, and the canonical bytes."""
    return header(origin_us, now_us) + record


def unpack(payload: bytes | memoryview) -> tuple[int, int, memoryview]:
    """(origin_us, sent_us, record bytes without a copy).

    Raises:
        RemoteProtocolError: shorter than a header.
    """
    return *_times(payload), memoryview(payload)[HEADER.size :]


def _times(payload: bytes | memoryview) -> tuple[int, int]:
    """(origin_us, sent_us); raises as `unpack`."""
    try:
        origin_us, age_us = HEADER.unpack_from(payload)
    except struct.error as error:
        raise RemoteProtocolError(f"a message of {len(payload)} B is shorter than its header") from error
    return origin_us, origin_us + age_us


def runs(payloads: Sequence[bytes]) -> list[tuple[int, int, Sequence[bytes]]]:
    """(origin_us, sent_us, payloads) of neighbours with the same header, in order.

    Records that were written together have the same header, so it is read once: comparing its twelve bytes
    costs 0.01 to 0.05 us per message, reading them 0.2.

    Raises:
        RemoteProtocolError: one is shorter than a header.
    """
    if len(payloads) == 1 or _alike(payloads):
        return [(*_times(payloads[0]), payloads)]
    found: list[tuple[int, int, Sequence[bytes]]] = []
    start = 0
    for _, run in groupby(payloads, _HEADER_OF):
        end = start + len(list(run))
        found.append((*_times(payloads[start]), payloads[start:end]))
        start = end
    return found


def _alike(payloads: Sequence[bytes]) -> bool:
    if type(payloads) is Packed:
        return payloads.size_bytes >= HEADER.size and payloads.share(HEADER.size)
    return len(set(map(_HEADER_OF, payloads))) == 1
