"""The page about watching and moving, on the site of the gesture workflow."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.docs.console import commands
from tests.integration.terminals import GESTURE, INVENTORY, ROOT, desk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PAGE = ROOT / "docs" / "howto" / "watch_and_move.md"


def test_the_page_runs_as_written(home: Path, tmp_path: Path) -> None:
    lines = commands(PAGE.read_text(encoding="utf-8"))

    async def journey() -> None:
        async with desk(home) as terminals:
            await terminals.gesture_site(follow=True)
            await terminals.ok("deploy", GESTURE, "--inventory", INVENTORY)
            terminals.folder = tmp_path
            told = [(line, await terminals.type(line)) for line in lines]
            print(*(f"$ {line}\n{text}" for line, text in told))  # noqa: T201  # what pytest shows
            screens = [text for line, text in told if line == "aif top --once"]
            for screen, where in zip(screens, ("gw-1", "edge-1"), strict=True):
                assert "4 of 4 devices trusted" in screen
                assert re.search(rf"^ +decision +{where} +\w+ +running", screen, re.MULTILINE), screen
            texts = dict(told)
            assert "nothing moves; no mapping is better" in texts["aif remap --dry-run"]
            assert "  decision: gw-1 -> edge-1\n" in texts["aif remap --move decision=edge-1 --dry-run"]
            assert "  decision: edge-1 -> gw-1\n" in texts["aif remap --yes"]
            assert "decision: gw-1 -> edge-1" in texts["aif device drain gw-1"]
            assert "4 devices" in texts["aif validate site.yaml"]
            await terminals.ok("stop", "GestureRecognition-1")

    asyncio.run(journey())
