"""The placement benchmarks run, and a plan that breaks a rule or a bound that lies voids its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.p3_placement import OURS, judge, measure, run
from benchmarks.p4_remapping import answers
from benchmarks.placement_rivals import RIVALS, Answer
from benchmarks.report import Metric
from partitioner.instances.families import instance
from partitioner.planner import plan


@pytest.mark.parametrize("name", [OURS, *RIVALS])
def test_every_contender_finds_an_allowed_plan(name: str) -> None:
    row = run(name, instance("base", 10, 10, 0), 10, 0, 5.0)
    assert row.broken == ""
    assert row.objective is not None
    assert row.bound is None or row.bound <= row.objective * (1 + 1e-6)


def test_a_broken_plan_and_a_lying_bound_are_caught() -> None:
    drawn = instance("base", 10, 10, 0)
    problem = drawn.problem()
    found = plan(problem)
    objective, broken = judge(problem, drawn, Answer(found.choice, found.bound))
    assert objective == pytest.approx(found.objective)
    assert broken == ""
    assert "bound of" in judge(problem, drawn, Answer(found.choice, 2 * found.objective))[1]
    partial = {n: c for n, c in found.choice.items() if n}
    assert "is not placed" in judge(problem, drawn, Answer(partial))[1]


def test_metrics_compare_with_the_best_rival_and_tell_the_goal() -> None:
    metrics, tables = measure(1, sizes=[10], quick=True)
    by_name = {metric.name: metric for metric in metrics}
    assert by_name["p3.cost_vs_best_rival_10"].value <= 1.0 + 1e-6
    assert by_name["p3.gap_10"].value == 0.0
    assert {row["contender"] for row in tables["rows"]} == {OURS, *RIVALS}


def test_every_row_is_kept_as_soon_as_it_is_measured() -> None:
    kept: list[int] = []

    def keep(metrics: list[Metric], table: dict[str, Any]) -> None:
        kept.append(len(table["rows"]))
        if len(kept) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(1, sizes=[10], quick=True, keep=keep)
    assert kept == [1, 2, 3]


def test_mended_plans_are_measured() -> None:
    metrics, tables = answers(1, sizes=[20], quick=True)
    assert {metric.name for metric in metrics} == {"p4.first_feasible_20", "p4.moves_20"}
    assert tables["void"] == {}


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_the_command_loses_a_device_of_a_running_site(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert main(["p4", "--quick", "--noisy", "--planned", "20", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    table = written["tables"]["p4"]
    assert table["void"] == {}
    if table["left_out"]:
        pytest.skip(table["left_out"][0])
    names = {metric["name"] for metric in written["metrics"]}
    assert names == {"p4.first_feasible_20", "p4.moves_20", "p4.live_killed"}
    (loss,) = table["live"]
    assert loss["device"].startswith("spare-")
    assert {"noticed", "planned", "deployed", "attested", "keyed", "started", "first_output"} == set(
        loss["stages_ms"]
    )
