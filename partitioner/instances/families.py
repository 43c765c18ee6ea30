"""Seeded instances of any size, in families that stress different limits: for benchmarks and tests.

Decides the make-up of sites, devices and workflows; the same family, size and seed give the same instance.
A site has one gateway and nine other devices on links of their own; gateways share a backbone. A workflow of
6 to 12 AIMs is at home on one site: its sources need a sensor there, its sink an actuator.

``base`` is loose: the gateways are what workflows compete for. ``tight`` has half of the RAM on
gateways and two thirds on large devices. ``slow`` has links of a quarter of the bandwidth. In ``battery``
batteries have to last for a day, and what AIMs may draw is scarce. ``chains``, ``fans`` (one AIM feeds many,
all feed the sink) and ``diamonds`` (one, two, one, two ...) differ from ``base`` in the shape of workflows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from aif.model.aim import Implementation, PlacementHint, Requirements, Runtime
from aif.model.aiw import LeafAIM, Objectives, Workflow
from aif.model.inventory import Device, DeviceClass, Energy, Inventory, Link, Sensor
from aif.model.ports import Port
from partitioner.instances.generate import Instance, input_port, leaf, output_port, workflow
from partitioner.policy import PlanPolicy

VERSION = 1
"""Changes whenever a seed would give another instance."""

FAMILIES = ("base", "tight", "slow", "battery", "chains", "fans", "diamonds")
LIFE_H = 24.0
"""How long the batteries of the family ``battery`` have to last."""

DEVICES_PER_SITE = 10
SENSORS = ("mic", "imu", "cam", "env")
PARTS = (*SENSORS, "act")
USES_PER_PART = 16
OBJECTIVES = Objectives(latency=1.0, energy=0.0034, traffic=0.025)
"""Of one workflow: 100 ms, 294 mW of battery, and 40 kB/s on a link cost the same."""

KIB = 1024
IDLE_MW = 1.0


@dataclass(frozen=True, slots=True)
class _Class:
    """Make-up of one class of devices; energies in uJ per million cycles and per byte, access in ms."""

    device_class: DeviceClass
    ram_kib: tuple[int, ...]
    flash_kib: tuple[int, ...]
    clock_mhz: tuple[int, ...]
    cycles_uj: float
    radio_uj: float
    access_ms: tuple[float, ...]
    bandwidth_bps: float
    cores: int
    day_mw: tuple[float, ...]
    """What AIMs may draw if the battery has to last for a day."""


GATEWAY = _Class(
    DeviceClass.GATEWAY, (768, 1024), (4096,), (1500,), 1333.0, 0.15, (0.3,), 40e6, 4, (180.0, 360.0)
)
LARGE = _Class(
    DeviceClass.MCU, (384, 512), (4096, 8192), (240,), 592.0, 2.9, (6.0, 10.0), 3.2e6, 2, (30.0, 60.0)
)
SMALL = _Class(
    DeviceClass.MCU, (64, 128, 256), (512, 1024), (64, 120), 222.0, 1.1, (10.0, 20.0), 480e3, 1, (10.0, 20.0)
)


def instance(family: str, aims: int, devices: int, seed: int = 0) -> Instance:
    """``aims`` AIMs in workflows of 6 to 12, to be placed on ``devices`` devices.

    Raises:
        ValueError: no such family.
    """
    if family not in FAMILIES:
        raise ValueError(f"family {family!r} is none of {', '.join(FAMILIES)}")
    rng = random.Random(f"{family} {VERSION} {aims} {devices} {seed}")  # noqa: S311  nothing secret
    sites = max(1, devices // DEVICES_PER_SITE)
    inventory = _inventory(rng, family, devices, sites)
    workflows: list[Workflow] = []
    left = aims
    while left:
        size = min(left, rng.randint(6, 10))
        if left - size in (1, 2):
            size = left
        workflows.append(_workflow(rng, family, f"W{len(workflows):03}", size, f"s{len(workflows) % sites}"))
        left -= size
    policy = PlanPolicy(battery_life_h=LIFE_H if family == "battery" else None)
    return Instance(tuple(workflows), inventory, policy, {})


def keeping_standbys(given: Instance, *, share: float, seed: int = 0) -> Instance:
    """The same instance, where each AIM that needs no sensor or actuator is kept ready with this chance."""
    rng = random.Random(f"standbys {VERSION} {seed}")  # noqa: S311  nothing secret
    workflows = []
    for one in given.workflows:
        free = [a.id for a in one.aims if a.metadata.implementations[0].requires == Requirements()]
        availability = replace(
            one.metadata.availability, standby=tuple(aim for aim in free if rng.random() < share)
        )
        workflows.append(replace(one, metadata=replace(one.metadata, availability=availability)))
    return replace(given, workflows=tuple(workflows))


def _inventory(rng: random.Random, family: str, count: int, sites: int) -> Inventory:
    drawn: list[tuple[str, _Class, int]] = []
    for number in range(count):
        made = GATEWAY if number < sites else SMALL if rng.random() < 0.6 else LARGE
        drawn.append((f"{'gw' if made is GATEWAY else 'dev'}{number}", made, number % sites))
    parts: dict[str, set[str]] = {
        name: {"act"} if made is GATEWAY else set(rng.sample(PARTS, rng.choice((1, 2))))
        for name, made, _ in drawn
    }
    for site in range(sites):  # every kind at least once per site
        there = [name for name, made, home in drawn if home == site and made is not GATEWAY]
        for kind in PARTS:
            parts[rng.choice(there or [n for n, _, home in drawn if home == site])].add(kind)
    devices: list[Device] = []
    links: list[Link] = []
    for name, made, site in drawn:
        devices.append(_device(rng, family, name, made, f"s{site}", parts[name]))
        if made is not GATEWAY:
            slower = 4.0 if family == "slow" else 1.0
            bandwidth_bps = made.bandwidth_bps / slower
            links.append(Link(f"l-{name}", (name, f"gw{site}"), bandwidth_bps, rng.choice(made.access_ms)))
    if sites > 1:
        gateways = tuple(name for name, made, _ in drawn if made is GATEWAY)
        links.append(Link("backbone", gateways, 1e9, 5.0, shared=True))
    return Inventory(f"{family}{count}", 1, tuple(devices), tuple(links))


def _device(rng: random.Random, family: str, name: str, made: _Class, site: str, parts: set[str]) -> Device:
    ram_kib, flash_kib = rng.choice(made.ram_kib), rng.choice(made.flash_kib)
    clock_mhz = rng.choice(made.clock_mhz)
    if family == "tight":
        ram_kib //= 2 if made is GATEWAY else 1
        ram_kib = ram_kib * 2 // 3 if made is LARGE else ram_kib
    battery_mwh = LIFE_H * (IDLE_MW + rng.choice(made.day_mw)) if family == "battery" else None
    return Device(
        id=name,
        device_class=made.device_class,
        board=f"{made.device_class}-{clock_mhz}",
        ram_bytes=ram_kib * KIB,
        flash_bytes=flash_kib * KIB,
        runtimes=frozenset({Runtime.TFLM}),
        instructions_per_s=clock_mhz * 1e6,
        cores=made.cores,
        sensors=tuple(Sensor(kind, count=USES_PER_PART) for kind in sorted(parts - {"act"})),
        actuators=(Sensor("act", count=USES_PER_PART),) if "act" in parts else (),
        energy=Energy(
            "battery",
            battery_mwh,
            active_mw=IDLE_MW + made.cycles_uj * clock_mhz / 1000.0,
            idle_mw=IDLE_MW,
            tx_uj_per_byte=made.radio_uj,
            rx_uj_per_byte=made.radio_uj,
        ),
        site=site,
        zone="field",
    )


def _workflow(rng: random.Random, family: str, name: str, size: int, home: str) -> Workflow:
    sources = 1 if size < 7 else 2
    rate_hz = float(rng.choice((1, 2, 5, 10)))
    codes = [_code(rng, place, size, sources) for place in range(size)]
    edges = _edges(rng, family, size, sources, rate_hz)
    hints: list[dict[str, object]] = [{} for _ in range(size)]
    for place in (*range(sources), *((size - 1,) if size > 2 else ())):
        hints[place]["site"] = home
    if size > 6 and rng.random() < 0.3:
        hints[sources + 1]["separate_from"] = (f"a{sources + 2}",)
    if size > 6 and rng.random() < 0.3:
        hints[sources]["colocate_with"] = (f"a{sources + 1}",)
    aims: list[LeafAIM] = []
    channels: list[tuple[str, str]] = []
    for place, code in enumerate(codes):
        inputs: list[Port] = []
        for number, (parent, _) in enumerate(e for e in edges if e[0][1] == place):
            inputs.append(input_port(f"x{number}", payload_bytes=0, queue_depth=1))
            channels.append((f"a{parent[0]}.y{place}", f"a{place}.x{number}"))
        outputs = [
            output_port(f"y{child}", payload_bytes=size_bytes, rate_hz=None if inputs else rate_hz)
            for (parent_place, child), size_bytes in edges
            if parent_place == place
        ]
        hint = PlacementHint(**hints[place]) if hints[place] else None  # type: ignore[arg-type]
        aims.append(leaf(f"a{place}", (code,), inputs=inputs, outputs=outputs, placement=hint))
    return workflow(name, aims, channels, objectives=OBJECTIVES)


def _code(rng: random.Random, place: int, size: int, sources: int) -> Implementation:
    requires = Requirements()
    if place < sources:
        ram_kib, flash_kib, mcycles = rng.randint(4, 16), rng.randint(8, 32), rng.uniform(0.05, 0.3)
        requires = Requirements(sensors=(rng.choice(SENSORS),))
    elif place == size - 1 and size > 2:
        ram_kib, flash_kib, mcycles = rng.randint(2, 8), rng.randint(4, 16), 0.02
        requires = Requirements(actuators=("act",))
    elif place < sources + 2:
        ram_kib, flash_kib, mcycles = rng.randint(8, 40), rng.randint(16, 64), rng.uniform(0.3, 2.0)
    else:
        ram_kib, flash_kib = rng.choice((48, 96, 160, 220, 300)), rng.choice((60, 120, 250, 450))
        mcycles = rng.uniform(0.5, 8.0)
    return Implementation(
        "code",
        Runtime.TFLM,
        ram_kib * KIB,
        entry="demo:AIM",
        flash_bytes=flash_kib * KIB,
        instructions=round(mcycles * 1e6),
        requires=requires,
    )


def _edges(
    rng: random.Random, family: str, size: int, sources: int, rate_hz: float
) -> list[tuple[tuple[int, int], int]]:
    """Channels as (parent, child) with the bytes of one record."""
    edges: dict[tuple[int, int], int] = {}
    for place in range(sources, size):
        for parent in sorted(_parents(rng, family, place, size, sources)):
            sizes = (64, 256, 1024, 4096) if parent < sources else (16, 64, 256, 1024)
            edges[parent, place] = min(rng.choice(sizes), int(4096 // rate_hz))
    connected = {parent for parent, _ in edges}
    for loose in range(size - 1):
        if loose not in connected:
            edges[loose, size - 1] = 32
    return list(edges.items())


def _parents(rng: random.Random, family: str, place: int, size: int, sources: int) -> set[int]:
    """The AIMs that one reads from."""
    first = set(range(sources))
    if family == "chains":
        return {place - 1} if place > sources else first
    if family == "fans":
        return first if place < size - 1 or size <= sources + 1 else set(range(sources, place))
    if family == "diamonds":  # in threes: one AIM, then two that read from it
        turn, middle = (place - sources) % 3, place - (place - sources) % 3
        if turn:
            return {middle}
        return {place - 2, place - 1} if place > sources else first
    earliest = max(0, place - 3)
    parents = {rng.randrange(earliest, place)}
    if rng.random() < 0.4:
        parents.add(rng.randrange(earliest, place))
    return parents | {size - 2} if place == size - 1 else parents
