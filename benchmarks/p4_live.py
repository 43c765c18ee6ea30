"""P4, the live part: a device of a running site is lost; how long until a right result comes again?

A real site of processes: broker, store, Controller, and hosts with their Security Engines. ``ticker`` counts
200 times a second on a device that stays, ``doubler`` may run anywhere else, ``checker`` hands over what
arrives. The device under ``doubler`` is killed (SIGKILL: the broker says so) or frozen (SIGSTOP: only its
silence does). The figure is the time from the signal to the first result whose number was made after it, with
the right value, as a User Agent sees it. Stages are those that the Controller tells. No model is transferred,
but in the last two cases: there ``doubler`` needs one of 16 MB that a new device has to fetch, over loopback;
once without, and once with a standby that has it.

What was lost on the way is counted: numbers between the last result before and the first after. Where the
channels are acknowledged, one number that never comes through voids the case: the goal is none.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aif import __version__
from aif.authoring.publication import Publisher
from aif.cli import _wiring as wiring
from aif.cli._publishing import open_publisher
from aif.config import load_catalogue, load_inventory
from aif.model.inventory import Inventory
from aif.model.standby import standby_of
from aif.runtime.devices.registry import Site
from aif.runtime.local_site import LocalSite, LocalSiteOptions
from aif.runtime.processes import ProcessGroup
from aif.transport import local
from benchmarks.broker import BrokerMissing, cpu_s, running_broker
from benchmarks.harness import Spread
from benchmarks.report import Metric, judged

GOAL_MS = 500.0
LOSSES, QUICK_LOSSES = 5, 1
AIMS = Path(__file__).with_name("live_aims")
STEADY_RESULTS = 200
"""Results before the next device is lost: one second of them."""

PATIENCE_S = 60.0
WORKFLOW = """
schema: 1
aiw: {name: Doubling, version: "1.0", implementer: tinyaif, description: Counts and doubles.}
aims:
  - {id: ticker, use: Ticker@1.0, placement: {device: base}}
  - {id: doubler, use: Doubler@1.0, inputs: {number: ticker.number},
     placement: {separate_from: [ticker], strength: hard}}
  - {id: checker, use: Checker@1.0, inputs: {pair: doubler.pair}, placement: {device: base}}
outputs: {seen: checker.seen}
"""
WITH_MODEL = WORKFLOW.replace("Doubler@1.0", "Thinker@1.0")
STANDBY = "availability: {standby: [doubler]}\n"
HIDDEN = 4_000
"""Units of the model's inner layers: 16 MB of weights between them."""

