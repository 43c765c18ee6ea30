"""Why a running workflow may need another mapping: each source looks at one thing and gives reasons.

* A device that is lost, or not trusted any more, or has dropped its part: its AIMs have to go elsewhere.
* A device that is lost after its AIMs had ended, before their producers heard of it: they have to be told.
* A device that has started anew: it has to get its AIMs again. So has one that is behind its mapping, because
  the Controller ended in the middle of a change.
* A device that is drained: its AIMs have to leave it. One whose battery is nearly empty: those that can.
* Optional AIMs or standbys without a place, or a rate that was lowered: there may be room now. Nothing has to
  move.

A further kind of event is a further source. Decides nothing about what follows (``healing``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from aif.model.standby import served_by
from aif.protocol.lifecycle import ENDED_STATES
from aif.runtime.devices.conditions import stays_away_ms
from aif.runtime.devices.links import Trust
from aif.runtime.mapping.bringup import Absences, Means, emptied
from aif.runtime.mapping.workflows import RunningWorkflow

AVOIDED_S = 60.0
"""A device that did not take up its part is not asked again for this long."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason for another mapping.

    Attributes:
        words: for people.
        lost: devices that nobody reaches.
        resting: devices that shall run nothing of this workflow, but are there.
        anew: devices that are there and have lost what they ran.
        must: AIMs stand still or have to leave; else a change is only made where it brings AIMs back.
        sign_ms: monotonic time of the first sign, where that was before now.
    """

    words: str
    lost: frozenset[str] = frozenset()
    resting: frozenset[str] = frozenset()
    anew: frozenset[str] = frozenset()
    must: bool = True
    sign_ms: float | None = None


class Reasons:
    """All sources for one workflow."""

    def __init__(
        self, running: RunningWorkflow, means: Means, *, drained: Callable[[], Collection[str]]
    ) -> None:
        self._running, self._means, self._drained = running, means, drained
        self._absences = Absences(means.admission, means.clock)
        self._avoided_ms: dict[str, float] = {}
        self._sources = (
            self._lost,
            self._unheard,
            self._unwilling,
            self._anew,
            self._behind,
            self._to_drain,
            self._spent,
            self._room,
            self._unready,
        )

    def standing(self) -> list[Reason]:
        """Every reason there is now."""
        now_ms = self._means.clock.monotonic_ms()
        self._avoided_ms = {d: until for d, until in self._avoided_ms.items() if until > now_ms}
        return [reason for source in self._sources for reason in source()]

    def avoid(self, device: str) -> None:
        """A device did not take up what it was given."""
        self._avoided_ms[device] = self._means.clock.monotonic_ms() + AVOIDED_S * 1000

    def absent(self) -> frozenset[str]:
        """Devices of the inventory that are not there, and have no part that they could keep."""
        members, trusted = {*self._running.devices}, self._means.admission.trusted
        return frozenset(
            d.id for d in self._running.inventory.devices if d.id not in members and not trusted(d.id)
        )

    def closed(self) -> frozenset[str]:
        """Devices that are there, and that nothing may be put on."""
        return frozenset({*self._avoided_ms, *self._drained()})

    def on_probation(self) -> frozenset[str]:
        """Devices that were lost more than once, of late, and have no part that they keep."""
        now_ms, link = self._means.clock.monotonic_ms(), self._means.admission.link
        back = {d.id for d in self._running.inventory.devices if self._means.admission.trusted(d.id)}
        keeping = {*self._running.devices} - {*emptied(self._running, self._means.admission)}
        return frozenset(d for d in back - keeping if link(d).reputation.probation_ms(now_ms) > 0)

    def uninviting(self) -> frozenset[str]:
        """Devices that nothing moves to for the sake of a better plan: those closed, or lost too recently.

        With every loss a device is kept away from for twice as long.
        """
        now_ms, link = self._means.clock.monotonic_ms(), self._means.admission.link
        lost = {d.id: link(d.id).reputation for d in self._running.inventory.devices}
        early = {d for d, past in lost.items() if now_ms < past.lost_ms + stays_away_ms(past.losses)}
        return self.closed() | (early - {*self._running.devices})

    # --- sources -----------------------------------------------------------------------------------

    def _lost(self) -> Iterator[Reason]:
        running, link = self._running, self._means.admission.link
        overdue = self._absences.longer_than(running.devices, self._means.patience.degraded_s)
        for device in running.devices:
            gone = link(device).trust in (Trust.LOST, Trust.REJECTED) or device in overdue
            if gone and self._works(device):
                yield Reason(
                    f"{device} is {link(device).trust} ({link(device).reason})",
                    lost=frozenset({device}),
                    sign_ms=link(device).sign_ms if link(device).trust is Trust.LOST else None,
                )

    def _unheard(self) -> Iterator[Reason]:
        """Devices that were lost after all their AIMs had ended, some of which producers still wait for."""
        running, link = self._running, self._means.admission.link
        for device in running.devices:
            if link(device).trust is not Trust.LOST or self._works(device):
                continue
            here = {a.aim for a in running.placement.assignments if a.device == device}
            waiting = {
                c.source.aim
                for c in running.workflow.channels
                if c.acknowledged and c.destination.aim in here and not self._ended(c.source.aim)
            }
            if waiting:
                names = ", ".join(sorted(waiting))
                yield Reason(f"{device} is lost with the last word to {names}", lost=frozenset({device}))

    def _unwilling(self) -> Iterator[Reason]:
        """Devices that did not take up their part, or have dropped it by themselves."""
        for device in self._running.devices:
            dropped = device in self._running.dropped and not self._new_boot(device)
            if (device in self._avoided_ms or dropped) and self._works(device):
                yield Reason(f"{device} does not run its part", resting=frozenset({device}))

    def _anew(self) -> Iterator[Reason]:
        for device in emptied(self._running, self._means.admission):
            if self._means.admission.trusted(device) and self._new_boot(device) and self._works(device):
                yield Reason(f"{device} has started anew", anew=frozenset({device}))

    def _behind(self) -> Iterator[Reason]:
        """Devices that say that they are under an earlier mapping than they should be."""
        running, emptied_now = self._running, emptied(self._running, self._means.admission)
        for device, status in running.status.items():
            if (
                running.plan is not None
                and device in running.devices
                and device not in emptied_now
                and self._means.admission.trusted(device)
                and status.mapping_version < running.plan.version(device)
                and status.failure is None
            ):
                yield Reason(f"{device} is behind its mapping", anew=frozenset({device}))

    def _to_drain(self) -> Iterator[Reason]:
        for device in self._drained():
            if device in self._running.devices and self._works(device):
                yield Reason(f"{device} is drained", resting=frozenset({device}))

    def _spent(self) -> Iterator[Reason]:
        """The planner is told by ``planning``, whatever the reason is."""
        for device in self._means.admission.sensing.spent():
            if device in self._running.devices and self._works(device):
                yield Reason(f"the battery of {device} is nearly empty")

    def _room(self) -> Iterator[Reason]:
        running, now_ms = self._running, self._means.clock.monotonic_ms()
        if running.service.left_out:
            yield Reason(f"there may be room for {', '.join(sorted(running.service.left_out))}", must=False)
        if running.most_rate(now_ms) > running.service.rate:
            yield Reason("there may be room for a higher rate", must=False)

    def _unready(self) -> Iterator[Reason]:
        if self._running.unready:
            yield Reason(f"{', '.join(sorted(self._running.unready))} should be kept ready twice", must=False)

    # --- facts -------------------------------------------------------------------------------------

    def _new_boot(self, device: str) -> bool:
        hello = self._means.admission.link(device).hello
        return hello is not None and hello.boot_id != self._running.boots.get(device)

    def _works(self, device: str) -> bool:
        """Whether an AIM there has not come to its end, or a standby has not taken over."""
        running = self._running
        status = running.status.get(device)
        reports = status.aims if status is not None else {}
        return any(
            a.device == device
            and (served_by(a.aim) or a.aim) not in running.over
            and (a.aim not in reports or reports[a.aim].state not in ENDED_STATES)
            for a in running.placement.assignments
        )

    def _ended(self, aim: str) -> bool:
        """Whether an AIM has come to its end where it was placed."""
        running = self._running
        status = running.status.get(running.placement.device_of(aim))
        report = status.aims.get(aim) if status is not None else None
        return aim in running.over or (report is not None and report.state in ENDED_STATES)
