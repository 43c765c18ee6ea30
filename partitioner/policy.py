"""What the operator decides about every plan: overheads, shares, trust and the weight of wishes.

Values only; the rules that use them are in ``problem`` and, written a second time, in ``checker``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aif.model.aim import Runtime
from aif.model.inventory import Device, DeviceClass
from aif.protocol.numbers import HOST_LIMITS, MCU_LIMITS, ChannelLimits

LATENCY_SCALE_US = 100_000.0
"""Objective: sum of path latencies / 100 ms."""

POWER_SCALE_MW = 1.0
"""Objective: mean power drawn from batteries / 1 mW."""

TRAFFIC_SCALE_BYTES_PER_S = 1000.0
"""Objective: bytes per second, counted once on every link they cross, / 1000."""


MIGRATION_SCALE_BYTES = 1e6
"""Objective: bytes of models and state that have to move / 10^6."""


@dataclass(frozen=True, slots=True)
class RuntimeCost:
    """What a runtime takes of a device once, however many AIMs use it."""

    ram_bytes: int = 0
    flash_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of the model that a release would install; None leaves the contract's figure."""

    bytes_: int
    arena_bytes: int | None = None


def _runtime_costs() -> dict[Runtime, RuntimeCost]:
    """Assumed until measured: interpreter and libraries; the TFLite-Micro interpreter without kernels."""
    return {
        Runtime.PYTHON: RuntimeCost(ram_bytes=16 * 2**20),
        Runtime.TFLITE: RuntimeCost(ram_bytes=8 * 2**20),
        Runtime.TFLM: RuntimeCost(ram_bytes=2 * 2**10, flash_bytes=40 * 2**10),
        Runtime.FIRMWARE: RuntimeCost(),
    }


@dataclass(frozen=True, slots=True)
class PlanPolicy:
    """Settings of the planner.

    Attributes:
        broker_device: device that runs the message broker; every remote message passes it. None: messages
            take the least-latency route between their two devices.
        runtime_costs: RAM and flash of each runtime, once per device that uses it.
        frame_overhead_bytes: added to each record on a link: 26 B AIF1 frame, about 40 B MQTT 3.1.1 header
            and topic, 40 B TCP/IPv4 header.
        channel_ram_bytes: keys, replay window and counters of one remote Channel at each of its ends;
            one frame of the Channel is charged on top.
        remote_handling_us: sealing, publishing and opening one frame.
        link_share: share (0..1) of a link's bandwidth that may be planned.
        reserve_ram_bytes: RAM kept free on each device.
        model_slots: places for each model, so that an update can be tried while the old one rests.
        route_frame_bytes: frame size for which routes are the fastest.
        trusted_roots: kinds of ``attestation`` whose Evidence is accepted for ``attested`` and ``secure``.
        affinity_penalty: objective units per soft affinity that is not met.
        battery_life_h: hours that every battery of known size has to last; None: no limit.
        host_channels: what gateways, edge boxes and cloud machines hold of sealed channels.
        mcu_channels: what microcontrollers hold of them.
    """

    broker_device: str | None = None
    runtime_costs: Mapping[Runtime, RuntimeCost] = field(default_factory=_runtime_costs)
    frame_overhead_bytes: int = 106
    channel_ram_bytes: int = 256
    remote_handling_us: int = 200
    link_share: float = 0.7
    reserve_ram_bytes: int = 0
    model_slots: int = 2
    route_frame_bytes: int = 256
    trusted_roots: frozenset[str] = frozenset({"software", "dice", "tpm", "tee"})
    affinity_penalty: float = 0.1
    battery_life_h: float | None = None
    host_channels: ChannelLimits = HOST_LIMITS
    mcu_channels: ChannelLimits = MCU_LIMITS

    def channels(self, device: Device) -> ChannelLimits:
        """What a device holds of sealed channels."""
        return self.mcu_channels if device.device_class is DeviceClass.MCU else self.host_channels

    def runtime_cost(self, runtime: Runtime | None) -> RuntimeCost:
        return RuntimeCost() if runtime is None else self.runtime_costs.get(runtime, RuntimeCost())
