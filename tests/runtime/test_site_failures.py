"""What cannot be deployed, and AIMs that fail: the words a person reads, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from aif.authoring.int8 import build
from aif.authoring.layers import Dense, Layer, Softmax
from aif.authoring.publication import StoredModel
from aif.cli._publishing import hand_over_here
from aif.emulator.device import EmulatedDevice
from aif.engines.tflm import TFLMEngine
from aif.errors import Infeasible, PlacementError
from aif.protocol.lifecycle import WorkflowState
from aif.runtime.controller.controller import Patience, RunningWorkflow
from tests.runtime.site import AIMS, ENDLESS, FEATURES, INVENTORY, BenchSite, bench_site

Library = Mapping[str, tuple[str, str]]
STEADY = ENDLESS.replace("ON_DEGRADED", "continue")


async def failure_of(site: BenchSite, running: RunningWorkflow) -> str:
    """The note of a workflow that fails, with its hint; nothing may be left of it."""
    await site.run_to_end(running)
    assert running.state is WorkflowState.FAILED
    assert running.failure is not None
    assert running.note == str(running.failure)
    site.check_nothing_is_left()
    return f"{running.note} | {running.failure.hint}"


def doubler(process: str, *, restart_limit: int = 0) -> Library:
    """The library with other code in Doubler."""
    contract, _ = AIMS["doubler"]
    contract = contract.replace(
        "        implementations:", f"        restart_limit: {restart_limit}\n        implementations:"
    )
    module = f"""
        from aif.sdk import AIM


        class Doubler(AIM):
            def process(self, number):
                {process}
        """
    return {**AIMS, "doubler": (contract, module)}


# --- what cannot be deployed ------------------------------------------------------------------------


def test_a_device_that_never_connects(tmp_path: Path) -> None:
    async def journey() -> None:
        patience = Patience(connect_s=2, repeat_s=0.1)
        async with bench_site(tmp_path, devices=("left",), patience=patience) as site:
            await site.until_trusted("left")
            site.add_device("right")
            running = await site.deploy()
            await site.until(running, WorkflowState.DEPLOYING, note="waits for devices: right is unknown")
            assert await failure_of(site, running) == (
                "Adding-1 waits for devices: right is unknown | add each with `aif device add` and start it "
                "with `aif host` or `aif mcu`"
            )

    asyncio.run(journey())


def test_an_aim_that_no_device_can_hold(tmp_path: Path) -> None:
    contract, module = AIMS["summer"]
    huge = {**AIMS, "summer": (contract.replace("ram_bytes: 1000", "ram_bytes: 4000000000"), module)}

    async def journey() -> None:
        async with bench_site(tmp_path, aims=huge) as site:
            with pytest.raises(Infeasible) as refused:
                await site.deploy()
            assert refused.value.diagnostics().splitlines()[:2] == [
                "error[AIF-E0301]: no placement exists",
                (
                    "   = add (Summer@1.0) fits nowhere even alone: left/any needs 4,016,777,728 B RAM, "
                    "100,000,000 B there, 3,916,777,728 B missing; right: pinned to device left"
                ),
            ]
            assert not site.controller.workflows
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_package_with_other_code_on_the_device(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left",)) as site:
            tampered = tmp_path / "tampered"
            shutil.copytree(site.aims, tampered)
            with (tampered / "doubler" / "module.py").open("a") as code:
                code.write("\n# one line more\n")
            site.add_device("right")
            await site.start_device("right", aims=tampered)
            running = await site.deploy()
            assert await failure_of(site, running) == (
                "right: AIF-E0603: the AIM package Doubler@1.0 on this device is not the one that was "
                "deployed | install the same version of the AIM library on Controller and device"
            )

    asyncio.run(journey())


def test_an_aim_that_the_device_does_not_have(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left",)) as site:
            poor = tmp_path / "poor"
            shutil.copytree(site.aims / "summer", poor / "summer")
            site.add_device("right")
            await site.start_device("right", aims=poor)
            running = await site.deploy()
            assert await failure_of(site, running) == (
                "right: AIF-E0805: this device has no AIM Doubler@1.0 | "
                "install it, or add its folder with --aims"
            )

    asyncio.run(journey())


def test_code_that_cannot_be_loaded(tmp_path: Path) -> None:
    contract, _ = AIMS["doubler"]

    async def journey() -> None:
        async with bench_site(tmp_path, aims={**AIMS, "doubler": (contract, "import nowhere")}) as site:
            running = await site.deploy()
            assert await failure_of(site, running) == (
                "right: AIF-E0805: module:Doubler of Doubler@1.0 cannot be loaded: "
                "ModuleNotFoundError: No module named 'nowhere' | "
            )

    asyncio.run(journey())


def test_more_than_a_device_has_left(tmp_path: Path) -> None:
    contract, module = AIMS["doubler"]
    large = {**AIMS, "doubler": (contract.replace("ram_bytes: 1000", "ram_bytes: 60000000"), module)}

    async def journey() -> None:
        async with bench_site(tmp_path, aims=large) as site:
            first = await site.deploy(STEADY)
            await site.outputs(first, 1)
            with pytest.raises(PlacementError, match="right/any needs 60,000,256 B RAM, 23,221,792 B there"):
                await site.deploy(STEADY.replace("Adding", "Second"))
            assert first.state is WorkflowState.RUNNING
            await site.outputs(first, 1)
            await site.controller.stop(first.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


# --- AIMs that fail while they run -------------------------------------------------------------------


def test_an_aim_that_raises_degrades_its_workflow_and_says_why(tmp_path: Path) -> None:
    broken = doubler('raise RuntimeError(f"cannot take {number}")')

    async def journey() -> None:
        async with bench_site(tmp_path, aims=broken) as site:
            running = await site.deploy(STEADY)
            why = "AIM double failed: AIF-E0808: double failed: RuntimeError: cannot take 1"
            await site.until(running, WorkflowState.DEGRADED, note=why)
            assert running.note == why
            states = {a: str(r.state) for s in running.status.values() for a, r in s.aims.items()}
            assert states["count"] == "running"
            await site.until_true(lambda: running.status["left"].aims["add"].state == "stopped")
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_workflow_with_a_failed_aim_ends_as_failed(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=doubler("return 1 / 0")) as site:
            running = await site.deploy()
            assert await failure_of(site, running) == (
                "Adding-1 ended: AIM double failed: AIF-E0808: double failed: "
                "ZeroDivisionError: division by zero | see `aif logs`"
            )

    asyncio.run(journey())


def test_an_aim_is_restarted_up_to_its_limit(tmp_path: Path) -> None:
    broken = doubler('raise RuntimeError(f"cannot take {number}")', restart_limit=3)

    async def journey() -> None:
        async with bench_site(tmp_path, aims=broken) as site:
            running = await site.deploy()
            note = await failure_of(site, running)
            assert "double failed: RuntimeError: cannot take 4" in note
            restarts = [
                line["detail"] for line in site.log.lines("AIM changed state") if line["origin"] == "right"
            ]
            assert restarts[:3] == [f"restart {n} after: cannot take {n}" for n in (1, 2, 3)]
            assert running.metrics["right"]["aims"]["double"]["failures"] == 4

    asyncio.run(journey())


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (
            '{"pair": {"number": number, "twice": 2**40}}',
            "double.pair.twice: int32 takes an integer -2147483648..2147483647, not 1099511627776",
        ),
        ('{"pair": {"number": 1}}', "double.pair: the members are number, twice; missing twice"),
        (
            '{"pair": [1, 2, 3]}',
            "double.pair: a struct takes a mapping or an object with the members number, twice, not list",
        ),
        ('{"pear": number}', "double: process() returned a record for 'pear'; outputs are: pair"),
        ("[number]", "double: process() returned list, not records by output port"),
    ],
    ids=["range", "missing", "length", "port", "shape"],
)
def test_a_record_of_the_wrong_size_or_type(tmp_path: Path, returned: str, words: str) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=doubler(f"return {returned}")) as site:
            running = await site.deploy()
            assert await failure_of(site, running) == (
                f"Adding-1 ended: AIM double failed: AIF-E0207: {words} | see `aif logs`"
            )

    asyncio.run(journey())


# --- models -----------------------------------------------------------------------------------------

MODEL_AIM = """
    schema: 1
    aim: {name: Thinker, version: "1.0", implementer: tinyaif, description: A model in an arena.}
    inputs: {features: {type: "int8[8]", queue_depth: 8}}
    outputs: {scores: {type: "int8[4]"}}
    restart_limit: RESTARTS
    implementations:
      - {id: mcu, runtime: tflm, model: {component: thinker}, ram_bytes: 40000, arena_bytes: ARENA,
         flash_bytes: 8000, instructions: 1000, security: attested}
