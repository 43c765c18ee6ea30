"""How long to wait before the next attempt to reconnect.

Decides a delay from the number of failures and a random source. Does not wait.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with jitter: between half and all of ``min(longest_s, first_s * 2**failures)``.

    Half is kept so that a fleet that lost its broker comes back spread out and nobody retries at once.
    The random point in the second half of a doubling interval is that of Trickle (RFC 6206 §4.2).
    """

    first_s: float = 0.1
    longest_s: float = 10.0

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after ``failures`` (0 or more) attempts failed."""
        ceiling_s = min(self.longest_s, self.first_s * 2.0 ** min(failures, 32))
        return ceiling_s * (0.5 + 0.5 * rng.random())
