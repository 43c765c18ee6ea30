"""The composition root: the only place that knows every package. Builds hosts, Controllers and helpers.

Verbs call these functions; nothing else in the project constructs a transport, an engine, a planner or a
store client for the runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import aif
from aif.cli._broker_access import BrokerAccess
from aif.config import Catalogue, load_catalogue, load_inventory, load_workflow
from aif.errors import AIFError, NotFound, TransportError
from aif.model.aiw import Workflow
from aif.model.inventory import Device, DeviceClass, Inventory
from aif.protocol.appraisal import AppraisalPolicy
from aif.protocol.deployment import Deployment
from aif.protocol.evidence import Component
from aif.protocol.identifiers import id16
from aif.protocol.topics import Up, UpTopic
from aif.runtime.admission import Admission
from aif.runtime.admission import controller_signer as signer
from aif.runtime.audit_log import AuditLog
from aif.runtime.clock import Clock, SystemClock
from aif.runtime.controller import Controller
from aif.runtime.deployer import Deployer, ResolvedModel
from aif.runtime.devices import Site
from aif.runtime.grants import GrantOffice, SessionKeys
from aif.runtime.library import AIMLibrary
from aif.runtime.liveness import HeartbeatSettings
from aif.runtime.logbook import LogBook
from aif.runtime.part import ModelFetcher
from aif.runtime.revocation import Taken, withdrawn
from aif.runtime.session import DeviceSession, void
from aif.runtime.site_broker import SiteBroker
from aif.transport.base import LastWill, Transport
from aif.trusted.attestation import RUNTIME_COMPONENT, Verifier, aim_component, model_component, part
from aif.trusted.communication import CommunicationService
from aif.trusted.content_keys import SiteVault
from aif.trusted.measure import runtime_digest
from aif.trusted.model_service import FIRMWARE_ABI, FIRMWARE_VERSION, Download, ModelService
from aif.trusted.security_engine import DeviceKeys, EngineSettings, SecurityEngine, make_identity
from aif.trusted.state import DeviceState, StateFile
from store.client import StoreClient
from store.floors import Floors
from store.sealing import hw_classes_of, sealing_of

if TYPE_CHECKING:
    from partitioner.policy import ModelFacts

DEFAULT_HOME = ".aif"
PACKAGE = Path(aif.__file__).resolve().parent
SHIPPED_AIMS = PACKAGE.parent / "aims"
VENDOR = "tinyaif"


@dataclass(frozen=True, slots=True)
class Home:
    """Where one machine keeps its state."""

    root: Path

    @property
    def site(self) -> Path:
        return self.root / "site"

    @property
    def socket(self) -> Path:
        return self.site / "controller.sock"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def store_keys(self) -> Path:
        return self.root / "store-keys"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def recordings(self) -> Path:
        return self.root / "recordings"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def controller_tls(self) -> Path:
        return self.site / "tls"

    def device_tls(self, name: str) -> Path:
        return self.device(name) / "tls"

    def device(self, name: str) -> Path:
        return self.root / "devices" / name

    def engine(self, name: str) -> Path:
        """Private folder of a device's Security Engine: its root key and its storage."""
        return self.device(name).resolve() / "engine"

    def device_state(self, name: str) -> StateFile[DeviceState]:
        return StateFile(self.device(name) / "device.cbor", DeviceState)


def catalogue(aims: Iterable[Path]) -> Catalogue:
    """The shipped AIM library and the user's folders."""
    return load_catalogue([SHIPPED_AIMS, *aims])


def device_hw_class(board: str, arch: str) -> str:
    """Hardware class of a device: what firmware and models are built for."""
    return f"{board}/{arch}"


# --- a device ---------------------------------------------------------------------------------------


def engine_settings(home: Home, name: str, hw_class: str, state: DeviceState | None = None) -> EngineSettings:
    """What a device's Security Engine is started with; ``state`` is known once it is provisioned."""
    return EngineSettings(
        home.engine(name),
        id16("device", name),
        hw_class,
        id16("hwclass", hw_class),
        FIRMWARE_VERSION,
        FIRMWARE_ABI,
        state.grant_pk if state else None,
        state.ticket_pk if state else None,
        "aif.engines.registry:open_engine",
    )


def identity_of(home: Home, name: str, hw_class: str) -> Callable[[], DeviceKeys]:
    """Makes a device's identity inside its Security Engine (for ``Site.provision``)."""
    return lambda: make_identity(engine_settings(home, name, hw_class))


def start_engine(home: Home, name: str, clock: Clock, remote_disk: Path | None = None) -> SecurityEngine:
    """The running Security Engine of a provisioned device.

    Raises:
        PSAError: it does not start, or its files are not the newest it wrote.
    """
    state = home.device_state(name).load()
    settings = replace(engine_settings(home, name, state.hw_class, state), remote_disk=remote_disk)
    return SecurityEngine(settings, clock=lambda: clock.monotonic_ms() / 1000)


