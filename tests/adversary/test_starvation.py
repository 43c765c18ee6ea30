"""Somebody who may publish, but holds no key, tries to keep a device from ever being trusted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aif.protocol.evidence import AttestationRequest, encode_request
from aif.transport.base import Received
from aif.transport.memory import MemoryBroker, MemoryTransport
from tests.adversary.arena import arena

SPEED = 4.0
PATIENCE_S = 6.0
Send = Callable[[str, bytes], None]
Spoil = Callable[[Send, Received], None]


def false_answers(send: Send, seen: Received) -> None:
    """Answers every challenge before the device does."""
    if seen.topic.endswith("/req"):
        send(seen.topic.removesuffix("/req") + "/evd", b"\xff" * 80)


def false_challenges(send: Send, seen: Received) -> None:
    """Lets the device itself answer a challenge that nobody made."""
    if seen.topic.endswith("/up/hello"):
        send(f"aif/att/{seen.topic.split('/')[2]}/req", encode_request(AttestationRequest(bytes(32), 2**40)))


def false_rumours(send: Send, seen: Received) -> None:
    """Says that the device has gone, whenever it shows itself."""
    if seen.topic.endswith("/up/hello"):
        send(seen.topic.replace("/hello", "/status"), b"gone")


def false_grants(send: Send, seen: Received) -> None:
    """Sends grants as soon as the device could take one."""
    if seen.topic.endswith("/evd"):
        send(f"aif/dev/{seen.topic.split('/')[2]}/down/grant", b"\xff" * 300)


@asynccontextmanager
async def spoiled(broker: MemoryBroker, spoil: Spoil) -> AsyncIterator[None]:
    """Let it see everything but its own words."""
    own: set[bytes] = set()
    async with MemoryTransport(broker, client_id="spoiler") as transport:

        def send(topic: str, payload: bytes) -> None:
            own.add(payload)
            transport.send(topic, payload, qos=1)

        def see(message: Received) -> None:
            if message.payload not in own:
                spoil(send, message)

        await transport.subscribe("aif/#", see, qos=1)
        yield


@pytest.mark.parametrize(
    "spoil",
    [
        false_answers,
        false_challenges,
        false_rumours,
        false_grants,
    ],
)
def test_a_device_is_admitted_in_spite_of(spoil: Spoil, tmp_path: Path) -> None:
    async def journey() -> None:
        async with (
            arena("memory", tmp_path, devices=(), speed=SPEED) as attacked,
            spoiled(attacked.site.broker, spoil),
        ):
            attacked.site.add_device("left")
            await attacked.site.start_device("left")
            async with asyncio.timeout(PATIENCE_S):
                await attacked.site.until_trusted("left")

    asyncio.run(journey())


def test_old_hellos_do_not_keep_a_new_boot_out(tmp_path: Path) -> None:
    async def journey() -> None:
        async with arena("memory", tmp_path, devices=("left",), speed=SPEED) as attacked:
            admission = attacked.site.controller.admission
            await attacked.site.until_trusted("left")
            old, hello = attacked.hostile.heard("aif/dev/left/up/hello")[-1], admission.link("left").hello
            await attacked.site.kill("left")

            def repeat(send: Send, seen: Received) -> None:
                if "/left/" in seen.topic and seen.payload != old:
                    send("aif/dev/left/up/hello", old)

            async with spoiled(attacked.site.broker, repeat), asyncio.timeout(PATIENCE_S):
                await attacked.site.start_device("left")
                await attacked.site.until_true(
                    lambda: admission.trusted("left") and admission.link("left").hello not in (None, hello)
                )

    asyncio.run(journey())
