"""Why no placement exists, in sentences.

First what can be seen without a solver: AIMs that no device may run, or that no device could hold even alone.
Only then a proven conflict: a core of named limits, shrunk as long as the rest still conflicts. The proofs
come from a ``Prover``; what would make a placement possible from ``advice``.
"""

from __future__ import annotations

from itertools import islice

from aif.errors import Infeasible
from aif.model.standby import in_words
from partitioner.advice import suggestions
from partitioner.problem.evaluate import evaluate
from partitioner.problem.parts import Candidate, Item, Limit, PlacementProblem
from partitioner.problem.sentences import (
    CAPACITIES,
    MAX_NAMED,
    amount,
    device_of,
    listed,
    owner,
    refused,
    relation,
    what,
)
from partitioner.prover import Prover

MAX_SUGGESTIONS = 4


def explain(problem: PlacementProblem, prover: Prover, *, advise: bool = True) -> Infeasible:
    """The error to raise for an impossible problem; with ``advise`` it says what would make it possible."""
    stuck = [item for item in problem.items if not item.candidates]
    if stuck:
        sentences = [_nowhere(problem, item) for item in stuck[:MAX_NAMED]]
        if len(stuck) > MAX_NAMED:
            sentences.append(f"so it is with {len(stuck) - MAX_NAMED} other AIMs")
        concerned, limits = stuck, []
    else:
        oversized = [item for item in problem.items if not _fits_alone(problem, item)]
        if oversized:
            sentences = [_too_large(problem, item) for item in oversized[:MAX_NAMED]]
            if len(oversized) > MAX_NAMED:
                sentences.append(f"so it is with {len(oversized) - MAX_NAMED} other AIMs")
            concerned, limits = oversized, _limits_alone(problem, oversized)
        else:
            core = _shrunk(prover)
            names = {limit.subject for limit in core if limit.kind == "placed"}
            concerned = [item for item in problem.items if item.key in names]
            limits = sorted(limit for limit in core if limit.kind != "placed")
            sentences = _places(problem, concerned)
            for limit in limits:
                missing = prover.shortfall(limit, core) if limit.kind in CAPACITIES else None
                sentences.append(_limit_sentence(problem, limit, concerned, missing))
    found = suggestions(problem, prover, concerned, limits) if advise else iter(())
    changes = list(islice(found, MAX_SUGGESTIONS))
    hint = " · ".join(changes)
    if len(changes) > 1:
        hint = f"any one of these makes it possible: {hint}"
    elif changes:
        hint = f"this makes it possible: {hint}"
    if not sentences:
        sentences = ["the needs of all AIMs together conflict; the conflict was not narrowed in time"]
    return Infeasible(sentences, hint=hint)


def _shrunk(prover: Prover) -> frozenset[Limit]:
    """A core from which no member can be left out (as far as time allows), proven again on its own."""
    core = prover.core()
    if core is None:
        return frozenset()
    for limit in sorted(core):
        if limit in core and not prover.exhausted():
            smaller = prover.core(core - {limit})
            core = core if smaller is None else smaller
    return core


# --- sentences ---


def _name(item: Item) -> str:
    return item.key if item.leaf is None else f"{in_words(item.key)} ({item.leaf.metadata.reference})"


def _nowhere(problem: PlacementProblem, item: Item) -> str:
    if not problem.inventory.devices:
        return f"{_name(item)} can run nowhere: inventory {problem.inventory.name} has no devices"
    reasons = _elsewhere(item, [d.id for d in problem.inventory.devices])
    return f"{_name(item)} can run nowhere: {reasons}"


def _places(problem: PlacementProblem, items: list[Item]) -> list[str]:
    """Where the AIMs of a conflict may run: one sentence each, but one for all that may run anywhere."""
    sentences, anywhere = [], []
    for item in items:
        if len(item.devices) == len(problem.inventory.devices):
            anywhere.append(_name(item))
        else:
            reasons = _elsewhere(item, [d.id for d in problem.inventory.devices])
            sentences.append(f"{_name(item)} can run only on {listed(item.devices)} ({reasons})")
    if anywhere:
        sentences.append(f"{', '.join(anywhere)} must run too, on any device")
    return sentences


