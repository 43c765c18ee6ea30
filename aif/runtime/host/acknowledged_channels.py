"""The acknowledged channels of one workflow on this device, over changes of its mapping.

Opens and closes the sealed channels below them, one for messages and one for acknowledgements each; within a
host both go straight from one end to the other. A channel that is closed and opened again, because an end of
it went elsewhere, keeps its outbox as long as the AIM behind it stays.

Decides nothing about messages: that is ``acknowledged``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from aif.model.ports import Port, PortRef
from aif.protocol.bundle import BundlePolicy
from aif.protocol.deployment import Acknowledged, Deployment, RemoteChannel
from aif.runtime.books import channel_name, log_channel_event
from aif.runtime.clock import Clock
from aif.runtime.host.acknowledged import AcknowledgedInput, AcknowledgedOutput, AcknowledgedWork
from aif.runtime.host.ports import Deliver, InputPort
from aif.runtime.logbook import LogBook
from aif.runtime.metrics import ChannelMetrics
from aif.trusted.communication import CommunicationService, SealedChannel, SecureReceiver, SecureSender

SETTLE_MS = 1_000.0
"""Time that an origin which leaves has to hear that its messages are done with."""

SETTLE_POLL_S = 0.02


class AcknowledgedChannels:
    """Acknowledged channels with an end here.

    Args:
        communication: seals and opens.
        clock: of the device.
        log: for what channels notice.
        can_send: whether a sealed channel takes anything at present.
    """

    def __init__(
        self,
        communication: CommunicationService,
        *,
        clock: Clock,
        log: LogBook,
        can_send: Callable[[SecureSender], bool],
    ) -> None:
        self._communication, self._clock, self._log, self._can_send = communication, clock, log, can_send
        self._works: dict[str, AcknowledgedWork] = {}
        self._outputs: dict[bytes, AcknowledgedOutput] = {}
        self._inputs: dict[bytes, AcknowledgedInput] = {}
        """Both by the channel of the messages."""
        self._senders: dict[bytes, SecureSender] = {}
        self._receivers: dict[bytes, SecureReceiver] = {}

    @property
    def receivers(self) -> list[SecureReceiver]:
        return list(self._receivers.values())

    def work(self, aim_id: str, deployment: Deployment, state_bytes: int | None) -> AcknowledgedWork | None:
        """A new instance of an AIM begins; None where no acknowledged channel ends or begins at it."""
        mine = [c for c in deployment.remote_channels if c.acknowledged and not c.acknowledged.returns]
        consumes = any(PortRef.parse(c.destinations[0]).aim == aim_id for c in mine)
        if not consumes and not any(PortRef.parse(c.source).aim == aim_id for c in mine):
            return None
        made = AcknowledgedWork(
            aim_id, deployment.mapping_version, consumes=consumes, state_bytes=state_bytes
        )
        self._works[aim_id] = made
        return made

    # --- opening and closing -----------------------------------------------------------------------

    def open_output(self, channel: RemoteChannel, terms: Acknowledged, port: Port) -> Deliver:
        """How records of an output here enter a channel, which is opened unless it is open."""
        output = self._outputs.get(channel.channel_id)
        if output is None:
            work = self._works[PortRef.parse(channel.source).aim]
            output = self._outputs[channel.channel_id] = AcknowledgedOutput(
                channel, terms, port, work, clock=self._clock, can_send=self._can_send
            )
        output.attach(channel, self._sender(channel))
        return output.write

    def open_input(self, channel: RemoteChannel, terms: Acknowledged, port: InputPort) -> None:
        """Let messages of a channel into a port; it is opened unless it is open."""
        entry = self._inputs.get(channel.channel_id)
        if entry is None:
            work = self._works[PortRef.parse(channel.destinations[0]).aim]
            entry = self._inputs[channel.channel_id] = AcknowledgedInput(
                channel, terms, port, work, clock=self._clock, log=self._log, can_send=self._can_send
            )
        entry.channel = channel
        self._receive(channel, entry.arrived)

    def open_return(self, channel: RemoteChannel, terms: Acknowledged, device: str) -> None:
        """Open the way of acknowledgements; the channel itself was opened before."""
        if channel.source_device == device:
            self._inputs[terms.other].attach(self._sender(channel))
        if channel.destination_devices == (device,):
            self._receive(channel, self._outputs[terms.other].hear)

    def _sender(self, channel: RemoteChannel) -> SecureSender:
        sender = self._senders.get(channel.channel_id)
        if sender is None:
            sender = self._communication.open_sender(sealed_channel(channel))
            self._senders[channel.channel_id] = sender
        return sender

    def _receive(self, channel: RemoteChannel, deliver: Callable[[Any], None]) -> None:
        if channel.channel_id not in self._receivers:
            self._receivers[channel.channel_id] = self._communication.open_receiver(
                sealed_channel(channel),
                deliver,
                lambda event: log_channel_event(self._log, event, channel.topic),
            )

    def close(self, channel_id: bytes) -> None:
        """Close a sealed channel; what waits to be sent over it stays until its AIM goes."""
        sender = self._senders.pop(channel_id, None)
        for output in self._outputs.values():
            output.detach(sender)
        for entry in self._inputs.values():
            entry.detach(sender)
        self._receivers.pop(channel_id, None)
        self._communication.close(channel_id)

    def forget(self, aims: Collection[str]) -> None:
        """These AIMs are not here any more, nor is what they had not been told to be done with."""
        self._outputs = {i: o for i, o in self._outputs.items() if o.work.aim_id not in aims}
        self._inputs = {i: e for i, e in self._inputs.items() if e.work.aim_id not in aims}
        for aim in aims:
            self._works.pop(aim, None)

    def keep(self, deployment: Deployment) -> None:
        """Of what stays here, only channels of this deployment still have a consumer."""
        named = {channel.channel_id for channel in deployment.remote_channels}
        for channel_id in self._outputs.keys() - named:
            self._outputs.pop(channel_id).give_up()

    # --- life --------------------------------------------------------------------------------------

    def over(self, aim_id: str) -> None:
        """An AIM has come to its end here, and goes on nowhere."""
        work = self._works.get(aim_id)
        if work is not None:
            work.over()

    def poll(self) -> None:
        """Send and acknowledge what is due. Call many times a second."""
        for output in list(self._outputs.values()):
            output.poll()
        for entry in list(self._inputs.values()):
            entry.poll()

    async def settle(self, aims: Collection[str]) -> None:
        """Give what these AIMs have sent by themselves, as origins, a moment to be done with.

        What others have sent is made again by whoever goes on in their place.
        """
        works = [work for aim in aims if (work := self._works.get(aim)) is not None and not work.consumes]
        until_ms = self._clock.monotonic_ms() + SETTLE_MS
        while any(work.kept for work in works) and self._clock.monotonic_ms() < until_ms:
            self.poll()
            await self._clock.sleep(SETTLE_POLL_S)

    # --- figures -----------------------------------------------------------------------------------

    def arrivals(self) -> Iterable[tuple[RemoteChannel, ChannelMetrics]]:
        """What came over each channel that ends here."""
        return [(entry.channel, entry.metrics) for entry in self._inputs.values()]

    def metrics(self) -> Mapping[str, Any]:
        """Figures of both ends by channel: plain values with short names."""
        found: dict[str, dict[str, int]] = {}
        for output in self._outputs.values():
            seen = output.outbox.figures
            found.setdefault(channel_name(output.channel), {}).update(
                written=seen.written, acknowledged=seen.acknowledged, held=len(output.outbox),
                waits=output.waits, moved=seen.moved, resent=seen.resent, rerun=seen.rerun,
                abandoned=seen.abandoned,
            )  # fmt: skip
        for entry in self._inputs.values():
            found.setdefault(channel_name(entry.channel), {}).update(
                taken=entry.metrics.records, repeated=entry.intake.repeated
            )
        return found


def sealed_channel(channel: RemoteChannel) -> SealedChannel:
    """What the Communication Service must know of a channel."""
    return SealedChannel(
        channel.channel_id, channel.topic, channel.auth, channel.qos,
        BundlePolicy(channel.max_messages, channel.max_delay_ms, channel.max_bytes),
        channel.within_host, channel.max_message_bytes,
    )  # fmt: skip
