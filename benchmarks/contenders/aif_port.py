"""This framework, from output port to input port, on the calls that a host makes for every remote channel.

Record codec, message header, Communication Service, transport; broker; transport, Communication Service,
header, codec. Only what hands out keys is replaced: both processes make the same two grants from the run's
secret, which a Controller would have wrapped for each host.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from nacl.signing import SigningKey

from aif.model.codec import compile_batches, compile_record
from aif.model.ports import AuthMode
from aif.model.records import RecordType
from aif.protocol import message
from aif.protocol.aif1 import AuthFailure, BundlePolicy, ChannelEvent, LossReport, channel_id
from aif.protocol.grant import Grant, Role, RosterRow
from aif.protocol.numbers import HOST_LIMITS, FrameType
from aif.runtime.clock import SystemClock
from aif.transport.address import BrokerAddress
from aif.transport.base import Received, Transport
from aif.transport.clients import Client, open_client
from aif.trusted.communication import CommunicationService, SealedChannel, SecureReceiver, SecureSender
from benchmarks.broker import HOST
from benchmarks.cell import ADAPTIVE, Cell, Run
from benchmarks.cell import Role as ProcessRole
from benchmarks.contenders.link import BACK, START_S, THERE, Intake, Link
from benchmarks.workload import SEQUENCE_BYTES, InvalidRun

POLL_S = 0.1
"""How often a host polls its Communication Service."""

PROOF_S = 5.0
"""How long the last watermark may take; the receiver's own grace is 2 s."""

LARGE_BUNDLE_DELAY_MS = 10.0
"""Flush delay where more than the default 64 messages are bundled; below that it is the default of 1 ms."""

FOREVER_S = 1 << 40
_WATERMARKS = (FrameType.WATERMARK, FrameType.WATERMARK_SIGNED)


