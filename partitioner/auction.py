"""Planning without a centre: gateways bid for room on each other's devices.

Every workflow has a home gateway, which alone knows its metadata; every device has an owner, its hub, which
alone knows its room and has the last word. In a round each home gateway asks for the assignment that costs
its workflow least in the room that the owners announced, all owners hold what fits or refuse, and only what
everybody held is confirmed. Then home gateways with costs above their workflow's cost alone bargain: they ask
the workflow in their way what it would take to make room, and the deal is made when both together gain.

Decides by messages only; nobody sees the whole problem. Ties break by hash, so no result depends on the order
of messages. Ends after two rounds without a change. Lost messages delay, they never break a limit.

Source: Bertsekas, "Auction algorithms" (1992), for bidding; the two phases are those of distributed commits.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from partitioner.problem.evaluate import Choice
from partitioner.problem.parts import OBJECTIVE_SCALE, PlacementProblem
from partitioner.search.descent import Search
from partitioner.search.ledger import ROUNDING, Bill
from partitioner.search.star import Star

MAX_ROUNDS = 30
QUIET_ROUNDS = 2
PARTNERS = 8
"""Workflows in the way that one home gateway talks to in a round, at most."""

HEADER_BYTES, PER_DEVICE_BYTES, PER_AIM_BYTES = 64, 24, 12


@dataclass(frozen=True, slots=True)
class Bargain:
    """What the gateways agreed on.

    ``choice`` lacks the items of ``unserved`` workflows; ``objective`` and ``bound`` (every workflow alone)
    are in objective units; messages are those sent, lost ones included.
    """

    choice: Choice
    objective: float
    bound: float
    unserved: tuple[str, ...]
    rounds: int
    messages: int
    sent_bytes: int


def bargain(problem: PlacementProblem, *, seed: int = 0, loss: float = 0.0) -> Bargain:
    """Let the gateways agree.

    Args:
        problem: all workflows and devices.
        seed: of lost messages and of the order in which equals are served.
        loss: share (0..1) of messages that get lost.
    """
    return _Market(problem, seed, loss).run()


class _Market:
    def __init__(self, problem: PlacementProblem, seed: int, loss: float) -> None:
        self.problem, self.seed, self.loss = problem, seed, loss
        self.star = Star(problem)
        self.search = Search(self.star)
        self.books = self.search.ledger
        self.rng = random.Random(f"market {seed}")  # noqa: S311  which messages are lost
        self.messages = self.sent_bytes = 0
        self.owner = [problem.routes.hub(device.id) for device in self.star.devices]

    def run(self) -> Bargain:
        rounds = quiet = 0
        while quiet < QUIET_ROUNDS and rounds < MAX_ROUNDS:
            rounds += 1
            self._announce()
            changed = self._bids(rounds)
            changed |= self._deals(rounds)
            quiet = 0 if changed else quiet + 1
        served = self.books.bills
        names = [w.name for n, w in enumerate(self.problem.workflows) if n not in served]
        bound = sum(self.search.solve_alone(w).bound for w in served)
        return Bargain(
            choice=self.books.choice(),
            objective=self.books.total / OBJECTIVE_SCALE,
            bound=bound / OBJECTIVE_SCALE,
            unserved=tuple(names),
            rounds=rounds,
            messages=self.messages,
            sent_bytes=self.sent_bytes,
        )

    # --- messages ---

    def _send(self, size_bytes: int, count: int = 1) -> bool:
        """Whether all of ``count`` messages arrive."""
        self.messages += count
        self.sent_bytes += count * size_bytes
        return all(self.rng.random() >= self.loss for _ in range(count))

    def _announce(self) -> None:
        """Every owner publishes the room on its devices, retained."""
        for hub in dict.fromkeys(self.owner):
            self._send(HEADER_BYTES + PER_DEVICE_BYTES * self.owner.count(hub))

    def _owners(self, bill: Bill) -> int:
        return len({self.owner[row] for row, _ in bill.spots})

    def _turn(self, workflow: int, number: int) -> bytes:
        """Place of a workflow in the order of one round."""
        name = self.problem.workflows[workflow].name
        return hashlib.blake2b(f"{self.seed} {number} {name}".encode(), digest_size=8).digest()

    # --- a round ---

    def _bids(self, number: int) -> bool:
        """Workflows without a place ask for one: bid, hold, confirm, each a message per owner."""
        changed = False
        waiting = [w for w in self.search.workflows if w not in self.books.bills]
        for workflow in sorted(waiting, key=lambda w: self._turn(w, number)):
            if not self.search.insert(workflow):
                continue
            bill = self.books.bills[workflow]
            size = HEADER_BYTES + PER_AIM_BYTES * len(bill.spots)
            held = self._send(size, 2 * self._owners(bill))
            if held:
                self._send(size, self._owners(bill))  # a lost confirmation is repeated by the host's time-out
                changed = True
            else:
                self.books.leave(workflow)
                changed = True  # try again: silence is no refusal
        return changed

    def _deals(self, number: int) -> bool:
        """Home gateways above their cost alone look again, and talk to those in their way."""
        changed = False
        for workflow in sorted(self.books.bills, key=lambda w: self._turn(w, number)):
            if self._excess(workflow) <= 2 * ROUNDING:
                continue
            changed |= self._deal((workflow,))
            partners = self.search.in_the_way(workflow)[:PARTNERS]
            for partner in partners:
                if self._excess(workflow) <= 2 * ROUNDING:
                    break
                changed |= self._deal((workflow, partner))
        changed |= self._squeeze(number)
        return changed

    def _excess(self, workflow: int) -> int:
        return self.books.cost[workflow] - self.search.solve_alone(workflow).bound

    def _deal(self, workflows: tuple[int, ...]) -> bool:
        """Two gateways (or one) re-place their workflows if both together gain."""
        old = {w: self.books.bills[w] for w in workflows}
        aims = sum(len(bill.spots) for bill in old.values())
        gained = self.search.replace(workflows)
        # the partner answers with all of its assignments that could be part of a deal
        offered = HEADER_BYTES + PER_AIM_BYTES * aims * (self.search.listed if len(workflows) > 1 else 1)
        heard = self._send(HEADER_BYTES, len(workflows) - 1) and self._send(offered, len(workflows) - 1)
        if not gained:
            return False
        owners = sum(self._owners(self.books.bills[w]) for w in workflows)
        if heard and self._send(HEADER_BYTES + PER_AIM_BYTES * aims, 3 * owners):
            return True
        for w in workflows:
            self.books.leave(w)
        for w, bill in old.items():
            self.books.enter(w, bill)
        return False

    def _squeeze(self, number: int) -> bool:
        """A workflow that found no place asks others to move, whatever that costs them."""
        changed = False
        waiting = [w for w in self.search.workflows if w not in self.books.bills]
        for workflow in sorted(waiting, key=lambda w: self._turn(w, number)):
            before = dict(self.books.bills)
            if self.search.make_room(workflow):
                moved = sum(self.books.bills[w].spots != bill.spots for w, bill in before.items())
                self._send(HEADER_BYTES + PER_AIM_BYTES * 8, 3 * (1 + moved))
                changed = True
        return changed
