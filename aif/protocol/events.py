"""What a channel tells its owner besides messages: losses, silence, failed authentication, control.

Plain frozen values; they hold ids and counts, never a key or a payload of a message.
"""

from __future__ import annotations

from dataclasses import dataclass

from aif.protocol.numbers import Cause, ControlCode


@dataclass(frozen=True, slots=True)
class LossReport:
    """Frames, or messages inside accepted frames, that will not be delivered any more.

    ``first`` and ``last`` bound the counters in which the loss lies (``last < first``: nothing later than
    ``first - 1`` was ever heard). ``messages`` is None when only the sender knows (it left without a final
    watermark); ``frames`` then counts the holes seen.
    """

    channel: bytes
    sender: int
    epoch: int
    first: int
    last: int
    frames: int
    messages: int | None
    reason: Cause
    """``loss.gap`` (later frames arrived) or ``loss.tail`` (none did)."""


@dataclass(frozen=True, slots=True)
class ChannelSilent:
    """Three heartbeats in a row did not come."""

    channel: bytes
    sender: int
    epoch: int
    silent_ms: float


@dataclass(frozen=True, slots=True)
class AuthFailure:
    """A checkpoint interval that could not be verified (loss), or that somebody else wrote to (mismatch).

    ``stopped``: delivery from this sender has ended and a new epoch key is needed.
    """

    channel: bytes
    sender: int
    epoch: int
    first: int
    last: int
    cause: Cause
    stopped: bool


@dataclass(frozen=True, slots=True)
class CloneSuspected:
    """Two different frames under one counter: a replay attempt, or a cloned or restored sender.

    Told once per sender and epoch; the counter ``replay.window`` has the number.
    """

    channel: bytes
    sender: int
    epoch: int
    counter: int


@dataclass(frozen=True, slots=True)
class ControlReceived:
    """A verified control frame. ``body`` is CBOR of at most 256 B, not yet decoded."""

    channel: bytes
    sender: int
    epoch: int
    code: ControlCode
    body: bytes


@dataclass(frozen=True, slots=True)
class ForgeriesRefused:
    """Frames whose tag or signature was wrong; told once a second at most, however many there are.

    ``over_budget``: more of them came in this second than this class of device should have to open.
    """

    channel: bytes
    frames: int
    over_budget: bool


ChannelEvent = LossReport | ChannelSilent | AuthFailure | CloneSuspected | ControlReceived | ForgeriesRefused
