"""What several User Agent verbs do with a Controller's event stream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aif.errors import StartFailed
from aif.transport import local


async def wait_until_running(socket: Path, aiw: str) -> None:
    """Follow a deployment until it runs.

    Raises:
        StartFailed: it failed; the message is the Controller's.
    """
    async for event in local.stream(socket, "events"):
        state, note = _state_of(event, aiw)
        if state in ("running", "paused", "degraded", "completed"):
            return
        if state in ("failed", "stopped"):
            raise StartFailed(note or f"{aiw} is {state}", hint="see `aif logs`")


def _state_of(event: Mapping[str, Any], aiw: str) -> tuple[str, str]:
    if event["type"] == "workflow" and event["aiw"] == aiw:
        return event["state"], event["note"]
    if event["type"] == "status":
        for workflow in event["status"]["workflows"]:
            if workflow["aiw"] == aiw:
                return workflow["state"], workflow["note"]
    return "", ""
