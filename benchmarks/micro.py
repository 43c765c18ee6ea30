"""What one message costs in one process: codec, sealing and opening, by mode, size and bundle.

Decides the rows. No broker and no socket: a message goes from a record to a published frame, and from a
received frame to a record, on the calls of a host's remote channel. Every row is the lowest of many short
runs by this thread's processor time, so that other programs disturb it least. Every record that comes out is
compared with what went in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from aif.model.codec import compile_batches, compile_record
from aif.model.records import RecordType
from aif.protocol import message
from aif.protocol.grant import Role
from aif.trusted.communication import CommunicationService
from benchmarks.cell import Cell
from benchmarks.contenders.aif_port import channel_of, grant_of, seed_of
from benchmarks.contenders.link import THERE
from benchmarks.harness import Spread
from benchmarks.report import Metric, judged
from benchmarks.workload import InvalidRun

SECRET = bytes(32)
SIZES = (32, 100, 1_024, 16_384)
BUNDLES = (1, 16, 64, 256)
MODES = ("aead", "signed", "checkpoint")
MESSAGES = 2_048
"""At most so many per run, so that it is short and little has to be kept for the comparison."""
GOAL_US = 0.6
"""CPU per message of 100 B in signed bundles of 256, each way, all in."""
CODEC_GOALS_US = {"encode": 0.15, "decode": 0.3}

RECORDS = {
    "8 fields, 16 B data": (
        "{uint64 t; uint32 n; int16 a; int16 b; float32 x; float32 y; uint8 kind; uint8[16] data}",
        {"t": 1, "n": 2, "a": 3, "b": 4, "x": 1.5, "y": 2.5, "kind": 1, "data": bytes(16)},
    ),
    "uint32, uint8[96]": ("{uint32 sequence; uint8[96] data}", {"sequence": 1, "data": bytes(96)}),
    "number, text, score": (
        "{uint64 t; string label; float32 score}",
        {"t": 1, "label": "wave", "score": 0.5},
    ),
    "int16[512]": ("int16[512]", bytes(1_024)),
}


@dataclass(frozen=True, slots=True)
class Timing:
    """How often each row is run; the lowest counts."""

    repeats: int = 25
    run_s: float = 0.01


QUICK = Timing(repeats=3, run_s=0.002)


def lowest_us(function: Callable[[Any], object], argument: object, timing: Timing) -> float:
    """Microseconds of one call, the lowest mean of several short runs."""
    clock = time.thread_time
    began_s = clock()
    function(argument)
    calls = max(1, int(timing.run_s / max(clock() - began_s, 1e-7)))
    best = float("inf")
    for _ in range(timing.repeats):
        began_s = clock()
        for _ in repeat(None, calls):
            function(argument)
        best = min(best, (clock() - began_s) / calls)
    return best * 1e6


def codec_rows(timing: Timing) -> list[dict[str, Any]]:
    """Encode and decode of some records, one at a time."""
    found = []
    for name, (text, written) in RECORDS.items():
        codec = compile_record(RecordType.parse(text))
        raw = codec.encode(written)
        value = codec.decode(raw)
        if codec.encode(value) != raw:
            raise InvalidRun(f"{name} does not come back")
        own = codec.record_class(**written) if codec.record_class and isinstance(written, dict) else written
        found.append({
            "row": name,
            "encode_us": lowest_us(codec.encode, own, timing),
            "decode_us": lowest_us(codec.decode, raw, timing),
            "bytes": len(raw),
        })  # fmt: skip
    return found


class _Channel:
    """Both ends of one channel, with a list between them."""

    def __init__(self, mode: str, size_bytes: int, bundle: int) -> None:
        self.frames: list[bytes] = []
        self.values: list[Any] = []
        record = RecordType.parse(f"{{uint32 sequence; uint8[{size_bytes - 4}] data}}")
        made = compile_record(record).record_class
        if made is None:
            raise InvalidRun("the record type is no struct")
        self.records = [made(sequence=i, data=bytes([i & 255]) * (size_bytes - 4)) for i in range(bundle)]
        self._codec = compile_batches(record, lead_bytes=message.HEADER.size)
        self._mode, self._cell = mode, Cell("aif_paho", size_bytes, bundle, mode)
        self.reset()

    def reset(self) -> None:
        """Fresh ends: no watermark is due, no window is full."""
        channel = channel_of(self._cell, THERE)
        self.frames.clear()
        service = CommunicationService(
            publish=lambda _topic, frame, _qos: self.frames.append(frame),
            now_ms=lambda: time.monotonic() * 1000.0,
            call_later=lambda _delay_ms, _function: None,
        )
        self._sender = service.open_sender(channel)
        self._receiver = service.open_receiver(channel, self._deliver, lambda _event: None)
        service.apply_grant(grant_of(channel, Role.SEND | Role.RECEIVE, SECRET), seed_of(SECRET, channel))

    def _deliver(self, payloads: Sequence[bytes]) -> None:
        for _, _, run in message.runs(payloads):
            self.values += self._codec.decode_all(run)

    def send(self) -> None:
        now_us = time.time_ns() // 1000
        self._sender.send_all(self._codec.encode_all(message.header(now_us, now_us), self.records))

    def receive(self, frame: bytes) -> None:
        self._receiver.receive(frame, retained=False)


def seal_row(mode: str, size_bytes: int, bundle: int, timing: Timing) -> dict[str, Any]:
    """Microseconds per message of ``size_bytes``, from record to frame and from frame to record."""
    channel = _Channel(mode, size_bytes, bundle)
    calls = max(4, min(64, MESSAGES // bundle))
    seal_us = open_us = float("inf")
    for _ in range(timing.repeats):
        channel.reset()
        began_s = time.thread_time()
        for _ in range(calls):
            channel.send()
        sealed_s = time.thread_time()
        frames = list(channel.frames)
        channel.values.clear()
        opening_s = time.thread_time()
        for frame in frames:
            channel.receive(frame)
        opened_s = time.thread_time()
        if channel.values != channel.records * calls:
            raise InvalidRun(f"{mode}, {size_bytes} B, K={bundle}: {len(channel.values)} records came out")
        seal_us = min(seal_us, (sealed_s - began_s) / (calls * bundle) * 1e6)
        open_us = min(open_us, (opened_s - opening_s) / (calls * bundle) * 1e6)
    per_message = sum(map(len, frames)) / (calls * bundle) - size_bytes
    name = f"{mode}, {size_bytes} B, K={bundle}"
    return {"row": name, "seal_us": seal_us, "open_us": open_us, "overhead_bytes": per_message}


def measure(timing: Timing) -> tuple[list[Metric], dict[str, Any]]:
    """All rows, printed, and the figures with a goal."""
    codecs = codec_rows(timing)
    sealed = [
        seal_row(mode, size, bundle, timing)
        for size in SIZES
        for bundle in BUNDLES
        if bundle * size <= 60_000 or bundle == 1
        for mode in MODES
    ]
    _print("codec, one record at a time", codecs)
    _print("record to frame and back, per message", sealed)
    metrics = [
        _metric(f"micro.codec_{name}", codecs[0][f"{name}_us"], goal) for name, goal in CODEC_GOALS_US.items()
    ]
    wanted = next(row for row in sealed if row["row"] == "signed, 100 B, K=256")
    metrics += [
        _metric(f"micro.signed_k256_100B_{name}", wanted[f"{name}_us"], GOAL_US) for name in ("seal", "open")
    ]
    return metrics, {"left_out": [], "void": {}, "codec": codecs, "sealed": sealed}


def _metric(name: str, value_us: float, goal_us: float) -> Metric:
    return judged(name, Spread(value_us, value_us, value_us), "us", goal_us, "lower")


def _print(title: str, table: Sequence[dict[str, Any]]) -> None:
    columns = [name for name in table[0] if name != "row"]
    print(f"\n{title}\n{'':30}" + "".join(f"  {name:>14}" for name in columns))
    for row in table:
        print(f"{row['row']:30}" + "".join(f"  {row[name]:>14,.2f}" for name in columns))
