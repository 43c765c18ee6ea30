"""Whole-workflow checks: do the AIMs, Ports, Channels and settings of one AIW fit together?

Takes an AIW with its AIM contracts and returns every finding at once. It names things by anchor
(which channel, which AIM, which setting); ``config`` turns an anchor into file:line:column.

Source: MPAI-AIF V2, Topology and Ports; delays and rates are this project's extension.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from aif.errors import (
    AIFError,
    CyclicTopology,
    ModelError,
    RecordTypeMismatch,
    UnconnectedPort,
    UnknownAIM,
    UnknownPort,
)
from aif.model.aim import AIMMetadata, Profile, SubAIM
from aif.model.aiw import AIWMetadata, Workflow, expand, leads
from aif.model.delivery import delivery_problems
from aif.model.optional import starving
from aif.model.ports import BOUNDARY, ChannelSpec, Overflow, Port, PortRef
from aif.model.rates import RateError, derive_rates
from aif.model.records import compatible

Anchor = tuple[str, ...]
"""What a finding is about: ("aim", id), ("channel", source, destination), ("parameter", aim, name) and so on.

A fourth part "input" of a channel's anchor means its destination end; a third part "from" or "to" of a
path's anchor one of its ends."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong (or doubtful) about a workflow."""

    code: str
    message: str
    anchor: Anchor
    label: str = ""
    notes: tuple[str, ...] = ()
    hint: str = ""
    severity: str = "error"


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean …?`` when something close is known, else the list of what is."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not close and len(word) >= 3:  # a beginning is not close by the measure above
        close = [name for name in names if name.startswith(word)]
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(names) if names else "nothing of that kind is declared"


def check_workflow(aiw: AIWMetadata, catalogue: Mapping[str, AIMMetadata]) -> list[Finding]:
    """Every finding about ``aiw``, given AIM contracts by ``Name@version``."""
    findings = [*_known_aims(aiw, catalogue)]
    contracts = {s.id: catalogue[s.use] for s in aiw.composition.aims if s.use in catalogue}
    findings += _channels(aiw, contracts)
    findings += _inputs_connected(aiw, contracts)
    workflow = _expanded(aiw, catalogue)
    findings += _cycles(aiw, workflow)
    findings += _settings(aiw, contracts)
    findings += _limits(aiw, contracts, workflow)
    if workflow is not None and not any(f.severity == "error" for f in findings):
        findings += [*_deliveries(workflow), *_rates(workflow)]
    return findings


def _expanded(aiw: AIWMetadata, catalogue: Mapping[str, AIMMetadata]) -> Workflow | None:
    """The workflow down to its basic AIMs; None where what is wrong with it is said elsewhere."""
    try:
        return expand(aiw, catalogue)
    except AIFError:
        return None


def _known_aims(aiw: AIWMetadata, catalogue: Mapping[str, AIMMetadata]) -> list[Finding]:
    return [
        Finding(
            UnknownAIM.code,
            f"no AIM library offers {sub.use}",
            ("use", sub.id),
            hint=nearest(sub.use, catalogue),
        )
        for sub in aiw.composition.aims
        if sub.use not in catalogue
    ]


def _source_port(aiw: AIWMetadata, contracts: Mapping[str, AIMMetadata], ref: PortRef) -> Port | None:
    if ref.at_boundary:
        return next((b.port for b in aiw.inputs if b.port.name == ref.port), None)
    return _find(contracts[ref.aim].outputs, ref.port) if ref.aim in contracts else None


def _destination_port(aiw: AIWMetadata, contracts: Mapping[str, AIMMetadata], ref: PortRef) -> Port | None:
    if ref.at_boundary:
        return next((b.port for b in aiw.outputs if b.port.name == ref.port), None)
    return _find(contracts[ref.aim].inputs, ref.port) if ref.aim in contracts else None


def _find(ports: Iterable[Port], name: str) -> Port | None:
    return next((port for port in ports if port.name == name), None)


