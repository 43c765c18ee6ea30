"""Encrypted models on a site: installed as ciphertext, run in the Security Engine, keyed per session."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from aif.authoring.int8 import build
from aif.authoring.layers import Dense, Layer
from aif.authoring.publication import StoredModel
from aif.cli._publishing import hand_over_here
from aif.engines.registry import open_engine
from aif.protocol.lifecycle import WorkflowState
from aif.runtime.controller.controller import RunningWorkflow
from aif.trusted.content_keys import SiteVault
from store.release import Release
from tests.runtime.site import FEATURES, BenchSite, bench_site

INPUT = [1, 2, 3, 4, 5, 6, 7, 8]
THINKER = (
    """
    schema: 1
    aim: {name: Thinker, version: "1.0", implementer: tinyaif, description: A model with code around it.}
    inputs: {features: {type: "int8[8]", queue_depth: 8}}
    outputs: {scores: {type: "int8[4]"}}
    implementations:
      - {id: gateway, runtime: tflite, entry: "module:Thinker", model: {component: thinker}, ram_bytes: 40000,
         flash_bytes: 8000, instructions: 1000, security: attested}
    """,
    """
    from aif.sdk import AIM


    class Thinker(AIM):
        def process(self, features):
            return {"scores": self.context.model.infer(features)[0].reshape(4)}
    """,
)
AIMS = {"thinker": THINKER, "features": FEATURES}
WORKFLOW = """
schema: 1
aiw: {name: Thinking, version: "1.0", implementer: tinyaif, description: "A sealed model on a gateway."}
aims:
  - {id: features, use: Features@1.0, placement: {device: left}}
  - {id: think, use: Thinker@1.0, inputs: {features: features.features}, placement: {device: right}}
outputs: {scores: think.scores}
availability: {on_degraded: continue}
"""


def built(seed: int) -> bytes:
    """Int8, (1, 8) to (1, 4)."""
    rng = np.random.default_rng(seed)
    layers: list[Layer] = [
        Dense(rng.normal(size=(8, 64)), rng.normal(size=64), relu=True),
        Dense(rng.normal(size=(64, 4)), rng.normal(size=4)),
    ]
    return build(layers, rng.normal(size=(100, 8)))


MODEL = built(1)


def publish(site: BenchSite, model: bytes = MODEL, *, plain: bool = False, hw_class: str = "") -> Release:
    stored = StoredModel("thinker", model, 4_096, 100, 1.0, 1.0, 10, ("a", "b", "c", "d"), {}, {})
    return site.publisher.model(stored, plain=plain, hw_classes=[hw_class] if hw_class else [])


def answer(model: bytes = MODEL) -> list[int]:
    """What the model says, run in this process."""
    import hashlib

    with open_engine("tflite", model, sha256=hashlib.sha256(model).hexdigest()) as engine:
        (scores,) = engine.infer([np.array([INPUT], np.int8)])
        return [int(score) for score in scores.reshape(4)]


def slots(site: BenchSite) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every slot of the gateway."""
    folder = site.home.device("right") / "models"
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


async def failure(site: BenchSite, running: RunningWorkflow) -> str:
    await site.until(running, WorkflowState.FAILED)
    assert running.failure is not None
    return f"{running.failure} | {running.failure.hint}"


@pytest.mark.integration
def test_an_aim_does_not_notice_that_its_model_is_sealed(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=AIMS) as site:
            release = publish(site)
            hand_over_here(site.home)
            running = await site.deploy(WORKFLOW)
            assert [list(value) for value in await site.outputs(running, 3)] == [answer()] * 3
            before = slots(site)
            stored = (site.home.store / "blobs" / release.sha256).read_bytes()
            assert {content for content, _ in before.values()} == {stored}
            assert not any(MODEL[n : n + 64] in stored for n in range(len(MODEL) - 64))
            await site.controller.stop(running.aiw_id)

            # another boot has another session: the ciphertext stays, and only its key comes again
            await site.end("right")
            await site.start_device("right")
            await site.until_trusted("right")
            with site.controller.events.listening() as events:
                running = await site.deploy(WORKFLOW)
                assert [list(value) for value in await site.outputs(running, 1)] == [answer()]
                seen = [events.get_nowait() for _ in range(events.qsize())]
            assert not [event for event in seen if event["type"] == "progress"]
            assert slots(site) == before

            # and the next release comes under the next ticket, into the other slot
            await site.controller.stop(running.aiw_id)
            publish(site, built(2))
            hand_over_here(site.home)
            running = await site.deploy(WORKFLOW)
            assert [list(value) for value in await site.outputs(running, 1)] == [answer(built(2))]
            assert sorted(slots(site)) == ["thinker.A", "thinker.B"]

    asyncio.run(journey())


