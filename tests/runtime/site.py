"""A whole site in one process: real store, Controller, hosts and AIMs over the memory transport.

Only the wire and the processes are missing; tests with real ones are in tests/integration.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aif import __version__
from aif.authoring.publication import Publisher
from aif.cli import _wiring as wiring
from aif.cli._publishing import open_publisher
from aif.config import load_catalogue, load_inventory, load_workflow
from aif.emulator.device import EmulatedDevice
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES, WorkflowState
from aif.protocol.stamp import stamp
from aif.protocol.topics import Topic, Up, UpTopic
from aif.runtime.clock import SystemClock
from aif.runtime.controller.controller import Controller, Patience, RunningWorkflow
from aif.runtime.devices.liveness import HeartbeatSettings
from aif.runtime.devices.registry import Site
from aif.runtime.host.host import Host
from aif.runtime.host.hosted import HostedWorkflow
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.workflows import Sources
from aif.transport.base import LastWill
from aif.transport.memory import MemoryBroker, MemoryTransport
from aif.trusted.measure import runtime_digest
from aif.trusted.security_engine import SecurityEngine
from store.server import StoreServer

PATIENCE_S = 45.0
"""Real time after which a wait has failed; a machine under load is slow."""

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
    "ticker": (
        """
        schema: 1
        aim: {name: Ticker, version: "1.0", implementer: tinyaif, description: Counts at a steady pace.}
        parameters: {last: {type: integer, default: 0, minimum: 0}}
        outputs: {number: {type: int32, rate_hz: 200}}
        period_ms: 5
        implementations:
          - {id: any, runtime: python, entry: "module:Ticker", ram_bytes: 1000, flash_bytes: 0,
             instructions: 1000, security: attested}
        """,
        """
        from aif.sdk import AIM, EndOfData


        class Ticker(AIM):
            def setup(self):
                self.count = 0

            def process(self):
                if self.count and self.count == self.context.parameters["last"]:
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

FEATURES = (
    """
    schema: 1
    aim: {name: Features, version: "1.0", implementer: tinyaif, description: Something to think about.}
    outputs: {features: {type: "int8[8]", rate_hz: 100}}
    period_ms: 10
    implementations:
      - {id: any, runtime: python, entry: "module:Features", ram_bytes: 1000, flash_bytes: 0,
         instructions: 1000, security: attested}
    """,
    """
    from aif.sdk import AIM


    class Features(AIM):
        def process(self):
            return {"features": [1, 2, 3, 4, 5, 6, 7, 8]}
    """,
)
"""A source for AIMs with a model."""

WORKFLOW = """
schema: 1
aiw: {name: Adding, version: "1.0", implementer: tinyaif, description: "Counts, doubles and adds."}
aims:
  - {id: count, use: CounterSource@1.0, placement: {device: left}}
  - {id: double, use: Doubler@1.0, inputs: {number: count.number}, placement: {device: right}}
  - {id: add, use: Summer@1.0, inputs: {pair: double.pair}, placement: {device: left}}
outputs: {total: add.total}
"""

ENDLESS = WORKFLOW.replace("CounterSource", "Ticker") + "availability: {on_degraded: ON_DEGRADED}\n"
"""Counts until it is stopped; say what happens when it is degraded."""

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


class SiteClock(SystemClock):
    """The system's clock with waits shortened and a wall clock that is wrong by a given time."""

    def __init__(self, *, speed: float = 1.0, skew_s: float = 0.0) -> None:
        self._speed, self._skew_us = speed, int(skew_s * 1e6)

    def time_us(self) -> int:
        return super().time_us() + self._skew_us

    def monotonic_ms(self) -> float:
        return super().monotonic_ms() * self._speed

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / self._speed)


