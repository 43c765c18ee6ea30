"""A ledger after any sequence of entries and withdrawals agrees with counting from scratch."""

from __future__ import annotations

import random

from partitioner.instances.families import instance
from partitioner.instances.generate import tiny_instance
from partitioner.problem.evaluate import evaluate
from partitioner.search.ledger import Ledger
from partitioner.search.star import Star


def test_totals_and_limits_agree_with_counting_again() -> None:
    rng = random.Random(3)
    entered = 0
    for given in [
        *(tiny_instance(seed) for seed in range(200)),
        *(instance("base", 40, 20, s) for s in range(3)),
    ]:
        problem = given.problem()
        if any(not item.candidates for item in problem.items):
            continue
        star = Star(problem)
        ledger = Ledger(star)
        for _ in range(25):
            workflow = rng.randrange(len(problem.workflows))
            if workflow in ledger.bills:
                ledger.leave(workflow)
            drawn = [star.spot(i, rng.choice(problem.items[i].candidates)) for i in star.items_of[workflow]]
            bill = ledger.bill(workflow, tuple(spot for spot in drawn if spot is not None))
            before = ledger.choice()
            fits = bill is not None and ledger.enter(workflow, bill)
            trial = {**before, **(bill.chosen if bill is not None else {})}
            if bill is not None:
                assert fits == (not evaluate(problem, trial).broken)
            entered += fits
            result = evaluate(problem, ledger.choice())
            assert not result.broken
            if not problem.balance_weight and not problem.devices_weight:
                assert result.objective == ledger.total
            assert {k: v for k, v in ledger.used.items() if v} == {
                k: v for k, v in result.used.items() if v and k.kind != "deadline"
            }
        for workflow in list(ledger.bills):
            ledger.leave(workflow)
        assert not any(ledger.used.values())
        assert (ledger.room == star.room).all()
    assert entered > 200
