"""Messages of acknowledged channels reach their consumers once, whatever becomes of the devices."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aif.protocol.lifecycle import WorkflowState
from aif.runtime.workflows import RunningWorkflow
from tests.runtime.numbered import NUMBERED_AIMS, figures, numbered
from tests.runtime.site import BenchSite
from tests.runtime.test_remapping import all_up, other, place_of, three


async def run_to_end(site: BenchSite, running: RunningWorkflow, last: int) -> None:
    """Until the workflow has completed, and the tally has said that nothing is missing or twice there."""
    events = await site.run_to_end(running)
    assert running.state is WorkflowState.COMPLETED, running.note
    tally = [event["value"] for event in events if event["port"] == "tally"][-1]
    assert (tally["number"], tally["seen"], tally["again"]) == (last, last, 0)


def test_messages_are_acknowledged_when_nothing_happens(tmp_path: Path) -> None:
    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=NUMBERED_AIMS) as site:
            await all_up(site)
            running = await site.deploy(numbered(last=300, double="{device: right}", note="{device: left}"))
            await run_to_end(site, running, 300)
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_messages_to_an_aim_of_a_lost_device_are_sent_to_the_next_one(tmp_path: Path) -> None:
    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=NUMBERED_AIMS) as site:
            await all_up(site)
            running = await site.deploy(
                numbered(last=900, double="{separate_from: [count], strength: hard}", note="{device: left}")
            )
            await site.outputs(running, 20)
            victim = place_of(running, "double")
            await site.kill(victim)
            await site.until_logged("workflow re-mapped")
            assert place_of(running, "double") == other(victim)
            before = figures(site, running)
            assert before["count.number -> double.number"]["moved"] > 0
            await run_to_end(site, running, 900)

    asyncio.run(journey())
