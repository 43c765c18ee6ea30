"""Workflows over two devices, from planning to their end, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from aif.errors import LifecycleError, NotFound
from aif.protocol.lifecycle import Signal, WorkflowState
from aif.runtime.host.instance import AIMInstance
from aif.transport.faults import Delivery
from tests.runtime.site import AIMS, ENDLESS, WORKFLOW, BenchSite, bench_site

COMPOSITE: Mapping[str, tuple[str, str]] = {
    **AIMS,
    "adder": (
        """
        schema: 1
        aim: {name: DoubleAndAdd, version: "1.0", implementer: tinyaif, description: Doubles and adds.}
        inputs: {number: {type: int32, queue_depth: 64}}
        outputs: {total: {type: int64, from: add.total}}
        aims:
          - {id: double, use: Doubler@1.0, inputs: {number: aiw.number}, placement: {device: right}}
          - {id: add, use: Summer@1.0, inputs: {pair: double.pair}, placement: {device: left}}
        """,
        "",
    ),
}
TOTALS = [n * (n + 1) for n in range(1, 21)]


def test_a_workflow_runs_to_its_end_and_leaves_nothing(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            running = await site.deploy()
            outputs = await site.run_to_end(running)
            assert running.failure is None, running.failure.diagnostics()
            assert running.state is WorkflowState.COMPLETED
            assert [o["value"] for o in outputs] == TOTALS
            assert site.messages(running, "lost") == 0
            assert site.messages(running, "verified") == 40
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_channel_within_a_host_is_sealed_where_its_policy_says_so(tmp_path: Path) -> None:
    """Its frames are sealed and opened, and never meet the broker; the other channel hands values over."""
    on_one = WORKFLOW.replace("device: right", "device: left").replace(
        "outputs:", "channels: [{output: count.number, input: double.number, local: sealed}]\noutputs:"
    )

    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left",)) as site:
            data_topics: list[str] = []

            def note(delivery: Delivery) -> Iterable[Delivery]:
                data_topics.extend(t for t in [delivery.message.topic] if t.startswith("aif/ch/"))
                return (delivery,)

            site.broker.faults.append(note)
            running = await site.deploy(on_one)
            outputs = await site.run_to_end(running)
            assert running.failure is None, running.failure.diagnostics()
            assert [o["value"] for o in outputs] == TOTALS
            figures = running.metrics["left"]
            assert list(figures["channels"]) == ["count.number -> double.number"]
            assert figures["sent"] == {"count.number -> double.number": 20}
            assert {site.messages(running, name) for name in ("sealed", "verified")} == {20}
            assert data_topics == []

    asyncio.run(journey())


def test_a_composite_aim_runs_as_its_parts(tmp_path: Path) -> None:
    composite = """
    schema: 1
    aiw: {name: Adding, version: "1.0", implementer: tinyaif, description: "With a composite AIM."}
    aims:
      - {id: count, use: CounterSource@1.0, placement: {device: left}}
      - {id: rest, use: DoubleAndAdd@1.0, inputs: {number: count.number}}
    outputs: {total: rest.total}
    """

    async def journey() -> None:
        async with bench_site(tmp_path, aims=COMPOSITE) as site:
            running = await site.deploy(composite)
            outputs = await site.run_to_end(running)
            assert running.failure is None, running.failure.diagnostics()
            assert [o["value"] for o in outputs] == TOTALS
            assert {a: s.state for d in running.status.values() for a, s in d.aims.items()} == {
                "count": "stopped", "rest.double": "stopped", "rest.add": "stopped",
            }  # fmt: skip

    asyncio.run(journey())


def test_workflows_share_devices_and_end_on_their_own(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            names = ("First", "Second", "Third")
            started = [await site.deploy(WORKFLOW.replace("Adding", name)) for name in names]
            async with asyncio.timeout(10):
                await asyncio.gather(*(running.task for running in started if running.task is not None))
            assert [running.state for running in started] == [WorkflowState.COMPLETED] * 3
            assert [site.messages(running, "verified") for running in started] == [40, 40, 40]
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_the_same_workflow_runs_again_after_its_end(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            for number in (1, 2):
                running = await site.deploy()
                outputs = await site.run_to_end(running)
                assert running.aiw_id == f"Adding-{number}"
                assert [o["value"] for o in outputs] == TOTALS

    asyncio.run(journey())


async def endless(site: BenchSite) -> None:
    running = await site.deploy(ENDLESS.replace("ON_DEGRADED", "stop"))
    await site.outputs(running, 5)


def test_pause_holds_every_aim_and_resume_lets_them_go_on(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            await endless(site)
            running = site.controller.workflow("Adding-1")
            site.controller.signal("Adding-1", Signal.PAUSE)
            await site.until_true(
                lambda: all(i.state == "paused" for d in running.devices for i in aims(site, d))
            )
            await site.until(running, WorkflowState.PAUSED)
            held = [i.metrics.invocations for d in running.devices for i in aims(site, d)]
            before = dict(running.metrics)
            await site.until_true(
                lambda: all(running.metrics.get(d) is not before.get(d) for d in running.devices)
            )
            assert held == [i.metrics.invocations for d in running.devices for i in aims(site, d)]
            site.controller.signal("Adding-1", Signal.RESUME)
            await site.outputs(running, 5)
            await site.until(running, WorkflowState.RUNNING)
            assert site.messages(running, "lost") == 0

    asyncio.run(journey())


def aims(site: BenchSite, device: str) -> list[AIMInstance]:
    return list(site.hosted(device, site.controller.workflow("Adding-1")).instances.values())


def test_stop_in_the_middle_gives_everything_back(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            await endless(site)
            await site.controller.stop("Adding-1")
            assert site.controller.workflow("Adding-1").state is WorkflowState.STOPPED
            site.check_nothing_is_left()
            await site.controller.stop("Adding-1")  # no error

    asyncio.run(journey())


def test_stop_while_it_is_brought_up_gives_everything_back(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            running = await site.deploy()
            await site.until_true(lambda: bool(running.status))
            await site.controller.stop(running.aiw_id)
            assert running.state is WorkflowState.STOPPED
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_signals_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=()) as site:
            running = await site.deploy()
            await site.until(running, WorkflowState.DEPLOYING)
            with pytest.raises(LifecycleError, match=r"^Adding-1 is deploying; it cannot take PAUSE$"):
                site.controller.signal(running.aiw_id, Signal.PAUSE)
            with pytest.raises(NotFound, match=r"^no workflow 'Nope-1' is deployed$") as missing:
                await site.controller.stop("Nope-1")
            assert missing.value.hint == "deployed: Adding-1"

    asyncio.run(journey())
