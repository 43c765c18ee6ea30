"""What stays the same when plans of one workflow differ only in what they are wanted for.

Decides how ``aif plan`` asks the planner: which chains may stand for AIMs, with which time and seed, and
whether a lower rate would have room. Does not decide what is asked for, or how the answer looks (``plan``).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from aif.errors import PlacementError

if TYPE_CHECKING:
    from aif.config import Catalogue
    from aif.model.aiw import Workflow
    from aif.model.inventory import Inventory
    from partitioner.alternatives import Chosen
    from partitioner.objectives import Solve
    from partitioner.planner import Plan
    from partitioner.policy import ModelFacts
    from partitioner.problem.build import PlacementProblem


class PlanSettings:
    """Everything that stays the same when plans differ only in their weights."""

    def __init__(
        self,
        workflow: Workflow,
        contracts: Catalogue,
        inventory: Inventory,
        *,
        broker: str | None,
        releases: Mapping[str, ModelFacts],
        current: Mapping[str, str],
        time_limit_s: float,
        seed: int,
        reproducible: bool,
    ) -> None:
        from aif.model.stand_ins import stand_ins_of
        from partitioner.policy import PlanPolicy
        from partitioner.search.pace import Clock, Work

        self._written, self._contracts = workflow, contracts
        self._has_chains = bool(stand_ins_of(workflow, contracts))
        self.inventory, self.policy = inventory, PlanPolicy(broker_device=broker)
        self.releases, self.current = releases, current
        self.time_limit_s, self.seed = time_limit_s, seed
        self.pace = Work() if reproducible else Clock()

    @cached_property
    def chosen(self) -> Chosen:
        """The plan by the file's own weights; which chains stand for AIMs is decided by them."""
        from partitioner.alternatives import choose

        return choose(
            [self._written], self._contracts, self.inventory, self.policy,
            lambda problem, limit_s: self._find(problem, limit_s).placement(),
            releases=self.releases, current=self.current, time_limit_s=self.time_limit_s,
            pace=self.pace,
        )  # fmt: skip

    @property
    def workflow(self) -> Workflow:
        """As it is placed; where no chain can stand for an AIM, that needs no plan."""
        return self.chosen.workflows[0] if self._has_chains else self._written

    @property
    def stand_ins(self) -> Mapping[str, str]:
        return self.chosen.stand_ins[0] if self._has_chains else {}

    def _find(self, problem: PlacementProblem, time_limit_s: float, *, in_full: bool = True) -> Plan:
        from partitioner.planner import plan as find

        return find(problem, time_limit_s=time_limit_s, seed=self.seed, in_full=in_full, pace=self.pace)

    def solve(self, workflow: Workflow, *, in_full: bool = True) -> Plan:
        from partitioner.problem.build import build_problem

        problem = build_problem(
            [workflow], self.inventory, self.policy, releases=self.releases, current=self.current
        )
        return self._find(problem, self.time_limit_s, in_full=in_full)

    def slower(self) -> str:
        """At which lower rate the workflow would have room, if it accepts one; else nothing."""
        from aif.model.degrading import rates_of, slowed

        for rate in rates_of(self._written.metadata)[1:]:
            with suppress(PlacementError):
                self.solve(slowed(self._written, rate), in_full=False)
                return f"there is room for {rate:.0%} of its rate, which it accepts when a device is lost"
        return ""

    @property
    def by_weights(self) -> Solve:
        from partitioner.objectives import weighing

        return lambda weights: self.solve(weighing([self.workflow], weights)[0])
