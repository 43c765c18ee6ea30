"""The planner: a plan within a time limit, with a proven bound of how much better any other could be.

Decides which methods run and for how long. Workflows are placed one by one and improved together
(``search``); that alone proves most loose problems of any size. Standbys of all but tiny problems are placed
after what runs (``readying``). A gap that is left is closed from both sides by prices for room (``closing``);
small problems with a gap go to the exact solver with the plan as a hint.
Times are seconds of a ``Pace``: by the clock, or by counted work for plans that are the same everywhere.

``plan`` gives the numbers, ``Plan.placement`` the reasons; ``place`` both at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from aif.errors import Infeasible, SolverTimeout
from aif.model.placement import Placement
from partitioner.explain import explain
from partitioner.problem.evaluate import Choice, evaluate
from partitioner.problem.parts import EXACT_PAIRS, OBJECTIVE_SCALE, PlacementProblem
from partitioner.prover import Unproven
from partitioner.reasons import describe
from partitioner.search.descent import Search
from partitioner.search.ledger import ROUNDING, Spots
from partitioner.search.pace import ENTRY_S, Clock, Pace
from partitioner.search.readying import ready, standbys_of, without_standbys
from partitioner.search.star import Star

DEFAULT_TIME_LIMIT_S = 10.0
DEFAULT_WORKERS = 2

EXPLAINED = 4_000
"""AIMs times devices up to which every other device of every AIM is tried for the reasons."""

TINY_PAIRS = 3_000
"""``PlacementProblem.pairs`` up to which the exact solver is faster than anything else."""

CORE_ITEMS = 30
"""AIMs up to which a smallest conflict is looked for before a shortage of room is."""

RUNNING_SHARE, NO_GAP = 0.7, 0.01
"""Share of the time limit for what runs, before its standbys; the gap up to which the rest is not used."""

SEARCH_SHARE, PROOF_SHARE = 0.2, 0.3
"""Shares of the time limit after which the first search and the first proof end; the rest closes the gap."""

Status = Literal["optimal", "feasible"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A feasible choice and what is proven about it.

    Attributes:
        problem: what was planned.
        choice: candidate by position in ``problem.items``.
        objective: its cost, in objective units.
        bound: no plan costs less.
        status: ``optimal`` when the bound meets the objective.
        method: what found it and what proved it.
        seconds: time of planning, as its pace counted it.
        seed: of the search.
    """

    problem: PlacementProblem
    choice: Choice
    objective: float
    bound: float
    status: Status
    method: str
    seconds: float
    seed: int

    @property
    def gap(self) -> float:
        """Share (0..1) of the objective that is not proven necessary."""
        return 0.0 if self.objective <= self.bound else (self.objective - self.bound) / self.objective

    @property
    def where(self) -> Mapping[str, str]:
        """Device by AIM key."""
        return {self.problem.items[n].key: c.device for n, c in self.choice.items()}

    def placement(self) -> Placement:
        """The plan as a value for the Controller, with usage and reasons (of small problems)."""
        size = len(self.problem.items) * len(self.problem.inventory.devices)
        return describe(
            self.problem,
            self.choice,
            bound=self.bound,
            method=self.method,
            seconds=self.seconds,
            alternatives=size <= EXPLAINED,
        )


def place(
    problem: PlacementProblem,
    *,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    seed: int = 0,
    workers: int = DEFAULT_WORKERS,
    in_full: bool = True,
    pace: Pace | None = None,
) -> Placement:
    """``plan`` with its reasons."""
    found = plan(problem, time_limit_s=time_limit_s, seed=seed, workers=workers, in_full=in_full, pace=pace)
    return found.placement()


