"""SubAIMs, their channels and the settings of those: the part that workflows and composite AIMs share.

Decides which channels a file declares and where each is written; whether they fit is decided by
``aif.model.check``, whose findings ``locate`` turns into diagnostics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aif.config.aim_file import ChannelEntry, HintEntry, SubAIMEntry, TopologyEntry
from aif.config.codes import Code
from aif.config.document import Path_
from aif.config.findings import Findings
from aif.config.yaml_reader import ListNode
from aif.model.aim import Composition, ParameterValue, PlacementHint, SubAIM
from aif.model.check import Anchor, Finding
from aif.model.ports import BOUNDARY, BundleSettings, ChannelSpec, Delivery, LocalPolicy, PortRef
from aif.model.rates import RateError


@dataclass(slots=True)
class Composed:
    """A composition, and where each thing that a finding may name is written."""

    composition: Composition
    places: dict[Anchor, Path_]


@dataclass(slots=True)
class _Channels:
    """The channels as they are declared, in the order of the text."""

    findings: Findings
    places: dict[Anchor, Path_] = field(default_factory=dict)
    ends: dict[tuple[str, str], None] = field(default_factory=dict)

    def declare(self, source: str, destination: str, at_source: Path_, at_destination: Path_) -> None:
        if (source, destination) in self.ends:
            first = self.findings.document.location(self.places["channel", source, destination])
            self.findings.add(
                Code.DUPLICATE,
                f"channel {source} -> {destination} is given twice",
                at_source,
                notes=(f"first given at {first}",),
            )
            return
        self.ends[source, destination] = None
        self.places["channel", source, destination] = at_source
        self.places["channel", source, destination, "input"] = at_destination


def compose(
    findings: Findings,
    aims: Sequence[SubAIMEntry],
    outputs: Mapping[str, Sequence[str]],
    topology: Iterable[TopologyEntry],
    settings: Sequence[ChannelEntry],
) -> Composed:
    """Read ``aims``, ``outputs`` (name: sources), ``topology`` and ``channels`` of a document."""
    declared = _Channels(findings)
    subs = _sub_aims(findings, aims, declared)
    for name, sources in outputs.items():
        path: Path_ = ("outputs", name)
        if findings.document.find((*path, "from"))[2]:
            path = (*path, "from")
        for position, source in enumerate(sources):
            declared.declare(source, f"{BOUNDARY}.{name}", _item(findings, path, position), ("outputs", name))
    for position, row in enumerate(topology):
        at: Path_ = ("topology", position)
        declared.declare(row.output, row.input, (*at, "output"), (*at, "input"))
    known = _settings(findings, settings, declared)
    order = _order(subs, outputs, declared.ends)
    channels = tuple(
        _channel(*ends, known.get(ends)) for ends in sorted(declared.ends, key=order.__getitem__)
    )
    return Composed(Composition(subs, channels), declared.places)


def _order(
    subs: Sequence[SubAIM], outputs: Iterable[str], ends: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[int, int]]:
    """Channels by reader, then by its port: the order does not tell ``topology`` from ``inputs``."""
    readers = {sub.id: position for position, sub in enumerate(subs)}
    ports = {f"{BOUNDARY}.{name}": position for position, name in enumerate(outputs)}
    order: dict[tuple[str, str], tuple[int, int]] = {}
    for source, destination in ends:
        reader = readers.get(destination.rpartition(".")[0], len(readers))
        order[source, destination] = (reader, ports.setdefault(destination, len(ports)))
    return order


def _item(findings: Findings, path: Path_, position: int) -> Path_:
    """The place of one reference of a list that may be written as a single text."""
    return (*path, position) if isinstance(findings.document.find(path)[0], ListNode) else path


def _sub_aims(findings: Findings, aims: Sequence[SubAIMEntry], declared: _Channels) -> tuple[SubAIM, ...]:
    subs: dict[str, SubAIM] = {}
    first: dict[str, Path_] = {}
    for position, entry in enumerate(aims):
        path: Path_ = ("aims", position)
        if entry.id == BOUNDARY:
            message = f"{BOUNDARY!r} stands for the workflow's boundary and cannot be the id of an AIM"
            findings.add(Code.VALUE, message, (*path, "id"))
            findings.spoil((*path, "id"))
            continue
        if entry.id in subs:
            at = findings.document.location(first[entry.id])
            message = f"two AIMs have the id {entry.id!r}"
            findings.add(Code.DUPLICATE, message, (*path, "id"), notes=(f"the first is at {at}",))
            continue
        first[entry.id] = (*path, "id")
        places = declared.places
        for kind, key in (
            ("aim", "id"),
            ("use", "use"),
            ("placement", "placement"),
            ("implementation", "implementation"),
        ):
            places[kind, entry.id] = (*path, key)
        places.update(
            {("parameter", entry.id, name): (*path, "parameters", name) for name in entry.parameters}
        )
        for port, sources in entry.inputs.items():
            at_port: Path_ = (*path, "inputs", port)
            for one, source in enumerate(sources):
                declared.declare(source, f"{entry.id}.{port}", _item(findings, at_port, one), at_port)
        subs[entry.id] = SubAIM(
            entry.id,
            entry.use,
            _values(findings, entry.parameters, (*path, "parameters")),
            _hint(entry.placement) if entry.placement else None,
            entry.implementation,
        )
    return tuple(subs.values())


def _values(findings: Findings, given: Mapping[str, object], path: Path_) -> dict[str, ParameterValue]:
    values: dict[str, ParameterValue] = {}
    for name, value in given.items():
        if isinstance(value, bool | int | float | str):
            values[name] = value
        elif isinstance(value, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in value
        ):
            values[name] = tuple(map(float, value))
        else:
            findings.add(Code.VALUE, f"parameter {name} must be a value or a list of numbers", (*path, name))
    return values


def _hint(entry: HintEntry) -> PlacementHint:
    return PlacementHint(
        entry.device,
        entry.device_class,
        entry.site,
        entry.zone,
        tuple(entry.colocate_with),
        tuple(entry.separate_from),
        entry.strength,
    )


def _settings(
    findings: Findings, entries: Sequence[ChannelEntry], declared: _Channels
) -> dict[tuple[str, str], ChannelEntry]:
    known: dict[tuple[str, str], ChannelEntry] = {}
    for position, entry in enumerate(entries):
        ends = (entry.output, entry.input)
        path: Path_ = ("channels", position, "output")
        if ends in known:
            findings.add(
                Code.DUPLICATE, f"settings of channel {entry.output} -> {entry.input} are given twice", path
            )
        elif ends not in declared.ends:
            if not _any_spoilt(findings, ends):
                findings.add(
                    Code.REFERENCE,
                    f"there is no channel {entry.output} -> {entry.input} to set",
                    path,
                    hint=findings.suggest(" -> ".join(ends), [" -> ".join(one) for one in declared.ends]),
                )
        else:
            known[ends] = entry
    return known


def _channel(source: str, destination: str, entry: ChannelEntry | None) -> ChannelSpec:
    ends = PortRef.parse(source), PortRef.parse(destination)
    if entry is None:
        return ChannelSpec(*ends)
    bundle = BundleSettings(entry.bundle.max_messages, entry.bundle.max_delay_ms, entry.bundle.max_bytes)
    return ChannelSpec(
        *ends, entry.auth_mode, entry.qos, bundle, entry.delay, LocalPolicy(entry.local),
        Delivery(entry.delivery),
    )  # fmt: skip


def locate(findings: Findings, composed: Composed, found: Iterable[Finding]) -> None:
    """Report what the whole-workflow checks found, at its place; not what follows from an earlier mistake."""
    for finding in found:
        if _follows(findings, finding):
            continue
        path = composed.places.get(finding.anchor) or composed.places.get(finding.anchor[:3])
        key = finding.anchor[0] in ("output", "placement") or finding.anchor[3:] == ("input",)
        findings.add(
            finding.code,
            finding.message,
            path if path is not None else (finding.anchor[0],),
            key=key and (path is None or path[0] != "topology"),
            label=finding.label,
            notes=finding.notes,
            hint=finding.hint,
            severity=finding.severity,
        )


def _follows(findings: Findings, finding: Finding) -> bool:
    """Whether the finding is only a consequence of something that was wrong and is left out."""
    kind, *names = finding.anchor
    if finding.code == RateError.code:
        return bool(findings.spoilt)
    if kind in ("path", "availability", "placement"):
        return any(top in ("aims", "topology") for top, _ in findings.gone)
    if kind == "channel":
        return _any_spoilt(findings, names[:2])
    if kind == "output":
        return findings.touched("outputs", names[0]) or ("topology", "") in findings.spoilt
    if kind == "aim":
        return findings.touched("aims", names[0]) or ("topology", "") in findings.spoilt
    return False


def _any_spoilt(findings: Findings, refs: Iterable[str]) -> bool:
    for ref in refs:
        aim, _, port = ref.rpartition(".")
        if aim != BOUNDARY and findings.missing("aims", aim):
            return True
        if aim == BOUNDARY and (findings.touched("inputs", port) or findings.touched("outputs", port)):
            return True
    return False
