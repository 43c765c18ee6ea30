"""An inventory file brought up to date with what devices announce; comments and all that people decide stay.

Decides which keys a device may speak for: capacity and speed. What is policy (class, energy, attestation,
site, zone, shares, availability, how it is reached) is only ever written by people; a device that the file
does not hold yet is added without any. Devices are never removed, links never touched.

Invariants: the result is a valid inventory in canonical form; without a change the text stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, Final

from pydantic import ValidationError

from aif.config.document import parse_document
from aif.config.findings import Findings, read_shape
from aif.config.format import WIDTH, format_text
from aif.config.inventory import read_inventory
from aif.config.inventory_file import DeviceEntry, InventoryFile

SPOKEN_FOR: Final = (
    "board", "arch", "os", "clock_hz", "dmips", "instructions_per_s", "macs_per_s", "cores", "ram_bytes",
    "flash_bytes", "storage", "sensors", "actuators", "radios", "runtimes",
)  # fmt: skip
"""Keys in which a device's word outweighs the file's."""

EMPTY: Final = "schema: 1\ninventory: {name: site, version: 0}\ndevices: []\n"

Said = Mapping[str, Any]
"""What a device says, by the keys of the file; ``class`` counts only where the device is new."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value that is another now; both empty for a device that is new."""

    device: str
    key: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        if not self.key:
            return f"{self.device} is new"
        return f"{self.device}.{self.key}: {self.before or 'nothing'} -> {self.after}"


@dataclass(frozen=True, slots=True)
class Update:
    """The new text with what changed, and whose word no inventory can hold (device to reason)."""

    text: str
    changes: tuple[Change, ...]
    refused: Mapping[str, str]


def updated_inventory(text: str, path: str, found: Mapping[str, Said]) -> Update:
    """Bring the text of an inventory up to date; its version grows by one when anything changes.

    Args:
        text: of the file, or ``EMPTY``.
        path: is only shown.
        found: what each device says.

    Raises:
        ConfigError: the text is no inventory.
    """
    entries = {} if text == EMPTY else {entry.id: entry for entry in _entries(text, path)}
    tree = _round_trip().load(text)
    nodes = {str(node["id"]): node for node in tree["devices"]}
    changes: list[Change] = []
    refused: dict[str, str] = {}
    for device, said in found.items():
        known = entries.get(device)
        try:
            wanted = DeviceEntry.model_validate(_merged(device, known, said))
        except ValidationError as wrong:
            first = wrong.errors(include_url=False)[0]
            refused[device] = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            continue
        if known is None:
            tree["devices"].append({key: _written(value) for key, value in _plain(wanted).items()})
            changes.append(Change(device, ""))
        else:
            changes += _changed(nodes[device], known, wanted)
    if not changes:
        return Update(text, (), refused)
    tree["inventory"]["version"] += 1
    out = StringIO()
    _round_trip().dump(tree, out)
    done = format_text(out.getvalue(), path)
    findings = Findings(parse_document(done, path))
    read_inventory(findings)
    findings.raise_errors()
    return Update(done, tuple(changes), refused)


def _entries(text: str, path: str) -> Sequence[DeviceEntry]:
    findings = Findings(parse_document(text, path))
    read_inventory(findings)
    file = read_shape(findings, InventoryFile)
    findings.raise_errors()
    return file.devices if file is not None else ()


def _merged(device: str, known: DeviceEntry | None, said: Said) -> dict[str, Any]:
    """A device's entry with what it says; of a unit of the same kind only the size is its to say."""
    before = {} if known is None else _plain(known)
    own = {key: value for key, value in said.items() if key in SPOKEN_FOR and value is not None}
    units = before.get("storage", [])
    if "storage" in own:
        own["storage"] = [
            {**units[n], **unit} if n < len(units) and units[n]["kind"] == unit["kind"] else unit
            for n, unit in enumerate(own["storage"])
        ]
    identity = {"id": device, "class": said.get("class")} if known is None else {}
    return {**identity, **before, **own}


def _changed(node: Any, known: DeviceEntry, wanted: DeviceEntry) -> list[Change]:
    """Write the values that differ into the file's tree; order within runtimes and radios has no meaning."""
    before, after = known.model_dump(by_alias=True), wanted.model_dump(by_alias=True)
    written = _plain(wanted)
    changes = []
    for key in SPOKEN_FOR:
        old, new = before[key], after[key]
        if key in ("runtimes", "radios"):
            old, new = sorted(old), sorted(new)
        if old == new:
            continue
        node[key] = _written(written.get(key, new))
        changes.append(Change(known.id, key, _shown(before[key]), _shown(after[key])))
    return changes


def _written(value: Any) -> Any:
    """A list on one line, as far as it fits."""
    from ruamel.yaml.comments import CommentedSeq

    if not isinstance(value, list):
        return value
    line = CommentedSeq(value)
    line.fa.set_flow_style()
    return line


def _plain(entry: DeviceEntry) -> dict[str, Any]:
    """An entry as a person would write it: without defaults, whole numbers without a point."""
    plain: dict[str, Any] = _whole(entry.model_dump(by_alias=True, exclude_defaults=True, exclude_none=True))
    return plain


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(value: Any) -> str:
    value = _whole(value)
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        unit = {"bytes": "B", "rate_hz": "Hz", "count": "pieces"}
        told = (key for key in unit if value.get(key) and (key, value[key]) != ("count", 1))
        amounts = (f"{value[key]:,} {unit[key]}" for key in told)
        return " ".join((str(value["kind"]), *amounts))
    return "" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)


def _round_trip() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.width = WIDTH
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml
