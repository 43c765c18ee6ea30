"""Objectives by weight and in order, and the choice between energy and latency."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import Infeasible, PlacementError
from partitioner.instances.generate import Instance, tiny_instance
from partitioner.objectives import (
    NAMES,
    TOLERANCE,
    UNITS,
    Solve,
    figures,
    in_order,
    read_order,
    read_weights,
    weighing,
    written,
)
from partitioner.pareto import Front, front, front_json
from partitioner.planner import Plan, plan
from partitioner.problem.build import build_problem
from partitioner.report.front_svg import front_svg

NEAR = 1e-6


def solver(instance: Instance) -> Solve:
    def solve(weights: object) -> Plan:
        assert isinstance(weights, dict)
        workflows = weighing(instance.workflows, weights)
        problem = build_problem(workflows, instance.inventory, instance.policy, releases=instance.releases)
        return plan(problem, time_limit_s=20.0, workers=1)

    return solve


def feasible(count: int) -> Iterator[Solve]:
    """Generated instances that have a placement."""
    for seed in range(400):
        solve = solver(tiny_instance(seed))
        try:
            solve({"latency": 1.0})
        except Infeasible:
            continue
        yield solve
        count -= 1
        if not count:
            return


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("speed", "no objective 'speed'", "known: balance"),
        ("energi", "no objective 'energi'", "did you mean 'energy'"),
        ("energy=1,energy=2", "energy is given twice", "once"),
        ("energy=x", "energy has the weight 'x'", "energy=0.5"),
        ("energy=-1", "energy has the weight -1", "0 to 10,000"),
        ("energy=nan", "energy has the weight nan", "0 to 10,000"),
        ("energy=1e9", "energy has the weight 1e9", "0 to 10,000"),
        ("energy=0", "weigh nothing", "above 0"),
        ("", "no objective ''", "known"),
    ],
)
def test_wrong_weights_are_explained(text: str, message: str, hint: str) -> None:
    with pytest.raises(PlacementError, match=message) as caught:
        read_weights(text)
    assert hint in (caught.value.hint or "")


def test_weights_are_read_and_written() -> None:
    assert read_weights("energy") == {"energy": 1.0}
    assert read_weights(" energy = 1 , latency=0.2") == {"energy": 1.0, "latency": 0.2}
    assert read_weights(written({"energy": 100.0, "latency": 0.123457, "traffic": 0.0})) == {
        "energy": 100.0,
        "latency": 0.123457,
    }
    assert read_order("latency, energy") == ("latency", "energy")
    with pytest.raises(PlacementError, match="latency is given twice"):
        read_order("latency,latency")
    assert set(UNITS) == set(NAMES)


@pytest.mark.parametrize(
    "order", [("latency", "energy"), ("devices", "latency"), ("energy", "traffic", "devices")]
)
def test_later_objectives_hardly_cost_the_first_and_weights_give_the_plan_again(
    order: tuple[str, ...],
) -> None:
    for solve in feasible(25):
        alone = figures(solve({order[0]: 100.0}))[order[0]]
        ordered = in_order(solve, order)
        reached = figures(ordered.plan)
        assert reached[order[0]] <= alone * (1 + 2 * TOLERANCE) + NEAR
        again = figures(solve(read_weights(ordered.option)))
        assert {n: again[n] for n in order} == pytest.approx(
            {n: reached[n] for n in order}, rel=1e-3, abs=1e-3
        )


def test_the_second_objective_is_better_than_by_chance() -> None:
    better = 0
    for solve in feasible(40):
        first, both = solve({"latency": 100.0}), in_order(solve, ("latency", "energy"))
        better += figures(both.plan)["energy"] < figures(first)["energy"] - NEAR
        assert figures(both.plan)["energy"] <= figures(first)["energy"] + NEAR
    assert better


def test_fewest_devices_are_found() -> None:
    for solve in feasible(25):
        found = solve({"devices": 1.0})
        running = {c.device for n, c in found.choice.items() if found.problem.items[n].leaf is not None}
        assert found.objective == pytest.approx(len(running))
        assert figures(found)["devices"] == len(running)
        assert found.status == "optimal"


def fronts(count: int) -> list[tuple[Solve, Front]]:
    return [(solve, front(solve, 12)) for solve in feasible(count)]


def test_no_point_of_a_front_is_dominated_and_none_is_below_it() -> None:
    wide = 0
    for solve, found in fronts(30):
        for before, after in pairwise(found.points):
            assert before.latency_ms < after.latency_ms
            assert before.power_mw > after.power_mw
        for weights in ({"latency": 1.0, "energy": 0.5}, {"latency": 0.3, "energy": 2.0}):
            best = solve(weights).objective
            nearest = min(
                weights["latency"] * p.latency_ms / 100.0 + weights["energy"] * p.power_mw
                for p in found.points
            )
            tied = solve(weights).problem.policy.affinity_penalty * len(solve(weights).problem.affinities)
            assert nearest <= best * (1 + 2 * TOLERANCE) + tied + 1e-4
        wide += len(found.points) > 1
    assert wide


def test_each_point_comes_again_with_its_option() -> None:
    for solve, found in fronts(12):
        for point in found.points:
            again = figures(solve(read_weights(point.option)))
            assert again["latency"] == pytest.approx(point.latency_ms, rel=1e-3)
            assert again["energy"] == pytest.approx(point.power_mw, rel=1e-3, abs=1e-6)


def test_the_plot_and_the_json_hold_every_point() -> None:
    solve, found = max(fronts(30), key=lambda pair: len(pair[1].points))
    assert len(found.points) > 1
    picture = front_svg(found, "W on tiny")
    assert picture.count("<circle") == len(found.points)
    assert all(f"--objective {point.option}" in picture for point in found.points)
    document = json.loads(front_json(found))
    assert [p["objective"] for p in document["plans"]] == [p.option for p in found.points]
    assert document["plans"][0]["where"] == dict(found.points[0].plan.where)
    one = front_svg(Front(found.points[:1], 1), "one point")
    assert one.count("<circle") == 1
    assert "nan" not in one
    assert len(front(solve, 2).points) == 2


WORDS = st.sampled_from((*NAMES, "=", ",", "-1", "0", "nan", "inf", "1e999", " ", "x"))


@given(st.text(max_size=40) | st.lists(WORDS, max_size=12).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (read_weights, read_order):
        with suppress(PlacementError):
            assert set(read(text)) <= set(NAMES)
