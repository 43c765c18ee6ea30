"""How long an answer may take, when a rumour is worth a question, and when a device may be relied on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.runtime.devices.liveness import (
    FIRST_TIMEOUT_MS,
    FORGOTTEN_MS,
    LEAST_TIMEOUT_MS,
    MOST_TIMEOUT_MS,
    OPEN_QUESTIONS,
    PROBATION_FIRST_MS,
    PROBATION_MOST_MS,
    QUIET_FIRST_MS,
    QUIET_MOST_MS,
    Answers,
    HeartbeatSettings,
    Reputation,
)


def answering(*round_trips_ms: float) -> Answers:
    answers = Answers()
    for took_ms in round_trips_ms:
        answers.answered(answers.ask(0.0), took_ms)
    return answers


def test_the_first_answers_are_weighed_as_rfc_6298_says() -> None:
    answers = answering(200.0)
    assert (answers.rtt_ms, answers.deviation_ms) == (200.0, 100.0)
    assert answers.timeout_ms == 600.0
    answers = answering(200.0, 280.0)  # 3/4 * 100 + 1/4 * 80, 7/8 * 200 + 1/8 * 280
    assert (answers.rtt_ms, answers.deviation_ms) == (210.0, 95.0)


def test_a_device_that_answers_at_once_has_the_least_timeout() -> None:
    assert Answers().timeout_ms == FIRST_TIMEOUT_MS
    assert answering(*[1.0] * 50).timeout_ms == LEAST_TIMEOUT_MS


@given(st.lists(st.floats(0, 1e7), max_size=30))
def test_the_timeout_stays_within_its_bounds(round_trips_ms: list[float]) -> None:
    assert LEAST_TIMEOUT_MS <= answering(*round_trips_ms).timeout_ms <= MOST_TIMEOUT_MS


def test_answers_that_nobody_asked_for_count_for_nothing() -> None:
    answers = answering(10.0)
    before = (answers.rtt_ms, answers.deviation_ms, answers.newest)
    for number in (0, 1, 7, 2**70, -1):  # 1 was answered already
        answers.answered(number, 1e9)
    assert (answers.rtt_ms, answers.deviation_ms, answers.newest) == before


def test_questions_that_are_never_answered_take_bounded_memory() -> None:
    answers = Answers()
    for now_ms in range(10 * OPEN_QUESTIONS):
        answers.ask(float(now_ms))
        answers.wait()
    assert len(answers._asked) == OPEN_QUESTIONS
    assert answers.silent == 10 * OPEN_QUESTIONS
    answers.heard()
    assert answers.silent == 0


def test_slow_answers_allow_more_silence() -> None:
    settings = HeartbeatSettings(interval_ms=250.0, missed=4)
    assert answering(*[1.0] * 20).allowed(settings) == 4
    assert answering(*[900.0] * 50).allowed(settings) >= 10


def test_each_refuted_rumour_doubles_the_pause_before_the_next_question() -> None:
    reputation, now_ms, pause_ms = Reputation(), 0.0, QUIET_FIRST_MS
    assert reputation.credible(now_ms)
    for _ in range(12):
        reputation.note_refuted(now_ms)
        assert not reputation.credible(now_ms + pause_ms - 1)
        assert reputation.credible(now_ms + pause_ms)
        now_ms, pause_ms = now_ms + pause_ms, min(2 * pause_ms, QUIET_MOST_MS)
    reputation.note_refuted(now_ms + FORGOTTEN_MS)
    assert reputation.credible(now_ms + FORGOTTEN_MS + QUIET_FIRST_MS)


def test_one_loss_is_forgiven_and_more_are_not() -> None:
    reputation, now_ms = Reputation(), 0.0
    assert reputation.probation_ms(now_ms) == 0
    reputation.note_lost(now_ms)
    assert reputation.probation_ms(now_ms) == 0
    expected_ms = PROBATION_FIRST_MS
    for _ in range(12):
        now_ms += 1000
        reputation.note_lost(now_ms)
        now_ms += PROBATION_MOST_MS  # however long it was away
        assert reputation.probation_ms(now_ms) == expected_ms
        reputation.note_trusted(now_ms)
        reputation.note_trusted(now_ms + 1000)  # again, by its next evidence
        assert reputation.probation_ms(now_ms + expected_ms - 1) == 1
        assert reputation.probation_ms(now_ms + expected_ms) == 0
        expected_ms = min(2 * expected_ms, PROBATION_MOST_MS)
    reputation.note_lost(now_ms + FORGOTTEN_MS)
    assert reputation.probation_ms(now_ms + FORGOTTEN_MS) == 0


@pytest.mark.parametrize("times", [10_000])
def test_no_number_of_losses_or_rumours_overflows(times: int) -> None:
    reputation = Reputation()
    for now_ms in range(times):
        reputation.note_lost(float(now_ms))
        reputation.note_refuted(float(now_ms))
    assert reputation.probation_ms(float(times)) <= PROBATION_MOST_MS
    assert reputation.credible(times + QUIET_MOST_MS)
