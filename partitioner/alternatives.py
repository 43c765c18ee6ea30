"""Chooses between AIMs and the chains that stand for them, together with the placement.

Decides which variants of the workflows are worth solving; each is solved as a problem of its own by a solver
that is an argument, and the cheapest plan wins, with a bound that holds over all variants. Does not know what
a chain is made of (``aif.model.stand_ins``), nor how a problem is solved.

What is left out without solving it cannot win: a variant in which some AIM fits no device even alone, and a
chain that another one dominates (as many parts, and part by part no better in anything that a plan counts).
Past ``MAX_VARIANTS`` or the time limit variants are left out that might win; then the bound is 0 and the
count says so. Of equal plans the one with fewer AIMs is kept, so a whole model wins over its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice, pairwise, product
from math import prod

from aif.errors import Infeasible, SolverTimeout
from aif.model.aim import AIMMetadata, Implementation
from aif.model.aiw import Workflow
from aif.model.inventory import Inventory
from aif.model.placement import Placement
from aif.model.ports import BOUNDARY, ChannelSpec
from aif.model.stand_ins import stand_ins_of, with_stand_ins
from partitioner.policy import ModelFacts, PlanPolicy
from partitioner.problem.build import build_problem
from partitioner.problem.parts import Load, PlacementProblem
from partitioner.search.pace import Clock, Pace

MAX_VARIANTS = 256
"""Variants looked at; those with the fewest chains first."""

TIE = 1e-9
"""Objective units below which two plans cost the same."""

Solve = Callable[[PlacementProblem, float], Placement]
"""A solver: the problem and the seconds it may take; it raises Infeasible or SolverTimeout."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The best variant.

    Attributes:
        workflows: as they are to be deployed, chains expanded.
        placement: where their AIMs go, and which chains were chosen; its bound holds over all variants.
        stand_ins: the composite chosen for each AIM that was replaced; one map for each workflow.
        left_out: variants that were not solved although they might have won.
    """

    workflows: tuple[Workflow, ...]
    placement: Placement
    stand_ins: tuple[Mapping[str, str], ...]
    left_out: int


def choose(
    workflows: Sequence[Workflow],
    catalogue: Mapping[str, AIMMetadata],
    inventory: Inventory,
    policy: PlanPolicy,
    solve: Solve,
    *,
    releases: Mapping[str, ModelFacts] | None = None,
    current: Mapping[str, str] | None = None,
    taken: Load | None = None,
    time_limit_s: float,
    pace: Pace | None = None,
) -> Chosen:
    """Plan the workflows, each AIM whole or as one of the chains that stand for it.

    Args:
        workflows: expanded workflows, without any chain in the place of another AIM.
        catalogue: AIM contracts by ``Name@version``; composites with ``stands_for`` are the chains.
        inventory: devices and links.
        policy: overheads, shares and trust.
        solve: the solver.
        releases: size and arena of the models that would be installed, by Store component.
        current: where AIMs run now; moving costs what the objective says.
        taken: what workflows that are not planned here take already.
        time_limit_s: for all variants together.
        pace: how time passes; the one that ``solve`` plans by.

    Raises:
        Infeasible: no variant has a placement; says why the workflows as they are written have none.
        SolverTimeout: nothing was found in time, and not every variant was ruled out.
    """
    now = (pace or Clock()).now
    end_s = now() + time_limit_s
    offered: list[Mapping[str, tuple[str, ...]]] = [stand_ins_of(one, catalogue) for one in workflows]
    if not releases:  # the contracts' figures are those that the plan counts
        offered = [_undominated(options, catalogue) for options in offered]
    best: Chosen | None = None
    postponed: PlacementProblem | None = None
    failure: Infeasible | None = None
    bounds: list[float] = []
    left_out = max(0, prod(1 + len(refs) for options in offered for refs in options.values()) - MAX_VARIANTS)
    for number, stand_ins in enumerate(islice(_variants(offered), MAX_VARIANTS)):
        if number and now() >= end_s:
            left_out += 1
            continue
        variant = tuple(with_stand_ins(w, catalogue, c) for w, c in zip(workflows, stand_ins, strict=True))
        problem = build_problem(variant, inventory, policy, releases=releases, current=current, taken=taken)
        if any(offered) and not _each_fits_alone(problem):
            postponed = postponed if number else problem
            continue
        try:
            placement = solve(problem, max(end_s - now(), 0.0))
        except Infeasible as error:
            failure = failure or error
        except SolverTimeout:
            left_out += 1
        else:
            bounds.append(placement.bound)
            if best is None or placement.objective < best.placement.objective - TIE:
                named = _named(workflows, stand_ins)
                best = Chosen(variant, replace(placement, stand_ins=named), stand_ins, 0)
    if best is None:
        raise _nothing_found(failure, left_out, lambda: postponed and solve(postponed, time_limit_s))
    bound = min(0.0 if left_out else min(bounds), best.placement.objective)
    return replace(best, placement=replace(best.placement, bound=bound), left_out=left_out)


def _named(workflows: Sequence[Workflow], stand_ins: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The chains of all workflows, their AIMs named as in the assignments."""
    one = len(workflows) == 1
    return {
        aim if one else f"{workflow.name}/{aim}": reference
        for workflow, chosen in zip(workflows, stand_ins, strict=True)
        for aim, reference in sorted(chosen.items())
    }


