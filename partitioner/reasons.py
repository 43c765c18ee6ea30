"""Why each AIM is where it is: every other device is really tried, and the answer becomes a sentence.

Decides nothing about the plan. An alternative is the same plan with that one AIM moved; it is refused by a
filter, breaks a limit, or costs more, and the sentence gives the figures.
"""

from __future__ import annotations

from aif.model.inventory import Device
from aif.model.placement import Assignment, LinkUsage, PathLatency, Placement, Usage
from aif.model.standby import served_by
from partitioner.problem.evaluate import Choice, Evaluation, evaluate
from partitioner.problem.filters import pins
from partitioner.problem.parts import OBJECTIVE_SCALE, Candidate, Item, Limit, PlacementProblem
from partitioner.problem.sentences import CAPACITIES, amount, device_of, owner, refused, relation, what

SAME_COST = 5e-4
"""Alternatives whose objective differs by less than this share are called equal."""

SAME = "costs the same"
UNTRIED = "cheapest known together with all others"
"""Reason in plans so large that single alternatives are not tried."""

MANIFOLD = 400.0
"""Increases from here (in %) are given as multiples."""


def describe(
    problem: PlacementProblem,
    choice: Choice,
    *,
    bound: float,
    method: str,
    seconds: float,
    alternatives: bool = True,
) -> Placement:
    """The finished plan with usage, latencies, objective by term, and a reason for every AIM.

    Without ``alternatives`` no other device is tried, and the reasons say only what the AIM itself asks for.
    """
    result, power_mw = evaluate(problem, choice), _powers(problem, choice)
    first = problem.workflows[0].metadata if problem.workflows else None
    return Placement(
        workflow="+".join(workflow.name for workflow in problem.workflows),
        workflow_version=first.version if first is not None else "",
        inventory=problem.inventory.name,
        inventory_version=problem.inventory.version,
        assignments=tuple(
            _assignment(problem, choice, result if alternatives else None, n)
            for n in range(len(problem.items))
        ),
        usage=tuple(
            _usage(problem, result, device, power_mw[device.id]) for device in problem.inventory.devices
        ),
        links=tuple(
            LinkUsage(link.id, link.members, result.used.get(there, 0), problem.limits[there])
            for link in problem.inventory.links
            for there in (Limit("link", link.id),)
        ),
        paths=tuple(
            PathLatency(
                problem.path_limit(path).subject,
                latency / 1000.0,
                None if path.deadline_us is None else path.deadline_us / 1000.0,
            )
            for path, latency in zip(problem.paths, result.latencies_us, strict=True)
        ),
        terms={name: value for name, value in sorted(result.terms.items()) if value},
        objective=result.objective / OBJECTIVE_SCALE,
        bound=bound,
        method=method,
        seconds=seconds,
    )


def _assignment(
    problem: PlacementProblem, choice: Choice, plan: Evaluation | None, number: int
) -> Assignment:
    item, chosen = problem.items[number], choice[number]
    allowed: list[tuple[int, str]] = []
    refusals: dict[str, str] = {}
    for device in problem.inventory.devices if plan is not None else ():
        if device.id == chosen.device:
            continue
        candidates = item.on(device.id)
        if not candidates:
            refusals[device.id] = refused(item, device.id)
            continue
        tried = [(evaluate(problem, {**choice, number: c}), c) for c in candidates]
        result, moved = min(tried, key=lambda t: (len(t[0].broken), t[0].objective))
        if result.broken:
            refusals[device.id] = _broken(problem, choice, number, moved, result)
            continue
        allowed.append((result.objective, device.id))
    allowed.sort()
    paid = plan.objective if plan is not None else 0
    return Assignment(
        aim=item.key,
        device=chosen.device,
        implementation=chosen.implementation,
        reason=_reason(item, chosen, plan, allowed[0] if allowed else None),
        latency_us=float(chosen.latency_us),
        energy_uj=chosen.energy_uj,
        cost_rule=chosen.rule,
        rejected={device: _difference(paid, other) for other, device in allowed} | refusals,
        storage=chosen.storage,
    )


