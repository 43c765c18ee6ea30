"""One device of a site: its Security Engine, its model slots, and the host that runs its AIMs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from aif.cli._broker_access import BrokerAccess
from aif.cli._wiring.connection import open_transport
from aif.cli._wiring.home import PACKAGE, Home, catalogue
from aif.config import load_inventory
from aif.model.inventory import Device, DeviceClass
from aif.protocol.deployment import Deployment
from aif.protocol.identifiers import id16
from aif.protocol.topics import Up, UpTopic
from aif.runtime.clock import Clock, SystemClock
from aif.runtime.host.enrolling_device import DeviceEnrolment
from aif.runtime.host.part import ModelFetcher
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.transport.base import LastWill
from aif.trusted.measure import runtime_digest
from aif.trusted.model_service import FIRMWARE_ABI, FIRMWARE_VERSION, Download, ModelService
from aif.trusted.security_engine import DeviceKeys, EngineSettings, SecurityEngine, make_identity
from aif.trusted.state import DeviceState, StateFile
from store.client import StoreClient
from store.floors import Floors


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


def runtime_versions() -> dict[str, str]:
    """The version of every runtime that a device process of this installation has."""
    from aif.engines.registry import installed_versions

    return {**installed_versions(), "python": platform.python_version(), "firmware": str(FIRMWARE_VERSION)}


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
    from aif.runtime.host.host import Host

    clock = SystemClock()
    device = load_inventory(inventory).device(name)
    state = home.known_device(name, inventory)
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
                fetch=model_fetcher(home.device(name), state, full_verification=device.forwards),
                runtime_digest=runtime_digest(PACKAGE),
                clock=clock,
                random=os.urandom,
                log=log,
                versions=runtime_versions(),
                tls=broker.tls,
            )
            log.info("host started", device=name, device_class=str(device.device_class))
            await host.run()


async def _enrol_over_tls(
    state: StateFile[DeviceState],
    engine: SecurityEngine,
    broker: BrokerAccess,
    clock: SystemClock,
    log: LogBook,
) -> None:
    """The factory certificate may only enrol; what comes of it is the device's own certificate."""
    async with open_transport(broker, "", enrol=True) as transport:
        enrolment = DeviceEnrolment(
            state, transport, engine, clock=clock, random=os.urandom, log=log, tls=broker.tls
        )
        await enrolment.run()


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


def model_fetcher(folder: Path, state: StateFile[DeviceState], *, full_verification: bool) -> ModelFetcher:
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
