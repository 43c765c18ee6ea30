"""AIW files → checked workflows, every composite expanded.

Decides what one AIW file must satisfy alone and hands the rest to ``aif.model.check``. What is returned
has no errors; doubts are kept as warnings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aif.config.aim import UNKNOWN_TYPE, expect_kind, input_port, read_types
from aif.config.aiw_file import AIWFile, BindEntry, BoundaryOutput, PathEntry
from aif.config.catalogue import recursion
from aif.config.codes import Code
from aif.config.composition import Composed, compose, locate
from aif.config.document import load_document
from aif.config.findings import Findings, in_order, read_shape
from aif.errors import ConfigError, CyclicTopology, Diagnostic, SourceLocation
from aif.model.aim import AIMMetadata, Profile
from aif.model.aiw import (
    AIWMetadata,
    Availability,
    Binding,
    BoundaryPort,
    Objectives,
    PathLimit,
    Workflow,
    expand,
)
from aif.model.check import check_workflow
from aif.model.ports import BOUNDARY, Direction, Port, PortRef

AIW_SUFFIX = ".aiw.yaml"


@dataclass(frozen=True, slots=True)
class LoadedWorkflow:
    """A workflow as written, as it will run, and what is doubtful about it."""

    metadata: AIWMetadata
    workflow: Workflow
    warnings: tuple[Diagnostic, ...]


def workflow_file(path: Path) -> Path:
    """``path`` itself, or the one AIW file of a workflow folder.

    Raises:
        ConfigError: the folder holds none, or several.
    """
    if not path.is_dir():
        return path
    files = sorted(path.glob(f"*{AIW_SUFFIX}"))
    if len(files) == 1:
        return files[0]
    shown = path.as_posix()
    message = f"{shown} holds " + (f"{len(files)} workflow files" if files else f"no *{AIW_SUFFIX} file")
    hint = "name one of " + ", ".join(file.name for file in files) if files else ""
    raise ConfigError([Diagnostic(Code.FILE, message, SourceLocation(shown, 1, 1), hint=hint)])


def load_workflow(path: Path, catalogue: Mapping[str, AIMMetadata]) -> LoadedWorkflow:
    """Read and check a workflow file, or the one in a folder.

    Args:
        path: ``NAME.aiw.yaml`` or its folder.
        catalogue: AIM contracts by ``Name@version``, as ``load_catalogue`` returns them.

    Raises:
        ConfigError: with every finding, warnings included.
    """
    findings = Findings(load_document(workflow_file(path)))
    metadata = read_workflow(findings, catalogue)
    findings.raise_errors()
    if metadata is None:  # read_workflow reports before it gives up
        raise AssertionError
    return LoadedWorkflow(metadata, expand(metadata, catalogue), tuple(in_order(findings.items)))


def read_workflow(findings: Findings, catalogue: Mapping[str, AIMMetadata]) -> AIWMetadata | None:
    """The workflow in a document, as far as it can be read; what is wrong goes to ``findings``."""
    expect_kind(findings, "aiw")
    if findings.errors:
        return None
    file = read_shape(findings, AIWFile)
    if file is None:
        return None
    types = read_types(findings, file.types)
    inputs = tuple(
        BoundaryPort(input_port(findings, ("inputs", name), name, entry, types), _binding(entry.bind))
        for name, entry in file.inputs.items()
    )
    sources = {name: entry.source for name, entry in file.outputs.items()}
    composed = compose(findings, file.aims, sources, file.topology, file.channels)
    _places(findings, file, composed)
    aiw = AIWMetadata(
        name=file.aiw.name,
        version=file.aiw.version,
        implementer=file.aiw.implementer,
        composition=composed.composition,
        description=file.aiw.description,
        profile=Profile(file.profile),
        trusted_scope=file.trusted_scope,
        types={name: entry.type for name, entry in file.types.items()},
        inputs=inputs,
        outputs=_outputs(file.outputs, inputs, composed, catalogue),
        paths=_paths(findings, file.paths),
        objectives=Objectives(**file.objectives.model_dump()),
        availability=Availability(
            file.availability.target,
            file.availability.remap_within_ms,
            tuple(file.availability.standby),
            file.availability.on_degraded,
            tuple(file.availability.optional),
            file.availability.least_rate,
            file.availability.slow_down,
        ),
    )
    locate(findings, composed, check_workflow(aiw, catalogue))
    problem = recursion(composed.composition, catalogue)
    if problem:
        findings.add(CyclicTopology.code, f"{aiw.name}: {problem}", ("aiw", "name"))
    return aiw


def _places(findings: Findings, file: AIWFile, composed: Composed) -> None:
    composed.places.update({("output", name): ("outputs", name) for name in file.outputs})
    for position, row in enumerate(file.paths):
        composed.places["path", row.id] = ("paths", position, "id")
        for end in ("from", "to"):
            composed.places["path", row.id, end] = ("paths", position, end)
    for position, aim in enumerate(file.availability.standby):
        composed.places["availability", aim] = ("availability", "standby", position)
    for position, aim in enumerate(file.availability.optional):
        composed.places["availability", aim, "optional"] = ("availability", "optional", position)
    given = "trusted_scope" in findings.document.root.entries
    composed.places["trusted_scope",] = ("trusted_scope",) if given else ("aiw", "name")


def _binding(entry: BindEntry | None) -> Binding | None:
    if entry is None:
        return None
    return Binding("sensor", entry.sensor) if entry.sensor else Binding("actuator", entry.actuator or "")


def _outputs(
    declared: Mapping[str, BoundaryOutput],
    inputs: Iterable[BoundaryPort],
    composed: Composed,
    catalogue: Mapping[str, AIMMetadata],
) -> tuple[BoundaryPort, ...]:
    """The workflow's outputs, declared or only written to by ``topology``; typed by their first source."""
    sources: dict[str, list[PortRef]] = {name: [] for name in declared}
    for channel in composed.composition.channels:
        if channel.destination.at_boundary:
            sources.setdefault(channel.destination.port, []).append(channel.source)
    uses = {sub.id: catalogue.get(sub.use) for sub in composed.composition.aims}
    known = {PortRef(BOUNDARY, one.port.name): one.port for one in inputs}
    known.update(
        {
            PortRef(aim, port.name): port
            for aim, contract in uses.items()
            if contract
            for port in contract.outputs
        }
    )
    made: list[BoundaryPort] = []
    for name, refs in sources.items():
        giving = [known[ref] for ref in refs if ref in known]
        port = Port(
            name=name,
            direction=Direction.OUTPUT,
            type=giving[0].type if giving else UNKNOWN_TYPE,
            payload_bytes=max((one.payload_bytes for one in giving), default=0),
        )
        made.append(BoundaryPort(port, _binding(declared[name].bind) if name in declared else None))
    return tuple(made)


def _paths(findings: Findings, rows: Sequence[PathEntry]) -> tuple[PathLimit, ...]:
    limits: dict[str, PathLimit] = {}
    for position, row in enumerate(rows):
        if row.id in limits:
            findings.add(Code.DUPLICATE, f"two paths have the id {row.id!r}", ("paths", position, "id"))
        ends = PortRef.parse(row.start), PortRef.parse(row.to)
        limits[row.id] = PathLimit(row.id, *ends, row.deadline_ms, row.percentile)
    return tuple(limits.values())
