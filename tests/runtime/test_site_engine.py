"""The Security Engine of a running host: its loss costs no workflow, its death too often costs the host."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from aif.errors import PSAError, PSAStatus, StartFailed
from aif.protocol.lifecycle import WorkflowState
from aif.runtime.devices.links import Trust
from aif.trusted.records import OWNER_BYTES
from aif.trusted.security_core import ROOT_FILE
from tests.runtime.site import ENDLESS, BenchSite, bench_site

GOES_ON = ENDLESS.replace("ON_DEGRADED", "stop")

OWNER = bytes(OWNER_BYTES)


async def lose_engine(site: BenchSite, device: str) -> None:
    """Kill the engine of a device, and wait until the device is trusted in another session."""
    engine, link = site.engines[device], site.controller.admission.link(device)
    before = engine.session_pk
    os.kill(engine.pid, signal.SIGKILL)
    await site.until_true(
        lambda: link.hello is not None and link.hello.session_public not in (before, b"")
        and link.trust is Trust.TRUSTED and site.hosts[device].session.trusted.is_set()
    )  # fmt: skip


def epochs(site: BenchSite, device: str) -> dict[str, int]:
    """Epochs of the channels that a device receives."""
    receivers = site.hosts[device].session.communication._receivers.values()
    return {r.channel.topic: r._receiver._epoch or 0 for r in receivers}


def test_a_workflow_goes_on_when_an_engine_was_killed(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, speed=4) as site:
            running = await site.deploy(GOES_ON)
            first = await site.outputs(running, 5)
            boot = site.controller.admission.link("right").hello
            identity, keys = site.engines["right"].identity_pk, epochs(site, "right")
            await lose_engine(site, "right")
            again = site.controller.admission.link("right").hello
            assert boot is not None
            assert again is not None
            assert again.boot_id == boot.boot_id
            assert again.session_public == site.engines["right"].session_pk != boot.session_public
            assert site.engines["right"].identity_pk == identity
            await site.until_true(lambda: all(epochs(site, "right")[t] > keys[t] for t in keys))
            later = await site.outputs(running, 5)
            assert later[0] > first[-1]
            assert running.state is WorkflowState.RUNNING, running.note
            lost = await site.until_logged("the Security Engine is lost; starting it again", origin="right")
            assert lost["level"] == "error"
            assert site.messages(running, "rejected") == 0

    asyncio.run(journey())


def test_a_host_whose_engine_died_four_times_is_unfit_and_drops_its_work(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            running = await site.deploy(GOES_ON)
            await site.outputs(running, 1)
            for _ in range(3):
                await lose_engine(site, "right")
            os.kill(site.engines["right"].pid, signal.SIGKILL)
            link = site.controller.admission.link("right")
            await site.until_true(lambda: link.trust is Trust.REJECTED)
            words = "unfit: the Security Engine died 4 times within a minute (SERVICE_FAILURE)"
            assert link.reason == words
            told = await site.until_logged("this host is unfit", origin="right")
            assert told["code"] == PSAError.code
            await site.until(running, WorkflowState.FAILED)
            assert isinstance(running.failure, StartFailed)
            assert running.note == f"right is not trusted: {words}"
            await site.until_true(lambda: not site.hosts["right"]._parts)
            assert site.engines["right"].lost
            assert site.controller.admission.trusted("left")

    asyncio.run(journey())


def test_a_device_with_restored_engine_files_gets_no_key(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left",)) as site:
            files, copy = site.home.engine("left"), tmp_path / "copy"
            await site.until_trusted("left")
            await site.end("left")
            shutil.copytree(files, copy)
            await site.start_device("left")
            site.engines["left"].owner(OWNER).psa_ps_set(1, b"spent")
            generation = site.engines["left"].storage_generation()
            await site.until_logged("session with the Controller is trusted", origin="left")
            site.controller.admission.challenge("left", mapping_version=0)
            await site.until_true(lambda: site.registry.device("left").last_generation == generation)
            await site.end("left")

            shutil.rmtree(files)
            shutil.copytree(copy, files)
            await site.start_device("left")
            line = await site.until_logged("evidence rejected", device="left")
            assert line["step"] == "generation"
            assert not site.controller.admission.trusted("left")

    asyncio.run(journey())


def test_a_device_whose_engine_was_taken_away_does_not_start(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=()) as site:
            site.add_device("left")
            shutil.rmtree(site.home.engine("left"))
            with pytest.raises(PSAError) as refused:
                await site.start_device("left")
            assert refused.value.status is PSAStatus.DOES_NOT_EXIST
            assert refused.value.hint == "provision the device; a lost root key cannot be made again"
            await site.end("controller")

    asyncio.run(journey())


def test_an_engine_whose_storage_is_damaged_is_not_tried_again(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left",)) as site:
            await site.until_trusted("left")
            spoken = site.hosts["left"].session.communication.statistics
            await site.until_true(lambda: spoken().sealed_messages > 0)  # without a key it could not say so
            (site.home.engine("left") / ROOT_FILE).write_bytes(b"cut off")
            os.kill(site.engines["left"].pid, signal.SIGKILL)
            told = await site.until_logged("this host is unfit", origin="left")
            assert told["reason"].endswith("is not a root key (DATA_CORRUPT)")
            link = site.controller.admission.link("left")
            await site.until_true(lambda: link.trust is Trust.REJECTED)
            assert len(site.log.lines("the Security Engine is lost; starting it again")) == 1

    asyncio.run(journey())
