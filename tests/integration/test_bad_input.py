"""What a person sees who mistypes, forgets or breaks something: the whole screen, word by word."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path

import pytest

from tests.integration.terminals import GESTURE, INVENTORY, Desk, Finished, desk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def screen(finished: Finished, code: int, *, out: str = "") -> str:
    """What a failed command printed on stderr, besides ``out`` on the other stream; never a traceback."""
    assert finished.code == code, finished
    assert finished.out == out
    assert "Traceback" not in finished.err
    return finished.err.rstrip("\n")


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def changed(folder: Path, source: Path, before: str, after: str) -> Path:
    """A copy of a file with one change."""
    text = source.read_text()
    assert text.count(before) == 1
    copy = folder / source.name
    copy.write_text(text.replace(before, after))
    return copy


def test_devices_that_do_not_exist(home: Path, tmp_path: Path) -> None:
    async def journey() -> None:
        async with desk(home) as terminals:
            nope = await terminals.run("host", "--device", "nope", "--inventory", INVENTORY)
            assert screen(nope, 2) == (
                "error[AIF-E0200]: inventory wristband has no device 'nope'\n"
                "   = help: devices: edge-1, gw-1, mcu-1, mcu-2"
            )
            never = await terminals.run("host", "--device", "gw-1", "--inventory", INVENTORY)
            assert screen(never, 7) == (
                f"error[AIF-E0601]: gw-1 has no identity in {home}/devices/gw-1\n"
                f"   = help: add it with `aif device add gw-1 --inventory {INVENTORY}`"
            )
            assert not (home / "devices").exists()
            gateway = await terminals.run("mcu", "--device", "gw-1", "--inventory", INVENTORY)
            assert screen(gateway, 2) == (
                "error[AIF-E0200]: gw-1 is a device of class gateway, not mcu\n"
                "   = help: start it with `aif host`"
            )
            await terminals.ok("device", "add", "gw-1", "--inventory", INVENTORY)
            twice = await terminals.run("device", "add", "gw-1", "--inventory", INVENTORY)
            assert screen(twice, 6) == (
                "error[AIF-E0507]: device gw-1 is registered already\n"
                "   = help: choose another name, or remove it first with `aif device remove gw-1`"
            )
            assert await terminals.ok("device", "remove", "gw-1") == "device gw-1 removed\n"
            again = await terminals.run("device", "remove", "gw-1")
            assert screen(again, 7) == (
                "error[AIF-E0601]: the site knows no device 'gw-1'\n"
                "   = help: known: none; add it with `aif device add`"
            )

            double = changed(tmp_path, INVENTORY, "- id: mcu-2", "- id: mcu-1")
            found = screen(await terminals.run("device", "add", "mcu-1", "--inventory", double), 2)
            assert re.match(
                r"error\[AIF-E01\d\d\]: device id 'mcu-1' is given twice, on lines \d+ and \d+\n", found
            )
            assert re.search(rf"^  --> {double}:\d+:\d+$", found, re.MULTILINE)

    asyncio.run(journey())


def test_parts_that_are_not_there(home: Path, tmp_path: Path) -> None:
    async def journey() -> None:
        port = free_port()
        nobody = f"mqtt://127.0.0.1:{port}"
        refused = (
            f"error[AIF-E0702]: no MQTT connection to 127.0.0.1:{port}: Connection refused\n"
            "   = help: start the broker there, or give the address of another one"
        )
        async with desk(home) as terminals:
            controller = ("controller", "--store", "http://127.0.0.1:9", "--broker", nobody)
            assert screen(await terminals.run(*controller), 8) == refused
            await terminals.ok("device", "add", "gw-1", "--inventory", INVENTORY)
            host = ("host", "--device", "gw-1", "--inventory", INVENTORY, "--broker", nobody)
            assert screen(await terminals.run(*host), 8) == refused

            no_controller = (
                f"error[AIF-E0701]: no Controller answers at {home}/site/controller.sock\n"
                "   = cause: FileNotFoundError: [Errno 2] No such file or directory\n"
                "   = help: start one with `aif controller`, or give its --home"
            )
            for command in (("status",), ("logs",), ("stop",), ("deploy", GESTURE, "--inventory", INVENTORY)):
                assert screen(await terminals.run(*command), 8) == no_controller

            empty = tmp_path / "empty"
            served = await terminals.run("store", "serve", "--home", empty, "--port", 0)
            assert screen(served, 7) == (
                f"error[AIF-E0601]: there is no store at {empty}/store\n"
                "   = help: make one with `aif store init`"
            )
            listed = await terminals.run("store", "list", "--home", empty)
            assert screen(listed, 7) == (
                f"error[AIF-E0601]: there is no store at {empty}/store\n"
                "   = help: make one with `aif store publish`"
            )
            assert screen(await terminals.run(*controller, "--home", empty), 7) == (
                f"error[AIF-E0601]: there is no store in {empty} to take the trust root from\n"
                "   = help: make one with `aif store publish`, or give the --home that has it"
            )
            assert not empty.exists()

    asyncio.run(journey())


def test_parts_that_are_there_twice(home: Path) -> None:
    async def journey() -> None:
        async with desk(home) as terminals:
            _, broker = await terminals.broker()
            _, store = await terminals.store()
            await terminals.controller(broker, store)
            second = await terminals.run("controller", "--broker", broker, "--store", store)
            assert screen(second, 9) == (
                "error[AIF-E0802]: the Controller of this site runs already in another process\n"
                "   = help: stop that one first, or use another --home"
            )
            await terminals.ok("device", "add", "gw-1", "--inventory", INVENTORY)
            host = ("host", "--device", "gw-1", "--inventory", INVENTORY, "--broker", broker)
            first = await terminals.start(*host)
            await first.until("session with the Controller is trusted")
            assert screen(await terminals.run(*host), 9) == (
                "error[AIF-E0802]: device gw-1 runs already in another process\n"
                "   = help: stop that one first, or use another --home"
            )
            port = broker.rpartition(":")[2]
            assert screen(await terminals.run("broker", "--port", port), 8) == (
                f"error[AIF-E0702]: cannot start a broker on 127.0.0.1:{port}: another process listens "
                "there\n"
                "   = cause: OSError: [Errno 98] Address already in use\n"
                "   = help: end that process, choose another port, or use it as the broker"
            )
            # the first ones were not disturbed
            assert "trusted" in await terminals.ok("status")
            assert "is lost" not in first.output

    asyncio.run(journey())


async def refused(terminals: Desk, code: int, workflow: Path, inventory: Path = INVENTORY) -> str:
    return screen(await terminals.run("deploy", workflow, "--inventory", inventory), code)


async def failed(terminals: Desk) -> str:
    """A workflow that was planned, and then could not be brought up."""
    finished = await terminals.run("deploy", GESTURE, "--inventory", INVENTORY)
    return screen(finished, 9, out="GestureRecognition-1 is planned\n")


def test_workflows_that_cannot_be_deployed(home: Path, tmp_path: Path) -> None:
    async def journey() -> None:
        source = GESTURE / "gesture.aiw.yaml"
        async with desk(home) as terminals:
            _, broker = await terminals.broker()
            _, store = await terminals.store()
            await terminals.controller(broker, store)

            broken = changed(tmp_path, source, "aims:\n", "aims: [\n")
            shown = await refused(terminals, 2, broken)
            assert re.match(r"error\[AIF-E01\d\d\]: ", shown)
            assert re.search(rf"^  --> {broken}:\d+:\d+$", shown, re.MULTILINE)

            wrong = changed(tmp_path, source, "deadline_ms: 200}", "deadline_ms: soon}")
            shown = await refused(terminals, 2, wrong)
            assert re.search(rf"^  --> {wrong}:27:\d+$", shown, re.MULTILINE), shown
            assert "deadline_ms: soon" in shown

            unknown = changed(tmp_path, source, "use: EventSink@1.0", "use: EventSnk@1.0")
            shown = await refused(terminals, 2, unknown)
            assert "EventSnk@1.0" in shown.splitlines()[0]
            assert "EventSink@1.0" in shown

            crossed = changed(tmp_path, source, "scores: classifier.scores", "scores: anomaly.score")
            shown = await refused(terminals, 2, crossed)
            assert shown.startswith("error[AIF-E0203]: ")

            missing = tmp_path / "missing.aiw.yaml"
            shown = await refused(terminals, 2, missing)
            assert shown.splitlines()[0].endswith("missing.aiw.yaml: No such file or directory")

            small = changed(tmp_path, INVENTORY, "ram_bytes: 16384", "ram_bytes: 1024")
            shown = await refused(terminals, 4, source, small)
            assert shown.splitlines()[0] == "error[AIF-E0301]: no placement exists"
            assert "RAM" in shown
            assert "mcu-1" in shown

            gone = await terminals.run("stop", "Nothing-1")
            assert screen(gone, 7) == (
                "error[AIF-E0601]: no workflow 'Nothing-1' is deployed\n   = help: deployed: none"
            )
            assert await terminals.ok("status") == "devices: none has said hello\nworkflows: none\n"

    asyncio.run(journey())


def models_of(store: Path) -> list[Path]:
    """The files of every model that a publisher has signed; nothing in them tells that they are models."""
    signed = [json.loads(file.read_bytes())["signed"] for file in store.glob("metadata/*.publisher.*.json")]
    digests = {
        target["hashes"]["sha256"]
        for publisher in signed
        for target in publisher["targets"].values()
        if target["custom"]["kind"] == "model"
    }
    found = [file for file in store.rglob("*") if file.is_file() and any(d in file.name for d in digests)]
    assert len(found) == len(digests) >= 2, found
    return found


def test_a_model_that_was_changed_in_the_store(home: Path) -> None:
    async def journey() -> None:
        for blob in models_of(home / "store"):
            content = bytearray(blob.read_bytes())
            content[-1] ^= 1
            blob.chmod(0o600)
            blob.write_bytes(content)
        async with desk(home) as terminals:
            await terminals.gesture_site()
            shown = await failed(terminals)
            assert re.fullmatch(
                r"error\[AIF-E0803\]: mcu-[12]: AIF-E0603: the bytes from http://127.0.0.1:\d+ are not those "
                r"that were signed \(SHA-256 [0-9a-f]{64}\)\n   = help: see `aif logs`",
                shown,
            ), shown
            for device in ("mcu-1", "mcu-2"):
                slots = home / "devices" / device / "models"
                assert not slots.exists() or not list(slots.iterdir())

    asyncio.run(journey())


def test_a_store_that_is_down(home: Path) -> None:
    async def journey() -> None:
        async with desk(home) as terminals:
            site = await terminals.gesture_site()
            await site.store.interrupt()
            shown = await failed(terminals)
            assert re.match(
                r"error\[AIF-E0803\]: the store at http://127.0.0.1:\d+ is not reachable\n   = help: ", shown
            ), shown

    asyncio.run(journey())
