"""Known plaintext is found wherever it stands; what is sealed is not mistaken for it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.authoring.recording import Recording
from aif.errors import LocalProtocolError
from aif.gateway.wire_tap import MAX_FINDS, NEEDLE_BYTES, Find, Needles, WireTap, needles_from_recording
from aif.model.codec import compile_record
from aif.model.records import RecordType
from aif.protocol import message
from aif.protocol.frame import FrameSealer
from aif.protocol.numbers import FrameType
from aif.transport.base import Received
from aif.transport.embedded_broker import EmbeddedBroker
from aif.transport.memory import MemoryBroker, MemoryTransport
from aif.transport.mqtt import MQTTTransport

PATIENCE_S = 20.0


def recording(windows: int = 20) -> Recording:
    """A seeded random walk on six axes."""
    rng = np.random.default_rng(5)
    samples = np.cumsum(rng.integers(-90, 90, (windows, 100, 6)), axis=1).astype(np.int16)
    return Recording(
        samples, np.arange(1, windows + 1, dtype=np.uint64), np.zeros(windows, np.int8),
        np.ones(windows, np.int16), ("walk",),
    )  # fmt: skip


RECORDING = recording()
NEEDLES = needles_from_recording(RECORDING)
KNOWN = RECORDING.samples[7].tobytes()


class PatientTap(WireTap):
    """A tap that a test can wait for."""

    def __init__(self, transport: MQTTTransport | MemoryTransport, needles: Needles) -> None:
        super().__init__(transport, needles)
        self._changed = asyncio.Event()

    def _look(self, message: Received) -> None:
        super()._look(message)
        self._changed.set()

    async def seen(self, messages: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.report().messages < messages:
                self._changed.clear()
                await self._changed.wait()


@given(
    start=st.integers(0, len(KNOWN) - 31), length=st.integers(31, 200), before=st.binary(max_size=70),
    after=st.binary(max_size=70),
)  # fmt: skip
def test_any_31_bytes_of_a_window_are_found_at_any_alignment(
    start: int, length: int, before: bytes, after: bytes
) -> None:
    leak = KNOWN[start : start + length]
    if len(leak) >= 31:
        offset = NEEDLES.first_in(before + leak + after)
        assert offset is not None
        assert len(before) <= offset <= len(before) + 15


def test_noise_holds_no_needle() -> None:
    noise = random.Random(3)
    assert all(NEEDLES.first_in(noise.randbytes(1_300)) is None for _ in range(500))


def test_a_needle_with_one_bit_changed_is_none() -> None:
    piece = KNOWN[:NEEDLE_BYTES]
    assert NEEDLES.first_in(piece) == 0
    for bit in range(8 * NEEDLE_BYTES):
        changed = (int.from_bytes(piece, "big") ^ 1 << bit).to_bytes(NEEDLE_BYTES, "big")
        assert NEEDLES.first_in(changed) is None


@pytest.mark.parametrize("length", [0, 1, 15])
def test_a_payload_shorter_than_a_needle_holds_none(length: int) -> None:
    assert NEEDLES.first_in(KNOWN[:length]) is None


def test_the_offset_of_the_first_needle_is_told() -> None:
    assert NEEDLES.first_in(b"\xff" * 5 + KNOWN[16:32] + KNOWN[:64]) == 5


def test_stretches_that_chance_could_produce_are_no_needles() -> None:
    still = recording()
    samples = still.samples.copy()
    samples[3] = 256  # a sensor at rest
    quiet = Recording(samples, still.t_us, still.label, still.subject, still.labels)
    assert len(needles_from_recording(quiet)) == len(NEEDLES) - 75
    assert needles_from_recording(quiet).first_in(samples[3].tobytes()) is None


def test_a_search_for_nothing_is_refused() -> None:
    one = recording(1)
    silent = Recording(np.zeros_like(one.samples), one.t_us, one.label, one.subject, one.labels)
    with pytest.raises(LocalProtocolError, match="no known plaintext"):
        needles_from_recording(silent)
    with pytest.raises(LocalProtocolError, match="16 bytes"):
        Needles([b"too short"])


def test_a_record_in_its_canonical_encoding_is_found() -> None:
    record = RecordType.parse("{uint32 sequence; int16[100][6] samples}")
    value = {"sequence": 7, "samples": RECORDING.samples[2]}
    assert NEEDLES.first_in(message.pack(1, 2, compile_record(record).encode(value))) is not None


async def plain_and_sealed(folder: Path) -> None:
    payload = message.pack(1, 2, KNOWN)
    sealer = FrameSealer(b"c" * 16, 1, 0, b"k" * 32, None)
    sealed = [sealer.seal(FrameType.DATA, counter, payload) for counter in range(50)]
    async with (
        EmbeddedBroker(folder / "broker.log") as broker,
        MQTTTransport(broker.address) as sender,
        MQTTTransport(broker.address) as listener,
        PatientTap(listener, NEEDLES) as tap,
    ):
        for frame in sealed:
            await sender.publish("aif/v1/ch/run/imu/window", frame, qos=0)
        await tap.seen(len(sealed))
        report = tap.report()
        assert (report.messages, report.plaintext, report.finds) == (50, 0, ())
        assert report.bytes_ == sum(map(len, sealed))
        await sender.publish("in/clear", payload, qos=1)
        await tap.seen(len(sealed) + 1)
        report = tap.report()
        assert (report.messages, report.plaintext) == (51, 1)
        assert report.finds == (Find("in/clear", 12),)


@pytest.mark.integration
def test_a_real_broker_s_traffic_in_clear_is_found_and_sealed_is_not(tmp_path: Path) -> None:
    asyncio.run(plain_and_sealed(tmp_path))


def test_all_finds_are_counted_and_the_first_are_described() -> None:
    async def journey() -> None:
        broker = MemoryBroker()
        async with (
            MemoryTransport(broker) as sender,
            MemoryTransport(broker) as listener,
            PatientTap(listener, NEEDLES) as tap,
        ):
            for number in range(MAX_FINDS + 5):
                sender.send(f"leak/{number}", KNOWN)
            await tap.seen(MAX_FINDS + 5)
            report = tap.report()
            assert report.plaintext == MAX_FINDS + 5
            assert [find.topic for find in report.finds] == [f"leak/{n}" for n in range(MAX_FINDS)]

    asyncio.run(journey())


def test_a_tap_ends_quietly_when_the_broker_is_gone() -> None:
    async def journey() -> None:
        broker = MemoryBroker()
        async with MemoryTransport(broker) as listener, WireTap(listener, NEEDLES) as tap:
            broker.stop()
        assert tap.report().messages == 0

    asyncio.run(journey())
