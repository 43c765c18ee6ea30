"""The partitioner as the Controller asks for it: a first placement, and another one for what runs.

The partitioner is imported inside the functions: its solver costs half a second.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from aif.errors import PlacementError
from aif.model.aim import AIMMetadata, PlacementHint
from aif.model.aiw import LeafAIM, Workflow
from aif.model.inventory import Inventory
from aif.model.placement import Placement


def plan_workflow(
    workflow: Workflow, inventory: Inventory, contracts: Mapping[str, AIMMetadata]
) -> tuple[Workflow, Placement]:
    """Place a workflow with the partitioner; the workflow comes back with the chains that were chosen."""
    from partitioner.alternatives import choose
    from partitioner.planner import DEFAULT_TIME_LIMIT_S, place
    from partitioner.policy import PlanPolicy

    chosen = choose(
        [workflow],
        contracts,
        inventory,
        PlanPolicy(),
        lambda problem, limit_s: place(problem, time_limit_s=limit_s),
        time_limit_s=DEFAULT_TIME_LIMIT_S,
    )
    (planned,), placement = chosen.workflows, chosen.placement
    aims = {leaf.id for leaf in planned.aims}
    # boundary ports that are bound to a device are placed too, but nothing runs for them
    kept = tuple(a for a in placement.assignments if a.aim in aims)
    return planned, replace(placement, assignments=kept)


def replan_workflow(
    workflow: Workflow,
    inventory: Inventory,
    placement: Placement,
    *,
    away: Collection[str],
    over: Collection[str],
) -> Placement:
    """Place a running workflow without some devices, with as few moves as possible.

    At first all AIMs that can stay do; only if there is no room then, all may move.

    Raises:
        PlacementError: there is no room at all.
    """
    left = _working_part(workflow, over)
    present = inventory.without(away)
    try:
        planned = _place(_pinned(left, placement, away), present)
    except PlacementError:
        planned = _place(left, present)
    ended = tuple(placement.assignment(aim) for aim in over)
    return replace(planned, assignments=(*planned.assignments, *ended), stand_ins=placement.stand_ins)


def _place(workflow: Workflow, inventory: Inventory) -> Placement:
    """A placement of a workflow whose chains of parts are chosen already."""
    from partitioner.planner import place
    from partitioner.policy import PlanPolicy
    from partitioner.problem import build_problem

    placement = place(build_problem([workflow], inventory, PlanPolicy()))
    aims = {leaf.id for leaf in workflow.aims}
    return replace(placement, assignments=tuple(a for a in placement.assignments if a.aim in aims))


def _working_part(workflow: Workflow, over: Collection[str]) -> Workflow:
    """A workflow without the AIMs that have ended, and what hangs on them."""
    metadata = workflow.metadata
    paths = tuple(p for p in metadata.paths if not {p.source.aim, p.destination.aim} & {*over})
    return replace(
        workflow,
        metadata=replace(metadata, paths=paths),
        aims=tuple(leaf for leaf in workflow.aims if leaf.id not in over),
        channels=tuple(c for c in workflow.channels if not {c.source.aim, c.destination.aim} & {*over}),
    )


def _pinned(workflow: Workflow, placement: Placement, away: Collection[str]) -> Workflow:
    """The same workflow with every AIM pinned to where it is, unless that device is away."""

    def pinned(leaf: LeafAIM) -> LeafAIM:
        now = placement.assignment(leaf.id)
        if now.device in away:
            return leaf
        hint = replace(leaf.placement or PlacementHint(), device=now.device)
        return replace(leaf, placement=hint, implementation=now.implementation)

    return replace(workflow, aims=tuple(pinned(leaf) for leaf in workflow.aims))
