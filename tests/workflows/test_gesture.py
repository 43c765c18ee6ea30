"""The shipped workflows: valid, placed as their READMEs say, and too large for any single device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import aims
from aif.authoring.recording import Recording, write_recording
from aif.config import load_catalogue, load_inventory, load_workflow
from aif.config.format import format_file
from aif.config.workflow import LoadedWorkflow
from aif.emulator.device import EmulatedDevice
from aif.emulator.settings import replays_of
from aif.errors import Infeasible
from aif.model.aiw import Workflow
from aif.model.inventory import DeviceClass, Inventory
from aif.model.placement import Placement
from aif.model.rates import derive_rates
from aif.runtime.clock import SystemClock
from partitioner.checker.check import check
from partitioner.planner import place
from partitioner.policy import ModelFacts, PlanPolicy
from partitioner.problem.build import build_problem

ROOT = Path(__file__).parents[2]
GESTURE = ROOT / "workflows" / "gesture"
COMPOSITE = ROOT / "workflows" / "composite_demo"
LIBRARY = Path(next(iter(aims.__path__)))
MODELS = {"gesture_classifier": ModelFacts(2200, 1840), "motion_anomaly": ModelFacts(2500, 1840)}
"""About what training gives; the placement does not depend on it."""


def loaded(folder: Path) -> LoadedWorkflow:
    return load_workflow(folder, load_catalogue([LIBRARY]))


@pytest.fixture(scope="module")
def workflow() -> Workflow:
    return loaded(GESTURE).workflow


@pytest.fixture(scope="module")
def inventory() -> Inventory:
    return load_inventory(GESTURE / "inventory.yaml")


def placed(
    workflow: Workflow,
    inventory: Inventory,
    policy: PlanPolicy | None = None,
    models: Mapping[str, ModelFacts] = MODELS,
) -> Placement:
    policy = policy or PlanPolicy()
    placement = place(build_problem([workflow], inventory, policy, releases=models), workers=1)
    check([workflow], inventory, placement, policy, models)
    return placement


def where(placement: Placement) -> dict[str, str]:
    return {a.aim: a.device for a in placement.assignments}


EXPECTED = {
    "imu": "mcu-1",
    "extract": "mcu-1",
    "anomaly": "mcu-1",
    "classifier": "mcu-2",
    "decision": "gw-1",
    "sink": "edge-1",
}


@pytest.mark.parametrize("folder", [GESTURE, COMPOSITE], ids=lambda folder: folder.name)
def test_it_is_valid_without_a_warning_and_in_canonical_form(folder: Path) -> None:
    assert loaded(folder).warnings == ()
    for file in folder.glob("*.yaml"):
        before, after = format_file(file)
        assert before == after, f"run: aif fmt {file}"


def test_the_devices_are_an_edge_box_a_gateway_and_two_microcontrollers(inventory: Inventory) -> None:
    assert {d.id: d.device_class for d in inventory.devices} == {
        "edge-1": DeviceClass.EDGE,
        "gw-1": DeviceClass.GATEWAY,
        "mcu-1": DeviceClass.MCU,
        "mcu-2": DeviceClass.MCU,
    }
    assert [d.id for d in inventory.devices if any(s.kind == "imu" for s in d.sensors)] == ["mcu-1"]
    replay = replays_of(inventory.device("mcu-1"))["imu"]
    assert (replay.recording, replay.speed) == ("imu_held_out", 40)


@pytest.mark.parametrize("broker", [None, "gw-1"])
@pytest.mark.parametrize("models", [{}, MODELS], ids=["declared", "released"])
def test_the_best_placement_uses_all_four_devices(
    broker: str | None, models: Mapping[str, ModelFacts], workflow: Workflow, inventory: Inventory
) -> None:
    placement = placed(workflow, inventory, PlanPolicy(broker_device=broker), models)
    assert where(placement) == EXPECTED
    assert placement.gap == 0.0
    for path in placement.paths:
        assert path.deadline_ms is not None
        assert path.latency_ms < path.deadline_ms / 4  # room for what emulated devices add


def test_every_aim_has_a_reason_that_a_reader_understands(workflow: Workflow, inventory: Inventory) -> None:
    by_aim = {a.aim: a for a in placed(workflow, inventory).assignments}
    assert by_aim["imu"].reason == "only candidate"
    assert "has no imu sensor" in by_aim["imu"].rejected["mcu-2"]
    assert "RAM" in by_aim["extract"].rejected["mcu-2"]
    assert by_aim["decision"].reason.startswith("cheapest: ")
    assert by_aim["sink"].reason == "pinned by class edge"
    for model, elsewhere in (("classifier", "mcu-1"), ("anomaly", "mcu-2")):
        assert by_aim[model].reason == "only one that fits"
        assert re.fullmatch(r"needs [\d,]+ B RAM, [\d,]+ B left", by_aim[model].rejected[elsewhere])
        assert by_aim[model].rejected["gw-1"] == "pinned to zone wrist, this is zone room"


@pytest.mark.parametrize("device", ["edge-1", "gw-1", "mcu-1", "mcu-2"])
def test_no_device_can_hold_the_whole_workflow_even_without_pins(
    device: str, workflow: Workflow, inventory: Inventory
) -> None:
    free = replace(workflow, aims=tuple(replace(leaf, placement=None) for leaf in workflow.aims))
    alone = Inventory(inventory.name, inventory.version, (inventory.device(device),), ())
    with pytest.raises(Infeasible):
        placed(free, alone)


def test_the_wrist_microcontroller_has_ram_for_one_model_but_not_for_both(
    workflow: Workflow, inventory: Inventory
) -> None:
    devices = tuple(d for d in inventory.devices if d.id != "mcu-2")
    links = tuple(replace(k, members=tuple(m for m in k.members if m != "mcu-2")) for k in inventory.links)
    without = Inventory(inventory.name, inventory.version, devices, links)
    with pytest.raises(Infeasible) as refused:
        placed(workflow, without)
    story = refused.value.diagnostics()
    assert "mcu-1" in story
    assert "RAM" in story


def test_every_device_admits_what_is_placed_on_it(
    workflow: Workflow, inventory: Inventory, tmp_path: Path
) -> None:
    samples, one = np.zeros((1, 100, 6), np.int16), np.ones(1, np.int16)
    recording = Recording(samples, one.astype(np.uint64), one.astype(np.int8) - 1, one, ("pendulum",))
    write_recording(tmp_path / "imu_held_out.npz", recording)
    devices = {d.id: EmulatedDevice(d, tmp_path, clock=SystemClock()) for d in inventory.devices}
    for assignment in placed(workflow, inventory).assignments:
        contract = workflow.aim(assignment.aim).metadata
        implementation = contract.implementation(assignment.implementation)
        assert implementation is not None
        model = MODELS[implementation.model.component].bytes_ if implementation.model else 0
        queues = sum(port.queue_depth * port.payload_bytes for port in contract.inputs)
        devices[assignment.device].admit(
            assignment.aim, implementation, queue_bytes=queues, model_bytes=model
        )
    assert all(device.usage().ram_bytes > 0 for device in devices.values())


def test_raw_motion_never_leaves_the_device_that_measured_it(
    workflow: Workflow, inventory: Inventory
) -> None:
    devices = where(placed(workflow, inventory))
    zones = {d.id: d.zone for d in inventory.devices}
    for channel in workflow.channels:
        if channel.source.at_boundary or channel.destination.at_boundary:
            continue
        ends = devices[channel.source.aim], devices[channel.destination.aim]
        if channel.source.port == "window":
            assert ends[0] == ends[1]
        if channel.source.port == "features":
            assert {zones[end] for end in ends} == {"wrist"}


def test_the_readme_tells_the_placement_that_is_found(workflow: Workflow, inventory: Inventory) -> None:
    text = (GESTURE / "README.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| `([\w-]+)` \| ", text, re.MULTILINE))
    assert {aim: told[aim] for aim in EXPECTED} == where(placed(workflow, inventory))
    for device, drawn in re.findall(r"subgraph (\S+)\n(.*?)\n  end", text, re.DOTALL):
        for aim in re.findall(r"^    (\w+)\[", drawn, re.MULTILINE):
            assert EXPECTED[aim] == device


def test_the_readme_tells_every_channel_with_type_size_and_rate(workflow: Workflow) -> None:
    text = (GESTURE / "README.md").read_text(encoding="utf-8")
    rates = derive_rates({leaf.id: leaf.metadata for leaf in workflow.aims}, workflow.channels)
    for channel in workflow.channels:
        port = workflow.port(channel.source, output=True)
        row = (
            f"| `{channel.source}` | `{channel.destination}` | `{port.type.record}` | {port.payload_bytes:,} "
            f"| {rates[channel.source]:g} |"
        )
        assert row in text
    for limit in workflow.metadata.paths:
        assert (
            f"| `{limit.id}` | `{limit.source}` | `{limit.destination}` | {limit.deadline_ms:g} ms |" in text
        )


# --- the composite --------------------------------------------------------------------------------------


def test_a_composite_aim_becomes_its_parts_with_the_same_channels(workflow: Workflow) -> None:
    expanded = loaded(COMPOSITE).workflow
    inside = {"classifier", "anomaly", "decision"}
    assert [leaf.id for leaf in expanded.aims] == [
        f"analysis.{leaf.id}" if leaf.id in inside else leaf.id for leaf in workflow.aims
    ]
    flat = {str(channel).replace("analysis.", "") for channel in expanded.channels}
    assert flat == {str(channel) for channel in workflow.channels}


def test_its_parts_are_placed_one_by_one(inventory: Inventory) -> None:
    devices = where(placed(loaded(COMPOSITE).workflow, inventory))
    assert devices["analysis.classifier"] == "mcu-1"
    assert devices["analysis.anomaly"] == devices["analysis.decision"] == "gw-1"
