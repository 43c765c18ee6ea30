"""AIM files → contracts: types, ports, parameters, implementations.

Decides what one AIM file must satisfy alone. A composite's parts are checked against the other AIMs by
``catalogue.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from aif.config.aim_file import (
    AIMFile,
    ImplementationEntry,
    InputEntry,
    ModelEntry,
    OutputEntry,
    ParameterEntry,
    PortEntry,
    TypeEntry,
)
from aif.config.codes import Code
from aif.config.composition import Composed, compose
from aif.config.document import Path_, load_document
from aif.config.findings import Findings, read_shape
from aif.errors import ModelError, TypeSyntaxError
from aif.model.aim import (
    AIMMetadata,
    Implementation,
    Join,
    Measurement,
    ModelRef,
    Parameter,
    ParameterValue,
    Profile,
    Requirements,
    Runtime,
    SecurityNeed,
    StateKind,
    StorageNeed,
    Trigger,
    TrustedService,
)
from aif.model.ports import MAX_PAYLOAD_BYTES, Direction, Overflow, Port
from aif.model.rates import RateError
from aif.model.records import Annotation, PortType, RecordType, fixed_size, max_size, min_size, resolve
from aif.model.type_text import KEYWORDS

AIM_FILE = "aim.yaml"
UNKNOWN_TYPE = PortType(RecordType.parse(""))
"""Stands for a type that was reported as wrong, so that the rest can be read."""


@dataclass(frozen=True, slots=True)
class ReadAIM:
    """An AIM contract with the places of its parts; ``composed`` is None for a basic AIM."""

    metadata: AIMMetadata
    findings: Findings
    composed: Composed | None


def load_aim(path: Path) -> AIMMetadata:
    """Read one AIM file, or the ``aim.yaml`` of a folder.

    Raises:
        ConfigError: with every finding.
    """
    document = load_document(path / AIM_FILE if path.is_dir() else path)
    findings = Findings(document)
    read = read_aim(findings)
    findings.raise_errors()
    if read is None:  # read_aim reports before it gives up
        raise AssertionError
    return read.metadata


def read_aim(findings: Findings) -> ReadAIM | None:
    """The contract in a document, as far as it can be read; what is wrong goes to ``findings``."""
    expect_kind(findings, "aim")
    if findings.errors:
        return None
    file = read_shape(findings, AIMFile)
    if file is None:
        return None
    types = read_types(findings, file.types)
    inputs = tuple(
        input_port(findings, ("inputs", name), name, entry, types) for name, entry in file.inputs.items()
    )
    outputs = tuple(_output_port(findings, name, entry, types) for name, entry in file.outputs.items())
    composed = _composed(findings, file)
    _unique(findings, [i.id for i in file.implementations], "implementations")
    metadata = AIMMetadata(
        name=file.aim.name,
        version=file.aim.version,
        implementer=file.aim.implementer,
        inputs=inputs,
        outputs=outputs,
        description=file.aim.description,
        profile=Profile(file.profile),
        types={name: entry.type for name, entry in file.types.items()},
        parameters=tuple(_parameter(findings, name, entry) for name, entry in file.parameters.items()),
        trigger=_trigger(findings, file),
        period_ms=file.period_ms,
        deadline_ms=file.deadline_ms,
        restart_limit=file.restart_limit,
        implementations=tuple(_implementation(entry) for entry in file.implementations),
        composition=composed.composition if composed else None,
        documentation=tuple((row.type, row.uri) for row in file.documentation),
        stands_for=file.stands_for,
    )
    _whole(findings, metadata)
    return ReadAIM(metadata, findings, composed)


def expect_kind(findings: Findings, kind: str) -> None:
    """Report a file that is not of the wanted kind."""
    document = findings.document
    if document.kind != kind:
        what = (
            f"a file with the top key {document.kind}:" if document.kind else "a file without a known top key"
        )
        first = next(iter(document.root.entries), "")
        findings.add(
            Code.FILE,
            f"this is {what}, not {KIND_NAMES[kind]}",
            (document.kind,) if document.kind else (first,) if first else (),
            key=True,
            hint=f"{KIND_NAMES[kind]} starts with schema: 1 and {kind}:",
        )


KIND_NAMES = {"aim": "an AIM file", "aiw": "a workflow file", "inventory": "an inventory file"}


def read_types(findings: Findings, entries: Mapping[str, TypeEntry]) -> dict[str, PortType]:
    """The named types; one may use those before it."""
    types: dict[str, PortType] = {}
    for name, entry in entries.items():
        path: Path_ = ("types", name)
        if name in KEYWORDS:
            findings.add(
                Code.VALUE, f"{name!r} is a type of the grammar and cannot name another", path, key=True
            )
        text_path = (*path, "type") if findings.document.find((*path, "type"))[2] else path
        try:
            types[name] = _annotated(resolve(entry.type, types), entry)
        except ModelError as wrong:
            if isinstance(wrong, TypeSyntaxError):
                findings.add_model_error(text_path, wrong)
            elif not findings.touched("types", name):  # an annotation that lost a key is reported for that
                findings.add_model_error(path, wrong)
            findings.spoil(path)
            types[name] = UNKNOWN_TYPE
    return types


def _annotated(base: PortType, entry: TypeEntry) -> PortType:
    if all(value is None for value in (entry.scale, entry.zero_point, entry.axis, entry.unit)):
        return base
    scale = tuple(map(float, entry.scale)) if isinstance(entry.scale, list) else entry.scale
    zero_point = tuple(entry.zero_point) if isinstance(entry.zero_point, list) else entry.zero_point
    return PortType(base.record, Annotation(scale, zero_point, entry.axis, entry.unit))


def input_port(
    findings: Findings, path: Path_, name: str, entry: InputEntry, types: Mapping[str, PortType]
) -> Port:
    """One input Port, of an AIM or of a workflow's boundary."""
    kind = _type_of(findings, path, entry, types)
    return Port(
        name=name,
        direction=Direction.INPUT,
        type=kind,
        payload_bytes=_payload(findings, path, entry, kind),
        rate_hz=entry.rate_hz,
        consumes=entry.consumes,
        max_age_ms=entry.max_age_ms,
        queue_depth=entry.queue_depth,
        overflow=Overflow(entry.overflow),
        optional=entry.optional,
    )