def _nothing_found(
    failure: Infeasible | None, left_out: int, explain: Callable[[], object]
) -> Infeasible | SolverTimeout:
    """Why there is no plan; ``explain`` solves what fits no device even alone, for the solver's reasons."""
    if left_out:
        return SolverTimeout(
            f"no placement was found in time, and {left_out} ways of splitting models are not ruled out",
            hint="give more time: --time-limit; or use fewer chains",
        )
    try:
        explain()
    except Infeasible as error:
        return error
    if failure is None:  # each variant was solved, postponed or left out
        raise AssertionError
    return failure


def _variants(offered: Sequence[Mapping[str, Sequence[str]]]) -> Iterator[tuple[Mapping[str, str], ...]]:
    """Every choice of chains, those with the fewest first: for each workflow AIM id to composite."""
    places = [(number, aim) for number, options in enumerate(offered) for aim in options]
    for count in range(len(places) + 1):
        for replaced in combinations(places, count):
            for references in product(*(offered[number][aim] for number, aim in replaced)):
                variant: tuple[dict[str, str], ...] = tuple({} for _ in offered)
                for (number, aim), reference in zip(replaced, references, strict=True):
                    variant[number][aim] = reference
                yield variant


def _each_fits_alone(problem: PlacementProblem) -> bool:
    """Whether every AIM has a candidate that keeps all limits when it has them for itself."""
    return all(
        any(
            all(amount <= problem.limits.get(limit, amount) for limit, amount in candidate.demand)
            for candidate in item.candidates
        )
        for item in problem.items
    )


def _undominated(
    offered: Mapping[str, Sequence[str]], catalogue: Mapping[str, AIMMetadata]
) -> dict[str, tuple[str, ...]]:
    """Chains that no other chain for the same AIM dominates, those of the fewest parts first."""
    kept: dict[str, tuple[str, ...]] = {}
    for aim, references in offered.items():
        chains = {reference: _plain_chain(catalogue[reference], catalogue) for reference in references}
        best: list[str] = []
        for reference in sorted(references, key=lambda one: (len(chains[one]), one)):
            if not any(_dominates(chains[other], chains[reference]) for other in best):
                best = [one for one in best if not _dominates(chains[reference], chains[one])]
                best.append(reference)
        kept[aim] = tuple(best)
    return kept


def _plain_chain(composite: AIMMetadata, catalogue: Mapping[str, AIMMetadata]) -> tuple[AIMMetadata, ...]:
    """Contracts of the parts if each reads the one before it and nothing is set; else nothing."""
    composition = composite.composition
    if composition is None or any(s.parameters or s.placement or s.implementation for s in composition.aims):
        return ()
    ends = [(BOUNDARY, BOUNDARY), *((sub.id, sub.id) for sub in composition.aims), (BOUNDARY, BOUNDARY)]
    wanted = {(source, destination) for (source, _), (_, destination) in pairwise(ends)}
    plain = {(c.source.aim, c.destination.aim) for c in composition.channels}
    settings = {replace(c, source=c.destination) for c in composition.channels}
    if plain != wanted or settings != {
        ChannelSpec(c.destination, c.destination) for c in composition.channels
    }:
        return ()
    parts = tuple(catalogue[sub.use] for sub in composition.aims)
    return parts if all(part.implementations for part in parts) else ()


def _dominates(better: Sequence[AIMMetadata], worse: Sequence[AIMMetadata]) -> bool:
    """Whether plain chains have as many parts and the first is nowhere dearer."""
    return len(better) == len(worse) > 0 and all(map(_no_dearer, better, worse))


def _no_dearer(one: AIMMetadata, other: AIMMetadata) -> bool:
    if (
        len(one.inputs) != 1
        or len(one.outputs) != 1
        or len(one.implementations) != len(other.implementations)
    ):
        return False
    for ours, theirs in ((one.inputs, other.inputs), (one.outputs, other.outputs)):
        plain = [
            replace(port, name="", type=ours[0].type, payload_bytes=0, queue_depth=1)
            for port in (*ours, *theirs)
        ]
        if any(port != plain[0] for port in plain) or ours[0].payload_bytes > theirs[0].payload_bytes:
            return False
        if ours[0].queue_depth > theirs[0].queue_depth:
            return False
    same = (one.trigger, one.period_ms, one.deadline_ms) == (
        other.trigger,
        other.period_ms,
        other.deadline_ms,
    )
    return same and all(map(_costs_no_more, one.implementations, other.implementations))


def _costs_no_more(one: Implementation, other: Implementation) -> bool:
    ours, theirs = _figures(one), _figures(other)
    if any((a is None) != (b is None) or (a or 0) > (b or 0) for a, b in zip(ours, theirs, strict=True)):
        return False
    return _without_figures(one) == _without_figures(other)


def _figures(code: Implementation) -> tuple[int | None, ...]:
    """What a plan counts, the less the better; the size of the model where the contract pins it."""
    model_bytes = code.model.bytes_ if code.model is not None else None
    state = (code.state_bytes, code.flash_bytes, code.arena_bytes, code.ram_bytes)
    return (*state, code.instructions, code.mac_count, model_bytes)


def _without_figures(code: Implementation) -> Implementation:
    return replace(
        code, ram_bytes=0, arena_bytes=0, flash_bytes=0, state_bytes=0, instructions=None, mac_count=None,
        model=None,
    )  # fmt: skip
