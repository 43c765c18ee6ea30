"""What ``aif run`` does: prepare, provision, start, deploy, watch, sum up, leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from aif.authoring.recording import Recording, read_recording
from aif.cli import _wiring as wiring
from aif.cli._publishing import publish_everything, train_motion_models
from aif.cli.broker_config import LOOPBACK, set_up
from aif.config import load_inventory, load_workflow
from aif.emulator.settings import replays_of
from aif.errors import AlreadyRunning, StartFailed
from aif.gateway.live import open_screen
from aif.gateway.run_record import RunDevice, RunRecord
from aif.gateway.summary import check_writable, summary, write_summary
from aif.gateway.wire_tap import WireReport, WireTap, needles_from_recording
from aif.model.inventory import Inventory
from aif.runtime.devices.registry import Site
from aif.runtime.devices.site_broker import SiteBroker
from aif.runtime.local_site import LocalSite, LocalSiteOptions
from aif.runtime.processes import ProcessGroup
from aif.transport import local, mosquitto
from aif.transport.clients import DEFAULT_CLIENT, Client, open_client
from aif.trusted.certificates import Subject
from aif.trusted.client_folder import ClientFolder

MOSQUITTO = "mosquitto"
"""Says that the run is to have a production broker of its own."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line said."""

    workflow: Path
    inventory: Path
    home: Path
    aims: tuple[Path, ...]
    broker: str
    summary: Path | None
    follow: bool
    speed: float | None
    client: Client = DEFAULT_CLIENT


