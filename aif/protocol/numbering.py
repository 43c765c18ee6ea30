"""Who a message on an acknowledged channel is, and how it and its acknowledgement look on the wire.

A message has an identity that outlives the AIM instance which made it, so that the same message made once
more by another instance can be told from a new one. An identity is a run and a number; as an integer it is
``run << 64 | number``, and identities of a channel only grow:

* An AIM without an acknowledged input is an origin. Its run is the mapping version under which the instance
  was made, its numbers count from 1.
* Every other AIM works in turns, each of which ends with one message of its acknowledged input. What a turn
  gives at an output has the run of that message, and the numbers ``number * fan + index``: at most ``fan``
  records, ``index`` counted from 0.

So an identity is known from what was consumed alone, whoever consumes it, wherever and however often.

On the wire a message is followed by its record (all integers big-endian)::

    0        kind            RECORD, STATE or END
    1..12    identity        run u32, number u64
    13..24   previous        identity of the message before it, or 0 when that one was acknowledged
    25..     record          empty for END

and an acknowledgement is::

    0        flags           AGAIN 1, GONE 2, STATE 4
    1..12    done            everything up to here is done with
    13..24   taken           everything up to here has arrived
    25..     state           of the consumer after ``done``, and of all behind it; only with STATE

Decides forms and arithmetic; what they mean to either side is said by ``outbox`` and ``intake``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.model.delivery import MAX_CARRIED_BYTES, MAX_FAN

_FORM = struct.Struct(">BIQIQ")
NUMBERED_BYTES = _FORM.size
"""What an acknowledged channel adds to a message."""

_NUMBER = (1 << 64) - 1
_RUN = (1 << 32) - 1


class Kind(IntEnum):
    """What a message on an acknowledged channel is."""

    RECORD = 0
    STATE = 1
    """The consumer's own state after ``identity``, given back to the one that goes on from there."""
    END = 2
    """The producer has come to its end."""


class Flag(IntFlag):
    """What an acknowledgement says beside its marks."""

    AGAIN = 1
    """Something is missing: send again what comes after ``taken``."""
    GONE = 2
    """The consumer is no more: what is not done with never will be."""
    STATE = 4


@dataclass(frozen=True, slots=True)
class Numbered:
    """A message as it travels."""

    kind: Kind
    identity: int
    previous: int
    record: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What a consumer says. ``done`` is 0 where it says nothing new; ``state`` belongs to ``done``."""

    done: int
    taken: int
    again: bool = False
    gone: bool = False
    state: bytes | None = None


def origin_identity(run: int, count: int) -> int:
    """Of the ``count``-th message (from 1) of an origin that was made under mapping version ``run``.

    Raises:
        LocalProtocolError: there are no numbers left.
    """
    if not (0 <= run <= _RUN and 0 < count < _NUMBER // MAX_FAN):
        raise LocalProtocolError(f"message {count} of run {run} has no number", hint="deploy again")
    return run << 64 | count


def derived_identity(turn: int, fan: int, index: int) -> int:
    """Of the record number ``index`` (from 0, below ``fan``) that a turn gives at one output.

    Raises:
        LocalProtocolError: the number does not fit.
    """
    number = (turn & _NUMBER) * fan + index
    if number > _NUMBER:
        raise LocalProtocolError(f"a message of run {turn >> 64} has no number", hint="deploy again")
    return turn >> 64 << 64 | number


def pack_numbered(kind: Kind, identity: int, previous: int, record: bytes) -> bytes:
    return _marks(kind, identity, previous) + record


def unpack_numbered(data: memoryview) -> Numbered:
    """Read a message.

    Raises:
        RemoteProtocolError: too short, of no known kind, or not after the one before it.
    """
    kind, identity, previous = _read(data)
    if kind > max(Kind) or previous >= identity:
        raise RemoteProtocolError("a numbered message is malformed")
    return Numbered(Kind(kind), identity, previous, data[NUMBERED_BYTES:])


def pack_acknowledgement(said: Acknowledgement) -> bytes:
    flags = Flag.AGAIN * said.again | Flag.GONE * said.gone | Flag.STATE * (said.state is not None)
    return _marks(flags, said.done, said.taken) + (said.state or b"")


def unpack_acknowledgement(data: bytes) -> Acknowledgement:
    """Read an acknowledgement.

    Raises:
        RemoteProtocolError: too short or too long, or with flags that do not exist.
    """
    flags, done, taken = _read(memoryview(data))
    state = bytes(data[NUMBERED_BYTES:])
    if flags > sum(Flag) or len(state) > (MAX_CARRIED_BYTES if flags & Flag.STATE else 0):
        raise RemoteProtocolError("an acknowledgement is malformed")
    return Acknowledgement(
        done, taken, bool(flags & Flag.AGAIN), bool(flags & Flag.GONE), state if flags & Flag.STATE else None
    )


def _marks(first: int, one: int, other: int) -> bytes:
    return _FORM.pack(first, one >> 64, one & _NUMBER, other >> 64, other & _NUMBER)


def _read(data: memoryview) -> tuple[int, int, int]:
    if len(data) < NUMBERED_BYTES:
        raise RemoteProtocolError(f"{len(data)} B are shorter than what an acknowledged channel adds")
    first, run, number, other_run, other_number = _FORM.unpack_from(data)
    return first, run << 64 | number, other_run << 64 | other_number
