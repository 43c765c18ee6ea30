"""What the Controller asks its planner: where a workflow goes, beside the others that run.

Decides what the planner is told: which devices are lost, which shall run nothing, and what else runs.
Planning itself is done by whoever implements ``Planner``, in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from aif.model.aim import AIMMetadata
from aif.model.aiw import Workflow
from aif.model.inventory import Inventory
from aif.model.placement import PlacedWorkflow, Placement, Places
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES
from aif.runtime.workflows import RunningWorkflow


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
        beside: Collection[PlacedWorkflow] = (),
    ) -> tuple[Placement, frozenset[str]]:
        """Where a running workflow goes with few moves, and the optional AIMs that it has to leave out."""
        ...

    def improve(
        self,
        placed: PlacedWorkflow,
        *,
        places: Places,
        lost: Collection[str] = (),
        resting: Collection[str] = (),
        beside: Collection[PlacedWorkflow] = (),
    ) -> tuple[Placement | None, Placement]:
        """A running workflow's mapping (None: not possible now), and the best, or the one of ``places``."""
        ...


@dataclass(frozen=True, slots=True)
class Mended:
    """Where a running workflow is to go."""

    placement: Placement
    left_out: frozenset[str]


@dataclass(frozen=True, slots=True)
class Planning:
    """The planner, and what it must know of the workflows that run."""

    planner: Planner
    workflows: Callable[[], Iterable[RunningWorkflow]]

    async def place(
        self, workflow: Workflow, inventory: Inventory, contracts: Mapping[str, AIMMetadata]
    ) -> tuple[Workflow, Placement]:
        """Where a new workflow goes.

        Raises:
            PlacementError: it does not fit beside the others.
        """
        return await asyncio.to_thread(
            self.planner.place, workflow, inventory, contracts, beside=self._beside(None)
        )

    async def mend(
        self, running: RunningWorkflow, *, lost: Collection[str], resting: Collection[str]
    ) -> Mended:
        """Where a running workflow goes when devices are lost or shall run nothing.

        AIMs that have ended stay where they were, for nothing.

        Raises:
            PlacementError: there is no room for what it cannot do without.
        """
        working = replace(_placed(running), workflow=running.whole.without(running.over))
        placement, left_out = await asyncio.to_thread(
            self.planner.mend, working,
            lost=frozenset(lost), resting=frozenset(resting), beside=self._beside(running),
        )  # fmt: skip
        ended = tuple(a for a in running.placement.assignments if a.aim in running.over)
        return Mended(replace(placement, assignments=(*placement.assignments, *ended)), left_out)

    async def improve(
        self, running: RunningWorkflow, *, places: Places, lost: Collection[str], resting: Collection[str]
    ) -> tuple[Placement | None, Mended]:
        """What the mapping costs now, None where it is impossible; and a better one, or one as asked for.

        Raises:
            PlacementError: there is no such mapping.
        """
        before, after = await asyncio.to_thread(
            self.planner.improve, _placed(running),
            places=places, lost=frozenset(lost), resting=frozenset(resting), beside=self._beside(running),
        )  # fmt: skip
        ended = tuple(a for a in running.placement.assignments if a.aim in running.over)
        whole = replace(after, assignments=(*after.assignments, *ended))
        return before, Mended(whole, running.left_out)

    def _beside(self, running: RunningWorkflow | None) -> tuple[PlacedWorkflow, ...]:
        return tuple(
            _placed(other)
            for other in self.workflows()
            if other is not running and other.state not in FINAL_WORKFLOW_STATES
        )


def _placed(running: RunningWorkflow) -> PlacedWorkflow:
    return PlacedWorkflow(running.workflow.without(running.over), running.inventory, running.placement)
