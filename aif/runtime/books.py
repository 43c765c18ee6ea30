"""The books of a workflow's sealed channels: what was sent against what was received or reported as lost.

A receiver finds its losses by what the sender's frames and watermarks say. When the last of them are lost
too, only a comparison of both ends shows it; both tell the Controller their figures.

Decides nothing else, and trusts the figures of attested devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aif.protocol.control import CONTROLLER
from aif.protocol.deployment import RemoteChannel
from aif.protocol.events import (
    AuthFailure,
    ChannelEvent,
    ChannelSilent,
    CloneSuspected,
    ForgeriesRefused,
    LossReport,
)
from aif.runtime.logbook import LogBook


@dataclass(frozen=True, slots=True)
class ChannelBook:
    """Messages of one channel at one of its consumers."""

    channel: str
    """Name: ``a.out -> b.in, c.in``."""
    device: str
    """Of the consumer."""
    sealed: int
    verified: int
    lost: int

    @property
    def unaccounted(self) -> int:
        """Sent, but neither received nor known as lost there: on their way, or lost with every word of it."""
        return max(0, self.sealed - self.verified - self.lost)


def channel_name(channel: RemoteChannel) -> str:
    """The name of a channel in figures and logs."""
    return f"{channel.source} -> {', '.join(channel.destinations)}"


def channel_books(
    channels: Mapping[bytes, RemoteChannel], metrics: Mapping[str, Mapping[str, Any]]
) -> Iterator[ChannelBook]:
    """One book per channel and consuming device.

    Args:
        channels: of the workflow's plan, by id.
        metrics: the newest figures of each device (``HostedWorkflow.metrics``).
    """
    for channel in channels.values():
        name = channel_name(channel)
        sealed = figure(metrics.get(channel.source_device, {}), "sent", name)
        for device in sorted(set(channel.destination_devices)):
            seen = metrics.get(device, {})
            verified, lost = (figure(seen, "channels", name, what) for what in ("verified", "lost"))
            yield ChannelBook(name, device, sealed, verified, lost)


def output_books(
    outputs: Mapping[str, int], metrics: Mapping[str, Mapping[str, Any]]
) -> Iterator[ChannelBook]:
    """One book per output of the workflow; its records travel on a control channel to the Controller.

    Args:
        outputs: records that came, by boundary Port.
        metrics: as for ``channel_books``.
    """
    for seen in metrics.values():
        written = seen.get("outputs")
        for name in written if isinstance(written, Mapping) else ():
            came = outputs.get(name, 0)
            yield ChannelBook(f"output {name}", CONTROLLER, figure(seen, "outputs", name), came, 0)


def figure(values: Mapping[str, Any], *path: str) -> int:
    """A figure out of a device's metrics; 0 when it is not there, or is none."""
    found: Any = values
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, int) else 0


def log_channel_event(log: LogBook, event: ChannelEvent, channel: str) -> None:
    """Say in words what a channel noticed; control frames are none of this function's business.

    Args:
        log: where to; it cuts a flood to a rate and counts it.
        event: of a ``SecureReceiver``.
        channel: topic or name, for people.
    """
    match event:
        case LossReport(messages=None):
            log.warning(
                "messages lost, how many only their sender knows",
                channel=channel, frames=event.frames, reason=str(event.reason),
            )  # fmt: skip
        case LossReport():
            log.warning(
                "messages lost",
                channel=channel, frames=event.frames, messages=event.messages, reason=str(event.reason),
            )  # fmt: skip
        case ChannelSilent():
            log.warning("channel silent", channel=channel, seconds=round(event.silent_ms / 1000, 1))
        case AuthFailure(stopped=True):
            log.error(
                "sender cannot be verified and is not heard any more",
                channel=channel, reason=str(event.cause),
            )  # fmt: skip
        case AuthFailure():
            log.warning("messages taken that cannot be verified", channel=channel, reason=str(event.cause))
        case ForgeriesRefused():
            log.warning(
                "frames refused: wrong tag or signature",
                channel=channel, frames=event.frames, flood=event.over_budget,
            )  # fmt: skip
        case CloneSuspected():
            log.warning(
                "two frames under one counter", channel=channel, counter=event.counter,
                hint="somebody replays with changes, or the sender's state was cloned or restored",
            )  # fmt: skip
