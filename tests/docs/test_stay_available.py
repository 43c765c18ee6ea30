"""The page about availability: its workflow runs as it stands there, and is taken over."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from aif.cli._publishing import hand_over_here
from aif.model.standby import standby_of
from tests.docs.console import ROOT
from tests.runtime.mapping.test_remapping import all_up, place_of, three
from tests.runtime.test_sealed_models import AIMS, answer, publish

PAGE = ROOT / "docs" / "howto" / "stay_available.md"


@pytest.mark.integration
def test_the_workflow_of_the_page_is_taken_over(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    (workflow,) = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)

    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=AIMS) as site:
            await all_up(site)
            publish(site)
            hand_over_here(site.home)
            running = await site.deploy(workflow)
            await site.outputs(running, 3)
            ready = place_of(running, standby_of("think"))
            await site.kill(place_of(running, "think"))
            await site.until_logged("workflow re-mapped")
            assert place_of(running, "think") == ready
            assert [list(value) for value in await site.outputs(running, 3)] == [answer()] * 3

    asyncio.run(journey())
