"""The oracle: tries every placement of a tiny problem and judges each with the independent checker.

At most four AIMs (and their standbys), three devices and two implementations each. Branches are cut only
where the AIMs placed so far already break a rule, since adding an AIM never frees anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from aif.errors import PlacementError
from aif.model.aiw import Workflow
from aif.model.inventory import Inventory
from partitioner.checker.check import Auditor
from partitioner.policy import ModelFacts, PlanPolicy

MAX_AIMS, MAX_DEVICES, MAX_IMPLEMENTATIONS = 4, 3, 2


@dataclass(frozen=True, slots=True)
class Best:
    """The optimum: objective and, per AIM key, device and implementation."""

    objective: float
    where: Mapping[str, tuple[str, str]]


def best_placement(
    workflows: Sequence[Workflow],
    inventory: Inventory,
    policy: PlanPolicy,
    releases: Mapping[str, ModelFacts] | None = None,
    current: Mapping[str, str] | None = None,
) -> Best | None:
    """The cheapest placement that the checker allows, or None when it allows none.

    Raises:
        PlacementError: the problem is too large to try everything.
    """
    auditor = Auditor(workflows, inventory, policy, releases, current)
    devices = [device.id for device in inventory.devices]
    options = _options(auditor, devices)
    order = [(key, options.get(key) or [(device, "") for device in devices]) for key in auditor.places()]
    best: Best | None = None

    def extend(depth: int, where: dict[str, tuple[str, str]]) -> None:
        nonlocal best
        audit = auditor.audit(where, partial=True)
        if audit.violations:
            return
        if depth == len(order):
            if best is None or audit.objective < best.objective:
                best = Best(audit.objective, dict(where))
            return
        key, choices = order[depth]
        for choice in choices:
            extend(depth + 1, {**where, key: choice})

    extend(0, {})
    return best


def _options(auditor: Auditor, devices: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Everything that each AIM and each standby may choose between, by key."""
    options: dict[str, list[tuple[str, str]]] = {}
    aims = [(number, leaf) for number, workflow in enumerate(auditor.workflows) for leaf in workflow.aims]
    for number, leaf in aims:
        ids = [implementation.id for implementation in leaf.metadata.implementations]
        if len(ids) > MAX_IMPLEMENTATIONS:
            raise PlacementError(f"{leaf.id} has {len(ids)} implementations, too many to try all")
        choices = list(product(devices, ids))
        options[auditor.key(number, leaf.id)] = choices
        if auditor.has_standby(number, leaf):
            options[auditor.standby(number, leaf)] = choices
    if len(aims) > MAX_AIMS or len(devices) > MAX_DEVICES:
        raise PlacementError(f"{len(aims)} AIMs on {len(devices)} devices are too many to try all")
    return options
