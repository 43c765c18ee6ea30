"""When an AIM that sets a pace gives its next record: after its period, or at a lower rate than it could.

An AIM with ``period_ms`` is invoked once in a period. A source without one decides by itself, for instance by
its sensor; only where its workflow runs at a lower rate is it held back, so that no more comes than that
share of what its outputs declare. All other AIMs follow what they read.

Invariant: a turn that was missed is skipped, not made up for.
"""

from __future__ import annotations

import math

from aif.model.aim import AIMMetadata
from aif.runtime.clock import Clock


class Pace:
    """The pace of one AIM. ``rate`` is the share (0..1) of the full rate; it may change at any time."""

    def __init__(self, contract: AIMMetadata, clock: Clock) -> None:
        self.rate = 1.0
        self._clock = clock
        self._period_ms = contract.period_ms
        declared_hz = max((port.rate_hz or 0.0 for port in contract.outputs), default=0.0)
        self._spacing_ms = 1000.0 / declared_hz if contract.is_source and declared_hz > 0.0 else None
        self._due_ms = 0.0

    def begin(self) -> None:
        """The AIM has been made (again)."""
        self._due_ms = self._clock.monotonic_ms()

    async def next(self) -> bool:
        """Until the next invocation may begin; whether anything was waited for."""
        if self._period_ms is not None:
            await self._turn(self._period_ms / self.rate)
            return True
        return await self.next_of_stream()

    async def next_of_stream(self) -> bool:
        """Until a generator may give its next record; its invocation has had its turn already."""
        if self._period_ms is not None or self._spacing_ms is None or self.rate >= 1.0:
            return False
        await self._turn(self._spacing_ms / self.rate)
        return True

    async def _turn(self, spacing_ms: float) -> None:
        now_ms = self._clock.monotonic_ms()
        self._due_ms += spacing_ms * max(1, math.ceil((now_ms - self._due_ms) / spacing_ms))
        await self._clock.sleep(max(0.0, self._due_ms - now_ms) / 1000.0)
