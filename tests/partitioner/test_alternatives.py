"""The choice between whole models and chains, against trying everything."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest

from aif.errors import Infeasible, SolverTimeout
from aif.model.aim import AIMMetadata, Composition, Implementation, ModelRef, Runtime, SubAIM
from aif.model.aiw import AIWMetadata, Objectives, PathLimit, Workflow, expand
from aif.model.inventory import Device, DeviceClass, Energy, Inventory, Link
from aif.model.placement import Placement
from aif.model.ports import ChannelSpec, Port, PortRef
from aif.model.stand_ins import with_stand_ins
from partitioner.alternatives import MAX_VARIANTS, Chosen, choose
from partitioner.checker.check import check
from partitioner.checker.exhaustive import best_placement
from partitioner.instances.generate import input_port, output_port
from partitioner.planner import place
from partitioner.policy import PlanPolicy
from partitioner.problem.parts import PlacementProblem
from partitioner.search.pace import Clock

POLICY = PlanPolicy(runtime_costs={}, model_slots=1)


def solve(problem: PlacementProblem, limit_s: float) -> Placement:
    return place(problem, time_limit_s=max(limit_s, 1.0), workers=1)


def contract(
    name: str,
    ram_bytes: int,
    *,
    instructions: int = 100_000,
    takes: int | None = 64,
    gives: int = 64,
    model_bytes: int = 1000,
) -> AIMMetadata:
    """An AIM with one implementation; ``takes`` and ``gives`` are payloads in bytes."""
    code = Implementation(
        "mcu", Runtime.TFLM, ram_bytes, model=ModelRef(name.lower(), bytes_=model_bytes),
        instructions=instructions, flash_bytes=100,
    )  # fmt: skip
    inputs: tuple[Port, ...] = () if takes is None else (input_port(payload_bytes=takes),)
    outputs = (output_port(payload_bytes=gives, rate_hz=1.0 if takes is None else None),)
    return AIMMetadata(name, "1.0", "demo", inputs, outputs, implementations=(code,))


def chain_of(name: str, stands_for: str, parts: list[AIMMetadata]) -> AIMMetadata:
    """A composite whose parts read one another."""
    subs = tuple(SubAIM(f"part_{n}", part.reference) for n, part in enumerate(parts, start=1))
    ends = ["aiw.x", *(f"{s.id}.{port}" for s in subs for port in ("x", "y")), "aiw.y"]
    channels = tuple(
        ChannelSpec(PortRef.parse(ends[n]), PortRef.parse(ends[n + 1])) for n in range(0, len(ends), 2)
    )
    return AIMMetadata(
        name, "1.0", "demo", parts[0].inputs, parts[-1].outputs,
        composition=Composition(subs, channels), stands_for=stands_for,
    )  # fmt: skip


def catalogue_of(*contracts: AIMMetadata) -> dict[str, AIMMetadata]:
    return {one.reference: one for one in contracts}


SOURCE = contract("Source", 500, takes=None)
WHOLE = contract("Whole", 10_000)
FIRST, SECOND = contract("First", 6_000, gives=32), contract("Second", 5_000, takes=32)
CHAIN = chain_of("Chain", "Whole@1.0", [FIRST, SECOND])
CATALOGUE = catalogue_of(SOURCE, WHOLE, FIRST, SECOND, CHAIN)


def workflow_of(
    catalogue: Mapping[str, AIMMetadata], *uses: str, objectives: Objectives | None = None
) -> Workflow:
    """``source`` read by one AIM of each of ``uses``."""
    subs = (SubAIM("source", "Source@1.0"), *(SubAIM(f"m{n}", use) for n, use in enumerate(uses)))
    channels = tuple(
        ChannelSpec(PortRef("source", "y"), PortRef(sub.id, "x")) for sub in subs if sub.id != "source"
    )
    paths = (PathLimit("p", PortRef("source", "y"), PortRef("m0", "y"), 60_000.0),)
    metadata = AIWMetadata(
        "W", "1.0", "demo", Composition(subs, channels), paths=paths, objectives=objectives or Objectives()
    )
    return expand(metadata, catalogue)


def device(name: str, ram_bytes: int) -> Device:
    return Device(
        name, DeviceClass.MCU, f"board-{name}", ram_bytes, 200_000, frozenset({Runtime.TFLM}),
        instructions_per_s=1e8, energy=Energy("battery", None, 30.0, 1.0, 4.0, 2.0), attestation="dice",
    )  # fmt: skip


def inventory_of(*ram_bytes: int) -> Inventory:
    devices = tuple(device(f"d{n}", ram) for n, ram in enumerate(ram_bytes))
    return Inventory("i", 1, devices, (Link("air", tuple(d.id for d in devices), 1e6, 2.0),))


def chosen(
    inventory: Inventory, catalogue: Mapping[str, AIMMetadata] = CATALOGUE, *uses: str, limit_s: float = 30.0
) -> Chosen:
    flow = workflow_of(catalogue, *(uses or ("Whole@1.0",)))
    found = choose([flow], catalogue, inventory, POLICY, solve, time_limit_s=limit_s)
    check(found.workflows, inventory, found.placement, POLICY)
    return found


def test_a_model_too_large_for_each_device_is_placed_split() -> None:
    found = chosen(inventory_of(8_000, 8_000))
    assert found.stand_ins == ({"m0": "Chain@1.0"},)
    assert found.placement.stand_ins == {"m0": "Chain@1.0"}
    assert found.placement.device_of("m0.part_1") != found.placement.device_of("m0.part_2")
    assert [limit.destination for limit in found.workflows[0].metadata.paths] == [PortRef("m0.part_2", "y")]


def test_the_whole_wins_where_a_device_is_large_enough() -> None:
    found = chosen(inventory_of(8_000, 30_000))
    assert found.stand_ins == ({},)
    assert found.placement.device_of("m0") == "d1"
    assert found.left_out == 0


def test_where_both_cost_the_same_the_whole_wins() -> None:
    flow = workflow_of(CATALOGUE, "Whole@1.0", objectives=Objectives(0.0, 0.0))
    found = choose([flow], CATALOGUE, inventory_of(30_000), POLICY, solve, time_limit_s=30.0)
    assert (found.stand_ins, found.placement.objective, found.placement.gap) == (({},), 0.0, 0.0)


def test_a_part_that_fits_nowhere_rules_its_chain_out_and_the_whole_is_explained() -> None:
    with pytest.raises(Infeasible) as caught:
        chosen(inventory_of(4_000, 4_000))
    assert "m0 " in caught.value.core[0], "the AIM as it is written, not a part of a chain"


@pytest.mark.parametrize("pin", [{"implementation": "mcu"}, {"parameters": {"gain": 1}}])
def test_an_aim_with_settings_of_its_own_stays_whole(pin: dict[str, object]) -> None:
    flow = workflow_of(CATALOGUE, "Whole@1.0")
    subs = tuple(replace(s, **pin) if s.id == "m0" else s for s in flow.metadata.composition.aims)  # type: ignore[arg-type]  # field names
    metadata = replace(flow.metadata, composition=replace(flow.metadata.composition, aims=subs))
    pinned = expand(metadata, CATALOGUE)
    with pytest.raises(Infeasible):
        choose([pinned], CATALOGUE, inventory_of(8_000, 8_000), POLICY, solve, time_limit_s=30.0)


def test_time_that_is_over_leaves_variants_out_and_the_bound_says_so() -> None:
    clock = iter([0.0, 0.0, 100.0, 100.0, 100.0])
    flow = workflow_of(CATALOGUE, "Whole@1.0")
    arguments = ([flow], CATALOGUE, inventory_of(8_000, 30_000), POLICY, solve)
    found = choose(*arguments, time_limit_s=10.0, pace=Clock(lambda: next(clock)))
    assert (found.left_out, found.placement.bound) == (1, 0.0)
    assert found.placement.gap == 1.0


def test_nothing_found_with_ways_left_out_is_no_proof() -> None:
    def slow(_problem: PlacementProblem, _limit_s: float) -> Placement:
        raise SolverTimeout("late")

    flow = workflow_of(CATALOGUE, "Whole@1.0")
    with pytest.raises(SolverTimeout, match="1 ways of splitting models are not ruled out"):
        choose([flow], CATALOGUE, inventory_of(8_000, 8_000), POLICY, slow, time_limit_s=10.0)


def test_dominated_cuts_are_not_solved() -> None:
    worse = [contract("Third", 6_001, gives=32), contract("Fourth", 5_000, takes=32)]
    other = [contract("Fifth", 5_000, gives=32), contract("Sixth", 6_000, takes=32)]
    more = catalogue_of(
        *worse, *other, chain_of("Worse", "Whole@1.0", worse), chain_of("Other", "Whole@1.0", other)
    )
    seen: list[str] = []

    def listening(problem: PlacementProblem, limit_s: float) -> Placement:
        seen.extend(leaf.metadata.name for leaf in problem.workflows[0].aims if leaf.id.endswith("part_1"))
        return solve(problem, limit_s)

    catalogue = {**CATALOGUE, **more}
    flow = workflow_of(catalogue, "Whole@1.0")
    choose([flow], catalogue, inventory_of(8_000, 8_000), POLICY, listening, time_limit_s=30.0)
    assert sorted(seen) == ["Fifth", "First"]


def test_more_variants_than_are_looked_at_are_counted() -> None:
    chains = []
    for n in range(MAX_VARIANTS + 4):  # no two of them comparable
        parts = [contract(f"A{n}", 3000 + n, gives=32), contract(f"B{n}", 9000 - n, takes=32)]
        chains += [*parts, chain_of(f"C{n}", "Whole@1.0", parts)]
    catalogue = {**catalogue_of(SOURCE, WHOLE), **catalogue_of(*chains)}
    found = chosen(inventory_of(30_000), catalogue)
    assert found.left_out == 5


def random_case(seed: int) -> tuple[Mapping[str, AIMMetadata], Workflow, Inventory]:
    """One model and a few cuts of it on up to three devices; about half need a cut."""
    rng = random.Random(seed)
    ram, instructions = rng.randrange(6_000, 14_000), rng.choice((100_000, 3_000_000))
    contracts = [SOURCE, contract("Whole", ram, instructions=instructions, model_bytes=4_000)]
    for n in range(rng.randint(1, 3)):
        share, across = rng.uniform(0.2, 0.8), rng.choice((16, 64, 2_000))
        halves = [
            contract(
                f"P{n}{side}",
                int(ram * part) + 800,
                instructions=int(instructions * part) + 10_000,
                takes=across if side else 64,
                gives=64 if side else across,
                model_bytes=int(4_000 * part) + rng.choice((0, 300)),
            )
            for side, part in enumerate((share, 1 - share))
        ]
        contracts += [*halves, chain_of(f"Cut{n}", "Whole@1.0", halves)]
    catalogue = catalogue_of(*contracts)
    sizes = [rng.randrange(4_000, 15_000) for _ in range(rng.randint(1, 3))]
    weights = Objectives(
        rng.choice((0.0, 1.0)), rng.choice((0.0, 2.0)), rng.choice((0.0, 0.5)), rng.choice((0.0, 3.0))
    )
    return catalogue, workflow_of(catalogue, "Whole@1.0", objectives=weights), inventory_of(*sizes)


def agree(seed: int, objectives: Objectives | None = None) -> str:
    catalogue, flow, inventory = random_case(seed)
    if objectives is not None:
        flow = replace(flow, metadata=replace(flow.metadata, objectives=objectives))
    ways = [{}, *({"m0": ref} for ref, c in catalogue.items() if c.stands_for)]
    costs = [
        best.objective
        for way in ways
        if (best := best_placement([with_stand_ins(flow, catalogue, way)], inventory, POLICY)) is not None
    ]
    try:
        found = choose([flow], catalogue, inventory, POLICY, solve, time_limit_s=60.0)
    except Infeasible:
        assert not costs, f"seed {seed}"
        return "impossible"
    check(found.workflows, inventory, found.placement, POLICY)
    assert found.placement.objective == pytest.approx(min(costs), rel=1e-6, abs=1e-6), f"seed {seed}"
    assert found.placement.gap == pytest.approx(0.0, abs=1e-6)
    return "split" if found.stand_ins[0] else "whole"


def test_equals_the_oracle_over_all_cuts() -> None:
    kinds = Counter(agree(seed) for seed in range(120))
    assert min(kinds["split"], kinds["whole"], kinds["impossible"]) >= 10, kinds


@pytest.mark.parametrize("seed", [1663, 2713, 2943, 3522, 3722])
def test_the_solver_loses_no_optimum_where_only_balance_counts(seed: int) -> None:
    agree(seed, Objectives(0.0, 0.0, balance=3.0))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
def test_equals_the_oracle_on_many_more(block: int) -> None:
    for seed in range(1_000 + 500 * block, 1_500 + 500 * block):
        agree(seed)