def _reason(item: Item, chosen: Candidate, plan: Evaluation | None, cheapest: tuple[int, str] | None) -> str:
    aim = served_by(item.key)
    if aim:
        return f"kept ready for {aim}: {_found(item, chosen, plan, cheapest)}"
    return _found(item, chosen, plan, cheapest)


def _found(item: Item, chosen: Candidate, plan: Evaluation | None, cheapest: tuple[int, str] | None) -> str:
    if plan is None:
        return UNTRIED
    if item.leaf is None:
        return f"bound to {chosen.demand[0][0].subject.partition(' ')[2]}"
    if len(item.devices) == 1:
        pinned = [f"{kind} {value}" for kind, value in pins(item.leaf.placement)]
        held = any(r.kind.endswith("pin") for r in item.refusals if not r.implementation)
        return f"pinned by {', '.join(pinned)}" if pinned and held else "only candidate"
    if cheapest is None:
        return "only one that fits"
    objective, device = cheapest
    difference = _difference(plan.objective, objective)
    if difference == SAME:
        return f"as good as {device}"
    if objective < plan.objective:
        return f"best found in time, though {device} {difference}"
    return f"cheapest: {difference.removeprefix('costs ')} on {device}"


def _difference(plan: int, other: int) -> str:
    """``costs +12 %``: how the whole objective changes; in objective units when the plan costs nothing."""
    if abs(other - plan) <= SAME_COST * max(abs(plan), 1):
        return SAME
    if plan == 0:
        return f"costs +{other / OBJECTIVE_SCALE:.3g}"
    share = 100.0 * (other - plan) / plan
    if share >= MANIFOLD:
        return f"costs {other / plan:,.0f} times as much"
    shown = f"{abs(share):.0f} %" if abs(share) >= 10 else f"{abs(share):.2g} %"
    return f"costs +{shown}" if share > 0 else f"would save {shown}"


def _broken(
    problem: PlacementProblem, choice: Choice, number: int, moved: Candidate, result: Evaluation
) -> str:
    """The first limit that the move breaks, capacities of the new device before all others."""
    limit = min(result.broken, key=lambda b: (device_of(b) != moved.device, b.kind not in CAPACITIES))
    if limit.kind not in CAPACITIES:
        return relation(limit)
    device = owner(problem, limit)
    most = problem.limits.get(limit, 0)
    if limit.kind == "deadline":
        return f"path {limit.subject} would take {amount(limit, result.used[limit])} of {amount(limit, most)}"
    before = evaluate(problem, {n: c for n, c in choice.items() if n != number}).used.get(limit, 0)
    need, left = result.used[limit] - before, most - before
    text = f"{amount(limit, need, device)} {what(limit)}, {amount(limit, left, device)} left"
    if limit.kind == "link":
        return f"needs {amount(limit, need)} on link {limit.subject}, {amount(limit, left)} left"
    return f"needs {text}" if device_of(limit) == moved.device else f"{device_of(limit)} would need {text}"


def _powers(problem: PlacementProblem, choice: Choice) -> dict[str, float]:
    """Mean power of each device, mW."""
    power_mw = {device.id: device.energy.idle_mw for device in problem.inventory.devices}
    for candidate in choice.values():
        power_mw[candidate.device] += candidate.power_mw
    for flow in problem.flows:
        crossed = flow.crossings[choice[flow.source].device, choice[flow.destination].device]
        for device, milliwatts in crossed.crossing.radio_mw:
            power_mw[device] += milliwatts
    return power_mw


def _usage(problem: PlacementProblem, result: Evaluation, device: Device, power_mw: float) -> Usage:
    ram, flash, cpu = (Limit(kind, device.id) for kind in ("ram", "flash", "cpu"))
    return Usage(
        device=device.id,
        ram_bytes=result.used.get(ram, 0),
        ram_limit_bytes=problem.limits[ram],
        flash_bytes=result.used.get(flash, 0),
        flash_limit_bytes=problem.limits.get(flash, 0),
        cpu_share=result.used.get(cpu, 0) / 1e6 / device.cores,
        cpu_limit=device.cpu_limit,
        power_mw=power_mw,
    )
