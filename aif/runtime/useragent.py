"""The User Agent's side: calls that a person's tools make, and what the Controller answers.

Calls carry plain JSON values and travel over a private socket of this machine (``transport.local``).
Nothing is decided here: it translates between calls and the Controller.

Source: MPAI-AIF V2, User Agent and the Controller's User API.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aif.errors import LocalProtocolError, NotFound
from aif.model.aiw import Workflow
from aif.model.inventory import Inventory
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES, Signal
from aif.runtime.admission import DeviceLink
from aif.runtime.controller import Controller, RunningWorkflow
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook

Loader = Callable[[Path, Path, list[Path]], tuple[Workflow, Inventory, AIMLibrary]]
"""Reads a workflow and an inventory with AIM folders; raises ConfigError."""


MAX_REASON = 200
"""Characters of the reason for which a device is revoked."""


class UserAgentServer:
    """Answers a User Agent's calls."""

    def __init__(self, controller: Controller, *, load: Loader, log: LogBook) -> None:
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
            case "revoke":
                taken = await self._controller.revocation.revoke(
                    str(arguments["device"]),
                    str(arguments["reason"])[:MAX_REASON],
                    lost=bool(arguments["lost"]),
                )
                return [asdict(step) for step in taken]
            case "trust":
                return self._trust(str(arguments.get("device", "")))
            case "verify":
                return await self._verify(str(arguments["device"]))
            case "shutdown":
                self.shutdown_requested.set()
                return None
        raise LocalProtocolError(f"the Controller has no call {call!r}")

    async def _deploy(self, arguments: Mapping[str, Any]) -> str:
        aims = [Path(folder) for folder in arguments.get("aims", [])]
        workflow, inventory, library = await asyncio.to_thread(
            self._load, Path(arguments["workflow"]), Path(arguments["inventory"]), aims
        )
        running = await self._controller.deploy(workflow, inventory, library)
        return running.aiw_id

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

    def _trust(self, device: str) -> list[dict[str, Any]]:
        """What is known of each device's trust, or of one.

        Raises:
            NotFound: it has not said hello to this Controller, or there is none of that name.
        """
        links = self._controller.admission.links
        if device and device not in links:
            raise NotFound(
                f"{device} has not said hello since the Controller started", hint="see `aif device show`"
            )
        return [_trust_of(link) for name, link in sorted(links.items()) if device in ("", name)]

    async def _verify(self, device: str) -> dict[str, Any]:
        """Challenge a device now, and wait for what its answer says.

        Raises:
            NotFound: it has no session.
            StartFailed: it does not answer.
        """
        await self._controller.verify(device)
        return _trust_of(self._controller.admission.link(device))

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
                }
                for link in links
            ],
            "workflows": [_workflow_status(running) for running in self._controller.workflows.values()],
        }


def _trust_of(link: DeviceLink) -> dict[str, Any]:
    verdict = link.verdict
    return {
        "device": link.device,
        "trust": str(link.trust),
        "reason": link.reason,
        "appraisal": None
        if verdict is None
        else {
            "passed": verdict.passed,
            "time_us": verdict.time_us,
            "steps": list(verdict.steps),
            "components": [
                {"type": c.type, "version": c.version, "sha256": c.measurement.hex()}
                for c in verdict.components
            ],
            "result": base64.b64encode(verdict.signed_result).decode(),
        },
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
    }


def _json_keys(value: Any) -> Any:
    """Histograms have integer keys; JSON has only text."""
    if isinstance(value, Mapping):
        return {str(k): _json_keys(v) for k, v in value.items()}
    return value
