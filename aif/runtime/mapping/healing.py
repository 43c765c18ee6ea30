"""Sees to it that a workflow runs where it can: weighs the reasons for another mapping, and makes the change.

When there is no room for all, its rate is lowered or optional AIMs are left out, as its metadata says, and
both come back when there is room: the rate after a while that doubles with every time. A standby that took
over, or was lost, gets a successor afterwards, when nothing else has to be done. When there is none for
the rest, the workflow is left as it is, and asked about again only when something about its devices
has changed. A device that did not take up what it was given is out of the question for a while; one that
was lost more than once, of late, gets AIMs only where no other can take them. What a person asks for comes
first, and is made as it was asked for or not at all. When nothing has to move, a better plan is taken up that
is worth it (``improving``).

Decides when to ask and whether to act; why is said by ``reasons``, where to by the planner, and how is
decided by ``remapping``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from aif.errors import AIFError, PlacementError
from aif.model.degrading import Service
from aif.model.placement import Mended
from aif.model.standby import served_by
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.bringup import Means
from aif.runtime.mapping.improving import Improving
from aif.runtime.mapping.planning import Planning
from aif.runtime.mapping.reasons import Reason, Reasons
from aif.runtime.mapping.remapping import (
    TAKEN,
    Change,
    PutOff,
    Remapped,
    Remapping,
    TargetFailed,
    moves_between,
    note_over,
    unheard,
)
from aif.runtime.mapping.workflows import RunningWorkflow, WantedMapping
from aif.runtime.mapping.worth import Gain

RETRY_S = 5.0
"""After an attempt that failed for another reason, such as a Store that did not answer."""

_Question = tuple[frozenset[str], frozenset[str], frozenset[str], frozenset[str], frozenset[str]]


class Healing:
    """Keeps one workflow on devices that work."""

    def __init__(
        self,
        running: RunningWorkflow,
        means: Means,
        *,
        planning: Planning,
        reasons: Reasons,
        turn: asyncio.Lock,
        log: LogBook,
        publish: Callable[[dict[str, Any]], None],
    ) -> None:
        self._running, self._means, self._planning, self._reasons = running, means, planning, reasons
        self._turn, self._log, self._publish = turn, log, publish
        self._improving = Improving(
            running, planning, absent=reasons.absent, closed=reasons.uninviting,
            dwell_s=means.patience.dwell_s, clock=means.clock, log=log,
        )  # fmt: skip
        self._answered: _Question | None = None
        self._retry_ms = float("-inf")
        self.failure: AIFError | None = None
        """Why the last attempt came to nothing; None when it did not."""

    def close(self) -> None:
        """End what goes on in the background."""
        self._improving.close()

    async def heal(self) -> bool:
        """Move what has to move; whether something was tried, so that everything is to be looked at again."""
        if self._running.wanted is not None and not self._running.wanted.done.done():
            await self._move_as_wanted(self._running.wanted)
            return True
        if await self._mend_what_has_to():
            return True
        better = self._improving.look() if self.failure is None else None
        if better is not None:
            now_ms = self._means.clock.monotonic_ms()
            await self._remap(better.change, better.mended, now_ms, gain=better.gain)
        return better is not None

    async def _mend_what_has_to(self) -> bool:
        now_ms = self._means.clock.monotonic_ms()
        standing = self._reasons.standing()
        pressing = [reason for reason in standing if reason.must]
        if not pressing:
            self.failure = None
        if not standing:
            self._answered = None
        if not standing or now_ms < self._retry_ms:
            return False
        change, probation = self._change(pressing or standing, now_ms), self._reasons.on_probation()
        question = (
            change.lost, change.resting | probation, change.anew,
            frozenset(reason.words for reason in pressing or standing),
            frozenset(other.aiw_id for other in self._planning.neighbours(self._running)),
        )  # fmt: skip
        if question == self._answered:
            return False
        note_over(self._running, {*change.lost, *change.anew} if pressing else ())
        try:
            mended = await self._mend(change, probation, self._running.most_rate(now_ms))
        except PlacementError as error:
            self._answered = question
            if pressing:
                self.failure = self.failure or error
                self._log.error(
                    "no place is left", aiw=self._running.aiw_id, reason=str(error), hint=error.hint
                )
            return False
        moves = moves_between(self._running, mended.placement, change.anew)
        before = self._running.service
        readied = any(served_by(move.aim) and not move.source for move in moves)
        more = mended.service.better_than(before, self._running.whole.metadata) or (
            readied and mended.service == before
        )
        if not (more or (pressing and (moves or mended.service != before or unheard(self._running)))):
            self._answered = question
            if pressing:
                self.failure = None
                self._log.info("AIMs stay", aiw=self._running.aiw_id, reason=change.reason)
            return False
        await self._remap(replace(change, spare=not pressing), mended, now_ms)
        return True

    async def _move_as_wanted(self, wanted: WantedMapping) -> None:
        """Carry out what a person asked for (``moving``); whoever asked hears what became of it."""
        now_ms, running = self._means.clock.monotonic_ms(), self._running
        pressing = [reason for reason in self._reasons.standing() if reason.must]
        change = replace(self._change(pressing, now_ms), reason="asked for", began_ms=now_ms, noticed_ms=None)
        try:
            better = await self._planning.improve(
                running, places=wanted.places, lost=change.lost, resting=change.resting
            )
            done = await self._carry_out(change, Mended(better.placement, running.service), in_haste=False)
        except AIFError as error:
            if not wanted.done.done():
                wanted.done.set_exception(error)
        else:
            if not wanted.done.done():
                wanted.done.set_result(done)

    def _change(self, reasons: Iterable[Reason], now_ms: float) -> Change:
        """What has to be different, all reasons together."""
        reasons = list(reasons)
        lost = self._reasons.absent().union(*(reason.lost for reason in reasons))
        resting = self._reasons.closed().union(*(reason.resting for reason in reasons)) - lost
        anew = frozenset[str]().union(*(reason.anew for reason in reasons)) - lost - resting
        signs_ms = [reason.sign_ms for reason in reasons if reason.sign_ms is not None]
        noticed_ms = [self._means.admission.link(device).reputation.lost_ms for device in lost]
        fresh = signs_ms and self._answered is None and self.failure is None
        return Change(
            "; ".join(dict.fromkeys(reason.words for reason in reasons)), lost, resting, anew,
            began_ms=min(signs_ms) if fresh else now_ms,
            noticed_ms=max(noticed_ms) if fresh else None,
        )  # fmt: skip

    async def _mend(self, change: Change, probation: frozenset[str], most_rate: float) -> Mended:
        """Where everything goes; to devices that keep leaving only when that is the only way."""
        mend = partial(self._planning.mend, self._running, lost=change.lost, most_rate=most_rate)
        resting = change.resting | (probation - change.lost)
        try:
            return await mend(resting=resting)
        except PlacementError:
            if resting == change.resting:
                raise
        return await mend(resting=change.resting)

    async def _remap(
        self, change: Change, mended: Mended, now_ms: float, *, gain: Gain | None = None
    ) -> None:
        self._log.warning("workflow is re-mapped", aiw=self._running.aiw_id, reason=change.reason)
        try:
            await self._carry_out(change, mended, in_haste=gain is None, gain=gain)
        except PutOff as error:
            self._answered = None
            running = self._running
            running.without_standbys_on({d for d in running.devices if running.phase(d) not in TAKEN})
            self._log.info("re-mapping put off", aiw=self._running.aiw_id, reason=str(error))
        except TargetFailed as error:
            if gain is not None:
                self._improving.refused(error.device)
        except AIFError:
            self._retry_ms = now_ms + RETRY_S * 1000
        else:
            self._answered, self.failure = None, None

    async def _carry_out(
        self, change: Change, mended: Mended, *, in_haste: bool, gain: Gain | None = None
    ) -> Remapped:
        """Make a change, and tell of it. Whatever goes wrong is raised, after it was noted and told."""
        before = self._running.service
        try:
            done = await Remapping(self._running, self._means, change).run(self._turn, mended)
        except AIFError as error:
            if isinstance(error, TargetFailed):
                self._reasons.avoid(error.device)
            if not isinstance(error, PutOff):
                self._failed(error)
            raise
        self._improving.moved((move.aim for move in done.moves), in_haste=in_haste)
        self._tell(done, gain)
        self._tell_rate(before, mended)
        return done

    # --- what is told ------------------------------------------------------------------------------

    def _failed(self, error: AIFError) -> None:
        self.failure = error
        self._log.error(
            "re-mapping failed", aiw=self._running.aiw_id, code=error.code, reason=str(error), hint=error.hint
        )

    def _tell(self, done: Remapped, gain: Gain | None) -> None:
        moves = [str(move) for move in done.moves]
        self._log.info(
            "workflow re-mapped", aiw=self._running.aiw_id, reason=done.reason, moves="; ".join(moves),
            mapping_version=done.mapping_version, **{f"{s}_ms": ms for s, ms in done.stages_ms.items()},
        )  # fmt: skip
        self._publish(
            {"type": "remapped", "aiw": self._running.aiw_id, "reason": done.reason, "moves": moves,
             "left_out": sorted(self._running.service.left_out), "rate": self._running.service.rate,
             "mapping_version": done.mapping_version,
             "stages_ms": dict(done.stages_ms), **_in_figures(gain)}
        )  # fmt: skip

    def _tell_rate(self, before: Service, mended: Mended) -> None:
        rate = mended.service.rate
        if rate < before.rate:
            self._log.warning("workflow slows down", aiw=self._running.aiw_id, rate=rate, reason=mended.why)
        elif rate > before.rate:
            self._log.info("workflow is faster again", aiw=self._running.aiw_id, rate=rate)


def _in_figures(gain: Gain | None) -> dict[str, Any]:
    """What a move that nothing forced was made for."""
    if gain is None:
        return {}
    return {"gain": {"saved": gain.saved, "needed": gain.needed, "pause_s": gain.pause_s}}