class Journal(io.StringIO):
    """All log lines of a site; wakes who waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.written = asyncio.Event()

    def write(self, text: str) -> int:
        self._loop.call_soon_threadsafe(self.written.set)
        return super().write(text)

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.getvalue().splitlines()]
        return [line for line in found if not event or line["event"] == event]


class BenchSite:
    """A site in a folder, and what a test may do with it."""

    def __init__(
        self,
        folder: Path,
        *,
        aims: Mapping[str, tuple[str, str]] = AIMS,
        inventory: str = INVENTORY,
        speed: float = 1.0,
        patience: Patience | None = None,
        heartbeat: HeartbeatSettings | None = None,
    ) -> None:
        self.home = wiring.Home(folder / "home")
        self.aims = folder / "aims"
        self.broker = MemoryBroker()
        self.log = Journal()
        self.inventory_file = folder / "inventory.yaml"
        self.inventory_file.write_text(inventory)
        for name, (contract, module) in aims.items():
            write_aim(self.aims / name, contract, module)
        self.controller: Controller
        self.store: StoreServer
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.hosts: dict[str, Host] = {}
        self.engines: dict[str, SecurityEngine] = {}
        self.transports: dict[str, MemoryTransport] = {}
        self._speed, self._patience = speed, patience or Patience()
        self._heartbeat = heartbeat

    @property
    def publisher(self) -> Publisher:
        return open_publisher(self.home)

    def publish(self) -> None:
        publisher = self.publisher
        publisher.runtime(wiring.PACKAGE, __version__)
        catalogue = load_catalogue([self.aims])
        for reference, contract in catalogue.items():
            publisher.aim(contract, catalogue.folder(reference))

    @property
    def registry(self) -> Site:
        return Site.open_or_create(self.home.site, os.urandom)

    def stamped(self, device: str, topic: Topic, message: bytes) -> bytes:
        """What somebody would send who had the stamp key of a device."""
        key = self.registry.stamp_key(self.registry.device(device).exchange_pk)
        return stamp(key, str(topic), message, SystemClock().time_us())

    def add_device(self, name: str) -> str:
        device = load_inventory(self.inventory_file).device(name)
        hw_class = wiring.device_hw_class(device.board, device.arch)
        return self.registry.provision(
            name, hw_class, self.home.device_state(name), wiring.identity_of(self.home, name, hw_class),
            now_s=int(wiring.now().timestamp()),
        )  # fmt: skip

    async def start_controller(self) -> None:
        transport = self.transports["controller"] = MemoryTransport(self.broker, client_id="controller")
        await transport.connect()
        clock = SiteClock(speed=self._speed)
        self.controller = wiring.build_controller(
            home=self.home, transport=transport, store_url=self.store.url, clock=clock,
            log=LogBook("controller", clock, self.log), heartbeat=self._heartbeat,
        )  # fmt: skip
        self.controller.patience = self._patience
        self.controller.take_over()
        await self.controller.admission.start()

        async def run() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.controller.run())
                tasks.create_task(wiring.poll(self.controller.admission.communication))

        self.tasks["controller"] = asyncio.create_task(run(), name="controller")

    async def start_device(
        self,
        name: str,
        *,
        aims: Path | None = None,
        skew_s: float = 0.0,
        runtime: Path = wiring.PACKAGE,
    ) -> None:
        """Start a device's host.

        Args:
            name: in the inventory, and added.
            aims: another AIM folder than the site's.
            skew_s: how far its wall clock is ahead.
            runtime: the package that it measures as its runtime.
        """
        clock = SiteClock(speed=self._speed, skew_s=skew_s)
        state = self.home.device_state(name)
        device = load_inventory(self.inventory_file).device(name)
        will = LastWill(str(UpTopic(name, Up.STATUS)), b"gone", qos=1)
        transport = self.transports[name] = MemoryTransport(self.broker, client_id=name, will=will)
        await transport.connect()
        engine = self.engines[name] = await asyncio.to_thread(wiring.start_engine, self.home, name, clock)
        host = self.hosts[name] = Host(
            state=state,
            transport=transport,
            engine=engine,
            library=AIMLibrary(load_catalogue([aims or self.aims])),
            platform=EmulatedDevice(device, self.home.recordings, clock=clock),
            models=wiring.model_service(self.home, device, state, engine),
            fetch=wiring.model_fetcher(self.home.device(name), state, full_verification=True),
            runtime_digest=runtime_digest(runtime),
            clock=clock,
            random=os.urandom,
            versions=wiring.runtime_versions(),
            log=LogBook(name, clock, self.log),
        )  # fmt: skip
        self.tasks[name] = asyncio.create_task(host.run(), name=name)

    async def end(self, name: str) -> None:
        """End a process as SIGTERM does."""
        task = self.tasks.pop(name)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if name in self.engines:
            self.engines.pop(name).close()
        await self.transports[name].aclose()

    async def kill(self, name: str) -> None:
        """End a device without a goodbye: the broker publishes its last will."""
        self.transports[name].crash()
        await self.end(name)

    async def kill_controller(self) -> None:
        """End the Controller as SIGKILL does: no device hears of it."""
        self.transports["controller"].crash()
        for running in self.controller.workflows.values():
            assert running.task is not None
            running.task.cancel()
        self.controller.workflows.clear()
        await self.end("controller")

    async def deploy(self, workflow: str = WORKFLOW) -> RunningWorkflow:
        file = self.home.root / "workflow.aiw.yaml"
        file.write_text(workflow)
        catalogue = load_catalogue([self.aims])
        return await self.controller.deploy(
            load_workflow(file, catalogue).workflow,
            load_inventory(self.inventory_file),
            AIMLibrary(catalogue),
            sources=Sources(file, self.inventory_file, (self.aims,)),
        )

    # --- waiting for what happens ------------------------------------------------------------------

    async def outputs(self, running: RunningWorkflow, count: int) -> list[Any]:
        """The next values at the outputs of a workflow."""
        values: list[Any] = []
        with self.controller.events.listening() as events:
            async with asyncio.timeout(PATIENCE_S):
                while len(values) < count:
                    event = await events.get()
                    if event["type"] == "output" and event["aiw"] == running.aiw_id:
                        values.append(event["value"])
        return values

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

    async def until(self, running: RunningWorkflow, *states: WorkflowState, note: str = "") -> None:
        await self.until_true(lambda: running.state in states and note in running.note)

    async def until_true(self, condition: Callable[[], bool]) -> None:
        """Until a condition holds; looked at with every event and log line, and now and then without."""
        with self.controller.events.listening() as events:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():
                    self.log.written.clear()
                    waits = [asyncio.create_task(events.get()), asyncio.create_task(self.log.written.wait())]
                    try:
                        await asyncio.wait(waits, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for wait in waits:
                            wait.cancel()

    async def until_trusted(self, *devices: str) -> None:
        await self.until_true(lambda: all(self.controller.admission.trusted(name) for name in devices))

    async def until_logged(self, event: str, **facts: Any) -> dict[str, Any]:
        """The first log line with this event and these facts."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.log.lines(event) if facts.items() <= line.items()]

        await self.until_true(lambda: bool(found()))
        return found()[0]

    # --- what is there -----------------------------------------------------------------------------

    def hosted(self, device: str, running: RunningWorkflow) -> HostedWorkflow:
        workflow = self.hosts[device]._parts[running.aiw_id].workflow
        assert workflow is not None
        return workflow

    def messages(self, running: RunningWorkflow, figure: str) -> int:
        """A message counter, summed over the devices."""
        return sum(metrics["messages"][figure] for metrics in running.metrics.values())

    def check_nothing_is_left(self) -> None:
        """No part, no budget, no engine, no channel but the control channels, on any device that runs."""
        for name, host in self.hosts.items():
            if name not in self.tasks:
                continue
            assert not host._parts, f"{name} holds {list(host._parts)}"
            usage = host._platform.usage()
            assert (usage.ram_bytes, usage.flash_bytes, usage.arena_bytes) == (0, 0, 0), name
            platform = host._platform
            assert isinstance(platform, EmulatedDevice)
            assert not platform._models
            assert not host._resources.factory._engines
            communication = host.session.communication
            assert len(communication._senders) == len(communication._receivers) == 1
            data = [e.topic_filter for e in self.transports[name].table if "/ch/" in e.topic_filter]
            assert not data


def write_aim(folder: Path, contract: str, module: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "aim.yaml").write_text(textwrap.dedent(contract).lstrip())
    (folder / "module.py").write_text(textwrap.dedent(module).lstrip())


@asynccontextmanager
async def bench_site(
    folder: Path,
    *,
    devices: Sequence[str] = ("left", "right"),
    aims: Mapping[str, tuple[str, str]] = AIMS,
    inventory: str = INVENTORY,
    speed: float = 1.0,
    patience: Patience | None = None,
    heartbeat: HeartbeatSettings | None = None,
) -> AsyncIterator[BenchSite]:
    """A running site: store published and served, Controller and devices up."""
    site = BenchSite(
        folder, aims=aims, inventory=inventory, speed=speed, patience=patience, heartbeat=heartbeat
    )
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
