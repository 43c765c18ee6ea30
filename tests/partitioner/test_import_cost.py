"""Only the solver needs ortools; everything else stays importable on a small gateway."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "aif.cli.plan",
        "partitioner.problem.build",
        "partitioner.checker.check",
        "partitioner.report.written",
        "partitioner.explain",
    ],
)
def test_does_not_load_the_solver(module: str) -> None:
    heavy = "{'ortools', 'numpy', 'networkx'}"
    code = f"import {module}, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
