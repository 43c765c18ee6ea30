"""One workflow's part on this device: instances, their ports, and what joins them.

Built from a verified deployment document and the AIM contracts on this device. Neighbours hand values over
as they are; what leaves or enters the device, or travels on a channel with ``local: sealed``, goes through
``hosted_channels``. The end of a stream travels like data: over a final watermark, or directly.

A changed deployment of the same workflow is taken up while it runs (``change``): AIMs that it names as before
are not touched, and only the channels that differ are opened anew. A record that waits meanwhile goes the new
way.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

from aif.errors import CreationFailed
from aif.model.aim import AIMMetadata, Implementation
from aif.model.codec import Codec, compile_record
from aif.model.handover import conforming
from aif.model.ports import Port, PortRef
from aif.protocol.control import BoundaryRecord
from aif.protocol.deployment import Acknowledged, DeployedAIM, Deployment, RemoteChannel
from aif.protocol.lifecycle import ALIVE_STATES, ENDED_STATES, State
from aif.runtime.clock import Clock
from aif.runtime.host.hosted_channels import HostedChannels
from aif.runtime.host.instance import AIMInstance, StateListener
from aif.runtime.host.ports import Deliver, InputPort, Message, OutputPort
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.runtime.mapping_changes import same_end, staying_aims
from aif.sdk import AIM
from aif.trusted.communication import CommunicationService, SecureReceiver

CHECKED_LOCAL_RECORDS = 3
"""The first records of a local channel are encoded and thrown away, so that a wrong type shows there too."""

STOP_TIMEOUT_S = 5.0


MakeAIM = Callable[[DeployedAIM, AIMMetadata, Implementation], Callable[[], AIM]]


class HostedWorkflow:
    """Instances and channels of one deployment."""

    def __init__(
        self,
        deployment: Deployment,
        library: AIMLibrary,
        communication: CommunicationService,
        *,
        clock: Clock,
        log: LogBook,
        make: MakeAIM,
        blocks: Callable[[Implementation], bool],
        on_state: StateListener,
        on_boundary: Callable[[BoundaryRecord], None],
        connected: Callable[[], bool] = lambda: True,
    ) -> None:
        self.deployment = deployment
        self.instances: dict[str, AIMInstance] = {}
        self._library = library
        self._clock, self._log = clock, log
        self._on_state, self._on_boundary = on_state, on_boundary
        self._routes: dict[tuple[str, str], Deliver] = {}
        """By source and destination: how a record gets there now."""
        self._readers: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self._over: set[tuple[str, str]] = set()
        """Source and destination of streams that have ended, each of which is said once."""
        self._leaving: set[AIMInstance] = set()
        self._boundary_inputs: dict[str, tuple[Codec, list[InputPort]]] = {}
        self._boundary_written: Counter[str] = Counter()
        self._channels = HostedChannels(
            deployment.device, communication, clock=clock, log=log, connected=connected,
            route=lambda source, end: self._routes.get((source, end)), on_end=self._stream_over,
        )  # fmt: skip
        self.finished = asyncio.Event()
        with self._abandon_on_error():
            for deployed in deployment.aims:
                self._add_instance(deployed, make, blocks)
            self._connect({*self.instances})
        self._keep_pace()

    @property
    def receivers(self) -> list[SecureReceiver]:
        return self._channels.receivers

    @contextmanager
    def _abandon_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close_channels()
            raise

    # --- building ----------------------------------------------------------------------------------

    def _add_instance(
        self, deployed: DeployedAIM, make: MakeAIM, blocks: Callable[[Implementation], bool]
    ) -> None:
        contract = self._library.verified(deployed.use, deployed.package_sha256)
        implementation = contract.implementation(deployed.implementation)
        if implementation is None:
            raise CreationFailed(
                f"{deployed.use} has no implementation {deployed.implementation}", kind="module"
            )
        feeders = self._feeders(deployed.id)
        state_bytes = implementation.state_bytes if implementation.checkpointable else None
        self.instances[deployed.id] = AIMInstance(
            deployed.id,
            contract,
            make(deployed, contract, implementation),
            {
                port.name: InputPort(port, producers=feeders[port.name], time_us=self._clock.time_us)
                for port in contract.inputs
                if feeders[port.name] or not port.optional
            },
            {port.name: OutputPort(port) for port in contract.outputs},
            clock=self._clock,
            on_state=self._on_state,
            on_finished=self._instance_finished,
            blocking=blocks(implementation),
            work=self._channels.acknowledged.work(deployed.id, self.deployment, state_bytes),
        )

    def _feeders(self, aim_id: str) -> defaultdict[str, int]:
        """How many channels end at each input of an AIM."""
        count: defaultdict[str, int] = defaultdict(int)
        ends = [c.destination for c in self.deployment.local_channels]
        ends += [end for c in self.deployment.remote_channels for end in c.destinations if not c.returns]
        ends += [b.port for b in self.deployment.boundary if not b.is_output]
        for end in ends:
            ref = PortRef.parse(end)
            if ref.aim == aim_id:
                count[ref.port] += 1
        return count

    def _output(self, end: str) -> OutputPort:
        ref = PortRef.parse(end)
        try:
            return self.instances[ref.aim].outputs[ref.port]
        except KeyError:
            raise CreationFailed(f"the deployment names an unknown output {end}", kind="port") from None

    def _input(self, end: str) -> InputPort:
        ref = PortRef.parse(end)
        try:
            return self.instances[ref.aim].inputs[ref.port]
        except KeyError:
            raise CreationFailed(f"the deployment names an unknown input {end}", kind="port") from None

    def _connect(self, fresh: set[str]) -> None:
        """Open the channels of the deployment that are not open yet, and join all to their ports.

        Args:
            fresh: AIMs that were made for this deployment; readers of a delayed channel among them start
                with empty turns.
        """
        self._readers.clear()
        self._boundary_inputs.clear()
        for instance in self.instances.values():
            for output in instance.outputs.values():
                output.disconnect()
        routes = self._routes = {}
        for local in self.deployment.local_channels:
            source, destination = self._output(local.source), self._input(local.destination)
            deliver = routes[local.source, local.destination] = _local_delivery(
                local.source, source.port, destination
            )
            source.connect(deliver)
            self._readers[PortRef.parse(local.source).aim].append((local.source, local.destination))
            if PortRef.parse(local.destination).aim in fresh:
                _preload(destination, local.delay_records)
        for channel in sorted(self.deployment.remote_channels, key=lambda channel: channel.returns):
            if channel.acknowledged is None:
                self._connect_remotely(channel, fresh)
            else:
                self._connect_acknowledged(channel, channel.acknowledged)
        self._connect_boundary()

    def _connect_remotely(self, channel: RemoteChannel, fresh: set[str]) -> None:
        here = self.deployment.device
        if channel.source_device == here:
            source = self._output(channel.source)
            deliver = self._channels.open_output(channel, source.port, ended=self._ended(channel.source))
            self._routes |= {(channel.source, end): deliver for end in channel.destinations}
            source.connect(deliver)
        ends = zip(channel.destinations, channel.destination_devices, strict=True)
        mine = [end for end, device in ends if device == here]
        if not mine:
            return
        ports = [self._input(end) for end in mine]
        self._channels.open_input(channel, ports)
        for end, port in zip(mine, ports, strict=True):
            if PortRef.parse(end).aim in fresh:
                _preload(port, channel.delay_records)

    def _connect_acknowledged(self, channel: RemoteChannel, terms: Acknowledged) -> None:
        here, acknowledged = self.deployment.device, self._channels.acknowledged
        if terms.returns:
            return acknowledged.open_return(channel, terms, here)
        if channel.source_device == here:
            source = self._output(channel.source)
            source.connect(acknowledged.open_output(channel, terms, source.port))
        if channel.destination_devices == (here,):
            acknowledged.open_input(channel, terms, self._input(channel.destinations[0]))
        return None

    def _connect_boundary(self) -> None:
        for boundary in self.deployment.boundary:
            if boundary.is_output:
                source = self._output(boundary.port)
                source.connect(self._boundary_delivery(boundary.name, boundary.port, source.port))
            else:
                port = self._input(boundary.port)
                codec, ports = self._boundary_inputs.get(
                    boundary.name, (compile_record(port.port.type.record), [])
                )
                self._boundary_inputs[boundary.name] = (codec, [*ports, port])

    # --- records on their way ----------------------------------------------------------------------

    def _boundary_delivery(self, name: str, end: str, port: Port) -> Deliver:
        codec = compile_record(port.type.record, payload_bytes=port.payload_bytes, label=end)

        async def deliver(values: Sequence[Any], t_us: int) -> None:
            for encoded in map(codec.encode, values):
                self._boundary_written[name] += 1
                self._on_boundary(BoundaryRecord(self.deployment.aiw_id, name, t_us, encoded))

        return deliver

    def _stream_over(self, source: str, destination: str) -> None:
        if (source, destination) not in self._over:
            self._over.add((source, destination))
            self._input(destination).finish()

    def boundary_input(self, record: BoundaryRecord) -> None:
        """A record that the User Agent wrote to an input of the workflow; empty ends the stream."""
        entry = self._boundary_inputs.get(record.port)
        if entry is None:
            return
        codec, ports = entry
        value = codec.decode(record.record)
        for port in ports:
            port.offer(Message(value, record.origin_us))

    def _instance_finished(self, instance: AIMInstance) -> None:
        """Tell the readers of a finished (or failed) instance that nothing more comes."""
        if instance in self._leaving:  # it goes on elsewhere
            self._leaving.discard(instance)
            return
        for source, destination in self._readers[instance.id]:
            self._stream_over(source, destination)
        self._channels.finish(instance.id)
        self._channels.acknowledged.over(instance.id)
        self._judge_finished()

    def _judge_finished(self) -> None:
        if self.instances and all(i.state in ENDED_STATES for i in self.instances.values()):
            self.finished.set()
        else:
            self.finished.clear()

    def poll(self) -> None:
        """Say what could not be said before, or is due again. Call many times a second."""
        self._channels.send_ends()
        self._channels.acknowledged.poll()

    # --- another mapping ---------------------------------------------------------------------------

    async def change(
        self, deployment: Deployment, make: MakeAIM, blocks: Callable[[Implementation], bool]
    ) -> None:
        """Take up another deployment of this workflow; AIMs that it names as before go on as they are.

        AIMs that are not in it, or differ, are stopped, and their readers hear of no end: they go on
        elsewhere. New ones are made and wait for ``start``.

        Raises:
            CreationFailed: an AIM or a port of it cannot be made; the part is of no use any more.
        """
        before, after = self.deployment, deployment
        staying = staying_aims(before, after)
        await self.leave(self.instances.keys() - staying)
        self._over = {
            (source, end) for source, end in self._over if PortRef.parse(end).aim in staying
        }  # a new reader has heard of no end
        self.deployment = deployment
        for channel_id in self._changed_channels(before, after):
            self._channels.close(channel_id)
        fresh = {aim.id for aim in deployment.aims} - staying
        for deployed in deployment.aims:
            if deployed.id in fresh:
                self._add_instance(deployed, make, blocks)
        self._connect(fresh)
        self._channels.acknowledged.keep(deployment)
        self._keep_pace()
        for source, end in self._readers_of_ended(fresh):
            self._stream_over(source, end)
        self._judge_finished()

    def _keep_pace(self) -> None:
        for instance in self.instances.values():
            instance.pace.rate = self.deployment.rate

    async def leave(self, aims: AbstractSet[str]) -> None:
        """Stop AIMs that go on elsewhere, and forget them; their readers hear of no end."""
        await self._stop_quietly(aims)
        self._channels.acknowledged.forget(aims)
        for aim in aims:
            self.instances.pop(aim, None)

    async def end(self) -> None:
        """Stop all AIMs; readers elsewhere hear of no end, and the last figures stay."""
        await self._stop_quietly(self.instances.keys())

    async def _stop_quietly(self, aims: AbstractSet[str]) -> None:
        self._leaving |= {self.instances[aim] for aim in aims}
        await asyncio.gather(*(self.stop(aim) for aim in aims))
        await self._channels.acknowledged.settle(aims)

    def _changed_channels(self, before: Deployment, after: Deployment) -> set[bytes]:
        """Channels whose end here is not what it was, or that a new reader must hear the end of."""
        kept = {channel.channel_id: channel for channel in after.remote_channels}
        changed = set()
        for old in before.remote_channels:
            new = kept.get(old.channel_id)
            moved = new is not None and new.destination_devices != old.destination_devices
            if not same_end(old, new, before.device) or (moved and self._ended(old.source)):
                changed.add(old.channel_id)
        return changed

    def _ended(self, source: str) -> bool:
        """Whether the AIM behind an output is here, and over."""
        instance = self.instances.get(PortRef.parse(source).aim)
        return instance is not None and instance.state in ENDED_STATES

    def _readers_of_ended(self, fresh: set[str]) -> list[tuple[str, str]]:
        """Streams between neighbours whose source has ended and whose reader is new."""
        streams = (stream for readers in self._readers.values() for stream in readers)
        return [
            (source, end)
            for source, end in streams
            if PortRef.parse(end).aim in fresh and self._ended(source)
        ]

    # --- life --------------------------------------------------------------------------------------

    @property
    def keyed(self) -> bool:
        return self._channels.keyed(self.deployment.remote_channels)

    def start(self) -> None:
        for instance in self.instances.values():
            if instance.state is State.IDLE:
                instance.start()

    def pause(self, aim_id: str = "") -> None:
        for instance in self._chosen(aim_id):
            if instance.state in (State.RUNNING, State.DEGRADED):
                instance.pause()

    def resume(self, aim_id: str = "") -> None:
        for instance in self._chosen(aim_id):
            if instance.state is State.PAUSED:
                instance.resume()

    async def stop(self, aim_id: str = "") -> None:
        """End instances, whatever they do; one that ignores its cancellation is left behind after 5 s."""
        chosen = self._chosen(aim_id)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await asyncio.gather(*(instance.stop() for instance in chosen))
        except TimeoutError:
            late = [i.id for i in chosen if i.state not in ENDED_STATES]
            self._log.error("AIMs do not stop", aims=", ".join(late))

    def _chosen(self, aim_id: str) -> list[AIMInstance]:
        return [i for i in self.instances.values() if not aim_id or i.id == aim_id]

    @property
    def running(self) -> bool:
        return any(i.state in ALIVE_STATES for i in self.instances.values())

    def close_channels(self) -> None:
        for channel in self.deployment.remote_channels:
            self._channels.close(channel.channel_id)

    def metrics(self) -> Mapping[str, Any]:
        """Figures for the Controller: plain values with short names."""
        aims = {}
        for instance in self.instances.values():
            m = instance.metrics
            aims[instance.id] = {
                "invocations": m.invocations, "emitted": m.emitted, "failures": m.failures,
                "restarts": m.restarts, "deadlines_missed": m.deadlines_missed,
                "process_us": m.process_us.plain(), "waiting": instance.waiting, **instance.port_counters(),
            }  # fmt: skip
        return {
            "aims": aims, **self._channels.metrics(self.deployment.remote_channels),
            "outputs": dict(self._boundary_written),
        }  # fmt: skip


def _preload(port: InputPort, empty_turns: int) -> None:
    """The reader of a delayed channel starts with that many empty turns."""
    for _ in range(empty_turns):
        port.offer(Message(None, 0))


def _local_delivery(end: str, port: Port, destination: InputPort) -> Deliver:
    unchecked = CHECKED_LOCAL_RECORDS
    conform = conforming(port.type.record, end)
    codec = compile_record(port.type.record, payload_bytes=port.payload_bytes, label=end)

    async def deliver(values: Sequence[Any], t_us: int) -> None:
        nonlocal unchecked
        for value in values:
            if unchecked:
                unchecked -= 1
                codec.encode(value)
            await destination.put(Message(conform(value), t_us))

    return deliver
