"""Round trips in windows: what an answer, a lost one, and one from another session count for."""

from __future__ import annotations

from math import inf

import pytest

from aif.runtime.devices.delays import STALE_MS, WEIGHT, WINDOW_QUESTIONS, Delays, Window


def window(delays: Delays, answers_ms: list[float], *, now_ms: float = 0.0) -> Window:
    """One window with these answers; other questions stay without one."""
    for n in range(WINDOW_QUESTIONS):
        assert delays.asked(now_ms) is None
        if n < len(answers_ms):
            delays.answered(answers_ms[n])
    closed = delays.asked(now_ms)
    assert closed is not None
    delays.restart()
    return closed


def test_a_window_gives_median_tail_and_loss() -> None:
    closed = window(Delays(), [5.0, 1.0, 2.0, 100.0, 3.0, 4.0])
    assert (closed.p50_ms, closed.p95_ms, closed.loss) == (3.0, 100.0, 0.25)


def test_no_answer_takes_for_ever_and_spoils_no_average() -> None:
    delays = Delays()
    assert window(delays, []) == Window(inf, inf, 1.0)
    assert (delays.samples, delays.loss) == (0, 1.0)
    window(delays, [4.0] * WINDOW_QUESTIONS)
    assert (delays.p50_ms, delays.p95_ms) == (4.0, 4.0)
    assert delays.loss == pytest.approx(1.0 - WEIGHT)
    assert delays.samples == WINDOW_QUESTIONS


def test_averages_follow_the_windows() -> None:
    delays = Delays()
    window(delays, [4.0] * WINDOW_QUESTIONS)
    window(delays, [8.0] * WINDOW_QUESTIONS)
    assert delays.p50_ms == pytest.approx(4.0 + WEIGHT * 4.0)
    assert delays.samples == 2 * WINDOW_QUESTIONS


def test_an_old_average_begins_anew() -> None:
    delays = Delays()
    window(delays, [400.0] * WINDOW_QUESTIONS)
    window(delays, [4.0] * WINDOW_QUESTIONS, now_ms=STALE_MS + 1.0)
    assert (delays.p50_ms, delays.samples) == (4.0, WINDOW_QUESTIONS)


def test_a_late_answer_counts_in_the_next_window_and_never_as_more_than_none_lost() -> None:
    delays = Delays()
    for _ in range(WINDOW_QUESTIONS - 1):
        delays.asked(0.0)
        delays.answered(1.0)
    delays.asked(0.0)
    closed = delays.asked(0.0)
    assert closed is not None
    assert closed.loss == 1.0 / WINDOW_QUESTIONS
    delays.answered(700.0)
    for _ in range(WINDOW_QUESTIONS - 1):
        delays.answered(1.0)
        delays.asked(0.0)
    delays.answered(1.0)
    closed = delays.asked(0.0)
    assert closed is not None
    assert (closed.p95_ms, closed.loss) == (700.0, 0.0)


def test_a_new_session_begins_a_new_window() -> None:
    delays = Delays()
    for _ in range(WINDOW_QUESTIONS):
        delays.asked(0.0)
    delays.restart()
    assert delays.asked(0.0) is None


def test_answers_take_no_more_room_than_two_windows() -> None:
    delays = Delays()
    delays.asked(0.0)
    for _ in range(1_000):
        delays.answered(1.0)
    assert len(delays._answers_ms) == 2 * WINDOW_QUESTIONS
