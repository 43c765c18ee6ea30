"""The Controller: the site's keys, the partitioner and the Store behind it, and its User Agent socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from nacl.signing import SigningKey

from aif.cli._broker_access import BrokerAccess
from aif.cli._wiring.connection import open_transport
from aif.cli._wiring.home import Home, catalogue
from aif.cli._wiring.local_network import announced
from aif.cli._wiring.reference_book import ReferenceBook
from aif.cli._wiring.registry import withdraw_rights
from aif.config import load_inventory, load_workflow
from aif.errors import TransportError
from aif.model.aiw import Workflow
from aif.model.inventory import Inventory
from aif.protocol.appraisal import AppraisalPolicy
from aif.runtime.clock import Clock, SystemClock
from aif.runtime.controller.controller import Controller
from aif.runtime.devices.admission import Admission
from aif.runtime.devices.audit_log import AuditLog
from aif.runtime.devices.discovery import Discovery
from aif.runtime.devices.grants import GrantOffice, SessionKeys
from aif.runtime.devices.liveness import HeartbeatSettings
from aif.runtime.devices.registry import Site
from aif.runtime.devices.site_broker import SiteBroker
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.deployer import Deployer
from aif.transport.base import Transport
from aif.trusted.attestation import RUNTIME_COMPONENT, Verifier
from aif.trusted.communication import CommunicationService
from aif.trusted.content_keys import SiteVault
from store.client import StoreClient


async def run_controller(
    *,
    home: Home,
    broker: BrokerAccess,
    store_url: str,
    heartbeat: HeartbeatSettings,
    log_stream: TextIO,
    mdns: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Run the Controller and its User Agent socket until cancelled; with ``mdns``, tell the network of it."""
    from aif.runtime.controller.useragent import UserAgentServer
    from aif.transport.local import LocalServer

    clock = SystemClock()
    log = LogBook("controller", clock, log_stream)
    site_broker = SiteBroker(home.site) if broker.tls is not None else None
    async with open_transport(broker, "controller") as transport, contextlib.AsyncExitStack() as said:
        controller = build_controller(
            home=home,
            transport=transport,
            store_url=store_url,
            clock=clock,
            log=log,
            site_broker=site_broker,
            heartbeat=heartbeat,
        )
        controller.take_over()
        await controller.admission.start()
        agent = UserAgentServer(controller, load=_load_deployment, clock=clock, log=log)
        server = LocalServer(home.socket, agent.handle)
        await server.start()
        if mdns:
            site = Site.open_or_create(home.site, os.urandom)
            await said.enter_async_context(announced(site, broker, log))
        log.info("controller started", broker=str(broker), store=store_url)
        ready()
        try:
            async with asyncio.TaskGroup() as tasks:
                work = [
                    tasks.create_task(controller.run()),
                    tasks.create_task(poll(controller.admission.communication)),
                ]
                await agent.shutdown_requested.wait()
                for task in work:
                    task.cancel()
        finally:
            await server.aclose()


async def poll(communication: CommunicationService) -> None:
    while True:
        with contextlib.suppress(TransportError):
            communication.poll()
        await asyncio.sleep(0.1)


def build_controller(
    *,
    home: Home,
    transport: Transport,
    store_url: str,
    clock: Clock,
    log: LogBook,
    site_broker: SiteBroker | None = None,
    heartbeat: HeartbeatSettings | None = None,
) -> Controller:
    """A Controller with the site's keys, the partitioner and the Store behind it.

    ``site_broker`` is None where the broker has no access rules.
    """
    from partitioner.site import SitePlanner

    loop = asyncio.get_running_loop()

    def call_later(delay_ms: float, function: Callable[[], None]) -> None:
        loop.call_later(delay_ms / 1000.0, function)

    site = Site.open_or_create(home.site, os.urandom)
    state = site.state
    store_root = (home.store / "metadata" / "1.root.json").read_bytes()
    client = StoreClient(store_url, home.site / "store-cache", store_root)
    communication = CommunicationService(
        publish=lambda topic, payload, qos: transport.send(topic, payload, qos=qos),
        now_ms=clock.monotonic_ms,
        call_later=call_later,
    )
    grants = GrantOffice(
        _signer(state.grant_seed),
        lambda device: _session_keys(admission, device),
        clock=clock,
        random=os.urandom,
        first_epoch=site.begin_epochs(clock.time_us() // 1_000_000),
    )
    references = ReferenceBook(client, store_root)
    audit = AuditLog(home.site, clock.time_us)
    discovery = Discovery(site, transport, clock=clock, log=log)
    admission = Admission(
        site,
        transport,
        communication,
        grants,
        Verifier(
            AppraisalPolicy("site-default", frozenset({RUNTIME_COMPONENT})),
            os.urandom,
            _signer(state.result_seed),
        ),
        clock=clock,
        log=log,
        store_root=store_root,
        audit=audit,
        heartbeat=heartbeat,
        reference=references.components,
        on_message=lambda device, message: controller.reports.take(device, message),  # noqa: PLW0108  # made below
        on_stranger=discovery.stranger,
        expected=discovery.expects,
        on_trust=lambda link: controller.reports.take_trust(link),  # noqa: PLW0108  # made below
    )
    controller = Controller(
        admission=admission,
        grants=grants,
        deployer=Deployer(
            sign_deployment=_signer(state.deployment_seed),
            sign_ticket=_signer(state.ticket_seed),
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
        discovery=discovery,
        resolve_model=references.model,
        broker=site_broker,
        clock=clock,
        log=log,
    )
    log.forward = lambda line: controller.reports.take_log("controller", line)
    return controller


def _session_keys(admission: Admission, device: str) -> SessionKeys | None:
    hello = admission.link(device).hello
    return SessionKeys(hello.session_public, hello.frame_public, hello.boot_id) if hello is not None else None


def _load_deployment(
    workflow: Path, inventory: Path, aims: list[Path]
) -> tuple[Workflow, Inventory, AIMLibrary]:
    known = catalogue(aims)
    return load_workflow(workflow, known).workflow, load_inventory(inventory), AIMLibrary(known)


def _signer(seed: bytes) -> Callable[[bytes], bytes]:
    """A signing function over one of the Controller's keys."""
    key = SigningKey(seed)
    return lambda message: key.sign(message).signature
