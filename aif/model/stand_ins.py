"""Composite AIMs that stand for basic ones: which may take whose place, and what a workflow is with them.

Decides: where a plan has a choice between an AIM and a chain of others. Does not choose (``partitioner``),
nor check that both answer alike: that is the promise of whoever declares ``stands_for``.

Source: this project's extension of the AIM metadata.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from aif.errors import RecordTypeMismatch
from aif.model.aim import AIMMetadata
from aif.model.aiw import Workflow, expand
from aif.model.records import compatible


def stand_ins_of(workflow: Workflow, catalogue: Mapping[str, AIMMetadata]) -> dict[str, tuple[str, ...]]:
    """Composites that may take the place of each AIM, by its id; AIMs without any are left out.

    An AIM keeps its place when the workflow sets its parameters, pins its implementation, or wants it kept
    ready twice, since none of these has a meaning for a chain.
    """
    offered: defaultdict[str, list[str]] = defaultdict(list)
    for reference, contract in sorted(catalogue.items()):
        if contract.stands_for is not None and contract.composition is not None:
            offered[contract.stands_for].append(reference)
    standby = workflow.metadata.availability.standby
    return {
        leaf.id: tuple(offered[leaf.metadata.reference])
        for leaf in workflow.aims
        if leaf.metadata.reference in offered
        and not leaf.parameters
        and leaf.implementation is None
        and not any(leaf.id == kept or leaf.id.startswith(f"{kept}.") for kept in standby)
    }


def with_stand_ins(
    workflow: Workflow, catalogue: Mapping[str, AIMMetadata], chosen: Mapping[str, str]
) -> Workflow:
    """The workflow with composites in place of some AIMs (id to ``Name@version``).

    Raises:
        UnknownAIM: the catalogue lacks one of its AIMs.
    """
    return expand(workflow.metadata, catalogue, chosen) if chosen else workflow


def port_difference(whole: AIMMetadata, composite: AIMMetadata) -> str:
    """Say in words how the ports of two AIMs differ; empty when one can take the other's place."""
    for side in ("inputs", "outputs"):
        ours = {port.name: port for port in getattr(composite, side)}
        theirs = {port.name: port for port in getattr(whole, side)}
        if ours.keys() != theirs.keys():
            has, wants = (", ".join(sorted(names)) or "none" for names in (ours, theirs))
            return f"its {side} are {has}, not {wants}"
        for name, port in theirs.items():
            try:
                compatible(port.type, ours[name].type)
            except RecordTypeMismatch as wrong:
                return f"port {name}: {wrong}"
    return ""