@pytest.mark.integration
def test_a_lost_security_engine_gets_the_model_back(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=AIMS) as site:
            publish(site)
            hand_over_here(site.home)
            running = await site.deploy(WORKFLOW)
            await site.outputs(running, 2)
            session = site.engines["right"].session_pk
            os.kill(site.engines["right"].pid, signal.SIGKILL)
            await site.until_true(lambda: site.engines["right"].session_pk != session)
            await site.until_true(lambda: running.sessions["right"] != session)
            values = await site.outputs(running, 100)
            assert [list(value) for value in values] == [answer()] * 100
            assert running.state is WorkflowState.RUNNING

    asyncio.run(journey())


def test_aims_of_one_device_share_a_model_and_its_ticket(tmp_path: Path) -> None:
    second = (
        "  - {id: again, use: Thinker@1.0, inputs: {features: features.features}, placement: {device: right}}"
    )
    workflow = WORKFLOW.replace(
        "outputs: {scores: think.scores}", second + "\noutputs: {scores: again.scores}"
    )

    async def journey() -> None:
        async with bench_site(tmp_path, aims=AIMS) as site:
            publish(site)
            hand_over_here(site.home)
            running = await site.deploy(workflow)
            assert [list(value) for value in await site.outputs(running, 2)] == [answer()] * 2
            assert running.plan is not None
            first, other = running.plan.models
            assert first.ticket_digest == other.ticket_digest
            assert sorted(slots(site)) == ["thinker.A"]

    asyncio.run(journey())


def test_without_attestation_there_is_no_key(tmp_path: Path) -> None:
    changed = tmp_path / "runtime"
    changed.mkdir()
    (changed / "other.py").write_text("")

    async def journey() -> None:
        async with bench_site(tmp_path, devices=["left"], aims=AIMS) as site:
            publish(site)
            hand_over_here(site.home)
            site.add_device("right")
            await site.start_device("right", runtime=changed)
            await site.until_logged("evidence rejected", device="right")
            running = await site.deploy(WORKFLOW)
            await site.until(running, WorkflowState.DEPLOYING, note="right is rejected")
            assert running.plan is None
            assert running.sessions == {}
            assert site.hosts["right"]._resources.opened.key("thinker") == b""

    asyncio.run(journey())


def test_a_plain_model_is_refused_until_the_site_allows_it(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=AIMS) as site:
            publish(site, plain=True)
            running = await site.deploy(WORKFLOW)
            assert await failure(site, running) == (
                "aim/tinyaif/thinker/1 is not encrypted, and this site takes only encrypted models | publish "
                "it with `aif store publish`, which encrypts; or allow plain models with `aif site policy "
                "--plain-models allow`"
            )
            SiteVault(site.home.site, os.urandom).set_plain_models(allowed=True)
            running = await site.deploy(WORKFLOW)
            assert [list(value) for value in await site.outputs(running, 1)] == [answer()]

    asyncio.run(journey())


def test_a_site_without_the_content_key_says_whom_to_ask(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=AIMS) as site:
            publish(site)
            running = await site.deploy(WORKFLOW)
            said = await failure(site, running)
            assert "this site has no content key for aim/tinyaif/thinker/1" in said
            assert "aif store hand-over" in said

    asyncio.run(journey())


def test_a_key_that_the_release_does_not_commit_to_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=AIMS) as site:
            publish(site)
            vault = SiteVault(site.home.site, os.urandom)
            from aif.protocol.content_keys import ContentKey, seal_hand_over

            wrong = [ContentKey("aim/tinyaif/thinker/1", bytes(32))]
            vault.take(seal_hand_over(wrong, vault.public_key, os.urandom(32)))
            running = await site.deploy(WORKFLOW)
            assert "not the one that the release was published with" in await failure(site, running)
            assert running.plan is None

    asyncio.run(journey())


def test_a_model_for_other_hardware_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=AIMS) as site:
            publish(site, hw_class="another-board/arm")
            hand_over_here(site.home)
            running = await site.deploy(WORKFLOW)
            assert await failure(site, running) == (
                "aim/tinyaif/thinker/1 is built for another-board/arm, right is bench-right/x86-64 | publish "
                "the model for that hardware class too, or place its AIM elsewhere"
            )
            assert running.plan is None
            publish(site, hw_class="bench-right/x86-64")
            hand_over_here(site.home)
            running = await site.deploy(WORKFLOW)
            await site.outputs(running, 1)

    asyncio.run(journey())
