"""Counters and latency histograms of a running workflow, small enough to send every second.

A histogram keeps logarithmic buckets (relative error below 2 %), so two of them merge by adding, and a
quantile needs no samples. All durations are microseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

BUCKETS_PER_OCTAVE = 32
MAX_BUCKET = 40 * BUCKETS_PER_OCTAVE
"""2**40 µs is twelve days; anything longer counts there."""

_LARGEST = 2.0**40


class Histogram:
    """Distribution of positive values with logarithmic buckets; what is below 1 counts as 1.

    ``buckets`` holds counts by bucket number (0..MAX_BUCKET), as ``plain`` gave them; others are ignored,
    since they may come from another device.

    >>> h = Histogram()
    >>> for value in range(1, 1001): h.add(value)
    >>> 490 < h.quantile(0.5) < 510
    True
    """

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        known = {b: n for b, n in (buckets or {}).items() if 0 <= b <= MAX_BUCKET and n > 0}
        self._buckets: Counter[int] = Counter(known)
        self.count = sum(self._buckets.values())

    def add(self, value: float, times: int = 1) -> None:
        bucket = int(math.log2(min(value, _LARGEST)) * BUCKETS_PER_OCTAVE) if value > 1 else 0
        self._buckets[bucket] += times
        self.count += times

    def merge(self, other: Histogram) -> None:
        self._buckets.update(other._buckets)
        self.count += other.count

    @property
    def total(self) -> float:
        """Sum of the values, from the middles of their buckets."""
        middle = 2.0 ** (0.5 / BUCKETS_PER_OCTAVE)
        return math.fsum(n * middle * math.exp2(b / BUCKETS_PER_OCTAVE) for b, n in self._buckets.items())

    def quantile(self, share: float) -> float:
        """Value below which ``share`` (0..1) of the values lie; 0 when there are none."""
        if not self.count:
            return 0.0
        wanted = share * self.count
        seen = 0
        bucket = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                break
        return float(2.0 ** ((bucket + 0.5) / BUCKETS_PER_OCTAVE))

    def plain(self) -> dict[int, int]:
        return dict(self._buckets)


@dataclass(slots=True)
class AIMMetrics:
    """What one AIM instance did."""

    invocations: int = 0
    emitted: int = 0
    failures: int = 0
    restarts: int = 0
    deadlines_missed: int = 0
    process_us: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class ChannelMetrics:
    """What went through the receiving end of one channel; latency is from the sender's write to delivery."""

    records: int = 0
    invalid: int = 0
    latency_us: Histogram = field(default_factory=Histogram)
    age_us: Histogram = field(default_factory=Histogram)
