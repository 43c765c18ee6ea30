"""A run as its events tell it: two devices, one sealed channel, scored windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from aif.gateway.run_record import RunDevice, RunRecord
from aif.runtime.metrics import Histogram

AIW = "gesture-1"
CHANNEL = "features.out -> classifier.in, anomaly.in"
DEVICES = (RunDevice("mcu-1", "mcu", 11), RunDevice("gw-1", "gateway", 12))


def buckets(*values_us: float) -> dict[str, int]:
    """A histogram as it comes through JSON."""
    histogram = Histogram()
    for value in values_us:
        histogram.add(value)
    return {str(bucket): seen for bucket, seen in histogram.plain().items()}


@dataclass(slots=True)
class Time:
    """A clock that a test sets."""

    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


class Story:
    """Makes events of one run."""

    def __init__(self, time: Time) -> None:
        self.time = time

    def record(self, **changes: Any) -> RunRecord:
        return RunRecord(AIW, **{"devices": DEVICES, "windows_total": 4, "now_s": self.time, **changes})

    def event(self, kind: str, **members: Any) -> dict[str, Any]:
        return {"type": kind, "aiw": AIW, **members}

    def window(
        self, *, predicted: str, truth: str, anomaly: bool, unseen: bool, delay_us: int
    ) -> dict[str, Any]:
        value = {
            "predicted": predicted, "truth": truth, "anomaly": anomaly, "unseen": unseen,
            "confidence": 0.75, "subject": 7,
        }  # fmt: skip
        return self.event("output", port="result", origin_us=1, delay_us=delay_us, value=value)

    def windows(self) -> list[dict[str, Any]]:
        """Four known windows: three right, one false alarm; two unseen ones, one noticed."""
        return [
            self.window(predicted="row", truth="row", anomaly=False, unseen=False, delay_us=10_000),
            self.window(predicted="row", truth="row", anomaly=True, unseen=False, delay_us=10_000),
            self.window(predicted="row", truth="row", anomaly=False, unseen=False, delay_us=10_000),
            self.window(predicted="row", truth="swing", anomaly=False, unseen=False, delay_us=10_000),
            self.window(predicted="row", truth="raise", anomaly=True, unseen=True, delay_us=10_000),
            self.window(predicted="raise", truth="raise", anomaly=False, unseen=True, delay_us=80_000),
        ]

    def metrics(self, *, records: int = 3) -> dict[str, dict[str, Any]]:
        return {
            "mcu-1": {
                "aims": {"features": {"invocations": 6, "process_us": buckets(*[100.0] * 6)}},
                "channels": {CHANNEL: {"records": records, "latency_us": buckets(2_000, 2_000)}},
                "messages": {"sealed": 7, "verified": 2, "rejected": 1, "lost": 0, "causes": {}},
                "usage": {"ram": 50, "ram_limit": 100, "flash": 300, "flash_limit": 1000, "arena": 20},
            },
            "gw-1": {
                "aims": {"classifier": {"invocations": 5, "process_us": buckets(*[900.0] * 5)}},
                "channels": {CHANNEL: {"records": records + 1, "latency_us": buckets(2_000, 64_000)}},
                "messages": {"sealed": 2, "verified": 6, "rejected": 0, "lost": 3, "causes": {}},
                "usage": {"ram": 5, "ram_limit": 0, "flash": 0, "flash_limit": 0, "arena": 0},
            },
        }

    def status(self, state: str = "running", *, metrics: Mapping[str, Any] | None = None) -> dict[str, Any]:
        workflow = {
            "aiw": AIW,
            "workflow": "tinyaif/Gestures@1.0",
            "state": state,
            "note": "",
            "placement": {
                "objective": 2.5,
                "bound": 2.5,
                "proven_gap": 0.0,
                "assignments": [
                    {"aim": "features", "device": "mcu-1", "implementation": "mcu", "reason": "sensor",
                     "rejected": {"gw-1": "no imu"}},
                    {"aim": "classifier", "device": "gw-1", "implementation": "litert", "reason": "",
                     "rejected": {}},
                ],
            },
            "models": [
                {"name": "gestures", "version": "3", "sha256": "ab" * 32, "device": "gw-1", "bytes": 9_000,
                 "arena_bytes": 2_048}
            ],
            "devices": {
                "mcu-1": {"phase": "running", "aims": {"features": "running"}},
                "gw-1": {"phase": "running", "aims": {"classifier": "running"}},
            },
            "metrics": metrics or {},
        }  # fmt: skip
        devices = [
            {"device": "mcu-1", "trust": "trusted", "reason": ""},
            {"device": "gw-1", "trust": "rejected", "reason": "wrong firmware"},
            {"device": "not-of-this-run", "trust": "trusted", "reason": ""},
        ]
        return {"type": "status", "status": {"devices": devices, "workflows": [workflow]}}

    def told(self, **changes: Any) -> RunRecord:
        """A record that has heard everything."""
        record = self.record(**changes)
        for event in [self.status(metrics=self.metrics()), *self.windows()]:
            record.take(event)
        self.time.now_s += 12.5
        record.take(self.event("workflow", state="completed", note=""))
        return record


@pytest.fixture
def story() -> Story:
    return Story(Time())


@pytest.fixture
def latency_buckets() -> Callable[..., dict[str, int]]:
    return buckets
