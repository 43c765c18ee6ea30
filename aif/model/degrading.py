"""What a workflow gives up where there is no room for all of it: a part of its rate, and optional AIMs.

Decides which shares of the full rate are tried, in which order rate and AIMs go, and what a workflow is at a
lower rate. Whether there is room is decided by the partitioner.

What sets the pace is slowed: AIMs without inputs, and those with ``period_ms``. What a User Agent writes to
the workflow's own inputs keeps its pace.

Source: this project's extension of the AIW metadata (``availability``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from aif.model.aim import AIMMetadata
from aif.model.aiw import AIWMetadata, Workflow
from aif.model.optional import steps
from aif.model.ports import PortRef
from aif.model.rates import derive_rates

RATES: Final = (1.0, 0.75, 0.5, 0.25, 0.1)
"""Shares of the full rate that are tried, and last of all the least that the workflow accepts."""

LEAST_RATE: Final = 0.01
"""No workflow accepts less."""


@dataclass(frozen=True, slots=True)
class Service:
    """How much of a workflow runs: all AIMs but ``left_out``, at a share (0..1) of its full rate."""

    left_out: frozenset[str] = frozenset()
    rate: float = 1.0

    def of(self, workflow: Workflow) -> Workflow:
        """The workflow, as a plan has to place it."""
        return slowed(workflow.without(self.left_out), self.rate)

    def better_than(self, other: Service, aiw: AIWMetadata) -> bool:
        """Whether the workflow would rather run like this; both are among its ``services``."""
        return self._rank(aiw) < other._rank(aiw)

    def _rank(self, aiw: AIWMetadata) -> tuple[float, float]:
        left_out, slow = float(len(self.left_out)), 1.0 - self.rate
        return (left_out, slow) if aiw.availability.slow_down == "first" else (slow, left_out)


WHOLE: Final = Service()
"""All of it."""


def services(workflow: Workflow, most_rate: float = 1.0) -> Iterator[Service]:
    """How much of a workflow may run, the most first.

    Args:
        workflow: the whole of it, at its full rate.
        most_rate: no higher share of the rate is wanted now.
    """
    rates = dict.fromkeys(min(rate, most_rate) for rate in rates_of(workflow.metadata))
    if workflow.metadata.availability.slow_down == "first":
        yield from (Service(left_out, rate) for left_out in steps(workflow) for rate in rates)
    else:
        yield from (Service(left_out, rate) for rate in rates for left_out in steps(workflow))


def rates_of(aiw: AIWMetadata) -> tuple[float, ...]:
    """Shares of its full rate that a workflow accepts, the highest first."""
    least = aiw.availability.least_rate
    return (*(rate for rate in RATES if rate > least), least)


def sets_pace(contract: AIMMetadata) -> bool:
    """Whether an AIM decides by itself when it gives the next record."""
    return contract.is_source or contract.period_ms is not None


def slowed(workflow: Workflow, rate: float) -> Workflow:
    """The same workflow, whose contracts say what comes at a share of the full rate."""
    if rate >= 1.0:
        return workflow
    contracts = {leaf.id: _at_rate(leaf.metadata, rate) for leaf in workflow.aims}
    inputs = {bound.port.name: bound.port for bound in workflow.metadata.inputs}
    told = derive_rates(contracts, workflow.channels, inputs)
    aims = []
    for leaf in workflow.aims:
        contract = contracts[leaf.id]
        outputs = tuple(
            now if told[PortRef(leaf.id, now.name)] else before  # nothing that arrives tells: as declared
            for now, before in zip(contract.outputs, leaf.metadata.outputs, strict=True)
        )
        aims.append(replace(leaf, metadata=replace(contract, outputs=outputs)))
    return replace(workflow, aims=tuple(aims))


def _at_rate(contract: AIMMetadata, rate: float) -> AIMMetadata:
    """A contract at a lower rate; outputs say it only where nothing that arrives does."""
    source = contract.is_source and contract.period_ms is None
    return replace(
        contract,
        period_ms=None if contract.period_ms is None else contract.period_ms / rate,
        outputs=tuple(
            replace(port, rate_hz=port.rate_hz * rate if source and port.rate_hz is not None else None)
            for port in contract.outputs
        ),
    )
