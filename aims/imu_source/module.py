"""Reads the inertial sensor and hands on each window as it comes.

Does not: scale, filter or label anything. What an annotated recording says about a window goes out on a port
of its own, which no recognising AIM reads; a real sensor says nothing, and that port stays silent.
"""

from __future__ import annotations

from itertools import count

from aif.sdk import AIM, Records


class IMUSource(AIM):
    """A source: one invocation per window, until the sensor ends."""

    def setup(self) -> None:
        self._sequence = count()

    async def process(self) -> Records:
        """Wait for the next window.

        Returns:
            ``window``: its number since the start and int16[100][6], columns ax ay az wx wy wz.
            ``truth``: label, whether no model was trained on that kind of motion, and the person's number.
        """
        reading = await self.context.sensor("imu").read()
        window = {"sequence": next(self._sequence) & 0xFFFF_FFFF, "samples": reading.values}
        truth = reading.annotation
        if not truth:
            return {"window": window}
        named = {"label": truth["label"], "unseen": truth["unseen"], "subject": truth["subject"]}
        return {"window": window, "truth": named}