async def run_device(
    name: str,
    *,
    home: Home,
    inventory: Path,
    broker: BrokerAccess,
    aims: Sequence[Path],
    follow: bool,
    speed: float | None,
    log_stream: TextIO,
    remote_disk: Path | None = None,
) -> None:
    """Run one device's host until cancelled.

    Raises:
        NotFound: the device is not in the inventory, or was never added.
    """
    from aif.emulator.device import EmulatedDevice
    from aif.runtime.host import Host

    clock = SystemClock()
    device = load_inventory(inventory).device(name)
    state = home.device_state(name)
    if not state.exists():
        raise NotFound(
            f"{name} has no identity in {home.device(name)}",
            hint=f"provision it with `aif device add {name} --inventory {inventory}`",
        )
    log = LogBook(name, clock, log_stream)
    will = LastWill(str(UpTopic(name, Up.STATUS)), b"gone", qos=1)
    with start_engine(home, name, clock, remote_disk) as engine:
        if broker.tls is not None and not state.load().enrolled:
            await _enrol_over_tls(state, engine, broker, clock, log)
        async with open_transport(broker, name, will=will) as transport:
            host = Host(
                state=state,
                transport=transport,
                engine=engine,
                library=AIMLibrary(catalogue(aims)),
                platform=EmulatedDevice(device, home.recordings, clock=clock, follow=follow, speed=speed),
                models=model_service(home, device, state, engine),
                fetch=_model_fetcher(home.device(name), state, full_verification=device.forwards),
                runtime_digest=runtime_digest(PACKAGE),
                clock=clock,
                random=os.urandom,
                log=log,
                tls=broker.tls,
            )
            log.info("host started", device=name, device_class=str(device.device_class))
            await host.run()


def open_transport(
    broker: BrokerAccess, client_id: str, *, will: LastWill | None = None, enrol: bool = False
) -> Transport:
    """A client of the broker; with ``enrol`` it has no right but to enrol."""
    from aif.transport.clients import open_client

    tls = None
    if broker.tls is not None:
        tls = broker.tls.factory_context() if enrol else broker.tls.context()
    return open_client(broker.client, broker.brokers, client_id=client_id, will=will, tls=tls)


async def _enrol_over_tls(
    state: StateFile[DeviceState],
    engine: SecurityEngine,
    broker: BrokerAccess,
    clock: SystemClock,
    log: LogBook,
) -> None:
    """The factory certificate may only enrol; what comes of it is the device's own certificate."""
    async with open_transport(broker, "", enrol=True) as transport:
        session = DeviceSession(
            state, transport, engine, clock=clock, random=os.urandom, log=log,
            components=tuple, on_message=void, tls=broker.tls,
        )  # fmt: skip
        await session.enrol()


def model_service(
    home: Home, device: Device, state: StateFile[DeviceState], engine: SecurityEngine
) -> ModelService:
    """The slots of a device; those of a microcontroller hold plaintext, because it executes from them."""
    return ModelService(
        home.device(device.id) / "models",
        state,
        device_id=id16("device", device.id),
        hw_class_id=id16("hwclass", state.load().hw_class),
        open_in_place=engine.open_in_place if device.device_class is DeviceClass.MCU else None,
    )


def _model_fetcher(folder: Path, state: StateFile[DeviceState], *, full_verification: bool) -> ModelFetcher:
    """Gateways verify the Store's metadata; constrained devices rely on the ticket and the digest alone."""

    def fetch(deployment: Deployment, wanted: Download, progress: Callable[[int, int], None]) -> bytes:
        known = state.load()
        floors = Floors.from_document(json.loads(known.store_floors)) if known.store_floors else None
        client = StoreClient(
            deployment.store_url, folder / "store-cache", known.store_root or b"", floors=floors
        )
        sha256 = wanted.sha256.hex()
        if not full_verification:
            return client.fetch_blob(sha256, wanted.bytes_, progress=progress)
        content = client.fetch(
            wanted.path, expected_sha256=sha256, expected_length=wanted.bytes_, progress=progress
        )
        seen = json.dumps(client.floors.to_document())
        state.update(lambda current: replace(current, store_floors=seen))
        return content

    return fetch


# --- the Controller ---------------------------------------------------------------------------------


