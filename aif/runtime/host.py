"""A host: the process that runs one device's AIMs.

Control messages come in, deployments are prepared, run and dropped, and the whole state of each goes back
to the Controller at every change and every second. A failure while preparing leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from aif import __version__
from aif.errors import AIFError, TransportError
from aif.model.aim import AIMMetadata, Implementation, Runtime
from aif.protocol import control, deployment
from aif.protocol.control import AIMReport, ControlMessage, Failure, Phase
from aif.protocol.deployment import DeployedAIM, Deployment, ModelRelease
from aif.protocol.evidence import Component
from aif.protocol.lifecycle import Signal, State
from aif.runtime.aims import AIMFactory
from aif.runtime.clock import Clock
from aif.runtime.hosted import HostedWorkflow
from aif.runtime.instance import AIMInstance
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.runtime.platform import Platform
from aif.runtime.session import DeviceSession
from aif.sdk import AIM
from aif.transport.base import Received, Subscription, Transport
from aif.trusted.attestation import RUNTIME_COMPONENT, aim_component, model_component, part
from aif.trusted.communication import SecureReceiver
from aif.trusted.model_service import ModelService, SlotLimits
from aif.trusted.state import DeviceState, StateFile

STATUS_INTERVAL_S = 1.0
METRICS_INTERVAL_S = 0.5
POLL_INTERVAL_S = 0.05
_WITH_METRICS = (Phase.RUNNING, Phase.PAUSED, Phase.FINISHED)

ModelFetcher = Callable[[Deployment, ModelRelease, Callable[[int, int], None]], bytes]
"""Downloads one release; runs in a thread. The third argument is told (done, total) bytes."""


@dataclass(slots=True)
class _Part:
    """One workflow's part here, from the first byte of its deployment to its end."""

    aiw_id: str
    mapping_version: int
    document: bytes = b""
    phase: Phase = Phase.PREPARING
    deployment: Deployment | None = None
    workflow: HostedWorkflow | None = None
    failure: Failure | None = None
    details: dict[str, str] = field(default_factory=dict)
    subscriptions: list[Subscription] = field(default_factory=list)


