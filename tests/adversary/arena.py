"""A running site with an attacker beside it, over the memory transport or over a real broker.

Three devices: ``left`` counts and adds, ``right`` doubles, ``far`` only listens. The numbers travel on a
signed channel with two consumers, the pairs on a one-to-one channel. What comes out at the end is n (n + 1)
for n = 1, 2, 3, ... as long as nothing was forged, repeated or lost on the way.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from aif.protocol.topics import AttestationTopic, DownTopic, EnrolmentTopic, UpTopic, parse
from aif.runtime.controller.controller import RunningWorkflow
from aif.transport.backoff import Backoff
from aif.transport.base import LastWill, Transport
from aif.transport.embedded_broker import EmbeddedBroker
from aif.transport.faults import Fault
from aif.transport.memory import MemoryBroker, MemoryTransport
from aif.transport.mqtt import MQTTTransport
from aif.trusted.communication import CommunicationService
from tests.adversary.hostile_client import HostileClient
from tests.adversary.proxy import Proxy
from tests.runtime import site as site_module
from tests.runtime.site import AIMS, INVENTORY, BenchSite, bench_site
from tests.transport.conftest import Mosquitto

T = TypeVar("T")
DEVICES: Final = ("left", "right", "far")
QUICK: Final = Backoff(first_s=0.02, longest_s=0.1)
WIRES: Final = ("memory", pytest.param("broker", marks=pytest.mark.integration))
MOSQUITTO: Final = pytest.param("mosquitto", marks=pytest.mark.integration)
PATIENCE_S: Final = 30.0

_FAR: Final = """
  - {id: far, class: gateway, board: bench-far, arch: x86-64, os: Linux, instructions_per_s: 1000000000,
     ram_bytes: 100000000, flash_bytes: 100000000, runtimes: [python, tflite], attestation: software}
links:
  - {id: left-far, between: [left, far], bandwidth_bps: 100000000, latency_ms: 1}
  - {id: right-far, between: [right, far], bandwidth_bps: 100000000, latency_ms: 1}
"""
THREE_DEVICES: Final = INVENTORY.rstrip().replace("\nlinks:\n", _FAR)

ROOMY_AIMS: Final = {
    name: (contract.replace("queue_depth: 64", "queue_depth: 4096"), module)
    for name, (contract, module) in AIMS.items()
}
"""With room for what piles up while a machine under load does something else."""

WORKFLOW: Final = """
schema: 1
aiw: {name: Adding, version: "1.0", implementer: tinyaif, description: "Counts, doubles and adds."}
aims:
  - {id: count, use: Ticker@1.0, placement: {device: left}, parameters: {last: LAST}}
  - {id: double, use: Doubler@1.0, inputs: {number: count.number}, placement: {device: right}}
  - {id: audit, use: Doubler@1.0, inputs: {number: count.number}, placement: {device: far}}
  - {id: add, use: Summer@1.0, inputs: {pair: double.pair}, placement: {device: left}}
