"""The gesture workflow as a person starts it by hand: what its page says, in the page's order."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path

import pytest

from tests.docs.console import commands
from tests.integration.terminals import DEVICES, ROOT, desk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PAGE = ROOT / "docs" / "howto" / "five_terminals.md"
DONE = {"aif train", "aif store publish"}
"""What the home folder of the tests has behind it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def typed(page: Path, *ports: int) -> list[str]:
    """A page's commands, with free ports in place of those that it names."""
    text = page.read_text(encoding="utf-8")
    for port in ports:
        assert str(port) in text
        text = text.replace(str(port), str(free_port()))
    return [command for command in commands(text) if command not in DONE]


def test_five_terminals(home: Path) -> None:
    lines = typed(PAGE, 18830, 18140)
    stop = lines.index("aif stop GestureRecognition-1")

    async def journey() -> None:
        async with desk(home) as terminals:
            told = {line: await terminals.type(line) for line in lines[:stop]}
            for line, text in told.items():
                if line.startswith("aif device add"):
                    code = r"^pairing code (\w{4}-){6}\w{4}; it may enrol"
                    assert re.search(code, text, re.MULTILINE), text
            assert [line.split()[0] for line in told["aif device list"].splitlines()] == list(DEVICES)
            (deployed,) = [text for line, text in told.items() if line.startswith("aif deploy")]
            assert deployed.splitlines() == [
                "GestureRecognition-1 is planned", "GestureRecognition-1 is running",
            ]  # fmt: skip
            listed = await terminals.ok("device", "list")
            assert all(line.endswith(" enrolled") for line in listed.splitlines())

            shown = told["aif status"]
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

            accepted = r"^[\d:.]+ controller +info +evidence accepted device=mcu-1"
            assert re.search(accepted, told["aif logs"], re.MULTILINE)
            follower = await terminals.start("logs", "-f")
            await follower.until("workflow state .*state=running")

            assert lines[stop:] == ["aif stop GestureRecognition-1", "aif stop"]
            assert await terminals.type(lines[stop]) == "GestureRecognition-1 is stopped\n"
            await follower.until("workflow state .*state=stopped")
            shown = await terminals.ok("status")
            assert re.search(r"^ {2}GestureRecognition-1 +stopped$", shown, re.MULTILINE), shown

            assert await terminals.type(lines[stop + 1]) == "the Controller is stopping\n"
            await follower.ended()
            for line, process in terminals.typed.items():
                if line.startswith("aif controller"):
                    assert await process.ended() == 0
                elif line.startswith(("aif host", "aif mcu")):
                    assert await process.interrupt() == 0, process.output
                assert "Traceback" not in process.output
            assert not (home / "site" / "controller.sock").exists()

    asyncio.run(journey())
