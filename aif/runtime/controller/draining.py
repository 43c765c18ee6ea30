"""What a person may ask about where AIMs run: drain a device, see what would move.

Decides that a device is drained only when all its AIMs have another place; the moves themselves are made by
``healing``, as for a device that is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aif.errors import StopFailed
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES
from aif.runtime.devices.registry import Site
from aif.runtime.mapping.planning import Planning
from aif.runtime.mapping.reasons import Reasons
from aif.runtime.mapping.remapping import Move, moves_between
from aif.runtime.mapping.workflows import Changes, RunningWorkflow

MOVED_S = 60.0
"""For the last AIM to leave a device that is drained."""


@dataclass(frozen=True, slots=True)
class Draining:
    """What it takes to drain a device."""

    site: Site
    planning: Planning
    changes: Changes
    reasons: Callable[[RunningWorkflow], Reasons]
    workflows: Callable[[], Iterable[RunningWorkflow]]

    async def proposal(self, device: str = "") -> dict[str, tuple[Move, ...]]:
        """What would move, by workflow, if a device were not there; nothing is changed.

        Raises:
            NotFound: the site has no such device.
            PlacementError: a workflow has no room without it.
        """
        if device:
            self.site.device(device)
        proposed = {}
        for running in self.workflows():
            if running.state in FINAL_WORKFLOW_STATES or running.plan is None:
                continue
            reasons = self.reasons(running)
            resting = {*reasons.closed(), *([device] if device else ())}
            mended = await self.planning.mend(
                running, lost=reasons.absent(), resting=resting, most_rate=running.service.rate
            )
            proposed[running.aiw_id] = moves_between(running, mended.placement, ())
        return proposed

    async def drain(self, device: str) -> dict[str, tuple[Move, ...]]:
        """Move all AIMs of a device away, and put none there until ``Site.set_drained`` allows it.

        Raises:
            NotFound: the site has no such device.
            PlacementError: an AIM has no other place; then nothing is changed.
            StopFailed: an AIM is still there after a minute; it leaves as soon as it can.
        """
        moves = await self.proposal(device)
        await asyncio.to_thread(self.site.set_drained, device, drained=True)
        await self.changes.until(
            lambda: not any(device in running.devices for running in self._at_work()),
            MOVED_S, lambda: StopFailed(f"{device} still runs AIMs", hint="see `aif status` and `aif logs`"),
        )  # fmt: skip
        return moves

    def _at_work(self) -> list[RunningWorkflow]:
        return [running for running in self.workflows() if running.state not in FINAL_WORKFLOW_STATES]
