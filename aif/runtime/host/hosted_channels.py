"""The ends of one workflow's sealed channels on this device: records out, records in, the end of a stream.

Encodes what leaves and decodes what comes; the Communication Service seals and opens. Without a connection to
the broker, or without a key, an AIM that writes to another device waits, and so does the end of its stream;
neither is sent into the void.

Decides nothing about which channels there are nor who reads them: ``hosted`` opens and closes them, and says
where a record goes whose channel was closed while it waited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aif.errors import (
    AIFError,
    GrantExhausted,
    MessageTooLarge,
    NotConnected,
    QueueFull,
    TransportError,
)
from aif.model.codec import BatchCodec, compile_batches
from aif.model.ports import Port, PortRef
from aif.protocol import message
from aif.protocol.deployment import RemoteChannel
from aif.protocol.events import ChannelEvent, ControlReceived
from aif.protocol.numbers import ControlCode
from aif.runtime.books import channel_name, log_channel_event
from aif.runtime.clock import Clock
from aif.runtime.host.acknowledged_channels import AcknowledgedChannels, sealed_channel
from aif.runtime.host.ports import Deliver, InputPort
from aif.runtime.logbook import LogBook
from aif.runtime.metrics import ChannelMetrics
from aif.trusted.communication import CommunicationService, SecureReceiver, SecureSender

CONNECTION_POLL_S = 0.05


@dataclass(slots=True)
class RemoteInput:
    """The receiving end of one sealed channel: decoded records go to these ports."""

    channel: RemoteChannel
    codec: BatchCodec
    ports: list[InputPort]
    metrics: ChannelMetrics


class HostedChannels:
    """Sealed channels with an end here.

    Args:
        device: this one.
        communication: seals and opens.
        clock: of the device.
        log: for what channels notice.
        connected: whether the broker can be reached.
        route: how a record gets from an output to an input now; None when that is not known here.
        on_end: told that a stream between an output and an input here has ended; more than once, it may be.
    """

    def __init__(
        self,
        device: str,
        communication: CommunicationService,
        *,
        clock: Clock,
        log: LogBook,
        connected: Callable[[], bool],
        route: Callable[[str, str], Deliver | None],
        on_end: Callable[[str, str], None],
    ) -> None:
        self.inputs: dict[bytes, RemoteInput] = {}
        self._device, self._communication = device, communication
        self._clock, self._log, self._connected = clock, log, connected
        self._route, self._on_end = route, on_end
        self._receivers: dict[bytes, SecureReceiver] = {}
        self._senders: dict[bytes, SecureSender] = {}
        self._sources: dict[bytes, str] = {}
        """The AIM behind each sender."""
        self._unfinished: list[SecureSender] = []
        self.acknowledged = AcknowledgedChannels(communication, clock=clock, log=log, can_send=self._can_send)
        """Those among them that are acknowledged; opened and closed like the others."""

    @property
    def receivers(self) -> list[SecureReceiver]:
        return [*self._receivers.values(), *self.acknowledged.receivers]

    # --- opening and closing -----------------------------------------------------------------------

    def open_output(self, channel: RemoteChannel, port: Port, *, ended: bool) -> Deliver:
        """How records of an output here enter a channel, which is opened unless it is open.

        Args:
            channel: begins on this device.
            port: the output.
            ended: whether its AIM is over, so that a channel that is opened has only that to say.
        """
        sender = self._senders.get(channel.channel_id)
        if sender is None:
            sender = self._communication.open_sender(sealed_channel(channel))
            self._senders[channel.channel_id] = sender
            self._sources[channel.channel_id] = PortRef.parse(channel.source).aim
            if ended:
                self._unfinished.append(sender)
        return self._delivery(channel, port, sender)

    def open_input(self, channel: RemoteChannel, ports: list[InputPort]) -> None:
        """Let records of a channel into these ports; it is opened unless it is open."""
        known = self.inputs.get(channel.channel_id)
        if known is not None:
            known.channel, known.ports = channel, ports
            return
        port = ports[0].port
        codec = compile_batches(
            port.type.record, lead_bytes=message.HEADER.size, payload_bytes=port.payload_bytes,
            label=channel.destinations[0],
        )  # fmt: skip
        entry = RemoteInput(channel, codec, ports, ChannelMetrics())
        self.inputs[channel.channel_id] = entry
        self._receivers[channel.channel_id] = self._communication.open_receiver(
            sealed_channel(channel),
            lambda payloads: self._arrived(entry, payloads),
            lambda event: self._noticed(entry, event),
        )

    def close(self, channel_id: bytes) -> None:
        """Forget a channel; harmless when it is not open."""
        sender = self._senders.pop(channel_id, None)
        self._sources.pop(channel_id, None)
        self._unfinished = [waiting for waiting in self._unfinished if waiting is not sender]
        self._receivers.pop(channel_id, None)
        self.inputs.pop(channel_id, None)
        self.acknowledged.close(channel_id)

    def keyed(self, channels: Iterable[RemoteChannel]) -> bool:
        return all(self._communication.keyed(channel.channel_id) for channel in channels)

    # --- records on their way ----------------------------------------------------------------------

    def _delivery(self, channel: RemoteChannel, port: Port, sender: SecureSender) -> Deliver:
        end = channel.source
        codec = compile_batches(
            port.type.record, lead_bytes=message.HEADER.size, payload_bytes=port.payload_bytes, label=end
        )

        async def deliver(values: Sequence[Any], t_us: int) -> None:
            payloads = codec.encode_all(message.header(t_us, self._clock.time_us()), values)
            # the record waits here, and with it the AIM, until the connection is back: a frame that is sealed
            # and not sent would count as lost
            while True:
                if self._senders.get(channel.channel_id) is not sender:
                    return await self._redirect(channel, values, t_us)
                if not self._can_send(sender):
                    await self._clock.sleep(CONNECTION_POLL_S)
                    continue
                try:
                    return sender.send_all(payloads)
                except GrantExhausted:
                    await self._clock.sleep(CONNECTION_POLL_S)  # so does the record until the next grant
                except NotConnected:
                    return None  # lost in this very moment; the next watermark says so
                except MessageTooLarge as error:
                    raise MessageTooLarge(f"{end}: {error}", hint=error.hint) from error
                except TransportError as full:
                    raise QueueFull(f"{end}: {full}", hint="send less often, or bundle more") from full

        return deliver

    async def _redirect(self, channel: RemoteChannel, values: Sequence[Any], t_us: int) -> None:
        """The channel was closed while a record waited for it: its readers are elsewhere now."""
        routes = (self._route(channel.source, end) for end in channel.destinations)
        for deliver in dict.fromkeys(route for route in routes if route is not None):
            await deliver(values, t_us)

    def _arrived(self, entry: RemoteInput, payloads: Sequence[bytes]) -> None:
        """Deliver the messages of one frame; of those that are wrong only the wrong ones are refused."""
        try:
            found = [
                (origin_us, sent_us, entry.codec.decode_all(run))
                for origin_us, sent_us, run in message.runs(payloads)
            ]
        except AIFError as error:
            if len(payloads) > 1:
                for payload in payloads:
                    self._arrived(entry, [payload])
                return
            entry.metrics.invalid += 1
            self._log.warning(
                "record refused", channel=entry.channel.topic, code=error.code, reason=str(error)
            )
            return
        now_us = self._clock.time_us()
        for origin_us, sent_us, values in found:
            entry.metrics.records += len(values)
            entry.metrics.latency_us.add(max(1, now_us - sent_us), len(values))
            entry.metrics.age_us.add(max(1, now_us - origin_us), len(values))
            for port in entry.ports:
                port.offer_all(values, origin_us)

    def _noticed(self, entry: RemoteInput, event: ChannelEvent) -> None:
        if isinstance(event, ControlReceived) and event.code is ControlCode.END_OF_STREAM:
            ends = zip(entry.channel.destinations, entry.channel.destination_devices, strict=True)
            for end, device in ends:
                if device == self._device:
                    self._on_end(entry.channel.source, end)
        else:
            log_channel_event(self._log, event, entry.channel.topic)

    # --- the end of a stream -----------------------------------------------------------------------

    def finish(self, aim_id: str) -> None:
        """An AIM here will write nothing more: its readers elsewhere are to hear of it."""
        self._unfinished += [
            sender for channel_id, sender in self._senders.items() if self._sources[channel_id] == aim_id
        ]
        self.send_ends()

    def send_ends(self) -> None:
        """Say that streams have ended; what cannot be said without a connection waits for the next call."""
        for sender in list(filter(self._can_send, self._unfinished)):
            try:
                sender.finish()
            except NotConnected:
                return
            except AIFError as error:
                self._log.warning("end of stream not sent", channel=sender.channel.topic, reason=str(error))
            self._unfinished.remove(sender)

    def _can_send(self, sender: SecureSender) -> bool:
        return sender.keyed and (sender.channel.within_host or self._connected())

    # --- figures -----------------------------------------------------------------------------------

    def metrics(self, channels: Sequence[RemoteChannel]) -> dict[str, Any]:
        """Figures of these channels: plain values with short names."""
        figures = self._communication.statistics
        received = {}
        mine = [(entry.channel, entry.metrics) for entry in self.inputs.values()]
        for channel, arrivals in (*mine, *self.acknowledged.arrivals()):
            seen = figures({channel.channel_id})
            received[channel_name(channel)] = {
                "records": arrivals.records,
                "invalid": arrivals.invalid,
                "verified": seen.verified_messages,
                "lost": seen.lost_messages,
                "causes": dict(seen.causes),
                "latency_us": arrivals.latency_us.plain(),
                "age_us": arrivals.age_us.plain(),
            }
        sent = {
            channel_name(c): figures({c.channel_id}).sealed_messages
            for c in channels
            if c.source_device == self._device and not c.returns
        }
        sending = {
            channel_name(c): dict(causes)
            for c in channels
            if (sender := self._senders.get(c.channel_id)) and (causes := sender.statistics().causes)
        }
        seen = figures({c.channel_id for c in channels})
        messages = {
            "sealed": seen.sealed_messages, "frames": seen.sealed_frames, "verified": seen.verified_messages,
            "rejected": seen.rejected_frames, "lost": seen.lost_messages, "causes": dict(seen.causes),
        }  # fmt: skip
        return {
            "channels": received, "sent": sent, "sending": sending, "messages": messages,
            "acknowledged": self.acknowledged.metrics(),
        }  # fmt: skip