"""
THINKING = """
schema: 1
aiw: {name: Thinking, version: "1.0", implementer: tinyaif, description: "A model on a small device."}
aims:
  - {id: features, use: Features@1.0, placement: {device: left}}
  - {id: think, use: Thinker@1.0, inputs: {features: features.features}}
outputs: {scores: think.scores}
availability: {on_degraded: continue}
"""
SMALL_INVENTORY = INVENTORY.replace(
    "{id: right, class: gateway, board: bench-right, arch: x86-64, os: Linux, "
    "instructions_per_s: 1000000000,\n"
    "     ram_bytes: 100000000, flash_bytes: 100000000, runtimes: [python, tflite]",
    "{id: right, class: mcu, board: bench-right, arch: armv7e-m, os: Zephyr, "
    "instructions_per_s: 1000000000,\n"
    "     ram_bytes: 65536, flash_bytes: 100000, storage: [{kind: internal_flash, bytes: 32768}],\n"
    "     runtimes: [tflm]",
)


def thinker(arena_bytes: int, restart_limit: int = 0) -> Library:
    contract = MODEL_AIM.replace("ARENA", str(arena_bytes)).replace("RESTARTS", str(restart_limit))
    return {"thinker": (contract, ""), "features": FEATURES}


@pytest.fixture(scope="module")
def model() -> bytes:
    return built(seed=1)


def built(seed: int, classes: int = 4) -> bytes:
    """Int8, (1, 8) to (1, classes): 1.5 kB that needs about 1.8 kB of arena."""
    rng = np.random.default_rng(seed)
    layers: list[Layer] = [
        Dense(rng.normal(size=(8, 16)), rng.normal(size=16), relu=True),
        Dense(rng.normal(size=(16, classes)), rng.normal(size=classes)),
        Softmax(),
    ]
    return build(layers, rng.normal(size=(100, 8)))


def publish_model(site: BenchSite, model: bytes, arena_bytes: int) -> Path:
    """Publish a release of the model; returns where the Store keeps its bytes."""
    stored = StoredModel("thinker", model, arena_bytes, 100, 1.0, 1.0, 10, ("a", "b", "c", "d"), {}, {})
    release = site.publisher.model(stored)
    hand_over_here(site.home)
    return site.home.store / "blobs" / release.sha256


def model_pid(site: BenchSite, running: RunningWorkflow) -> int:
    platform = site.hosts["right"]._platform
    assert isinstance(platform, EmulatedDevice)
    engine = platform._models[f"{running.aiw_id}/think"]._engine
    assert isinstance(engine, TFLMEngine)
    return engine.pid


def installed(site: BenchSite) -> list[str]:
    """Model files and rows of the device; empty when nothing, not even a half, is installed."""
    folder = site.home.device("right") / "models"
    files = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return files + [model.component for model in site.home.device_state("right").load().installed]


@pytest.mark.integration
def test_a_model_whose_process_is_killed_is_restarted_alone(tmp_path: Path, model: bytes) -> None:
    async def journey() -> None:
        aims = thinker(4_096, restart_limit=1)
        async with bench_site(tmp_path, aims=aims, inventory=SMALL_INVENTORY) as site:
            publish_model(site, model, 4_096)
            running = await site.deploy(THINKING)
            before = await site.outputs(running, 2)
            first = model_pid(site, running)
            os.kill(first, signal.SIGKILL)
            await site.until_logged("AIM changed state", aim="think")
            assert await site.outputs(running, 2) == before
            second = model_pid(site, running)
            assert second != first
            assert running.state is WorkflowState.RUNNING
            os.kill(second, signal.SIGKILL)
            await site.until(running, WorkflowState.DEGRADED, note="AIM think failed: AIF-E1001: ")
            assert running.status["left"].aims["features"].state == "running"
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())
    with pytest.raises(ChildProcessError):  # no child is left, not even an ended one
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.integration
def test_a_newer_release_goes_into_the_other_slot(tmp_path: Path, model: bytes) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=thinker(4_096), inventory=SMALL_INVENTORY) as site:
            seen = []
            for content in (model, model, built(seed=2), built(seed=3)):
                publish_model(site, content, 4_096)
                site.controller._resolve_model("tinyaif", "thinker")  # asks the Store what is new
                running = await site.deploy(THINKING)
                await site.outputs(running, 1)
                await site.controller.stop(running.aiw_id)
                site.check_nothing_is_left()
                (release,) = site.home.device_state("right").load().installed
                assert release.sha256 == sha256(content).digest()
                seen.append((release.counter, release.slot))
            first = seen[0][0]
            assert [counter - first for counter, _ in seen] == [0, 0, 1, 2]
            slots = [slot for _, slot in seen]
            assert slots[0] == slots[1] == slots[3] != slots[2]

    asyncio.run(journey())


@pytest.mark.integration
def test_a_release_that_fails_its_trial_is_reported_and_the_one_before_stays(
    tmp_path: Path, model: bytes
) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=thinker(4_096), inventory=SMALL_INVENTORY) as site:
            publish_model(site, model, 4_096)
            site.controller._resolve_model("tinyaif", "thinker")
            running = await site.deploy(THINKING)
            await site.outputs(running, 1)
            await site.controller.stop(running.aiw_id)
            publish_model(site, built(seed=2, classes=5), 4_096)  # five scores where the AIM has four
            site.controller._resolve_model("tinyaif", "thinker")
            for _ in range(2):  # and once more, which downloads nothing
                failure = await failure_of(site, await site.deploy(THINKING))
                assert failure.startswith("right: AIF-E1003"), failure
                assert "int8[1][5]" in failure
                (release,) = site.home.device_state("right").load().installed
                assert release.sha256 == sha256(model).digest()
            assert site.hosts["right"]._models.read("thinker").content == model
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_a_release_is_found_as_soon_as_it_is_published(tmp_path: Path, model: bytes) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=(), aims=thinker(4_096), inventory=SMALL_INVENTORY) as site:
            for content in (model, built(seed=2)):
                publish_model(site, content, 4_096)
                newest = site.controller._resolve_model("tinyaif", "thinker")
                assert newest.sha256 == sha256(content).digest()

    asyncio.run(journey())


@pytest.mark.integration
def test_an_arena_that_is_too_small_says_how_much_is_needed(tmp_path: Path, model: bytes) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=thinker(1_024), inventory=SMALL_INVENTORY) as site:
            publish_model(site, model, 1_024)
            running = await site.deploy(THINKING)
            found = re.fullmatch(
                r"right: AIF-E0901: Thinking-1/think needs an arena of ([\d,]+) B, 1,024 B are available"
                r" \| give the AIM a larger arena in its metadata, or place it on a device with more RAM",
                await failure_of(site, running),
            )
            assert found
            assert 1_500 < int(found[1].replace(",", "")) < 3_000

    asyncio.run(journey())


def test_a_release_that_needs_more_than_the_contract_declares(tmp_path: Path, model: bytes) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=thinker(0), inventory=SMALL_INVENTORY) as site:
            publish_model(site, model, 4_096)
            running = await site.deploy(THINKING)
            assert await failure_of(site, running) == (
                "right: AIF-E0901: release 1 of 'thinker' needs an arena of 4,096 B, 0 B are available | "
            )
            assert installed(site) == []

    asyncio.run(journey())


def test_a_model_that_was_changed_in_the_store(tmp_path: Path, model: bytes) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=thinker(4_096), inventory=SMALL_INVENTORY) as site:
            blob = publish_model(site, model, 4_096)
            blob.chmod(0o600)
            content = blob.read_bytes()
            blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            running = await site.deploy(THINKING)
            assert await failure_of(site, running) == (
                f"right: AIF-E0603: the bytes from {site.store.url} are not those that were signed "
                f"(SHA-256 {blob.name}) | the store or the way to it is damaged or hostile; "
                "nothing was installed"
            )
            assert installed(site) == []

    asyncio.run(journey())


def test_a_store_that_is_down(tmp_path: Path, model: bytes) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=thinker(4_096), inventory=SMALL_INVENTORY) as site:
            publish_model(site, model, 4_096)
            await site.until_trusted("left", "right")
            url = site.store.url
            site.store.stop()
            running = await site.deploy(THINKING)
            assert await failure_of(site, running) == (
                f"the store at {url} is not reachable | start it with `aif store serve`"
            )
            assert installed(site) == []

    asyncio.run(journey())


def test_a_model_that_was_never_published(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=thinker(4_096), inventory=SMALL_INVENTORY) as site:
            running = await site.deploy(THINKING)
            assert await failure_of(site, running) == (
                f"the store at {site.store.url} has no release of tinyaif/thinker | "
                "publish one with `aif store publish`"
            )

    asyncio.run(journey())
