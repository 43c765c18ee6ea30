"""Devices, brokers and Controllers that go and come back; keys that change; clocks that are wrong."""

from __future__ import annotations

import asyncio
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aif.cli import _wiring as wiring
from aif.errors import EnrolmentRefused
from aif.protocol.lifecycle import WorkflowState
from aif.runtime.controller.controller import Patience, RunningWorkflow
from tests.runtime.site import ENDLESS, BenchSite, bench_site

STOP = ENDLESS.replace("ON_DEGRADED", "stop")
CONTINUE = ENDLESS.replace("ON_DEGRADED", "continue")
QUICK = 5.0
"""Seconds of the site per second of the test, where silence has to be waited for."""


async def running_workflow(site: BenchSite, workflow: str = CONTINUE) -> RunningWorkflow:
    running = await site.deploy(workflow)
    await site.outputs(running, 3)
    return running


# --- the broker -------------------------------------------------------------------------------------


def test_a_broker_that_goes_and_comes_back(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            running = await running_workflow(site)
            site.broker.stop()
            await site.until_logged("the connection to the broker is lost", origin="right")
            site.broker.start()
            await site.until_logged("connected to the broker again", origin="right")
            await site.outputs(running, 20)
            assert running.state is WorkflowState.RUNNING
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()
            assert not site.log.lines("control message failed")

    asyncio.run(journey())


def test_the_end_of_a_stream_waits_for_the_connection(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            running = await running_workflow(site)
            source = site.hosted("left", running).instances["count"]
            site.broker.stop()
            await source.stop()
            site.broker.start()
            await site.run_to_end(running)
            assert running.state is WorkflowState.COMPLETED, running.note
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_loops_stay_quiet_when_the_broker_ends_first(tmp_path: Path) -> None:
    async def journey() -> None:
        problems: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with bench_site(tmp_path, patience=Patience(stop_s=0.3)) as site:
            await running_workflow(site)
            site.broker.stop()
            await site.until_logged("the connection to the broker is lost", origin="controller")
        assert problems == []

    asyncio.run(journey())


# --- devices ----------------------------------------------------------------------------------------


def test_a_lost_device_stops_a_workflow_that_asks_for_it(tmp_path: Path) -> None:
    async def journey() -> None:
        patience = Patience(degraded_s=1)
        async with bench_site(tmp_path, speed=QUICK, patience=patience) as site:
            running = await running_workflow(site, STOP)
            site.broker.partition("right")
            await site.until(running, WorkflowState.DEGRADED)
            assert running.note.startswith("device right is away (silent for ")
            await site.run_to_end(running)
            assert running.state is WorkflowState.STOPPED
            assert running.note.startswith("device right is away (silent for ")
            site.broker.heal("right")
            await site.until_logged("device holds a workflow that has ended", device="right")
            await site.until_true(lambda: not site.hosts["right"]._parts)
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_lost_device_degrades_a_workflow_that_goes_on(tmp_path: Path) -> None:
    async def journey() -> None:
        patience = Patience(degraded_s=0.5)
        async with bench_site(tmp_path, speed=QUICK, patience=patience) as site:
            running = await running_workflow(site)
            site.broker.partition("right")
            await site.until(running, WorkflowState.DEGRADED)
            site.broker.heal("right")
            await site.until(running, WorkflowState.RUNNING)
            assert running.note == ""
            await site.outputs(running, 20)

    asyncio.run(journey())


def test_a_killed_device_is_noticed_and_gets_its_aims_again(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, speed=QUICK) as site:
            running = await running_workflow(site)
            await site.kill("right")
            await site.until(
                running, WorkflowState.DEGRADED, note="device right is away (its connection ended)"
            )
            await site.until_logged("no place is left")
            await site.start_device("right")
            await site.until_logged("workflow re-mapped", reason="right has started anew")
            await site.outputs(running, 5)
            await site.until(running, WorkflowState.RUNNING)
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_device_that_is_stopped_says_so(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, patience=Patience(degraded_s=0.5)) as site:
            running = await running_workflow(site, STOP)
            await site.end("right")
            await site.run_to_end(running)
            assert running.state is WorkflowState.STOPPED
            assert running.note == "device right was stopped or restarted and has lost its AIMs"
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_device_that_is_lost_while_it_prepares(tmp_path: Path) -> None:
    async def journey() -> None:
        patience = Patience(degraded_s=1)
        async with bench_site(tmp_path, speed=QUICK, patience=patience) as site:
            await site.until_trusted("left", "right")
            site.broker.partition("right")
            running = await site.deploy()
            await site.run_to_end(running)
            assert running.state is WorkflowState.FAILED
            assert running.note.startswith("right was lost while Adding-1 was deployed: silent for ")
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_removed_device_loses_its_trust_and_fails_its_workflow(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, speed=QUICK) as site:
            running = await running_workflow(site, STOP)
            site.registry.forget("right")
            await site.run_to_end(running)
            assert running.state is WorkflowState.FAILED
            assert running.note == "right is not trusted: it was removed from the registry"
            line = await site.until_logged("hello ignored", device="right")
            assert line["reason"] == "right is not registered"

    asyncio.run(journey())


# --- trust ------------------------------------------------------------------------------------------


def test_a_device_with_another_runtime_gets_no_key(tmp_path: Path) -> None:
    async def journey() -> None:
        changed = tmp_path / "changed"
        changed.mkdir()
        shutil.copy(wiring.PACKAGE / "errors.py", changed)
        patience = Patience(connect_s=1.5)
        async with bench_site(tmp_path, devices=("left",), patience=patience) as site:
            site.add_device("right")
            await site.start_device("right", runtime=changed)
            line = await site.until_logged("evidence rejected", device="right")
            assert line["step"] == "measurement"
            running = await site.deploy()
            await site.run_to_end(running)
            assert running.note.startswith("Adding-1 waits for devices: right is ")
            assert "evidence refused at step measurement: " in running.note
            assert len(site.log.lines("evidence rejected")) == 1
            assert not site.hosts["right"].session.trusted.is_set()

    asyncio.run(journey())


def test_devices_find_a_controller_that_was_restarted(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, speed=QUICK) as site:
            await running_workflow(site)
            before = site.controller
            # as a process that is killed: nobody is told
            site.broker.partition("controller")
            await site.end("controller")
            site.broker.heal("controller")
            await site.start_controller()
            assert site.controller is not before
            await site.until_trusted("left", "right")
            # its first grants are taken, though this boot of the devices has had others
            taken = len(site.log.lines("evidence accepted"))
            await site.until_true(lambda: all(h.session.trusted.is_set() for h in site.hosts.values()))
            assert len(site.log.lines("evidence accepted")) == taken
            # what the devices still ran is not this Controller's: they drop it, and are free for more
            await site.until_logged("device holds a workflow that has ended", device="left")
            await site.until_true(lambda: not any(host._parts for host in site.hosts.values()))
            site.check_nothing_is_left()
            running = await site.deploy()
            await site.run_to_end(running)
            assert running.state is WorkflowState.COMPLETED, running.note

    asyncio.run(journey())


def test_keys_change_without_a_loss(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            running = await running_workflow(site)
            assert running.plan is not None
            for _ in range(3):
                site.controller.rekeying.renew(running.plan)
                await site.outputs(running, 30)
            await site.hosted("left", running).instances["count"].stop()
            await site.run_to_end(running)
            assert running.state is WorkflowState.COMPLETED
            assert (site.messages(running, "lost"), site.messages(running, "rejected")) == (0, 0)

    asyncio.run(journey())


# --- clocks -----------------------------------------------------------------------------------------


def test_a_clock_that_is_fast_is_named_on_both_sides_and_does_no_harm(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left",)) as site:
            site.add_device("right")
            await site.start_device("right", skew_s=600)
            there = await site.until_logged("a device's clock differs from the Controller's", device="right")
            here = await site.until_logged(
                "this device's clock differs from the Controller's", origin="right"
            )
            assert (there["skew_s"], here["skew_s"]) == (600.0, 600.0)
            assert there["hint"] == "set the clock there; ages, deadlines and grants depend on it"
            assert here["hint"] == "set the clock; ages, deadlines and grants depend on it"
            running = await site.deploy()
            await site.run_to_end(running)
            assert running.state is WorkflowState.COMPLETED, running.note
            assert len(site.log.lines("this device's clock differs from the Controller's")) == 1

    asyncio.run(journey())


def test_a_clock_that_is_slow_gets_its_grants_refused_with_the_reason(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left",), patience=Patience(connect_s=0.5)) as site:
            site.add_device("right")
            await site.start_device("right", skew_s=-600)
            there = await site.until_logged("a device's clock differs from the Controller's", device="right")
            assert there["skew_s"] == -600.0
            line = await site.until_logged("grant refused", origin="right")
            found = re.fullmatch(r"grant: valid from (\d+) to (\d+), and it is (\d+)", line["reason"])
            assert found
            assert int(found[1]) - int(found[3]) in range(530, 545)  # valid from 60 s before it was issued
            assert line["code"] == "AIF-E0502"
            assert line["hint"] == "compare the device's time with the Controller's"
            assert not site.hosts["right"].session.trusted.is_set()
            assert site.hosts["right"].session.troubles().keys() == {"grant.time"}

    asyncio.run(journey())


# --- enrolment --------------------------------------------------------------------------------------


def test_a_device_is_added_once(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left",)) as site:
            identity = site.registry.device("left").identity_pk
            with pytest.raises(EnrolmentRefused, match=r"^device left is registered already$") as refused:
                site.add_device("left")
            assert refused.value.hint == (
                "choose another name, or remove it first with `aif device remove left`"
            )
            assert site.registry.device("left").identity_pk == identity == site.engines["left"].identity_pk

    asyncio.run(journey())


def test_the_pairing_code_must_be_the_devices_own(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=()) as site:
            codes = {name: site.add_device(name) for name in ("left", "right")}
            with pytest.raises(EnrolmentRefused) as other:
                site.registry.open_window("left", codes["right"], now_s=0)
            assert str(other.value) == "the pairing code is mistyped or belongs to another device"
            with pytest.raises(EnrolmentRefused) as short:
                site.registry.open_window("left", codes["left"][:-1], now_s=0)
            assert short.value.hint == "type all seven groups of four"

    asyncio.run(journey())


def test_a_window_that_has_closed(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=()) as site:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(wiring, "now", lambda: datetime.now(UTC) - timedelta(minutes=16))
                site.add_device("left")
            await site.start_device("left")
            line = await site.until_logged("enrolment refused", device="left")
            assert (line["code"], line["reason"], line["hint"]) == (
                "AIF-E0502", "the enrolment window has closed", "provision the device again",
            )  # fmt: skip
            assert not site.home.device_state("left").load().enrolled

    asyncio.run(journey())


def test_an_attempt_without_the_pairing_code_is_counted(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=()) as site:
            site.add_device("left")
            site.home.device_state("left").update(lambda state: replace(state, secret=bytes(16)))
            await site.start_device("left")
            line = await site.until_logged("enrolment refused", device="left")
            assert line["reason"] == "the enrolment message was not made with this pairing code"
            assert site.registry.device("left").wrong_macs > 0
            assert not site.home.device_state("left").load().enrolled

    asyncio.run(journey())


def test_a_device_that_nobody_answers_says_so(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=(), speed=20) as site:
            site.add_device("left")
            await site.end("controller")
            await site.start_device("left")
            line = await site.until_logged("nobody answers the enrolment")
            assert line["hint"] == (
                "is the Controller running, on the same broker? its log says whether it refused; an "
                "enrolment window is open for 15 minutes after `aif device add`"
            )
            await site.start_controller()
            await site.until_trusted("left")
            await site.end("controller")
            await site.until_logged("the Controller is silent; asking for a new session")
            line = await site.until_logged("the Controller does not answer")
            assert line["hint"] == (
                "is it running, on the same broker? `aif status` there says whether it refused it"
            )

    asyncio.run(journey())


def test_a_device_whose_notes_were_put_back_remembers_its_floors(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            await site.until_trusted("left", "right")
            notes = site.home.device_state("right")
            old = notes.path.read_bytes()
            await site.run_to_end(await site.deploy())
            mapping = notes.load().mapping_floor
            assert mapping > 0
            await site.end("right")
            notes.path.write_bytes(old)
            await site.start_device("right")
            line = await site.until_logged(
                "this device's notes were older than its Security Engine remembers"
            )
            assert line["floors"] == "mapping"
            assert notes.load().mapping_floor == mapping
            await site.until_trusted("right")
            outputs = await site.run_to_end(await site.deploy())
            assert len(outputs) == 20

    asyncio.run(journey())
