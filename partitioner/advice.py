"""Which changes would make an impossible problem possible: room, freed pins, links, equipment.

Every suggested change was proven to help by finding a placement with it. Says what to change; that nothing
fits as it is, and why, is for ``explain`` to say. Stops when its prover is exhausted: each suggestion costs a
problem that is built anew, and a proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from aif.model.aim import PlacementHint
from aif.model.aiw import LeafAIM, Workflow
from aif.model.inventory import Device, Link, Sensor
from aif.model.standby import in_words, keeping_ready, kept_ready, served_by
from partitioner.problem.build import rebuilt
from partitioner.problem.filters import parts_of, pins
from partitioner.problem.parts import Item, Limit, PlacementProblem
from partitioner.problem.sentences import CAPACITIES, amount, data_rate, device_of, owner, relation, what
from partitioner.prover import Prover

GROWING = CAPACITIES - {"channels"}
"""What somebody can have more of; how many channels a device holds is how it was built."""

MAX_LINKS_TRIED = 6
SUPPOSED_BPS, SUPPOSED_MS = 1e6, 10.0
"""A link that is suggested is tried with these figures: what the slower radios of small devices do."""


def suggestions(
    problem: PlacementProblem, prover: Prover, concerned: list[Item], limits: list[Limit]
) -> Iterator[str]:
    """Changes, each proven to make a placement possible: single ones, the smallest growth of a limit first.

    Where no single one helps, the fewest limits that have to grow together.
    """
    if prover.exhausted():
        return
    helped = False
    for limit, missing in _growths(problem, prover, limits):
        helped = True
        yield _more(problem, limit, missing)
    freed = (change for item in concerned for change in _freed(problem, item))
    alone = _unready(problem, concerned)
    changes = (
        _unpaired(problem, limits), alone, freed, _linked(problem, limits), _equipped(problem, concerned)
    )  # fmt: skip
    tried: set[str] = set()
    for text, changed in chain.from_iterable(changes):
        if prover.exhausted():
            return
        if text in tried:  # an AIM and its standby have the same pins
            continue
        tried.add(text)
        if prover.feasible(changed):
            helped = True
            yield text
    grown = {} if helped else prover.shortfalls([limit for limit in problem.limits if limit.kind in GROWING])
    larger = {limit: problem.limits[limit] + missing for limit, missing in grown.items()}
    if grown and prover.feasible(replace(problem, limits={**problem.limits, **larger})):
        yield " together with ".join(_more(problem, limit, missing) for limit, missing in grown.items())


def _growths(problem: PlacementProblem, prover: Prover, limits: list[Limit]) -> list[tuple[Limit, int]]:
    """Limits whose growth alone helps, those that have to grow by the smallest share first."""
    missing = {limit: prover.shortfall(limit) for limit in limits if limit.kind in GROWING}
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
    return f"+{amount(limit, missing, owner(problem, limit))} {what(limit)} on {device_of(limit)}"


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
