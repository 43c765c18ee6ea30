"""Which implementation may run on which device at all, judged AIM by AIM, each refusal as one sentence.

Decides needs that no other AIM can change: runtime, processor, sensors, trust, pins. Capacities are shared
and belong to ``problem``. Every refusal has a ``kind`` by which explanations group and repair it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aif.model.aim import Implementation, PlacementHint, SecurityNeed
from aif.model.aiw import Binding, LeafAIM
from aif.model.inventory import Device, Sensor
from partitioner.policy import PlanPolicy


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an implementation (all of them when empty) cannot run on a device, as a clause: 'has no …'."""

    device: str
    implementation: str
    kind: str
    text: str


def pins(hint: PlacementHint | None) -> tuple[tuple[str, str], ...]:
    """The hard pins of a hint: (kind, value)."""
    if hint is None:
        return ()
    given = (
        ("device", hint.device),
        ("class", hint.device_class),
        ("site", hint.site),
        ("zone", hint.zone),
    )
    return tuple((kind, value) for kind, value in given if value)


def device_refusals(leaf: LeafAIM, device: Device) -> Iterator[Refusal]:
    """Pins that ``device`` does not meet."""
    has = {"device": device.id, "class": device.device_class, "site": device.site, "zone": device.zone}
    for kind, wanted in pins(leaf.placement):
        if has[kind] != wanted:
            actual = "" if kind == "device" else f", this is {kind} {has[kind] or 'none'}"
            yield Refusal(device.id, "", f"{kind} pin", f"pinned to {kind} {wanted}{actual}")


def implementation_refusals(
    leaf: LeafAIM, implementation: Implementation, device: Device, policy: PlanPolicy
) -> Iterator[Refusal]:
    """Everything about one implementation that ``device`` cannot offer; one answer if it offers nothing."""
    if not device.runtimes:
        yield Refusal(device.id, "", "idle", "takes no AIMs: it is drained or away, or offers no runtime")
        return
    for kind, text in _mismatches(leaf, implementation, device, policy):
        yield Refusal(device.id, implementation.id, kind, text)


def _mismatches(
    leaf: LeafAIM, implementation: Implementation, device: Device, policy: PlanPolicy
) -> Iterator[tuple[str, str]]:
    if leaf.implementation is not None and implementation.id != leaf.implementation:
        yield "implementation pin", f"only implementation {leaf.implementation} is allowed"
    if implementation.runtime not in device.runtimes:
        offered = ", ".join(sorted(device.runtimes))
        yield "runtime", f"has no {implementation.runtime} runtime (runs {offered})"
    if not _accepts(implementation.arch, device.arch):
        yield "arch", f"is {device.arch}, built for {', '.join(implementation.arch)}"
    if not _accepts(implementation.os, device.os):
        yield "os", f"runs {device.os}, built for {', '.join(implementation.os)}"
    needs = implementation.requires
    for kind in sorted(set(needs.sensors)):
        yield from _lacks(device.sensors, "sensor", kind, needs.sensors.count(kind))
    for kind in sorted(set(needs.actuators)):
        yield from _lacks(device.actuators, "actuator", kind, needs.actuators.count(kind))
    for radio in needs.radios:
        if radio not in device.radios:
            yield "radio", f"has no {radio} radio"
    if implementation.security is not SecurityNeed.NONE and device.attestation not in policy.trusted_roots:
        root = "no attestation" if device.attestation == "none" else f"attestation {device.attestation}"
        yield "security", f"has {root}, {implementation.security} is required"


def _accepts(wanted: tuple[str, ...], offered: str) -> bool:
    return not wanted or offered == "any" or "any" in wanted or offered in wanted


def _lacks(parts: tuple[Sensor, ...], what: str, kind: str, wanted: int) -> Iterator[tuple[str, str]]:
    count = parts_of(parts, kind)
    if count < wanted:
        had = f"has no {kind}" if not count else f"has {count} {kind}, {wanted} are needed"
        yield what, f"{had} {what}"


def parts_of(parts: tuple[Sensor, ...], kind: str) -> int:
    """How many sensors or actuators of one kind may be used at once."""
    return sum(part.count for part in parts if part.kind == kind)


def rate_refusal(implementation: Implementation, device: Device, rate_hz: float) -> Refusal | None:
    """A sensor slower than the records that the AIM makes of it."""
    for kind in implementation.requires.sensors:
        for sensor in device.sensors:
            if sensor.kind == kind and sensor.rate_hz is not None and sensor.rate_hz < rate_hz:
                text = f"its {kind} gives {sensor.rate_hz:g} Hz, {rate_hz:g} Hz are needed"
                return Refusal(device.id, implementation.id, "sensor rate", text)
    return None


def binding_refusal(binding: Binding, device: Device) -> Refusal | None:
    """A boundary Port can only be where its sensor or actuator is."""
    parts = device.sensors if binding.kind == "sensor" else device.actuators
    if parts_of(parts, binding.name):
        return None
    return Refusal(device.id, "", binding.kind, f"has no {binding.name} {binding.kind}")
