"""One workflow's part on this device, and what it takes: budgets, models, code, channels, subscriptions.

Prepares everything but the keys, changes with another mapping, and gives everything back. When it runs, what
it says and to whom is decided by ``host``.

Invariants: whatever takes long (digests, downloads, engines) happens in threads, one installation at a time;
a preparation that fails or is cancelled has given back all it took, and no thread of it runs on; a change
whose new AIMs cannot be prepared leaves all others as they were.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from aif.errors import CreationFailed, DownloadInterrupted, TransportError
from aif.model.aim import AIMMetadata, Implementation, Runtime
from aif.model.standby import standby_of
from aif.protocol.control import Failure, Phase, Progress
from aif.protocol.deployment import DeployedAIM, Deployment, ModelRelease
from aif.protocol.lifecycle import State
from aif.protocol.limits import ID_BYTES
from aif.runtime.clock import Clock
from aif.runtime.host.aims import AIMFactory
from aif.runtime.host.hosted import HostedWorkflow
from aif.runtime.host.instance import AIMInstance
from aif.runtime.host.models import DeviceModels
from aif.runtime.host.platform import Platform
from aif.runtime.host.session import DeviceSession
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.runtime.mapping_changes import staying_aims, staying_standbys
from aif.sdk import AIM
from aif.transport.base import Received, Subscription, Transport
from aif.trusted.communication import SecureReceiver
from aif.trusted.model_service import Download, ModelService, SlotLimits
from aif.trusted.security_engine import SecurityEngine

T = TypeVar("T")
ModelFetcher = Callable[[Deployment, Download, Callable[[int, int], None]], bytes]
"""Downloads the bytes of one release; runs in a thread. The third argument is told (done, total) bytes."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What this device offers to the parts on it."""

    library: AIMLibrary
    platform: Platform
    models: ModelService
    opened: DeviceModels
    engine: SecurityEngine
    fetch: ModelFetcher
    transport: Transport
    session: DeviceSession
    factory: AIMFactory
    clock: Clock
    log: LogBook
    installing: asyncio.Lock


