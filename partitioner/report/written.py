"""A placement written down: JSON that reads back unchanged, and the rows of a table.

The JSON carries its schema version and is read strictly: an unknown, missing or mistyped key is an error that
names it. Layout and colours of the table are the caller's.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import NoReturn, cast, get_args, get_origin, get_type_hints

from aif.errors import PlacementError
from aif.model.placement import Assignment, Placement
from aif.model.standby import in_words
from partitioner.problem.sentences import listed

SCHEMA = 4
MAX_DOCUMENT_BYTES = 16 * 2**20


# --- JSON ---


def to_json(placement: Placement) -> str:
    """The placement as a JSON document, keys in a fixed order, ending in a newline."""
    document = {"schema": SCHEMA, "placement": _plain(placement)}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def from_json(text: str) -> Placement:
    """Read what ``to_json`` wrote.

    Raises:
        PlacementError: not JSON, too large, another schema, or a key that does not fit; the message names it.
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        raise PlacementError(
            f"the placement document has {len(text):,} characters, {MAX_DOCUMENT_BYTES:,} are read"
        )
    try:
        document = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (json.JSONDecodeError, RecursionError) as wrong:
        raise PlacementError(f"the placement document is not JSON: {wrong}") from wrong
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        raise PlacementError(
            f"the placement document has schema {found!r}, schema {SCHEMA} is read",
            hint="make it again with aif plan --format json",
        )
    if set(document) != {"schema", "placement"}:
        raise PlacementError(f"the placement document has the keys {', '.join(sorted(document))}")
    return cast("Placement", _read(Placement, document["placement"], "placement"))


def _no_constant(name: str) -> NoReturn:
    raise PlacementError(f"the placement document holds {name}, which is no number")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    read = dict(pairs)
    if len(read) != len(pairs):
        keys = [key for key, _ in pairs]
        raise PlacementError(
            f"the placement document has {next(k for k in keys if keys.count(k) > 1)!r} twice"
        )
    return read


def _read(wanted: object, value: object, where: str) -> object:
    """``value`` as the type of a field: dataclass, tuple, mapping, optional or scalar."""
    if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
        hints = get_type_hints(wanted)
        if not isinstance(value, dict) or set(value) != set(hints):
            keys = set(value) if isinstance(value, dict) else set()
            missing, unknown = sorted(set(hints) - keys), sorted(keys - set(hints))
            raise PlacementError(
                f"{where} lacks {', '.join(missing) or 'nothing'} "
                f"and has unknown {', '.join(unknown) or 'nothing'}"
            )
        return wanted(**{k: _read(hint, value[k], f"{where}.{k}") for k, hint in hints.items()})
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(parts[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _read(parts[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is UnionType:
        return None if value is None else _read(next(p for p in parts if p is not NoneType), value, where)
    return _scalar(wanted, value, where)


def _scalar(wanted: object, value: object, where: str) -> object:
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        number = _as_float(value)
        if math.isfinite(number):
            return number
    if wanted is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if wanted is str and isinstance(value, str):
        return value
    words = {float: "a finite number", int: "an integer", str: "text"}
    name = words[wanted] if isinstance(wanted, type) and wanted in words else "a list or an object"
    raise PlacementError(f"{where} must be {name}")


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer with hundreds of digits
        return math.inf


# --- table ---


@dataclass(frozen=True, slots=True)
class AIMRow:
    """One line about an AIM. ``elsewhere``: what other devices had against it, equal answers together."""

    aim: str
    device: str
    implementation: str
    latency_us: float
    rule: str
    reason: str
    elsewhere: tuple[str, ...]


def aim_rows(placement: Placement) -> list[AIMRow]:
    """Every AIM with where, how fast, why there and why not elsewhere."""
    return [
        AIMRow(
            in_words(a.aim), a.device, a.implementation, a.latency_us, a.cost_rule, a.reason, _elsewhere(a)
        )
        for a in placement.assignments
    ]


def _elsewhere(assignment: Assignment) -> tuple[str, ...]:
    by_text: dict[str, list[str]] = {}
    for device, text in assignment.rejected.items():
        by_text.setdefault(text, []).append(device)
    return tuple(f"{listed(devices)}: {text}" for text, devices in by_text.items())
