"""A whole site in one process: real store, Controller, hosts and AIMs over the memory transport.

Only the wire and the processes are missing; tests with real ones are in tests/integration.
"""

from __future__ import annotations

import asyncio
import io
import os
import textwrap
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aif import __version__
from aif.authoring.publication import Publisher
from aif.cli import _wiring as wiring
from aif.cli._publishing import open_or_create_store
from aif.config import load_catalogue, load_inventory, load_workflow
from aif.emulator.device import EmulatedDevice
from aif.protocol.identifiers import id16
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES, WorkflowState
from aif.protocol.topics import Up, UpTopic
from aif.runtime.clock import SystemClock
from aif.runtime.controller import Controller, RunningWorkflow
from aif.runtime.devices import Site
from aif.runtime.host import Host
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.transport.base import LastWill
from aif.transport.memory import MemoryBroker, MemoryTransport
from aif.trusted.measure import runtime_digest
from aif.trusted.model_service import ModelService
from store.server import StoreServer

PATIENCE_S = 8.0

AIMS: Mapping[str, tuple[str, str]] = {
    "counter_source": (
        """
        schema: 1
        aim: {name: CounterSource, version: "1.0", implementer: tinyaif, description: Counts.}
        parameters: {last: {type: integer, default: 20, minimum: 1}}
        outputs: {number: {type: int32, rate_hz: 50}}
        implementations:
          - {id: any, runtime: python, entry: "module:CounterSource", ram_bytes: 1000, flash_bytes: 0,
             instructions: 1000, security: attested}
        """,
        """
        from aif.sdk import AIM, EndOfData


        class CounterSource(AIM):
            def setup(self):
                self.count = 0

            async def process(self):
                if self.count == self.context.parameters["last"]:
                    raise EndOfData("counted")
                self.count += 1
                return {"number": self.count}
        """,
    ),
    "doubler": (
        """
        schema: 1
        aim: {name: Doubler, version: "1.0", implementer: tinyaif, description: Doubles a number.}
        inputs: {number: {type: int32, queue_depth: 64}}
        outputs: {pair: {type: "{int32 number; int32 twice}"}}
        implementations:
          - {id: any, runtime: python, entry: "module:Doubler", ram_bytes: 1000, flash_bytes: 0,
             instructions: 1000, security: attested}
        """,
        """
        from aif.sdk import AIM


        class Doubler(AIM):
            def process(self, number):
                return {"pair": {"number": number, "twice": 2 * number}}
        """,
    ),
    "summer": (
        """
        schema: 1
        aim: {name: Summer, version: "1.0", implementer: tinyaif, description: Adds up what was doubled.}
        inputs: {pair: {type: "{int32 number; int32 twice}", queue_depth: 64}}
        outputs: {total: {type: int64}}
        implementations:
          - {id: any, runtime: python, entry: "module:Summer", ram_bytes: 1000, flash_bytes: 0,
             instructions: 1000, security: attested}
        """,
        """
        from aif.sdk import AIM


        class Summer(AIM):
            def setup(self):
                self.total = 0

            def process(self, pair):
                self.total += pair.twice
                return {"total": self.total}
        """,
    ),
}

WORKFLOW = """
schema: 1
aiw: {name: Adding, version: "1.0", implementer: tinyaif, description: "Counts, doubles and adds."}
aims:
  - {id: count, use: CounterSource@1.0, placement: {device: left}}
  - {id: double, use: Doubler@1.0, inputs: {number: count.number}, placement: {device: right}}
  - {id: add, use: Summer@1.0, inputs: {pair: double.pair}, placement: {device: left}}
outputs: {total: add.total}
"""

INVENTORY = """
schema: 1
inventory: {name: bench, version: 1}
devices:
  - {id: left, class: gateway, board: bench-left, arch: x86-64, os: Linux, instructions_per_s: 1000000000,
     ram_bytes: 100000000, flash_bytes: 100000000, runtimes: [python, tflite], attestation: software}
  - {id: right, class: gateway, board: bench-right, arch: x86-64, os: Linux, instructions_per_s: 1000000000,
     ram_bytes: 100000000, flash_bytes: 100000000, runtimes: [python, tflite], attestation: software}
links:
  - {id: lan, between: [left, right], bandwidth_bps: 100000000, latency_ms: 1}
"""


