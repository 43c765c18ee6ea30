"""What a person may ask of a running workflow's mapping: is there a better one, and move to it.

Decides what is asked of the planner, and that nothing moves but what was shown. The move itself is made by
``healing``, in the task that watches the workflow, so that it never crosses another change.

Invariants: a proposal changes nothing; what is carried out is the mapping that was proposed, AIM by AIM, or
nothing, because it is planned again with every AIM held where the proposal put it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aif.errors import LifecycleError, NotFound, PlacementError, StartFailed
from aif.model.placement import Places
from aif.model.standby import served_by
from aif.protocol.lifecycle import WorkflowState
from aif.runtime.mapping.planning import Planning
from aif.runtime.mapping.reasons import Reasons
from aif.runtime.mapping.remapping import Move, Remapped, moves_between
from aif.runtime.mapping.workflows import Changes, RunningWorkflow, WantedMapping

MOVED_S = 180.0
"""For a move that a person asked for: models are downloaded, devices attested, AIMs started."""

NOTICEABLE = 1e-3
"""A better mapping saves at least this share of the objective; below it, plans count as equal."""

_AT_WORK = (WorkflowState.RUNNING, WorkflowState.PAUSED, WorkflowState.DEGRADED)


@dataclass(frozen=True, slots=True)
class Proposal:
    """Another mapping, what it costs and what it saves.

    Attributes:
        aiw_id: of the workflow.
        moves: AIMs that would go elsewhere.
        before: objective now; None where the mapping is not possible any more.
        after: objective then.
        gap: how far ``after`` may be above the optimum, 0..1.
        model_bytes: of the models that AIMs take with them.
        state_bytes: of state that AIMs declare; behind acknowledged channels it goes along.
        places: every AIM that runs, as ``Moving.move`` takes it.
    """

    aiw_id: str
    moves: tuple[Move, ...]
    before: float | None
    after: float
    gap: float
    model_bytes: int
    state_bytes: int
    places: Places

    @property
    def gain(self) -> float | None:
        """Share of the objective that is saved, negative when it costs more; None without a ``before``."""
        if self.before is None:
            return None
        return (self.before - self.after) / self.before if self.before else 0.0

    @property
    def better(self) -> bool:
        return bool(self.moves) and (self.gain is None or self.gain >= NOTICEABLE)


@dataclass(frozen=True, slots=True)
class Moving:
    """What it takes to move AIMs at a person's wish."""

    planning: Planning
    changes: Changes
    reasons: Callable[[RunningWorkflow], Reasons]

    async def proposal(self, running: RunningWorkflow, places: Places) -> Proposal:
        """A better mapping, or the one with some AIMs at the places that a person wants.

        Raises:
            LifecycleError: the workflow is not at work.
            NotFound, ModelError: it has no such AIM, its inventory no such device.
            PlacementError: there is no such mapping.
        """
        self._check(running, places)
        reasons = self.reasons(running)
        better = await self.planning.improve(
            running, places=places, lost=reasons.absent(), resting=reasons.closed()
        )
        after = better.placement
        moves = moves_between(running, after, ())
        moved = {move.aim for move in moves}
        models = running.plan.models if running.plan is not None else ()
        return Proposal(
            aiw_id=running.aiw_id,
            moves=moves,
            before=better.before,
            after=after.objective,
            gap=after.gap,
            model_bytes=sum(model.bytes_ for model in models if model.aim in moved),
            state_bytes=sum(_state_bytes(running, aim) for aim in moved),
            places={
                a.aim: (a.device, a.implementation)
                for a in after.assignments
                if a.aim not in running.over and not served_by(a.aim)
            },
        )

    async def move(self, running: RunningWorkflow, places: Places) -> Remapped:
        """Move to a mapping that was proposed.

        Raises:
            LifecycleError: the workflow is not at work, or another wish is being carried out.
            PlacementError: it is not possible any more.
            StartFailed: a device did not take up its part; the workflow is watched on as after any failure.
        """
        self._check(running, places)
        if running.wanted is not None:
            raise LifecycleError(f"{running.aiw_id} is being moved already", hint="see `aif top`")
        done: asyncio.Future[Remapped] = asyncio.get_running_loop().create_future()
        running.wanted = WantedMapping(places, done)
        self.changes.notify()
        waiting: set[asyncio.Future[Any]] = {done, *([running.task] if running.task is not None else [])}
        try:
            await asyncio.wait(waiting, timeout=MOVED_S, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise StartFailed(
                    f"{running.aiw_id} was not moved in time, or has ended meanwhile", hint="see `aif logs`"
                )
            return done.result()
        finally:
            done.cancel()  # nobody waits any more; a move that has begun goes on
            running.wanted = None

    def _check(self, running: RunningWorkflow, places: Places) -> None:
        if running.state not in _AT_WORK or running.plan is None:
            raise LifecycleError(f"{running.aiw_id} is {running.state}; its AIMs cannot be moved")
        known = {leaf.id for leaf in running.workflow.aims} - running.over
        reasons = self.reasons(running)
        away = reasons.absent() | reasons.closed()
        written = {leaf.id: leaf.placement for leaf in running.workflow.aims}
        for aim, (device, _) in places.items():
            if aim not in known:
                names = ", ".join(sorted(known))
                raise NotFound(f"{running.aiw_id} has no AIM {aim!r} at work", hint=f"it has: {names}")
            running.inventory.device(device)
            hint = written[aim]
            if hint is not None and hint.device not in (None, device):
                raise PlacementError(
                    f"the workflow holds {aim} on {hint.device}", hint="change its file and deploy it again"
                )
            if device in away and device != running.placement.device_of(aim):
                raise PlacementError(
                    f"{device} cannot take an AIM now: it is drained, lost or not trusted",
                    hint="see `aif top` or `aif device show`",
                )


def _state_bytes(running: RunningWorkflow, aim: str) -> int:
    leaf = next(leaf for leaf in running.workflow.aims if leaf.id == aim)
    code = leaf.metadata.implementation(running.placement.assignment(aim).implementation)
    return code.state_bytes if code is not None else 0