ACKNOWLEDGED = """channels:
  - {output: ticker.number, input: doubler.number, delivery: acknowledged}
  - {output: doubler.pair, input: checker.pair, delivery: acknowledged}
"""
DEVICE = """  - {id: NAME, class: gateway, board: bench-NAME, arch: x86-64, os: Linux,
     instructions_per_s: 1000000000, ram_bytes: 100000000, flash_bytes: 100000000,
     runtimes: [python, tflite],
     attestation: software}
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """What one loss came to; ``numbers_lost`` were counted by ``ticker`` and never seen."""

    device: str
    total_ms: float
    numbers_lost: int
    stages_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """How devices are lost."""

    name: str
    signal: signal.Signals
    acknowledged: bool = False
    goal_ms: float | None = GOAL_MS
    model: bool = False
    standby: bool = False

    @property
    def workflow(self) -> str:
        return (
            (WITH_MODEL if self.model else WORKFLOW)
            + (ACKNOWLEDGED if self.acknowledged else "")
            + (STANDBY if self.standby else "")
        )


CASES = (
    Case("killed", signal.SIGKILL),
    Case("killed_acknowledged", signal.SIGKILL, acknowledged=True),
    Case("frozen", signal.SIGSTOP),
    Case("killed_with_model", signal.SIGKILL, model=True, goal_ms=None),
    Case("killed_with_standby", signal.SIGKILL, model=True, standby=True),
)


def measure_live(*, quick: bool) -> tuple[list[Metric], dict[str, Any]]:
    """Metrics, and a table with one row per loss."""
    metrics: list[Metric] = []
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    void: dict[str, str] = {}
    for case in CASES[:1] if quick else CASES:
        try:
            losses, busy = asyncio.run(_measure(case, QUICK_LOSSES if quick else LOSSES))
        except BrokerMissing as error:
            left_out.append(f"p4 live: {error}")
            break
        except (TimeoutError, ValueError) as error:
            void[f"p4 live {case.name}"] = str(error) or "nothing came in time"
            continue
        total = Spread.of([loss.total_ms for loss in losses])
        metrics.append(judged(f"p4.live_{case.name}", total, "ms", case.goal_ms, "lower"))
        if case.acknowledged:
            lost = Spread.of([float(loss.numbers_lost) for loss in losses])
            metrics.append(judged("p4.live_acknowledged_lost", lost, "messages", 0.0, "lower"))
        for loss in losses:
            rows.append({"case": case.name, "controller_cpu": busy, **asdict(loss)})
            stages = ", ".join(f"{name} {ms:.0f}" for name, ms in loss.stages_ms.items())
            print(
                f"p4 live {case.name}: {loss.device} lost, {loss.total_ms:.0f} ms to the first right result "
                f"({stages}), {loss.numbers_lost} numbers lost",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    return metrics, {"live": rows, "left_out": left_out, "void": void}


async def _measure(case: Case, losses: int) -> tuple[list[Loss], float]:
    """Lose that many devices, one after the other; also the Controller's share of a processor meanwhile."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="p4-live-")))
        home = wiring.Home(folder / "home")
        inventory = _write_files(folder, losses + 1 + case.standby, case.workflow)
        _publish(open_publisher(home))
        _provision(home, inventory)
        if case.model:
            await asyncio.to_thread(_publish_model, home)
        broker = stack.enter_context(running_broker(folder))
        processes = await stack.enter_async_context(ProcessGroup(home.logs))
        options = LocalSiteOptions(
            home.root, folder / "inventory.yaml", (AIMS,), f"mqtt://127.0.0.1:{broker.port}"
        )
        site = LocalSite(processes, options)
        await site.start_services()
        await site.start_devices(inventory)
        stream = local.stream(home.socket, "events")
        assert isinstance(stream, AsyncGenerator)  # noqa: S101  # so that it can be closed
        watch = Watch(await stack.enter_async_context(aclosing(stream)))
        await watch.trusted(home, {device.id for device in inventory.devices})
        await local.call(
            home.socket, "deploy", workflow=os.fspath(folder / "workflow.aiw.yaml"),
            inventory=os.fspath(folder / "inventory.yaml"), aims=[os.fspath(AIMS)],
        )  # fmt: skip
        pids = site.pids()
        busy_s, began_s = cpu_s(pids["controller"]), time.monotonic()
        try:
            found = [await _lose(case, home, pids, watch) for _ in range(losses)]
        finally:
            for pid in pids.values() if case.signal is signal.SIGSTOP else ():
                os.kill(pid, signal.SIGCONT)  # so that what is frozen can end
        share = (cpu_s(pids["controller"]) - busy_s) / (time.monotonic() - began_s)
        return found, round(share, 3)


class Watch:
    """The events of a Controller, as a User Agent sees them."""

    def __init__(self, stream: AsyncIterator[dict[str, Any]]) -> None:
        self._stream = stream
        self.stages_ms: dict[str, float] = {}

    async def event(self) -> dict[str, Any]:
        event = await anext(self._stream)
        if event["type"] == "remapped" and "noticed" in event["stages_ms"]:  # not a standby's successor
            self.stages_ms |= event["stages_ms"]
        elif event["type"] == "recovered":
            self.stages_ms["first_output"] = event["first_output_ms"]
        return event

    async def result(self) -> tuple[int, int]:
        """The next number that was doubled, and when it was made (us of the wall clock).

        Raises:
            ValueError: the result is wrong.
        """
        while (event := await self.event())["type"] != "output":
            pass
        number, twice = event["value"]["number"], event["value"]["twice"]
        if twice != 2 * number:
            raise ValueError(f"{number} was doubled to {twice}")
        return number, event["origin_us"]

    async def trusted(self, home: wiring.Home, devices: set[str]) -> None:
        """Until all of these devices are."""
        known = await local.call(home.socket, "status")
        waiting = devices - {d["device"] for d in known["devices"] if d["trust"] == "trusted"}
        async with asyncio.timeout(PATIENCE_S):
            while waiting:
                event = await self.event()
                if event["type"] == "trust" and event["trust"] == "trusted":
                    waiting.discard(event["device"])


