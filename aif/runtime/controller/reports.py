"""What devices say about workflows: it is kept, told to User Agents, and wakes whoever waits for it.

Decides what a report is about, and that a device that speaks of something it should not hold any more is told
to drop it. Decides nothing about workflows (``supervisor``, ``healing``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from aif.errors import AIFError
from aif.model.codec import compile_record
from aif.protocol import control
from aif.protocol.announcement import Announcement
from aif.protocol.control import (
    BoundaryRecord,
    ControlMessage,
    LogLine,
    Metrics,
    Phase,
    Progress,
    WorkflowStatus,
)
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES
from aif.runtime.clock import Clock
from aif.runtime.devices.discovery import Discovery
from aif.runtime.devices.links import DeviceLink
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.rekeying import Rekeying
from aif.runtime.mapping.workflows import Changes, EventFeed, RunningWorkflow
from aif.runtime.plain import plain_record

LOG_LINES_KEPT = 1_000


class DeviceReports:
    """Takes up the reports of all devices of a site."""

    def __init__(
        self,
        workflows: Mapping[str, RunningWorkflow],
        rekeying: Rekeying,
        discovery: Discovery,
        send: Callable[[str, ControlMessage], None],
        events: EventFeed,
        changes: Changes,
        *,
        clock: Clock,
        log: LogBook,
    ) -> None:
        self._workflows, self._rekeying, self._discovery, self._send = workflows, rekeying, discovery, send
        self._events, self._changes = events, changes
        self._clock, self._log = clock, log
        self.recent_logs: deque[dict[str, Any]] = deque(maxlen=LOG_LINES_KEPT)
        self._logged = 0
        self._leftovers: set[tuple[str, str]] = set()

    def take(self, device: str, message: ControlMessage) -> None:
        """Take up one control message of a trusted device."""
        match message:
            case LogLine():
                self.take_log(device, message)
            case Announcement():
                self._discovery.take(device, message)
            case control.Keyed():
                self._rekeying.confirmed(device, message.channel_id, message.epoch)
            case control.KeyWanted():
                self._renew_stopped(device, message)
            case _:
                self._of_workflow(device, message)

    def _of_workflow(self, device: str, message: ControlMessage) -> None:
        running = self._workflows.get(getattr(message, "aiw_id", ""))
        if running is None or device not in running.devices or running.state in FINAL_WORKFLOW_STATES:
            ended = running is None or running.state in FINAL_WORKFLOW_STATES
            in_use = running is not None and not ended and device in running.leaving
            if isinstance(message, WorkflowStatus) and not in_use:
                self._take_back(device, message)
            return
        match message:
            case WorkflowStatus():
                self._take_status(running, device, message)
            case Metrics(values=values):
                running.metrics[device] = values
                self._changes.notify()
                self._events.publish(
                    {
                        "type": "metrics", "aiw": running.aiw_id, "device": device,
                        "values": plain_record(values),
                    }
                )  # fmt: skip
            case Progress(step=step, done=done, total=total):
                self._events.publish(
                    {"type": "progress", "aiw": running.aiw_id, "device": device, "step": step,
                     "done": done, "total": total}
                )  # fmt: skip
            case BoundaryRecord():
                self._boundary_output(running, message)
            case _:
                self._log.warning(
                    "unexpected message from a device", device=device, message=type(message).__name__
                )

    def _renew_stopped(self, device: str, wanted: control.KeyWanted) -> None:
        for running in self._workflows.values():
            plan, ended = running.plan, running.state in FINAL_WORKFLOW_STATES
            if plan is not None and not ended and wanted.channel_id in plan.channels:
                self._rekeying.wanted(plan, device, wanted.channel_id, wanted.epoch, without=running.without)

    def _take_back(self, device: str, status: WorkflowStatus) -> None:
        """A device speaks of a workflow that has ended or moved, or that an earlier Controller deployed."""
        holding = (device, status.aiw_id)
        if _dropped(status):
            self._leftovers.discard(holding)
            return
        if holding not in self._leftovers:
            self._leftovers.add(holding)
            running = self._workflows.get(status.aiw_id)
            if running is None or running.state in FINAL_WORKFLOW_STATES:
                self._log.warning("device holds a workflow that has ended", device=device, aiw=status.aiw_id)
            else:
                self._log.info("device drops what has moved away", device=device, aiw=status.aiw_id)
        self._send(device, control.Undeploy(status.aiw_id))

    def _take_status(self, running: RunningWorkflow, device: str, status: WorkflowStatus) -> None:
        if _dropped(status):
            running.dropped.add(device)
            self._changes.notify()
            return
        running.dropped.discard(device)
        previous = running.status.get(device)
        running.status[device] = status
        if previous != status:
            self._events.publish(
                {"type": "device", "aiw": running.aiw_id, "device": device, "phase": str(status.phase),
                 "aims": {aim: str(report.state) for aim, report in status.aims.items()}}
            )  # fmt: skip
        self._changes.notify()

    def take_log(self, origin: str, line: LogLine) -> None:
        """Keep and publish one log line of a device or of the Controller itself."""
        self._logged += 1
        event = {
            "type": "log", "number": self._logged, "origin": origin, "time_us": line.time_us,
            "level": line.level, "event": line.event, "facts": dict(line.facts),
        }  # fmt: skip
        self.recent_logs.append(event)
        self._events.publish(event)

    def _boundary_output(self, running: RunningWorkflow, record: BoundaryRecord) -> None:
        port = next((b.port for b in running.workflow.metadata.outputs if b.port.name == record.port), None)
        if port is None:
            return
        running.outputs[port.name] += 1
        self._note_recovery(running, port.name)
        try:
            value = compile_record(
                port.type.record, payload_bytes=port.payload_bytes, label=port.name
            ).decode(record.record)
        except AIFError as error:
            self._log.warning("boundary record refused", port=record.port, reason=str(error))
            return
        self._events.publish(
            {"type": "output", "aiw": running.aiw_id, "port": record.port, "origin_us": record.origin_us,
             "delay_us": max(0, self._clock.time_us() - record.origin_us), "value": plain_record(value)}
        )  # fmt: skip

    def _note_recovery(self, running: RunningWorkflow, port: str) -> None:
        """The first output after a loss that needed what has moved."""
        awaited = running.awaited
        if awaited is None or port not in awaited.ports:
            return
        running.awaited = None
        took_ms = round(self._clock.monotonic_ms() - awaited.began_ms, 1)
        self._log.info("first output after a loss", aiw=running.aiw_id, port=port, first_output_ms=took_ms)
        self._events.publish(
            {"type": "recovered", "aiw": running.aiw_id, "port": port, "first_output_ms": took_ms}
        )

    def take_trust(self, link: DeviceLink) -> None:
        self._discovery.on_trust(link)
        self._events.publish(
            {"type": "trust", "device": link.device, "trust": str(link.trust), "reason": link.reason}
        )
        self._changes.notify()


def _dropped(status: WorkflowStatus) -> bool:
    """What a device says about a workflow of which it holds nothing."""
    return status.phase is Phase.FINISHED and not status.aims
