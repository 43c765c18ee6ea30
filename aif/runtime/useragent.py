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
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES, Signal
from aif.runtime.controller import Controller, RunningWorkflow
from aif.runtime.kept import Load
from aif.runtime.logbook import LogBook
from aif.runtime.trust_calls import trust_call
from aif.runtime.workflows import Sources


class UserAgentServer:
    """Answers a User Agent's calls."""

    def __init__(self, controller: Controller, *, load: Load, log: LogBook) -> None:
        self._controller, self._load, self._log = controller, load, log
        self.shutdown_requested = asyncio.Event()

    async def handle(self, call: str, arguments: Mapping[str, Any]) -> Any:
        """One call.

        Raises:
            AIFError: of whatever the call does; ``LocalProtocolError`` for an unknown one.
        """
        match call:
            case "deploy":
                return await self._deploy(arguments)
            case "status":
                return self.status()
            case "events":
                return self._events()
            case "logs":
                return self._logs(follow=bool(arguments.get("follow")))
            case "stop":
                await self._controller.stop(str(arguments["aiw"]))
                return None
            case "pause" | "resume":
                signal = Signal.PAUSE if call == "pause" else Signal.RESUME
                self._controller.signal(str(arguments["aiw"]), signal, str(arguments.get("aim", "")))
                return None
            case "drain" | "proposal":
                return await self._drain(call, str(arguments.get("device", "")))
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

    async def _drain(self, call: str, device: str) -> dict[str, list[str]]:
        """Moves by workflow, in words."""
        draining = self._controller.draining
        moves = await (draining.drain(device) if call == "drain" else draining.proposal(device))
        return {aiw: [str(move) for move in of_one] for aiw, of_one in moves.items()}

    async def _events(self) -> AsyncIterator[dict[str, Any]]:
        """The state as it is, then every change."""
        with self._controller.events.listening() as queue:
            yield {"type": "status", "status": self.status()}
            while True:
                yield await queue.get()

    async def _logs(self, *, follow: bool) -> AsyncIterator[dict[str, Any]]:
        with self._controller.events.listening() as queue:
            for line in list(self._controller.recent_logs):
                yield line
            while follow:
                event = await queue.get()
                if event["type"] == "log":
                    yield event

    def status(self) -> dict[str, Any]:
        """Everything a screen needs."""
        links = sorted(self._controller.admission.links.values(), key=lambda link: link.device)
        return {
            "devices": [
                {
                    "device": link.device,
                    "trust": str(link.trust),
                    "reason": link.reason,
                    "appraisal": list(link.verdict.steps) if link.verdict is not None else [],
                    "clock_skew_s": round(link.skew_s, 3),
                    "troubles": self._controller.admission.troubles(link),
                }
                for link in links
            ],
            "workflows": [_workflow_status(running) for running in self._controller.workflows.values()],
        }


def _workflow_status(running: RunningWorkflow) -> dict[str, Any]:
    placement = running.placement
    failure = running.failure
    return {
        "aiw": running.aiw_id,
        "workflow": running.workflow.metadata.reference,
        "state": str(running.state),
        "ended": running.state in FINAL_WORKFLOW_STATES,
        "note": running.note,
        "failure": {"code": failure.code, "message": str(failure), "hint": failure.hint} if failure else None,
        "placement": {
            "objective": placement.objective,
            "bound": placement.bound,
            "proven_gap": placement.gap,
            "seconds": placement.seconds,
            "assignments": [
                {
                    "aim": a.aim,
                    "device": a.device,
                    "implementation": a.implementation,
                    "reason": a.reason,
                    "rejected": dict(a.rejected),
                }
                for a in placement.assignments
            ],
        },
        "devices": {
            device: {
                "phase": str(status.phase),
                "aims": {aim: str(report.state) for aim, report in status.aims.items()},
            }
            for device, status in sorted(running.status.items())
        },
        "models": [
            {
                "device": model.device,
                "aim": model.aim,
                "name": model.component,
                "version": model.counter,
                "sha256": model.sha256.hex(),
                "bytes": model.bytes_,
                "arena_bytes": model.arena_bytes,
            }
            for model in (running.plan.models if running.plan else ())
        ],
        "channels": sorted(
            f"{c.source} -> {', '.join(c.destinations)}"
            for c in (running.plan.channels.values() if running.plan else ())
        ),
        "metrics": {device: _json_keys(values) for device, values in running.metrics.items()},
        "unaccounted": running.unaccounted,
    }


def _json_keys(value: Any) -> Any:
    """Histograms have integer keys; JSON has only text."""
    if isinstance(value, Mapping):
        return {str(k): _json_keys(v) for k, v in value.items()}
    return value
