"""A standby is ready before it is needed: a take-over downloads nothing, and a standby hears nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from aif.cli._publishing import hand_over_here
from aif.model.standby import standby_of
from aif.protocol.deployment import Deployment
from aif.protocol.lifecycle import WorkflowState
from aif.runtime.controller.controller import RunningWorkflow
from aif.trusted.model_service import Download
from tests.runtime.mapping.test_remapping import QUICK, THREE, all_up, place_of, three
from tests.runtime.site import BenchSite, bench_site
from tests.runtime.test_sealed_models import AIMS, answer, publish
from tests.runtime.test_site_failures import SMALL_INVENTORY, THINKING, built, publish_model, thinker

READY = standby_of("think")
FAR = THREE.replace(
    "lan2, between: [left, spare], bandwidth_bps: 100000000, latency_ms: 1",
    "lan2, between: [left, spare], bandwidth_bps: 100000000, latency_ms: 20",
).replace(
    "lan3, between: [right, spare], bandwidth_bps: 100000000, latency_ms: 1",
    "lan3, between: [right, spare], bandwidth_bps: 100000000, latency_ms: 20",
)
"""The way to ``spare`` is longer, so that it is chosen for the standby."""

WORKFLOW = """
schema: 1
aiw: {name: Thinking, version: "1.0", implementer: tinyaif, description: "A model that is ready twice."}
aims:
  - {id: features, use: Features@1.0, placement: {device: left}}
  - {id: think, use: Thinker@1.0, inputs: {features: features.features},
     placement: {separate_from: [features], strength: hard}}
