"""Each limit is decisive in one small case, where the same problem without it has another answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aif.errors import Infeasible, ModelError, SolverTimeout
from aif.model.aim import (
    Implementation,
    Measurement,
    ModelRef,
    PlacementHint,
    Requirements,
    Runtime,
    SecurityNeed,
    StorageNeed,
)
from aif.model.aiw import Binding, BoundaryPort, Objectives, PathLimit, Workflow
from aif.model.inventory import Device, DeviceClass, Energy, Inventory, Link, Sensor, StorageUnit
from aif.model.placement import Placement
from aif.model.ports import PortRef
from partitioner.checker.check import check
from partitioner.instances.generate import input_port, leaf, output_port, workflow
from partitioner.planner import place
from partitioner.policy import ModelFacts, PlanPolicy
from partitioner.problem.build import build_problem

POLICY = PlanPolicy(runtime_costs={}, model_slots=1)
LATENCY_ONLY = Objectives(latency=1.0, energy=0.0)

GATEWAY = Device(
    "gw",
    DeviceClass.GATEWAY,
    "gateway-a",
    10**9,
    0,
    frozenset({Runtime.PYTHON, Runtime.TFLITE}),
    arch="aarch64",
    os="Linux",
    instructions_per_s=4e9,
    cores=4,
    attestation="software",
    zone="room",
)
NODE = Device(
    "node",
    DeviceClass.MCU,
    "board-a",
    64_000,
    100_000,
    frozenset({Runtime.TFLM, Runtime.PYTHON}),
    instructions_per_s=1e8,
    sensors=(Sensor("imu", 100.0),),
    energy=Energy("battery", 500.0, 30.0, 1.0, 4.0, 2.0),
    attestation="dice",
    zone="wrist",
)
AIR = Link("air", ("gw", "node"), 1e6, 5.0)
LAB = Inventory("lab", 1, (GATEWAY, NODE), (AIR,))

SOURCE_CODE = Implementation(
    "c", Runtime.PYTHON, 1000, instructions=1000, requires=Requirements(sensors=("imu",))
)
WORK_CODE = Implementation("c", Runtime.PYTHON, 1000, instructions=1_000_000)


def chain(
    work: Implementation = WORK_CODE,
    *,
    rate_hz: float = 1.0,
    deadline_ms: float | None = None,
    objectives: Objectives = LATENCY_ONLY,
    placement: PlacementHint | None = None,
    payload_bytes: int = 100,
) -> Workflow:
    """A source that needs the imu, so it is on the node, and work that is free to go."""
    source = leaf(
        "source", [SOURCE_CODE], outputs=[output_port(payload_bytes=payload_bytes, rate_hz=rate_hz)]
    )
    free = leaf(
        "work",
        [work],
        inputs=[input_port(payload_bytes=payload_bytes)],
        outputs=[output_port()],
        placement=placement,
    )
    end = PortRef("work", "y")
    paths = [PathLimit("p", PortRef("source", "y"), end, deadline_ms)] if deadline_ms else []
    return workflow("Chain", [source, free], [("source.y", "work.x")], paths=paths, objectives=objectives)


def placed(flow: Workflow, inventory: Inventory = LAB, policy: PlanPolicy = POLICY) -> Placement:
    placement = place(build_problem([flow], inventory, policy), workers=1)
    check([flow], inventory, placement, policy)
    return placement


def with_node(**changes: object) -> Inventory:
    return replace(LAB, devices=(GATEWAY, replace(NODE, **changes)))  # type: ignore[arg-type]  # field names


def test_without_tight_limits_the_cheapest_place_wins() -> None:
    placement = placed(chain())
    assert placement.device_of("work") == "gw", "5 ms on the air and 0.25 ms there beat 10 ms on the node"
    assert placement.assignment("work").reason.startswith("cheapest: +")
    assert placement.assignment("work").rejected["node"].startswith("costs +")
    assert placement.assignment("source").reason == "only candidate"
    assert placement.assignment("source").rejected["gw"] == "has no imu sensor"


def test_ram_counts_queues_runtimes_and_both_ends_of_a_remote_channel() -> None:
    assert placed(chain(), with_node(ram_bytes=1462)).device_of("work") == "gw"
    problem = build_problem([chain()], with_node(ram_bytes=1461), POLICY)
    with pytest.raises(Infeasible, match="1 B missing"):  # 1,000 of the AIM, 256 + 100 + 106 of the channel
        place(problem, workers=1)
    policy = replace(POLICY, runtime_costs=PlanPolicy().runtime_costs)
    with pytest.raises(Infeasible, match="fits nowhere even alone"):  # 16 MiB of interpreter
        place(build_problem([chain()], LAB, policy), workers=1)


def test_ram_says_what_was_needed_and_left() -> None:
    on_node = placed(chain(objectives=Objectives(latency=0.0, energy=0.0, traffic=1.0)))
    assert on_node.device_of("work") == "node"
    small = placed(
        chain(objectives=Objectives(latency=0.0, energy=0.0, traffic=1.0)), with_node(ram_bytes=2000)
    )
    assert small.device_of("work") == "gw"
    assert small.assignment("work").reason == "only one that fits"
    assert small.assignment("work").rejected["node"] == "needs 1,100 B RAM, 1,000 B left"


def test_a_release_with_a_larger_arena_and_model_moves_an_aim() -> None:
    code = replace(
        WORK_CODE,
        runtime=Runtime.TFLM,
        model=ModelRef("kws"),
        arena_bytes=500,
        ram_bytes=1000,
        instructions=1000,
    )
    both = replace(LAB, devices=(replace(GATEWAY, runtimes=frozenset(Runtime)), NODE))
    flow = chain(code)
    for facts, device in ((ModelFacts(1000, 500), "node"), (ModelFacts(1000, 70_000), "gw")):
        problem = build_problem([flow], both, POLICY, releases={"kws": facts})
        assert place(problem, workers=1).device_of("work") == device
    problem = build_problem([flow], both, POLICY, releases={"kws": ModelFacts(100_001, 500)})
    rejected = place(problem, workers=1).assignment("work").rejected["node"]
    assert rejected == "needs 100,001 B flash, 100,000 B left"


def test_storage_units_hold_slots_and_cost_staging_ram() -> None:
    code = replace(
        WORK_CODE,
        instructions=1000,
        model=ModelRef("kws", bytes_=3000),
        requires=Requirements(storage=StorageNeed(1, "spiffs")),
    )
    pinned = chain(code, placement=PlacementHint(device="node"))
    node = with_node(storage=(StorageUnit("spiffs", 6000),))
    two_slots = replace(POLICY, model_slots=2)
    usage = {u.device: u for u in placed(pinned, node, two_slots).usage}
    assert usage["node"].ram_bytes == 1000 + 1000 + 100 + 3000, "the model is copied to RAM"
    three_slots = replace(POLICY, model_slots=3)
    with pytest.raises(
        Infeasible, match=r"needs 9,000 B on a storage unit \(spiffs\), the largest has 6,000 B"
    ):
        place(build_problem([pinned], node, three_slots), workers=1)


def test_cpu_is_rate_times_latency_up_to_the_limit() -> None:
    flow = chain(rate_hz=79.0, objectives=Objectives(latency=0.0, energy=0.0, traffic=1.0))
    assert placed(flow).device_of("work") == "node", "79 Hz * 10 ms + 79 Hz * 10 us are 79.08 %"
    busier = chain(rate_hz=80.0, objectives=Objectives(latency=0.0, energy=0.0, traffic=1.0))
    placement = placed(busier)
    assert placement.device_of("work") == "gw"
    assert placement.assignment("work").rejected["node"] == "needs 80 % CPU, 79.9 % left"


def test_a_link_carries_only_its_planned_share() -> None:
    flow = chain(rate_hz=100.0, payload_bytes=94)  # 200 B with overhead: 160 kbit/s
    assert (
        placed(flow, replace(LAB, links=(replace(AIR, bandwidth_bps=229_000.0),))).device_of("work") == "gw"
    )
    slow = replace(LAB, links=(replace(AIR, bandwidth_bps=228_000.0),))
    lazy = chain(replace(WORK_CODE, instructions=700_000), rate_hz=100.0, payload_bytes=94)
    stays = placed(lazy, slow)
    assert stays.device_of("work") == "node"
    assert stays.assignment("work").rejected["gw"] == "needs 160.0 kbit/s on link air, 159.6 kbit/s left"


def test_a_deadline_counts_transfer_invocation_and_wait() -> None:
    energy = Objectives(latency=0.0, energy=0.0, traffic=1.0)  # nobody wants to send
    assert placed(chain(deadline_ms=10.01, objectives=energy)).device_of("work") == "node"
    sent = placed(chain(deadline_ms=10.0, objectives=energy))  # 10 ms of work, 10 us wait for the source
    assert sent.device_of("work") == "gw"
    assert sent.assignment("work").rejected["node"] == "path p would take 10.0 ms of 10.0 ms"
    (path,) = sent.paths
    assert (path.id, path.deadline_ms) == ("p", 10.0)
    assert path.latency_ms == pytest.approx(5.0 + 8 * 206 / 1e6 * 1000 + 0.2 + 0.25)


def test_a_tail_counts_only_above_the_median() -> None:
    code = replace(WORK_CODE, measured=(Measurement("board-a", 1000.0, "board", latency_p99_us=9000.0),))
    flow = chain(code, deadline_ms=5.0, placement=PlacementHint(device="node"))
    with pytest.raises(Infeasible, match=r"node/c takes 9.0 ms on path p, 5.0 ms are allowed"):
        placed(flow)
    median = replace(
        flow, metadata=replace(flow.metadata, paths=(replace(flow.metadata.paths[0], percentile=0.5),))
    )
    assert placed(median).paths[0].latency_ms == pytest.approx(1.01), "and 10 us of the source"


@pytest.mark.parametrize(
    ("code", "changes", "text"),
    [
        (replace(WORK_CODE, runtime=Runtime.TFLITE), {}, "has no tflite runtime (runs python, tflm)"),
        (replace(WORK_CODE, arch=("xtensa",)), {"arch": "armv7e-m"}, "is armv7e-m, built for xtensa"),
        (replace(WORK_CODE, os=("Linux",)), {}, "runs none, built for Linux"),
        (replace(WORK_CODE, requires=Requirements(radios=("ble",))), {}, "has no ble radio"),
        (replace(WORK_CODE, requires=Requirements(actuators=("led",))), {}, "has no led actuator"),
        (
            replace(WORK_CODE, security=SecurityNeed.ATTESTED),
            {"attestation": "none"},
            "has no attestation, attested is required",
        ),
        (
            replace(WORK_CODE, instructions=None, mac_count=5),
            {},
            "has no known latency: nothing measured on its board, no speed that fits the figures",
        ),
    ],
)
def test_static_needs_say_what_is_missing(
    code: Implementation, changes: dict[str, object], text: str
) -> None:
    flow = chain(code, placement=PlacementHint(device="node"))
    with pytest.raises(Infeasible) as caught:
        place(build_problem([flow], with_node(**changes), POLICY), workers=1)
    assert f"node: {text}" in caught.value.core[0]


def test_a_sensor_serves_as_many_aims_as_it_counts() -> None:
    second = leaf("second", [SOURCE_CODE], outputs=[output_port(rate_hz=1.0)])
    flow = chain()
    flow = replace(flow, aims=(*flow.aims, second))
    with pytest.raises(Infeasible, match="node has 1 imu sensor, source needs 1, second needs 1"):
        placed(flow)
    assert placed(flow, with_node(sensors=(Sensor("imu", 100.0, 2),))).device_of("second") == "node"


def test_a_sensor_that_is_too_slow_is_refused() -> None:
    with pytest.raises(Infeasible, match="its imu gives 100 Hz, 101 Hz are needed"):
        placed(chain(rate_hz=101.0))


@pytest.mark.parametrize(
    ("row", "rule", "latency_us"),
    [
        (
            Implementation("c", Runtime.PYTHON, 1, measured=(Measurement("board-a", 7.5, "board"),)),
            "measured",
            8,
        ),
        (Implementation("c", Runtime.PYTHON, 1, instructions=2500), "instructions", 25),
        (Implementation("c", Runtime.PYTHON, 1, mac_count=300), "mac_count", 300),
        (
            Implementation("c", Runtime.PYTHON, 1, measured=(Measurement("gateway-a", 7, "board"),)),
            "scaled",
            280,
        ),
    ],
)
def test_latency_rules_in_their_order(row: Implementation, rule: str, latency_us: int) -> None:
    flow = chain(row, placement=PlacementHint(device="node"))
    assignment = placed(flow, with_node(macs_per_s=1e6)).assignment("work")
    assert (assignment.cost_rule, assignment.latency_us) == (rule, latency_us)


def test_energy_is_measured_or_latency_times_the_power_of_running() -> None:
    measured = replace(WORK_CODE, measured=(Measurement("board-a", 10.0, "board", energy_uj=3.5),))
    here = PlacementHint(device="node")
    assert placed(chain(measured, placement=here)).assignment("work").energy_uj == 3.5
    assert placed(chain(placement=here)).assignment("work").energy_uj == pytest.approx(10_000 * 29.0 / 1000)


def test_affinity_hard_decides_soft_costs() -> None:
    together = PlacementHint(colocate_with=("source",), strength="hard")
    held = placed(chain(placement=together))
    assert held.device_of("work") == "node"
    assert held.assignment("work").rejected["gw"] == "work and source must share a device"
    wish = chain(placement=replace(together, strength="soft"))
    for penalty, device in ((0.10, "gw"), (0.15, "node")):  # staying adds 13 ms: the source waits too
        policy = replace(POLICY, affinity_penalty=penalty)
        assert placed(wish, policy=policy).device_of("work") == device
    apart = PlacementHint(separate_from=("source",), strength="hard")
    lonely = replace(LAB, devices=(NODE,), links=())
    with pytest.raises(Infeasible, match="work and source must be on different devices"):
        placed(chain(placement=apart), lonely)


def test_a_broker_is_on_every_way() -> None:
    far = replace(GATEWAY, id="far", board="gateway-b", runtimes=frozenset())
    inventory = replace(LAB, devices=(GATEWAY, NODE, far), links=(AIR, Link("wan", ("far", "gw"), 1e6, 20.0)))
    assert placed(chain(), inventory).device_of("work") == "gw"
    by_broker = placed(chain(), inventory, replace(POLICY, broker_device="far"))
    assert by_broker.device_of("work") == "node", "45 ms by way of the broker"
    with pytest.raises(ModelError, match="no device 'nowhere'"):
        placed(chain(), LAB, replace(POLICY, broker_device="nowhere"))


def test_only_larger_devices_forward() -> None:
    relay = replace(GATEWAY, id="relay", board="x", runtimes=frozenset())
    links = (Link("a", ("node", "relay"), 1e6, 5.0), Link("b", ("relay", "gw"), 1e6, 5.0))
    flow = chain(placement=PlacementHint(device="gw"))
    assert placed(flow, Inventory("i", 1, (GATEWAY, NODE, relay), links)).device_of("work") == "gw"
    small = replace(relay, device_class=DeviceClass.MCU)
    with pytest.raises(Infeasible, match=r"channel source.y -> work.x needs a route") as caught:
        placed(flow, Inventory("i", 1, (GATEWAY, NODE, small), links))
    assert "a link between gw and node, as with 1 Mbit/s and 10 ms" in caught.value.hint
    mended = (*links, Link("new", ("gw", "node"), 1e6, 10.0))
    assert placed(flow, Inventory("i", 1, (GATEWAY, NODE, small), mended)).device_of("work") == "gw"


def test_a_bound_boundary_port_is_placed_at_its_sensor() -> None:
    work = leaf("work", [WORK_CODE], inputs=[input_port()], outputs=[output_port()])
    bound = BoundaryPort(replace(input_port("Speech"), rate_hz=1.0), Binding("sensor", "imu"))
    flow = workflow(
        "Bound", [work], [("aiw.Speech", "work.x")], inputs=[bound], objectives=Objectives(0.0, 0.0, 1.0)
    )
    placement = placed(flow)
    assert placement.device_of("aiw.Speech") == "node"
    assert placement.assignment("aiw.Speech").reason == "bound to imu"
    assert placement.device_of("work") == "node", "nothing is sent"


def test_several_workflows_share_the_devices() -> None:
    first, second = chain(), replace(chain(), metadata=replace(chain().metadata, name="Other"))
    shared = with_node(sensors=(Sensor("imu", 100.0, 2),), ram_bytes=4000)
    placement = place(build_problem([first, second], shared, POLICY), workers=1)
    check([first, second], shared, placement, POLICY)
    assert {a.aim for a in placement.assignments} == {
        "Chain/source", "Chain/work", "Other/source", "Other/work",
    }  # fmt: skip
    assert [path.id for path in placement.paths] == ["Chain/critical path", "Other/critical path"]
    with pytest.raises(ModelError, match="same name"):
        build_problem([first, first], shared, POLICY)


def test_contradictions_are_named() -> None:
    with pytest.raises(ModelError, match="objective energy has weight -1"):
        build_problem([chain(objectives=Objectives(energy=-1.0))], LAB, POLICY)
    with pytest.raises(ModelError, match="placement of work in Chain names 'ghost'"):
        build_problem([chain(placement=PlacementHint(colocate_with=("ghost",)))], LAB, POLICY)
    backwards = (PathLimit("p", PortRef("work", "y"), PortRef("source", "y"), 1.0),)
    lost = replace(chain(), metadata=replace(chain().metadata, paths=backwards))
    with pytest.raises(ModelError, match=r"path p of Chain: no channel leads from work.y to source.y"):
        build_problem([lost], LAB, POLICY)


def test_no_time_still_gives_the_first_plan_with_a_bound() -> None:
    flow = chain()
    placement = place(build_problem([flow], LAB, POLICY), time_limit_s=1e-9, workers=1)
    assert placement.device_of("work") in ("gw", "node")
    assert 0.0 <= placement.bound <= placement.objective


def test_what_no_search_can_place_without_time_is_a_timeout() -> None:
    device = replace(GATEWAY, cores=1, ram_bytes=1500, instructions_per_s=1e6)
    other = replace(device, id="other", ram_bytes=2500)
    big = replace(WORK_CODE, ram_bytes=2000, instructions=10)
    small = replace(WORK_CODE, ram_bytes=1000, instructions=10)
    aims = [
        leaf("small", [small], outputs=[output_port(rate_hz=1.0)], placement=PlacementHint(zone="room")),
        leaf("big", [big, replace(big, id="d")], outputs=[output_port(rate_hz=1.0)]),
    ]
    inventory = Inventory("i", 1, (other, device), ())
    problem = build_problem([workflow("Tight", aims, [])], inventory, POLICY)
    placement = place(problem, time_limit_s=1e-9, workers=1)
    assert (placement.device_of("small"), placement.device_of("big")) == ("gw", "other")
    twice = [*aims, leaf("bigger", [big], outputs=[output_port(rate_hz=1.0)])]
    problem = build_problem([workflow("Full", twice, [])], inventory, POLICY)
    with pytest.raises(SolverTimeout, match="none ruled out"):
        place(problem, time_limit_s=1e-9, workers=1)
    with pytest.raises(Infeasible):
        place(problem, workers=1)


def test_nothing_to_place_is_a_plan() -> None:
    placement = placed(workflow("Empty", [], []))
    assert placement.assignments == ()
    assert placement.objective == 0.0
