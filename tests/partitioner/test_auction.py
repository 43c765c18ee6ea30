"""Gateways that bargain reach an allowed plan near that of the centre, whatever messages get lost."""

from __future__ import annotations

import pytest

from partitioner.auction import MAX_ROUNDS, bargain
from partitioner.instances.families import instance
from partitioner.planner import plan
from partitioner.problem.evaluate import evaluate
from partitioner.problem.parts import OBJECTIVE_SCALE


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_close_to_the_centre(loss: float) -> None:
    for seed in range(3):
        problem = instance("base", 40, 40, seed).problem()
        found, centre = bargain(problem, seed=1, loss=loss), plan(problem)
        assert found.unserved == ()
        result = evaluate(problem, found.choice)
        assert not result.broken
        assert result.objective / OBJECTIVE_SCALE == pytest.approx(found.objective)
        assert centre.bound - 1e-6 <= found.objective <= 1.03 * centre.objective
        assert found.rounds <= MAX_ROUNDS


def test_the_same_seed_gives_the_same_bargain() -> None:
    problem = instance("base", 30, 30, 1).problem()
    assert bargain(problem, seed=4, loss=0.2) == bargain(problem, seed=4, loss=0.2)


def test_lost_messages_are_sent_again() -> None:
    problem = instance("base", 30, 30, 0).problem()
    assert bargain(problem, loss=0.3).messages > bargain(problem).messages
