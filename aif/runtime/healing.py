"""Decides when a running workflow has to move, and sees to it: what is lost, what is back, what is drained.

* A device that is lost or not trusted any more: its AIMs go to others, at once.
* A device that has started anew: it gets its AIMs again. So does one that is behind its mapping, because the
  Controller ended in the middle of a change.
* A device that is drained: its AIMs leave it.

A device that did not take up what it was given is out of the question for a while. When there is no room, the
workflow is left as it is, and asked about again only when something about its devices has changed.

Decides nothing about where AIMs go (``Replanner``) nor how (``remapping``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from aif.errors import AIFError, PlacementError
from aif.protocol.lifecycle import State
from aif.runtime.admission import Admission
from aif.runtime.bringup import Absences, Means, emptied
from aif.runtime.links import Trust
from aif.runtime.logbook import LogBook
from aif.runtime.remapping import Remapped, Remapping, Replanner, TargetFailed
from aif.runtime.workflows import RunningWorkflow

AVOIDED_S = 60.0
"""A device that did not take up its part is not asked again for this long."""

RETRY_S = 5.0
"""After an attempt that failed for another reason, such as a Store that did not answer."""

_ENDED = (State.STOPPED, State.FAILED)
_Question = tuple[frozenset[str], frozenset[str], frozenset[str]]


class Healing:
    """Keeps one workflow on devices that work."""

    def __init__(
        self,
        running: RunningWorkflow,
        means: Means,
        *,
        replan: Replanner,
        turn: asyncio.Lock,
        drained: Callable[[], Collection[str]],
        log: LogBook,
        publish: Callable[[dict[str, Any]], None],
    ) -> None:
        self._running, self._means, self._replan, self._turn = running, means, replan, turn
        self._drained, self._log, self._publish = drained, log, publish
        self._absences = Absences(means.admission, means.clock)
        self._avoided_ms: dict[str, float] = {}
        self._answered: _Question | None = None
        self._retry_ms = float("-inf")
        self.failure: AIFError | None = None
        """Why the last attempt came to nothing; None when it did not."""

    async def heal(self) -> bool:
        """Move what has to move; whether something was tried, so that everything is to be looked at again."""
        now_ms = self._means.clock.monotonic_ms()
        gone, back, drained = self._gone(), self._back() | self._behind(), self._to_drain()
        if not (gone or back or drained):
            self._answered, self.failure = None, None
            return False
        if now_ms < self._retry_ms:
            return False
        away = self._unavailable() | gone
        back -= away
        question = (frozenset(away), frozenset(gone | drained), frozenset(back))
        if question == self._answered:
            return False
        reason = self._reason(gone, back, drained)
        self._log.warning("workflow is re-mapped", aiw=self._running.aiw_id, reason=reason)
        attempt = Remapping(self._running, self._means, replan=self._replan, log=self._log)
        try:
            done = await attempt.run(self._turn, away=away, anew=back, reason=reason)
        except PlacementError as error:
            self._answered = question
            self.failure = self.failure or error
            self._log.error("no place is left", aiw=self._running.aiw_id, reason=str(error), hint=error.hint)
            return False
        except TargetFailed as error:
            self._avoided_ms[error.device] = now_ms + AVOIDED_S * 1000
            self._failed(error)
        except AIFError as error:
            self._retry_ms = now_ms + RETRY_S * 1000
            self._failed(error)
        else:
            self._answered, self.failure = None, None
            self._tell(done)
        return True

    # --- what has happened -------------------------------------------------------------------------

    def _unavailable(self) -> set[str]:
        """Devices that nothing new may be put on."""
        now_ms = self._means.clock.monotonic_ms()
        self._avoided_ms = {d: until for d, until in self._avoided_ms.items() if until > now_ms}
        return {*unavailable(self._running, self._means.admission), *self._avoided_ms, *self._drained()}

    def _gone(self) -> set[str]:
        """Devices of the workflow that are lost, or have dropped it, while it had work there."""
        link, running = self._means.admission.link, self._running
        absent = self._absences.longer_than(running.devices, self._means.patience.degraded_s)
        return {
            device
            for device in running.devices
            if link(device).trust in (Trust.LOST, Trust.REJECTED)
            or device in self._avoided_ms
            or device in absent
            or (device in self._running.dropped and not self._new_boot(device))
            if self._works(device)
        }

    def _back(self) -> set[str]:
        """Devices that are trusted again, and have started anew."""
        return {
            device
            for device in emptied(self._running, self._means.admission)
            if self._means.admission.trusted(device) and self._new_boot(device) and self._works(device)
        }

    def _behind(self) -> set[str]:
        """Devices that say that they are under an earlier mapping than they should be."""
        running, trusted = self._running, self._means.admission.trusted
        return {
            device
            for device, status in running.status.items()
            if trusted(device)
            and device in running.devices
            and running.plan is not None
            and status.mapping_version < running.plan.version(device)
            and status.failure is None
        }

    def _to_drain(self) -> set[str]:
        return {d for d in self._drained() if d in self._running.devices and self._works(d)}

    def _new_boot(self, device: str) -> bool:
        hello = self._means.admission.link(device).hello
        return hello is not None and hello.boot_id != self._running.boots.get(device)

    def _works(self, device: str) -> bool:
        """Whether an AIM there has not come to its end."""
        running = self._running
        status = running.status.get(device)
        reports = status.aims if status is not None else {}
        return any(
            a.device == device
            and a.aim not in running.over
            and (a.aim not in reports or reports[a.aim].state not in _ENDED)
            for a in running.placement.assignments
        )

    def _reason(self, gone: set[str], back: set[str], drained: set[str]) -> str:
        link = self._means.admission.link
        return "; ".join(
            (
                *(f"{d} is {link(d).trust} ({link(d).reason})" for d in sorted(gone)),
                *(f"{d} has started anew" for d in sorted(back & self._back())),
                *(f"{d} is behind its mapping" for d in sorted(back - self._back())),
                *(f"{d} is drained" for d in sorted(drained - gone)),
            )
        )

    # --- what is told ------------------------------------------------------------------------------

    def _failed(self, error: AIFError) -> None:
        self.failure = error
        self._log.error(
            "re-mapping failed", aiw=self._running.aiw_id, code=error.code, reason=str(error), hint=error.hint
        )

    def _tell(self, done: Remapped) -> None:
        moves = [str(move) for move in done.moves]
        self._log.info(
            "workflow re-mapped", aiw=self._running.aiw_id, reason=done.reason, moves="; ".join(moves),
            mapping_version=done.mapping_version, **{f"{s}_ms": ms for s, ms in done.stages_ms.items()},
        )  # fmt: skip
        self._publish(
            {"type": "remapped", "aiw": self._running.aiw_id, "reason": done.reason, "moves": moves,
             "mapping_version": done.mapping_version, "stages_ms": dict(done.stages_ms)}
        )  # fmt: skip


def unavailable(running: RunningWorkflow, admission: Admission) -> set[str]:
    """Devices of the inventory that are not here, and have no part in the workflow that they could keep."""
    members = set(running.devices)
    return {d.id for d in running.inventory.devices if d.id not in members and not admission.trusted(d.id)}