@dataclass(slots=True)
class Part:
    """One workflow's part here, from its verified document to its end."""

    document: bytes
    deployment: Deployment
    phase: Phase = Phase.PREPARING
    workflow: HostedWorkflow | None = None
    failure: Failure | None = None
    details: dict[str, str] = field(default_factory=dict)
    preparing: asyncio.Task[None] | None = None
    unwanted: bool = False
    coming: int = 0
    """Mapping version of the change that is, or was last, being made."""
    superseded: bool = False
    """Whether a newer document waits for the end of that change."""
    _subscriptions: dict[bytes, Subscription] = field(default_factory=dict)
    """By channel."""
    _heard: dict[bytes, SecureReceiver] = field(default_factory=dict)

    @property
    def aiw_id(self) -> str:
        return self.deployment.aiw_id

    def has(self, aim_id: str) -> bool:
        return any(aim.id == aim_id for aim in self.deployment.aims)

    def interrupt(self) -> None:
        """End a preparation that nobody wants any more."""
        if not self.unwanted:
            self.unwanted = True
            if self.preparing is not None:
                self.preparing.cancel()

    def make_way(self, mapping_version: int) -> None:
        """End a change, but not the part, when there is a newer document than it is made for."""
        if self.preparing is not None and mapping_version > self.coming:
            self.superseded = True
            self.preparing.cancel()

    async def prepare(self, has: Resources, on_state: Callable[[AIMInstance, State, str], None]) -> None:
        """Take what the document names: everything but the keys. Call ``discard`` when it fails.

        Raises:
            AIFError: of whatever the device does not have, or cannot verify.
            OSError: its storage does not take it.
        """
        makers: dict[str, Callable[[], AIM]] = {}
        for aim in self.deployment.aims:
            makers[aim.id] = await self._prepare_aim(aim, has)
        for aim in self.deployment.standbys:
            await self._stand_by(aim, has)
        self.workflow = HostedWorkflow(
            self.deployment,
            has.library,
            has.session.communication,
            clock=has.clock,
            log=has.log,
            make=lambda aim, _contract, _implementation: makers[aim.id],
            blocks=lambda of: _blocks(of, has),
            on_state=on_state,
            on_boundary=has.session.send,
            connected=lambda: has.session.connected,
        )
        await self._subscribe(self.workflow, has)

    async def change(self, document: bytes, deployment: Deployment, has: Resources) -> None:
        """Take up another mapping of the same workflow; what it does not change goes on.

        New AIMs are prepared while the old ones still work, so both must fit for that time.

        Raises:
            AIFError, OSError: as ``prepare``; then the AIMs that stay go on as before.
        """
        workflow = self.workflow
        if workflow is None:
            raise CreationFailed(f"{self.aiw_id} has nothing here that could change", kind="module")
        before = self.deployment
        staying = staying_aims(before, deployment)
        # an AIM that stays under other terms (another implementation) has to go before it can come
        await workflow.leave({aim.id for aim in deployment.aims if self.has(aim.id)} - staying)
        for aim in before.aims:
            if aim.id not in workflow.instances:
                self._give_back(aim.id, has)
        ready = staying_standbys(before, deployment)
        for aim in before.standbys:  # one that takes over needs its room for itself
            if aim.id not in ready:
                self._give_back(standby_of(aim.id), has)
        makers = await self._prepare_new(
            [aim for aim in deployment.aims if aim.id not in staying],
            [aim for aim in deployment.standbys if aim.id not in ready],
            has,
        )
        await workflow.change(
            deployment,
            lambda aim, _contract, _implementation: makers[aim.id],
            lambda of: _blocks(of, has),
        )
        kept = {aim.id for aim in deployment.aims}
        for aim in before.aims:
            if aim.id not in kept:
                self._give_back(aim.id, has)
        self.document, self.deployment, self.failure = document, deployment, None
        await self._subscribe(workflow, has)

    async def _prepare_new(
        self, aims: Sequence[DeployedAIM], standbys: Sequence[DeployedAIM], has: Resources
    ) -> dict[str, Callable[[], AIM]]:
        """All of them, or none."""
        makers: dict[str, Callable[[], AIM]] = {}
        try:
            for aim in aims:
                makers[aim.id] = await self._prepare_aim(aim, has)
            for aim in standbys:
                await self._stand_by(aim, has)
        except BaseException:
            for name in (*(aim.id for aim in aims), *(standby_of(aim.id) for aim in standbys)):
                self._give_back(name, has)
            raise
        return makers

    async def _subscribe(self, workflow: HostedWorkflow, has: Resources) -> None:
        """Listen to the channels that are open here, and to no others."""
        wanted = {r.channel.channel_id: r for r in workflow.receivers if not r.channel.within_host}
        for channel_id in self._subscriptions.keys() - wanted.keys():
            await self._unsubscribe(channel_id)
        for channel_id, receiver in wanted.items():
            if channel_id in self._heard and self._heard[channel_id] is not receiver:
                await self._unsubscribe(channel_id)
            if channel_id not in self._subscriptions:
                channel = receiver.channel
                self._heard[channel_id] = receiver
                self._subscriptions[channel_id] = await has.transport.subscribe(
                    channel.topic, _into(receiver), qos=channel.qos
                )

    async def _unsubscribe(self, channel_id: bytes) -> None:
        self._heard.pop(channel_id, None)
        subscription = self._subscriptions.pop(channel_id, None)
        if subscription is not None:
            with suppress(TransportError):
                await subscription.aclose()

    async def _prepare_aim(self, aim: DeployedAIM, has: Resources) -> Callable[[], AIM]:
        owner = self._owner(aim.id)
        contract, implementation = await self._make_ready(aim, owner, has)
        services = has.engine.owner(storage_owner(self.deployment.workflow, aim, contract))
        return await _in_thread(lambda: has.factory.maker(owner, aim, contract, implementation, services))

    async def _stand_by(self, aim: DeployedAIM, has: Resources) -> None:
        """Have ready all that an AIM needs but its channels: also its code, and what runs its model."""
        _, implementation = await self._make_ready(aim, self._owner(standby_of(aim.id)), has)
        if implementation.entry:
            await _in_thread(lambda: has.library.load_class(aim.use, implementation))
        if implementation.runtime is Runtime.TFLITE:
            await _in_thread(lambda: has.engine.load_runtime(Runtime.TFLITE))

    async def _make_ready(
        self, aim: DeployedAIM, owner: str, has: Resources
    ) -> tuple[AIMMetadata, Implementation]:
        """Check the code, take the room and install the model."""
        contract = await _in_thread(lambda: has.library.verified(aim.use, aim.package_sha256))
        implementation = contract.implementation(aim.implementation)
        if implementation is None:
            raise CreationFailed(f"{aim.use} has no implementation {aim.implementation}", kind="module")
        has.platform.admit(
            owner,
            implementation,
            queue_bytes=sum(p.queue_depth * p.payload_bytes for p in contract.inputs),
            model_bytes=aim.model.bytes_ if aim.model else 0,
        )
        if aim.model is not None:
            async with has.installing:
                await self._install(aim, aim.model, implementation, owner, has)
        return contract, implementation

    async def _install(
        self,
        aim: DeployedAIM,
        release: ModelRelease,
        implementation: Implementation,
        owner: str,
        has: Resources,
    ) -> None:
        def progress(done: int, total: int) -> None:
            if self.unwanted or self.superseded:
                raise DownloadInterrupted(f"{self.aiw_id} is not wanted any more")
            message = Progress(self.aiw_id, f"download {release.component}", done, total)
            loop.call_soon_threadsafe(has.session.send, message)

        loop = asyncio.get_running_loop()
        limits = SlotLimits(has.platform.usage().flash_limit_bytes, _arena_limit(implementation))
        fetch, deployment = has.fetch, self.deployment
        await _in_thread(
            lambda: has.models.install(
                release,
                limits,
                lambda wanted: fetch(deployment, wanted, progress),
                wrapped_key=has.opened.key(release.component),
                plain_models=deployment.plain_models,
                prove=lambda slot: has.opened.prove(owner, implementation, release, slot),
                package=aim.package_sha256,
            )
        )

    async def discard(self, has: Resources) -> None:
        """Stop what runs and give everything back; harmless when there is nothing.

        Readers elsewhere hear of no end: the Controller says whether these AIMs go on at another place.
        """
        if self.workflow is not None:
            await self.workflow.end()
        for channel_id in list(self._subscriptions):
            await self._unsubscribe(channel_id)
        if self.workflow is not None:
            self.workflow.close_channels()
            self.workflow = None
        for aim in self.deployment.aims:
            self._give_back(aim.id, has)
        for aim in self.deployment.standbys:
            self._give_back(standby_of(aim.id), has)

    def _give_back(self, name: str, has: Resources) -> None:
        has.factory.close(self._owner(name))
        has.platform.release(self._owner(name))

    def invocations(self) -> dict[str, int]:
        """How often each AIM was invoked here, by the owner that it is charged to."""
        instances = self.workflow.instances.values() if self.workflow is not None else ()
        return {self._owner(instance.id): instance.metrics.invocations for instance in instances}

    def _owner(self, name: str) -> str:
        """Who is charged: an AIM, or the standby of one."""
        return f"{self.aiw_id}/{name}"