def _channels(aiw: AIWMetadata, contracts: Mapping[str, AIMMetadata]) -> list[Finding]:
    findings: list[Finding] = []
    ids = {sub.id for sub in aiw.composition.aims}
    writers: defaultdict[PortRef, list[PortRef]] = defaultdict(list)
    for channel in aiw.composition.channels:
        anchor = ("channel", str(channel.source), str(channel.destination))
        ends = []
        for ref, side, lookup in (
            (channel.source, "output", _source_port),
            (channel.destination, "input", _destination_port),
        ):
            at_end = (*anchor, "input") if side == "input" else anchor
            if not ref.at_boundary and ref.aim not in ids:
                hint = nearest(ref.aim, ids)
                findings.append(
                    Finding(UnknownAIM.code, f"this workflow has no AIM {ref.aim!r}", at_end, hint=hint)
                )
                continue
            port = lookup(aiw, contracts, ref)
            if port is None and (ref.at_boundary or ref.aim in contracts):
                findings.append(_unknown_port(aiw, contracts, ref, side, at_end))
            elif port is not None:
                ends.append(port)
        if channel.source in writers[channel.destination]:
            findings.append(Finding(ModelError.code, f"channel {channel} is declared twice", anchor))
        elif writers[channel.destination]:
            findings.append(
                Finding(
                    "AIF-W0201",
                    f"two writers on {channel.destination}:"
                    f" {writers[channel.destination][0]} and {channel.source}",
                    anchor,
                    notes=("their records are merged in order of arrival",),
                    severity="warning",
                )
            )
        writers[channel.destination].append(channel.source)
        if len(ends) == 2:
            findings += _types(channel, ends[0], ends[1], contracts, anchor)
    return findings


def _unknown_port(
    aiw: AIWMetadata, contracts: Mapping[str, AIMMetadata], ref: PortRef, side: str, anchor: Anchor
) -> Finding:
    if ref.at_boundary:
        known = [b.port.name for b in (aiw.inputs if side == "output" else aiw.outputs)]
        owner = f"workflow {aiw.name}"
    else:
        contract = contracts[ref.aim]
        known = [p.name for p in (contract.outputs if side == "output" else contract.inputs)]
        owner = f"{ref.aim} ({contract.reference})"
    return Finding(
        UnknownPort.code, f"{owner} has no {side} port {ref.port!r}", anchor, hint=nearest(ref.port, known)
    )


def _types(
    channel: ChannelSpec,
    source: Port,
    destination: Port,
    contracts: Mapping[str, AIMMetadata],
    anchor: Anchor,
) -> list[Finding]:
    try:
        compatible(source.type, destination.type)
    except AIFError as reason:
        taker = contracts.get(channel.destination.aim)
        version = f" ({taker.reference})" if taker else ""
        return [
            Finding(
                RecordTypeMismatch.code,
                f"record types differ on channel {channel}",
                anchor,
                label=f"produces {source.type}" + (f" at {source.rate_hz:g} Hz" if source.rate_hz else ""),
                notes=(f"{channel.destination}{version} takes {destination.type}", str(reason)),
                hint="put an AIM that converts between them",
            )
        ]
    if source.payload_bytes > destination.payload_bytes:
        return [
            Finding(
                RecordTypeMismatch.code,
                f"records on channel {channel} may be larger than its reader takes",
                anchor,
                label=f"writes up to {source.payload_bytes:,} B",
                notes=(f"{channel.destination} takes up to {destination.payload_bytes:,} B (payload_bytes)",),
                hint=f"raise payload_bytes of the input to {source.payload_bytes}",
            )
        ]
    taker = contracts.get(channel.destination.aim)
    giver = contracts.get(channel.source.aim)
    if (
        taker
        and giver
        and giver.is_source
        and destination.overflow is Overflow.BLOCK
        and destination.max_age_ms
    ):
        return [
            Finding(
                "AIF-W0202",
                f"{channel.destination} blocks when full but is fed by a sensor, which cannot wait",
                anchor,
                hint="set overflow: drop_oldest or drop_newest on the input",
                severity="warning",
            )
        ]
    return []


