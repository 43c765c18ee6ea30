"""The state that travels with an acknowledgement: a consumer's own, and that of everybody behind it.

A consumer and those that consume what it gives may be lost together. So what it says of itself holds what
they said of themselves, and the producer at the beginning of a way has the state of all AIMs on it.

```
[own or null, [[channel, run, number, state], ...]]     deterministic CBOR (RFC 8949 section 4.2)
```
``own`` is of the AIM after ``done`` of the acknowledgement; each other state stands for everything up to its
run and number on that channel, which is never less than what the AIM had given by then.

Decides the form alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aif.errors import RemoteProtocolError
from aif.model.delivery import MAX_CARRIED_BYTES
from aif.protocol import cbor
from aif.protocol.numbers import CHANNEL_ID_BYTES

_NUMBER = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class CarriedState:
    """State of an AIM (None for one without), and of its consumers by channel: (identity, state)."""

    own: bytes | None
    behind: Mapping[bytes, tuple[int, bytes]]


def pack_state(state: CarriedState) -> bytes:
    behind = [
        [channel, identity >> 64, identity & _NUMBER, data]
        for channel, (identity, data) in sorted(state.behind.items())
    ]
    return cbor.encode([state.own, behind])


def unpack_state(data: bytes) -> CarriedState:
    """Read state that a consumer gave away.

    Raises:
        RemoteProtocolError: it is something else.
    """
    match cbor.decode(data, max_bytes=MAX_CARRIED_BYTES):
        case [bytes() | None as own, list() as entries]:
            return CarriedState(own, dict(map(_behind, entries)))
        case _:
            raise RemoteProtocolError("the state of a consumer is malformed")


def _behind(entry: object) -> tuple[bytes, tuple[int, bytes]]:
    match entry:
        case [bytes() as channel, int() as run, int() as number, bytes() as state] if (
            len(channel) == CHANNEL_ID_BYTES and 0 <= run < 1 << 32 and 0 <= number <= _NUMBER
        ):
            return channel, (run << 64 | number, state)
        case _:
            raise RemoteProtocolError("the state behind a consumer is malformed")
