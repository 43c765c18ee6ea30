"""An independent judge of placements: plain loops over the metadata, no code shared with the planner.

Decides whether a placement is allowed and what it costs. It never searches and trusts no figure of the plan:
usage, latencies and objective are counted again (``tally``, ``recount``) from the workflows, the inventory
and the policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aif.errors import PlacementError
from aif.model.aiw import Workflow
from aif.model.inventory import Inventory
from aif.model.placement import Placement
from partitioner.checker.facts import Audit, Facts, Violation, Where
from partitioner.checker.tally import Tally
from partitioner.policy import ModelFacts, PlanPolicy

OBJECTIVE_TOLERANCE = 1e-5
"""The planner's prices are rounded; a reported objective may differ by this share."""


def check(
    workflows: Sequence[Workflow],
    inventory: Inventory,
    placement: Placement,
    policy: PlanPolicy,
    releases: Mapping[str, ModelFacts] | None = None,
    current: Mapping[str, str] | None = None,
) -> Audit:
    """Judge a finished placement.

    Raises:
        PlacementError: with every violation, one per line.
    """
    audit = audit_placement(workflows, inventory, placement, policy, releases, current)
    if audit.violations:
        lines = "; ".join(f"{v.name} {v.subject}: {v.text}" for v in audit.violations)
        raise PlacementError(f"the placement breaks {len(audit.violations)} rules: {lines}")
    return audit


def audit_placement(
    workflows: Sequence[Workflow],
    inventory: Inventory,
    placement: Placement,
    policy: PlanPolicy,
    releases: Mapping[str, ModelFacts] | None = None,
    current: Mapping[str, str] | None = None,
) -> Audit:
    """Everything wrong with a finished placement, its own figures included."""
    where = {a.aim: (a.device, a.implementation) for a in placement.assignments}
    audit = Auditor(workflows, inventory, policy, releases, current).audit(where)
    found = list(audit.violations)
    if len(where) != len(placement.assignments):
        found.append(Violation("placed", placement.workflow, "an AIM is assigned twice"))
    allowed = OBJECTIVE_TOLERANCE * max(1.0, abs(audit.objective))
    if abs(placement.objective - audit.objective) > allowed:
        text = f"reported {placement.objective:g}, counted {audit.objective:g}"
        found.append(Violation("objective", placement.workflow, text))
    return Audit(tuple(found), audit.objective, audit.terms)


class Auditor(Facts):
    """Judges placements of the same workflows on the same inventory."""

    def audit(self, where: Where, *, partial: bool = False) -> Audit:
        """Judge a mapping; ``partial`` leaves unplaced AIMs out instead of reporting them."""
        return Tally(self, where, partial=partial).run()


__all__ = ["Audit", "Auditor", "Violation", "Where", "audit_placement", "check"]
