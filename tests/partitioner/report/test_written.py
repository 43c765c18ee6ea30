"""Placements written down and read back, and the pictures made of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aif.errors import PlacementError
from aif.model.placement import Assignment, PathLatency, Placement, Usage
from partitioner.checker.exhaustive import best_placement
from partitioner.instances.generate import tiny_instance
from partitioner.planner import place
from partitioner.report.diagrams import mermaid
from partitioner.report.drawing import shares
from partitioner.report.written import MAX_DOCUMENT_BYTES, aim_rows, from_json, to_json

TEXT = st.text(max_size=20)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(-(2**70), 2**70)
PLACEMENTS = st.builds(
    Placement,
    workflow=TEXT,
    workflow_version=TEXT,
    inventory=TEXT,
    inventory_version=COUNT,
    assignments=st.lists(
        st.builds(
            Assignment, TEXT, TEXT, TEXT, TEXT, NUMBER, NUMBER, TEXT, st.dictionaries(TEXT, TEXT, max_size=3)
        ),
        max_size=3,
    ).map(tuple),
    usage=st.lists(
        st.builds(Usage, TEXT, COUNT, COUNT, COUNT, COUNT, NUMBER, NUMBER, NUMBER), max_size=2
    ).map(tuple),
    paths=st.lists(st.builds(PathLatency, TEXT, NUMBER, st.none() | NUMBER), max_size=2).map(tuple),
    terms=st.dictionaries(TEXT, NUMBER, max_size=3),
    objective=NUMBER,
    bound=NUMBER,
    method=TEXT,
    seconds=NUMBER,
    stand_ins=st.dictionaries(TEXT, TEXT, max_size=2),
)
EMPTY = Placement("w", "1", "i", 1, ())


@given(PLACEMENTS)
def test_json_reads_back_unchanged(placement: Placement) -> None:
    assert from_json(to_json(placement)) == placement


@given(
    st.recursive(
        st.none() | st.booleans() | COUNT | NUMBER | TEXT, lambda x: st.lists(x) | st.dictionaries(TEXT, x)
    )
)
@settings(max_examples=200)
def test_any_other_json_is_refused_cleanly(value: object) -> None:
    with pytest.raises(PlacementError):
        from_json(json.dumps({"schema": 4, "placement": value}))


@given(st.text(max_size=200))
def test_any_other_text_is_refused_cleanly(text: str) -> None:
    with pytest.raises(PlacementError):
        from_json(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"schema": 4', '"schema": 1', "schema 1, schema 4 is read"),
        ('"objective": 0.0', '"objective": NaN', "holds NaN, which is no number"),
        ('"objective": 0.0', '"objective": 1e999', "placement.objective must be a finite number"),
        ('"objective": 0.0', f'"objective": 1{"0" * 400}', "placement.objective must be a finite number"),
        ('"objective": 0.0', '"objective": true', "placement.objective must be a finite number"),
        ('"objective": 0.0', '"cost": 0.0', "placement lacks objective and has unknown cost"),
        ('"workflow": "w"', '"workflow": 7', "placement.workflow must be text"),
        (
            '"inventory_version": 1',
            '"inventory_version": 1.5',
            "placement.inventory_version must be an integer",
        ),
        ('"assignments": []', '"assignments": {}', "placement.assignments must be a list or an object"),
        ('"assignments": []', '"assignments": [{"aim": "a"}]', r"placement.assignments\[0\] lacks cost_rule"),
        ('"method": ""', '"method": "", "method": ""', "has 'method' twice"),
        ("{", "[" * 100_000, "is not JSON"),
    ],
)
def test_a_damaged_document_says_where(old: str, new: str, message: str) -> None:
    with pytest.raises(PlacementError, match=message):
        from_json(to_json(EMPTY).replace(old, new, 1))


def test_a_huge_document_is_not_read() -> None:
    with pytest.raises(PlacementError, match="16,777,217 characters"):
        from_json(" " * (MAX_DOCUMENT_BYTES + 1))


def test_real_plans_survive_json_and_are_drawn_whole() -> None:
    drawn = 0
    for seed in range(80):
        instance = tiny_instance(seed)
        if best_placement(*instance.arguments) is None:
            continue
        problem = instance.problem()
        placement = place(problem, workers=1)
        assert from_json(to_json(placement)) == placement
        picture = mermaid(instance.workflows, placement)
        assert all(f'["{a.aim}' in picture for a in placement.assignments)
        assert (
            picture.count("subgraph")
            == picture.count("  end")
            == len({a.device for a in placement.assignments})
        )
        assert picture.count("==>") == sum(
            placement.device_of(problem.items[f.source].key)
            != placement.device_of(problem.items[f.destination].key)
            for f in problem.flows
        )
        drawn += 1
    assert drawn > 20


def test_names_cannot_break_out_of_the_picture() -> None:
    placed = replace(EMPTY, assignments=(Assignment('a"]<script>', "d&d", "c"),))
    picture = mermaid([], placed)
    assert "<script>" not in picture
    assert 'a"]' not in picture
    assert "d&amp;d" in picture


def test_rows_join_devices_with_the_same_answer() -> None:
    rejected = {"x": "has no imu sensor", "y": "has no imu sensor", "z": "costs +12 %"}
    (row,) = aim_rows(replace(EMPTY, assignments=(Assignment("a", "d", "c", rejected=rejected),)))
    assert row.elsewhere == ("x, y: has no imu sensor", "z: costs +12 %")


def test_rows_count_the_devices_of_a_building() -> None:
    rejected = {f"d{n}": "has no imu sensor" for n in range(20)}
    (row,) = aim_rows(replace(EMPTY, assignments=(Assignment("a", "d", "c", rejected=rejected),)))
    assert row.elsewhere == ("d0, d1, d2 and 17 others: has no imu sensor",)


def test_shares_leave_out_what_is_not_budgeted() -> None:
    usage = Usage("d", 512, 1024, 0, 0, 0.2, 0.8, 1.0)
    assert shares(usage) == {"RAM": 0.5, "CPU": 0.25}
