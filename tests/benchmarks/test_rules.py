"""The rules of measurement without processes: shapes, digests, sequence, ratios, verdicts."""

from __future__ import annotations

import zlib
from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cell import Cell, Durations, Run
from benchmarks.contenders import CONTENDERS
from benchmarks.harness import Spread, ratios, spread
from benchmarks.intake import Sink
from benchmarks.lines import code_lines, table
from benchmarks.p1_throughput import BUNDLES, cells_of
from benchmarks.p1_throughput import goals as p1_goals
from benchmarks.p2_round_trip import goals as p2_goals
from benchmarks.p2_round_trip import groups
from benchmarks.report import judged
from benchmarks.workload import WINDOW_BYTES, InvalidRun, Pool, Shape, Verifier

shapes = st.builds(
    Shape, st.sampled_from([100, 1_024, 16_384]), st.sampled_from([0, 1, 3, 16, 31, 62, 64, 256])
)


class TestShape:
    @given(shapes)
    def test_everything_is_a_multiple_of_what_it_holds(self, shape: Shape) -> None:
        assert shape.burst % max(1, shape.bundle) == 0
        assert shape.step % shape.burst == shape.pool % shape.burst == 0
        assert shape.burst <= shape.step < shape.window
        assert shape.window * shape.size_bytes <= WINDOW_BYTES or shape.step == shape.burst


class TestPool:
    @pytest.mark.parametrize("turns", [0, 1, 2])
    @pytest.mark.parametrize("more", [0, 1, 500])
    def test_the_digest_is_that_of_the_messages_one_by_one(self, turns: int, more: int) -> None:
        pool = Pool(Shape(16_384, 1), seed=7)
        count, crc = turns * pool.shape.pool + more, 0
        for data in islice(cycle(map(pool.data, range(pool.shape.pool))), count):
            crc = zlib.crc32(data, crc)
        assert pool.digest(count) == crc


class TestVerifier:
    @given(st.lists(st.integers(1, 7), max_size=30))
    def test_batches_of_any_size_wrap_around_the_pool(self, sizes: list[int]) -> None:
        verifier = Verifier(7)
        for size in sizes:
            at = verifier.count
            verifier.take([(at + i) % 7 for i in range(size)], [b"x"] * size)
        assert verifier.count == sum(sizes)
        assert verifier.crc == zlib.crc32(b"x" * sum(sizes))

    @pytest.mark.parametrize("sequences", [[1], [0, 2], [0, 0], [0, 2, 1], [0, 1, 2, 3, 0]])
    def test_gap_repetition_and_swap_are_refused(self, sequences: list[int]) -> None:
        with pytest.raises(InvalidRun, match="lost, repeated or swapped"):
            Verifier(5).take(sequences, [b""] * len(sequences))

    def test_a_sink_reports_each_step_once(self) -> None:
        shape, reported = Shape(16_384, 1), list[int]()
        sink = Sink(shape, reported.append, pytest.fail)
        for start in range(0, 3 * shape.step, shape.step // 2):
            place = start % shape.pool
            sink.take(list(range(place, place + shape.step // 2)), [b""] * (shape.step // 2))
        assert reported == [shape.step, 2 * shape.step, 3 * shape.step]


class TestRatios:
    def test_they_are_formed_within_the_round_against_the_best_rival(self) -> None:
        own, one, other = Cell("aif_paho"), Cell("paho_plain"), Cell("paho_typed")
        rounds = [
            {own: {"f": 8.0}, one: {"f": 2.0}, other: {"f": 4.0}},
            {own: {"f": 30.0}, one: {"f": 10.0}, other: {"f": 5.0}},
            {own: {"f": 4.0}, one: {"f": 4.0}},
        ]
        assert ratios(rounds, "f", own, [one, other]) == Spread(2.0, 1.0, 3.0)
        assert ratios([{own: {"p50_us": 6.0}, one: {"p50_us": 3.0}, other: {"p50_us": 2.0}}], "p50_us", own,
                      [one, other]) == Spread(3.0, 3.0, 3.0)  # fmt: skip
        assert ratios(rounds, "f", Cell("zenoh"), [one]) is None
        assert ratios(rounds, "f", own, [Cell("zenoh")]) is None
        assert spread(rounds, "f", one) == Spread(4.0, 2.0, 10.0)

    @pytest.mark.parametrize(
        ("spread_", "goal", "better", "met"),
        [
            (Spread(10, 8, 12), 10, "higher", True),
            (Spread(10, 7.9, 12), 10, "higher", False),
            (Spread(9.9, 9.5, 12), 10, "higher", False),
            (Spread(0.8, 0.5, 1.0), 0.8, "lower", True),
            (Spread(0.8, 0.5, 1.01), 0.8, "lower", False),
            (Spread(1, 1, 1), None, "lower", None),
        ],
    )
    def test_a_goal_needs_median_and_worst_round(
        self, spread_: Spread, goal: float | None, better: str, met: bool | None
    ) -> None:
        assert judged("m", spread_, "ratio", goal, "higher" if better == "higher" else "lower").met is met


class TestPlan:
    def test_every_goal_is_about_rows_that_run(self) -> None:
        p1 = {cell for size in BUNDLES for cell in cells_of(size, full=False)}
        p2 = {cell for cells in groups() for cell in cells}
        for goal in [*p1_goals(), *p1_goals("aif_fast")]:
            assert {goal.cell, *goal.references} <= p1, goal.name
        for goal in [*p2_goals(), *p2_goals("aif_fast")]:
            assert {goal.cell, *goal.references} <= p2, goal.name

    def test_names_are_unique_and_contenders_known(self) -> None:
        for cells in [*(cells_of(size, full=True) for size in BUNDLES), *groups()]:
            assert len({cell.name for cell in cells}) == len(cells)
            assert {cell.contender for cell in cells} <= set(CONTENDERS)

    def test_a_run_is_read_as_it_was_written(self, tmp_path: object) -> None:
        run = Run("ping", Cell("aif_paho", mode="signed"), Durations(), str(tmp_path), 1, "00", port=5)
        assert Run.read(run.write()) == run


def test_lines_of_code_leave_out_comments_and_docstrings() -> None:
    source = (
        '"""Doc\nstring."""\n\nA = 1\n"""What A is."""\n# why\n\n'
        'def f():\n    """Doc."""\n    return (\n     A\n    )\n'
    )
    assert code_lines(source) == 5


def test_every_service_has_lines() -> None:
    assert all(files and lines for files, lines in table().values())