def plan(
    problem: PlacementProblem,
    *,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    seed: int = 0,
    workers: int = DEFAULT_WORKERS,
    warm_start: Plan | None = None,
    in_full: bool = True,
    pace: Pace | None = None,
) -> Plan:
    """The best plan found within the limit, with its proven bound.

    Args:
        problem: what to place where.
        time_limit_s: for search and proof; explanations of an impossible problem have a budget of their own.
        seed: of random choices.
        workers: threads of the exact solver.
        warm_start: an earlier plan; workflows start where it had them, as far as that still fits.
        in_full: whether an impossible problem is worth a search for what would make it possible.
        pace: how time passes; by the computer's clock unless told.

    Raises:
        Infeasible: no placement exists; says which needs conflict and what would help.
        SolverTimeout: nothing was found and nothing proven in time.
    """
    return _Planning(problem, time_limit_s, seed, workers, pace or Clock(), in_full=in_full).run(warm_start)


class _Planning:
    def __init__(
        self,
        problem: PlacementProblem,
        time_limit_s: float,
        seed: int,
        workers: int,
        pace: Pace,
        *,
        in_full: bool,
    ) -> None:
        self.in_full = in_full
        self.problem, self.seed, self.workers, self.pace = problem, seed, workers, pace
        self.started_s = pace.now()
        self.end_s = self.started_s + time_limit_s
        self.time_limit_s = time_limit_s
        self.floor = 0
        """What is proven already, in integer units."""
        self.rounding = 2 * ROUNDING * max(1, len(problem.workflows))

    def run(self, warm_start: Plan | None) -> Plan:
        readied = self._standbys_last(warm_start)
        if readied is not None and readied.gap <= NO_GAP:
            return readied
        return self._search(readied or warm_start)

    def _search(self, warm_start: Plan | None) -> Plan:
        star = Star(self.problem, pace=self.pace, end_s=self.end_s)
        if not all(star.usable(number) for number in range(len(self.problem.items))):
            self._explain()
        search = Search(star, end_s=self.end_s)
        if warm_start is not None:
            search.enter_spots(spots_of_choice(search.star, warm_start))
        missing = self._first(search)
        small = self.problem.pairs <= EXACT_PAIRS
        if missing:
            return self._without_room(search, missing, small=small)
        late_s = self.started_s + SEARCH_SHARE * self.time_limit_s
        if not search.out_of_time():
            search.improve(lambda: self.pace.now() >= late_s)
        search.end_s = self.started_s + PROOF_SHARE * self.time_limit_s
        bound = max(search.bound(), self.floor)
        search.end_s = self.end_s
        gap, late = search.ledger.total - bound, search.out_of_time()
        if gap > self.rounding and self.problem.pairs > TINY_PAIRS and not late:
            bound = self._close(search, bound)
        choice = search.ledger.choice()
        objective = evaluate(self.problem, choice).objective
        if objective - bound > self.rounding and small and not late:
            return self._exact(choice, bound)
        return self._plan(choice, objective, bound, "search by workflow")

    def _without_room(self, search: Search, missing: list[int], *, small: bool) -> Plan:
        """The exact solver's plan, where workflows found no room and the problem is small enough for it.

        Raises:
            Infeasible: there is none.
            SolverTimeout: whether there is one is not known.
        """
        names = [self.problem.workflows[w].name for w in missing]
        hopeless = [name for w, name in zip(missing, names, strict=True) if search.impossible_alone(w)]
        if hopeless and not small:
            raise Infeasible(
                [f"{name} fits nowhere, not even alone on an empty inventory" for name in hopeless],
                hint=f"plan {hopeless[0]} by itself to see what it lacks",
            )
        if not small or len(self.problem.items) > CORE_ITEMS:
            self._prove_shortage(search)
        if not small:
            raise SolverTimeout(
                f"no room was found for {len(missing)} of {len(self.problem.workflows)} workflows "
                f"({', '.join(names[:5])}), and that there is none is not proven",
                hint="give more time: --time-limit; or plan fewer workflows together",
            )
        return self._exact(None, 0)

    def _standbys_last(self, warm_start: Plan | None) -> Plan | None:
        """A plan without standbys and then room for them; its bound holds for the whole problem too.

        None where there are none, where all AIMs together are few, and where a standby found no room.

        Raises:
            Infeasible: there is not even a plan without standbys.
        """
        if self.problem.pairs <= TINY_PAIRS or not standbys_of(self.problem):
            return None
        alone = plan(
            without_standbys(self.problem), time_limit_s=RUNNING_SHARE * self.time_limit_s, seed=self.seed,
            workers=self.workers, warm_start=warm_start, in_full=self.in_full, pace=self.pace,
        )  # fmt: skip
        self.floor = int(alone.bound * OBJECTIVE_SCALE)
        self.pace.spend(ENTRY_S * len(standbys_of(self.problem)))
        choice = ready(self.problem, {alone.problem.items[n].key: c for n, c in alone.choice.items()})
        if choice is None:
            return None
        objective = evaluate(self.problem, choice).objective
        return self._plan(choice, objective, self.floor, f"{alone.method}, standbys last")

    def _first(self, search: Search) -> list[int]:
        """Make a first plan; returns the workflows that found no room."""
        missing = search.insert_all()
        if missing and self.problem.pairs <= TINY_PAIRS and search.out_of_time():
            search.end_s = math.inf  # which is some milliseconds
            missing = search.insert_all()
            search.end_s = self.end_s
        return missing

    def _prove_shortage(self, search: Search) -> None:
        """Raises: Infeasible, if it is proven in time that there is not enough room."""
        from partitioner.search.shortage import explained, shortage

        proof = shortage(search, lambda: self.pace.now() >= self.end_s)
        if proof is not None:
            raise explained(self.problem, proof)

    def _close(self, search: Search, bound: int) -> int:
        from partitioner.search.closing import Closing

        closing = Closing(search, seed=self.seed, left_s=lambda: self.end_s - self.pace.now())
        closing.bound = bound
        closing.run()
        return closing.bound

    def _exact(self, choice: Choice | None, bound: int) -> Plan:
        from partitioner.search.solver import solve

        left_s = max(0.0, self.end_s - self.pace.now())
        found = solve(
            self.problem,
            hint=choice,
            time_limit_s=left_s,
            seed=self.seed,
            workers=self.workers,
            pace=self.pace,
        )
        if found.infeasible:
            self._explain()
        better = found.choice if found.choice is not None else choice
        if better is None:
            raise SolverTimeout(
                f"no placement found in {self.time_limit_s:g} s and none ruled out",
                hint="give more time: --time-limit",
            )
        objective = evaluate(self.problem, better).objective
        return self._plan(better, objective, max(bound, found.bound), "CP-SAT")

    def _plan(self, choice: Choice, objective: int, bound: int, method: str) -> Plan:
        near = objective - bound <= self.rounding
        bound = objective if near else bound
        return Plan(
            problem=self.problem,
            choice=choice,
            objective=objective / OBJECTIVE_SCALE,
            bound=max(0, bound) / OBJECTIVE_SCALE,
            status="optimal" if near else "feasible",
            method=method,
            seconds=self.pace.now() - self.started_s,
            seed=self.seed,
        )

    def _explain(self) -> None:
        from partitioner.search.cores import CoreFinder

        if self.in_full:
            raise explain(self.problem, CoreFinder(self.problem, seed=self.seed, pace=self.pace))
        raise explain(self.problem, Unproven(), advise=False)


def spots_of_choice(star: Star, earlier: Plan) -> Mapping[int, Spots]:
    """Where an earlier plan had the workflows of ``star``, as far as those devices still offer it."""
    before = {earlier.problem.items[n].key: c for n, c in earlier.choice.items()}
    found: dict[int, Spots] = {}
    for workflow, items in enumerate(star.items_of):
        spots = [star.spot(item, before.get(star.problem.items[item].key)) for item in items]
        if all(spot is not None for spot in spots):
            found[workflow] = tuple(spot for spot in spots if spot is not None)
    return found
