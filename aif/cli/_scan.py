"""How ``aif device scan`` shows what devices announced, and writes it into an inventory file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aif.errors import ConfigError, Diagnostic
from aif.gateway.event_fields import text

if TYPE_CHECKING:
    from aif.config.inventory_update import Update

PLAIN_WIDTH = 130


def print_scan(found: Mapping[str, Any]) -> None:
    """Devices of the site with what they announced, then who else was heard."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    with console.capture() as capture:
        console.print(_devices(found, console.width), highlight=False)
    for line in capture.get().splitlines():
        print(line.rstrip())
    if found["strangers"] or found["left_out"]:
        print("seen, not usable:")
    for one in found["strangers"]:
        times = "once" if one["count"] == 1 else f"{one['count']:,} times"
        print(f"  {text(one['name']):<24} {text(one['reason'])}; heard {times}, {one['age_s']:.0f} s ago")
    if found["left_out"]:
        print(f"  {found['left_out']:,} more were not noted")


def _devices(found: Mapping[str, Any], width: int) -> Any:
    from rich.text import Text

    from aif.gateway import cells
    from aif.gateway.cells import Column

    columns = [
        Column("device"), Column("RAM free/of", right=True), Column("flash free/of", right=True),
        Column("usable", grows=True),
    ]  # fmt: skip
    wide = width >= cells.WIDE_COLUMNS
    if wide:
        columns[3:] = [
            Column("runtimes", grows=True),
            Column("sensors"),
            Column("heard", right=True),
            Column("usable"),
        ]
        columns[1:1] = [Column("class"), Column("board")]
    table = cells.grid(*columns)
    for one in found["devices"]:
        said, name = one["announced"], Text(one["device"])
        usable = cells.state("yes") if one["usable"] else Text(_why(one), style="yellow")
        if said is None:
            table.add_row(name, *[Text(cells.NONE, style="dim")] * (len(columns) - 2), usable)
            continue
        runtimes = ", ".join(f"{runtime} {version}" for runtime, version in sorted(said["runtimes"].items()))
        ram = _of(said["ram_free_bytes"], said["ram_bytes"])
        flash = _of(said["flash_free_bytes"], said["flash_bytes"])
        sensors = ", ".join(sensor["kind"] for sensor in said["sensors"])
        front, back = [said["device_class"], said["board"]], [runtimes, sensors, f"{one['age_s']:.0f} s ago"]
        cells_of = [*(front if wide else []), ram, flash, *(back if wide else [])]
        table.add_row(name, *(Text(cell) for cell in cells_of), usable)
    return table


def _why(one: Mapping[str, Any]) -> str:
    """Why a device of the site is not usable, in a few words."""
    if one["drained"]:
        return "drained"
    if one["state"] != "trusted":
        return ": ".join(filter(None, (text(one["state"]), text(one["reason"]))))
    return "not announced yet" if one["announced"] is None else f"announced by way of {one['origin']}"


def _of(free: int, total: int) -> str:
    from aif.gateway import cells

    return f"{cells.size(free)}/{cells.size(total)}"


def said_by(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the usable devices of a site say of themselves, by the keys of an inventory file."""
    return {one["device"]: _said(one["announced"]) for one in found["devices"] if one["usable"]}


def write_inventory(file: Path, found: Mapping[str, Any]) -> Update:
    """Bring an inventory file up to date with usable devices, or make one.

    Raises:
        ConfigError: the file is no inventory, or cannot be written.
    """
    from aif.config.document import load_document
    from aif.config.format import write_atomically
    from aif.config.inventory_update import EMPTY, updated_inventory

    before = load_document(file).text if file.exists() else EMPTY
    said = said_by(found)
    if not said and before == EMPTY:
        hint = "see `aif device scan`; devices announce themselves when they are trusted"
        raise ConfigError([Diagnostic("AIF-E0100", "no usable device has announced itself", hint=hint)])
    update = updated_inventory(before, file.as_posix(), said)
    if update.changes:
        try:
            write_atomically(file, update.text)
        except OSError as wrong:
            raise ConfigError([Diagnostic("AIF-E0100", f"cannot write {file}: {wrong.strerror}")]) from wrong
    return update


def _said(announced: Mapping[str, Any]) -> dict[str, Any]:
    """An announcement by the keys of an inventory file."""
    same = (
        "board", "arch", "os", "clock_hz", "dmips", "instructions_per_s", "macs_per_s", "cores", "ram_bytes",
        "flash_bytes",
    )  # fmt: skip
    return {
        "class": announced["device_class"],
        **{key: announced[key] for key in same},
        "storage": [{"kind": unit["kind"], "bytes": unit["bytes_"]} for unit in announced["storage"]],
        "sensors": announced["sensors"],
        "actuators": announced["actuators"],
        "radios": announced["radios"],
        "runtimes": sorted(announced["runtimes"]),
    }
