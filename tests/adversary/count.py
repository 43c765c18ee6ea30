"""Counts attacks by class: ``python -m tests.adversary.count [--json FILE] [PYTEST ARGUMENT ...]``.

Runs the adversary suite and prints, for each class of attack, how many were tried and how many were refused.
A test says what it tried with the fixture ``attacks``; a test that says nothing counts as one attack of the
class of its file. What an expected failure tried counts as not refused. Ends as pytest does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pytest

PROPERTY: Final = "attacks"
FOLDER: Final = Path(__file__).parent
CLASSES: Final = {
    "test_attacks.py": "other attacks on a running site",
    "test_broker_rules.py": "broker: identity and access",
    "test_disturbances.py": "broker that disturbs",
    "test_members.py": "member against its producer",
    "test_rumours.py": "rumours about devices",
    "test_secrets.py": "search for secrets",
    "test_starvation.py": "keeping a device out",
    "test_stateful.py": "planted defects",
    "test_wire_attacks.py": "connections, sessions, floods",
}
"""Class of a test that does not say what it tried."""
NO_ATTACKS: Final = frozenset({"test_packets.py", "test_proxy.py", "test_count.py"})
"""Tests of the attacker's tools."""


@dataclass(slots=True)
class Count:
    """Attacks of one class."""

    tests: int = 0
    tried: int = 0
    refused: int = 0


class Counter:
    """A pytest plugin that adds up what the reports of all processes say."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, Count] = defaultdict(Count)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = Path(report.nodeid.partition("::")[0]).name
        expected_failure = hasattr(report, "wasxfail")
        if report.when != "call" or name in NO_ATTACKS or (report.skipped and not expected_failure):
            return
        held = report.passed and not expected_failure
        said: list[Any] = [value for key, value in report.user_properties if key == PROPERTY]
        for kind, tried, refused in said or [(CLASSES.get(name, name), 1, 1)]:
            count = self.counts[kind]
            count.tests += 1
            count.tried += tried
            count.refused += refused if held else 0


def table(counts: dict[str, Count]) -> str:
    """One row per class, and the sum."""
    rows = [f"| {kind} | {c.tests:,} | {c.tried:,} | {c.refused:,} |" for kind, c in sorted(counts.items())]
    tried, refused = (sum(getattr(c, name) for c in counts.values()) for name in ("tried", "refused"))
    head = ["| class of attack | tests | tried | refused |", "|---|---:|---:|---:|"]
    return "\n".join([*head, *rows, f"| all | | {tried:,} | {refused:,} |"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.adversary.count", description="Count attacks.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    arguments, rest = parser.parse_known_args()
    counter = Counter()
    code = pytest.main([*(rest or [str(FOLDER)])], plugins=[counter])
    if arguments.json is not None:
        figures = {kind: asdict(count) for kind, count in sorted(counter.counts.items())}
        partial = arguments.json.with_name(arguments.json.name + ".partial")
        partial.write_text(json.dumps(figures, indent=1) + "\n")
        partial.replace(arguments.json)
    sys.stdout.write(f"\n{table(counter.counts)}\n")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