def _elsewhere(item: Item, devices: list[str]) -> str:
    """Why not on those of ``devices`` that the AIM may not run on; equal answers together."""
    by_text: dict[str, list[str]] = {}
    for device in devices:
        if device not in item.devices:
            by_text.setdefault(refused(item, device), []).append(device)
    return "; ".join(f"{listed(there)}: {text}" for text, there in by_text.items())


def _fits_alone(problem: PlacementProblem, item: Item) -> bool:
    return any(not _alone(problem, item, c) for c in item.candidates)


def _alone(problem: PlacementProblem, item: Item, candidate: Candidate) -> tuple[Limit, ...]:
    """Limits that one AIM breaks on an otherwise empty inventory."""
    return evaluate(problem, {problem.items.index(item): candidate}).broken


def _too_large(problem: PlacementProblem, item: Item) -> str:
    clauses = []
    for candidate in item.candidates[:MAX_NAMED]:
        used = evaluate(problem, {problem.items.index(item): candidate}).used
        limit = _alone(problem, item, candidate)[0]
        device = owner(problem, limit)
        most = problem.limits[limit]
        lacking = amount(limit, used[limit] - most, device)
        place = f"{candidate.device}/{candidate.implementation}"
        if limit.kind == "deadline":
            taken, allowed = amount(limit, used[limit]), amount(limit, most)
            clauses.append(f"{place} takes {taken} on path {limit.subject}, {allowed} are allowed")
            continue
        clauses.append(
            f"{place} needs {amount(limit, used[limit], device)} {what(limit)}, "
            f"{amount(limit, most, device)} there, {lacking} missing"
        )
    if len(item.candidates) > MAX_NAMED:
        clauses.append(f"so it is with {len(item.candidates) - MAX_NAMED} other choices")
    elsewhere = _elsewhere(item, [d.id for d in problem.inventory.devices])
    clauses += [elsewhere] if elsewhere else []
    return f"{_name(item)} fits nowhere even alone: {'; '.join(clauses)}"


def _too_long(problem: PlacementProblem, limit: Limit) -> str:
    """Which devices take no message of a Channel, and by how much it is too long for the largest of them."""
    flow = next(flow for flow in problem.flows if problem.reach_limit(flow) == limit)
    least = max(flow.least_bytes)
    takes = {d.id: problem.policy.channels(d).max_message_bytes for d in problem.inventory.devices}
    short = [device for device, most in takes.items() if most < least]
    most = max(takes[device] for device in short)
    return (
        f"between devices every message of {limit.subject} has at least {least:,} B, "
        f"{listed(short)} takes at most {most:,} B"
    )


def _limit_sentence(
    problem: PlacementProblem, limit: Limit, concerned: list[Item], missing: int | None
) -> str:
    if limit.kind == "message":
        return _too_long(problem, limit)
    most = problem.limits.get(limit)
    if most is None or limit.kind not in CAPACITIES:
        return relation(limit)
    device = owner(problem, limit)
    if limit.kind == "deadline":
        fastest = f", the fastest takes {amount(limit, most + missing)}" if missing else ""
        return f"path {limit.subject} must take at most {amount(limit, most)}{fastest}"
    if limit.kind == "link":
        crossing = f", at least {amount(limit, most + missing)} would cross it" if missing else ""
        return f"link {limit.subject} may carry {amount(limit, most)}{crossing}"
    needs: list[str] = []
    for item in concerned:
        here = [c for c in item.candidates if c.device == device_of(limit)]
        amounts = [sum(value for name, value in c.demand if name == limit) for c in here]
        least = min(amounts, default=0)
        if least:
            needs.append(f"{in_words(item.key)} needs {amount(limit, least, device)}")
    text = f"{device_of(limit)} has {amount(limit, most, device)} {what(limit)}"
    runtimes = [
        f"the {runtime} runtime takes {amount(limit, dict(demand)[limit], device)}"
        for (there, runtime), demand in problem.runtime_demand.items()
        if there == device_of(limit)
        and dict(demand).get(limit)
        and any(c.runtime == runtime and c.device == there for i in concerned for c in i.candidates)
    ]
    lacking = [f"at least {amount(limit, missing, device)} missing"] if missing else []
    return ", ".join([text, *runtimes, *needs, *lacking])


def _limits_alone(problem: PlacementProblem, items: list[Item]) -> list[Limit]:
    found = (limit for item in items for c in item.candidates for limit in _alone(problem, item, c))
    return list(dict.fromkeys(found))
