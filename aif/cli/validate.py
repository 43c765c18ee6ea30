"""``aif validate``: check files and say everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aif.errors import ConfigError, Diagnostic

if TYPE_CHECKING:
    from aif.model.aim import AIMMetadata

app = typer.Typer(add_completion=False)


def aim_library() -> list[Path]:
    """The folder of the AIMs that come with the framework; none when they are not installed."""
    found = find_spec("aims")
    return [Path(place) for place in found.submodule_search_locations or ()] if found else []


@app.command()
def validate(
    files: Annotated[
        list[Path], typer.Argument(help="AIM, workflow or inventory files, or folders that hold them.")
    ],
    aims: Annotated[
        list[Path] | None,
        typer.Option(help="AIM library folder; may be repeated. Default: the one that is installed."),
    ] = None,
) -> int:
    """Check AIM, workflow and inventory files; print every finding.

    The exit code is 0 when nothing is wrong, else 2; warnings do not count.
    """
    library = _Library(aims or aim_library())
    wrong = 0
    for file in _expanded(files):
        try:
            summary, warnings = _checked(file, library)
        except ConfigError as refused:
            wrong += sum(finding.severity == "error" for finding in refused.findings)
            _show(refused.findings)
        else:
            _show(warnings)
            print(f"{file.as_posix()}: {summary}")
    if wrong:
        print(_counted(wrong, "error"))
    return ConfigError.exit_code if wrong else 0


class _Library:
    """The AIM library, read when a file first needs it and then kept."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self._read: Mapping[str, AIMMetadata] | None = None

    def contracts(self) -> Mapping[str, AIMMetadata]:
        from aif.config import load_catalogue

        if self._read is None:
            self._read = load_catalogue(self.folders)
        return self._read


def _expanded(files: list[Path]) -> list[Path]:
    """Files as given; of a folder every file of a known kind directly inside it."""
    from aif.config.workflow import AIW_SUFFIX

    expanded: list[Path] = []
    for file in files:
        inside = sorted([*file.glob(f"*{AIW_SUFFIX}"), *file.glob("inventory*.yaml"), *file.glob("aim.yaml")])
        expanded += inside if file.is_dir() and inside else [file]
    return list(dict.fromkeys(expanded))


def _show(findings: tuple[Diagnostic, ...]) -> None:
    for finding in findings:
        print(finding.render(), end="\n\n")


def _checked(file: Path, library: _Library) -> tuple[str, tuple[Diagnostic, ...]]:
    """One line about a valid file, and its warnings."""
    from aif.config.aim import AIM_FILE
    from aif.config.document import load_document
    from aif.config.workflow import workflow_file

    if file.is_dir():
        file = file / AIM_FILE if (file / AIM_FILE).exists() else workflow_file(file)
    kind = load_document(file).kind
    if kind == "inventory":
        return _inventory(file), ()
    return _aim(file, library) if kind == "aim" else _workflow(file, library)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _inventory(file: Path) -> str:
    from aif.config import load_inventory

    inventory = load_inventory(file)
    classes = ", ".join(
        _counted(sum(d.device_class == c for d in inventory.devices), c)
        for c in dict.fromkeys(d.device_class for d in inventory.devices)
    )
    return (
        f"inventory {inventory.name}, version {inventory.version}: "
        f"{_counted(len(inventory.devices), 'device')} ({classes}), {_counted(len(inventory.links), 'link')}"
    )


def _aim(file: Path, library: _Library) -> tuple[str, tuple[Diagnostic, ...]]:
    from aif.config import load_aim
    from aif.config.aim import read_aim
    from aif.config.catalogue import check_composite
    from aif.config.document import load_document
    from aif.config.findings import Findings

    aim = load_aim(file)
    ports = f"{_counted(len(aim.inputs), 'input')}, {_counted(len(aim.outputs), 'output')}"
    if aim.composition is None:
        return f"AIM {aim.reference}: {ports}, {_counted(len(aim.implementations), 'implementation')}", ()
    read = read_aim(Findings(load_document(file)))
    contracts = {**library.contracts(), aim.reference: aim}
    if read is not None:
        check_composite(read, contracts)
        read.findings.raise_errors()
    warnings = tuple(read.findings.items) if read is not None else ()
    return f"composite AIM {aim.reference}: {ports}, {_counted(len(aim.composition.aims), 'AIM')}", warnings


def _workflow(file: Path, library: _Library) -> tuple[str, tuple[Diagnostic, ...]]:
    from aif.config import load_workflow
    from aif.model.rates import derive_rates

    loaded = load_workflow(file, library.contracts())
    workflow = loaded.workflow
    text = (
        f"workflow {loaded.metadata.reference}: {_counted(len(workflow.aims), 'AIM')}, "
        f"{_counted(len(workflow.channels), 'channel')}"
    )
    boundary = {b.port.name: b.port for b in loaded.metadata.inputs}
    rates = derive_rates({leaf.id: leaf.metadata for leaf in workflow.aims}, workflow.channels, boundary)
    total = sum(rates.get(channel.source, 0.0) for channel in workflow.channels)
    return f"{text}, {total:g} records/s", loaded.warnings