class BenchSite:
    """A site in a folder, and what a test may do with it."""

    def __init__(self, folder: Path, *, aims: Mapping[str, tuple[str, str]] = AIMS) -> None:
        self.home = wiring.Home(folder / "home")
        self.aims = folder / "aims"
        self.broker = MemoryBroker()
        self.log = io.StringIO()
        self.inventory_file = folder / "inventory.yaml"
        self.inventory_file.write_text(INVENTORY)
        for name, (contract, module) in aims.items():
            self.write_aim(name, contract, module)
        self.controller: Controller
        self.store: StoreServer
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def write_aim(self, name: str, contract: str, module: str) -> None:
        folder = self.aims / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "aim.yaml").write_text(textwrap.dedent(contract).lstrip())
        (folder / "module.py").write_text(textwrap.dedent(module).lstrip())

    def publish(self) -> None:
        publisher = Publisher(open_or_create_store(self.home), wiring.VENDOR, wiring.now)
        publisher.runtime(wiring.PACKAGE, __version__)
        catalogue = load_catalogue([self.aims])
        for reference, contract in catalogue.items():
            publisher.aim(contract, catalogue.folder(reference))

    def add_device(self, name: str) -> None:
        device = load_inventory(self.inventory_file).device(name)
        site = Site.open_or_create(self.home.site, os.urandom)
        site.provision(
            name, wiring.device_hw_class(device.board, device.arch), self.home.device_state(name),
            now_s=int(wiring.now().timestamp()),
        )  # fmt: skip

    async def start_controller(self) -> None:
        transport = MemoryTransport(self.broker, client_id="controller")
        await transport.connect()
        log = LogBook("controller", SystemClock(), self.log)
        self.controller = wiring.build_controller(
            home=self.home, transport=transport, store_url=self.store.url, log=log
        )
        await self.controller.admission.start()

        async def run() -> None:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self.controller.run())
                    tasks.create_task(wiring._poll(self.controller.admission.communication))
            finally:
                await transport.aclose()

        self.tasks["controller"] = asyncio.create_task(run(), name="controller")

    async def start_device(self, name: str, *, aims: Sequence[Path] = ()) -> None:
        clock = SystemClock()
        state = self.home.device_state(name)
        device = load_inventory(self.inventory_file).device(name)
        will = LastWill(str(UpTopic(name, Up.STATUS)), b"gone", qos=1)
        transport = MemoryTransport(self.broker, client_id=name, will=will)
        await transport.connect()
        host = Host(
            state=state,
            transport=transport,
            library=AIMLibrary(load_catalogue([*aims, self.aims] if aims else [self.aims])),
            platform=EmulatedDevice(device, self.home.recordings, clock=clock),
            models=ModelService(
                self.home.device(name) / "models", state,
                device_id=id16("device", name), hw_class_id=id16("hwclass", state.load().hw_class),
            ),
            fetch=wiring._model_fetcher(self.home.device(name), state, full_verification=True),
            runtime_digest=runtime_digest(wiring.PACKAGE),
            clock=clock,
            random=os.urandom,
            log=LogBook(name, clock, self.log),
        )  # fmt: skip

        async def run() -> None:
            try:
                await host.run()
            finally:
                await transport.aclose()

        self.tasks[name] = asyncio.create_task(run(), name=name)

    async def end(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def deploy(self, workflow: str = WORKFLOW) -> RunningWorkflow:
        file = self.home.root / "workflow.aiw.yaml"
        file.write_text(workflow)
        catalogue = load_catalogue([self.aims])
        return await self.controller.deploy(
            load_workflow(file, catalogue).workflow, load_inventory(self.inventory_file), AIMLibrary(catalogue)
        )

    async def run_to_end(self, running: RunningWorkflow) -> list[dict[str, Any]]:
        """Follow a workflow until it has ended; returns its output events."""
        outputs = []
        with self.controller.events.listening() as events:
            async with asyncio.timeout(PATIENCE_S):
                while running.state not in FINAL_WORKFLOW_STATES:
                    event = await events.get()
                    if event["type"] == "output" and event["aiw"] == running.aiw_id:
                        outputs.append(event)
        return outputs

    async def until(self, running: RunningWorkflow, *states: WorkflowState) -> None:
        with self.controller.events.listening() as events:
            async with asyncio.timeout(PATIENCE_S):
                while running.state not in states:
                    await events.get()


@asynccontextmanager
async def bench_site(
    folder: Path, *, devices: Sequence[str] = ("left", "right"), aims: Mapping[str, tuple[str, str]] = AIMS
) -> AsyncIterator[BenchSite]:
    """A running site: store published and served, Controller and devices up."""
    site = BenchSite(folder, aims=aims)
    site.publish()
    site.store = StoreServer(site.home.store)
    site.store.start()
    try:
        await site.start_controller()
        for name in devices:
            site.add_device(name)
            await site.start_device(name)
        yield site
    except BaseException:
        print(site.log.getvalue())  # noqa: T201  # what pytest shows for a failed journey
        raise
    finally:
        for name in reversed(list(site.tasks)):
            await site.end(name)
        site.store.stop()
