"""The Controller: workflows from deployment to their end, on devices that ``admission`` trusts.

One task drives each workflow: wait for trusted devices, send signed documents, wait until all have prepared,
attest again under the new mapping, grant channel keys, wait until all are READY, START. Nothing runs
half-deployed: if a step fails anywhere, every device drops its part.

Source: MPAI-AIF V2, Controller; the mapping to devices is this project's extension.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aif.errors import AIFError, LifecycleError, NotFound, StartFailed
from aif.model.aiw import Workflow
from aif.model.codec import compile_record
from aif.model.inventory import Inventory
from aif.model.placement import Placement
from aif.protocol import control
from aif.protocol.control import (
    BoundaryRecord,
    ControlMessage,
    LogLine,
    Metrics,
    Phase,
    Progress,
    WorkflowStatus,
)
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES, Signal, State, WorkflowState
from aif.runtime.admission import Admission, DeviceLink, Trust
from aif.runtime.clock import Clock
from aif.runtime.deployer import Deployer, DeviceFacts, Plan, ResolvedModel
from aif.runtime.grants import RENEWAL_S, GrantOffice
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.runtime.plain import plain_record

CONNECT_TIMEOUT_S = 60.0
PREPARE_TIMEOUT_S = 120.0
TRUST_TIMEOUT_S = 30.0
REPEAT_S = 2.0
EVENTS_KEPT = 10_000
LOG_LINES_KEPT = 1_000

Planner = Callable[[Workflow, Inventory], Placement]
ModelResolver = Callable[[str, str], ResolvedModel]


@dataclass(slots=True)
class RunningWorkflow:
    """One workflow as the Controller sees it."""

    aiw_id: str
    workflow: Workflow
    placement: Placement
    inventory: Inventory
    library: AIMLibrary
    state: WorkflowState = WorkflowState.PLANNED
    plan: Plan | None = None
    status: dict[str, WorkflowStatus] = field(default_factory=dict)
    metrics: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failure: AIFError | None = None
    note: str = ""
    task: asyncio.Task[None] | None = None
    stopping: bool = False

    @property
    def devices(self) -> list[str]:
        return sorted({a.device for a in self.placement.assignments})

    def phases(self, *wanted: Phase) -> bool:
        """Every device is in one of these phases, under the current mapping."""
        mapping = self.plan.mapping_version if self.plan else -1
        return all(
            (s := self.status.get(d)) is not None and s.mapping_version == mapping and s.phase in wanted
            for d in self.devices
        )


class EventFeed:
    """Fans events out to listeners; a listener that does not keep up loses the oldest and is told how many."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[dict[str, Any]]] = set()

    def publish(self, event: dict[str, Any]) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    @contextmanager
    def listening(self) -> Iterator[asyncio.Queue[dict[str, Any]]]:
        """Events from now on, until the block ends."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(EVENTS_KEPT)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)


class Controller:
    """Deploys and watches workflows."""

    def __init__(
        self,
        *,
        admission: Admission,
        grants: GrantOffice,
        deployer: Deployer,
        next_mapping_version: Callable[[], int],
        hw_class_of: Callable[[str], str],
        planner: Planner,
        resolve_model: ModelResolver,
        clock: Clock,
        log: LogBook,
    ) -> None:
        self.admission, self._grants, self._deployer = admission, grants, deployer
        self._next_mapping_version, self._hw_class_of = next_mapping_version, hw_class_of
        self._planner, self._resolve_model = planner, resolve_model
        self._clock, self._log = clock, log
        self.workflows: dict[str, RunningWorkflow] = {}
        self.events = EventFeed()
        self.recent_logs: deque[dict[str, Any]] = deque(maxlen=LOG_LINES_KEPT)
        self._changed = asyncio.Event()
        self._number = 0

    async def run(self) -> None:
        """Watch until cancelled; then stop all workflows."""
        try:
            while True:
                self.admission.tick()
                await self._clock.sleep(1.0)
        finally:
            for running in list(self.workflows.values()):
                with suppress(AIFError):
                    await self.stop(running.aiw_id)

    # --- User Agent's calls ------------------------------------------------------------------------

    async def deploy(self, workflow: Workflow, inventory: Inventory, library: AIMLibrary) -> RunningWorkflow:
        """Plan a workflow and begin to bring it up; follow ``state`` or ``events``.

        Raises:
            PlacementError: it does not fit.
        """
        placement = await asyncio.to_thread(self._planner, workflow, inventory)
        self._number += 1
        aiw_id = f"{workflow.name}-{self._number}"
        running = RunningWorkflow(aiw_id, workflow, placement, inventory, library)
        self.workflows[aiw_id] = running
        self._log.info("workflow planned", aiw=aiw_id, devices=", ".join(running.devices))
        running.task = asyncio.create_task(self._drive(running), name=f"workflow {aiw_id}")
        return running

    def workflow(self, aiw_id: str) -> RunningWorkflow:
        if aiw_id not in self.workflows:
            known = ", ".join(self.workflows) or "none"
            raise NotFound(f"no workflow {aiw_id!r} is deployed", hint=f"deployed: {known}")
        return self.workflows[aiw_id]

    async def stop(self, aiw_id: str) -> None:
        """Stop a workflow and take it off every device. Stopping one that has ended is no error."""
        running = self.workflow(aiw_id)
        running.stopping = True
        if running.task is not None and not running.task.done():
            running.task.cancel()
            with suppress(asyncio.CancelledError):
                await running.task
        for device in running.devices:
            self.admission.send(device, control.SignalAIMs(aiw_id, "", Signal.STOP))
            self.admission.send(device, control.Undeploy(aiw_id))
        if running.state not in FINAL_WORKFLOW_STATES:
            self._move(running, WorkflowState.STOPPED)

    def signal(self, aiw_id: str, signal: Signal, aim: str = "") -> None:
        """Pause or resume a workflow or one of its AIMs.

        Raises:
            LifecycleError: the workflow is not running.
        """
        running = self.workflow(aiw_id)
        if running.state not in (WorkflowState.RUNNING, WorkflowState.PAUSED, WorkflowState.DEGRADED):
            raise LifecycleError(f"{aiw_id} is {running.state}; it cannot take {signal.name}")
        for device in running.devices:
            self.admission.send(device, control.SignalAIMs(aiw_id, aim, signal))
        if not aim and signal in (Signal.PAUSE, Signal.RESUME):
            self._move(running, WorkflowState.PAUSED if signal is Signal.PAUSE else WorkflowState.RUNNING)

    # --- driving one workflow ----------------------------------------------------------------------

    async def _drive(self, running: RunningWorkflow) -> None:
        try:
            await self._bring_up(running)
            await self._watch(running)
        except AIFError as error:
            running.failure = error
            self._log.error("workflow failed", aiw=running.aiw_id, code=error.code, reason=str(error))
            for device in running.devices:
                self.admission.send(device, control.Undeploy(running.aiw_id))
            self._move(running, WorkflowState.FAILED, str(error))

    async def _bring_up(self, running: RunningWorkflow) -> None:
        self._move(running, WorkflowState.DEPLOYING)
        await self._until(
            lambda: all(self.admission.trusted(d) for d in running.devices),
            CONNECT_TIMEOUT_S, lambda: self._missing(running),
        )  # fmt: skip
        plan = await asyncio.to_thread(
            self._deployer.plan,
            running.aiw_id, running.workflow, running.placement, self._next_mapping_version(),
            now_us=self._clock.time_us(), package_digest=running.library.digest,
            resolve_model=self._resolve_model, device_facts=self._facts,
        )  # fmt: skip
        running.plan = plan
        await self._repeat_until(
            lambda: self._send_documents(running, plan),
            lambda: self._checked(running).phases(Phase.PREPARED, Phase.READY),
            PREPARE_TIMEOUT_S, lambda: self._behind(running, "prepare its AIMs", Phase.PREPARED),
        )  # fmt: skip
        await self._repeat_until(
            lambda: self._attest(running, plan.mapping_version),
            lambda: all(self.admission.link(d).attested_mapping == plan.mapping_version for d in running.devices),
            TRUST_TIMEOUT_S, lambda: self._behind(running, "be attested under the new mapping", Phase.PREPARED),
            check=lambda: self._check_trust(running),
        )  # fmt: skip
        self._grant(plan)
        await self._until(
            lambda: self._checked(running).phases(Phase.READY),
            TRUST_TIMEOUT_S, lambda: self._behind(running, "take its channel keys", Phase.READY),
        )  # fmt: skip
        self._move(running, WorkflowState.READY)

    async def _watch(self, running: RunningWorkflow) -> None:
        await self._repeat_until(
            lambda: self._start_aims(running),
            lambda: self._checked(running).phases(Phase.RUNNING, Phase.FINISHED),
            TRUST_TIMEOUT_S, lambda: self._behind(running, "start", Phase.RUNNING),
        )  # fmt: skip
        self._move(running, WorkflowState.RUNNING)
        renew_ms = self._clock.monotonic_ms() + RENEWAL_S * 1000
        while not running.phases(Phase.FINISHED):
            self._checked(running)
            self._judge(running)
            if running.plan is not None and self._clock.monotonic_ms() > renew_ms:
                renew_ms += RENEWAL_S * 1000
                self._grant(running.plan)
            await self._pulse(1.0)
        failed = [
            f"{a}: {r.detail}"
            for s in running.status.values()
            for a, r in s.aims.items()
            if r.state is State.FAILED
        ]
        if failed:
            raise StartFailed(f"{running.aiw_id} ended with failed AIMs: {'; '.join(failed)}")
        self._move(running, WorkflowState.COMPLETED)

    def _judge(self, running: RunningWorkflow) -> None:
        """Degraded while an AIM has failed or a device is away; running otherwise."""
        failed = [a for s in running.status.values() for a, r in s.aims.items() if r.state is State.FAILED]
        away = [d for d in running.devices if not self.admission.trusted(d)]
        if (failed or away) and running.state is WorkflowState.RUNNING:
            words = [f"AIM {a} failed" for a in failed] + [f"device {d} is away" for d in away]
            self._move(running, WorkflowState.DEGRADED, "; ".join(words))
        elif not failed and not away and running.state is WorkflowState.DEGRADED:
            self._move(running, WorkflowState.RUNNING)

    def _checked(self, running: RunningWorkflow) -> RunningWorkflow:
        """Raise what a device reported as its failure."""
        for device, status in running.status.items():
            if status.phase is Phase.FAILED and status.failure is not None:
                failure = status.failure
                raise StartFailed(f"{device}: {failure.code}: {failure.message}", hint=failure.hint)
        return running

    def _check_trust(self, running: RunningWorkflow) -> None:
        for device in running.devices:
            link = self.admission.link(device)
            if link.trust is Trust.REJECTED:
                raise StartFailed(
                    f"{device} is not trusted: {link.reason}", hint="see `aif status` for its appraisal"
                )

    def _missing(self, running: RunningWorkflow) -> StartFailed:
        away = []
        for device in running.devices:
            link = self.admission.link(device)
            if link.trust is not Trust.TRUSTED:
                away.append(f"{device} is {link.trust}" + (f" ({link.reason})" if link.reason else ""))
        return StartFailed(
            f"{running.aiw_id} waits for devices: {'; '.join(away)}",
            hint="add each with `aif device add` and start it with `aif host` or `aif mcu`",
        )

    def _behind(self, running: RunningWorkflow, what: str, phase: Phase) -> StartFailed:
        late = [d for d in running.devices if (s := running.status.get(d)) is None or s.phase is not phase]
        return StartFailed(f"{', '.join(late) or 'a device'} did not {what} in time", hint="see `aif logs`")

    def _facts(self, device: str) -> DeviceFacts:
        hello = self.admission.link(device).hello
        return DeviceFacts(self._hw_class_of(device), hello.installed if hello else ())

    def _send_documents(self, running: RunningWorkflow, plan: Plan) -> None:
        for device, document in plan.documents.items():
            status = running.status.get(device)
            if status is None or status.mapping_version != plan.mapping_version:
                self.admission.send(device, control.Deploy(document))

    def _attest(self, running: RunningWorkflow, mapping_version: int) -> None:
        for device in running.devices:
            if self.admission.link(device).attested_mapping != mapping_version:
                self.admission.challenge(device, mapping_version=mapping_version)

    def _grant(self, plan: Plan) -> None:
        for channel_id, channel in plan.channels.items():
            issued = self._grants.issue(
                channel_id, channel.auth, plan.senders[channel_id], plan.receivers[channel_id],
                mapping_version=plan.mapping_version,
            )  # fmt: skip
            receivers_first = sorted(issued, key=lambda grant: grant.device == channel.source_device)
            for grant in receivers_first:
                self.admission.send_grant(grant.device, grant.sealed)

    def _start_aims(self, running: RunningWorkflow) -> None:
        for device in running.devices:
            status = running.status.get(device)
            if status is not None and status.phase is Phase.READY:
                self.admission.send(device, control.SignalAIMs(running.aiw_id, "", Signal.START))

    # --- what devices say --------------------------------------------------------------------------

    def on_message(self, device: str, message: ControlMessage) -> None:
        """Take up one control message of a trusted device."""
        if isinstance(message, LogLine):
            self.take_log(device, message)
            return
        running = self.workflows.get(getattr(message, "aiw_id", ""))
        if running is None or device not in running.devices:
            return
        match message:
            case WorkflowStatus():
                self._take_status(running, device, message)
            case Metrics(values=values):
                running.metrics[device] = values
                self.events.publish(
                    {"type": "metrics", "aiw": running.aiw_id, "device": device, "values": plain_record(values)}
                )
            case Progress(step=step, done=done, total=total):
                self.events.publish(
                    {"type": "progress", "aiw": running.aiw_id, "device": device, "step": step,
                     "done": done, "total": total}
                )  # fmt: skip
            case BoundaryRecord():
                self._boundary_output(running, message)
            case _:
                self._log.warning(
                    "unexpected message from a device", device=device, message=type(message).__name__
                )

    def take_log(self, origin: str, line: LogLine) -> None:
        """Keep and publish one log line of a device or of the Controller itself."""
        event = {
            "type": "log", "origin": origin, "time_us": line.time_us, "level": line.level,
            "event": line.event, "facts": dict(line.facts),
        }  # fmt: skip
        self.recent_logs.append(event)
        self.events.publish(event)

    def _take_status(self, running: RunningWorkflow, device: str, status: WorkflowStatus) -> None:
        previous = running.status.get(device)
        running.status[device] = status
        if previous is None or previous != status:
            self.events.publish(
                {"type": "device", "aiw": running.aiw_id, "device": device, "phase": str(status.phase),
                 "aims": {aim: str(report.state) for aim, report in status.aims.items()}}
            )  # fmt: skip
        self._changed.set()

    def _boundary_output(self, running: RunningWorkflow, record: BoundaryRecord) -> None:
        port = next((b.port for b in running.workflow.metadata.outputs if b.port.name == record.port), None)
        if port is None:
            return
        try:
            value = compile_record(
                port.type.record, payload_bytes=port.payload_bytes, label=port.name
            ).decode(record.record)
        except AIFError as error:
            self._log.warning("boundary record refused", port=record.port, reason=str(error))
            return
        self.events.publish(
            {"type": "output", "aiw": running.aiw_id, "port": record.port, "origin_us": record.origin_us,
             "delay_us": max(0, self._clock.time_us() - record.origin_us), "value": plain_record(value)}
        )  # fmt: skip

    def on_trust(self, link: DeviceLink) -> None:
        self.events.publish(
            {"type": "trust", "device": link.device, "trust": str(link.trust), "reason": link.reason}
        )
        self._changed.set()

    # --- waiting -----------------------------------------------------------------------------------

    def _move(self, running: RunningWorkflow, state: WorkflowState, note: str = "") -> None:
        running.state, running.note = state, note
        self._log.info("workflow state", aiw=running.aiw_id, state=str(state), note=note)
        self.events.publish({"type": "workflow", "aiw": running.aiw_id, "state": str(state), "note": note})
        self._changed.set()

    async def _pulse(self, timeout_s: float) -> None:
        """Until something changes, at most ``timeout_s``."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    async def _until(self, done: Callable[[], bool], timeout_s: float, late: Callable[[], AIFError]) -> None:
        await self._repeat_until(lambda: None, done, timeout_s, late)

    async def _repeat_until(
        self,
        act: Callable[[], None],
        done: Callable[[], bool],
        timeout_s: float,
        late: Callable[[], AIFError],
        *,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Act, and act again every two seconds, until ``done``; what is lost on the way is thus sent again."""
        deadline = self._clock.monotonic_ms() + timeout_s * 1000
        next_act = 0.0
        while not done():
            check()
            now = self._clock.monotonic_ms()
            if now >= deadline:
                raise late()
            if now >= next_act:
                act()
                next_act = now + REPEAT_S * 1000
            await self._pulse(0.2)


__all__ = ["Controller", "EventFeed", "ModelResolver", "Planner", "RunningWorkflow"]