class AifLink:
    """One host's two channel ends."""

    asynchronous = True

    def __init__(self, run: Run, role: ProcessRole, intake: Intake, transport: Transport) -> None:
        cell = run.cell
        self._intake, self._transport, self._cell = intake, transport, cell
        self._timed = run.task == "ping" and cell.mode == AuthMode.CHECKPOINT
        self._clock = SystemClock()
        data_bytes = cell.size_bytes - SEQUENCE_BYTES
        record = RecordType.parse(f"{{uint32 sequence; uint8[{data_bytes}] data}}")
        self._record = compile_record(record).record_class
        self._codec = compile_batches(record, lead_bytes=message.HEADER.size)
        loop = asyncio.get_running_loop()
        self._service = CommunicationService(
            publish=lambda topic, frame, qos: transport.send(topic, frame, qos=qos),
            now_ms=self._clock.monotonic_ms,
            call_later=lambda delay_ms, function: _void(
                loop.call_later(delay_ms / 1000.0, function) if delay_ms else loop.call_soon(function)
            ),
        )
        there, back = (channel_of(cell, topic) for topic in (THERE, BACK))
        self._out, self._in = (there, back) if role == "driver" else (back, there)
        self._sender: SecureSender = self._service.open_sender(self._out)
        self._receiver: SecureReceiver = self._service.open_receiver(self._in, self._deliver, self._event)
        secret = bytes.fromhex(run.secret_hex)
        for channel, may in ((self._out, Role.SEND), (self._in, Role.RECEIVE)):
            self._service.apply_grant(grant_of(channel, may, secret), seed_of(secret, channel))
        self._records: list[Any] = []
        self._trouble: list[str] = []
        self._unsigned_since_ms: float | None = None
        self._lags_ms: list[float] = []
        self._poller: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._transport.connect()
        await self._transport.subscribe(self._in.topic, self._arrived, qos=self._cell.qos, timeout=START_S)
        self._poller = asyncio.get_running_loop().create_task(self._poll())

    async def _poll(self) -> None:
        while True:
            self._service.poll()
            await asyncio.sleep(POLL_S)

    def prepare(self, sequence: int, data: bytes) -> Any:
        if self._record is None:
            raise InvalidRun("the record type is no struct")
        return self._record(sequence=sequence, data=data)

    # --- output port ------------------------------------------------------------------------------

    def send_burst(self, messages: Sequence[Any]) -> None:
        """As `OutputPort.write_many`; without bundling one `write` per message."""
        at_once = len(messages) if self._cell.bundle != 1 else 1
        encode_all, send_all, time_us = self._codec.encode_all, self._sender.send_all, self._clock.time_us
        for start in range(0, len(messages), at_once):
            now_us = time_us()
            send_all(encode_all(message.header(now_us, now_us), messages[start : start + at_once]))

    def flush(self) -> None:
        self._sender.flush()

    def finish(self) -> dict[str, Any]:
        self._sender.finish()
        return {"frames": self._sender.statistics().sealed_frames}

    # --- input port -------------------------------------------------------------------------------

    def _arrived(self, received: Received) -> None:
        frame = received.payload
        if self._timed:
            self._note_lag(frame)
        try:
            self._receiver.receive(frame, retained=received.retained)
            records = self._records
            if len(records) >= self._intake.due:
                self._records = []
                self._intake.take([record[0] for record in records], [record[1] for record in records])
        except Exception as error:  # noqa: BLE001 - whatever it is, the run is void and must say why
            self._intake.failed(f"{type(error).__name__}: {error}")

    def _deliver(self, payloads: Sequence[bytes]) -> None:
        for _, _, run in message.runs(payloads):
            self._records += self._codec.decode_all(run)

    def _note_lag(self, frame: bytes) -> None:
        """How long messages were used on their tag alone before a signature covered them."""
        now_ms = self._clock.monotonic_ms()
        if frame[0] & 15 in _WATERMARKS:
            if self._unsigned_since_ms is not None:
                self._lags_ms.append(now_ms - self._unsigned_since_ms)
            self._unsigned_since_ms = None
        elif self._unsigned_since_ms is None:
            self._unsigned_since_ms = now_ms

    def _event(self, event: ChannelEvent) -> None:
        if isinstance(event, LossReport | AuthFailure):
            self._trouble.append(repr(event))
            self._intake.failed(f"the receiver reports {event}")

    # --- proof ------------------------------------------------------------------------------------

    async def prove(self, finished: dict[str, Any]) -> dict[str, Any]:
        """Every frame that was sealed, watermarks included, was verified; nothing was refused or lost."""
        wanted = finished["frames"]
        for _ in range(int(PROOF_S / POLL_S)):
            self._service.poll()
            if self._receiver.statistics().verified_frames >= wanted:
                break
            await asyncio.sleep(POLL_S)
        self._service.poll()
        seen = self._receiver.statistics()
        if seen.verified_frames != wanted or seen.rejected_frames or seen.lost_messages or self._trouble:
            raise InvalidRun(
                f"{wanted} frames were sealed, the receiver says {seen}; {'; '.join(self._trouble[:3])}"
            )
        return {"frames": seen.verified_frames, "longest_unsigned_ms": max(self._lags_ms, default=None)}

    async def close(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
        await self._transport.aclose()


def _void(_handle: object) -> None:
    """A timer that nobody cancels."""


def policy_of(bundle: int) -> BundlePolicy:
    """The bundling of a cell: the framework's default, or K messages as far as a frame holds them."""
    if bundle == ADAPTIVE:
        return BundlePolicy()
    largest = HOST_LIMITS.max_frame_bytes
    if bundle > BundlePolicy().max_messages:
        return BundlePolicy(bundle, LARGE_BUNDLE_DELAY_MS, largest, largest - 1)
    return BundlePolicy(bundle, max_bytes=largest, max_message_bytes=largest - 1)


def channel_of(cell: Cell, topic: str) -> SealedChannel:
    identity = channel_id("bench", "1.0", "Out.port", ["In.port"], data_type="Bench_t", topic=topic)
    return SealedChannel(identity, topic, AuthMode(cell.mode), cell.qos, policy_of(cell.bundle))


def seed_of(secret: bytes, channel: SealedChannel) -> bytes:
    return blake2b(b"sign" + channel.channel_id, key=secret, digest_size=32).digest()


def grant_of(channel: SealedChannel, roles: Role, secret: bytes) -> Grant:
    nonce = blake2b(b"nonce" + channel.channel_id, key=secret, digest_size=16).digest()
    public = bytes(SigningKey(seed_of(secret, channel)).verify_key)
    row = RosterRow(1, b"bench-instance--", b"bench-host------", nonce, public)
    return Grant(
        channel_id=channel.channel_id, epoch=1, roles=roles, sender_index=1,
        k_epoch=blake2b(b"epoch" + channel.channel_id, key=secret, digest_size=32).digest(),
        valid_from_s=0, valid_to_s=FOREVER_S, max_frames=1 << 32, mapping_version=1, serial=1,
        auth_mode=channel.auth, max_frame_bytes=HOST_LIMITS.max_frame_bytes, roster=(row,),
    )  # fmt: skip


def open_link(run: Run, role: ProcessRole, intake: Intake) -> Link:
    address = BrokerAddress(HOST, run.port)
    client = Client(run.cell.contender.removeprefix("aif_"))
    return AifLink(run, role, intake, open_client(client, address, client_id=f"bench-{os.getpid()}"))
