"""A Security Engine that is killed under a running host: processes of their own, a real broker."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from tests.integration.terminals import Started, descendants, desk
from tests.integration.test_processes import running, workflow

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def engine_of(host: Started) -> int:
    """Process id of a host's Security Engine."""
    (found,) = (
        pid for pid in descendants(host.pid)
        if b"aif.trusted.engine_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )  # fmt: skip
    return found


def test_messages_flow_again_and_the_fourth_death_makes_the_host_unfit(home: Path) -> None:
    async def journey() -> None:
        async with desk(home) as terminals:
            site = await terminals.gesture_site(follow=True)
            host = site.devices["gw-1"]
            async with running(terminals, site) as events:
                os.kill(engine_of(host), signal.SIGKILL)
                await host.until(r"(?s)(session with the Controller is trusted.*){2}")
                await events.outputs(5)
                assert (await workflow(terminals))["state"] == "running"
                for restart in (2, 3):  # all within a minute, also on a busy machine
                    os.kill(engine_of(host), signal.SIGKILL)
                    await host.until(rf"(?s)(the Security Engine runs again.*){{{restart}}}")
                os.kill(engine_of(host), signal.SIGKILL)
                words = "unfit: the Security Engine died 4 times within a minute"
                degraded = await events.until("workflow", state="degraded")
                # a hello that it said before it knew may come afterwards, and be answered with a challenge
                now = r"(not trusted|away)"
                assert re.fullmatch(
                    rf"device gw-1 is {now} \({words} \(SERVICE_FAILURE\)\)", degraded["note"]
                )
                shown = await terminals.ok("status")
                assert re.search(rf"^ +gw-1 +(rejected|appraising) +{words}", shown, re.MULTILINE), shown
                assert '"event": "this host is unfit"' in host.output
            for process in (site.controller, *site.devices.values()):
                assert "Traceback" not in process.output

    asyncio.run(journey())