async def run_controller(
    *,
    home: Home,
    broker: BrokerAccess,
    store_url: str,
    heartbeat: HeartbeatSettings,
    log_stream: TextIO,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Run the Controller and its User Agent socket until cancelled."""
    from aif.runtime.useragent import UserAgentServer
    from aif.transport.local import LocalServer

    clock = SystemClock()
    log = LogBook("controller", clock, log_stream)
    site_broker = SiteBroker(home.site) if broker.tls is not None else None
    async with open_transport(broker, "controller") as transport:
        controller = build_controller(
            home=home, transport=transport, store_url=store_url, log=log, site_broker=site_broker,
            heartbeat=heartbeat,
        )  # fmt: skip
        controller.take_over()
        await controller.admission.start()
        agent = UserAgentServer(controller, load=_load_deployment, log=log)
        server = LocalServer(home.socket, agent.handle)
        await server.start()
        log.info("controller started", broker=str(broker), store=store_url)
        ready()
        try:
            async with asyncio.TaskGroup() as tasks:
                work = [
                    tasks.create_task(controller.run()),
                    tasks.create_task(_poll(controller.admission.communication)),
                ]
                await agent.shutdown_requested.wait()
                for task in work:
                    task.cancel()
        finally:
            await server.aclose()


async def _poll(communication: CommunicationService) -> None:
    while True:
        with contextlib.suppress(TransportError):
            communication.poll()
        await asyncio.sleep(0.1)


def build_controller(
    *,
    home: Home,
    transport: Transport,
    store_url: str,
    log: LogBook,
    site_broker: SiteBroker | None = None,
    heartbeat: HeartbeatSettings | None = None,
) -> Controller:
    """A Controller with the site's keys, the partitioner and the Store behind it.

    ``site_broker`` is None where the broker has no access rules.
    """
    from partitioner.site import SitePlanner

    clock = SystemClock()
    loop = asyncio.get_running_loop()
    site = Site.open_or_create(home.site, os.urandom)
    state = site.state
    store_root = (home.store / "metadata" / "1.root.json").read_bytes()
    client = StoreClient(store_url, home.site / "store-cache", store_root)
    communication = CommunicationService(
        publish=lambda topic, payload, qos: transport.send(topic, payload, qos=qos),
        now_ms=clock.monotonic_ms,
        call_later=lambda delay_ms, function: void(loop.call_later(delay_ms / 1000.0, function)),
    )
    grants = GrantOffice(
        signer(state.grant_seed),
        lambda device: _session_keys(admission, device),
        clock=clock,
        random=os.urandom,
        first_epoch=site.begin_epochs(clock.time_us() // 1_000_000),
    )
    references = ReferenceBook(client, store_root)
    audit = AuditLog(home.site, clock.time_us)
    admission = Admission(
        site,
        transport,
        communication,
        grants,
        Verifier(
            AppraisalPolicy("site-default", frozenset({RUNTIME_COMPONENT})),
            os.urandom,
            signer(state.result_seed),
        ),
        clock=clock,
        log=log,
        store_root=store_root,
        audit=audit,
        heartbeat=heartbeat,
        reference=references.components,
        on_message=lambda device, message: controller.on_message(device, message),  # noqa: PLW0108  # made below
        on_trust=lambda link: controller.on_trust(link),  # noqa: PLW0108  # made below
    )
    controller = Controller(
        admission=admission,
        grants=grants,
        deployer=Deployer(
            sign_deployment=signer(state.deployment_seed),
            sign_ticket=signer(state.ticket_seed),
            random=os.urandom,
            store_url=store_url,
            vault=SiteVault(home.site, os.urandom),
        ),
        next_mapping_version=site.next_mapping_version,
        hw_class_of=lambda device: site.device(device).hw_class,
        planner=SitePlanner(releases=references.facts),
        load=_load_deployment,
        workflows_folder=home.site / "workflows",
        site=site,
        withdraw=lambda device: withdraw_rights(home, device),
        audit=audit,
        resolve_model=references.model,
        broker=site_broker,
        clock=clock,
        log=log,
    )
    log.forward = lambda line: controller.take_log("controller", line)
    return controller


def withdraw_rights(home: Home, device: str) -> str:
    """Take a device's certificates and its rights at the broker back; what became of it, in words."""
    return f"its rights and certificates are taken back; {SiteBroker(home.site).revoke(device, now=now())}"


def revoke_in_registry(home: Home, device: str, reason: str, *, lost: bool) -> list[dict[str, Any]]:
    """Revoke a device while no Controller runs: there is nobody whose keys must change."""
    site = Site.open_or_create(home.site, os.urandom)
    site.device(device)
    taken = [withdrawn(lambda name: withdraw_rights(home, name), device)]
    site.revoke(device, reason, now_s=int(now().timestamp()), lost=lost)
    audit = AuditLog(home.site, SystemClock().time_us)
    audit.note("revoked", device, reason=reason)
    audit.sign()
    taken.append(Taken("registry", "hello, evidence and enrolment of the device are refused"))
    return [asdict(step) for step in taken]


def _session_keys(admission: Admission, device: str) -> SessionKeys | None:
    hello = admission.link(device).hello
    return SessionKeys(hello.session_public, hello.frame_public, hello.boot_id) if hello is not None else None


class ReferenceBook:
    """Reference values and model releases, as the Store's publishers signed them."""

    def __init__(self, client: StoreClient, store_root: bytes) -> None:
        self._client, self._root = client, store_root
        self._models: dict[str, Component] = {}
        self._aims: dict[str, Component] = {}
        self._runtime: list[Component] = []

    def refresh(self) -> None:
        """Read every release that the Store lists."""
        runtime: list[Component] = []
        for release in self._client.releases():
            measured = bytes.fromhex(release.measurement)
            if release.yanked:
                continue
            if release.kind == "runtime":
                version = str(release.custom.get("version", ""))
                runtime.append(part(RUNTIME_COMPONENT, measured, version, self._root))
            elif release.kind == "aim":
                kind = aim_component(str(release.custom.get("reference", "")))
                version = str(release.custom.get("version", ""))
                self._aims[f"{kind}#{release.counter}"] = part(kind, measured, version, self._root)
            elif release.kind == "model":
                kind = model_component(release.component)
                self._models[f"{kind}#{release.counter}"] = part(
                    kind, measured, str(release.counter), self._root
                )
        self._runtime = runtime

    def components(self) -> Mapping[str, Iterable[Component]]:
        """Good measurements, by kind of part."""
        if not self._runtime:
            self.refresh()
        # copies, because a deployment may refresh them in a thread at the same time
        aims, models = list(self._aims.values()), list(self._models.values())
        return {"runtime": self._runtime, "aims": aims, "models": models}

    def facts(self) -> dict[str, ModelFacts]:
        """Size and arena of the newest release of every model, by component.

        Raises:
            StoreError: the Store is not reachable.
        """
        from partitioner.policy import ModelFacts

        facts = {}
        models = (r for r in self._client.releases() if r.kind == "model" and not r.yanked)
        for release in sorted(models, key=lambda release: release.counter):
            sealing, arena = sealing_of(release), release.custom.get("arena_bytes")
            bytes_ = release.length if sealing is None else sealing.release.plaintext_bytes
            facts[release.component] = ModelFacts(bytes_, arena if isinstance(arena, int) and arena else None)
        return facts

    def model(self, vendor: str, component: str) -> ResolvedModel:
        """The newest release of a model.

        Raises:
            StoreError: there is none, or the Store is not reachable.
        """
        self.refresh()  # first, so that a release is found as soon as it is published
        release = self._client.newest(vendor, component)
        parameters = release.custom.get("parameters", {})
        arena = release.custom.get("arena_bytes", 0)
        sealing = sealing_of(release)
        return ResolvedModel(
            component=component,
            path=release.path,
            counter=release.counter,
            sha256=bytes.fromhex(release.measurement),
            bytes_=release.length if sealing is None else sealing.release.plaintext_bytes,
            arena_bytes=arena if isinstance(arena, int) else 0,
            stored_sha256=bytes.fromhex(release.sha256),
            stored_bytes=release.length,
            sealed=None if sealing is None else sealing.release,
            key_commitment=b"" if sealing is None else sealing.key_commitment,
            hw_classes=tuple(sorted(hw_classes_of(release))),
            parameters={str(k): float(str(v)) for k, v in parameters.items()}
            if isinstance(parameters, Mapping)
            else {},
        )


def _load_deployment(
    workflow: Path, inventory: Path, aims: list[Path]
) -> tuple[Workflow, Inventory, AIMLibrary]:
    known = catalogue(aims)
    return load_workflow(workflow, known).workflow, load_inventory(inventory), AIMLibrary(known)


# --- processes --------------------------------------------------------------------------------------


def run_until_signalled(main: Awaitable[None], *, interrupted: int = 0) -> int:
    """Run a coroutine; SIGINT and SIGTERM cancel it, and it then has its time to clean up.

    Returns:
        0 when it ended by itself, ``interrupted`` when a signal ended it.
    """

    async def supervised() -> int:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            return interrupted
        except BaseExceptionGroup as group:
            raise _first_error(group) from group
        return 0

    return asyncio.run(supervised())


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error a person should see: the first of this project's, else the first there is."""
    own = group.subgroup(AIFError)
    chosen: BaseException = own if own is not None else group
    while isinstance(chosen, BaseExceptionGroup):
        chosen = chosen.exceptions[0]
    return chosen


def now() -> datetime:
    return datetime.now(UTC)


def stderr() -> TextIO:
    return sys.stderr
