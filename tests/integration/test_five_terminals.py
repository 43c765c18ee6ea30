"""The gesture workflow as a person starts it by hand: every part by its own command, on one machine."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.integration.terminals import DEVICES, GESTURE, INVENTORY, desk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_five_terminals(home: Path) -> None:
    async def journey() -> None:
        async with desk(home) as terminals:
            for name in DEVICES:
                told = await terminals.ok("device", "add", name, "--inventory", INVENTORY)
                assert re.search(r"^pairing code (\w{4}-){6}\w{4}; it may enrol", told, re.MULTILINE), told
            _, broker = await terminals.broker()
            _, store = await terminals.store()
            controller = await terminals.controller(broker, store)
            where = ("--inventory", INVENTORY, "--broker", broker)
            devices = [
                await terminals.start("host", "--device", "edge-1", *where),
                await terminals.start("host", "--device", "gw-1", *where),
                await terminals.start("mcu", "--device", "mcu-2", *where),
                await terminals.start("mcu", "--device", "mcu-1", *where, "--follow"),
            ]
            for device in devices:
                await device.until("session with the Controller is trusted")

            listed = await terminals.ok("device", "list")
            assert [line.split()[0] for line in listed.splitlines()] == list(DEVICES)
            assert all(line.endswith(" enrolled") for line in listed.splitlines())

            told = await terminals.ok("deploy", GESTURE, "--inventory", INVENTORY)
            assert told.splitlines() == [
                "GestureRecognition-1 is planned", "GestureRecognition-1 is running",
            ]  # fmt: skip

            shown = await terminals.ok("status")
            assert re.search(r"^ {2}GestureRecognition-1 +running$", shown, re.MULTILINE), shown
            for name in DEVICES:
                assert re.search(rf"^ {{2}}{name} +trusted$", shown, re.MULTILINE), shown
            for aim in ("imu", "extract", "classifier", "anomaly", "decision", "sink"):
                assert f"{aim} running" in shown

            status = json.loads(await terminals.ok("status", "--json"))
            (workflow,) = status["workflows"]
            assert workflow["placement"]["proven_gap"] == 0.0
            assert {model["device"] for model in workflow["models"]} == {"mcu-1", "mcu-2"}
            assert all(step.endswith(": ok") for entry in status["devices"] for step in entry["appraisal"])

            logs = await terminals.ok("logs")
            assert re.search(r"^[\d:.]+ controller +info +evidence accepted device=mcu-1", logs, re.MULTILINE)
            follower = await terminals.start("logs", "-f")
            await follower.until("workflow state .*state=running")

            assert await terminals.ok("stop", "GestureRecognition-1") == "GestureRecognition-1 is stopped\n"
            await follower.until("workflow state .*state=stopped")
            shown = await terminals.ok("status")
            assert re.search(r"^ {2}GestureRecognition-1 +stopped$", shown, re.MULTILINE), shown

            assert await terminals.ok("stop") == "the Controller is stopping\n"
            assert await controller.ended() == 0
            await follower.ended()
            for process in devices:
                assert await process.interrupt() == 0, process.output
                assert "Traceback" not in process.output
            assert "Traceback" not in controller.output
            assert not (home / "site" / "controller.sock").exists()

    asyncio.run(journey())
