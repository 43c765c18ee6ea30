"""Two plans side by side."""

from __future__ import annotations

import json
from dataclasses import replace

from aif.model.placement import Assignment, LinkUsage, PathLatency, Placement, Usage
from partitioner.report.compare import Move, Place, compare, comparison_json

BEFORE = Placement(
    "w",
    "1",
    "lab",
    1,
    (Assignment("a", "d1", "mcu"), Assignment("b", "d1", "mcu"), Assignment("old", "d1", "mcu")),
    usage=(Usage("d1", 100, 200, 0, 0, 0.1, 0.8, 5.0), Usage("d2", 0, 200, 0, 0, 0.0, 0.8, 1.0)),
    links=(LinkUsage("l", ("d1", "d2"), 0, 1000),),
    paths=(PathLatency("p", 10.0, None),),
)
AFTER = replace(
    BEFORE,
    assignments=(Assignment("a", "d1", "mcu"), Assignment("b", "d2", "gw"), Assignment("new", "d2", "gw")),
    usage=(Usage("d1", 60, 200, 0, 0, 0.1, 0.8, 3.0), Usage("d2", 50, 200, 0, 0, 0.0, 0.8, 1.5)),
    links=(LinkUsage("l", ("d1", "d2"), 400, 1000),),
    paths=(PathLatency("p", 14.0, None),),
)


def test_moves_additions_and_losses_are_told_apart() -> None:
    found = compare(BEFORE, AFTER)
    assert found.moves == (
        Move("b", Place("d1", "mcu"), Place("d2", "gw")),
        Move("old", Place("d1", "mcu"), None),
        Move("new", None, Place("d2", "gw")),
    )
    assert found.stayed == 1


def test_figures_say_what_it_costs_and_saves() -> None:
    more = {change.name: change.more for change in compare(BEFORE, AFTER).changes}
    assert more == {
        "devices used": 1.0,
        "mean power": -1.5,
        "traffic": 400.0,
        "RAM": 10.0,
        "path p": 4.0,
        "power of d1": -2.0,
        "power of d2": 0.5,
        "link l": 400.0,
    }


def test_a_plan_differs_in_nothing_from_itself() -> None:
    found = compare(BEFORE, BEFORE)
    assert (found.moves, found.changes, found.remarks, found.stayed) == ((), (), (), 3)


def test_what_makes_plans_incomparable_is_said() -> None:
    other = replace(BEFORE, workflow="v", inventory="home", objective=2.0, bound=1.0)
    remarks = compare(BEFORE, other).remarks
    assert remarks == (
        "the plans are of different workflows: w and v",
        "the plans are for different inventories: lab and home",
        "the new plan may be 50.00% above its optimum",
    )
    assert compare(BEFORE, replace(BEFORE, workflow_version="2")).remarks == (
        "the workflow had version 1, now 2",
    )


def test_the_json_holds_everything() -> None:
    document = json.loads(comparison_json(compare(BEFORE, AFTER)))
    assert document["schema"] == 1
    assert document["comparison"]["moves"][1] == {
        "aim": "old",
        "before": {"device": "d1", "implementation": "mcu"},
        "after": None,
    }
    assert {c["name"] for c in document["comparison"]["changes"]} >= {"mean power", "path p"}