outputs: {scores: think.scores}
availability: {on_degraded: continue, standby: [think]}
"""


@asynccontextmanager
async def at_work(folder: Path, workflow: str = WORKFLOW) -> AsyncIterator[tuple[BenchSite, RunningWorkflow]]:
    """Three devices that are trusted, and a model that has answered."""
    async with three(folder, speed=3.0, aims=AIMS) as site:
        await all_up(site)
        publish(site)
        hand_over_here(site.home)
        running = await site.deploy(workflow)
        assert [list(value) for value in await site.outputs(running, 3)] == [answer()] * 3
        yield site, running


def model_files(site: BenchSite, device: str) -> list[str]:
    folder = site.home.device(device) / "models"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.integration
def test_a_standby_takes_over_without_a_download_and_gets_a_successor(tmp_path: Path) -> None:
    async def journey() -> None:
        async with at_work(tmp_path) as (site, running):
            first, second = place_of(running, "think"), place_of(running, READY)
            assert {first, second} == {"right", "spare"}
            assert model_files(site, first) == model_files(site, second) == ["thinker.A"]
            assert not site.hosted(second, running).instances

            site.store.stop()  # nothing can be fetched any more
            with site.controller.events.listening() as events:
                await site.kill(first)
                line = await site.until_logged("workflow re-mapped")
                gone = f"standby of think: nowhere, was on {second}"
                assert line["moves"] == f"think: {first} -> {second}; {gone}"
                assert [list(value) for value in await site.outputs(running, 3)] == [answer()] * 3
                seen = [events.get_nowait() for _ in range(events.qsize())]
            assert not [event for event in seen if event["type"] == "progress"]
            assert place_of(running, "think") == second
            assert running.placement.assignment("think").reason == f"taken over from {first}"
            assert running.state is WorkflowState.RUNNING
            assert running.unready == {"think"}

            await site.start_device(first)  # and when there is room again, there is a standby again
            await site.until_true(lambda: not running.unready and running.plan is not None)
            await site.until_logged("workflow re-mapped", moves=f"standby of think: nowhere -> {first}")
            assert place_of(running, READY) == first
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


@pytest.mark.integration
def test_a_standby_has_no_channel_and_no_key_of_one(tmp_path: Path) -> None:
    async def journey() -> None:
        async with at_work(tmp_path) as (site, running):
            assert running.plan is not None
            second = place_of(running, READY)
            assert running.plan.parts[second].standbys[0].id == "think"
            assert not running.plan.parts[second].aims
            assert not running.plan.parts[second].remote_channels
            ends = [*running.plan.senders.values(), *running.plan.receivers.values()]
            assert second not in {end.device for there in ends for end in there}
            communication = site.hosts[second].session.communication
            assert len(communication._senders) == len(communication._receivers) == 1  # the Controller's
            assert not site.hosts[second]._resources.factory._engines  # the model was tried, and closed again
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


@pytest.mark.integration
def test_a_lost_standby_stops_nothing_and_comes_back(tmp_path: Path) -> None:
    async def journey() -> None:
        async with at_work(tmp_path) as (site, running):
            first, second = place_of(running, "think"), place_of(running, READY)
            instance = site.hosted(first, running).instances["think"]
            await site.kill(second)
            await site.until_logged("workflow re-mapped", moves=f"standby of think: nowhere, was on {second}")
            assert running.state is WorkflowState.RUNNING
            await site.start_device(second)
            await site.until_logged("workflow re-mapped", moves=f"standby of think: nowhere -> {second}")
            await site.outputs(running, 3)
            assert site.hosted(first, running).instances["think"] is instance
            assert instance.metrics.restarts == 0
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


@pytest.mark.integration
def test_a_controller_that_follows_a_killed_one_knows_the_standbys(tmp_path: Path) -> None:
    async def journey() -> None:
        async with at_work(tmp_path) as (site, running):
            first, second = place_of(running, "think"), place_of(running, READY)
            await site.kill_controller()
            await site.start_controller()
            again = site.controller.workflow(running.aiw_id)
            await site.until(again, WorkflowState.RUNNING)
            assert place_of(again, READY) == second
            await site.kill(first)
            await site.until_logged("workflow re-mapped")
            assert place_of(again, "think") == second
            assert [list(value) for value in await site.outputs(again, 3)] == [answer()] * 3
            await site.controller.stop(again.aiw_id)

    asyncio.run(journey())


@pytest.mark.integration
def test_a_workflow_that_ends_does_not_wait_for_its_standbys(tmp_path: Path) -> None:
    contract, _ = AIMS["features"]
    short = """
        from aif.sdk import AIM, EndOfData


        class Features(AIM):
            def setup(self):
                self.left = 50

            def process(self):
                if not self.left:
                    raise EndOfData("all told")
                self.left -= 1
                return {"features": [1, 2, 3, 4, 5, 6, 7, 8]}
        """

    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims={**AIMS, "features": (contract, short)}) as site:
            await all_up(site)
            publish(site)
            hand_over_here(site.home)
            running = await site.deploy(WORKFLOW)
            await site.run_to_end(running)
            assert running.state is WorkflowState.COMPLETED
            site.check_nothing_is_left()

    asyncio.run(journey())


@pytest.mark.integration
def test_a_workflow_does_not_wait_long_for_a_device_that_would_only_stand_by(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(
            tmp_path, devices=("left", "right"), aims=AIMS, inventory=FAR, patience=QUICK, speed=3.0
        ) as site:
            await site.until_trusted("left", "right")
            publish(site)
            hand_over_here(site.home)
            running = await site.deploy(WORKFLOW)
            assert [list(value) for value in await site.outputs(running, 3)] == [answer()] * 3
            assert place_of(running, "think") == "right"
            assert running.unready == {"think"}
            site.add_device("spare")
            await site.start_device("spare")
            await site.until_logged("workflow re-mapped", moves="standby of think: nowhere -> spare")
            assert not running.unready
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


@pytest.mark.integration
def test_a_microcontroller_takes_over_from_another(tmp_path: Path) -> None:
    """Its slot holds the model in plain; nothing is fetched."""
    start = SMALL_INVENTORY.index("  - {id: right")
    twin = SMALL_INVENTORY[start : SMALL_INVENTORY.index("links:")].replace("right", "spare")
    link = "  - {id: lan2, between: [left, spare], bandwidth_bps: 100000000, latency_ms: 1}\n"
    inventory = SMALL_INVENTORY.replace("links:\n", f"{twin}links:\n{link}")
    workflow = THINKING.replace("on_degraded: continue", "on_degraded: continue, standby: [think]")

    async def journey() -> None:
        async with bench_site(
            tmp_path, devices=("left", "right", "spare"), aims=thinker(4_096), inventory=inventory,
            patience=QUICK, speed=3.0,
        ) as site:  # fmt: skip
            await all_up(site)
            publish_model(site, built(1), 4_096)
            running = await site.deploy(workflow)
            before = await site.outputs(running, 2)
            first, second = place_of(running, "think"), place_of(running, READY)
            assert {first, second} == {"right", "spare"}
            usage = site.hosts[second]._platform.usage()
            assert usage.ram_bytes > 0
            assert usage.flash_bytes > 0
            site.store.stop()
            await site.kill(first)
            await site.until_logged("workflow re-mapped")
            assert place_of(running, "think") == second
            assert await site.outputs(running, 2) == before
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


@pytest.mark.integration
def test_a_loss_comes_before_a_standby_that_is_still_downloading(tmp_path: Path) -> None:
    begun = threading.Event()

    async def journey() -> None:
        async with bench_site(
            tmp_path, devices=("left", "right"), aims=AIMS, inventory=FAR, patience=QUICK, speed=3.0
        ) as site:
            await site.until_trusted("left", "right")
            publish(site)
            hand_over_here(site.home)
            running = await site.deploy(WORKFLOW)
            await site.outputs(running, 3)
            site.add_device("spare")
            await site.start_device("spare")
            resources = site.hosts["spare"]._resources

            def stuck(part: Deployment, wanted: Download, progress: Callable[[int, int], None]) -> bytes:
                """The first download never ends by itself."""
                if begun.is_set():
                    return resources.fetch(part, wanted, progress)
                begun.set()
                while True:
                    progress(0, 1)  # raises when nobody wants it any more
                    threading.Event().wait(0.01)

            site.hosts["spare"]._resources = replace(resources, fetch=stuck)
            await site.until_true(begun.is_set)
            await site.kill("right")
            await site.until_logged("re-mapping put off")
            await site.until_logged("workflow re-mapped", moves="think: right -> spare")
            assert [list(value) for value in await site.outputs(running, 3)] == [answer()] * 3
            assert not site.log.lines("re-mapping failed")
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())