def _inputs_connected(aiw: AIWMetadata, contracts: Mapping[str, AIMMetadata]) -> list[Finding]:
    fed = {channel.destination for channel in aiw.composition.channels}
    findings = [
        Finding(
            UnconnectedPort.code,
            f"required input {sub_id}.{port.name} is not connected",
            ("aim", sub_id),
            notes=(f"{contract.reference} takes {port.type} there",),
            hint=f"add to {sub_id}: inputs: {{{port.name}: <aim>.<port>}}",
        )
        for sub_id, contract in contracts.items()
        for port in contract.required_inputs()
        if PortRef(sub_id, port.name) not in fed
    ]
    findings += [
        Finding(
            UnconnectedPort.code,
            f"nothing starts {sub_id}: no input of {', '.join(contract.trigger_inputs())} is connected",
            ("aim", sub_id),
            hint="connect one of them, or give the AIM a period_ms",
        )
        for sub_id, contract in contracts.items()
        if not contract.is_source
        and contract.period_ms is None
        and contract.composition is None
        and not contract.required_inputs()
        and not any(PortRef(sub_id, name) in fed for name in contract.trigger_inputs())
    ]
    findings += [
        Finding(UnconnectedPort.code, f"workflow output {b.port.name} has no source", ("output", b.port.name))
        for b in aiw.outputs
        if PortRef(BOUNDARY, b.port.name) not in fed
    ]
    return findings


