"""An inventory as it would be: single values changed, devices or links left out.

Decides how a change is written (``mcu-2.ram=64KiB``, ``link(gw-1,mcu-1).bandwidth=10kbps``) and what it is
applied to. Values are checked by the rules of the inventory file, so what cannot stand in a file cannot be
supposed either; the file itself stays as it is.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from aif.config.codes import Code
from aif.config.document import Document, load_document, parse_document
from aif.config.fields import Table, inner, keys_of, table_of
from aif.config.findings import Findings
from aif.config.inventory import INVENTORY_FILE, read_inventory, taken
from aif.config.inventory_file import InventoryFile
from aif.config.inventory_update import Said, updated_inventory
from aif.config.yaml_reader import MapNode, read_yaml
from aif.errors import ConfigError, Diagnostic
from aif.model.check import nearest
from aif.model.inventory import Inventory

MAX_CHANGES: Final = 256
MAX_CHARACTERS: Final = 4096
UNITS: Final = ("_bytes", "_bps", "_ms", "_hz", "_mw", "_mwh", "_per_s", "_uj_per_byte")
"""Endings that a change may leave out: ``ram`` is ``ram_bytes``."""

_CHANGE = re.compile(
    r"(?P<owner>link\((?P<ends>[^()]*)\)|[^.()=+\s]+)\.(?P<field>[^=+\s]+?)\s*(?P<how>\+=|-=|=)\s*(?P<value>.*)",
    re.DOTALL,
)
_LINK = re.compile(r"link\(([^()]*)\)")
_STEP = re.compile(r"([a-z_]+)(?:\[(\w+)\])?")


@dataclass(frozen=True, slots=True)
class _Refused(Exception):  # noqa: N818  # not an error yet: the caller adds which option it was
    """Why a change cannot be made; becomes a finding about the option."""

    code: Code
    message: str
    hint: str = ""


def supposed_inventory(
    path: Path,
    changes: Sequence[str] = (),
    without: Sequence[str] = (),
    *,
    announced: Mapping[str, Said] | None = None,
) -> Inventory:
    """The inventory of a file (or of a folder's ``inventory.yaml``), changed.

    Args:
        path: the file or its folder.
        changes: ``DEVICE.FIELD=VALUE`` or ``link(ID).FIELD=VALUE`` or ``link(DEVICE,DEVICE).FIELD=VALUE``;
            ``+=`` and ``-=`` add to lists and take from them. Applied in their order.
        without: devices and ``link(...)`` that are left out, after the changes.
        announced: what devices say of themselves; it comes before the file and after the changes.

    Raises:
        ConfigError: the file is wrong, or a change is; says which one.
    """
    document = load_document(path / INVENTORY_FILE if path.is_dir() else path)
    if announced:
        updated = updated_inventory(document.text, document.path, announced)
        document = parse_document(updated.text, document.path)
    plain = copy.deepcopy(document.plain())
    findings = Findings(document)
    inventory = read_inventory(findings)
    findings.raise_errors()
    if inventory is None:  # read_inventory reports before it gives up
        raise AssertionError
    if len(changes) + len(without) > MAX_CHANGES:
        raise _error(_Refused(Code.LIMIT, f"at most {MAX_CHANGES} changes are made at once"), "--what-if", "")
    wrong: list[ConfigError] = []
    for option, texts, apply in (("--what-if", changes, _change), ("--without", without, _leave_out)):
        for text in texts:
            trial = copy.deepcopy(plain)
            try:
                apply(trial, text)
                inventory = _read(trial)
                plain = trial
            except _Refused as refused:
                wrong.append(_error(refused, option, text))
    if wrong:
        raise ConfigError([finding for one in wrong for finding in one.findings])
    return inventory


def _error(refused: _Refused, option: str, text: str) -> ConfigError:
    shown = f"{option} {text[:120]}: " if text else ""
    return ConfigError([Diagnostic(str(refused.code), f"{shown}{refused.message}", hint=refused.hint)])


def _read(plain: Mapping[str, Any]) -> Inventory:
    try:
        file = InventoryFile.model_validate(plain)
    except ValidationError as wrong:
        first = wrong.errors(include_url=False)[0]
        context: Mapping[str, Any] = first.get("ctx", {})
        words = str(context.get("message", "")) or f"must be {_words(first['msg'])}"
        key = next((str(step) for step in reversed(first["loc"]) if isinstance(step, str)), "the inventory")
        code = Code.UNIT if first["type"] == "unit" else Code.VALUE
        if first["type"] == "extra_forbidden":
            code, words = Code.UNKNOWN_KEY, "is no key there"
        raise _Refused(code, f"{key} {words}", str(context.get("hint", ""))) from wrong
    known = {device.id for device in file.devices}
    for link in file.links:
        for member in link.members:
            if member not in known:
                raise _Refused(Code.REFERENCE, f"a link names device {member!r}", nearest(member, known))
    return taken(file)


def _words(message: str) -> str:
    return re.sub(r"^(Input should be|List should have|String should have) ", "", message)


# --- what is changed ---


def _leave_out(plain: dict[str, Any], text: str) -> None:
    found = _LINK.fullmatch(text.strip())
    if found is not None:
        plain["links"].remove(_link(plain, found[1]))
        return
    gone = _device(plain, text.strip())
    if len(plain["devices"]) == 1:
        raise _Refused(Code.VALUE, "no device would be left")
    plain["devices"].remove(gone)
    links = []
    for link in plain.get("links", []):
        network = [member for member in link.get("network", ()) if member != gone["id"]]
        if "network" in link and len(network) >= 2:
            links.append({**link, "network": network})
        elif "network" not in link and gone["id"] not in _ends(link):
            links.append(link)
    plain["links"] = links


def _change(plain: dict[str, Any], text: str) -> None:
    found = _CHANGE.fullmatch(text.strip()) if len(text) <= MAX_CHARACTERS else None
    if found is None:
        raise _Refused(
            Code.SYNTAX,
            "is not a change",
            "write DEVICE.FIELD=VALUE or link(ID).FIELD=VALUE, such as mcu-2.ram=64KiB",
        )
    if found["ends"] is None:
        owner, table = _device(plain, found["owner"]), "devices"
    else:
        owner, table = _link(plain, found["ends"]), "links"
    value = _value(found["value"])
    _put(owner, table_of(inner(inner(InventoryFile, table), 0)), found["field"], found["how"], value)


def _value(text: str) -> Any:
    """A value as YAML reads it; texts with commas need brackets."""
    try:
        tree = read_yaml(f"value: {text}", "")
    except ConfigError as wrong:
        raise _Refused(Code.SYNTAX, f"{text!r} is not a YAML value", "write it as in the file") from wrong
    return Document("", text, tree).plain().get("value") if isinstance(tree, MapNode) else None


def _device(plain: Mapping[str, Any], name: str) -> dict[str, Any]:
    devices = {device["id"]: device for device in plain["devices"]}
    if name not in devices:
        raise _Refused(Code.REFERENCE, f"the inventory has no device {name!r}", nearest(name, devices))
    found: dict[str, Any] = devices[name]
    return found


def _link(plain: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The link with an id, or the only one that joins two devices."""
    links: dict[str, dict[str, Any]] = {}
    for link in plain.get("links", []):
        ends = _ends(link)
        links[link.get("id") or ("->" if "from" in link else "-").join(ends)] = link
    names = [name.strip() for name in text.split(",")]
    if len(names) == 1:
        if names[0] not in links:
            raise _Refused(
                Code.REFERENCE, f"the inventory has no link {names[0]!r}", nearest(names[0], links)
            )
        return links[names[0]]
    for name in names:
        _device(plain, name)
    joining = {key: link for key, link in links.items() if set(names) <= set(_ends(link))}
    if len(joining) != 1:
        how_many = f"{len(joining)} links join" if joining else "no link joins"
        hint = f"name one: {', '.join(f'link({key})' for key in joining or links)}"
        raise _Refused(Code.REFERENCE, f"{how_many} {' and '.join(names)}", hint)
    return next(iter(joining.values()))


def _ends(link: Mapping[str, Any]) -> list[str]:
    return list(link.get("network") or link.get("between") or [link.get("from"), link.get("to")])


# --- where it is put ---


def _put(owner: Any, table: type[Table] | None, field: str, how: str, value: Any) -> None:
    """Walk ``storage[internal_flash].bytes`` or ``energy.idle_mw`` and set what is there."""
    *way, last = field.split(".")
    annotation: Any = table
    for step in way:
        key, item = _step(annotation, step)
        annotation = inner(annotation, key)
        owner = owner.setdefault(key, {}) if item is None else _entry(owner.get(key, []), key, item)
        annotation = annotation if item is None else inner(annotation, 0)
    key, item = _step(annotation, last)
    if key == "id":
        raise _Refused(Code.VALUE, "an id cannot be changed", "leave the device out with --without")
    if item is not None:
        raise _Refused(
            Code.SYNTAX, f"{last} is an entry of a list", f"name its key, as in {last}.bytes=64KiB"
        )
    if how == "=":
        many = isinstance(owner.get(key), list) or _is_list(inner(annotation, key))
        owner[key] = value if isinstance(value, list) or not many else [value]
        return
    if not _is_list(inner(annotation, key)):
        raise _Refused(Code.SYNTAX, f"{key} is no list", f"write {key}=VALUE")
    entries = owner.setdefault(key, [])
    for one in value if isinstance(value, list) else [value]:
        if how == "+=":
            entries.append(one)
        else:
            entries.remove(_item(entries, key, str(one)))


def _is_list(annotation: Any) -> bool:
    return inner(annotation, 0) is not None


def _step(annotation: Any, step: str) -> tuple[str, str | None]:
    """A key, by its name or without its unit, and the entry of a list that is meant."""
    found = _STEP.fullmatch(step)
    table = table_of(annotation)
    if found is None or table is None:
        raise _Refused(Code.SYNTAX, f"{step!r} names nothing", "write FIELD, or LIST[KIND].FIELD")
    keys = keys_of(table)
    name = next((n for n in (found[1], *(found[1] + unit for unit in UNITS)) if n in keys), None)
    if name is None:
        raise _Refused(Code.UNKNOWN_KEY, f"unknown field {found[1]!r}", nearest(found[1], keys))
    return name, found[2]


def _entry(entries: list[Any], key: str, name: str) -> Any:
    """An entry that is a table; one in its short form is written out."""
    found = _item(entries, key, name)
    if isinstance(found, str):
        entries[entries.index(found)] = found = {"kind": found}
    return found


def _item(entries: Sequence[Any], key: str, name: str) -> Any:
    """An entry of a list, by its kind, its text, or its position."""
    for entry in entries:
        if name in (entry, entry.get("kind") if isinstance(entry, dict) else None):
            return entry
    if name.isdecimal() and int(name) < len(entries):
        return entries[int(name)]
    known = [entry.get("kind", "") if isinstance(entry, dict) else str(entry) for entry in entries]
    raise _Refused(Code.REFERENCE, f"{key} has no {name!r}", nearest(name, known))
