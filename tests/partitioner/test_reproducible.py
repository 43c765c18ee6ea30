"""Plans by counted work are the same byte for byte, whatever clocks say and however strings are hashed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys, time

family, size, limit_s, speed = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
for name in ("time", "monotonic", "perf_counter", "process_time"):
    true = getattr(time, name)
    setattr(time, name, lambda true=true, began=true(): began + speed * (true() - began))

from partitioner.instances.families import instance
from partitioner.planner import place
from partitioner.report.written import to_json
from partitioner.search.pace import Work

problem = instance(family, size, size, 0).problem()
sys.stdout.write(to_json(place(problem, time_limit_s=limit_s, seed=3, pace=Work())))
"""


def planned(family: str, size: int, limit_s: float, *, speed: float, hashed: str) -> str:
    """The plan as JSON, made in a process whose clocks run ``speed`` times as fast."""
    words = [sys.executable, "-c", SCRIPT, family, str(size), str(limit_s), str(speed)]
    environment = {**os.environ, "PYTHONHASHSEED": hashed}
    return subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("family", "size", "limit_s"), [("base", 10, 5.0), ("tight", 12, 0.6), ("fans", 40, 0.8)]
)
def test_clocks_change_nothing(family: str, size: int, limit_s: float) -> None:
    slow = planned(family, size, limit_s, speed=0.02, hashed="1")
    fast = planned(family, size, limit_s, speed=50.0, hashed="2")
    assert slow == fast
    assert '"seconds"' in slow