class Host:
    """Runs deployments on one device."""

    def __init__(
        self,
        *,
        state: StateFile[DeviceState],
        transport: Transport,
        library: AIMLibrary,
        platform: Platform,
        models: ModelService,
        fetch: ModelFetcher,
        runtime_digest: bytes,
        clock: Clock,
        random: Callable[[int], bytes],
        log: LogBook,
    ) -> None:
        self._state, self._transport, self._library = state, transport, library
        self._platform, self._models, self._fetch = platform, models, fetch
        self._runtime_digest, self._clock, self._log = runtime_digest, clock, log
        self._parts: dict[str, _Part] = {}
        self._inbox: asyncio.Queue[ControlMessage] = asyncio.Queue(256)
        self._factory = AIMFactory(library, platform, log, models.read)
        self.session = DeviceSession(
            state, transport, clock=clock, random=random, log=log,
            components=self._components, on_message=self._enqueue,
        )  # fmt: skip
        log.forward = self.session.send

    async def run(self) -> None:
        """Serve until cancelled; then stop every AIM and give everything back."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.session.run())
                tasks.create_task(self._work())
                tasks.create_task(self._report())
        finally:
            self._log.forward = None
            for aiw_id in list(self._parts):
                await self._drop(aiw_id)
            self._platform.close()

    # --- control messages --------------------------------------------------------------------------

    def _enqueue(self, message: ControlMessage) -> None:
        try:
            self._inbox.put_nowait(message)
        except asyncio.QueueFull:
            self._log.warning("control message dropped: too many are waiting")

    async def _work(self) -> None:
        while True:
            message = await self._inbox.get()
            try:
                await self._handle(message)
            except AIFError as error:
                self._log.error("control message failed", code=error.code, reason=str(error), hint=error.hint)

    async def _handle(self, message: ControlMessage) -> None:
        match message:
            case control.Deploy(document=document):
                await self._deploy(document)
            case control.Undeploy(aiw_id=aiw_id):
                await self._drop(aiw_id)
            case control.SignalAIMs(aiw_id=aiw_id, aim=aim, signal=signal):
                await self._signal(aiw_id, aim, signal)
            case control.BoundaryRecord(aiw_id=aiw_id):
                part_ = self._parts.get(aiw_id)
                if part_ is not None and part_.workflow is not None:
                    part_.workflow.boundary_input(message)
            case _:
                self._log.warning("unexpected control message", message=type(message).__name__)

    async def _signal(self, aiw_id: str, aim: str, signal: Signal) -> None:
        current = self._parts.get(aiw_id)
        if current is None or current.workflow is None:
            return
        workflow = current.workflow
        if signal is Signal.START and current.phase is Phase.READY:
            current.phase = Phase.RUNNING
            workflow.start()
        elif signal is Signal.PAUSE:
            workflow.pause(aim)
            current.phase = current.phase if aim else Phase.PAUSED
        elif signal is Signal.RESUME:
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
        if known is not None and known.document == document:
            self._send_status(known)
            return
        if known is not None:
            await self._drop(deployed.aiw_id)
        current = _Part(deployed.aiw_id, deployed.mapping_version, document, deployment=deployed)
        self._parts[deployed.aiw_id] = current
        self._send_status(current)
        try:
            await self._prepare(current, deployed)
        except AIFError as error:
            self._log.error("deployment failed", aiw=deployed.aiw_id, code=error.code, reason=str(error))
            await self._discard(current)
            current.phase = Phase.FAILED
            current.failure = Failure(error.code, str(error), error.hint)
        else:
            self._state.update(lambda state: replace(state, mapping_floor=deployed.mapping_version))
            current.phase = Phase.PREPARED
        self._send_status(current)

    async def _prepare(self, current: _Part, deployed: Deployment) -> None:
        """Budgets, models, code, channels: everything but the keys."""
        for aim in deployed.aims:
            contract = self._library.verified(aim.use, aim.package_sha256)
            implementation = contract.implementation(aim.implementation)
            if implementation is None:
                continue  # HostedWorkflow reports it with its name
            queue_bytes = sum(p.queue_depth * p.payload_bytes for p in contract.inputs)
            model_bytes = aim.model.bytes_ if aim.model else 0
            self._platform.admit(
                _owner(deployed.aiw_id, aim.id),
                implementation,
                queue_bytes=queue_bytes,
                model_bytes=model_bytes,
            )
            if aim.model is not None:
                await self._install(deployed, aim.model, implementation)
        current.workflow = HostedWorkflow(
            deployed,
            self._library,
            self.session.communication,
            clock=self._clock,
            log=self._log,
            make=self._maker(deployed),
            blocks=self._platform.engine_blocks,
            on_state=lambda instance, state, detail: self._instance_state(current, instance, state, detail),
            on_boundary=self.session.send,
        )
        for receiver in current.workflow.receivers:
            subscription = await self._transport.subscribe(
                receiver.channel.topic,
                _into(receiver),
                qos=receiver.channel.qos,
            )
            current.subscriptions.append(subscription)

    async def _install(
        self, deployed: Deployment, release: ModelRelease, implementation: Implementation
    ) -> None:
        def progress(done: int, total: int) -> None:
            step = f"download {release.component}"
            loop.call_soon_threadsafe(self.session.send, control.Progress(deployed.aiw_id, step, done, total))

        loop = asyncio.get_running_loop()
        limits = SlotLimits(self._platform.usage().flash_limit_bytes, _arena_limit(implementation))
        await asyncio.to_thread(
            self._models.install, release, limits, lambda wanted: self._fetch(deployed, wanted, progress)
        )

    def _maker(
        self, deployed: Deployment
    ) -> Callable[[DeployedAIM, AIMMetadata, Implementation], Callable[[], AIM]]:
        return lambda aim, contract, implementation: self._factory.maker(
            _owner(deployed.aiw_id, aim.id), aim, contract, implementation
        )

    def _instance_state(self, current: _Part, instance: AIMInstance, state: State, detail: str) -> None:
        current.details[instance.id] = detail
        if detail:
            self._log.warning("AIM changed state", aim=instance.id, state=str(state), detail=detail)
        self._send_status(current)

    async def _drop(self, aiw_id: str) -> None:
        current = self._parts.pop(aiw_id, None)
        if current is not None:
            if current.workflow is not None:
                await current.workflow.stop()
            await self._discard(current)

    async def _discard(self, current: _Part) -> None:
        for subscription in current.subscriptions:
            with suppress(TransportError):
                await subscription.aclose()
        current.subscriptions.clear()
        if current.workflow is not None:
            current.workflow.close_channels()
            current.workflow = None
        for aim in current.deployment.aims if current.deployment else ():
            owner = _owner(current.aiw_id, aim.id)
            self._factory.close(owner)
            self._platform.release(owner)

    # --- reports -----------------------------------------------------------------------------------

    def _send_status(self, current: _Part) -> None:
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
                current.aiw_id, current.mapping_version, current.phase, reports, current.failure
            )
        )

    async def _report(self) -> None:
        next_status_ms = next_metrics_ms = 0.0
        while True:
            now = self._clock.monotonic_ms()
            status_due, metrics_due = now >= next_status_ms, now >= next_metrics_ms
            for current in list(self._parts.values()):
                if status_due or self._phase_changed(current):
                    self._send_status(current)
                if metrics_due and current.workflow is not None and current.phase in _WITH_METRICS:
                    self._send_metrics(current.workflow)
            next_status_ms = now + STATUS_INTERVAL_S * 1000 if status_due else next_status_ms
            next_metrics_ms = now + METRICS_INTERVAL_S * 1000 if metrics_due else next_metrics_ms
            await self._clock.sleep(POLL_INTERVAL_S)

    @staticmethod
    def _phase_changed(current: _Part) -> bool:
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
            "usage": {
                "ram": usage.ram_bytes, "ram_limit": usage.ram_limit_bytes, "flash": usage.flash_bytes,
                "flash_limit": usage.flash_limit_bytes, "arena": usage.arena_bytes,
            },
        }  # fmt: skip
        self.session.send(control.Metrics(workflow.deployment.aiw_id, values))

    # --- attestation -------------------------------------------------------------------------------

    def _components(self) -> Iterable[Component]:
        """What runs here: this runtime, every deployed AIM package, every installed model that is deployed."""
        state = self._state.load()
        root = state.store_root or b""
        yield part(RUNTIME_COMPONENT, self._runtime_digest, __version__, root)
        seen: set[str] = set()
        for current in self._parts.values():
            for aim in current.deployment.aims if current.deployment and current.workflow else ():
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


def _into(receiver: SecureReceiver) -> Callable[[Received], None]:
    return lambda received: receiver.receive(received.payload, retained=received.retained)


def _arena_limit(implementation: Implementation) -> int:
    """What a release may ask for: the declared arena; engines that manage their own memory have the RAM."""
    if implementation.runtime is Runtime.TFLM:
        return implementation.arena_bytes
    return implementation.arena_bytes or implementation.ram_bytes


def _owner(aiw_id: str, aim_id: str) -> str:
    return f"{aiw_id}/{aim_id}"
