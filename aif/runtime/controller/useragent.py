"""The User Agent's side: calls that a person's tools make, and what the Controller answers.

Calls carry plain JSON values and travel over a private socket of this machine (``transport.local``).
Nothing is decided here: it translates between calls and the Controller.

Source: MPAI-AIF V2, User Agent and the Controller's User API.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from aif.config.workflow import workflow_file
from aif.errors import LocalProtocolError
from aif.protocol.lifecycle import Signal
from aif.runtime.clock import Clock
from aif.runtime.controller.controller import Controller
from aif.runtime.controller.kept import Load
from aif.runtime.controller.moving_calls import moving_call
from aif.runtime.controller.status import status
from aif.runtime.controller.trust_calls import trust_call
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.workflows import Sources

ENDED_IN_BRIEF = 3
"""Workflows that have ended in a brief status; each tells all its figures."""


class UserAgentServer:
    """Answers a User Agent's calls."""

    def __init__(self, controller: Controller, *, load: Load, clock: Clock, log: LogBook) -> None:
        self._controller, self._load, self._clock, self._log = controller, load, clock, log
        self._started_us = clock.time_us()
        self.shutdown_requested = asyncio.Event()

    async def handle(self, call: str, arguments: Mapping[str, Any]) -> Any:
        """One call.

        Raises:
            AIFError: of whatever the call does; ``LocalProtocolError`` for an unknown one.
        """
        match call:
            case "deploy":
                return await self._deploy(arguments)
            case "status" | "scan":
                return self._scan() if call == "scan" else self._status(brief=bool(arguments.get("brief")))
            case "events":
                return self._events()
            case "logs":
                after = arguments.get("after", 0)
                return self._logs(
                    follow=bool(arguments.get("follow")), after=after if isinstance(after, int) else 0
                )
            case "stop":
                await self._controller.stop(str(arguments["aiw"]))
                return None
            case "pause" | "resume":
                signal = Signal.PAUSE if call == "pause" else Signal.RESUME
                self._controller.signal(str(arguments["aiw"]), signal, str(arguments.get("aim", "")))
                return None
            case "drain" | "proposal" | "improvement" | "move":
                return await moving_call(self._controller, call, arguments)
            case "revoke" | "trust" | "verify":
                return await trust_call(self._controller, call, arguments)
            case "shutdown":
                self.shutdown_requested.set()
                return None
        raise LocalProtocolError(f"the Controller has no call {call!r}")

    async def _deploy(self, arguments: Mapping[str, Any]) -> str:
        aims = [Path(folder) for folder in arguments.get("aims", [])]
        workflow, inventory, library = await asyncio.to_thread(
            self._load, Path(arguments["workflow"]), Path(arguments["inventory"]), aims
        )
        sources = Sources(
            workflow_file(Path(arguments["workflow"])), Path(arguments["inventory"]), tuple(aims)
        )
        running = await self._controller.deploy(workflow, inventory, library, sources=sources)
        return running.aiw_id

    def _status(self, *, brief: bool = False) -> dict[str, Any]:
        """``brief`` leaves out all but the last workflows that have ended: for those who ask often."""
        workflows = list(self._controller.workflows.values())
        if brief:
            ended = [running.aiw_id for running in workflows if running.ended]
            old = frozenset(ended[: max(0, len(ended) - ENDED_IN_BRIEF)])
            workflows = [running for running in workflows if running.aiw_id not in old]
        controller = self._controller
        return status(
            controller.admission, workflows, self._clock, self._started_us, drained=controller.drained
        )

    def _scan(self) -> dict[str, Any]:
        return self._controller.discovery.scan(self._controller.admission.links)

    async def _events(self) -> AsyncIterator[dict[str, Any]]:
        """The state as it is, then every change."""
        with self._controller.events.listening() as queue:
            yield {"type": "status", "status": self._status()}
            while True:
                yield await queue.get()

    async def _logs(self, *, follow: bool, after: int) -> AsyncIterator[dict[str, Any]]:
        """Lines with a higher number than ``after``, as far as they are kept; then those that come."""
        with self._controller.events.listening() as queue:
            for line in list(self._controller.reports.recent_logs):
                if line["number"] > after:
                    yield line
            while follow:
                event = await queue.get()
                if event["type"] == "log":
                    yield event
