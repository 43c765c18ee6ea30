"""Trust taken back while a workflow runs: who is out reads nothing new, and the others lose nothing."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from aif.protocol.control import control_channel
from aif.protocol.lifecycle import WorkflowState
from aif.runtime.controller import supervisor
from aif.runtime.controller.controller import Patience, RunningWorkflow
from aif.runtime.devices import control_channels, grants
from aif.runtime.devices.links import Trust
from tests.runtime.site import ENDLESS, INVENTORY, BenchSite, bench_site

COUNTED = "count.number -> double.number"
STOP = ENDLESS.replace("ON_DEGRADED", "stop")
CONTINUE = ENDLESS.replace("ON_DEGRADED", "continue")
SPY = """  - {id: spy, class: gateway, board: bench-spy, arch: x86-64, os: Linux, ram_bytes: 100000000,
     instructions_per_s: 1000000000, flash_bytes: 100000000, runtimes: [python], attestation: software}
links:
  - {id: tap, between: [left, spy], bandwidth_bps: 100000000, latency_ms: 1}
"""
THREE = INVENTORY.replace("links:\n", SPY)
LISTENER = "  - {id: other, use: Doubler@1.0, inputs: {number: count.number}, placement: {device: spy}}\n"
WITH_SPY = CONTINUE.replace("outputs:", LISTENER + "outputs:")


async def running_workflow(site: BenchSite, workflow: str = CONTINUE) -> RunningWorkflow:
    running = await site.deploy(workflow)
    await site.outputs(running, 3)
    return running


def check_steady(values: list[int]) -> None:
    """Sums of an arithmetic series, none left out."""
    steps = [after - before for before, after in pairwise(values)]
    assert all(second - first == 2 for first, second in pairwise(steps)), values


def test_a_revoked_device_opens_nothing_and_the_others_lose_nothing(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left", "right", "spy"), inventory=THREE) as site:
            running = await running_workflow(site, WITH_SPY)
            spy = site.hosts["spy"].session.communication
            taken = await site.controller.revocation.revoke("spy", "stolen")
            assert [(step.step, step.ok) for step in taken] == [
                ("broker", True), ("registry", True), ("keys", True),
            ], taken  # fmt: skip
            print(taken[-1].outcome)  # noqa: T201  # how long it took, on this machine
            # the broker of the bench serves it on: everything that is sent reaches it
            before = spy.statistics()
            check_steady(await site.outputs(running, 40))
            # what it cannot open it keeps for a second, in case its key is late, and then counts
            await site.until_true(lambda: spy.statistics().causes.get("frame.epoch", 0) > 10)
            assert spy.statistics().verified_messages == before.verified_messages
            assert running.state is WorkflowState.DEGRADED
            assert running.note == "device spy is not trusted (it was revoked: stolen)"
            assert site.messages(running, "lost") == 0
            line = await site.until_logged("hello ignored", device="spy")
            assert line["reason"] == "spy is revoked"
            record = site.registry.device("spy")
            assert (record.revoked, record.reason) == (True, "stolen")

    asyncio.run(journey())


def test_a_revoked_source_is_heard_no_more(tmp_path: Path) -> None:
    """Its readers refuse it at once, though it goes on sending, and end when nothing comes any more."""

    async def journey() -> None:
        async with bench_site(tmp_path, patience=Patience(end_s=0.5)) as site:
            running = await running_workflow(site)
            reader = site.hosts["right"].session.communication
            await site.controller.revocation.revoke("left", "stolen")
            heard = reader.statistics(None).verified_messages
            await site.until_true(lambda: reader.statistics().causes.get("frame.sender", 0) > 10)
            control = reader.statistics({control_channel("right", up=False)[0]}).verified_messages
            assert reader.statistics().verified_messages - control <= heard
            await site.until_logged("AIM stopped: the end of its input was lost", aim="double")
            assert "device left is not trusted" in running.note

    asyncio.run(journey())


def test_a_revoked_device_fails_a_workflow_that_cannot_go_on_without_it(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            running = await running_workflow(site, STOP)
            taken = await site.controller.revocation.revoke("right", "stolen")
            assert all(step.ok for step in taken)
            assert running.state is WorkflowState.FAILED
            assert running.note == "right is not trusted: it was revoked: stolen"

    asyncio.run(journey())


def test_failed_attestation_isolates_the_device(tmp_path: Path) -> None:
    """The same path: the rest gets new keys without it and goes on."""

    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left", "right", "spy"), inventory=THREE) as site:
            running = await running_workflow(site, WITH_SPY)
            spy = site.hosts["spy"]
            spy._runtime_digest = b"x" * 32
            await site.controller.verify("spy")
            link = site.controller.admission.link("spy")
            assert link.trust is Trust.REJECTED
            assert link.verdict is not None
            assert not link.verdict.passed
            assert link.verdict.steps[-1].startswith("measurement: component 'runtime:aif'")
            await site.until_true(
                lambda: "spy" in running.without and not site.controller.rekeying.pending(running.aiw_id)
            )
            before = spy.session.communication.statistics().verified_messages
            check_steady(await site.outputs(running, 20))
            assert spy.session.communication.statistics().verified_messages == before
            assert running.state is WorkflowState.DEGRADED
            assert site.messages(running, "lost") == 0

    asyncio.run(journey())


@pytest.mark.parametrize("limit", ["RENEWAL_S", "MAX_FRAMES"])
def test_keys_are_renewed_by_time_and_by_count_without_a_loss(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, limit, {"RENEWAL_S": 0.5, "MAX_FRAMES": 40}[limit])

    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            running = await running_workflow(site)
            await site.until_true(lambda: len(site.log.lines("channels re-keyed")) >= 4)
            check_steady(await site.outputs(running, 20))
            await site.hosted("left", running).instances["count"].stop()
            await site.run_to_end(running)
            assert running.state is WorkflowState.COMPLETED, running.note
            assert (site.messages(running, "lost"), site.messages(running, "rejected")) == (0, 0)

    asyncio.run(journey())


def test_a_grant_that_is_used_up_holds_messages_back_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "MAX_FRAMES", 40)
    monkeypatch.setattr(control_channels, "MAX_FRAMES", 10)  # control channels are renewed long before
    monkeypatch.setattr(supervisor, "RENEWAL_S", 1.0)

    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            running = await running_workflow(site)
            source = site.hosted("left", running)
            await site.until_true(lambda: source.metrics()["sent"][COUNTED] > 2 * 40)  # three grants at least
            await source.instances["count"].stop()
            await site.run_to_end(running)
            seen = running.metrics["left"]
            # the AIM is stopped in the middle of a write, if that waits for a grant
            assert seen["aims"]["count"]["emitted"] - seen["sent"][COUNTED] in (0, 1)
            assert running.metrics["right"]["aims"]["double"]["invocations"] == seen["sent"][COUNTED]
            assert site.messages(running, "lost") == 0

    asyncio.run(journey())


def test_the_audit_log_tells_it_all_and_no_secret_is_written(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            running = await running_workflow(site)
            await site.controller.revocation.revoke("right", "stolen")
            await site.controller.stop(running.aiw_id)
            log = site.controller._audit
            log.sign()
            entries, signed = log.verify()
            assert signed == len(entries)
            kinds = {entry.kind for entry in entries}
            assert {"enrolled", "evidence accepted", "grant", "deployed", "excluded"} <= kinds
            state = site.registry.state
            secrets = [
                state.enrolment_seed, state.grant_seed, state.ticket_seed, state.deployment_seed,
                state.result_seed, state.audit_seed,
            ]  # fmt: skip
            written = b"".join(path.read_bytes() for path in log.folder.iterdir())
            shown = site.log.getvalue() + repr(state) + repr(site.controller.admission.links)
            for secret in secrets:
                assert secret not in written
                assert secret.hex() not in shown
                assert str(secret)[2:-1] not in shown

    asyncio.run(journey())