def storage_owner(workflow: str, aim: DeployedAIM, contract: AIMMetadata) -> bytes:
    """In whose name an AIM uses the trusted services: this AIM, under its id, in this workflow.

    Not bound to one deployment nor to the AIM's version, so that what is stored outlives both.
    """
    name = json.dumps([workflow, aim.id, contract.implementer, contract.name])
    return hashlib.blake2b(b"AIF-OWNER-1" + name.encode(), digest_size=ID_BYTES).digest()


async def _in_thread(work: Callable[[], T]) -> T:
    """Run in a thread; a cancellation takes effect when the thread has ended: nothing runs on unseen."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # nobody else will look at it
        raise


def _blocks(implementation: Implementation, has: Resources) -> bool:
    """Whether its calls wait, as those to the Security Engine do: that is another process."""
    return (
        implementation.model is not None
        or bool(implementation.requires.services)
        or has.platform.engine_blocks(implementation)
    )


def _into(receiver: SecureReceiver) -> Callable[[Received], None]:
    return lambda received: receiver.receive(received.payload, retained=received.retained)


def _arena_limit(implementation: Implementation) -> int:
    """What a release may ask for: the declared arena; engines that manage their own memory have the RAM."""
    if implementation.runtime is Runtime.TFLM:
        return implementation.arena_bytes
    return implementation.arena_bytes or implementation.ram_bytes
