"""Better plans for a workflow that runs: asked for when something about the devices has changed.

A device is there (again), a link is slow or has recovered, a battery is low or full again, or the workflow
was mended in haste: then the planner is asked in the background, with what was measured. Its plan is proposed
when it is worth its moves (``worth``), and when the AIMs that would move have been where they are for a
while. An AIM with state that does not travel is left where it is. A plan for devices that have changed
meanwhile is thrown away.

Decides when to ask and what to propose; ``healing`` decides when it is the turn of proposals.

Invariants: one search at a time, and not more than one in ``SEARCH_EVERY_S``; the same sight of the devices
is judged once, or once more when the AIMs that would move have stayed long enough; a device that refuses is
asked again after a delay that doubles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

from aif.errors import AIFError, PlacementError
from aif.model.aiw import Workflow
from aif.model.placement import Better, Mended, Placement
from aif.runtime.clock import Clock
from aif.runtime.devices.conditions import stays_away_ms
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.planning import Planning
from aif.runtime.mapping.remapping import Change, Move, moves_between
from aif.runtime.mapping.workflows import RunningWorkflow
from aif.runtime.mapping.worth import Dwell, Gain

SEARCH_S, SEARCH_EVERY_S = 2.0, 10.0
"""A search may take so long, and the next one begins so long after its beginning."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a plan depends on: devices that AIMs may move to, and everything that is bad about devices."""

    devices: frozenset[str]
    signs: frozenset[str]

    def promises(self, before: Sight) -> bool:
        """Whether a better plan may exist that did not exist before."""
        return self.signs != before.signs or not self.devices <= before.devices

    def since(self, before: Sight) -> str:
        """What has changed, in words."""
        return "; ".join(
            [*(f"{device} can take AIMs" for device in sorted(self.devices - before.devices)),
             *sorted(self.signs - before.signs),
             *(f"no longer: {sign}" for sign in sorted(before.signs - self.signs))]
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Improvement:
    """A change that is worth making."""

    change: Change
    mended: Mended
    gain: Gain


@dataclass(frozen=True, slots=True)
class _Search:
    task: asyncio.Task[Better]
    sight: Sight
    mapping_version: int
    why: str
    absent: frozenset[str]
    closed: frozenset[str]


class Improving:
    """Looks for better plans for one workflow."""

    def __init__(
        self,
        running: RunningWorkflow,
        planning: Planning,
        *,
        absent: Callable[[], frozenset[str]],
        closed: Callable[[], frozenset[str]],
        dwell_s: float,
        clock: Clock,
        log: LogBook,
    ) -> None:
        """Nothing is asked before something has changed.

        Args:
            running: the workflow, as it is now.
            planning: asks the planner.
            absent: devices that are not there.
            closed: devices that are there, and that nothing may move to.
            dwell_s: how long an AIM stays that has moved.
            clock: for times, not for waits.
            log: where plans are told that were not taken up.
        """
        self._running, self._planning = running, planning
        self._absent, self._closed, self._clock, self._log = absent, closed, clock, log
        self._dwell = Dwell(dwell_s * 1000.0)
        self._planned: Sight | None = None
        """What the mapping was planned for; None where it was made in haste."""
        self._proposed_for: Sight | None = None
        self._begun = False
        self._search: _Search | None = None
        self._not_before_ms = float("-inf")
        self._refusals: dict[str, tuple[int, float]] = {}
        """Devices that did not take what was proposed: how often, and until when nothing more is."""

    def look(self) -> Improvement | None:
        """Ask, or see what has come of it; never waits."""
        now_ms, sight = self._clock.monotonic_ms(), self._sight()
        if not self._begun:
            self._begun, self._planned = True, sight
            self._dwell.came((a.aim for a in self._running.placement.assignments), now_ms)
        if self._search is not None:
            return self._found(sight, now_ms) if self._search.task.done() else None
        if sight == self._planned or now_ms < self._not_before_ms:
            return None
        if self._planned is not None and not sight.promises(self._planned):
            self._planned = sight
            return None
        self._ask(sight, now_ms)
        return None

    def moved(self, aims: Iterable[str], *, in_haste: bool) -> None:
        """The mapping has changed: in haste, or as it was proposed or a person wanted it."""
        self._dwell.came(aims, self._clock.monotonic_ms())
        self._planned = None if in_haste else self._proposed_for or self._sight()
        self._proposed_for = None

    def refused(self, device: str) -> None:
        """A device did not take up what was proposed; it is left in peace for twice as long each time."""
        times = self._refusals.get(device, (0, 0.0))[0] + 1
        self._refusals[device] = times, self._clock.monotonic_ms() + stays_away_ms(times)

    def close(self) -> None:
        """Nobody waits for a plan any more."""
        if self._search is not None:
            self._search.task.cancel()

    # --- steps -------------------------------------------------------------------------------------

    def _sight(self) -> Sight:
        inventory = self._running.inventory
        return Sight(
            frozenset(d.id for d in inventory.devices) - self._shut() - self._absent(),
            self._planning.sensing.signs(inventory),
        )

    def _shut(self) -> frozenset[str]:
        """Devices that nothing may move to, and those that refused too recently."""
        now_ms = self._clock.monotonic_ms()
        early = {device for device, (_, until_ms) in self._refusals.items() if now_ms < until_ms}
        return self._closed() | (early - {*self._running.devices})

    def _ask(self, sight: Sight, now_ms: float) -> None:
        self._not_before_ms = now_ms + SEARCH_EVERY_S * 1000
        why = "a better plan after a change" if self._planned is None else sight.since(self._planned)
        absent, closed = self._absent(), self._shut()
        task = asyncio.create_task(self._best(absent, closed))
        task.add_done_callback(_heard)
        self._search = _Search(task, sight, self._mapping_version, why, absent, closed)

    async def _best(self, absent: frozenset[str], closed: frozenset[str]) -> Better:
        """AIMs that would forget what they know stay; unless what runs is not possible with that any more."""
        improve = partial(
            self._planning.improve, self._running,
            places={}, lost=absent, resting=closed, time_limit_s=SEARCH_S,
        )  # fmt: skip
        held = forgetful(self._running.workflow, self._running.placement)
        try:
            return await improve(held=held)
        except PlacementError:
            if not held:
                raise
        return await improve()

    @property
    def _mapping_version(self) -> int:
        """The newest of the whole site: a change of another workflow makes a plan beside it old."""
        plans = (running.plan for running in (self._running, *self._planning.workflows()))
        return max((plan.mapping_version for plan in plans if plan is not None), default=0)

    def _found(self, sight: Sight, now_ms: float) -> Improvement | None:
        search, self._search = self._search, None
        if search is None or (search.sight, search.mapping_version) != (sight, self._mapping_version):
            return None
        try:
            better = search.task.result()
        except AIFError as error:
            self._planned = sight
            self._log.info("no better plan", aiw=self._running.aiw_id, why=search.why, reason=str(error))
            return None
        except Exception as error:  # noqa: BLE001  # a defect in a search must not end what runs well
            self._planned = sight
            self._log.error("the search for a better plan failed", reason=f"{type(error).__name__}: {error}")
            return None
        gain = Gain(better.before, better.placement.objective, better.pause_s)
        moves = moves_between(self._running, better.placement, ())
        refusal = self._refusal(gain, moves)
        if refusal:
            self._planned = sight
            self._log.info(
                "the plan stays", aiw=self._running.aiw_id, why=search.why, reason=refusal,
                moves="; ".join(map(str, moves)),
            )  # fmt: skip
            return None
        stays_until_ms = self._dwell.until_ms(move.aim for move in moves)
        if now_ms < stays_until_ms and not gain.needed:
            self._not_before_ms = stays_until_ms
            return None
        self._proposed_for = sight
        change = Change(f"{search.why}: {gain}", search.absent, search.closed, frozenset(), began_ms=now_ms)
        return Improvement(change, Mended(better.placement, self._running.service), gain)

    def _refusal(self, gain: Gain, moves: Collection[Move]) -> str:
        """Why nothing is proposed; empty where something is."""
        onto = {move.destination for move in moves} & self._planning.sensing.spent()
        if not moves:
            return "there is none better"
        if onto:
            return f"it would use {', '.join(sorted(onto))}, whose battery is nearly empty"
        return gain.refusal()


def _heard(task: asyncio.Task[Better]) -> None:
    """Its failure is nobody's any more once its plan is thrown away."""
    if not task.cancelled():
        task.exception()


def forgetful(workflow: Workflow, placement: Placement) -> frozenset[str]:
    """AIMs with state that would begin anew elsewhere: nobody keeps it behind an acknowledged input."""
    kept = {channel.destination.aim for channel in workflow.channels if channel.acknowledged}
    running = {a.aim: a.implementation for a in placement.assignments}
    codes = ((leaf.id, leaf.metadata.implementation(running.get(leaf.id, ""))) for leaf in workflow.aims)
    return frozenset(
        aim for aim, code in codes if code is not None and code.checkpointable and aim not in kept
    )
