"""A running workflow keeps going when its devices are lost, restarted or drained: in one process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aif.errors import PlacementError
from aif.protocol.control import Phase
from aif.protocol.lifecycle import Signal, WorkflowState
from aif.runtime.controller.controller import Patience, RunningWorkflow
from aif.runtime.mapping.remapping import Move
from tests.runtime.site import ENDLESS, INVENTORY, BenchSite, bench_site

DEVICE = """
  - {id: NAME, class: gateway, board: bench-NAME, arch: x86-64, os: Linux, instructions_per_s: 1000000000,
     ram_bytes: 100000000, flash_bytes: 100000000, runtimes: [python, tflite], attestation: software}
"""
LINK = "  - {id: LINK, between: [ONE, spare], bandwidth_bps: 100000000, latency_ms: 1}\n"
THREE = (
    INVENTORY.replace("links:", DEVICE.strip("\n").replace("NAME", "spare") + "\nlinks:")
    + LINK.replace("LINK", "lan2").replace("ONE", "left")
    + LINK.replace("LINK", "lan3").replace("ONE", "right")
)
APART = "{separate_from: [count], strength: hard}"
MOVABLE = ENDLESS.replace("{device: right}", APART)
"""``double`` may run anywhere but where ``count`` and ``add`` are pinned to."""

GOES_ON = MOVABLE.replace("ON_DEGRADED", "continue")
STOPS = MOVABLE.replace("ON_DEGRADED", "stop")
QUICK = Patience(repeat_s=0.2, degraded_s=1.0, stop_s=1.0, dwell_s=600.0)


def place_of(running: RunningWorkflow, aim: str) -> str:
    return running.placement.device_of(aim)


def other(device: str) -> str:
    return "spare" if device == "right" else "right"


async def all_up(site: BenchSite) -> None:
    await site.until_trusted("left", "right", "spare")


def three(folder: Path, **more: Any) -> Any:
    return bench_site(folder, devices=("left", "right", "spare"), inventory=THREE, patience=QUICK, **more)


@asynccontextmanager
async def at_work(folder: Path, workflow: str) -> AsyncIterator[tuple[BenchSite, RunningWorkflow]]:
    """Three devices that are trusted, and a workflow that has put something out."""
    async with three(folder, speed=3.0) as site:
        await all_up(site)
        running = await site.deploy(workflow)
        await site.outputs(running, 5)
        yield site, running


def increasing(values: list[int]) -> bool:
    return all(a < b for a, b in itertools.pairwise(values))


def test_aims_of_a_lost_device_go_on_elsewhere_and_the_others_never_stop(tmp_path: Path) -> None:
    async def journey() -> None:
        async with at_work(tmp_path, STOPS) as (site, running):
            victim = place_of(running, "double")
            before = site.hosted("left", running)
            count, add = before.instances["count"], before.instances["add"]
            worked = count.metrics.invocations
            await site.kill(victim)
            await site.until_logged("workflow re-mapped")
            assert place_of(running, "double") == other(victim)
            values = await site.outputs(running, 20)
            assert increasing(values)
            assert running.state is WorkflowState.RUNNING
            after = site.hosted("left", running)
            assert after is before
            assert after.instances["count"] is count
            assert after.instances["add"] is add
            assert count.metrics.invocations > worked
            assert count.metrics.restarts == add.metrics.restarts == 0
            line = site.log.lines("workflow re-mapped")[0]
            assert line["moves"] == f"double: {victim} -> {other(victim)}"
            assert f"{victim} is lost" in line["reason"]
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_device_that_started_anew_gets_its_part_again(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, speed=3.0, patience=QUICK) as site:
            await site.until_trusted("left", "right")
            running = await site.deploy(ENDLESS.replace("ON_DEGRADED", "continue"))
            await site.outputs(running, 5)
            add = site.hosted("left", running).instances["add"]
            await site.kill("right")
            await site.until(running, WorkflowState.DEGRADED)
            await site.start_device("right")
            await site.until_logged("workflow re-mapped", moves="double: right -> right")
            await site.outputs(running, 5)
            assert running.state is WorkflowState.RUNNING
            assert site.hosted("left", running).instances["add"] is add
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_workflow_goes_on_with_a_controller_that_follows_one_that_was_killed(tmp_path: Path) -> None:
    async def journey() -> None:
        async with at_work(tmp_path, STOPS) as (site, first):
            hosted = site.hosted("left", first)
            count = hosted.instances["count"]
            await site.kill_controller()
            worked = count.metrics.invocations
            await site.start_controller()
            again = site.controller.workflow(first.aiw_id)
            await site.until(again, WorkflowState.RUNNING)
            assert increasing(await site.outputs(again, 20))
            assert site.hosted("left", again) is hosted
            assert hosted.instances["count"] is count
            assert count.metrics.invocations > worked
            victim = place_of(again, "double")  # and it still heals
            await site.kill(victim)
            await site.until_logged("workflow re-mapped")
            assert increasing(await site.outputs(again, 20))
            assert (await site.deploy(STOPS)).aiw_id == "Adding-2"
            await site.controller.stop(again.aiw_id)
            assert not (site.home.site / "workflows" / again.aiw_id).exists()

    asyncio.run(journey())


def test_a_device_is_drained_while_its_workflow_runs(tmp_path: Path) -> None:
    async def journey() -> None:
        async with at_work(tmp_path, GOES_ON) as (site, running):
            victim = place_of(running, "double")
            count = site.hosted("left", running).instances["count"]
            moves = {running.aiw_id: (Move("double", victim, other(victim)),)}
            assert await site.controller.draining.proposal(victim) == moves
            assert place_of(running, "double") == victim
            with pytest.raises(PlacementError):  # two AIMs are pinned there
                await site.controller.draining.proposal("left")
            assert await site.controller.draining.drain(victim) == moves
            await site.until_true(lambda: not site.hosts[victim]._parts)
            await site.until_logged("workflow re-mapped", reason=f"{victim} is drained")
            assert increasing(await site.outputs(running, 20))
            assert site.hosted("left", running).instances["count"] is count
            await site.controller.stop(running.aiw_id)
            again = await site.deploy(GOES_ON)
            assert place_of(again, "double") == other(victim)
            site.registry.set_drained(victim, drained=False)
            assert not site.registry.device(victim).drained

    asyncio.run(journey())


def test_a_revoked_device_loses_its_aims_and_a_workflow_without_room_stops(tmp_path: Path) -> None:
    async def journey() -> None:
        async with at_work(tmp_path, STOPS) as (site, running):
            first = place_of(running, "double")
            await site.controller.revocation.revoke(first, "test")
            await site.until_logged("workflow re-mapped")
            assert increasing(await site.outputs(running, 20))
            await site.kill(other(first))
            await site.until_logged("no place is left")
            await site.run_to_end(running)
            assert running.state is WorkflowState.STOPPED
            assert running.note.startswith(f"device {other(first)} is away")

    asyncio.run(journey())


def test_what_moves_in_a_paused_workflow_is_paused_too(tmp_path: Path) -> None:
    async def journey() -> None:
        async with at_work(tmp_path, GOES_ON) as (site, running):
            victim = place_of(running, "double")
            site.controller.signal(running.aiw_id, Signal.PAUSE)
            await site.until_true(lambda: running.phases(Phase.PAUSED))
            await site.controller.draining.drain(victim)
            await site.until_logged("workflow re-mapped")
            await site.until_true(lambda: running.phases(Phase.PAUSED))
            site.controller.signal(running.aiw_id, Signal.RESUME)
            assert increasing(await site.outputs(running, 10))

    asyncio.run(journey())


def test_neighbours_that_a_loss_has_brought_together_run_to_their_end(tmp_path: Path) -> None:
    """Sealed channels become local ones: no record is duplicated, and the end of the stream comes through."""
    workflow = ENDLESS.replace("{device: right}", "{separate_from: [count], strength: soft}")
    workflow = workflow.replace("ON_DEGRADED", "stop").replace(
        "use: Ticker@1.0,", "use: Ticker@1.0, parameters: {last: 1500},"
    )

    async def journey() -> None:
        async with bench_site(tmp_path, speed=3.0, patience=QUICK) as site:
            await site.until_trusted("left", "right")
            running = await site.deploy(workflow)
            await site.outputs(running, 5)
            assert place_of(running, "double") == "right"
            count = site.hosted("left", running).instances["count"]
            await site.kill("right")
            outputs = [event["value"] for event in await site.run_to_end(running)]
            assert running.state is WorkflowState.COMPLETED, running.note
            assert place_of(running, "double") == "left"
            assert increasing(outputs)
            assert count.metrics.invocations == 1500
            site.check_nothing_is_left()

    asyncio.run(journey())
