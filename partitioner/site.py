"""Plans for a site where workflows come, run and lose devices one by one.

Decides where a new workflow goes beside those that run, whose loads are taken off the devices and links;
where the AIMs of a running one go when devices are lost or shall run nothing: the first answer that moves few
of them (``remap``), and only if there is none a search for any; and whether one could be mapped better, or as
a person wants it. The others are not moved to make room. Whether a better plan is worth its moves is for the
caller to say; here is only what it would bring.

A chain of parts that was chosen for an AIM is kept when the workflow is mended: another choice would be
another workflow, with other AIMs.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

from aif.errors import AIFError, PlacementError
from aif.model.aim import AIMMetadata, PlacementHint, Runtime
from aif.model.aiw import LeafAIM, Workflow
from aif.model.degrading import services
from aif.model.inventory import Inventory
from aif.model.placement import Assignment, Better, Mended, PlacedWorkflow, Placement, Places
from aif.model.standby import keeping_ready, kept_ready, served_by, standby_of
from partitioner.alternatives import choose
from partitioner.planner import DEFAULT_TIME_LIMIT_S, Plan, place, plan
from partitioner.policy import ModelFacts, PlanPolicy
from partitioner.prepared import Prepared
from partitioner.problem.build import build_problem
from partitioner.problem.channels import channels_of
from partitioner.problem.costs import model_facts
from partitioner.problem.evaluate import evaluate
from partitioner.problem.parts import OBJECTIVE_SCALE, Candidate, Limit, Load, PlacementProblem
from partitioner.reasons import describe
from partitioner.remap import Replanner
from partitioner.search.star import Star

MENDING_S = 2.0
"""For the search after the quick answer has failed; a workflow stands still meanwhile."""

EXPLAINED = 100
"""AIMs times devices up to which it is worked out in full, in some 10 ms, why there is no room."""

LOADS_KEPT, PREPARED_KEPT = 1_000, 100

RESTART_S = 1.0
"""Assumed: documents, evidence and keys of a device that takes up an AIM. Measured: 0.1 to 0.5 s."""

Releases = Mapping[str, ModelFacts]
"""What is known of the newest model releases, by Store component."""


class SitePlanner:
    """Places and mends workflows; may be asked from several threads."""

    def __init__(self, policy: PlanPolicy | None = None, *, releases: Callable[[], Releases] = dict) -> None:
        """Nothing is asked of the Store before the first plan.

        Args:
            policy: overheads, shares and trust.
            releases: asks the Store; raises StoreError when it cannot be asked.
        """
        self._policy = policy or PlanPolicy()
        self._ask, self._releases = releases, dict[str, ModelFacts]()
        self._lock = threading.Lock()
        self._loads: dict[int, tuple[Placement, int, Load]] = {}
        self._prepared: dict[str, Prepared] = {}

    def place(
        self,
        workflow: Workflow,
        inventory: Inventory,
        contracts: Mapping[str, AIMMetadata],
        *,
        beside: Collection[PlacedWorkflow] = (),
    ) -> tuple[Workflow, Placement]:
        """Where a workflow goes beside others; it comes back with the chains that were chosen.

        Raises:
            PlacementError: it does not fit.
        """
        with suppress(AIFError):  # a Store that cannot be asked is noticed where something is fetched from it
            self._releases = _telling(self._ask(), contracts)
        chosen = choose(
            [workflow], contracts, inventory, self._policy,
            lambda problem, limit_s: place(problem, time_limit_s=limit_s),
            releases=self._releases, taken=self._load(beside), time_limit_s=DEFAULT_TIME_LIMIT_S,
        )  # fmt: skip
        (planned,) = chosen.workflows
        placement = _of_aims(chosen.placement, planned)
        self._load_of(PlacedWorkflow(planned, inventory, placement))  # before anybody is in a hurry
        self.prepare(PlacedWorkflow(planned, inventory, placement))
        return planned, placement

    def prepare(self, placed: PlacedWorkflow) -> None:
        """Build what mending a workflow needs, before anybody is in a hurry."""
        standing = {served_by(a.aim) for a in placed.placement.assignments}
        workflow = keeping_ready(placed.workflow, standing)
        prepared = Prepared(workflow, placed.inventory, self._policy, self._releases)
        with self._lock:
            self._prepared.pop(workflow.name, None)
            self._prepared[workflow.name] = prepared
            if len(self._prepared) > PREPARED_KEPT:
                del self._prepared[next(iter(self._prepared))]

    def _ready_star(
        self,
        workflow: Workflow,
        inventory: Inventory,
        lost: Collection[str],
        away: Collection[str],
        taken: Load,
    ) -> Star | None:
        """The arrays of a workflow without some devices, if they were prepared; ready for the next time."""
        with self._lock:
            prepared = self._prepared.get(workflow.name)
        if prepared is None or not prepared.fits(workflow, inventory, self._policy, self._releases, lost):
            return None
        return prepared.star(taken, away)

    def mend(
        self,
        placed: PlacedWorkflow,
        *,
        lost: Collection[str] = (),
        resting: Collection[str] = (),
        spared: Collection[str] = (),
        most_rate: float = 1.0,
        beside: Collection[PlacedWorkflow] = (),
    ) -> Mended:
        """Where the AIMs of a running workflow go now, with as few moves as possible.

        Args:
            placed: the workflow with all its AIMs at its full rate, and where those are that have a place.
            lost: devices that nobody reaches, and that pass nothing on.
            resting: devices that shall run nothing, but still pass messages on.
            spared: devices that shall run only what can run nowhere else, if there is room for the rest.
            most_rate: no higher share of its rate is wanted now.
            beside: the others that run.

        An AIM whose device is gone takes its standby's place, if it can, and has no standby then; those that
        are missing are added when nothing has gone.

        Returns:
            The placement for as much of the workflow as there is room for, in the order that it gives.

        Raises:
            PlacementError: there is no room, not even for what it cannot do without; why not all have room.
        """
        present, load = placed.inventory.without(lost).resting(resting), self._load(beside)
        gone = {*lost, *resting}
        before = taken_over(placed.placement, gone)
        standing = {served_by(a.aim) for a in before.assignments}
        failure: PlacementError | None = None
        for service in services(placed.workflow, most_rate):
            workflow = service.of(placed.workflow)
            stated = partial(self._stated, workflow, present, load)
            kept = keeping_ready(workflow, standing)
            star = self._ready_star(kept, placed.inventory, lost, gone, load)
            found = None
            if star is not None and not spared:
                quick = self._mended(workflow, star.problem, before, star=star)
                found = None if quick is None else _on(quick, present)
            problem = stated(standing) if found is None else None
            if problem is not None and spared:
                found = self._mended(workflow, problem, before, spared)
            try:
                if problem is not None and found is None:
                    found = self._mended(workflow, problem, before)
                found = found or _anyhow(stated(()), workflow, explain=failure is None)
            except PlacementError as error:
                failure = failure or error
                continue
            if not any(a.device in gone for a in placed.placement.assignments):
                found = self._readied(workflow, stated, standing, found)
            explained = tuple(_explained(a, placed.placement) for a in found.assignments)
            found = replace(found, assignments=explained, stand_ins=placed.placement.stand_ins)
            return Mended(found, service, "" if failure is None else str(failure))
        raise failure or PlacementError(f"{placed.workflow.name} has no AIMs")

    def _stated(
        self, workflow: Workflow, inventory: Inventory, taken: Load, ready: Collection[str]
    ) -> PlacementProblem:
        """The problem of a workflow with standbys of some AIMs."""
        kept = keeping_ready(workflow, ready)
        return build_problem([kept], inventory, self._policy, releases=self._releases, taken=taken)

    def _readied(
        self,
        workflow: Workflow,
        stated: Callable[[Collection[str]], PlacementProblem],
        standing: Collection[str],
        found: Placement,
    ) -> Placement:
        """The same placement with standbys that are missing, as far as there is room without any move."""
        ready = {*standing}
        for leaf in kept_ready(workflow):
            more = None if leaf.id in ready else self._mended(workflow, stated({*ready, leaf.id}), found)
            if more is not None and _places(found).items() <= _places(more).items():
                ready, found = {*ready, leaf.id}, more
        return found

    def improve(
        self,
        placed: PlacedWorkflow,
        *,
        places: Places,
        held: Collection[str] = (),
        lost: Collection[str] = (),
        resting: Collection[str] = (),
        beside: Collection[PlacedWorkflow] = (),
        time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    ) -> Better:
        """The best plan for a running workflow, or one with some AIMs held, and what it would bring.

        Args:
            placed: the AIMs that work, and where they are.
            places: where some AIMs have to be; the others stay, and only if that is not possible move too.
            held: AIMs that stay in any case, but for ``places``.
            lost: devices that nobody reaches, and that pass nothing on.
            resting: devices that shall run nothing, but still pass messages on.
            beside: the others that run.
            time_limit_s: for each search.

        Raises:
            PlacementError: there is no such plan.
        """
        present, load = placed.inventory.without(lost).resting(resting), self._load(beside)
        standing = {served_by(a.aim) for a in placed.placement.assignments}
        workflow = keeping_ready(placed.workflow, standing)
        aims = {leaf.id for leaf in workflow.aims}
        here = {a.aim: (a.device, a.implementation) for a in placed.placement.assignments if a.aim in aims}

        fixed = {**{aim: place for aim, place in here.items() if aim in held}, **places}

        def stated(there: Places) -> PlacementProblem:
            return build_problem(
                [_holding(workflow, there)], present, self._policy, releases=self._releases,
                current={a.aim: a.device for a in placed.placement.assignments}, taken=load,
            )  # fmt: skip

        def best(there: Places) -> Plan:
            problem = stated(there)
            warm = _running(problem, placed.placement)
            return _unmoved(plan(problem, time_limit_s=time_limit_s, warm_start=warm), placed.placement)

        try:
            found = best({**here, **places} if places else fixed)
        except PlacementError:
            if not places or places.keys() >= here.keys():
                raise
            found = best(fixed)
        placement = replace(_of_aims(found.placement(), workflow), stand_ins=placed.placement.stand_ins)
        moved = [a for a in placement.assignments if a.aim in here and here[a.aim][0] != a.device]
        return Better(
            placement=placement,
            before=_objective(stated({}), placed.placement, found),
            pause_s=sum(self._pause_s(workflow, present, assignment) for assignment in moved),
        )

    def _pause_s(self, workflow: Workflow, inventory: Inventory, assignment: Assignment) -> float:
        """How long an AIM stands still while it moves: its model and state on their way, and a restart."""
        code = workflow.aim(assignment.aim).metadata.implementation(assignment.implementation)
        links = [link for link in inventory.links if assignment.device in link.members]
        if code is None or not links:
            return RESTART_S
        bytes_ = model_facts(code, self._releases).bytes_ + code.state_bytes
        return RESTART_S + max(link.transfer_ms(bytes_) for link in links) / 1000.0

    def _mended(
        self,
        workflow: Workflow,
        problem: PlacementProblem,
        before: Placement,
        spared: Collection[str] = (),
        star: Star | None = None,
    ) -> Placement | None:
        """A placement with few moves, None where none was found."""
        replanner = Replanner(_running(problem, before), star=star)
        answer = replanner.spare(spared) if spared else replanner.settle(0.0)
        if answer.unserved:
            return None
        placement = describe(
            problem, answer.choice, bound=0.0, method="few moves", seconds=0.0, alternatives=False
        )
        return _of_aims(placement, workflow)

    def _load(self, beside: Iterable[PlacedWorkflow]) -> Load:
        total = Load()
        for placed in beside:
            total += self._load_of(placed)
        return total

    def _load_of(self, placed: PlacedWorkflow) -> Load:
        """Worked out once for each placement: with many others it would take longer than the mending."""
        key = id(placed.placement)
        with self._lock:
            known = self._loads.get(key)
        if known is not None and known[0] is placed.placement and known[1] == len(placed.workflow.aims):
            return known[2]
        load = load_of(placed, self._policy, self._releases)
        with self._lock:
            self._loads[key] = (placed.placement, len(placed.workflow.aims), load)
            if len(self._loads) > LOADS_KEPT:
                del self._loads[next(iter(self._loads))]
        return load


def load_of(placed: PlacedWorkflow, policy: PlanPolicy, releases: Releases) -> Load:
    """What a running workflow takes of the devices and links that it is planned on."""
    problem = build_problem([placed.workflow], placed.inventory, policy, releases=releases)
    choice = _chosen(problem, placed.placement)
    used: Counter[Limit] = Counter()
    runtimes: set[tuple[str, Runtime]] = set()
    for candidate in choice.values():
        used.update(dict(candidate.demand))
        if candidate.runtime is not None:
            runtimes.add((candidate.device, candidate.runtime))
    device_of = {number: candidate.device for number, candidate in choice.items()}
    for groups in problem.sealed:
        for device, count in channels_of(groups, device_of).items():
            used[Limit("channels", device)] += count
    for flow in problem.flows:
        if flow.source in choice and flow.destination in choice:
            ends = choice[flow.source].device, choice[flow.destination].device
            crossed = flow.crossings.get(ends) if ends[0] != ends[1] else None
            used.update(dict(crossed.demand) if crossed is not None else {})
    return Load(used, frozenset(runtimes))


def _on(placement: Placement, inventory: Inventory) -> Placement:
    """The same placement without figures of devices and links that are not there any more."""
    devices = {device.id for device in inventory.devices}
    links = {link.id for link in inventory.links}
    return replace(
        placement,
        usage=tuple(u for u in placement.usage if u.device in devices),
        links=tuple(one for one in placement.links if one.link in links),
    )


def _holding(workflow: Workflow, places: Places) -> Workflow:
    """The same workflow with some AIMs pinned to devices, and to implementations where they are named."""

    def held(leaf: LeafAIM) -> LeafAIM:
        if leaf.id not in places:
            return leaf
        device, implementation = places[leaf.id]
        hint = replace(leaf.placement or PlacementHint(), device=device)
        return replace(leaf, placement=hint, implementation=implementation or leaf.implementation)

    return replace(workflow, aims=tuple(held(leaf) for leaf in workflow.aims))


def _chosen(problem: PlacementProblem, placement: Placement) -> dict[int, Candidate]:
    """The candidates that a placement has chosen, as far as they are still offered."""
    positions = {device.id: n for n, device in enumerate(problem.inventory.devices)}
    here = {a.aim: a for a in placement.assignments if a.device in positions}
    return {
        number: candidate
        for number, item in enumerate(problem.items)
        if (where := here.get(item.key)) is not None
        for candidate in item.made_for(positions[where.device])
        if candidate.implementation == where.implementation
    }


def _anyhow(problem: PlacementProblem, workflow: Workflow, *, explain: bool) -> Placement:
    """Any placement that is found in short time, or why there is no room."""
    small = len(problem.items) * len(problem.inventory.devices) <= EXPLAINED
    return _of_aims(place(problem, time_limit_s=MENDING_S, in_full=explain and small), workflow)


def _objective(problem: PlacementProblem, placement: Placement, found: Plan) -> float | None:
    """What a placement costs, None where it does not hold; bound Ports are where ``found`` has them."""
    choice = {n: found.choice[n] for n, item in enumerate(problem.items) if item.leaf is None}
    choice |= _chosen(problem, placement)
    if len(choice) < len(problem.items):
        return None
    evaluation = evaluate(problem, choice)
    return None if evaluation.broken else evaluation.objective / OBJECTIVE_SCALE


def _unmoved(found: Plan, before: Placement) -> Plan:
    """The same plan with standbys where they were, as far as that costs nothing: each move is a download."""
    choice = dict(found.choice)
    for number, candidate in _chosen(found.problem, before).items():
        if served_by(found.problem.items[number].key):
            tried = {**choice, number: candidate}
            result = evaluate(found.problem, tried)
            if not result.broken and result.objective <= evaluate(found.problem, choice).objective:
                choice = tried
    return replace(found, choice=choice)


def _running(problem: PlacementProblem, placement: Placement) -> Plan:
    """The plan that runs, as far as it is told by devices and implementations."""
    here = {a.aim: Candidate(a.device, a.implementation, None, ()) for a in placement.assignments}
    choice = {n: here[item.key] for n, item in enumerate(problem.items) if item.key in here}
    return Plan(problem, choice, 0.0, 0.0, "feasible", "", 0.0, 0)


def _explained(now: Assignment, before: Placement) -> Assignment:
    """The reason of before for what stays, and where it comes from for what does not."""
    old = {a.aim: a for a in before.assignments}
    was, standby = old.get(now.aim), old.get(standby_of(now.aim))
    if was is None:
        return now
    if (was.device, was.implementation) == (now.device, now.implementation):
        return replace(now, reason=was.reason or now.reason)
    taken = standby is not None and standby.device == now.device
    return replace(now, reason=f"{'taken over' if taken else 'moved'} from {was.device}")


def taken_over(placement: Placement, gone: Collection[str]) -> Placement:
    """What is left of a placement when devices are gone: AIMs from there are where their standbys were."""
    device_of = {a.aim: a.device for a in placement.assignments}
    standbys = {served_by(a.aim): a for a in placement.assignments if a.device not in gone}
    left: list[Assignment] = []
    for assignment in placement.assignments:
        aim, standby = served_by(assignment.aim), standbys.get(assignment.aim)
        if aim:
            if assignment.device not in gone and device_of.get(aim) not in gone:
                left.append(assignment)
        elif assignment.device in gone and standby is not None:
            left.append(replace(standby, aim=assignment.aim))
        else:
            left.append(assignment)
    return placement if tuple(left) == placement.assignments else replace(placement, assignments=tuple(left))


def _places(placement: Placement) -> dict[str, tuple[str, str]]:
    return {a.aim: (a.device, a.implementation) for a in placement.assignments}


def _of_aims(placement: Placement, workflow: Workflow) -> Placement:
    """Bound boundary Ports are placed too, but nothing runs for them."""
    aims = {leaf.id for leaf in workflow.aims}
    mine = (a for a in placement.assignments if (served_by(a.aim) or a.aim) in aims)
    return replace(placement, assignments=tuple(mine))


def _telling(releases: Releases, contracts: Mapping[str, AIMMetadata]) -> dict[str, ModelFacts]:
    """Releases whose figures are not those of every contract that names them."""
    return {
        component: facts
        for component, facts in releases.items()
        if any(
            code.model is not None
            and code.model.component == component
            and model_facts(code, {}) != model_facts(code, releases)
            for contract in contracts.values()
            for code in contract.implementations
        )
    }
