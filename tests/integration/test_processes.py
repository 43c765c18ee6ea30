"""Processes that are killed in the middle: what goes on, what is reported, and that nobody is left."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aif.transport import local
from aif.transport.clients import Client
from tests.integration.terminals import (
    DEVICES,
    GESTURE,
    INVENTORY,
    PATIENCE_S,
    ROOT,
    Desk,
    Site,
    descendants,
    desk,
    gone,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


class Events:
    """What the Controller tells its User Agents, as it comes."""

    def __init__(self, stream: AsyncGenerator[dict[str, Any], None]) -> None:
        self.stream = stream

    async def until(self, kind: str, **facts: Any) -> dict[str, Any]:
        """The next event of a kind with these facts."""
        async with asyncio.timeout(PATIENCE_S):
            async for event in self.stream:
                if event["type"] == kind and facts.items() <= event.items():
                    return event
        raise AssertionError("the Controller ended")

    async def outputs(self, count: int) -> None:
        for _ in range(count):
            await self.until("output")


@asynccontextmanager
async def running(terminals: Desk, site: Site) -> AsyncIterator[Events]:
    """The gesture workflow, running on a site."""
    assert site.controller.process.returncode is None
    async with listening(terminals) as events:
        await terminals.ok("deploy", GESTURE, "--inventory", INVENTORY)
        await events.outputs(3)
        yield events


@asynccontextmanager
async def listening(terminals: Desk) -> AsyncIterator[Events]:
    """The events of the Controller that runs now."""
    source = local.stream(terminals.home / "site" / "controller.sock", "events")
    assert isinstance(source, AsyncGenerator)
    async with aclosing(source) as stream:
        events = Events(stream)
        await events.until("status")
        yield events


async def workflow(terminals: Desk) -> dict[str, Any]:
    status = json.loads(await terminals.ok("status", "--json"))
    (found,) = status["workflows"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("client", Client)
def test_a_broker_that_is_killed_and_started_again(
    home: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIF_CLIENT", client)

    async def journey() -> None:
        async with desk(home) as terminals:
            site = await terminals.gesture_site(follow=True)
            async with running(terminals, site) as events:
                await site.broker.kill()
                for device in site.devices.values():
                    await device.until("the connection to the broker is lost")
                await terminals.broker(int(site.broker_url.rpartition(":")[2]))
                for device in site.devices.values():
                    await device.until("connected to the broker again")
                await events.outputs(50)
                found = await workflow(terminals)
                assert found["state"] == "running", found["note"]
                # what was on its way when the broker died is lost and said to be; nothing is refused
                messages = [metrics["messages"] for metrics in found["metrics"].values()]
                assert sum(m["rejected"] for m in messages) == 0, found["metrics"]
                assert sum(m["lost"] for m in messages) < 100
                await terminals.ok("stop", "GestureRecognition-1")
            for process in (site.controller, *site.devices.values()):
                assert "Traceback" not in process.output
                assert "was never retrieved" not in process.output

    asyncio.run(journey())


def test_a_gateway_that_is_killed_and_started_again_gets_its_aims_again(home: Path) -> None:
    async def journey() -> None:
        async with desk(home) as terminals:
            site = await terminals.gesture_site(follow=True)
            async with running(terminals, site) as events:
                await site.devices["gw-1"].kill()
                degraded = await events.until("workflow", state="degraded")
                assert degraded["note"] == "device gw-1 is away (its connection ended)"
                where = ("--device", "gw-1", "--inventory", INVENTORY, "--broker", site.broker_url)
                again = await terminals.start("host", *where)
                await again.until("session with the Controller is trusted")
                await site.controller.until("workflow re-mapped")
                await events.until("workflow", state="running")
                await events.outputs(3)
                await terminals.ok("stop", "GestureRecognition-1")

    asyncio.run(journey())


def test_devices_go_on_with_a_controller_that_was_killed_and_started_again(home: Path) -> None:
    async def journey() -> None:
        async with desk(home) as terminals:
            site = await terminals.gesture_site(follow=True)
            async with running(terminals, site):
                await site.controller.kill()
            url = (await site.store.until(r"store on (\S+)"))[1]
            again = await terminals.controller(site.broker_url, url)
            await again.until("workflow taken over")
            async with listening(terminals) as events:
                await events.outputs(20)  # while their sessions with the Controller are renewed
            await again.until(r'"workflow state".*"running"')
            found = await workflow(terminals)
            assert found["aiw"] == "GestureRecognition-1"
            assert found["state"] == "running", found["note"]
            assert set(found["devices"]) == set(DEVICES)
            for device in site.devices.values():
                assert "AIM changed state" not in device.output
            await terminals.ok("stop", "GestureRecognition-1")

    asyncio.run(journey())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_run_that_is_interrupted_leaves_nobody(home: Path, number: signal.Signals) -> None:
    async def journey() -> None:
        async with desk(home) as terminals:
            arguments = ("run", GESTURE, "--inventory", INVENTORY, "--follow")
            run = await terminals.start(*arguments)
            await run.until("is running")
            pids = descendants(run.pid)
            assert len(pids) >= 9  # itself, the broker and its child, the store, the Controller, four devices
            code = await run.interrupt(number)
            assert code == (-signal.SIGKILL if number is signal.SIGKILL else 130)
            await gone(pids)
            assert "Traceback" not in run.output

    asyncio.run(journey())


def test_a_composite_workflow_runs_to_its_end(home: Path, tmp_path: Path) -> None:
    async def journey() -> None:
        async with desk(home) as terminals:
            summary = tmp_path / "summary.json"
            composite = ROOT / "workflows" / "composite_demo"
            run = await terminals.start("run", composite, "--inventory", INVENTORY, "--summary", summary)
            await run.until("is running")
            assert await run.ended() == 0, run.output
            told = json.loads(summary.read_text())
            aims = {aim for device in told["devices"] for aim in device["aims"]}
            assert aims == {
                "imu", "extract", "analysis.classifier", "analysis.anomaly", "analysis.decision", "sink",
            }  # fmt: skip
            assert told["windows"] == 600
            assert told["messages"]["lost"] == told["messages"]["rejected"] == 0
            assert told["messages"]["plaintext_on_wire"] == 0

    asyncio.run(journey())
