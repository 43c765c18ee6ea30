"""Where a model is in clear: with its publisher and inside a Security Engine, and nowhere else on a site."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from aif.gateway.wire_tap import NEEDLE_BYTES, Needles, WireTap
from aif.transport import local
from aif.transport.mqtt import MQTTTransport
from tests.integration.terminals import GESTURE, INVENTORY, PATIENCE_S, Desk, Started, descendants, desk
from tests.trusted.process_memory import memory_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MIN_DISTINCT_BYTES = 13
"""Of 16; offsets, texts and biases of a model file have fewer, and occur elsewhere by chance."""
SLICE_BYTES = 4 << 20
DEVICES = {"edge-1": "host", "gw-1": "host", "strap-1": "host", "mcu-1": "mcu"}


def weights(home: Path) -> Needles:
    """Pieces of the weights of the shipped models, cut one after the other, without the common ones."""
    pieces = set()
    for file in sorted((home / "models").glob("*.tflite")):
        model = file.read_bytes()
        cuts = (model[n : n + NEEDLE_BYTES] for n in range(0, len(model) - NEEDLE_BYTES, NEEDLE_BYTES))
        pieces |= {cut for cut in cuts if len(set(cut)) >= MIN_DISTINCT_BYTES and not cut.isascii()}
    assert len(pieces) > 90
    return Needles(pieces)


def in_memory(pid: int, needles: Needles) -> bool:
    """Whether a process holds a piece of a model."""
    return any(
        needles.first_in(region[start : start + SLICE_BYTES + NEEDLE_BYTES]) is not None
        for region in memory_of(pid)
        for start in range(0, len(region), SLICE_BYTES)
    )


def with_plaintext(folder: Path, needles: Needles) -> list[str]:
    """Files that hold a piece of a model."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        path.relative_to(folder).as_posix()
        for path in files
        if needles.first_in(path.read_bytes()) is not None
    ]


def gateway_inventory(home: Path) -> Path:
    """The shipped inventory with a gateway in place of the second microcontroller, to run the models."""
    text = INVENTORY.read_text()
    start, end = text.index("  - id: mcu-2"), text.index("links:")
    strap = (
        "  - {id: strap-1, class: gateway, board: strap-gateway, arch: aarch64, os: Linux, flash_bytes: 0,\n"
        "     instructions_per_s: 1000000000, ram_bytes: 134217728,\n"
        "     storage: [{kind: disk, bytes: 1000000000, write_bps: 80000000}], radios: [ieee802154],\n"
        "     runtimes: [python, tflite], attestation: software, site: lab, zone: wrist}\n"
    )
    text = text[:start] + strap + text[end:].replace("mcu-2", "strap-1")
    assert text.count("[tflm, firmware]") == 1
    file = home / "inventory.yaml"
    file.write_text(text.replace("[tflm, firmware]", "[firmware]"))
    return file


def test_a_model_is_in_clear_with_its_publisher_and_in_the_engine_only(home: Path) -> None:
    needles, inventory = weights(home), gateway_inventory(home)

    async def journey() -> None:
        async with desk(home) as terminals:
            for name in DEVICES:
                await terminals.ok("device", "add", name, "--inventory", inventory)
            _, broker = await terminals.broker()
            store, store_url = await terminals.store()
            async with (
                MQTTTransport(broker, client_id="tap") as transport,
                WireTap(transport, needles) as tap,
            ):
                controller = await terminals.controller(broker, store_url)
                where = ("--inventory", inventory, "--broker", broker)
                hosts: dict[str, Started] = {}
                for name, verb in DEVICES.items():
                    follow = ["--follow"] if verb == "mcu" else []
                    hosts[name] = await terminals.start(verb, "--device", name, *where, *follow)
                await run_a_while(terminals, inventory)
                seen = tap.report()
                assert seen.messages > 100
                assert (seen.plaintext, seen.missed) == (0, 0)

                strap = hosts["strap-1"].pid
                outside = {name: host.pid for name, host in hosts.items()}
                outside |= {"controller": controller.pid, "store": store.pid}
                for name, pid in outside.items():
                    assert not await asyncio.to_thread(in_memory, pid, needles), f"a model is in {name}"
                (engine,) = descendants(strap) - {strap}
                with suppress(
                    PermissionError
                ):  # without the right to trace anything: the engine is protected
                    assert await asyncio.to_thread(in_memory, engine, needles), (
                        "the search finds what is there"
                    )

            for process in terminals.started:
                assert needles.first_in(process.output.encode()) is None
        assert {name.split("/")[0] for name in with_plaintext(home, needles)} == {"models"}
        sealed = list((home / "devices" / "strap-1" / "models").iterdir())
        assert len(sealed) == 2, "the models rest on the gateway, as ciphertext"

    asyncio.run(journey())


async def run_a_while(terminals: Desk, inventory: Path) -> None:
    """Deploy the gesture workflow and take some of its results."""
    await terminals.ok("deploy", GESTURE, "--inventory", inventory)
    stream = local.stream(terminals.home / "site" / "controller.sock", "events")
    assert isinstance(stream, AsyncGenerator)
    async with asyncio.timeout(PATIENCE_S):
        async with aclosing(stream) as events:
            count = 0
            async for event in events:
                count += event["type"] == "output"
                if count == 30:
                    return
