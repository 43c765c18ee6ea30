"""Which devices are watched closely: those that others wait for, and that a question costs little."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aif.protocol.lifecycle import WorkflowState
from aif.runtime.mapping.at_work import at_work
from tests.runtime.mapping.test_remapping import GOES_ON, all_up, increasing, other, place_of, three

ON_BATTERY = "board: bench-left, energy: {source: battery, battery_mwh: 1000},"


def test_devices_at_work_are_watched_closely_and_a_cut_link_is_noticed_soon(tmp_path: Path) -> None:
    async def journey() -> None:
        async with three(tmp_path) as site:
            await all_up(site)
            admission = site.controller.admission
            assert at_work(site.controller.workflows.values(), admission.sensing.calm) == {}
            running = await site.deploy(GOES_ON)
            await site.outputs(running, 5)
            victim = place_of(running, "double")
            found = at_work([running], admission.sensing.calm)
            assert set(found) == {"left", victim}
            assert all(0.0 < busy_ms < 1.0 for busy_ms in found.values())  # 1000 instructions
            assert at_work([running], lambda device: device == "left").keys() == {victim}
            running.state = WorkflowState.DEPLOYING
            assert at_work([running], admission.sensing.calm) == {}
            running.state = WorkflowState.RUNNING
            await site.until_true(lambda: admission.link(victim).answers.answers > 40)
            site.broker.partition(victim)
            line = await site.until_logged("device lost", device=victim)
            assert "answers took at most" in line["reason"]
            await site.until_logged("workflow re-mapped")
            assert place_of(running, "double") == other(victim)
            assert increasing(await site.outputs(running, 20))

    asyncio.run(journey())
