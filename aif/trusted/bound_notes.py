"""The notes of a device and the floors in its Security Engine, kept together on the host.

Decides when the engine is told. What a floor is, is decided by ``floors``. An engine that is lost is told by
the next change, or when it was started again; the notes are written in any case.
"""

from __future__ import annotations

from contextlib import suppress

from aif.trusted.floors import floors_of, lifted
from aif.trusted.psa import PSAError
from aif.trusted.security_engine import SecurityEngine
from aif.trusted.state import DeviceState, StateFile


class BoundNotes:
    """Tells the engine of every floor that rises in the notes. Calls may come from several threads."""

    def __init__(self, notes: StateFile[DeviceState], engine: SecurityEngine) -> None:
        self._notes, self._engine = notes, engine
        self._told: dict[str, int] = {}
        notes.witness = self._tell

    def take_up(self) -> tuple[str, ...]:
        """Lift the notes to the engine's floors, and the other way round; asks the engine, so it may wait.

        Returns:
            The floors below which the notes were: somebody has put older ones in place.

        Raises:
            PSAError: the engine was lost.
        """
        self._told = self._engine.floors()
        _, fallen = lifted(self._notes.load(), self._told)
        if fallen:
            self._notes.update(lambda notes: lifted(notes, self._told)[0])
        self._tell(self._notes.load())
        return fallen

    def _tell(self, notes: DeviceState) -> None:
        floors = floors_of(notes)
        if not notes.enrolled or floors == self._told:
            return
        with suppress(PSAError):
            self._engine.lift_floors(floors)
            self._told = floors


__all__ = ["BoundNotes"]
