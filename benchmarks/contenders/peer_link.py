"""What all unprotected and self-protected clients do alike: pack, publish, collect, unpack.

A client of its own adds how to open, how to publish one payload and how to close. Decides nothing about bytes
(``formats.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.cell import Role, Run
from benchmarks.contenders.formats import format_of
from benchmarks.contenders.link import BACK, THERE, Intake


class PeerLink:
    """Base of the peers' links."""

    asynchronous = False

    def __init__(self, run: Run, role: Role, intake: Intake) -> None:
        self.run, self.role, self.intake = run, role, intake
        self.format = format_of(run)
        self.sends_on, self.hears_on = (THERE, BACK) if role == "driver" else (BACK, THERE)
        self.secret = bytes.fromhex(run.secret_hex)
        self._waiting: list[bytes] = []

    def prepare(self, sequence: int, data: bytes) -> Any:
        return self.format.prepare(sequence, data)

    def send_burst(self, messages: Sequence[Any]) -> None:
        for payload in self.format.pack(messages):
            self.publish(payload)

    def publish(self, payload: bytes) -> None:
        raise NotImplementedError

    def arrived(self, payload: bytes) -> None:
        """One packet; opened together with others when enough wait."""
        waiting = self._waiting
        waiting.append(payload)
        if len(waiting) * self.format.bundle >= self.intake.due:
            self._waiting = []
            try:
                self.intake.take(*self.format.unpack(waiting))
            except Exception as error:  # noqa: BLE001 - a client's thread must not end unseen; the run is void
                self.intake.failed(f"{type(error).__name__}: {error}")

    def flush(self) -> None:
        """Nothing waits on this side."""

    def finish(self) -> dict[str, Any]:
        return {}

    async def prove(self, finished: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - nothing more to prove
        return {}