def _cycles(aiw: AIWMetadata, workflow: Workflow | None) -> list[Finding]:
    """A cycle between basic AIMs; one that lies inside a composite is that composite's own."""
    graph: defaultdict[str, set[str]] = defaultdict(set)
    for channel in workflow.channels if workflow is not None else aiw.composition.channels:
        source, destination = channel.source.aim, channel.destination.aim
        if channel.delay_records == 0 and BOUNDARY not in (source, destination):
            graph[destination].add(source)
    written = {
        (channel.source.aim, channel.destination.aim): channel
        for channel in aiw.composition.channels
        if channel.delay_records == 0
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as found:
        path: list[str] = found.args[1]
        top = [aim.partition(".")[0] for aim in path]
        closing = next((written[ends] for ends in pairwise(top) if ends in written), None)
        if closing is None:
            return []
        return [
            Finding(
                CyclicTopology.code,
                f"cycle without delay: {' -> '.join(path)}",
                ("channel", str(closing.source), str(closing.destination)),
                notes=("every AIM on it would wait for the others forever",),
                hint="declare a delay on one of its channels: channels: [{output: …, input: …, delay: 1}]",
            )
        ]
    return []


def _deliveries(workflow: Workflow) -> list[Finding]:
    return [
        Finding(
            ModelError.code,
            f"channel {channel} cannot be acknowledged: {problem}",
            ("channel", str(channel.source), str(channel.destination)),
            hint=hint,
        )
        for channel, problem, hint in delivery_problems(workflow)
    ]


def _settings(aiw: AIWMetadata, contracts: Mapping[str, AIMMetadata]) -> list[Finding]:
    findings: list[Finding] = []
    ids = {sub.id for sub in aiw.composition.aims}
    for sub in aiw.composition.aims:
        hint = sub.placement
        for other in (*hint.colocate_with, *hint.separate_from) if hint else ():
            if other not in ids or other == sub.id:
                message = f"placement of {sub.id} names {other!r}, which is not another AIM of this workflow"
                findings.append(
                    Finding(UnknownAIM.code, message, ("placement", sub.id), hint=nearest(other, ids))
                )
        if sub.id in contracts:
            findings += _implementation_and_parameters(sub, contracts[sub.id])
    if aiw.profile is Profile.SECURE and aiw.trusted_scope == "aiw" and len(ids) > 1:
        findings.append(
            Finding(
                ModelError.code,
                f"trusted_scope: aiw allows one AIM at the top level, {aiw.name} has {len(ids)}",
                ("trusted_scope",),
                hint="wrap them in one composite AIM, or use trusted_scope: aim",
            )
        )
    return findings


def _implementation_and_parameters(sub: SubAIM, contract: AIMMetadata) -> list[Finding]:
    findings: list[Finding] = []
    if sub.implementation and contract.implementation(sub.implementation) is None:
        known = [i.id for i in contract.implementations]
        message = f"{contract.reference} has no implementation {sub.implementation!r}"
        findings.append(
            Finding(
                UnknownAIM.code, message, ("implementation", sub.id), hint=nearest(sub.implementation, known)
            )
        )
    declared = {p.name: p for p in contract.parameters}
    for name, value in sub.parameters.items():
        anchor = ("parameter", sub.id, name)
        if name not in declared:
            message = f"{contract.reference} has no parameter {name!r}"
            findings.append(Finding("AIF-E0209", message, anchor, hint=nearest(name, declared)))
        elif problem := declared[name].problem_with(value):
            findings.append(
                Finding("AIF-E0209", f"parameter {name} of {sub.id} {problem}", anchor, label=f"{value!r}")
            )
    missing = [p.name for p in contract.parameters if p.required and p.name not in sub.parameters]
    findings += [
        Finding(
            "AIF-E0209", f"{sub.id} lacks the parameter {name!r} of {contract.reference}", ("aim", sub.id)
        )
        for name in missing
    ]
    return findings


def _limits(
    aiw: AIWMetadata, contracts: Mapping[str, AIMMetadata], workflow: Workflow | None
) -> list[Finding]:
    findings: list[Finding] = []
    ids = {sub.id for sub in aiw.composition.aims}
    connected = {
        limit.id
        for limit in (workflow.metadata if workflow is not None else aiw).paths
        if leads(
            workflow.channels if workflow is not None else aiw.composition.channels,
            limit.source,
            limit.destination,
        )
    }
    for limit in aiw.paths:
        anchor = ("path", limit.id)
        ends_known = True
        for end, ref in (("from", limit.source), ("to", limit.destination)):
            lookup = (_source_port(aiw, contracts, ref), _destination_port(aiw, contracts, ref))
            if lookup == (None, None):
                ends_known = False
                if ref.aim in ids and ref.aim not in contracts:
                    continue  # its AIM is unknown, which is reported there
                findings.append(
                    Finding(UnknownPort.code, f"path {limit.id} names unknown port {ref}", (*anchor, end))
                )
        if ends_known and limit.id not in connected:
            message = f"path {limit.id}: nothing flows from {limit.source} to {limit.destination}"
            findings.append(Finding(UnconnectedPort.code, message, anchor))
    return [*findings, *_standby(aiw, ids), *_optional(aiw, ids)]


def _standby(aiw: AIWMetadata, ids: set[str]) -> Iterator[Finding]:
    pinned = {sub.id: sub.placement.device for sub in aiw.composition.aims if sub.placement is not None}
    for aim in aiw.availability.standby:
        if aim not in ids:
            text = f"standby names unknown AIM {aim!r}"
            yield Finding(UnknownAIM.code, text, ("availability", aim), hint=nearest(aim, ids))
        elif pinned.get(aim):
            text = f"{aim} is pinned to device {pinned[aim]}: no second device may run it"
            hint = "pin it to a class, a site or a zone, or take it out of standby"
            yield Finding(ModelError.code, text, ("availability", aim), hint=hint)


def _optional(aiw: AIWMetadata, ids: set[str]) -> Iterator[Finding]:
    for aim in aiw.availability.optional:
        if aim not in ids:
            text = f"optional names unknown AIM {aim!r}"
            yield Finding(UnknownAIM.code, text, ("availability", aim, "optional"), hint=nearest(aim, ids))
    for aim, reader in starving(aiw):
        text = f"{aim} cannot be left out: {reader} reads from it and is not left out before it"
        hint = f"name {reader} before {aim}, or neither"
        yield Finding(UnconnectedPort.code, text, ("availability", aim, "optional"), hint=hint)


def _rates(workflow: Workflow) -> list[Finding]:
    contracts = {leaf.id: leaf.metadata for leaf in workflow.aims}
    try:
        derive_rates(contracts, workflow.channels, {b.port.name: b.port for b in workflow.metadata.inputs})
    except RateError as wrong:
        return [Finding(RateError.code, str(wrong), ("aim", wrong.aim.partition(".")[0]), hint=wrong.hint)]
    except CyclicTopology:  # inside a composite, which says so itself
        return []
    return []


__all__ = ["Anchor", "Finding", "check_workflow", "nearest"]
