"""Record rates of every output Port, derived from the sources downstream.

A rule, not a measurement: invocation rate = trigger rate / ``consumes``; output rate = invocation rate *
``emits``. Feedback channels (declared delay) are cut. Rates are records per second, long-run means.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter

from aif.errors import ModelError
from aif.model.aim import AIMMetadata
from aif.model.ports import BOUNDARY, ChannelSpec, Port, PortRef

TOLERANCE = 0.10
"""A declared rate may differ from the derived one by this share."""


class RateError(ModelError):
    """A rate that is missing at a source or contradicts what arrives. ``aim`` names where."""

    code = "AIF-E0210"

    def __init__(self, message: str, *, aim: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.aim = aim


def derive_rates(
    contracts: Mapping[str, AIMMetadata],
    channels: Iterable[ChannelSpec],
    boundary: Mapping[str, Port] | None = None,
) -> dict[PortRef, float]:
    """Records per second for every output Port (and boundary input) of a workflow.

    Args:
        contracts: contract of each AIM by its id in the workflow.
        channels: the Topology between those ids.
        boundary: the workflow's own input Ports by name.

    Raises:
        RateError: a source declares no rate, or a declared rate is off by more than 10 %.
    """
    rates: dict[PortRef, float] = {
        PortRef(BOUNDARY, name): port.rate_hz or 0.0 for name, port in (boundary or {}).items()
    }
    feeding: defaultdict[PortRef, list[PortRef]] = defaultdict(list)
    order: dict[str, set[str]] = {aim: set() for aim in contracts}
    for channel in channels:
        if channel.delay_records == 0:
            feeding[channel.destination].append(channel.source)
            if BOUNDARY not in (channel.source.aim, channel.destination.aim):
                order[channel.destination.aim].add(channel.source.aim)
    for aim in TopologicalSorter(order).static_order():
        contract = contracts[aim]
        invocations = _invocations_per_s(aim, contract, feeding, rates)
        for port in contract.outputs:
            rates[PortRef(aim, port.name)] = _output_rate(aim, contract, port, invocations)
    return rates


def invocation_rates(
    contracts: Mapping[str, AIMMetadata], channels: Iterable[ChannelSpec], rates: Mapping[PortRef, float]
) -> dict[str, float]:
    """Invocations per second of every AIM, given the output rates of ``derive_rates``."""
    feeding: defaultdict[PortRef, list[PortRef]] = defaultdict(list)
    for channel in channels:
        if channel.delay_records == 0:
            feeding[channel.destination].append(channel.source)
    return {
        aim: value if (value := _invocations_per_s(aim, contract, feeding, rates)) is not None
        else max((rates[PortRef(aim, p.name)] / p.emits for p in contract.outputs if p.emits), default=0.0)
        for aim, contract in contracts.items()
    }  # fmt: skip


def _invocations_per_s(
    aim: str,
    contract: AIMMetadata,
    feeding: Mapping[PortRef, list[PortRef]],
    rates: Mapping[PortRef, float],
) -> float | None:
    """None when only the outputs of a source can tell."""
    if contract.period_ms is not None:
        return 1000.0 / contract.period_ms
    names = contract.trigger.inputs or tuple(p.name for p in contract.required_inputs())
    names = names or tuple(p.name for p in contract.inputs)
    arriving = [
        sum(rates.get(source, 0.0) for source in feeding.get(PortRef(aim, name), ()))
        / contract.input(name).consumes
        for name in names
    ]
    if not arriving:
        return None
    return sum(arriving) if contract.trigger.any_of else min(arriving)


def _output_rate(aim: str, contract: AIMMetadata, port: Port, invocations: float | None) -> float:
    if invocations is None:
        if port.rate_hz is None:
            raise RateError(
                f"{aim} ({contract.reference}) is a source, but its output {port.name} declares no rate",
                aim=aim,
                hint="give the output rate_hz, or the AIM period_ms",
            )
        return port.rate_hz
    derived = invocations * port.emits
    if port.rate_hz is not None and abs(port.rate_hz - derived) > TOLERANCE * max(derived, port.rate_hz):
        raise RateError(
            f"{aim}.{port.name} declares {port.rate_hz:g} Hz but {derived:g} Hz follow from what arrives",
            aim=aim,
            hint="correct rate_hz, consumes or emits",
        )
    return port.rate_hz or derived
