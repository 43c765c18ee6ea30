"""Published instances of the placement problem, with the best plan known and the best bound proven.

``python -m benchmarks.published base 50 0`` plans one more and writes ``instances/base-50-0.json``: the
arguments of the generator, the SHA-256 of the instance that they give, the plan, its cost as the independent
checker counts it, and the bound. A file that is there already is only changed by a cheaper plan or a higher
bound, so that whoever does better can put it there. ``--full`` writes the whole instance too, for small ones.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from partitioner.checker.check import Auditor
from partitioner.instances.families import FAMILIES, VERSION, instance
from partitioner.instances.generate import Instance
from partitioner.planner import plan
from partitioner.search.pace import Clock

FOLDER = Path(__file__).parent / "instances"
SCHEMA = 1
DIGITS = 8
"""Costs are written with so many digits behind the point; bounds are rounded down."""


def canonical(value: object) -> Any:
    """An instance as plain JSON values, the same for equal instances.

    Fields that have their default are left out, so that a field that is added later changes no digest.
    """
    if is_dataclass(value) and not isinstance(value, type):
        given = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: canonical(content) for field, content in given if content != _default(field)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(canonical(key)): canonical(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, AbstractSet):
        return sorted(str(canonical(one)) for one in value)
    if isinstance(value, (list, tuple)):
        return [canonical(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _default(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def digest(drawn: Instance) -> str:
    """SHA-256 of the canonical JSON of an instance."""
    text = json.dumps(canonical(drawn), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def cost_of(drawn: Instance, where: Mapping[str, tuple[str, str]]) -> float:
    """What the independent checker counts.

    Raises:
        ValueError: the plan breaks a rule.
    """
    audit = Auditor(*drawn.arguments).audit(where)
    if audit.violations:
        first = audit.violations[0]
        raise ValueError(f"{first.name} {first.subject}: {first.text}")
    return audit.objective


def better(known: dict[str, Any] | None, made: dict[str, Any]) -> dict[str, Any]:
    """The cheaper plan and the higher bound of two files about one instance."""
    if known is None or known["sha256"] != made["sha256"]:
        return made
    best = min(known["best"], made["best"], key=lambda one: float(one["objective"]))
    bound = max(known["bound"], made["bound"], key=lambda one: float(one["objective"]))
    return known | made | {"best": best, "bound": bound}


def solved(family: str, size: int, seed: int, seconds: float, today: str) -> dict[str, Any]:
    """One instance, planned."""
    drawn = instance(family, size, size, seed)
    found = plan(drawn.problem(), time_limit_s=seconds, pace=Clock(time.process_time))
    where = {found.problem.items[n].key: (c.device, c.implementation) for n, c in found.choice.items()}
    cost = cost_of(drawn, where)
    bound = min(found.bound, cost)
    return {
        "schema": SCHEMA,
        "generator": {"family": family, "aims": size, "devices": size, "seed": seed, "version": VERSION},
        "sha256": digest(drawn),
        "best": {
            "objective": round(cost, DIGITS),
            "method": f"aif plan, {found.method}, {seconds:g} s of processor time",
            "date": today,
            "plan": {key: list(there) for key, there in sorted(where.items())},
        },
        "bound": {
            "objective": int(bound * 10**DIGITS) / 10**DIGITS,
            "method": f"aif plan, {seconds:g} s of processor time",
            "date": today,
        },
    }


def main(words: list[str] | None = None) -> int:
    """Plan one instance and write what is new about it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published", description=__doc__)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("size", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--seconds", type=float, default=60.0, help="of processor time")
    parser.add_argument("--full", action="store_true", help="write the instance itself too")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    chosen = parser.parse_args(words)
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    made = solved(chosen.family, chosen.size, chosen.seed, chosen.seconds, today)
    if chosen.full:
        made["instance"] = canonical(instance(chosen.family, chosen.size, chosen.size, chosen.seed))
    chosen.folder.mkdir(parents=True, exist_ok=True)
    file = chosen.folder / f"{chosen.family}-{chosen.size}-{chosen.seed}.json"
    known = json.loads(file.read_text()) if file.exists() else None
    text = json.dumps(better(known, made), indent=1, ensure_ascii=False)
    written = file.with_name(file.name + ".tmp")
    written.write_text(text + "\n")
    written.replace(file)
    best, bound = better(known, made)["best"]["objective"], better(known, made)["bound"]["objective"]
    print(f"{file.name}: {best:.6g}, at least {bound:.6g}, gap {100 * (best - bound) / best:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
