"""The AIM library: folders of AIM files → contracts by ``Name@version``.

Decides that a reference means one folder, and that composite AIMs fit together: the same checks as for
workflows, no composite inside itself, and a bounded number of parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aif.config.aim import AIM_FILE, ReadAIM, read_aim
from aif.config.codes import Code
from aif.config.composition import locate
from aif.config.document import load_document
from aif.config.findings import Findings, in_order
from aif.errors import (
    ConfigError,
    CyclicTopology,
    Diagnostic,
    RecordTypeMismatch,
    SourceLocation,
    UnknownAIM,
)
from aif.model.aim import AIMMetadata, Composition
from aif.model.aiw import MAX_AIMS, MAX_COMPOSITE_DEPTH, AIWMetadata, BoundaryPort
from aif.model.check import check_workflow
from aif.model.rates import RateError
from aif.model.stand_ins import port_difference

MAX_FOLDERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Catalogue(Mapping[str, AIMMetadata]):
    """AIM contracts by ``Name@version``, and the folders they came from."""

    contracts: Mapping[str, AIMMetadata]
    folders: Mapping[str, Path]

    def __getitem__(self, reference: str) -> AIMMetadata:
        return self.contracts[reference]

    def __iter__(self) -> Iterator[str]:
        return iter(self.contracts)

    def __len__(self) -> int:
        return len(self.contracts)

    def folder(self, reference: str) -> Path:
        """The folder of an AIM.

        Raises:
            KeyError: the catalogue does not hold it.
        """
        return self.folders[reference]


def load_catalogue(directories: Iterable[Path]) -> Catalogue:
    """Read every ``aim.yaml`` in ``directories`` and in the folders directly inside them.

    Raises:
        ConfigError: with every finding in any of them.
    """
    found: list[Diagnostic] = []
    read: dict[str, ReadAIM] = {}
    folders: dict[str, Path] = {}
    broken = False
    for folder in _folders(directories, found):
        one, problems = _read(folder)
        found += problems
        if one is None:
            broken = True
            continue
        reference = one.metadata.reference
        if reference in read:
            first = read[reference].findings.document.location(("aim", "name"))
            again = one.findings.document.location(("aim", "name"))
            message = f"two AIM folders offer {reference}"
            note = f"the first is at {first}"
            hint = "give one of them another version, or leave its folder out"
            found.append(Diagnostic(Code.DUPLICATE, message, again, notes=(note,), hint=hint))
            continue
        read[reference], folders[reference] = one, folder
    contracts = {reference: one.metadata for reference, one in read.items()}
    if not broken:
        found += _composites(read, contracts)
    if any(finding.severity == "error" for finding in found):
        raise ConfigError(in_order(found))
    return Catalogue(contracts, folders)


def check_composite(read: ReadAIM, contracts: Mapping[str, AIMMetadata]) -> None:
    """Check the parts of a composite AIM against the other AIMs; findings go to ``read.findings``."""
    aim, composed = read.metadata, read.composed
    if composed is None:
        return
    inside = AIWMetadata(
        name=aim.name,
        version=aim.version,
        implementer=aim.implementer,
        composition=composed.composition,
        inputs=tuple(BoundaryPort(port) for port in aim.inputs),
        outputs=tuple(BoundaryPort(port) for port in aim.outputs),
    )
    # the rates at its boundary are known only where the composite is used
    located = [finding for finding in check_workflow(inside, contracts) if finding.code != RateError.code]
    locate(read.findings, composed, located)
    problem = recursion(composed.composition, contracts, (aim.reference,))
    if problem:
        read.findings.add(CyclicTopology.code, problem, ("aim", "name"))
    if aim.stands_for is not None:
        _check_stand_in(read, aim, aim.stands_for, contracts)


def _check_stand_in(
    read: ReadAIM, aim: AIMMetadata, reference: str, contracts: Mapping[str, AIMMetadata]
) -> None:
    """The AIM that a composite stands for is known, is not composite, and has the same ports."""
    whole, path = contracts.get(reference), ("stands_for",)
    if whole is None:
        message = f"no AIM library offers {reference}"
        read.findings.add(UnknownAIM.code, message, path, hint=read.findings.suggest(reference, contracts))
    elif whole.composition is not None:
        read.findings.add(Code.CONTRADICTION, f"{reference} is composite itself", path)
    elif difference := port_difference(whole, aim):
        message = f"{aim.reference} cannot stand for {reference}: {difference}"
        read.findings.add(RecordTypeMismatch.code, message, path, hint="give it the ports of that AIM")


def recursion(
    composition: Composition, contracts: Mapping[str, AIMMetadata], within: Sequence[str] = ()
) -> str:
    """Say why a composition cannot be expanded: composites that hold themselves, or too many parts.

    Every composite is looked at once, so that the check is cheap even where the expansion would not be.
    """
    sizes: dict[str, int] = {}
    try:
        total = _leaves(composition, contracts, tuple(within), sizes)
    except CyclicTopology as wrong:
        return str(wrong)
    return f"expands to {total:,} AIMs, at most {MAX_AIMS:,} are accepted" if total > MAX_AIMS else ""


def _leaves(
    composition: Composition,
    contracts: Mapping[str, AIMMetadata],
    within: tuple[str, ...],
    sizes: dict[str, int],
) -> int:
    total = 0
    for sub in composition.aims:
        contract = contracts.get(sub.use)
        if contract is None or contract.composition is None:
            total += 1
            continue
        if sub.use in within:
            raise CyclicTopology(f"composite AIM {sub.use} contains itself: {' > '.join((*within, sub.use))}")
        if len(within) > MAX_COMPOSITE_DEPTH:
            raise CyclicTopology(f"composite AIMs are nested more than {MAX_COMPOSITE_DEPTH} deep")
        if sub.use not in sizes:
            sizes[sub.use] = _leaves(contract.composition, contracts, (*within, sub.use), sizes)
        total += sizes[sub.use]
    return total


def _composites(read: Mapping[str, ReadAIM], contracts: Mapping[str, AIMMetadata]) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    for one in read.values():
        before = len(one.findings.items)
        check_composite(one, contracts)
        found += one.findings.items[before:]
    return found


def _read(folder: Path) -> tuple[ReadAIM | None, Sequence[Diagnostic]]:
    """The AIM of a folder, or None with what is wrong."""
    try:
        findings = Findings(load_document(folder / AIM_FILE))
    except ConfigError as refused:
        return None, refused.findings
    one = read_aim(findings)
    return (None if findings.errors else one), findings.items


def _folders(directories: Iterable[Path], found: list[Diagnostic]) -> list[Path]:
    folders: dict[Path, Path] = {}
    for directory in directories:
        if not directory.is_dir():
            message = f"the AIM library {directory.as_posix()} is not a folder"
            found.append(Diagnostic(Code.FILE, message, SourceLocation(directory.as_posix(), 1, 1)))
            continue
        for folder in (directory, *sorted(child for child in directory.iterdir() if child.is_dir())):
            if (folder / AIM_FILE).is_file():
                folders.setdefault(folder.resolve(), folder)
            if len(folders) > MAX_FOLDERS:
                message = f"more than {MAX_FOLDERS:,} AIM folders"
                raise ConfigError(
                    [Diagnostic(Code.LIMIT, message, SourceLocation(directory.as_posix(), 1, 1))]
                )
    return list(folders.values())