async def _lose(case: Case, home: wiring.Home, pids: dict[str, int], watch: Watch) -> Loss:
    """Lose the device under ``doubler`` while everything is steady.

    Raises:
        ValueError: a result was wrong.
    """
    last = 0
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(STEADY_RESULTS):
            last, _ = await watch.result()
        while (device := await _device_of_doubler(home, standby=case.standby)) is None:
            await watch.event()
        watch.stages_ms = {}
        lost_us, began_s = time.time_ns() // 1000, time.monotonic()
        os.kill(pids[device], case.signal)
        while True:
            number, made_us = await watch.result()
            if made_us > lost_us:  # another device has doubled it
                break
            last = number
        total_ms = (time.monotonic() - began_s) * 1000
        while not {"started", "first_output"} <= watch.stages_ms.keys():
            await watch.event()
    return Loss(device, round(total_ms, 1), number - last - 1, watch.stages_ms)


async def _device_of_doubler(home: wiring.Home, *, standby: bool) -> str | None:
    """Where ``doubler`` runs; None while a ``standby`` that is wanted is not ready."""
    (workflow,) = (await local.call(home.socket, "status"))["workflows"]
    where = {a["aim"]: a["device"] for a in workflow["placement"]["assignments"]}
    ready = workflow["devices"].get(where.get(standby_of("doubler")), {}).get("phase") == "running"
    return where["doubler"] if ready or not standby else None


def _publish_model(home: wiring.Home) -> None:
    """A model of random weights: what it says does not count, only that it has to be there."""
    import numpy as np

    from aif.authoring.int8 import build
    from aif.authoring.layers import Dense, Layer
    from aif.authoring.publication import StoredModel
    from aif.cli._publishing import hand_over_here

    rng = np.random.default_rng(0)
    shapes = ((8, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 4))
    layers: list[Layer] = [Dense(rng.normal(size=shape), rng.normal(size=shape[1])) for shape in shapes]
    model = build(layers, rng.normal(size=(20, 8)))
    stored = StoredModel("thinker", model, 4_096, 100, 1.0, 1.0, 10, ("a", "b", "c", "d"), {}, {})
    open_publisher(home).model(stored)
    hand_over_here(home)


def _write_files(folder: Path, spares: int, workflow: str) -> Inventory:
    """Workflow and inventory: one device that stays, and those that may be lost."""
    names = ["base", *(f"spare-{n}" for n in range(1, spares + 1))]
    links = "".join(
        f"  - {{id: lan-{name}, between: [base, {name}], bandwidth_bps: 100000000, latency_ms: 1}}\n"
        for name in names[1:]
    )
    devices = "".join(DEVICE.replace("NAME", name) for name in names)
    file = folder / "inventory.yaml"
    file.write_text(f"schema: 1\ninventory: {{name: p4, version: 1}}\ndevices:\n{devices}links:\n{links}")
    (folder / "workflow.aiw.yaml").write_text(workflow)
    return load_inventory(file)


def _publish(publisher: Publisher) -> None:
    publisher.runtime(wiring.PACKAGE, __version__)
    catalogue = load_catalogue([AIMS])
    for reference, contract in catalogue.items():
        publisher.aim(contract, catalogue.folder(reference))


def _provision(home: wiring.Home, inventory: Inventory) -> None:
    site = Site.open_or_create(home.site, os.urandom)
    for device in inventory.devices:
        hw_class = wiring.device_hw_class(device.board, device.arch)
        keys = wiring.identity_of(home, device.id, hw_class)
        site.provision(device.id, hw_class, home.device_state(device.id), keys, now_s=int(time.time()))


__all__ = ["Loss", "measure_live"]
