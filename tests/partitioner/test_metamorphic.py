"""What must not change, or only in one direction, when a problem is changed in a known way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from aif.errors import Infeasible
from aif.model.aim import PlacementHint, Runtime
from aif.model.aiw import LeafAIM, PathLimit, Workflow
from aif.model.inventory import Device, DeviceClass, Link
from aif.model.ports import PortRef
from partitioner.instances.generate import Instance, tiny_instance
from partitioner.planner import place

SEEDS = range(120)
ROUNDING = 1e-6


def optimum(instance: Instance) -> float:
    """Infinite where nothing fits."""
    problem = instance.problem()
    try:
        return place(problem, workers=1).objective
    except Infeasible:
        return math.inf


def feasible() -> Iterator[tuple[Instance, float]]:
    count = 0
    for seed in SEEDS:
        instance = tiny_instance(seed)
        best = optimum(instance)
        if best < math.inf:
            count += 1
            yield instance, best
    assert count > 30, "the generator makes too few feasible instances"


def device_names(instance: Instance) -> Instance:
    names = {device.id: f"z{9 - n}" for n, device in enumerate(instance.inventory.devices)}
    devices = tuple(replace(d, id=names[d.id]) for d in instance.inventory.devices)
    links = tuple(replace(k, members=tuple(names[m] for m in k.members)) for k in instance.inventory.links)
    broker = instance.policy.broker_device

    def pinned(hint: PlacementHint | None) -> PlacementHint | None:
        return hint if hint is None or hint.device is None else replace(hint, device=names[hint.device])

    workflows = tuple(
        replace(w, aims=tuple(replace(a, placement=pinned(a.placement)) for a in w.aims))
        for w in instance.workflows
    )
    return replace(
        instance,
        workflows=workflows,
        inventory=replace(instance.inventory, devices=devices, links=links),
        policy=replace(instance.policy, broker_device=names[broker] if broker else None),
        current={aim: names[device] for aim, device in instance.current.items()},
    )


def aim_names(workflow: Workflow) -> Workflow:
    names = {leaf.id: f"q{9 - n}" for n, leaf in enumerate(workflow.aims)}

    def ref(old: PortRef) -> PortRef:
        return PortRef(names.get(old.aim, old.aim), old.port)

    def renamed(leaf: LeafAIM) -> LeafAIM:
        hint = leaf.placement
        if hint is not None:
            hint = replace(
                hint,
                colocate_with=tuple(names[i] for i in hint.colocate_with),
                separate_from=tuple(names[i] for i in hint.separate_from),
            )
        return replace(leaf, id=names[leaf.id], placement=hint)

    def limit(path: PathLimit) -> PathLimit:
        return replace(path, source=ref(path.source), destination=ref(path.destination))

    return replace(
        workflow,
        aims=tuple(renamed(leaf) for leaf in reversed(workflow.aims)),
        channels=tuple(
            replace(c, source=ref(c.source), destination=ref(c.destination)) for c in workflow.channels
        ),
        metadata=replace(workflow.metadata, paths=tuple(limit(p) for p in workflow.metadata.paths)),
    )


def renamed_key(instance: Instance, key: str) -> str:
    """What ``aim_names`` makes of the key of an AIM."""
    prefix, slash, aim = key.rpartition("/")
    workflow = next(w for w in instance.workflows if not slash or w.name == prefix)
    ids = [leaf.id for leaf in workflow.aims]
    return f"{prefix}{slash}q{9 - ids.index(aim)}"


def test_names_and_order_do_not_matter() -> None:
    for instance, best in feasible():
        other = device_names(instance)
        current = {renamed_key(instance, key): device for key, device in other.current.items()}
        other = replace(other, workflows=tuple(aim_names(w) for w in other.workflows), current=current)
        assert optimum(other) == pytest.approx(best, rel=ROUNDING, abs=ROUNDING)


def test_an_added_device_never_makes_it_worse() -> None:
    newcomer = Device("new", DeviceClass.MCU, "board-n", 64_000, 64_000, frozenset(Runtime), cores=1)
    newcomer = replace(newcomer, instructions_per_s=1e8, attestation="dice")
    for instance, best in feasible():
        link = Link("new-link", (instance.inventory.devices[0].id, "new"), 1e6, 2.0)
        richer = replace(
            instance.inventory,
            devices=(*instance.inventory.devices, newcomer),
            links=(*instance.inventory.links, link),
        )
        assert optimum(replace(instance, inventory=richer)) <= best + ROUNDING


def test_a_tighter_limit_never_makes_it_better() -> None:
    for instance, best in feasible():
        tighter = tuple(
            replace(d, ram_bytes=d.ram_bytes * 2 // 3, cpu_limit=d.cpu_limit / 2)
            for d in instance.inventory.devices
        )
        inventory = replace(instance.inventory, devices=tighter)
        assert optimum(replace(instance, inventory=inventory)) >= best - ROUNDING


def test_a_later_deadline_never_hurts() -> None:
    for instance, best in feasible():
        relaxed = tuple(
            replace(
                w,
                metadata=replace(
                    w.metadata,
                    paths=tuple(replace(p, deadline_ms=p.deadline_ms * 3) for p in w.metadata.paths),
                ),
            )
            for w in instance.workflows
        )
        assert optimum(replace(instance, workflows=relaxed)) <= best + ROUNDING


def test_doubled_weights_double_the_objective() -> None:
    for instance, best in feasible():
        doubled = tuple(
            replace(
                w,
                metadata=replace(
                    w.metadata,
                    objectives=replace(
                        w.metadata.objectives,
                        latency=2 * w.metadata.objectives.latency,
                        energy=2 * w.metadata.objectives.energy,
                        traffic=2 * w.metadata.objectives.traffic,
                        balance=2 * w.metadata.objectives.balance,
                        exposure=2 * w.metadata.objectives.exposure,
                        migration=2 * w.metadata.objectives.migration,
                        devices=2 * w.metadata.objectives.devices,
                    ),
                ),
            )
            for w in instance.workflows
        )
        policy = replace(instance.policy, affinity_penalty=2 * instance.policy.affinity_penalty)
        changed = replace(instance, workflows=doubled, policy=policy)
        assert optimum(changed) == pytest.approx(2 * best, rel=ROUNDING, abs=ROUNDING)
