"""The page about messages that count once: its workflow and its AIM run as they stand there, and move."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from aif.protocol.lifecycle import WorkflowState
from tests.docs.console import ROOT
from tests.runtime.mapping.test_remapping import all_up, place_of, three
from tests.runtime.site import AIMS

PAGE = ROOT / "docs" / "howto" / "exactly_once.md"
LAST = 800


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_total_of_the_page_is_right_though_its_device_is_lost(tmp_path: Path) -> None:
    async def journey() -> None:
        workflow, contract = blocks("yaml")
        (module,) = blocks("python")
        async with three(tmp_path, speed=3.0, aims={**AIMS, "total": (contract, module)}) as site:
            await all_up(site)
            running = await site.deploy(workflow)
            await site.outputs(running, 20)
            await site.kill(place_of(running, "total"))
            await site.until_logged("workflow re-mapped")
            events = await site.run_to_end(running)
            assert running.state is WorkflowState.COMPLETED, running.note
            assert events[-1]["value"] == LAST * (LAST + 1) // 2

    asyncio.run(journey())
