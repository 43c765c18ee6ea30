"""Why no placement exists, in sentences, and which single changes would make one possible.

First what can be seen without a solver: AIMs that no device may run, or that no device could hold even alone.
Only then a proven conflict: a core of named limits, shrunk as long as the rest still conflicts. Every
suggested change was proven to help by finding a placement with it. The proofs come from a ``Prover``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Protocol

from aif.errors import Infeasible
from aif.model.aim import PlacementHint
from aif.model.aiw import LeafAIM, Workflow
from aif.model.inventory import Device, Link, Sensor
from aif.model.standby import in_words, keeping_ready, kept_ready, served_by
from partitioner.problem.build import rebuilt
from partitioner.problem.evaluate import evaluate
from partitioner.problem.filters import parts_of, pins
from partitioner.problem.parts import Candidate, Item, Limit, PlacementProblem
from partitioner.problem.sentences import (
    CAPACITIES,
    MAX_NAMED,
    amount,
    data_rate,
    device_of,
    listed,
    refused,
    relation,
    what,
)

MAX_SUGGESTIONS = 4
MAX_LINKS_TRIED = 6
SUPPOSED_BPS, SUPPOSED_MS = 1e6, 10.0
"""A link that is suggested is tried with these figures: what the slower radios of small devices do."""


class Prover(Protocol):
    """What an explanation needs to have proven."""

    def core(self, active: Collection[Limit] | None = None) -> frozenset[Limit] | None:
        """Limits that cannot all hold, out of ``active``; None when not proven."""

    def shortfall(self, limit: Limit, active: Collection[Limit] | None = None) -> int | None:
        """How much more of ``limit`` makes ``active`` (None: all) possible; None when it does not help."""

    def shortfalls(self, limits: Collection[Limit]) -> Mapping[Limit, int]:
        """By how much the fewest of ``limits`` have to grow together; empty when that does not help."""

    def feasible(self, problem: PlacementProblem) -> bool:
        """Whether a placement of another problem was found."""


class Unproven:
    """Proves nothing, at once: for who needs to know soon that there is no plan, and then roughly why."""

    def core(self, active: Collection[Limit] | None = None) -> frozenset[Limit] | None:  # noqa: ARG002
        return None

    def shortfall(self, limit: Limit, active: Collection[Limit] | None = None) -> int | None:  # noqa: ARG002
        return None

    def shortfalls(self, limits: Collection[Limit]) -> Mapping[Limit, int]:  # noqa: ARG002
        return {}

    def feasible(self, problem: PlacementProblem) -> bool:  # noqa: ARG002
        return False


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
            sentences = [_too_large(problem, item) for item in oversized]
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
    found = _suggestions(problem, prover, concerned, limits) if advise else iter(())
    suggestions = list(islice(found, MAX_SUGGESTIONS))
    hint = " · ".join(suggestions)
    if len(suggestions) > 1:
        hint = f"any one of these makes it possible: {hint}"
    elif suggestions:
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
        if limit in core:
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
    for candidate in item.candidates:
        used = evaluate(problem, {problem.items.index(item): candidate}).used
        limit = _alone(problem, item, candidate)[0]
        device = _device(problem, limit)
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
    elsewhere = _elsewhere(item, [d.id for d in problem.inventory.devices])
    clauses += [elsewhere] if elsewhere else []
    return f"{_name(item)} fits nowhere even alone: {'; '.join(clauses)}"


def _limit_sentence(
    problem: PlacementProblem, limit: Limit, concerned: list[Item], missing: int | None
) -> str:
    most = problem.limits.get(limit)
    if most is None or limit.kind not in CAPACITIES:
        return relation(limit)
    device = _device(problem, limit)
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


def _device(problem: PlacementProblem, limit: Limit) -> Device | None:
    return next((d for d in problem.inventory.devices if d.id == device_of(limit)), None)


# --- what would help ---


def _limits_alone(problem: PlacementProblem, items: list[Item]) -> list[Limit]:
    found = (limit for item in items for c in item.candidates for limit in _alone(problem, item, c))
    return list(dict.fromkeys(found))


def _suggestions(
    problem: PlacementProblem, prover: Prover, concerned: list[Item], limits: list[Limit]
) -> Iterator[str]:
    """Changes, each proven to make a placement possible: single ones, the smallest growth of a limit first.

    Where no single one helps, the fewest limits that have to grow together.
    """
    helped = False
    for limit, missing in _growths(problem, prover, limits):
        helped = True
        yield _more(problem, limit, missing)
    freed = (change for item in concerned for change in _freed(problem, item))
    alone = _unready(problem, concerned)
    changes = (
        _unpaired(problem, limits), alone, freed, _linked(problem, limits), _equipped(problem, concerned)
    )  # fmt: skip
    for text, changed in chain.from_iterable(changes):
        if prover.feasible(changed):
            helped = True
            yield text
    grown = (
        {} if helped else prover.shortfalls([limit for limit in problem.limits if limit.kind in CAPACITIES])
    )
    larger = {limit: problem.limits[limit] + missing for limit, missing in grown.items()}
    if grown and prover.feasible(replace(problem, limits={**problem.limits, **larger})):
        yield " together with ".join(_more(problem, limit, missing) for limit, missing in grown.items())


def _growths(problem: PlacementProblem, prover: Prover, limits: list[Limit]) -> list[tuple[Limit, int]]:
    """Limits whose growth alone helps, those that have to grow by the smallest share first."""
    missing = {limit: prover.shortfall(limit) for limit in limits if limit.kind in CAPACITIES}
    helping = [(limit, more) for limit, more in missing.items() if more]
    return sorted(helping, key=lambda growth: growth[1] / max(1, problem.limits[growth[0]]))


def _unpaired(problem: PlacementProblem, limits: list[Limit]) -> Iterator[tuple[str, PlacementProblem]]:
    """The same problem without one hard affinity of two AIMs that run."""
    for affinity in problem.affinities:
        pair = (problem.items[affinity.first].key, problem.items[affinity.second].key)
        if affinity.hard and not any(map(served_by, pair)) and problem.affinity_limit(affinity) in limits:
            rest = tuple(a for a in problem.affinities if a is not affinity)
            text = f"drop the rule that {relation(problem.affinity_limit(affinity))}"
            yield text, replace(problem, affinities=rest)


def _unready(problem: PlacementProblem, items: list[Item]) -> Iterator[tuple[str, PlacementProblem]]:
    """The same problem without the standby of one AIM."""
    for item in items:
        if item.leaf is not None and served_by(item.key):
            workflows = list(problem.workflows)
            old = workflows[item.workflow]
            others = {leaf.id for leaf in kept_ready(old)} - {item.leaf.id}
            workflows[item.workflow] = keeping_ready(old, others)
            yield f"do without the {in_words(item.key)}", rebuilt(problem, workflows=workflows)


def _linked(problem: PlacementProblem, limits: list[Limit]) -> Iterator[tuple[str, PlacementProblem]]:
    """The same problem with one more link, between devices that a Channel cannot go between.

    Both ends of the Channel may run there; of two such links the one to a device that forwards comes first.
    """
    pairs = {
        (a, b) if a < b else (b, a): None
        for flow in problem.flows
        if problem.reach_limit(flow) in limits
        for a in problem.items[flow.source].devices
        for b in problem.items[flow.destination].devices
        if a != b and (a, b) not in flow.crossings
    }
    forwards = {device.id for device in problem.inventory.devices if device.forwards}
    nearest = sorted(pairs, key=lambda pair: -len(forwards.intersection(pair)))
    for a, b in nearest[:MAX_LINKS_TRIED]:
        link = Link(f"{a}-{b}", (a, b), SUPPOSED_BPS, SUPPOSED_MS)
        inventory = replace(problem.inventory, links=(*problem.inventory.links, link))
        speed = f"{data_rate(SUPPOSED_BPS)} and {SUPPOSED_MS:g} ms"
        yield (
            f"a link between {a} and {b}, as with {speed}",
            rebuilt(problem, inventory=inventory),
        )


def _more(problem: PlacementProblem, limit: Limit, missing: int) -> str:
    if limit.kind == "deadline":
        return f"deadline of path {limit.subject} {amount(limit, problem.limits[limit] + missing)}"
    if limit.kind == "link":
        share = problem.policy.link_share or 1.0
        return f"+{amount(limit, int(missing / share) + 1)} on link {limit.subject}"
    return f"+{amount(limit, missing, _device(problem, limit))} {what(limit)} on {device_of(limit)}"


def _freed(problem: PlacementProblem, item: Item) -> Iterator[tuple[str, PlacementProblem]]:
    """The same problem without one pin of one AIM."""
    if item.leaf is None:
        return
    leaf = problem.workflows[item.workflow].aim(item.leaf.id)  # that of a standby lacks the pin to a device
    name, hint = served_by(item.key) or item.key, leaf.placement
    for kind, value in pins(hint):
        if hint is not None:
            yield (
                f"free {name} from {kind} {value}",
                _with_leaf(problem, item, replace(leaf, placement=_without(hint, kind))),
            )
    if leaf.implementation is not None:
        text = f"allow {name} implementations other than {leaf.implementation}"
        yield text, _with_leaf(problem, item, replace(leaf, implementation=None))


def _without(hint: PlacementHint, kind: str) -> PlacementHint:
    match kind:
        case "device":
            return replace(hint, device=None)
        case "class":
            return replace(hint, device_class=None)
        case "site":
            return replace(hint, site=None)
        case _:
            return replace(hint, zone=None)


def _with_leaf(problem: PlacementProblem, item: Item, leaf: LeafAIM) -> PlacementProblem:
    workflows = list(problem.workflows)
    old: Workflow = workflows[item.workflow]
    workflows[item.workflow] = replace(old, aims=tuple(leaf if a.id == leaf.id else a for a in old.aims))
    return rebuilt(problem, workflows=workflows)


def _equipped(problem: PlacementProblem, concerned: list[Item]) -> Iterator[tuple[str, PlacementProblem]]:
    """The same problem with one device attested, or given one runtime."""
    refusals = [r for item in concerned for r in item.refusals]
    roots = sorted(problem.policy.trusted_roots)
    for device_id in dict.fromkeys(r.device for r in refusals if r.kind == "security"):
        if roots:
            device = problem.inventory.device(device_id)
            yield f"attest {device_id}", _with_device(problem, replace(device, attestation=roots[0]))
    yield from _furnished(problem, concerned)
    wanted = {
        (r.device, code.runtime): None
        for item in concerned
        if item.leaf is not None
        for r in item.refusals
        if r.kind == "runtime" and (code := item.leaf.metadata.implementation(r.implementation)) is not None
    }
    for device_id, runtime in wanted:
        device = problem.inventory.device(device_id)
        richer = replace(device, runtimes=device.runtimes | {runtime})
        yield f"runtime {runtime} on {device_id}", _with_device(problem, richer)


def _furnished(problem: PlacementProblem, concerned: list[Item]) -> Iterator[tuple[str, PlacementProblem]]:
    """The same problem with one device given sensors and actuators, if an AIM lacks nothing else there."""
    found: dict[str, Device] = {}
    for item in concerned:
        for code in item.leaf.metadata.implementations if item.leaf is not None else ():
            against: dict[str, set[str]] = {}
            for refusal in item.refusals:
                if refusal.implementation in ("", code.id):
                    against.setdefault(refusal.device, set()).add(refusal.kind)
            for device_id, kinds in against.items():
                if not kinds <= {"sensor", "actuator"}:
                    continue
                device = problem.inventory.device(device_id)
                sensors = _lacking(code.requires.sensors, device.sensors)
                actuators = _lacking(code.requires.actuators, device.actuators)
                names = [f"{s.kind} sensor" for s in sensors] + [f"{a.kind} actuator" for a in actuators]
                found[f"{' and '.join(names)} on {device_id}"] = replace(
                    device, sensors=device.sensors + sensors, actuators=device.actuators + actuators
                )
    for text, device in found.items():
        yield text, _with_device(problem, device)


def _lacking(needs: tuple[str, ...], parts: tuple[Sensor, ...]) -> tuple[Sensor, ...]:
    short = {kind: needs.count(kind) - parts_of(parts, kind) for kind in dict.fromkeys(needs)}
    return tuple(Sensor(kind, count=count) for kind, count in short.items() if count > 0)


def _with_device(problem: PlacementProblem, device: Device) -> PlacementProblem:
    devices = tuple(device if d.id == device.id else d for d in problem.inventory.devices)
    inventory = replace(problem.inventory, devices=devices)
    return rebuilt(problem, inventory=inventory)
