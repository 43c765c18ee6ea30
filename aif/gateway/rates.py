"""How fast counters grow, over the last seconds.

Decides the rate of a counter from what it was when it was looked at. A counter that falls has begun anew, as
that of an AIM that moved; its rate counts from there. Memory does not grow with time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

RATE_WINDOW_S: Final = 2.0


class Rates:
    """The rates of a set of named counters."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, float]]] = {}

    def note(self, now_s: float, counters: Mapping[str, float]) -> None:
        """The counters as they are now; those that are not among them are forgotten."""
        self._seen = {name: self._seen.get(name, deque()) for name in counters}
        for name, value in counters.items():
            seen = self._seen[name]
            if seen and value < seen[-1][1]:
                seen.clear()
            seen.append((now_s, value))
            while len(seen) > 2 and seen[1][0] <= now_s - RATE_WINDOW_S:
                seen.popleft()

    def per_s(self, name: str, now_s: float) -> float:
        """Growth per second over the last two seconds; 0 for an unknown counter."""
        seen = self._seen.get(name)
        if not seen:
            return 0.0
        begin_s = now_s - RATE_WINDOW_S
        first = next((one for one in reversed(seen) if one[0] <= begin_s), seen[0])
        last = seen[-1]
        return (last[1] - first[1]) / (last[0] - first[0]) if last[0] > first[0] else 0.0
