"""Floods of what is said outside a session: they cost hashes, and no turn at the Security Engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from aif.protocol.gate import STALE
from aif.protocol.topics import Attestation, AttestationTopic, Down, DownTopic, Up, UpTopic
from aif.runtime.devices.appraiser import CHALLENGE_PATIENCE_S
from tests.adversary.arena import ENDLESS, WIRES, Arena, arena
from tests.adversary.conftest import Report

FLOOD = 4_000
"""Messages of each kind; a Controller or device that checked their signatures would need half a second."""
SLICE = 200
KINDS = (
    AttestationTopic("left", Attestation.REQUEST),
    DownTopic("left", Down.GRANT),
    DownTopic("left", Down.CALL),
    UpTopic("left", Up.HELLO),
)


def noise(attacked: Arena, topic: str, rng: Random, count: int) -> Iterator[bytes]:
    """Garbage of the right length, and recordings."""
    recorded = attacked.hostile.heard(topic) or [bytes(100)]
    for n in range(count):
        sample = rng.choice(recorded)
        yield rng.randbytes(len(sample)) if n % 2 else sample


@pytest.mark.parametrize("wire", WIRES)
def test_a_flood_outside_the_session_does_not_reach_the_engine(
    wire: str, tmp_path: Path, attacks: Report
) -> None:
    async def journey() -> None:
        async with arena(wire, tmp_path) as attacked:
            await attacked.deploy(ENDLESS)
            await attacked.until_outputs(5)
            admission, session = attacked.site.controller.admission, attacked.site.hosts["left"].session
            rng, waiting, evidence = Random(53), 0, str(AttestationTopic("left", Attestation.EVIDENCE))
            signed = len(attacked.hostile.heard(evidence))
            link, before = admission.link("left"), attacked.trust_state()
            admission.challenge("left", mapping_version=link.attested_mapping)  # in the midst of it
            attested_ms, asked = link.attested_ms, asyncio.get_running_loop().time()
            answered_s = float("inf")
            for _ in range(FLOOD // SLICE):
                for topic in KINDS:
                    attacked.hostile.flood(str(topic), noise(attacked, str(topic), rng, SLICE))
                await attacked.until_outputs(1)
                waiting = max(waiting, session._requests.waiting)
                if link.attested_ms > attested_ms and answered_s == float("inf"):
                    answered_s = asyncio.get_running_loop().time() - asked
            await attacked.until(lambda: session._gates.refused["gate.stamp"] >= FLOOD)
            await attacked.until(lambda: admission.gates.refused("left")["gate.stamp"] >= FLOOD // 4)
            took_s = asyncio.get_running_loop().time() - asked
            allowed = 1 + STALE.burst + STALE.per_s * took_s
            assert waiting <= 2 * STALE.burst + 2, "the engine's queue grew"
            assert answered_s < CHALLENGE_PATIENCE_S, "the re-attestation did not come through"
            assert len(attacked.hostile.heard(evidence)) - signed <= allowed, "it signed what nobody asked"
            assert session._requests.troubles().total() <= allowed, "the engine tried to open recordings"
            assert attacked.trust_state() == before
            attacked.check_results()
            assert not attacked.uncaught

    asyncio.run(journey())
    attacks("floods outside a session", FLOOD * len(KINDS))


@pytest.mark.parametrize("wire", WIRES)
def test_a_device_is_admitted_beside_a_flood_of_hellos_in_its_name(
    wire: str, tmp_path: Path, attacks: Report
) -> None:
    async def journey() -> None:
        async with arena(wire, tmp_path, devices=("left",)) as attacked:
            await attacked.site.until_trusted("left")
            topic, rng = str(UpTopic("left", Up.HELLO)), Random(54)
            await attacked.site.end("left")
            boots = len(attacked.site.log.lines("session with the Controller is trusted"))
            gates = attacked.site.controller.admission.gates
            starting = asyncio.create_task(attacked.site.start_device("left"))
            for sent in range(0, FLOOD, SLICE):
                attacked.hostile.flood(topic, noise(attacked, topic, rng, SLICE))
                await attacked.until(
                    partial(lambda many: gates.refused("left")["gate.stamp"] >= many, sent // 2)
                )
            await starting
            await attacked.until(
                lambda: len(attacked.site.log.lines("session with the Controller is trusted")) > boots
            )
            assert not attacked.uncaught

    asyncio.run(journey())
    attacks("floods outside a session", FLOOD)