def _output_port(findings: Findings, name: str, entry: OutputEntry, types: Mapping[str, PortType]) -> Port:
    path: Path_ = ("outputs", name)
    kind = _type_of(findings, path, entry, types)
    return Port(
        name=name,
        direction=Direction.OUTPUT,
        type=kind,
        payload_bytes=_payload(findings, path, entry, kind),
        rate_hz=entry.rate_hz,
        emits=entry.emits,
    )


def _type_of(findings: Findings, path: Path_, entry: PortEntry, types: Mapping[str, PortType]) -> PortType:
    try:
        if not findings.touched("types", entry.type):
            return resolve(entry.type, types)
    except ModelError as wrong:
        findings.add_model_error((*path, "type"), wrong)
    findings.spoil(path)
    return UNKNOWN_TYPE


def _payload(findings: Findings, path: Path_, entry: PortEntry, kind: PortType) -> int:
    """Largest encoded record; the type's own limit where it has one."""
    if kind is UNKNOWN_TYPE:
        return entry.payload_bytes or 0
    record, given = kind.record, entry.payload_bytes
    fixed, largest = fixed_size(record), max_size(record)
    if fixed is not None and fixed > MAX_PAYLOAD_BYTES:
        message = (
            f"every record of {path[-1]} takes {fixed:,} B, at most {MAX_PAYLOAD_BYTES:,} B are possible"
        )
        findings.add(Code.VALUE, message, (*path, "type"))
    elif given is not None and given < min_size(record):
        message = (
            f"payload_bytes of {path[-1]} is {given:,}, but a record of {record} takes {min_size(record):,} B"
        )
        findings.add(
            Code.CONTRADICTION, message + (" or more" if fixed is None else ""), (*path, "payload_bytes")
        )
    elif given is None and (largest is None or largest > MAX_PAYLOAD_BYTES) and not _spoilt(findings, path):
        findings.add(
            Code.MISSING_KEY,
            f"missing key 'payload_bytes' of {path[-1]}",
            path,
            notes=(f"records of {record} have no largest size of their own",),
            hint="payload_bytes: largest encoded record (bytes)",
        )
    if fixed is not None or given is None:
        return largest or 0
    return given


def _spoilt(findings: Findings, path: Path_) -> bool:
    return findings.touched(str(path[0]), str(path[1]))


def _composed(findings: Findings, file: AIMFile) -> Composed | None:
    if not file.aims:
        for name, entry in file.outputs.items():
            if entry.source:
                message = f"output {name} comes from {entry.source[0]}, but this AIM holds no aims"
                findings.add(Code.CONTRADICTION, message, ("outputs", name, "from"))
        for key in ("topology", "channels", "stands_for"):
            if getattr(file, key):
                findings.add(Code.CONTRADICTION, f"{key} needs aims", (key,), key=True)
        return None
    if file.implementations:
        findings.add(
            Code.CONTRADICTION,
            "an AIM has implementations or aims, not both",
            ("implementations",),
            key=True,
            hint="a composite AIM runs where its parts run",
        )
    sources = {name: entry.source for name, entry in file.outputs.items()}
    return compose(findings, file.aims, sources, file.topology, file.channels)


def _unique(findings: Findings, ids: Iterable[str], key: str) -> None:
    first: dict[str, int] = {}
    for position, one in enumerate(ids):
        if one in first:
            at = findings.document.location((key, first[one], "id"))
            findings.add(
                Code.DUPLICATE,
                f"two {key} have the id {one!r}",
                (key, position, "id"),
                notes=(f"the first is at {at}",),
            )
        first.setdefault(one, position)


