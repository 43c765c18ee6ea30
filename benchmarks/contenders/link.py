"""The shape that every contender is given: bursts of prepared messages in, batches of opened ones out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from benchmarks.workload import Buffer

THERE, BACK = "bench/there", "bench/back"
"""Topics: driver to receiver, and the echo."""

START_S = 10.0
"""How long connecting and subscribing may take."""


class Intake(Protocol):
    """Who gets what arrives. One thread at a time."""

    @property
    def due(self) -> int:
        """Messages after which :meth:`take` must be called, at least 1."""
        ...

    def take(self, sequences: Sequence[int], contents: Sequence[Buffer]) -> None:
        """Sequence numbers and data of the next messages; raises InvalidRun."""
        ...

    def failed(self, reason: str) -> None:
        """The link cannot go on, or refused something."""
        ...


class Link(Protocol):
    """One end of a contender in one process."""

    asynchronous: bool
    """Whether it needs the event loop to turn while a burst is on its way."""

    async def open(self) -> None:
        """Connect, subscribe, and return when messages would arrive."""
        ...

    def prepare(self, sequence: int, data: bytes) -> Any:
        """A message in the form that ``send_burst`` takes; done before the clock starts."""
        ...

    def send_burst(self, messages: Sequence[Any]) -> None:
        """Hand messages over, in order."""
        ...

    def flush(self) -> None:
        """Nothing follows for now: whatever waits for company must leave."""
        ...

    def finish(self) -> dict[str, Any]:
        """Nothing follows at all; what the other end needs in order to check that it has everything."""
        ...

    async def prove(self, finished: dict[str, Any]) -> dict[str, Any]:
        """Check that everything was authenticated, given what the sender's ``finish`` returned.

        Raises:
            InvalidRun: something was lost, refused or stayed without proof.
        """
        ...

    async def close(self) -> None: ...
