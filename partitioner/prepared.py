"""What takes time before a workflow can be mended, done before anybody is in a hurry.

A workflow's problem on its whole site, with nothing taken and nobody lost, and its arrays. When a device is
lost, what others take is subtracted and the device is ruled out, which takes a few milliseconds. Decides
when that is the same as a problem that is built anew: as long as nobody else's messages went through what is
lost. Holds no placement, so it serves however often the workflow moves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from aif.model.aiw import Workflow
from aif.model.inventory import Inventory
from partitioner.policy import ModelFacts, PlanPolicy
from partitioner.problem.build import beside, build_problem
from partitioner.problem.parts import Load
from partitioner.search.star import Star


class Prepared:
    """One workflow on one inventory."""

    def __init__(
        self,
        workflow: Workflow,
        inventory: Inventory,
        policy: PlanPolicy,
        releases: Mapping[str, ModelFacts],
    ) -> None:
        self.workflow, self.inventory, self.policy, self.releases = workflow, inventory, policy, releases
        self._star = Star(build_problem([workflow], inventory, policy, releases=releases))
        routes = self._star.problem.routes
        self._hubs = {routes.hub(leaf) for leaf in routes.attached}

    def fits(
        self,
        workflow: Workflow,
        inventory: Inventory,
        policy: PlanPolicy,
        releases: Mapping[str, ModelFacts],
        lost: Collection[str],
    ) -> bool:
        """Whether it stands for this workflow on this inventory without some devices."""
        if any(device in self._hubs or self._star.passes(device) for device in lost):
            return False
        if self.policy.broker_device in lost:
            return False
        same = self.inventory is inventory or self.inventory == inventory
        return same and (policy, releases, workflow) == (self.policy, self.releases, self.workflow)

    def star(self, taken: Load, away: Collection[str]) -> Star:
        """The arrays beside others, with devices ruled out; its problem still has these."""
        return self._star.beside(beside(self._star.problem, taken), away)