def _parameter(findings: Findings, name: str, entry: ParameterEntry) -> Parameter:
    path: Path_ = ("parameters", name)
    choices: list[ParameterValue] = []
    parameter = Parameter(name, entry.type, None, entry.minimum, entry.maximum, description=entry.description)
    if entry.type in ("boolean", "string") and (entry.minimum, entry.maximum) != (None, None):
        findings.add(Code.CONTRADICTION, f"parameter {name} is a {entry.type} and has no bounds", path)
    elif entry.minimum is not None and entry.maximum is not None and entry.minimum > entry.maximum:
        findings.add(Code.CONTRADICTION, f"minimum of {name} is above its maximum", (*path, "minimum"))
    for position, choice in enumerate(entry.choices):
        if problem := parameter.problem_with(choice):
            findings.add(Code.VALUE, f"choice of parameter {name} {problem}", (*path, "choices", position))
        else:
            choices.append(parameter_value(choice))
    limited = Parameter(
        name, entry.type, None, entry.minimum, entry.maximum, tuple(choices), entry.description
    )
    if entry.default is None:
        return limited
    if problem := limited.problem_with(entry.default):
        findings.add(Code.VALUE, f"default of parameter {name} {problem}", (*path, "default"))
        return limited
    default = parameter_value(entry.default)
    return Parameter(
        name, entry.type, default, entry.minimum, entry.maximum, tuple(choices), entry.description
    )


def parameter_value(value: object) -> ParameterValue:
    """A checked value as the model keeps it: lists become tuples of numbers.

    Raises:
        TypeError: the value was not checked.
    """
    if isinstance(value, list):
        return tuple(float(one) for one in value)
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} is not a parameter value")


def _trigger(findings: Findings, file: AIMFile) -> Trigger:
    if file.trigger is None:
        return Trigger()
    any_of = file.trigger.any is not None
    names = file.trigger.any or file.trigger.all or []
    base: Path_ = ("trigger", "any" if any_of else "all")
    path = base if findings.document.find(base)[2] else ("trigger",)
    for position, name in enumerate(names):
        if name not in file.inputs and not findings.touched("inputs", name):
            message = f"trigger names {name!r}, which is not an input"
            findings.add(Code.REFERENCE, message, (*path, position), hint=findings.suggest(name, file.inputs))
    return Trigger(tuple(name for name in names if name in file.inputs), any_of, Join(file.trigger.join))


def _implementation(entry: ImplementationEntry) -> Implementation:
    needs = entry.requires
    return Implementation(
        id=entry.id,
        runtime=Runtime(entry.runtime),
        ram_bytes=entry.ram_bytes,
        entry=entry.entry,
        source=entry.source,
        model=_model(entry.model) if entry.model else None,
        arch=_unless_any(entry.arch),
        os=_unless_any(entry.os),
        arena_bytes=entry.arena_bytes,
        flash_bytes=entry.flash_bytes or 0,
        instructions=entry.instructions,
        mac_count=entry.mac_count,
        measured=tuple(
            Measurement(m.on, m.latency_us, m.method, m.latency_p99_us, m.energy_uj) for m in entry.measured
        ),
        requires=Requirements(
            tuple(needs.sensors),
            tuple(needs.actuators),
            tuple(needs.radios),
            StorageNeed(needs.storage.bytes, needs.storage.kind) if needs.storage else None,
            tuple(TrustedService(name) for name in dict.fromkeys(needs.services)),
        ),
        security=SecurityNeed(entry.security),
        state=StateKind(entry.state),
        state_bytes=entry.state_bytes,
    )


def _unless_any(names: Iterable[str]) -> tuple[str, ...]:
    given = tuple(names)
    return () if "any" in given else given


def _model(entry: ModelEntry) -> ModelRef:
    component = entry.component or PurePosixPath(entry.file or "").stem
    return ModelRef(component, entry.file or "", entry.sha256, entry.bytes)


def _whole(findings: Findings, aim: AIMMetadata) -> None:
    """What only the whole file can show."""
    if (
        not aim.implementations
        and aim.composition is None
        and not any(top in ("implementations", "aims") for top, _ in findings.spoilt)
    ):
        findings.add(
            Code.MISSING_KEY,
            f"{aim.reference} has neither implementations nor aims",
            ("aim",),
            key=True,
            hint="implementations: ways to run it; aims: what a composite AIM is made of",
        )
    if (
        not aim.inputs
        and aim.period_ms is None
        and aim.composition is None
        and ("inputs", "") not in findings.spoilt
    ):
        for port in aim.outputs:
            if port.rate_hz is None:
                findings.add(
                    RateError.code,
                    f"output {port.name} of a source AIM declares no rate",
                    ("outputs", port.name),
                    hint="give it rate_hz, or the AIM period_ms",
                )
