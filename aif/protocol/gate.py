"""The gate before messages that are costly to check: what carries no stamp goes no further.

Decides what passes, from its stamp, its number and how much has passed lately. Does not decide what a message
is worth: its signature or wrap is checked behind the gate.

Invariants: what has no valid stamp costs one hash and takes nothing from anybody; a message that is newer
than all before it never waits behind one that is not, so recordings cannot keep a fresh word out; every
refusal has a cause and is counted. Constant memory per gate.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from aif.errors import RemoteProtocolError, SignatureInvalid
from aif.protocol.numbers import Cause
from aif.protocol.stamp import check_stamp


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may pass: ``burst`` at once, ``per_s`` in the long run."""

    per_s: float
    burst: int


FRESH: Final = Budget(per_s=8.0, burst=16)
"""Messages of one kind of a device that a site looks at: a hello or an answer takes it some 0.3 ms."""

ANY: Final = Budget(per_s=1_000.0, burst=2_048)
"""Fresh messages of the site that a device looks at: twice the grants of all the channels a host may have."""

STALE: Final = Budget(per_s=1.0, burst=4)
"""Messages with a valid stamp that are not newer than all before: redelivered, recorded, or of a clock that
was set back. Enough for the last to come through."""


class TokenBucket:
    """A budget that is spent and fills again."""

    __slots__ = ("_budget", "_filled_ms", "_left")

    def __init__(self, budget: Budget) -> None:
        self._budget, self._left, self._filled_ms = budget, float(budget.burst), 0.0

    def take(self, now_ms: float) -> bool:
        """Spend one, if there is one; ``now_ms`` is monotonic."""
        earned = max(0.0, now_ms - self._filled_ms) / 1000.0 * self._budget.per_s
        self._left, self._filled_ms = min(float(self._budget.burst), self._left + earned), now_ms
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Gate:
    """One topic's gate.

    Args:
        topic: of the messages.
        fresh: how many newer messages may pass.
        newest: number below which a message is not new from the beginning.
    """

    def __init__(self, topic: str, *, fresh: Budget, newest: int = 0) -> None:
        self._topic, self._newest = topic, newest
        self._fresh, self._stale = TokenBucket(fresh), TokenBucket(STALE)
        self.refused: Counter[str] = Counter()
        """By cause (``Cause.GATE_STAMP``, ``Cause.GATE_RATE``)."""

    def admit(self, key: bytes, data: bytes, now_ms: float) -> bytes:
        """The message in ``data``, if it may pass now.

        Raises:
            RemoteProtocolError: it may not; ``counter`` names the cause.
        """
        try:
            message, number = check_stamp(key, self._topic, data)
        except (RemoteProtocolError, SignatureInvalid) as error:
            raise self._refusal(Cause.GATE_STAMP, str(error)) from error
        fresh = number > self._newest
        if not (self._fresh if fresh else self._stale).take(now_ms):
            raise self._refusal(
                Cause.GATE_RATE, "too many messages" if fresh else "a message that is not new"
            )
        self._newest = max(self._newest, number)
        return message

    def _refusal(self, cause: Cause, reason: str) -> RemoteProtocolError:
        self.refused[str(cause)] += 1
        return RemoteProtocolError(f"gate: {reason}", counter=str(cause))


class StampNumbers:
    """Numbers for stamps of one sender: its wall clock, and one more where that stood still or went back."""

    def __init__(self) -> None:
        self._last = 0

    def next(self, time_us: int) -> int:
        self._last = max(self._last + 1, time_us)
        return self._last