outputs: {total: add.total}
"""
ENDLESS: Final = 0


def counting_to(last: int) -> str:
    """The workflow that counts to ``last``, or for ever."""
    return WORKFLOW.replace("LAST", str(last))


class Arena:
    """A site under attack, and what is known about it from inside."""

    def __init__(self, site: BenchSite, hostile: HostileClient, proxy: Proxy | None) -> None:
        self.site, self.hostile, self.proxy = site, hostile, proxy
        self.running: RunningWorkflow
        self.totals: list[int] = []
        """What the endless workflow has put out."""
        self.uncaught: list[str] = []
        """Errors of callbacks that only the event loop heard of."""

    @property
    def faults(self) -> list[Fault]:
        """Rules for what the broker delivers."""
        return self.proxy.faults if self.proxy is not None else self.site.broker.faults

    async def deploy(self, last: int) -> RunningWorkflow:
        self.running = await self.site.deploy(counting_to(last))
        return self.running

    async def watch(self) -> None:
        """Note outputs until cancelled."""
        with self.site.controller.events.listening() as events:
            while True:
                event = await events.get()
                if event["type"] == "output" and event["aiw"] == self.running.aiw_id:
                    self.totals.append(event["value"])

    # --- what the site counted ----------------------------------------------------------------------

    def communication(self, name: str) -> CommunicationService:
        """Of a device, or of the Controller."""
        if name == "controller":
            return self.site.controller.admission.communication
        return self.site.hosts[name].session.communication

    def send_stamped(self, topic: str, message: bytes) -> None:
        """What the attacker could send with a stamp key that it took from a device."""
        to = parse(topic)
        assert isinstance(to, UpTopic | DownTopic | AttestationTopic | EnrolmentTopic)
        self.hostile.send(topic, self.site.stamped(to.device, to, message))

    def count(self, name: str, *causes: str) -> int:
        """Drops at one place under any of these causes."""
        found = Counter(self.communication(name).statistics().causes)
        return sum(found[cause] for cause in causes)

    def logged(self, event: str, **facts: Any) -> int:
        """Log lines with this event and these facts."""
        return sum(facts.items() <= line.items() for line in self.site.log.lines(event))

    def trust_state(self) -> dict[str, object]:
        """Everything an attacker would like to change: sessions, keys, registry."""
        admission = self.site.controller.admission
        state: dict[str, object] = {}
        for name in DEVICES:
            link, record = admission.link(name), self.site.registry.device(name)
            session = self.site.hosts[name].session
            state[name] = (
                link.trust, link.hello and link.hello.boot_id, record.secret_state, record.enrolled_s,
                record.revoked, session._engine.session_pk,
                {
                    receiver.channel.topic: receiver._receiver._epoch
                    for receiver in session.communication._receivers.values()
                },
            )  # fmt: skip
        return state

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until a condition holds; looked at whenever the attacker hears something, which is all the time."""
        try:
            await self.hostile.until(condition)
        except TimeoutError as error:
            told = [line for line in self.site.log.lines() if line["level"] != "info"][-8:]
            state = f"workflow {self.running.state} {self.running.note}, {len(self.totals)} totals"
            raise TimeoutError(f"{state}; last words of the site: {told}") from error

    async def until_outputs(self, more: int) -> None:
        """Until the workflow has put out that many further totals."""
        wanted = len(self.totals) + more
        await self.until(lambda: len(self.totals) >= wanted)

    def check_results(self) -> None:
        """Nothing forged, repeated or lost has reached an AIM."""
        assert self.totals == [n * (n + 1) for n in range(1, len(self.totals) + 1)]


@asynccontextmanager
async def arena(
    wire: str, folder: Path, *, devices: Sequence[str] = DEVICES, speed: float = 1.0
) -> AsyncIterator[Arena]:
    """A site with trusted devices and an attacker; ``wire`` is memory, broker or mosquitto."""
    uncaught: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: uncaught.append(repr(context.get("exception"))))
    async with AsyncExitStack() as stack:
        proxy = None
        if wire != "memory":
            made: EmbeddedBroker | Mosquitto = (
                EmbeddedBroker(folder / "broker.log") if wire == "broker" else Mosquitto(folder)
            )
            await stack.enter_async_context(made)
            proxy = await stack.enter_async_context(Proxy(made.address))
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(site_module, "MemoryTransport", _over(proxy))
        site = await stack.enter_async_context(
            bench_site(folder, devices=(), aims=ROOMY_AIMS, inventory=THREE_DEVICES, speed=speed)
        )
        transport: Transport = MemoryTransport(site.broker, client_id="hostile")
        if proxy is not None:
            transport = MQTTTransport(made.address, client_id="hostile", backoff=QUICK)
        stack.push_async_callback(transport.aclose)
        hostile = HostileClient(transport)
        await hostile.start()  # before any device says its first word
        for name in devices:
            site.add_device(name)
            await site.start_device(name)
        attacked = Arena(site, hostile, proxy)
        attacked.uncaught = uncaught
        watch = asyncio.create_task(attacked.watch())
        stack.callback(watch.cancel)
        yield attacked


def _over(proxy: Proxy) -> Callable[..., MQTTTransport]:
    """Stands where the site makes its memory transports: the same clients over a real broker."""

    def connect(_: MemoryBroker, *, client_id: str = "", will: LastWill | None = None) -> MQTTTransport:
        return MQTTTransport(proxy.address, client_id=client_id, will=will, backoff=QUICK)

    return connect


class ArenaThread:
    """An arena with an event loop of its own, so that many tests can use one site after the other."""

    def __init__(self, wire: str, folder: Path) -> None:
        self._wire, self._folder = wire, folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="arena")
        self._stack = AsyncExitStack()
        self.arena: Arena

    def start(self) -> None:
        self._thread.start()
        self.run(self._open())

    async def _open(self) -> None:
        self.arena = await self._stack.enter_async_context(arena(self._wire, self._folder))
        first = await self.arena.deploy(3)
        await self.arena.site.run_to_end(first)
        self.arena.totals.clear()
        await self.arena.deploy(ENDLESS)
        await self.arena.until_outputs(80)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something where the site runs."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def stop(self) -> None:
        try:
            if hasattr(self, "arena"):
                self.run(self._stack.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
