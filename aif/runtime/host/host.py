"""A host: the process that runs one device's AIMs.

Control messages come in, deployments are prepared, run and dropped, and the whole state of each goes back
to the Controller at every change and every second.

Invariants: a failure while preparing leaves nothing behind; whatever takes long (downloads, digests, engines)
happens in threads, so that signals and records of other workflows are not kept waiting; what is prepared or
dropped under one workflow id happens in order, and a drop interrupts a preparation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any
from weakref import WeakValueDictionary

from aif import __version__
from aif.errors import AIFError, CreationFailed, ResourceExceeded
from aif.protocol import control, deployment
from aif.protocol.control import AIMReport, ControlMessage, Failure, Phase
from aif.protocol.deployment import Deployment
from aif.protocol.evidence import Component
from aif.protocol.lifecycle import Signal, State
from aif.protocol.numbers import limits_of
from aif.runtime.clock import Clock
from aif.runtime.host.aims import AIMFactory
from aif.runtime.host.announcing import announce
from aif.runtime.host.engine_watch import EngineWatch
from aif.runtime.host.hosted import HostedWorkflow
from aif.runtime.host.instance import AIMInstance
from aif.runtime.host.models import DeviceModels
from aif.runtime.host.part import ModelFetcher, Part, Resources
from aif.runtime.host.platform import Platform
from aif.runtime.host.session import DeviceSession
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.transport.base import Transport
from aif.trusted.attestation import RUNTIME_COMPONENT, aim_component, model_component, part
from aif.trusted.client_folder import ClientFolder
from aif.trusted.model_service import ModelService
from aif.trusted.security_engine import SecurityEngine
from aif.trusted.state import DeviceState, StateFile

STATUS_INTERVAL_S = 1.0
METRICS_INTERVAL_S = 0.5
POLL_INTERVAL_S = 0.05
_WITH_METRICS = (Phase.RUNNING, Phase.PAUSED, Phase.FINISHED)


class Host:
    """Runs deployments on one device."""

    def __init__(
        self,
        *,
        state: StateFile[DeviceState],
        transport: Transport,
        engine: SecurityEngine,
        library: AIMLibrary,
        platform: Platform,
        models: ModelService,
        fetch: ModelFetcher,
        runtime_digest: bytes,
        clock: Clock,
        random: Callable[[int], bytes],
        log: LogBook,
        versions: Mapping[str, str],
        tls: ClientFolder | None = None,
    ) -> None:
        self._state, self._library, self._platform, self._models = state, library, platform, models
        self._runtime_digest, self._clock, self._log = runtime_digest, clock, log
        self._versions = versions
        self._parts: dict[str, Part] = {}
        self._inbox: asyncio.Queue[ControlMessage] = asyncio.Queue(256)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.session = DeviceSession(
            state, transport, engine, clock=clock, random=random, log=log,
            components=self._components, on_message=self._enqueue,
            limits=limits_of(platform.device.device_class),
            tls=tls, battery=self._battery_level,
        )  # fmt: skip
        self._transport = transport
        opened = DeviceModels(models, platform, engine)
        self._resources = Resources(
            library, platform, models, opened, engine, fetch, transport, self.session,
            AIMFactory(library, platform, log, opened.open), clock, log, asyncio.Lock(),
        )  # fmt: skip
        self._engine_watch = EngineWatch(
            engine, log=log, on_restart=self.session.renew, on_unfit=self._give_up
        )
        log.forward = self.session.send

    async def run(self) -> None:
        """Serve until cancelled; then stop every AIM and give everything back."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._engine_watch.run())
                tasks.create_task(self.session.run())
                tasks.create_task(self._work(tasks))
                tasks.create_task(self._report())
                tasks.create_task(announce(self.session, self._platform, self._versions, self._clock))
        finally:
            self._log.forward = None
            for aiw_id in list(self._parts):
                await self._drop(aiw_id)
                self._send_dropped(aiw_id)
            self.session.flush()
            self._platform.close()

    # --- control messages --------------------------------------------------------------------------

    def _enqueue(self, message: ControlMessage) -> None:
        try:
            self._inbox.put_nowait(message)
        except asyncio.QueueFull:
            self._log.warning("control message dropped: too many are waiting")

    async def _work(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            message = await self._inbox.get()
            await self._guarded(partial(self._handle, message, tasks))

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do it and log its failure; a task that ends before its first step leaves nothing begun."""
        try:
            await work()
        except AIFError as error:
            self._log.error("control message failed", code=error.code, reason=str(error), hint=error.hint)

    async def _handle(self, message: ControlMessage, tasks: asyncio.TaskGroup) -> None:
        match message:
            case control.Deploy(document=document, keys=keys):
                self._resources.opened.take_keys(keys)
                tasks.create_task(self._guarded(partial(self._deploy, document)))
            case control.ModelKeys(keys=keys):
                self._resources.opened.take_keys(keys)
            case control.Undeploy(aiw_id=aiw_id):
                self._interrupt(aiw_id)
                tasks.create_task(self._guarded(partial(self._undeploy, aiw_id)))
            case control.SignalAIMs(aiw_id=aiw_id, aim=aim, signal=signal):
                await self._signal(aiw_id, aim, signal)
            case control.BoundaryRecord(aiw_id=aiw_id):
                current = self._parts.get(aiw_id)
                if current is not None and current.workflow is not None:
                    current.workflow.boundary_input(message)
            case _:
                self._log.warning("unexpected control message", message=type(message).__name__)

    async def _signal(self, aiw_id: str, aim: str, signal: Signal) -> None:
        current = self._parts.get(aiw_id)
        if current is None or current.workflow is None:
            return
        workflow = current.workflow
        if signal is Signal.START and current.phase in (Phase.READY, Phase.RUNNING, Phase.PAUSED):
            current.phase = Phase.RUNNING  # AIMs that came with a change start too; PAUSE is said again then
            workflow.start()
        elif signal is Signal.PAUSE and current.phase is Phase.RUNNING:
            workflow.pause(aim)
            current.phase = current.phase if aim else Phase.PAUSED
        elif signal is Signal.RESUME and current.phase in (Phase.PAUSED, Phase.RUNNING):
            workflow.resume(aim)
            current.phase = current.phase if aim else Phase.RUNNING
        elif signal is Signal.STOP:
            await workflow.stop(aim)
        self._send_status(current)

    # --- deployments -------------------------------------------------------------------------------

    async def _deploy(self, document: bytes) -> None:
        state = self._state.load()
        if state.deployment_pk is None:
            return
        deployed = deployment.verify(
            document, state.deployment_pk, device=state.device, mapping_floor=state.mapping_floor
        )
        known = self._parts.get(deployed.aiw_id)
        if known is not None and known.document == document and not known.unwanted:
            self._send_status(known)
            return
        if known is None or known.phase in (Phase.PREPARING, Phase.FAILED):
            self._interrupt(deployed.aiw_id)
        else:
            known.make_way(deployed.mapping_version)
        async with self._turn(deployed.aiw_id):
            known = self._parts.get(deployed.aiw_id)
            if known is not None and known.workflow is not None and not known.unwanted:
                await self._change(known, document, deployed)
                return
            await self._drop(deployed.aiw_id)
            current = self._parts[deployed.aiw_id] = Part(document, deployed)
            self._send_status(current)
            current.preparing = asyncio.current_task()
            try:
                self._check_room(deployed)
                await current.prepare(
                    self._resources,
                    lambda instance, state, detail: self._instance_state(current, instance, state, detail),
                )
            except (AIFError, OSError) as failure:
                current.preparing = None
                error = failure if isinstance(failure, AIFError) else _outside(failure)
                self._log.error("deployment failed", aiw=deployed.aiw_id, code=error.code, reason=str(error))
                await current.discard(self._resources)
                current.phase = Phase.FAILED
                current.failure = Failure(error.code, str(error), error.hint)
            except asyncio.CancelledError:
                current.preparing = None
                await current.discard(self._resources)
                if not current.unwanted:  # the host itself ends
                    raise
            else:
                current.preparing = None
                await self._raise_mapping_floor(deployed.mapping_version)
                current.phase = Phase.PREPARED
            finally:
                current.preparing = None
            if not current.unwanted:
                self._send_status(current)

    async def _change(self, current: Part, document: bytes, deployed: Deployment) -> None:
        """Another mapping of a workflow that is here; AIMs that it does not touch go on.

        A change that fails leaves the others as they were; the Controller hears why, and under which mapping
        this device still is.
        """
        if deployed.mapping_version <= current.deployment.mapping_version:
            return self._send_status(current)
        current.preparing, current.superseded = asyncio.current_task(), False
        current.coming, current.failure = deployed.mapping_version, None
        try:
            self._check_room(deployed)
            await current.change(document, deployed, self._resources)
        except (AIFError, OSError) as failure:
            error = failure if isinstance(failure, AIFError) else _outside(failure)
            self._log.error("change failed", aiw=deployed.aiw_id, code=error.code, reason=str(error))
            current.failure = Failure(error.code, str(error), error.hint)
        except asyncio.CancelledError:
            if not (current.unwanted or current.superseded):  # the host itself ends
                raise
            return None
        else:
            current.preparing = None
            await self._raise_mapping_floor(deployed.mapping_version)
            current.details = {aim: why for aim, why in current.details.items() if current.has(aim)}
            if (
                current.phase is Phase.FINISHED
                and current.workflow
                and not current.workflow.finished.is_set()
            ):
                current.phase = Phase.RUNNING
        finally:
            current.preparing = None
        return self._send_status(current)

    def _check_room(self, deployed: Deployment) -> None:
        """Refuse a part whose channels do not fit beside those of the other workflows here.

        Raises:
            ResourceExceeded: with how many there would be, and how many this device holds.
        """
        others = (part.deployment for part in self._parts.values() if part.aiw_id != deployed.aiw_id)
        count = sum(len(part.remote_channels) for part in (deployed, *others))
        most = limits_of(self._platform.device.device_class).max_channels
        if count > most:
            raise ResourceExceeded(
                f"{deployed.device} would have {count:,} sealed channels, it holds {most:,}",
                hint="stop another workflow there, or place AIMs that talk to each other on one device",
            )

    async def _raise_mapping_floor(self, version: int) -> None:
        """In a thread, because the Security Engine is told."""

        def change(notes: DeviceState) -> DeviceState:
            return replace(notes, mapping_floor=max(notes.mapping_floor, version))

        await asyncio.to_thread(self._state.update, change)

    def _turn(self, aiw_id: str) -> asyncio.Lock:
        """Who holds it changes what this device has of a workflow; it goes in order of arrival."""
        lock = self._turns.get(aiw_id)
        if lock is None:
            lock = self._turns[aiw_id] = asyncio.Lock()
        return lock

    async def _give_up(self, reason: str) -> None:
        """Without a Security Engine there is no protected work here: everything is dropped, for good."""
        self.session.give_up(reason)
        for aiw_id in list(self._parts):
            self._interrupt(aiw_id)
            await self._undeploy(aiw_id)

    def _interrupt(self, aiw_id: str) -> None:
        current = self._parts.get(aiw_id)
        if current is not None:
            current.interrupt()

    async def _undeploy(self, aiw_id: str) -> None:
        async with self._turn(aiw_id):
            await self._drop(aiw_id)
        self._send_dropped(aiw_id)

    def _send_dropped(self, aiw_id: str) -> None:
        """A workflow that has finished and has no AIM: nothing of it is here."""
        self.session.send(control.WorkflowStatus(aiw_id, 0, Phase.FINISHED, {}))

    async def _drop(self, aiw_id: str) -> None:
        current = self._parts.get(aiw_id)
        if current is not None:
            await current.discard(self._resources)
            del self._parts[aiw_id]

    def _instance_state(self, current: Part, instance: AIMInstance, state: State, detail: str) -> None:
        current.details[instance.id] = detail
        if detail:
            self._log.warning("AIM changed state", aim=instance.id, state=str(state), detail=detail)
        self._send_status(current)

    # --- reports -----------------------------------------------------------------------------------

    def _send_status(self, current: Part) -> None:
        workflow = current.workflow
        if workflow is not None:
            if current.phase is Phase.PREPARED and workflow.keyed:
                current.phase = Phase.READY
            if current.phase in (Phase.RUNNING, Phase.PAUSED) and workflow.finished.is_set():
                current.phase = Phase.FINISHED
                self._send_metrics(workflow)
        reports: Mapping[str, AIMReport] = {
            i.id: AIMReport(i.state, current.details.get(i.id, "")) for i in workflow.instances.values()
        } if workflow is not None else {}  # fmt: skip
        self.session.send(
            control.WorkflowStatus(
                current.aiw_id,
                current.deployment.mapping_version,
                current.phase,
                reports,
                current.failure,
            )
        )

    async def _report(self) -> None:
        next_status_ms = next_metrics_ms = 0.0
        while True:
            now = self._clock.monotonic_ms()
            status_due, metrics_due = now >= next_status_ms, now >= next_metrics_ms
            for current in list(self._parts.values()):
                if current.workflow is not None:
                    current.workflow.poll()
                if status_due or self._phase_changed(current):
                    self._send_status(current)
                if metrics_due and current.workflow is not None and current.phase in _WITH_METRICS:
                    self._send_metrics(current.workflow)
            next_status_ms = now + STATUS_INTERVAL_S * 1000 if status_due else next_status_ms
            next_metrics_ms = now + METRICS_INTERVAL_S * 1000 if metrics_due else next_metrics_ms
            await self._clock.sleep(POLL_INTERVAL_S)

    @staticmethod
    def _phase_changed(current: Part) -> bool:
        """Keys have come, or the last AIM has ended, since the last status."""
        workflow = current.workflow
        if workflow is None:
            return False
        if current.phase is Phase.PREPARED:
            return workflow.keyed
        return current.phase in (Phase.RUNNING, Phase.PAUSED) and workflow.finished.is_set()

    def _send_metrics(self, workflow: HostedWorkflow) -> None:
        usage = self._platform.usage()
        values = {
            **workflow.metrics(),
            "control": self.session.troubles(),
            "usage": {
                "ram": usage.ram_bytes, "ram_limit": usage.ram_limit_bytes, "flash": usage.flash_bytes,
                "flash_limit": usage.flash_limit_bytes, "arena": usage.arena_bytes,
            },
        }  # fmt: skip
        self.session.send(control.Metrics(workflow.deployment.aiw_id, values))

    def _battery_level(self) -> float | None:
        invocations = dict(chain.from_iterable(one.invocations().items() for one in self._parts.values()))
        radio = self._transport.statistics
        return self._platform.battery_level(
            invocations, sent_bytes=radio.sent_bytes, received_bytes=radio.received_bytes
        )

    # --- attestation -------------------------------------------------------------------------------

    def _components(self) -> Iterable[Component]:
        """What runs here: this runtime, and every AIM package and model that is deployed."""
        state = self._state.load()
        root = state.store_root or b""
        yield part(RUNTIME_COMPONENT, self._runtime_digest, __version__, root)
        seen: set[str] = set()
        for current in self._parts.values():
            part_here = current.deployment
            for aim in (*part_here.aims, *part_here.standbys) if current.workflow else ():
                if aim_component(aim.use) not in seen:
                    seen.add(aim_component(aim.use))
                    version = self._library.contract(aim.use).version
                    yield part(aim_component(aim.use), self._library.digest(aim.use), version, root)
                if aim.model is not None and model_component(aim.model.component) not in seen:
                    seen.add(model_component(aim.model.component))
                    installed = self._models.installed(aim.model.component)
                    if installed is not None:
                        yield part(
                            model_component(installed.component),
                            installed.sha256,
                            str(installed.counter),
                            root,
                        )


def _outside(error: OSError) -> CreationFailed:
    return CreationFailed(
        f"this device cannot prepare its AIMs: {error.strerror or error}",
        kind="external",
        hint="see that its state folder can be written and has room",
    )
