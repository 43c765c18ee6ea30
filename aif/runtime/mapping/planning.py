"""What the Controller asks its planner: where a workflow goes, beside the others that run.

Decides what the planner is told: which devices are lost, which shall run nothing, what else runs, what
devices say of themselves, and what was measured of them, unless with that no plan is left: a slow device is
better than none.
Planning itself is done by whoever implements ``Planner``, in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from aif.errors import PlacementError
from aif.model.aim import AIMMetadata
from aif.model.aiw import Workflow
from aif.model.inventory import Inventory
from aif.model.placement import Better, Mended, PlacedWorkflow, Placement, Places
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES
from aif.runtime.devices.sensing import Sensing
from aif.runtime.mapping.workflows import RunningWorkflow

T = TypeVar("T")

PLANNED_S = 10.0
"""For the search of a plan that somebody waits for."""


class Planner(Protocol):
    """Places workflows, and mends the placement of those that run. Both raise PlacementError."""

    def place(
        self,
        workflow: Workflow,
        inventory: Inventory,
        contracts: Mapping[str, AIMMetadata],
        *,
        beside: Collection[PlacedWorkflow] = (),
    ) -> tuple[Workflow, Placement]:
        """Where a workflow goes; it comes back as it is to be deployed: chains may replace AIMs."""
        ...

    def mend(
        self,
        placed: PlacedWorkflow,
        *,
        lost: Collection[str] = (),
        resting: Collection[str] = (),
        spared: Collection[str] = (),
        most_rate: float = 1.0,
        beside: Collection[PlacedWorkflow] = (),
    ) -> Mended:
        """Where as much of a running workflow as there is room for goes with few moves."""
        ...

    def improve(
        self,
        placed: PlacedWorkflow,
        *,
        places: Places,
        held: Collection[str] = (),
        lost: Collection[str] = (),
        resting: Collection[str] = (),
        beside: Collection[PlacedWorkflow] = (),
        time_limit_s: float = PLANNED_S,
    ) -> Better:
        """The best plan for a running workflow, or one with AIMs at ``places``, and what it would bring.

        Those ``held`` stay in any case.
        """
        ...


@dataclass(frozen=True, slots=True)
class Planning:
    """The planner, and what it must know of the workflows that run."""

    planner: Planner
    workflows: Callable[[], Iterable[RunningWorkflow]]
    sensing: Sensing
    announced: Callable[[Inventory], Inventory]
    """An inventory with what its devices say of themselves now."""

    async def place(
        self, workflow: Workflow, inventory: Inventory, contracts: Mapping[str, AIMMetadata]
    ) -> tuple[Workflow, Placement]:
        """Where a new workflow goes.

        Raises:
            PlacementError: it does not fit beside the others.
        """
        self.sensing.expect(inventory)
        return await self._as_measured(
            inventory, partial(self.planner.place, workflow, contracts=contracts, beside=self._beside(None))
        )

    async def mend(
        self, running: RunningWorkflow, *, lost: Collection[str], resting: Collection[str], most_rate: float
    ) -> Mended:
        """Where a running workflow goes when devices are lost or shall run nothing.

        AIMs that have ended stay where they were, for nothing. No higher share of the rate than ``most_rate``
        is asked for.

        Raises:
            PlacementError: there is no room for what it cannot do without.
        """
        working = replace(self._placed(running), workflow=running.whole.without(running.over))
        question = partial(
            self.planner.mend, lost=frozenset(lost), resting=frozenset(resting),
            spared=self.sensing.spent() - {*lost}, most_rate=most_rate, beside=self._beside(running),
        )  # fmt: skip
        mended = await self._as_measured(
            working.inventory, lambda inventory: question(replace(working, inventory=inventory))
        )
        return replace(mended, placement=_with_ended(mended.placement, running))

    async def improve(
        self,
        running: RunningWorkflow,
        *,
        places: Places,
        held: Collection[str] = (),
        lost: Collection[str],
        resting: Collection[str],
        time_limit_s: float = PLANNED_S,
    ) -> Better:
        """A better plan for what runs of a workflow, or one as asked for, and what it would bring.

        Raises:
            PlacementError: there is none, as devices are measured to be.
        """
        working = self._placed(running)
        working = replace(working, inventory=self.sensing.measured(working.inventory))
        better = await asyncio.to_thread(
            self.planner.improve, working, places=places, held=held, lost=frozenset(lost),
            resting=frozenset(resting), beside=self._beside(running), time_limit_s=time_limit_s,
        )  # fmt: skip
        return replace(better, placement=_with_ended(better.placement, running))

    async def _as_measured(self, declared: Inventory, question: Callable[[Inventory], T]) -> T:
        """Ask with what was measured; if that leaves no plan, with what was declared."""
        measured = self.sensing.measured(declared)
        try:
            return await asyncio.to_thread(question, measured)
        except PlacementError:
            if measured == declared:
                raise
        return await asyncio.to_thread(question, declared)

    def neighbours(self, running: RunningWorkflow | None) -> list[RunningWorkflow]:
        """The others that run."""
        return [
            other
            for other in self.workflows()
            if other is not running and other.state not in FINAL_WORKFLOW_STATES
        ]

    def _beside(self, running: RunningWorkflow | None) -> tuple[PlacedWorkflow, ...]:
        return tuple(self._placed(other) for other in self.neighbours(running))

    def _placed(self, running: RunningWorkflow) -> PlacedWorkflow:
        return PlacedWorkflow(
            running.workflow.without(running.over), self.announced(running.inventory), running.placement
        )


def _with_ended(placement: Placement, running: RunningWorkflow) -> Placement:
    ended = tuple(a for a in running.placement.assignments if a.aim in running.over)
    return replace(placement, assignments=(*placement.assignments, *ended))
