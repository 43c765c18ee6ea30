"""``aif split``: list where a model can be cut, and cut it into a chain of AIMs."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from aif.errors import ConfigError, Diagnostic

if TYPE_CHECKING:  # numpy and the schema are heavy, and `aif split --help` needs none
    from aif.authoring.split import Split, Splitter
    from aif.authoring.split_aims import Files
    from aif.model.aim import AIMMetadata

app = typer.Typer(add_completion=False)

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_PLAIN_WIDTH: Final = 130
_TEXTS: Final = frozenset({"after", "part", "operators", "tensor that crosses", "takes"})
"""Columns that hold no figures."""


@app.command()
def split(
    model: Annotated[Path, typer.Argument(help="Model file, NAME.tflite.")],
    at: Annotated[
        list[int] | None, typer.Option("--at", min=1, help="Cut after this many operators; repeatable.")
    ] = None,
    parts: Annotated[
        int | None, typer.Option("--parts", min=2, help="Cut into this many parts of even memory.")
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Make a chain of two for every cut; the planner chooses.")
    ] = False,
    max_ram: Annotated[
        str | None,
        typer.Option("--max-ram", help="RAM of each part, such as 20KiB; as few parts as possible."),
    ] = None,
    max_flash: Annotated[
        str | None, typer.Option("--max-flash", help="Size of each part's model, such as 64KiB.")
    ] = None,
    aim: Annotated[
        Path | None, typer.Option("--aim", help="Folder of the AIM that runs this model; default: make one.")
    ] = None,
    implementer: Annotated[
        str, typer.Option("--implementer", help="Who answers for the AIM that is made.")
    ] = "tinyaif",
    out: Annotated[Path, typer.Option("--out", help="Folder to make the AIM folders in.")] = Path("aims"),
) -> None:
    """Cut a sequential model at layer borders; without options show where that is possible.

    Parts give the bytes of the whole. Each becomes an AIM, and a composite AIM stands for the whole.
    """
    from aif.authoring.split import STACK_BYTES, Limits, Splitter
    from aif.cli._progress import step_bar
    from aif.config import load_aim
    from aif.model.ports import DEFAULT_QUEUE_DEPTH

    contract = load_aim(aim) if aim is not None else None
    limits = Limits(_bytes("--max-ram", max_ram), _bytes("--max-flash", max_flash))
    limited = limits != Limits()
    asked = [bool(at), parts is not None, each, limited]
    if sum(asked) > 1:
        raise _misuse("--at, --parts, --each and the limits exclude each other", "give one of them")
    name, content = _model(model)
    with step_bar(f"splitting {name}") as progress:
        splitter = Splitter(
            content,
            name,
            stack_bytes=_stack(contract, name, STACK_BYTES),
            queue_depth=contract.inputs[0].queue_depth
            if contract and contract.inputs
            else DEFAULT_QUEUE_DEPTH,
            progress=progress,
        )
        if not any(asked):
            _show_cuts(splitter)
            return
        if each:
            splits = [splitter.at([border.position]) for border in splitter.sequence.borders]
        elif limited:
            splits = [splitter.within(limits)]
        else:
            splits = [splitter.at(at) if at else splitter.into(parts or 2)]
    made = _make(splits, contract, implementer, out)
    libraries = [out] if aim is None else [out, (aim if aim.is_dir() else aim.parent).parent]
    options = " ".join(f"--aims {folder.as_posix()}" for folder in libraries)
    print(f"check it: aif validate {made} {options}")


def _model(path: Path) -> tuple[str, bytes]:
    """Name and content of the model file."""
    if not _NAME.fullmatch(path.stem):
        raise _misuse(
            f"{path.name[:100]!r} does not name a model: lower case, digits and underscores, "
            "40 characters at most",
            "rename the file; its name becomes the name of the Store component",
        )
    from aif.authoring.sequence import MAX_MODEL_BYTES

    try:
        with path.open("rb") as file:
            return path.stem, file.read(MAX_MODEL_BYTES + 1)
    except OSError as error:
        raise _misuse(f"cannot read {path.as_posix()}: {error.strerror}", "name a .tflite file") from error


def _bytes(option: str, text: str | None) -> int | None:
    from aif.config.quantities import QuantityError, convert

    if text is None:
        return None
    try:
        found = int(convert(text, "B"))
    except QuantityError as wrong:
        raise _misuse(f"{option} {text[:50]!r}: {wrong}", "such as 20KiB") from wrong
    if found <= 0:
        raise _misuse(f"{option} {text[:50]!r} is not positive", "such as 20KiB")
    return found


def _stack(contract: AIMMetadata | None, name: str, default: int) -> int:
    """RAM beside the arena, as the AIM of the whole declares it."""
    codes = contract.implementations if contract is not None else ()
    return next(
        (
            c.ram_bytes - c.arena_bytes
            for c in codes
            if c.arena_bytes and c.model and c.model.component == name
        ),
        default,
    )


def _show_cuts(splitter: Splitter) -> None:
    from aif.authoring.split import MAX_CROSSING_BYTES

    rows = [
        (
            str(border.position),
            border.after,
            str(border.tensor),
            f"{border.tensor.size_bytes:,}" + (" *" if border.tensor.size_bytes > MAX_CROSSING_BYTES else ""),
            *(
                f"{figure:,}"
                for part in (before, after)
                for figure in (len(part.model), part.arena_bytes, part.mac_count)
            ),
        )
        for border, before, after in splitter.halves()
    ]
    whole = splitter.whole()
    print(
        f"{splitter.sequence.name}: {splitter.operator_count} operators, {len(whole.model):,} B, "
        f"arena {whole.arena_bytes:,} B, {whole.mac_count:,} multiply-accumulates"
    )
    heads = (
        "cut",
        "after",
        "tensor that crosses",
        "bytes",
        "model",
        "arena",
        "MACs",
        "model",
        "arena",
        "MACs",
    )
    _table(heads, rows)
    if any("*" in row[3] for row in rows):
        print(f"* more than the {MAX_CROSSING_BYTES:,} B that a microcontroller takes in one message")


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    import sys

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="left" if head in _TEXTS else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False).print(table)


def _make(splits: Iterable[Split], contract: AIMMetadata | None, implementer: str, out: Path) -> str:
    """Write every folder, or none; the folder of the last composite."""
    from aif.authoring.split_aims import split_aims, whole_aim

    folders: dict[str, Files] = {}
    for one in splits:
        if contract is None:
            contract, folders[one.name] = whole_aim(one.name, one.whole, implementer=implementer)
        made = split_aims(one, contract)
        folders |= made.folders
        rows = [
            (
                str(number),
                f"{part.first + 1} to {part.last}",
                str(part.inputs),
                f"{len(part.model):,}",
                f"{part.arena_bytes:,}",
                f"{part.mac_count:,}",
            )
            for number, part in enumerate(one.parts, start=1)
        ]
        print(
            f"{made.reference} stands for {contract.reference}: the same bytes for every input that was tried"
        )
        _table(("part", "operators", "takes", "model", "arena", "MACs"), rows)
    told = _write(folders, out)
    print("\n".join(f"made {folder}" for folder in told))
    return told[-1]


def _write(folders: Mapping[str, Files], out: Path) -> list[str]:
    targets = [out / name for name in folders]
    present = [target for target in targets if target.exists() or target.is_symlink()]
    if present:
        raise _misuse(
            f"{present[0].as_posix()} exists already", "remove it, or choose another folder with --out"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".split.", dir=out))
        try:
            for name, files in folders.items():
                (partial / name).mkdir()
                for file, content in files.items():
                    (partial / name / file).write_bytes(content)
            for target in targets:
                (partial / target.name).rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise _misuse(f"cannot write to {out.as_posix()}: {error.strerror}", "--out: a folder") from error
    return [target.as_posix() for target in targets]


def _misuse(message: str, hint: str) -> ConfigError:
    return ConfigError([Diagnostic(ConfigError.code, message, hint=hint)])
