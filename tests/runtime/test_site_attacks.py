"""A hostile broker, and hostile clients of it: everything refused, counted, and without effect."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from aif.protocol import control
from aif.protocol.control import Hello
from aif.protocol.lifecycle import WorkflowState
from aif.protocol.numbers import FrameType
from aif.protocol.stamp import STAMP_BYTES
from aif.protocol.topics import Attestation, AttestationTopic, Down, DownTopic, Up, UpTopic
from aif.runtime.controller.controller import RunningWorkflow
from aif.transport.base import Received
from aif.transport.faults import Delivery, Fault, duplicate
from aif.transport.memory import MemoryTransport
from tests.runtime.site import ENDLESS, BenchSite, bench_site

STEADY = ENDLESS.replace("ON_DEGRADED", "stop")
SIZES = (0, 1, 9, 26, 27, 90, 241, 300, 5_000, 70_000)


@asynccontextmanager
async def eavesdropper(site: BenchSite) -> AsyncIterator[tuple[MemoryTransport, list[Received]]]:
    """A client of the broker that hears everything; it hears its own words too."""
    heard: list[Received] = []
    async with MemoryTransport(site.broker, client_id="eve") as eve:
        await eve.subscribe("#", heard.append)
        yield eve, heard


async def check_untouched(site: BenchSite, running: RunningWorkflow) -> None:
    """The workflow went on all the time, in order and whole, in the sessions it began with."""
    found = await site.outputs(running, 30)
    steps = [after - before for before, after in pairwise(found)]
    assert all(second - first == 2 for first, second in pairwise(steps)), found
    assert running.state is WorkflowState.RUNNING
    states = [line["state"] for line in site.log.lines("workflow state")]
    assert states[states.index("ready") :] == ["ready", "running"]
    assert not site.log.lines("device lost")
    assert not site.log.lines("evidence rejected")
    assert len(site.log.lines("session with the Controller is trusted")) == 2
    assert site.messages(running, "lost") == 0


def hop(delivery: Delivery) -> FrameType | None:
    """The type of a data frame on its way; None for everything else."""
    on_channel = "/ch/" in delivery.message.topic
    return FrameType(delivery.message.payload[0] & 15) if on_channel else None


def one_in(count: int, change: Fault) -> Fault:
    """Apply a change to each ``count``-th frame that carries records."""
    seen = 0

    def rule(delivery: Delivery) -> Iterable[Delivery]:
        nonlocal seen
        if hop(delivery) not in (FrameType.DATA, FrameType.BUNDLE):
            return (delivery,)
        seen += 1
        return change(delivery) if seen % count == 0 else (delivery,)

    return rule


def flip_a_bit(delivery: Delivery) -> Iterable[Delivery]:
    payload = bytearray(delivery.message.payload)
    payload[len(payload) // 2] ^= 4
    yield replace(delivery, message=delivery.message._replace(payload=bytes(payload)))


def check_accounts(site: BenchSite, running: RunningWorkflow, outputs: list[dict[str, Any]]) -> None:
    """Every record that was sealed was delivered once or reported as lost; nothing came twice."""
    assert running.state is WorkflowState.COMPLETED, running.note
    sealed, verified, lost = (site.messages(running, name) for name in ("sealed", "verified", "lost"))
    assert (verified + lost, lost > 0) == (sealed, True)
    totals = [output["value"] for output in outputs]
    assert totals == sorted(set(totals))
    site.check_nothing_is_left()


def test_changed_frames_are_rejected_and_reported_as_lost(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            site.broker.faults.append(one_in(3, flip_a_bit))
            running = await site.deploy()
            outputs = await site.run_to_end(running)
            check_accounts(site, running, outputs)
            causes = [metrics["messages"]["causes"] for metrics in running.metrics.values()]
            assert (
                sum(cause.get("frame.tag", 0) for cause in causes) == site.messages(running, "rejected") > 0
            )
            assert site.log.lines("messages lost")

    asyncio.run(journey())


def test_dropped_frames_are_reported_as_lost(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            site.broker.faults.append(one_in(3, lambda _: ()))
            running = await site.deploy()
            outputs = await site.run_to_end(running)
            check_accounts(site, running, outputs)
            assert site.messages(running, "rejected") == 0

    asyncio.run(journey())


def test_frames_that_come_twice_are_delivered_once(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            site.broker.faults.append(duplicate(1.0, random.Random(1)))
            running = await site.deploy()
            outputs = await site.run_to_end(running)
            assert running.state is WorkflowState.COMPLETED
            assert [output["value"] for output in outputs] == [n * (n + 1) for n in range(1, 21)]
            assert (site.messages(running, "verified"), site.messages(running, "lost")) == (40, 0)
            causes = [metrics["messages"]["causes"] for metrics in running.metrics.values()]
            assert sum(cause.get("dup.redelivery", 0) for cause in causes) > 0

    asyncio.run(journey())


def test_garbage_on_every_topic(tmp_path: Path) -> None:
    async def journey() -> None:
        rng = random.Random(7)
        async with bench_site(tmp_path) as site, eavesdropper(site) as (eve, heard):
            running = await site.deploy(STEADY)
            await site.outputs(running, 5)
            topics = sorted({message.topic for message in heard} | {str(UpTopic("left", Up.STATUS))})
            assert len(topics) >= 13
            for size in SIZES:
                for topic in topics:
                    for retain in (False, True):
                        eve.send(topic, rng.randbytes(size), qos=1, retain=retain)
                await site.outputs(running, 1)
            # the rumour that a device has gone is refuted by its answer; the log leaves out most of a flood
            await site.until_true(lambda: site.controller.admission.link("left").reputation.refuted > 0)
            await site.until_true(lambda: site.messages(running, "rejected") > 0)
            await check_untouched(site, running)

    asyncio.run(journey())


def test_everything_that_was_ever_said_once_more(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site, eavesdropper(site) as (eve, heard):
            running = await site.deploy(STEADY)
            await site.outputs(running, 20)
            await site.until_true(lambda: all(device in running.metrics for device in running.devices))
            recording = list(heard)
            for message in recording:
                eve.send(message.topic, message.payload, qos=1)
            before = dict(running.metrics)
            await site.until_true(lambda: all(running.metrics[d] is not before[d] for d in running.devices))
            await check_untouched(site, running)
            causes = [metrics["messages"]["causes"] for metrics in running.metrics.values()]
            assert sum(n for cause in causes for name, n in cause.items() if name[:3] in ("rep", "dup")) > 0

    asyncio.run(journey())


def test_words_of_an_earlier_boot(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left",)) as site, eavesdropper(site) as (eve, heard):
            site.add_device("right")
            await site.start_device("right")
            await site.until_trusted("left", "right")
            old = [message for message in heard if "right" in message.topic]
            await site.end("right")
            await site.start_device("right")
            running = await site.deploy(STEADY)
            await site.outputs(running, 5)
            trusted = len(site.log.lines("session with the Controller is trusted"))
            link = site.controller.admission.link("right")
            hello, accepted = link.hello, len(site.log.lines("evidence accepted"))
            # long enough after the last challenge that a hello is looked at
            link.challenged_ms = float("-inf")
            for message in old:
                eve.send(message.topic, message.payload, qos=1)
            # the old hello makes the Controller ask; the answer speaks for the session that exists
            await site.until_true(
                lambda: (
                    len(site.log.lines("evidence accepted")) > accepted
                    or bool(site.log.lines("evidence ignored"))
                )
            )
            await site.outputs(running, 20)
            assert link.hello is hello
            assert len(site.log.lines("session with the Controller is trusted")) == trusted
            assert running.state is WorkflowState.RUNNING
            assert not site.log.lines("device lost")

    asyncio.run(journey())


def test_forged_hello_grant_and_evidence(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site, eavesdropper(site) as (eve, heard):
            running = await site.deploy(STEADY)
            await site.outputs(running, 5)
            key = SigningKey(bytes(range(32)))
            forged = Hello("left", bytes(16), bytes(32), bytes(32), 0, 0, ())
            hello = control.sign_hello(forged, lambda message: key.sign(message).signature)
            topic = UpTopic("left", Up.HELLO)
            eve.send(str(topic), hello, qos=1)
            line = await site.until_logged("messages stopped at the gate", origin="controller")
            assert (line["device"], line["cause"]) == ("left", "gate.stamp")
            eve.send(str(topic), site.stamped("left", topic, hello), qos=1)  # of somebody who has the key
            line = await site.until_logged("hello refused", device="left")
            assert line["code"] == "AIF-E0501"
            eve.send(str(UpTopic("nobody", Up.HELLO)), hello, qos=1)
            line = await site.until_logged("hello ignored", device="nobody")
            assert line["reason"] == "nobody is not registered"
            assert "nobody" not in site.controller.admission.links

            (grant, *_) = [m.payload for m in heard if m.topic == str(DownTopic("right", Down.GRANT))]
            there = DownTopic("left", Down.GRANT)
            eve.send(str(there), grant, qos=1)  # another device's
            line = await site.until_logged("messages stopped at the gate", origin="left")
            assert line["cause"] == "gate.stamp"
            eve.send(str(there), site.stamped("left", there, grant[:-STAMP_BYTES]), qos=1)
            line = await site.until_logged("grant refused", origin="left")
            assert line["code"] == "AIF-E0505"
            refused = {"gate.stamp": 1, "grant.recipient": 1}
            await site.until_true(lambda: running.metrics.get("left", {}).get("control") == refused)

            (evidence, *_) = [
                m.payload for m in heard if m.topic == str(AttestationTopic("left", Attestation.EVIDENCE))
            ]
            site.controller.admission.challenge("left", mapping_version=1)
            eve.send(str(AttestationTopic("left", Attestation.EVIDENCE)), evidence, qos=1)
            line = await site.until_logged("evidence ignored", device="left")
            assert line["step"] == "nonce"
            await check_untouched(site, running)

    asyncio.run(journey())


def test_frames_that_wait_on_the_broker_before_the_channel_exists(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site, eavesdropper(site) as (eve, heard):
            first = await site.deploy()
            await site.run_to_end(first)
            frames = {m.topic: m.payload for m in heard if "/ch/" in m.topic}
            assert len(frames) == 2
            for topic, frame in frames.items():
                eve.send(topic.replace("Adding-1", "Adding-2"), frame, qos=1, retain=True)
            second = await site.deploy()
            outputs = await site.run_to_end(second)
            assert [output["value"] for output in outputs] == [n * (n + 1) for n in range(1, 21)]
            causes = [metrics["messages"]["causes"] for metrics in second.metrics.values()]
            assert sum(cause.get("frame.retained", 0) for cause in causes) == 2

    asyncio.run(journey())


def test_a_checkpoint_channel_that_stopped_goes_on_with_new_keys(tmp_path: Path) -> None:
    """Frames are lost until two intervals in a row cannot be verified; records arrive again after that."""
    checked = ENDLESS.replace("ON_DEGRADED", "continue") + (
        "channels:\n  - {output: count.number, input: double.number, auth: checkpoint}\n"
    )

    async def journey() -> None:
        async with bench_site(tmp_path, speed=3.0) as site:
            losing = one_in(3, lambda _: ())
            running = await site.deploy(checked)
            await site.outputs(running, 1)
            site.broker.faults.append(losing)
            await site.until_logged("sender cannot be verified and is not heard any more")
            site.broker.faults.remove(losing)
            await site.until_logged("a channel has stopped and gets new keys", device="right")
            await site.until_logged("channels re-keyed", channels=1)
            assert len(await site.outputs(running, 20)) == 20
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())
