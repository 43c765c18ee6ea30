"""The Controller: what a User Agent asks of workflows, and what devices say about them.

One task drives each workflow: ``bringup`` takes it to READY, ``supervisor`` watches it to its end, and then
every device drops its part. Nothing runs half-deployed: if a step fails anywhere, all of it is taken back,
and a device that still holds a part of something that has ended is told again when it says so.

A workflow that runs is written down (``kept``). A Controller that follows one that was killed goes on with
it, while its AIMs work; one that ends as it should ends its workflows too. What was not ready is taken off.

Source: MPAI-AIF V2, Controller; the mapping to devices is this project's extension.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aif.errors import AIFError, LifecycleError, NotFound, StartFailed, StopFailed
from aif.model.aiw import Workflow
from aif.model.inventory import Inventory
from aif.protocol import control
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES, Signal, WorkflowState
from aif.runtime.clock import Clock
from aif.runtime.controller.draining import Draining
from aif.runtime.controller.kept import KeptWorkflows, Load
from aif.runtime.controller.moving import Moving
from aif.runtime.controller.reports import DeviceReports
from aif.runtime.controller.revocation import Revocation, Withdraw
from aif.runtime.controller.supervisor import Supervisor
from aif.runtime.devices.admission import Admission
from aif.runtime.devices.audit_log import AuditLog
from aif.runtime.devices.discovery import Discovery
from aif.runtime.devices.grants import GrantOffice
from aif.runtime.devices.registry import Site
from aif.runtime.devices.site_broker import SiteBroker
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.at_work import at_work
from aif.runtime.mapping.bringup import BringUp, Means, ModelResolver
from aif.runtime.mapping.deployer import Deployer, Plan
from aif.runtime.mapping.healing import Healing
from aif.runtime.mapping.planning import Planner, Planning
from aif.runtime.mapping.reasons import Reasons
from aif.runtime.mapping.rekeying import Rekeying
from aif.runtime.mapping.workflows import Changes, EventFeed, Patience, RunningWorkflow, Sources
from aif.transport.mosquitto_config import ChannelAccess

ENDED_KEPT = 100
"""Workflows that have ended stay visible up to this number."""

STOP_REPEAT_S = 0.5
VERIFY_S = 15.0
"""For a device to answer a challenge that a person asked for."""

REKEYING_TICK_S = 0.25

AT_WORK_S = 0.25
"""How often it is looked which devices are at work."""


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
        load: Load,
        workflows_folder: Path,
        resolve_model: ModelResolver,
        clock: Clock,
        log: LogBook,
        patience: Patience | None = None,
        site: Site,
        withdraw: Withdraw,
        audit: AuditLog,
        discovery: Discovery,
        broker: SiteBroker | None = None,
    ) -> None:
        self._broker = broker
        self.admission, self.discovery, self._deployer = admission, discovery, deployer
        self._next_mapping_version, self._hw_class_of = next_mapping_version, hw_class_of
        self._resolve_model, self._audit, self._site = resolve_model, audit, site
        self._clock, self._log = clock, log
        self.patience = patience or Patience()
        self.workflows: dict[str, RunningWorkflow] = {}
        self.events = EventFeed()
        self._changes = Changes(clock)
        self.rekeying = Rekeying(admission, grants, clock=clock, log=log, changed=self._changes.notify)
        self.revocation = Revocation(
            site, withdraw, admission, self.rekeying, self._changes, clock, self.workflows.values
        )
        self._grants = grants
        self._kept = KeptWorkflows(workflows_folder, load, grants.senders, log)
        self._planning = Planning(planner, self.workflows.values, admission.sensing, discovery.applied)
        self.draining = Draining(site, self._planning, self._changes, self._reasons, self.workflows.values)
        self.moving = Moving(self._planning, self._changes, self._reasons)
        self._drained: frozenset[str] = frozenset()
        self._turn = asyncio.Lock()
        self._number = 0
        self.reports = DeviceReports(
            self.workflows, self.rekeying, discovery, admission.send, self.events, self._changes,
            clock=clock, log=log,
        )  # fmt: skip

    async def run(self) -> None:
        """Watch until cancelled; then stop all workflows."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._every(1.0, self.admission.tick))
                tasks.create_task(self.admission.vigil.run())
                tasks.create_task(self._every(1.0, self._note_drained))
                tasks.create_task(self._every(AT_WORK_S, self._watch_closely))
                tasks.create_task(self._every(REKEYING_TICK_S, self.rekeying.tick))
                tasks.create_task(self.discovery.listen())
        finally:
            await asyncio.gather(*(self.stop(aiw_id) for aiw_id in self.workflows))
            self.admission.stop()

    def take_over(self) -> None:
        """Go on with what an earlier Controller left running; before any device is heard."""
        for running, kept in self._kept.restore(self._clock.monotonic_ms()):
            for channel in kept.channels:
                self._grants.remember(channel.channel.channel_id, channel.senders)
            self._number = max(self._number, int(running.aiw_id.rpartition("-")[2]))
            self.workflows[running.aiw_id] = running
            self.admission.sensing.expect(running.inventory)
            self._log.info("workflow taken over", aiw=running.aiw_id, devices=", ".join(running.devices))
            running.task = asyncio.create_task(self._drive(running), name=f"workflow {running.aiw_id}")
        if self._broker is not None:
            self._broker.only(self.workflows)

    def _watch_closely(self) -> None:
        admission = self.admission
        admission.vigil.closely.watch(at_work(self.workflows.values(), admission.sensing.calm))

    async def _every(self, seconds: float, act: Callable[[], None]) -> None:
        while True:
            act()
            await self._clock.sleep(seconds)

    # --- User Agent's calls ------------------------------------------------------------------------

    async def deploy(
        self,
        workflow: Workflow,
        inventory: Inventory,
        library: AIMLibrary,
        *,
        sources: Sources | None = None,
    ) -> RunningWorkflow:
        """Plan a workflow and begin to bring it up; follow ``state`` or ``events``.

        With its ``sources`` it goes on when this Controller is killed and another one started.

        Raises:
            PlacementError: it does not fit.
        """
        self._note_drained()
        free = self._planning.announced(inventory).resting(self._drained)
        workflow, placement = await self._planning.place(workflow, free, library.contracts)
        self._number += 1
        aiw_id = f"{workflow.name}-{self._number}"
        running = RunningWorkflow(aiw_id, workflow, placement, inventory, library, sources=sources)
        self._forget_oldest()
        self.workflows[aiw_id] = running
        self._audit.note("deployed", aiw_id, devices=", ".join(running.devices))
        self._log.info("workflow planned", aiw=aiw_id, devices=", ".join(running.devices))
        running.task = asyncio.create_task(self._drive(running), name=f"workflow {aiw_id}")
        return running

    def _forget_oldest(self) -> None:
        ended = [aiw for aiw, running in self.workflows.items() if running.state in FINAL_WORKFLOW_STATES]
        for aiw in ended[: max(0, len(ended) - ENDED_KEPT + 1)]:
            del self.workflows[aiw]

    def workflow(self, aiw_id: str) -> RunningWorkflow:
        """The workflow of that id.

        Raises:
            NotFound: none is deployed under it.
        """
        if aiw_id not in self.workflows:
            known = ", ".join(self.workflows) or "none"
            raise NotFound(f"no workflow {aiw_id!r} is deployed", hint=f"deployed: {known}")
        return self.workflows[aiw_id]

    async def stop(self, aiw_id: str) -> None:
        """Stop a workflow and take it off every device. Stopping one that has ended is no error."""
        running = self.workflow(aiw_id)
        if running.state in FINAL_WORKFLOW_STATES:
            return
        if running.task is not None and not running.task.done():
            running.task.cancel()
            with suppress(asyncio.CancelledError):
                await running.task
        if running.state in FINAL_WORKFLOW_STATES:  # it had ended by itself
            return
        self._move(running, WorkflowState.STOPPING)
        await self._take_off(running)
        self._move(running, WorkflowState.STOPPED)

    def signal(self, aiw_id: str, signal: Signal, aim: str = "") -> None:
        """Pause or resume a workflow or one of its AIMs.

        Raises:
            LifecycleError: the workflow is not running, or the signal is another one.
            NotFound: it has no such AIM.
        """
        running = self.workflow(aiw_id)
        if running.state not in (WorkflowState.RUNNING, WorkflowState.PAUSED, WorkflowState.DEGRADED):
            raise LifecycleError(f"{aiw_id} is {running.state}; it cannot take {signal.name}")
        if signal not in (Signal.PAUSE, Signal.RESUME):
            raise LifecycleError(f"{signal.name} is not a signal for a running workflow", hint="use stop()")
        known = [leaf.id for leaf in running.workflow.aims]
        if aim and aim not in known:
            raise NotFound(f"{aiw_id} has no AIM {aim!r}", hint=f"it has: {', '.join(known)}")
        if aim and signal is Signal.PAUSE:
            running.paused_aims.add(aim)
        elif aim:
            running.paused_aims.discard(aim)
        else:
            running.paused = signal is Signal.PAUSE
            running.paused_aims.clear()
        for device in running.devices:
            self.admission.send(device, control.SignalAIMs(aiw_id, aim, signal))
        self._kept.keep(running)
        self._changes.notify()

    async def verify(self, device: str) -> None:
        """Attest a device now; its trust is decided by the answer.

        Raises:
            NotFound: it has no session.
            StartFailed: it does not answer.
        """
        link = self.admission.links.get(device)
        if link is None or link.hello is None:
            raise NotFound(
                f"{device} has no session with this Controller" + (f": {link.reason}" if link else ""),
                hint=f"is it running? see `aif trust show {device}`",
            )
        before = link.verdict
        await self._changes.until(
            lambda: link.verdict is not before,
            VERIFY_S, lambda: StartFailed(f"{device} does not answer a challenge", hint="see `aif logs`"),
            act=lambda: self.admission.challenge(device, mapping_version=link.attested_mapping),
            repeat_s=self.patience.repeat_s,
        )  # fmt: skip

    # --- driving one workflow ----------------------------------------------------------------------

    async def _drive(self, running: RunningWorkflow) -> None:
        state, note = WorkflowState.FAILED, ""
        try:
            state, note = await self._bring_up_and_watch(running)
        except AIFError as error:
            running.failure = error
        except Exception as error:  # noqa: BLE001  # a defect ends its workflow; it must not leave it hanging
            running.failure = AIFError(f"the Controller failed: {type(error).__name__}: {error}")
        if running.failure is not None:
            failure = running.failure
            note = str(failure)
            self._log.error(
                "workflow failed", aiw=running.aiw_id, code=failure.code, reason=note, hint=failure.hint
            )
        await self._take_off(running)
        self._move(running, state, note)

    async def _bring_up_and_watch(self, running: RunningWorkflow) -> tuple[WorkflowState, str]:
        means = self._means

        def waiting(note: str) -> None:
            if running.note != note:
                self._move(running, WorkflowState.DEPLOYING, note)

        if running.resumed:
            self._move(
                running, WorkflowState.DEGRADED, "waits for its devices, after the Controller began anew"
            )
        else:
            self._move(running, WorkflowState.DEPLOYING)
            await BringUp(running, means, on_waiting=waiting).run(self._turn)
            self._kept.keep(running)
            self._move(running, WorkflowState.READY)
        healing = self._healing(running, means)
        try:
            return await Supervisor(
                running,
                means,
                healing=healing,
                log=self._log,
                move=lambda state, note: self._move(running, state, note),
            ).run()
        finally:
            healing.close()

    @property
    def _means(self) -> Means:
        return Means(
            self.admission, self.rekeying, self._deployer, self._changes, self._clock, self.patience,
            self._next_mapping_version, self._hw_class_of, self._resolve_model, self._open_channels,
            self._kept.keep,
        )  # fmt: skip

    def _healing(self, running: RunningWorkflow, means: Means) -> Healing:
        return Healing(
            running, means, planning=self._planning, reasons=self._reasons(running), turn=self._turn,
            log=self._log, publish=self.events.publish,
        )  # fmt: skip

    def _reasons(self, running: RunningWorkflow) -> Reasons:
        return Reasons(running, self._means, drained=lambda: self._drained)

    @property
    def drained(self) -> frozenset[str]:
        """Devices that shall run nothing, as of the last look into the registry."""
        return self._drained

    def _note_drained(self) -> None:
        drained = frozenset(record.device for record in self._site.state.devices if record.drained)
        if drained != self._drained:
            self._drained = drained
            self._changes.notify()

    async def _take_off(self, running: RunningWorkflow) -> None:
        """Tell every device to drop its part, and wait a little until all have."""

        def holding() -> list[str]:
            told = running.devices if running.plan is not None else ()
            return [d for d in told if self.admission.trusted(d) and d not in running.dropped]

        def tell() -> None:
            for device in holding():
                self.admission.send(device, control.Undeploy(running.aiw_id))

        def late() -> AIFError:
            return StopFailed(f"{', '.join(holding())} did not confirm to have dropped {running.aiw_id}")

        try:
            await self._changes.until(
                lambda: not holding(), self.patience.stop_s, late,
                act=tell, repeat_s=STOP_REPEAT_S,
            )  # fmt: skip
        except StopFailed as error:  # told again when they report that they still hold it
            self._log.warning("workflow may still be on devices", reason=str(error))
        if running.plan is not None:
            self.rekeying.forget(running.plan)
        if self._broker is not None:
            try:
                await asyncio.to_thread(self._broker.undeployed, running.aiw_id)
            except AIFError as error:
                self._log.error("channels are still open at the broker", code=error.code, reason=str(error))

    def _open_channels(self, plan: Plan) -> None:
        """The devices of a plan, and no others, may use its channels."""
        if self._broker is not None:
            channels = plan.channels.values()
            self._broker.deployed(
                plan.aiw_id,
                [ChannelAccess(c.topic, c.source_device, c.destination_devices) for c in channels],
            )

    def _move(self, running: RunningWorkflow, state: WorkflowState, note: str = "") -> None:
        running.state, running.note = state, note
        if state in FINAL_WORKFLOW_STATES:
            self._kept.forget(running.aiw_id)
        self._log.info("workflow state", aiw=running.aiw_id, state=str(state), note=note)
        self.events.publish({"type": "workflow", "aiw": running.aiw_id, "state": str(state), "note": note})
        self._changes.notify()


__all__ = ["Controller", "EventFeed", "ModelResolver", "Patience", "Planner", "RunningWorkflow"]
