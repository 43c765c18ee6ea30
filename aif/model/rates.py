"""Record rates of every output Port, derived from the sources downstream.

A rule, not a measurement: invocation rate = trigger rate / ``consumes``; output rate = invocation rate *
``emits``. Delayed channels that close a cycle are cut: what comes back cannot set the pace. Rates are records
per second, long-run means; 0 stands for a rate that nobody declared (a boundary input without ``rate_hz``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from aif.errors import CyclicTopology, ModelError
from aif.model.aim import AIMMetadata
from aif.model.ports import BOUNDARY, ChannelSpec, Port, PortRef

TOLERANCE = 0.10
"""A declared rate may differ from the derived one by this share."""

Feeders = Mapping[PortRef, list[PortRef]]
"""Sources of every connected input; an input that only feedback reaches has an empty list."""


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
        CyclicTopology: a cycle without delay.
    """
    rates: dict[PortRef, float] = {
        PortRef(BOUNDARY, name): port.rate_hz or 0.0 for name, port in (boundary or {}).items()
    }
    feeding, order = _feeders(contracts, tuple(channels))
    try:
        in_order = list(TopologicalSorter(order).static_order())
    except CycleError as found:
        raise CyclicTopology(f"cycle without delay: {' -> '.join(found.args[1])}") from None
    for aim in in_order:
        contract = contracts[aim]
        invocations = _invocations_per_s(aim, contract, feeding, rates)
        for port in contract.outputs:
            rates[PortRef(aim, port.name)] = _output_rate(aim, contract, port, invocations)
    return rates


def invocation_rates(
    contracts: Mapping[str, AIMMetadata], channels: Iterable[ChannelSpec], rates: Mapping[PortRef, float]
) -> dict[str, float]:
    """Invocations per second of every AIM, given the output rates of ``derive_rates``."""
    feeding, _ = _feeders(contracts, tuple(channels))
    return {
        aim: value if (value := _invocations_per_s(aim, contract, feeding, rates)) is not None
        else max((rates[PortRef(aim, p.name)] / p.emits for p in contract.outputs if p.emits), default=0.0)
        for aim, contract in contracts.items()
    }  # fmt: skip


def _feeders(
    contracts: Mapping[str, AIMMetadata], channels: tuple[ChannelSpec, ...]
) -> tuple[Feeders, dict[str, set[str]]]:
    """What sets the pace of every input, and which AIMs come before which."""
    forward: defaultdict[str, set[str]] = defaultdict(set)
    for channel in channels:
        if BOUNDARY not in (channel.source.aim, channel.destination.aim):
            forward[channel.source.aim].add(channel.destination.aim)
    feeding: defaultdict[PortRef, list[PortRef]] = defaultdict(list)
    order: dict[str, set[str]] = {aim: set() for aim in contracts}
    for channel in channels:
        source, destination = channel.source, channel.destination
        sources = feeding[destination]
        inside = BOUNDARY not in (source.aim, destination.aim)
        if inside and channel.delay_records and _leads(forward, destination.aim, source.aim):
            continue
        sources.append(source)
        if inside:
            order[destination.aim].add(source.aim)
    return feeding, order


def _leads(forward: Mapping[str, set[str]], start: str, end: str) -> bool:
    seen, todo = {start}, [start]
    while todo:
        aim = todo.pop()
        if aim == end:
            return True
        new = forward.get(aim, set()) - seen
        seen |= new
        todo += new
    return False


def _invocations_per_s(
    aim: str, contract: AIMMetadata, feeding: Feeders, rates: Mapping[PortRef, float]
) -> float | None:
    """None when only the outputs of a source can tell; 0 when nothing tells."""
    if contract.period_ms is not None:
        return 1000.0 / contract.period_ms
    if contract.is_source:
        return None
    arriving = [
        sum(rates.get(source, 0.0) for source in feeding[PortRef(aim, name)]) / contract.input(name).consumes
        for name in contract.trigger_inputs()
        if PortRef(aim, name) in feeding
    ]
    if contract.trigger.any_of:
        return sum(arriving)
    return min((rate for rate in arriving if rate), default=0.0)


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
    if port.rate_hz is None or not derived:
        return port.rate_hz or derived
    if abs(port.rate_hz - derived) > TOLERANCE * max(derived, port.rate_hz):
        raise RateError(
            f"{aim}.{port.name} declares {port.rate_hz:g} Hz but {derived:g} Hz follow from what arrives",
            aim=aim,
            hint="correct rate_hz, consumes or emits",
        )
    return port.rate_hz
