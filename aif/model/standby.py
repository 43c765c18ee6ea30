"""AIMs that are kept ready on a second device: which, and under what name a placement tells where.

A standby is charged memory and storage, runs nothing and holds no channel key; it takes over when the first
device is lost. Decides names and which AIMs of a workflow have one; where they stand is the planner's.

Source: this project's extension of the AIW metadata (``availability.standby``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from aif.model.aim import PlacementHint
from aif.model.aiw import LeafAIM, Workflow

SUFFIX = "~standby"
"""No AIM id holds a tilde, so no AIM has such a name."""


def standby_of(aim: str) -> str:
    """The name under which a placement holds the standby of an AIM."""
    return aim + SUFFIX


def served_by(name: str) -> str:
    """The AIM that a name in a placement stands by for; empty when it is no standby."""
    return name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else ""


def in_words(name: str) -> str:
    """A name of a placement for people: ``standby of classifier``."""
    aim = served_by(name)
    return f"standby of {aim}" if aim else name


def kept_ready(workflow: Workflow) -> tuple[LeafAIM, ...]:
    """AIMs with a standby, in the order of the workflow; a composite stands for all its parts."""
    named = workflow.metadata.availability.standby
    return tuple(
        leaf for leaf in workflow.aims if any(f"{leaf.id}.".startswith(f"{name}.") for name in named)
    )


def keeping_ready(workflow: Workflow, aims: Collection[str]) -> Workflow:
    """The same workflow with standbys of these AIMs only, as far as its author wants them."""
    kept = tuple(leaf.id for leaf in kept_ready(workflow) if leaf.id in aims)
    availability = replace(workflow.metadata.availability, standby=kept)
    return replace(workflow, metadata=replace(workflow.metadata, availability=availability))


def standby_hint(hint: PlacementHint | None) -> PlacementHint | None:
    """What the pins of an AIM ask of its standby: all but the device, which the AIM itself has."""
    return hint if hint is None else replace(hint, device=None)