class LocalRun:
    """One run, from training to the summary."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._home = wiring.Home(options.home.resolve())
        self._screen = open_screen()
        self._record: RunRecord | None = None
        self._wire: WireReport | None = None
        self._production = options.broker == MOSQUITTO
        self._broker_url = "" if self._production else options.broker

    def run(self) -> int:
        """Everything in order; what a person must mend is found before anything is started.

        Returns:
            0, or 130 after Ctrl-C.
        """
        options = self._options
        if options.summary is not None:
            check_writable(options.summary)
        if self._production:
            self._check_mosquitto()
        catalogue = wiring.catalogue(options.aims)
        load_workflow(options.workflow, catalogue)
        inventory = load_inventory(options.inventory)
        try:
            with self._screen as screen:
                screen.phase("training the models on real motion data")
                train_motion_models(self._home, screen.progress)
                screen.phase("publishing models and AIMs to the store")
                publish_everything(self._home, catalogue)
                self._provision(inventory)
                if self._production:
                    self._set_up_mosquitto(inventory)
                code = wiring.run_until_signalled(self._live(inventory), interrupted=INTERRUPTED)
        finally:
            self._sum_up()
        return code

    def _provision(self, inventory: Inventory) -> None:
        """Every device of the inventory has an identity; one that never enrolled gets a new window."""
        site = Site.open_or_create(self._home.site, os.urandom)
        for device in inventory.devices:
            record = site.try_device(device.id)
            hw_class = wiring.device_hw_class(device.board, device.arch)
            state = self._home.device_state(device.id)
            known = state.exists() and self._home.engine(device.id).exists()
            if self._production:  # its certificate comes with its enrolment
                known = (
                    known
                    and ClientFolder(self._home.device_tls(device.id), Subject.device(device.id)).own.exists()
                )
            if record is not None and record.enrolled_s and known and record.hw_class == hw_class:
                continue
            site.forget(device.id)
            keys = wiring.identity_of(self._home, device.id, hw_class)
            site.provision(device.id, hw_class, state, keys, now_s=int(time.time()))

    # --- a production broker -----------------------------------------------------------------------

    def _check_mosquitto(self) -> None:
        """Find out before anything is done what a person must mend.

        Raises:
            NotFound: Mosquitto is not installed.
            AlreadyRunning: the home folder belongs to a broker of somebody's own.
        """
        mosquitto.program()
        site = SiteBroker(self._home.site)
        if site.configured and site.folder != self._broker_folder:
            raise AlreadyRunning(
                f"this home folder belongs to the broker of {site.folder}",
                hint="choose another --home, or use that broker with its own processes",
            )

    @property
    def _broker_folder(self) -> Path:
        return self._home.root / "broker"

    def _set_up_mosquitto(self, inventory: Inventory) -> None:
        """Certificates for everybody and access rules, on a free port of this machine."""
        port = mosquitto.free_port(LOOPBACK[1])
        devices = [device.id for device in inventory.devices]
        self._broker_url = set_up(self._home, devices, self._broker_folder, port=port).url

    # --- while it runs -----------------------------------------------------------------------------

    async def _live(self, inventory: Inventory) -> None:
        options = self._options
        recordings = self._recordings(inventory)
        async with ProcessGroup(self._home.logs) as processes, AsyncExitStack() as stack:
            site = LocalSite(
                processes,
                LocalSiteOptions(
                    self._home.root, options.inventory.resolve(), options.aims, self._broker_url,
                    self._production, options.follow, options.speed, options.client,
                ),
            )  # fmt: skip
            self._screen.phase("starting broker, store and Controller")
            await site.start_services()
            tap = await self._tap(stack, site.broker_url, recordings)
            self._screen.phase(f"starting {len(inventory.devices)} devices and placing the workflow")
            await site.start_devices(inventory)
            pids = site.pids()
            record = self._record = RunRecord(
                await self._deploy(),
                devices=[RunDevice(d.id, str(d.device_class), pids[d.id]) for d in inventory.devices],
                windows_total=None if options.follow else sum(map(len, recordings)) or None,
            )
            self._screen.watch(record, tap.report if tap is not None else None)
            try:
                await self._follow(record, processes)
            finally:
                self._wire = tap.report() if tap is not None else None

    async def _deploy(self) -> str:
        options = self._options
        aiw: str = await local.call(
            self._home.socket,
            "deploy",
            workflow=os.fspath(options.workflow.resolve()),
            inventory=os.fspath(options.inventory.resolve()),
            aims=[os.fspath(folder.resolve()) for folder in options.aims],
        )
        return aiw

    def _recordings(self, inventory: Inventory) -> list[Recording]:
        """What the emulated sensors of this inventory will play."""
        names = {replay.recording for device in inventory.devices for replay in replays_of(device).values()}
        files = [self._home.recordings / f"{name}.npz" for name in sorted(names)]
        return [read_recording(file) for file in files if file.is_file()]

    async def _tap(
        self, stack: AsyncExitStack, broker_url: str, recordings: Sequence[Recording]
    ) -> WireTap | None:
        """Watch the broker for the plaintext that the sensors are about to play."""
        if not recordings or self._production:  # its access rules let nobody listen
            return None
        client = open_client(self._options.client, broker_url, client_id="wire-tap")
        transport = await stack.enter_async_context(client)
        return await stack.enter_async_context(WireTap(transport, needles_from_recording(recordings[0])))

    async def _follow(self, record: RunRecord, processes: ProcessGroup) -> None:
        """Take and show every event until the workflow has ended.

        Raises:
            StartFailed: the workflow failed, or a process of the run ended by itself.
        """
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_notice_deaths(processes))
            async for event in local.stream(self._home.socket, "events"):
                record.take(event)
                if event["type"] == "remapped":  # where AIMs are now
                    status = await local.call(self._home.socket, "status")
                    record.take({"type": "status", "status": status})
                self._screen.update()
                if record.ended:
                    break
            watch.cancel()
        record.take({"type": "status", "status": await local.call(self._home.socket, "status")})
        if record.state != "completed":
            raise StartFailed(
                f"{record.workflow} is {record.state}" + (f": {record.note}" if record.note else ""),
                hint=f"the logs of its processes are in {self._home.logs}",
            )

    def _sum_up(self) -> None:
        """Show what is known, however the run ended; write it where the user wants it."""
        if self._record is None:
            return
        content = summary(self._record, wire=self._wire)
        if not self._record.ended:
            content["state"] = "interrupted"
        self._screen.final(content)
        if self._options.summary is not None:
            write_summary(self._options.summary, content)


async def _notice_deaths(processes: ProcessGroup) -> None:
    """End with an error when a process ends that nobody asked to."""
    child = await processes.first_ended()
    raise StartFailed(
        f"{child.name} ended by itself (exit code {child.process.returncode})",
        hint=f"its log: {child.log}\n{child.log_tail()}",
    )
