"""The figures that one device reports about its part of a workflow.

Decides what of a metrics message is believed. Does not decide how devices are added up (``run_record``).

Invariant: any shape can be read; histograms hold only buckets that exist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aif.gateway.event_fields import count, entries, mapping, text
from aif.runtime.host.platform import Usage
from aif.runtime.metrics import MAX_BUCKET, Histogram


@dataclass(frozen=True, slots=True)
class AIMFigures:
    """What one AIM instance did; ``waiting`` are records at its inputs."""

    invocations: int
    process_us: Histogram
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """What arrived over one sealed channel; latency is from the sender's write to delivery.

    ``troubles`` counts what did not arrive as it should: ``lost`` messages, and frames by the cause of their
    refusal.
    """

    records: int
    latency_us: Histogram
    troubles: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MessageCounts:
    """Messages between devices, in both directions."""

    sealed: int = 0
    verified: int = 0
    rejected: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class DeviceMetrics:
    """The newest figures of one device. ``usage`` is None until it reported its budgets.

    ``channels`` are those that it reads, ``sent`` the messages it sealed on those that it writes.
    """

    aims: Mapping[str, AIMFigures]
    channels: Mapping[str, ChannelFigures]
    messages: MessageCounts
    usage: Usage | None
    control: Mapping[str, int] = field(default_factory=dict)
    """What went wrong with grants and control messages there, by cause."""
    sent: Mapping[str, int] = field(default_factory=dict)
    acknowledged: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Figures of acknowledged channels, of whichever end is there."""


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """One new histogram of all of them."""
    whole = Histogram()
    for histogram in histograms:
        whole.merge(histogram)
    return whole


def read_metrics(values: Mapping[str, Any]) -> DeviceMetrics:
    """Figures as a device sends them (``runtime.hosted``); what has another form reads as none."""
    messages, usage = mapping(values.get("messages")), mapping(values.get("usage"))
    sending = {name: _counts(causes) for name, causes in entries(values.get("sending"))}
    return DeviceMetrics(
        {
            name: AIMFigures(
                count(mapping(seen).get("invocations")),
                _histogram(mapping(seen).get("process_us")),
                count(mapping(seen).get("waiting")),
            )
            for name, seen in entries(values.get("aims"))
        },
        {name: ChannelFigures(0, Histogram(), causes) for name, causes in sending.items()}
        | {
            name: ChannelFigures(
                count(mapping(seen).get("records")),
                _histogram(mapping(seen).get("latency_us")),
                Counter(_troubles(mapping(seen))) + Counter(sending.get(name)),
            )
            for name, seen in entries(values.get("channels"))
        },
        MessageCounts(*(count(messages.get(name)) for name in ("sealed", "verified", "rejected", "lost"))),
        Usage(*(count(usage.get(name)) for name in ("ram", "ram_limit", "flash", "flash_limit", "arena")))
        if usage
        else None,
        _counts(values.get("control")),
        {name: count(sealed) for name, sealed in entries(values.get("sent"))},
        {name: _counts(seen) for name, seen in entries(values.get("acknowledged"))},
    )


def _troubles(seen: Mapping[str, Any]) -> dict[str, int]:
    return _counts({"lost": seen.get("lost")}) | _counts(seen.get("causes"))


def _counts(seen: object) -> dict[str, int]:
    return {text(name): count(n) for name, n in entries(seen) if count(n)}


def _histogram(value: object) -> Histogram:
    """Buckets by number; their keys are texts after a journey through JSON."""
    buckets: dict[int, int] = {}
    for key, seen in mapping(value).items():
        bucket = (
            int(key) if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 6 else key
        )
        if isinstance(bucket, int) and 0 <= bucket <= MAX_BUCKET and count(seen):
            buckets[bucket] = count(seen)
    return Histogram(buckets)
