"""Seeded instances and short constructors for them: for tests, examples and benchmarks.

``tiny_instance`` draws problems small enough for the exhaustive oracle but with every kind of limit: RAM,
flash, storage units, processor, sensors, trust, pins, affinity, links, broker, deadlines, releases. The
same seed gives the same instance. ``weighed_instance`` draws the same with other objectives: those that the
search leaves to the exact solver, and those that seldom count, each alone and mixed. ``standby_instance``
keeps some AIMs ready on a second device.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from aif.model.aim import (
    AIMMetadata,
    Composition,
    Implementation,
    Measurement,
    ModelRef,
    PlacementHint,
    Requirements,
    Runtime,
    SecurityNeed,
    StorageNeed,
)
from aif.model.aiw import (
    AIWMetadata,
    Binding,
    BoundaryPort,
    LeafAIM,
    Objectives,
    PathLimit,
    Workflow,
)
from aif.model.inventory import Device, DeviceClass, Energy, Inventory, Link, Sensor, StorageUnit
from aif.model.ports import AuthMode, ChannelSpec, Delivery, Direction, LocalPolicy, Port, PortRef
from aif.model.records import PortType, RecordType, min_size
from aif.model.standby import kept_ready, standby_hint, standby_of
from aif.protocol.message import HEADER
from aif.protocol.numbers import HOST_LIMITS, MCU_LIMITS, ChannelLimits
from partitioner.policy import ModelFacts, PlanPolicy, RuntimeCost
from partitioner.problem.build import build_problem
from partitioner.problem.parts import PlacementProblem

VERSION = 3
"""Changes whenever a seed would give another instance."""

BYTES = PortType(RecordType.parse("uint8[]"))


@dataclass(frozen=True, slots=True)
class Instance:
    """The arguments of ``build_problem``."""

    workflows: tuple[Workflow, ...]
    inventory: Inventory
    policy: PlanPolicy
    releases: Mapping[str, ModelFacts]
    current: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(
        self,
    ) -> tuple[tuple[Workflow, ...], Inventory, PlanPolicy, Mapping[str, ModelFacts], Mapping[str, str]]:
        """In the order in which the checker and the oracle take them."""
        return self.workflows, self.inventory, self.policy, self.releases, self.current

    def problem(self) -> PlacementProblem:
        """The placement problem."""
        return build_problem(
            self.workflows, self.inventory, self.policy, releases=self.releases, current=self.current
        )


def input_port(name: str = "x", *, payload_bytes: int = 64, queue_depth: int = 1) -> Port:
    """An input of raw bytes."""
    return Port(name, Direction.INPUT, BYTES, payload_bytes, queue_depth=queue_depth)


def output_port(name: str = "y", *, payload_bytes: int = 64, rate_hz: float | None = None) -> Port:
    """An output of raw bytes; sources state ``rate_hz``."""
    return Port(name, Direction.OUTPUT, BYTES, payload_bytes, rate_hz=rate_hz)


def leaf(
    aim_id: str,
    implementations: Sequence[Implementation],
    *,
    inputs: Sequence[Port] = (),
    outputs: Sequence[Port] = (),
    placement: PlacementHint | None = None,
    implementation: str | None = None,
    deadline_ms: float | None = None,
) -> LeafAIM:
    """A basic AIM of a workflow with its own contract."""
    name = "".join(part.capitalize() for part in aim_id.split("_"))
    contract = AIMMetadata(
        name,
        "1.0",
        "demo",
        tuple(inputs),
        tuple(outputs),
        implementations=tuple(implementations),
        deadline_ms=deadline_ms,
    )
    return LeafAIM(aim_id, contract, {}, placement, implementation)


def workflow(
    name: str,
    aims: Sequence[LeafAIM],
    channels: Sequence[tuple[str, str]],
    *,
    paths: Sequence[PathLimit] = (),
    objectives: Objectives | None = None,
    inputs: Sequence[BoundaryPort] = (),
    outputs: Sequence[BoundaryPort] = (),
) -> Workflow:
    """A workflow of ``aims`` joined by ``("a.y", "b.x")`` pairs."""
    specs = tuple(ChannelSpec(PortRef.parse(a), PortRef.parse(b)) for a, b in channels)
    metadata = AIWMetadata(
        name,
        "1.0",
        "demo",
        Composition((), specs),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        paths=tuple(paths),
        objectives=objectives or Objectives(),
    )
    return Workflow(metadata, tuple(aims), specs)


def tiny_instance(seed: int, *, max_aims: int = 4, max_devices: int = 3) -> Instance:
    """A random instance for the oracle; about half of them have a placement."""
    rng = random.Random(f"tiny {VERSION} {seed}")  # noqa: S311  seeded instances, nothing secret
    devices = tuple(_device(rng, number) for number in range(rng.randint(1, max_devices)))
    policy = PlanPolicy(
        broker_device=rng.choice(devices).id if rng.random() < 0.3 else None,
        runtime_costs={
            Runtime.PYTHON: RuntimeCost(rng.choice((0, 4000))),
            Runtime.TFLM: RuntimeCost(500, 1000),
        },
        reserve_ram_bytes=rng.choice((0, 0, 1000)),
        model_slots=rng.choice((1, 2)),
    )
    inventory = Inventory("tiny", 1, devices, _links(rng, devices))
    split = rng.random() < 0.15 and max_aims >= 2
    counts = [1, rng.randint(1, max_aims - 1)] if split else [rng.randint(1, max_aims)]
    workflows = tuple(_workflow(rng, f"W{n}", count, devices) for n, count in enumerate(counts))
    releases = {"model": ModelFacts(rng.randint(100, 5000), rng.choice((None, 900)))} if _often(rng) else {}
    return _with_extras(seed, Instance(workflows, inventory, policy, releases))


SELDOM = ("balance", "devices", "migration", "exposure")
"""Objectives that ``tiny_instance`` weighs seldom, and hardly ever alone."""


def weighed_instance(seed: int, *, max_aims: int = 4, max_devices: int = 3) -> Instance:
    """The tiny instance of ``seed`` with other objectives and, where ``migration`` counts, AIMs that run.

    Seeds take turns: only the first of ``SELDOM`` counts, only the second, third, fourth, then a mixture of
    at least two objectives of all seven.
    """
    rng = random.Random(f"weights {VERSION} {seed}")  # noqa: S311  seeded instances, nothing secret
    names = [one.name for one in fields(Objectives)]
    turn = seed % (len(SELDOM) + 1)
    counting = SELDOM[turn : turn + 1] or rng.sample(names, rng.randint(2, len(names)))
    weights = dict.fromkeys(names, 0.0) | {
        name: rng.choice((0.0001, 0.0166, 0.1, 3.0, 20.0)) for name in counting
    }
    instance = tiny_instance(seed, max_aims=max_aims, max_devices=max_devices)
    instance = replace(instance, workflows=_weighing(instance.workflows, **weights))
    return _running(rng, instance) if weights["migration"] else instance


def measured_instance(seed: int) -> Instance:
    """The tiny instance of ``seed`` at run time: some devices are slow to reach, some batteries are low."""
    rng = random.Random(f"measured {VERSION} {seed}")  # noqa: S311  seeded instances, nothing secret
    instance = tiny_instance(seed)
    devices = tuple(
        replace(
            device,
            delay_ms=rng.choice((0.0, 0.5, 7.3, 120.0)),
            energy=replace(device.energy, price=rng.choice((1.0, 4.0))),
        )
        for device in instance.inventory.devices
    )
    return replace(instance, inventory=replace(instance.inventory, devices=devices))


def standby_instance(seed: int) -> Instance:
    """The weighed instance of ``seed`` with at least two devices and one or two AIMs kept ready twice.

    These are not pinned to a device, since nobody else could take over there.
    """
    rng = random.Random(f"standby {VERSION} {seed}")  # noqa: S311  seeded instances, nothing secret
    instance = weighed_instance(seed, max_aims=3)
    devices = instance.inventory.devices
    if len(devices) < 2:
        devices = (*devices, replace(_device(rng, 1), id="d1"))
        link = _link(rng, "added", ("d0", "d1"))
        inventory = replace(instance.inventory, devices=devices, links=(*instance.inventory.links, link))
        instance = replace(instance, inventory=inventory)
    workflows = []
    for one in instance.workflows:
        named = tuple(rng.sample([leaf.id for leaf in one.aims], min(len(one.aims), rng.randint(1, 2))))
        workflows.append(_wanting(one, named))
    instance = replace(instance, workflows=tuple(workflows))
    if not instance.current:
        return instance
    prefix = "{}/" if len(workflows) > 1 else ""
    keys = [standby_of(prefix.format(w.name) + leaf.id) for w in workflows for leaf in kept_ready(w)]
    there = {key: rng.choice(devices).id for key in keys if _often(rng)}
    return replace(instance, current={**instance.current, **there})


def _wanting(workflow: Workflow, standby: tuple[str, ...]) -> Workflow:
    """The same workflow with these AIMs kept ready, and not pinned to a device."""
    aims = tuple(
        replace(leaf, placement=standby_hint(leaf.placement)) if leaf.id in standby else leaf
        for leaf in workflow.aims
    )
    availability = replace(workflow.metadata.availability, standby=standby)
    return replace(workflow, aims=aims, metadata=replace(workflow.metadata, availability=availability))


def sealed_instance(seed: int) -> Instance:
    """The tiny instance of ``seed`` on devices that hold few channels and short messages.

    Some Channels are acknowledged, sealed everywhere, or have keys of their own.
    """
    rng = random.Random(f"sealed {VERSION} {seed}")  # noqa: S311  seeded instances, nothing secret
    instance = tiny_instance(seed)
    least = HEADER.size + min_size(BYTES.record)
    policy = replace(
        instance.policy,
        mcu_channels=_holding(rng, MCU_LIMITS, least),
        host_channels=_holding(rng, HOST_LIMITS, least),
    )
    workflows = []
    for w in instance.workflows:
        channels = tuple(_sealing(rng, channel) for channel in w.channels)
        workflows.append(replace(w, channels=channels))
    return replace(instance, policy=policy, workflows=tuple(workflows))


def _holding(rng: random.Random, limits: ChannelLimits, least_bytes: int) -> ChannelLimits:
    longest = rng.choice((limits.max_message_bytes, limits.max_message_bytes, least_bytes, least_bytes - 1))
    return replace(limits, max_channels=rng.choice((1, 2, 3, 32)), max_message_bytes=longest)


def _sealing(rng: random.Random, channel: ChannelSpec) -> ChannelSpec:
    if channel.source.at_boundary or channel.destination.at_boundary:
        return channel
    return rng.choice(
        (
            channel,
            channel,
            replace(channel, delivery=Delivery.ACKNOWLEDGED),
            replace(channel, local=LocalPolicy.SEALED),
            replace(channel, auth=AuthMode.AEAD),
        )
    )


def _weighing(workflows: Sequence[Workflow], **weights: float) -> tuple[Workflow, ...]:
    """The same workflows with these weights; objectives that are not named keep theirs."""
    return tuple(
        replace(w, metadata=replace(w.metadata, objectives=replace(w.metadata.objectives, **weights)))
        for w in workflows
    )


def _running(rng: random.Random, instance: Instance) -> Instance:
    """The same with most AIMs on some device already."""
    prefix = "{}/" if len(instance.workflows) > 1 else ""
    keys = [prefix.format(w.name) + a.id for w in instance.workflows for a in w.aims]
    current = {key: rng.choice(instance.inventory.devices).id for key in keys if _often(rng, 0.8)}
    return replace(instance, current=current)


def _with_extras(seed: int, instance: Instance) -> Instance:
    """Batteries that have to last, and AIMs that run somewhere already."""
    rng = random.Random(f"extras {VERSION} {seed}")  # noqa: S311  seeded instances, nothing secret
    devices = instance.inventory.devices
    if _often(rng, 0.25):
        sizes = [rng.choice((None, 20.0, 40.0, 200.0)) for _ in devices]
        devices = tuple(
            replace(device, energy=replace(device.energy, battery_mwh=size))
            for device, size in zip(devices, sizes, strict=True)
        )
        policy = replace(instance.policy, battery_life_h=rng.choice((5.0, 10.0)))
        inventory = replace(instance.inventory, devices=devices)
        instance = replace(instance, policy=policy, inventory=inventory)
    instance = _with_few_devices(seed, instance)
    if not _often(rng, 0.25):
        return instance
    weight = rng.choice((0.5, 20.0))
    moving = _weighing(instance.workflows, migration=weight)
    return _running(rng, replace(instance, workflows=moving))


def _with_few_devices(seed: int, instance: Instance) -> Instance:
    """Now and then, a price on every device that runs an AIM."""
    rng = random.Random(f"devices {VERSION} {seed}")  # noqa: S311  seeded instances, nothing secret
    if not _often(rng, 0.2):
        return instance
    weight = rng.choice((0.1, 5.0))
    return replace(instance, workflows=_weighing(instance.workflows, devices=weight))


def _often(rng: random.Random, share: float = 0.5) -> bool:
    return rng.random() < share


def _device(rng: random.Random, number: int) -> Device:
    small = number > 0 and _often(rng, 0.7)
    units = [StorageUnit("internal_flash", rng.choice((2000, 20_000)))] if _often(rng, 0.4) else []
    if _often(rng, 0.4):
        units.append(StorageUnit("spiffs", rng.choice((4000, 50_000))))
    return Device(
        id=f"d{number}",
        device_class=DeviceClass.MCU if small else rng.choice((DeviceClass.GATEWAY, DeviceClass.EDGE)),
        board=rng.choice(("board-a", "board-b")),
        ram_bytes=rng.choice((8000, 20_000, 40_000, 60_000)),
        flash_bytes=rng.choice((8000, 30_000, 60_000)) if small else rng.choice((0, 0, 30_000)),
        runtimes=frozenset(rng.sample((Runtime.PYTHON, Runtime.TFLM), 1 if _often(rng, 0.1) else 2)),
        arch=rng.choice(("armv7e-m", "armv7e-m", "any")) if small else "aarch64",
        os="none" if small else "Linux",
        instructions_per_s=rng.choice((2e7, 1e8, 1e8, None)),
        dmips=rng.choice((50.0, 200.0, None)),
        macs_per_s=rng.choice((1e7, None)),
        cores=1 if small else rng.choice((1, 2)),
        storage=tuple(units),
        sensors=(Sensor("imu", rng.choice((None, 5.0, 100.0))),) if _often(rng, 0.7) else (),
        actuators=(Sensor("led"),) if _often(rng, 0.7) else (),
        energy=Energy("battery" if small else "mains", None, 30.0, 2.0, rng.choice((0.0, 4.0)), 2.0),
        attestation=rng.choice(("dice", "dice", "dice", "none")),
        zone=rng.choice(("wrist", "room")),
    )


def _links(rng: random.Random, devices: tuple[Device, ...]) -> tuple[Link, ...]:
    ids = [device.id for device in devices]
    links: list[Link] = []
    if len(ids) > 1 and _often(rng, 0.6):
        links.append(_link(rng, "air", tuple(ids), shared=True))
    for a, b in ((0, 1), (1, 2), (0, 2)):
        if b < len(ids) and _often(rng, 0.6):
            links.append(_link(rng, f"wire{a}{b}", (ids[a], ids[b]), directed=_often(rng, 0.15)))
    return tuple(links)


def _link(
    rng: random.Random, name: str, members: tuple[str, ...], *, shared: bool = False, directed: bool = False
) -> Link:
    bandwidth = rng.choice((9600.0, 115_200.0, 1e6))
    loss = rng.choice((0.0, 0.02))
    latency = rng.choice((1.0, 4.0, 10.0))
    return Link(name, members, bandwidth, latency, loss, shared=shared, directed=directed)


def _workflow(rng: random.Random, name: str, count: int, devices: tuple[Device, ...]) -> Workflow:
    rate = rng.choice((1.0, 10.0))
    aims: list[LeafAIM] = []
    channels: list[tuple[str, str]] = []
    inputs: tuple[BoundaryPort, ...] = ()
    if _often(rng, 0.2):
        port = Port("Wave", Direction.INPUT, BYTES, 200, rate_hz=rate)
        inputs = (BoundaryPort(port, Binding("sensor", "imu") if _often(rng) else None),)
    for number in range(count):
        ports: tuple[Port, ...] = ()
        if number or inputs:
            ports = (input_port(payload_bytes=256, queue_depth=rng.choice((1, 4))),)
            channels.append((f"a{rng.randrange(number)}.y" if number else "aiw.Wave", f"a{number}.x"))
        if number >= 2 and _often(rng, 0.3):
            ports += (input_port("z"),)
            channels.append((f"a{rng.randrange(number)}.y", f"a{number}.z"))
        out = output_port(payload_bytes=rng.choice((20, 200)), rate_hz=None if ports else rate)
        codes = [_implementation(rng, code) for code in ("one", "two")[: rng.randint(1, 2)]]
        hint = _hint(rng, number, count, devices) if _often(rng, 0.2) else None
        pinned = "one" if _often(rng, 0.1) else None
        late = rng.choice((None, None, None, 60.0))
        aims.append(
            leaf(
                f"a{number}",
                codes,
                inputs=ports,
                outputs=(out,),
                placement=hint,
                implementation=pinned,
                deadline_ms=late,
            )
        )
    paths: list[PathLimit] = []
    if channels and _often(rng, 0.6):
        feeding = {destination: source for source, destination in channels}
        end = channels[-1][1]
        source = feeding[end]
        while _often(rng, 0.8) and (before := f"{source.partition('.')[0]}.x") in feeding:
            source = feeding[before]
        limit_ms, percentile = rng.choice((30.0, 90.0, 900.0)), rng.choice((0.5, 0.99))
        paths.append(PathLimit("p", PortRef.parse(source), PortRef.parse(end), limit_ms, percentile))
    weights = Objectives(
        latency=rng.choice((0.0, 1.0, 1.0)),
        energy=rng.choice((0.0, 2.0)),
        traffic=rng.choice((0.0, 0.5)),
        balance=rng.choice((0.0, 0.0, 3.0)),
        exposure=rng.choice((0.0, 0.1)),
    )
    return workflow(name, aims, channels, paths=paths, objectives=weights, inputs=inputs)


def _implementation(rng: random.Random, name: str) -> Implementation:
    runtime = rng.choice((Runtime.PYTHON, Runtime.TFLM))
    arena = rng.choice((0, 1000))
    has_model = runtime is Runtime.TFLM or _often(rng, 0.2)
    rows = [Measurement(b, rng.choice((800.0, 9000.5)), "board") for b in ("board-a",) if _often(rng)]
    if _often(rng, 0.2):
        rows.append(Measurement("board-b", 3000.0, "board", 7000.0, 50.0))
    return Implementation(
        id=name,
        runtime=runtime,
        ram_bytes=arena + rng.choice((500, 3000, 6000)),
        entry="demo:AIM",
        model=ModelRef("model", bytes_=rng.choice((None, 800, 6000))) if has_model else None,
        arch=("armv7e-m",) if _often(rng, 0.1) else (),
        os=("Linux",) if _often(rng, 0.1) else (),
        arena_bytes=arena,
        flash_bytes=rng.choice((0, 2000, 5000)),
        instructions=rng.choice((100_000, 2_000_000)),
        mac_count=rng.choice((None, 50_000)),
        measured=tuple(rows),
        requires=Requirements(
            sensors=("imu",) if _often(rng, 0.1) else (),
            actuators=("led",) if _often(rng, 0.1) else (),
            storage=StorageNeed(3000, rng.choice((None, "spiffs"))) if _often(rng, 0.1) else None,
        ),
        security=rng.choice((SecurityNeed.NONE, SecurityNeed.NONE, SecurityNeed.ATTESTED)),
    )


def _hint(rng: random.Random, number: int, count: int, devices: tuple[Device, ...]) -> PlacementHint:
    other = (f"a{rng.choice([n for n in range(count) if n != number])}",) if count > 1 else ()
    strength = rng.choice(("soft", "hard"))
    match rng.randrange(5):
        case 0:
            return PlacementHint(zone=rng.choice(("wrist", "room")))
        case 1:
            return PlacementHint(device=rng.choice(devices).id)
        case 2:
            return PlacementHint(device_class=rng.choice(("mcu", "gateway")))
        case 3:
            return PlacementHint(colocate_with=other, strength=strength)
        case _:
            return PlacementHint(separate_from=other, strength=strength)
