"""Somebody who may publish anything says that devices have gone: nothing moves, and real losses count."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aif.protocol.lifecycle import WorkflowState
from aif.transport.base import Received
from aif.transport.memory import MemoryTransport
from tests.runtime.mapping.test_remapping import GOES_ON, all_up, increasing, place_of, three

SPEED = 3.0
REFUTED = "a rumour was refuted: the device answers"


def test_rumours_about_a_device_that_lives_move_nothing(tmp_path: Path) -> None:
    """A flood of them, one for every word of a device; each kind of loss is noticed in the middle of it."""

    async def journey() -> None:
        async with (
            three(tmp_path, speed=SPEED) as site,
            MemoryTransport(site.broker, client_id="hostile") as hostile,
        ):
            await all_up(site)
            running = await site.deploy(GOES_ON)
            await site.outputs(running, 5)
            sent = 0

            def answer_with_rumours(heard: Received) -> None:
                nonlocal sent
                if heard.topic.startswith("aif/dev/") and heard.topic.endswith("/up/report"):
                    for _ in range(5):
                        hostile.send(heard.topic.replace("/report", "/status"), b"gone", qos=1)
                        sent += 1

            await hostile.subscribe("aif/dev/+/up/report", answer_with_rumours, qos=0)
            victim = place_of(running, "double")
            mapping = running.plan
            admission = site.controller.admission
            for device in ("left", "right", "spare"):
                await site.until_logged(REFUTED, device=device)
            assert increasing(await site.outputs(running, 300))
            assert running.plan is mapping
            assert running.state is WorkflowState.RUNNING
            assert not site.log.lines("device lost")
            assert sent > 200
            for device in ("left", "right", "spare"):  # what they cost: doubling pauses between questions
                assert admission.link(device).reputation.refuted < 8
            site.broker.partition(victim)
            await site.until_logged("workflow re-mapped")
            assert increasing(await site.outputs(running, 20))
            assert {line["device"] for line in site.log.lines("device lost")} == {victim}

    asyncio.run(journey())


def test_reports_of_a_device_that_is_lost_bring_few_calls(tmp_path: Path) -> None:
    """Anybody may speak in a lost device's name: the Controller signs one call a second at most."""

    async def journey() -> None:
        async with (
            three(tmp_path, speed=1.0) as site,
            MemoryTransport(site.broker, client_id="hostile") as hostile,
        ):
            await all_up(site)
            calls: list[Received] = []
            await hostile.subscribe("aif/dev/right/down/call", calls.append, qos=1)
            await site.kill("right")
            await site.until_logged("device lost", device="right")
            for _ in range(1_000):
                hostile.send("aif/dev/right/up/report", bytes(40), qos=0)
            await site.until_true(lambda: bool(calls))
            assert len(calls) <= 2

    asyncio.run(journey())
