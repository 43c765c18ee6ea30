"""What a workflow does without when there is no room, what comes back, and who is relied on again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aif.model.degrading import Service
from aif.protocol.lifecycle import WorkflowState
from tests.runtime.mapping.test_remapping import (
    GOES_ON,
    QUICK,
    STOPS,
    THREE,
    all_up,
    increasing,
    other,
    place_of,
    three,
)
from tests.runtime.site import ENDLESS, bench_site

SPEED = 3.0
AUDITED = ENDLESS.replace(
    "outputs:",
    "  - {id: audit, use: Doubler@1.0, inputs: {number: count.number}, placement: {device: right}}\noutputs:",
)
OPTIONAL = AUDITED.replace(
    "double, use: Doubler@1.0, inputs: {number: count.number}, placement: {device: right}",
    "double, use: Doubler@1.0, inputs: {number: count.number}, placement: {device: left}",
)
OPTIONAL = OPTIONAL.replace("{on_degraded: ON_DEGRADED}", "{on_degraded: stop, optional: [audit]}")
"""``audit`` hangs on a device of its own; the rest can do without it."""

SPARE = "board: bench-spare, arch: x86-64, os: Linux, instructions_per_s: 1000000000"
SLOWED = "runs at 50% of its rate, as there is no room for more"
WITHOUT = "runs without audit, for which there is no room"


def test_an_optional_aim_is_left_out_and_comes_back_and_the_rest_never_stops(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, speed=SPEED, patience=QUICK) as site:
            await site.until_trusted("left", "right")
            running = await site.deploy(OPTIONAL)
            await site.outputs(running, 5)
            before = site.hosted("left", running)
            aims = {aim: before.instances[aim] for aim in ("count", "double", "add")}
            await site.kill("right")
            await site.until(running, WorkflowState.DEGRADED, note=WITHOUT)
            line = await site.until_logged("workflow re-mapped")
            assert line["moves"] == "audit: left out, was on right"
            assert running.devices == ["left"]
            assert increasing(await site.outputs(running, 20))
            await site.start_device("right")
            await site.until_logged("workflow re-mapped", moves="audit: left out -> right")
            await site.until(running, WorkflowState.RUNNING)
            assert running.note == ""
            assert increasing(await site.outputs(running, 20))
            audit = site.hosted("right", running).instances["audit"]
            await site.until_true(lambda: audit.metrics.invocations > 0)
            assert {aim: site.hosted("left", running).instances[aim] for aim in aims} == aims
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_workflow_that_was_reduced_ends_well_and_outlives_its_controller(tmp_path: Path) -> None:
    workflow = OPTIONAL.replace("use: Ticker@1.0,", "use: Ticker@1.0, parameters: {last: 3000},")

    async def journey() -> None:
        async with bench_site(tmp_path, speed=SPEED, patience=QUICK) as site:
            await site.until_trusted("left", "right")
            first = await site.deploy(workflow)
            await site.outputs(first, 5)
            await site.kill("right")
            await site.until(first, WorkflowState.DEGRADED, note=WITHOUT)
            await site.kill_controller()
            await site.start_controller()
            again = site.controller.workflow(first.aiw_id)
            assert again.service == Service(frozenset({"audit"}))
            await site.until(again, WorkflowState.DEGRADED, note=WITHOUT)
            outputs = [event["value"] for event in await site.run_to_end(again)]
            assert again.state is WorkflowState.COMPLETED, again.note
            assert increasing(outputs)
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_workflow_slows_down_where_there_is_no_room_and_is_fast_again_later(tmp_path: Path) -> None:
    inventory = THREE.replace(SPARE, SPARE.replace("1000000000", "150000"))
    assert inventory != THREE
    workflow = STOPS.replace("{on_degraded: stop}", "{on_degraded: stop, least_rate: 0.2}")

    async def journey() -> None:
        async with bench_site(
            tmp_path, devices=("left", "right", "spare"), inventory=inventory, speed=5.0, patience=QUICK
        ) as site:
            await all_up(site)
            running = await site.deploy(workflow)
            await site.outputs(running, 5)
            count = site.hosted("left", running).instances["count"]
            assert (place_of(running, "double"), count.pace.rate) == ("right", 1.0)
            await site.kill("right")
            await site.until(running, WorkflowState.DEGRADED, note=SLOWED)
            assert (place_of(running, "double"), count.pace.rate) == ("spare", 0.5)
            line = await site.until_logged("workflow slows down")
            assert line["rate"] == 0.5
            assert "double" in line["reason"]
            assert "processor" in line["reason"] or "CPU" in line["reason"]
            assert increasing(await site.outputs(running, 20))
            await site.kill_controller()  # the next one knows
            await site.start_controller()
            again = site.controller.workflow(running.aiw_id)
            await site.until(again, WorkflowState.DEGRADED, note=SLOWED)
            slow_ms = again.slowed.until_ms
            await site.start_device("right")
            await site.until_logged("workflow is faster again")
            await site.until(again, WorkflowState.RUNNING)
            assert site.controller.admission._clock.monotonic_ms() >= slow_ms
            assert (place_of(again, "double"), count.pace.rate, again.note) == ("right", 1.0, "")
            assert increasing(await site.outputs(again, 20))
            assert site.hosted("left", again).instances["count"] is count
            await site.controller.stop(again.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_controller_that_follows_another_plans_with_what_devices_announce(tmp_path: Path) -> None:
    """Not with the file that the workflow was deployed with: there the last device has no room for all."""
    workflow = STOPS.replace("{on_degraded: stop}", "{on_degraded: stop, least_rate: 0.2}")

    async def journey() -> None:
        async with three(tmp_path, speed=SPEED) as site:
            await all_up(site)
            site.inventory_file.write_text(THREE.replace(SPARE, SPARE.replace("1000000000", "150000")))
            running = await site.deploy(workflow)
            await site.outputs(running, 5)
            await site.kill_controller()
            await site.start_controller()
            again = site.controller.workflow(running.aiw_id)
            await site.until(again, WorkflowState.RUNNING)
            await site.kill(place_of(again, "double"))
            await site.until_logged("workflow re-mapped")
            assert again.service == Service()

    asyncio.run(journey())


def test_the_stages_of_a_recovery_are_told_until_the_first_output(tmp_path: Path) -> None:
    async def journey() -> None:
        async with three(tmp_path, speed=1.0) as site:
            await all_up(site)
            running = await site.deploy(STOPS)
            await site.outputs(running, 5)
            told: dict[str, dict[str, Any]] = {}
            with site.controller.events.listening() as events:
                await site.kill(place_of(running, "double"))
                async with asyncio.timeout(30):
                    while {"remapped", "recovered"} - told.keys():
                        event = await events.get()
                        told[event["type"]] = event
            stages = told["remapped"]["stages_ms"]
            names = ["noticed", "planned", "deployed", "attested", "keyed", "started"]
            assert list(stages) == names
            assert [stages[name] for name in names] == sorted(stages.values())
            assert stages["noticed"] >= 200  # two questions of at least 100 ms
            assert told["recovered"]["port"] == "total"
            assert told["recovered"]["first_output_ms"] >= stages["keyed"]
            line = site.log.lines("workflow re-mapped")[0]
            assert {f"{name}_ms" for name in names} <= line.keys()

    asyncio.run(journey())


def test_a_device_that_keeps_leaving_gets_new_aims_only_where_no_other_can_take_them(tmp_path: Path) -> None:
    async def journey() -> None:
        async with three(tmp_path, speed=SPEED) as site:
            await all_up(site)
            running = await site.deploy(GOES_ON)
            await site.outputs(running, 5)
            unsteady = other(place_of(running, "double"))
            for times in (1, 2):  # it is no part of the workflow
                await site.kill(unsteady)
                await site.until_true(lambda: not site.controller.admission.trusted(unsteady))
                await site.start_device(unsteady)
                await site.until_trusted(unsteady)
                probation = site.controller._reasons(running).on_probation()
                assert probation == ({unsteady} if times == 2 else set())
            assert not site.log.lines("workflow re-mapped")
            await site.kill(place_of(running, "double"))
            await site.until_logged("workflow re-mapped")
            assert place_of(running, "double") == unsteady  # the only one
            assert increasing(await site.outputs(running, 20))

    asyncio.run(journey())


def test_a_controller_that_follows_another_is_known_to_devices_at_once(tmp_path: Path) -> None:
    """Not after its silence: it calls them."""

    async def journey() -> None:
        async with three(tmp_path, speed=1.0) as site:
            await all_up(site)
            running = await site.deploy(STOPS)
            await site.outputs(running, 5)
            await site.kill_controller()
            await site.start_controller()
            await site.until_trusted("left", "right", "spare")
            assert len(site.log.lines("the Controller asks for a new session")) == 3
            assert not site.log.lines("the Controller is silent; asking for a new session")
            again = site.controller.workflow(running.aiw_id)
            await site.until(again, WorkflowState.RUNNING)
            assert increasing(await site.outputs(again, 20))

    asyncio.run(journey())


def test_a_device_that_was_given_up_by_mistake_is_called_back(tmp_path: Path) -> None:
    async def journey() -> None:
        async with three(tmp_path, speed=1.0) as site:
            await all_up(site)
            site.broker.partition("spare")
            await site.until_logged("device lost", device="spare")
            site.broker.heal("spare")
            await site.until_logged("the Controller asks for a new session", origin="spare")
            await site.until_trusted("spare")
            assert not site.log.lines("the Controller is silent; asking for a new session")

    asyncio.run(journey())
