"""How limits, amounts and refusals are put in words: the same in plans, rejections and explanations."""

from __future__ import annotations

from collections.abc import Sequence

from aif.model.inventory import Device
from aif.model.standby import in_words, served_by
from partitioner.problem.filters import Refusal
from partitioner.problem.parts import Item, Limit, PlacementProblem

WORDS = {
    "ram": "RAM",
    "flash": "flash",
    "cpu": "CPU",
    "storage": "storage",
    "sensor": "sensor",
    "actuator": "actuator",
    "battery": "battery power",
    "link": "bandwidth",
    "channels": "sealed channels",
    "deadline": "latency",
}
CAPACITIES = frozenset(WORDS)
"""Limits with an amount; the others are yes or no."""


MAX_NAMED = 8
"""Names in one list; a building has hundreds of devices."""


def listed(names: Sequence[str]) -> str:
    """The names, or the first of many and how many others there are."""
    if len(names) <= MAX_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} others"


def amount(limit: Limit, value: int, device: Device | None = None) -> str:
    """A value of a limit with its unit; processor time as a share of all cores of ``device``."""
    match limit.kind:
        case "ram" | "flash" | "storage":
            return f"{value:,} B"
        case "cpu":
            return f"{value / 1e4 / (device.cores if device else 1):.3g} %"
        case "battery":
            return f"{value / 1000:,.3g} mW"
        case "link":
            return f"{value / 1000:,.1f} kbit/s"
        case "deadline":
            return f"{value / 1000:,.1f} ms"
        case _:
            return str(value)


def size(bytes_: int) -> str:
    """Bytes for a reader who wants the order: ``1.4 GiB``."""
    for unit, step in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if bytes_ >= step:
            return f"{bytes_ / step:.1f} {unit}"
    return f"{bytes_} B"


def power(milliwatts: float) -> str:
    """Mean power: ``4,500 mW``, ``1.23 mW``."""
    return f"{milliwatts:,.0f} mW" if milliwatts >= 100 else f"{milliwatts:.3g} mW"


def data_rate(bps: float) -> str:
    """Bits per second: ``175 kbit/s``."""
    for unit, step in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if bps >= step:
            return f"{bps / step:.3g} {unit}"
    return f"{bps:.3g} bit/s"


def device_of(limit: Limit) -> str:
    """The device that a limit belongs to; empty for links, paths and pairs."""
    return limit.subject.split(" ")[0] if limit.kind not in ("link", "deadline") else ""


def owner(problem: PlacementProblem, limit: Limit) -> Device | None:
    """The device that a limit belongs to; None for links, paths and pairs."""
    name = device_of(limit)
    return next((device for device in problem.inventory.devices if device.id == name), None)


def what(limit: Limit) -> str:
    """Name of what is short: ``RAM``, ``storage (spiffs)``, ``imu sensor``."""
    detail = limit.subject.partition(" ")[2]
    if limit.kind in ("sensor", "actuator"):
        return f"{detail} {limit.kind}"
    if limit.kind == "storage":
        return f"storage ({detail.partition('#')[0]})"
    return WORDS.get(limit.kind, limit.kind)


def relation(limit: Limit) -> str:
    """What a pair or a Channel demands."""
    first, _, second = limit.subject.partition(" ")
    if limit.kind == "separate" and served_by(second) == first:
        return f"{first} and its standby must be on different devices"
    first, second = in_words(first), in_words(second)
    match limit.kind:
        case "colocate":
            return f"{first} and {second} must share a device"
        case "separate":
            return f"{first} and {second} must be on different devices"
        case "message":
            return (
                f"both ends of channel {limit.subject} must share a device, or be on devices "
                "that take messages as long as its shortest"
            )
        case _:
            return f"channel {limit.subject} needs a route between its devices"


def refused(item: Item, device: str) -> str:
    """Why an AIM may not run on a device: what the implementations nearest to fitting lack."""
    here = [r for r in item.refusals if r.device == device]
    whole_device = [r for r in here if not r.implementation]
    if whole_device or not here:
        return _joined(whole_device)
    codes: dict[str, list[Refusal]] = {}
    for refusal in here:
        codes.setdefault(refusal.implementation, []).append(refusal)
    nearest = min(len(refusals) for refusals in codes.values())
    by_text: dict[str, list[str]] = {}
    for code, refusals in codes.items():
        if len(refusals) == nearest:
            by_text.setdefault(_joined(refusals), []).append(code)
    if len(by_text) == 1:
        return next(iter(by_text))
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in by_text.items())


def _joined(refusals: list[Refusal]) -> str:
    return " and ".join(dict.fromkeys(r.text for r in refusals)) or "no implementation"
