"""The summary of a run: one JSON document with what was measured.

Decides the names and units of the document and how it is written. Does not decide how events are counted
(``run_record``) or how the wire is watched (``wire_tap``).

Invariants: numbers are finite and what was not measured is null, never a made-up zero; the file appears
whole or not at all.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aif.errors import ConfigError, Diagnostic
from aif.gateway.run_record import RunRecord
from aif.gateway.wire_tap import WireReport
from aif.runtime.metrics import Histogram

ACKNOWLEDGED = ("acknowledged", "held", "moved", "resent", "repeated", "abandoned")
"""Figures of acknowledged channels that are told: what became of their messages."""


def summary(record: RunRecord, *, wire: WireReport | None = None) -> dict[str, Any]:
    """Everything that is known of a run, as plain JSON values.

    Args:
        record: what the events said.
        wire: what a subscriber to everything saw; None when nobody watched, and the figures are then null.

    Returns:
        ``workflow``, ``state``, ``seconds``, ``devices``, ``windows``, ``accuracy`` and the rates in
        ``anomaly`` (shares 0..1, null for a workflow whose outputs are not scored), ``messages``,
        ``channels`` and ``end_to_end`` (latency in ms), ``acknowledged``, ``models``, ``attestation``,
        ``placement``, ``aims``, ``memory`` per device. A channel's ``troubles`` are messages lost and frames
        refused, by cause. An acknowledged channel's figures are messages.
    """
    score, messages = record.score, record.messages()
    return {
        "workflow": record.workflow,
        "state": record.state,
        "seconds": round(record.seconds, 3),
        "devices": _devices(record),
        "windows": record.windows,
        "accuracy": score.accuracy,
        "anomaly": {
            "detection": score.detection,
            "false_alarm": score.false_alarm,
            "unseen_windows": score.unseen,
            "known_windows": score.known,
        },
        "messages": {
            "sealed": messages.sealed,
            "verified": messages.verified,
            "rejected": messages.rejected,
            "lost": messages.lost,
            "plaintext_on_wire": wire.plaintext if wire else None,
            "frames_watched": wire.messages if wire else None,
        },
        "control": {
            device: dict(seen.control) for device, seen in sorted(record.metrics.items()) if seen.control
        },
        "channels": {
            name: {
                **_latency_ms(seen.latency_us),
                "records": seen.records,
                "troubles": dict(seen.troubles),
            }
            for name, seen in record.channels().items()
        },
        "acknowledged": {
            name: {figure: seen[figure] for figure in ACKNOWLEDGED}
            for name, seen in record.acknowledged().items()
        },
        "end_to_end": _latency_ms(record.end_to_end_us),
        "models": [
            {
                "name": model.name,
                "version": model.version,
                "sha256": model.sha256,
                "device": model.device,
                "bytes": model.bytes_,
                "arena_bytes": model.arena_bytes,
            }
            for model in record.models
        ],
        "attestation": [
            {"device": device, "result": _result(record, device)} for device in record.device_ids()
        ],
        "placement": {
            "objective": record.objective,
            "proven_gap": record.proven_gap,
            "assignments": [
                {
                    "aim": a.aim,
                    "device": a.device,
                    "implementation": a.implementation,
                    "reason": a.reason,
                    "rejected": dict(a.rejected),
                }
                for a in record.assignments
            ],
        },
        "aims": _aims(record),
        "memory": _memory(record),
    }


def _devices(record: RunRecord) -> list[dict[str, Any]]:
    started = {device.id: device for device in record.devices}
    return [
        {
            "id": device,
            "pid": started[device].pid if device in started else None,
            "class": started[device].device_class if device in started else "",
            "aims": [a.aim for a in record.assignments if a.device == device],
        }
        for device in record.device_ids()
    ]


def _result(record: RunRecord, device: str) -> str:
    """The verdict of the last appraisal; a device without one shows where it stands."""
    state = record.states.get(device)
    if state is None:
        return "unknown"
    return (
        f"rejected: {state.reason}"
        if state.verdict == "rejected"
        else state.verdict or state.trust or "unknown"
    )


def _aims(record: RunRecord) -> list[dict[str, Any]]:
    device_of = {a.aim: a.device for a in record.assignments}
    return [
        {
            "aim": name,
            "device": device_of.get(name, ""),
            "p50_us": _quantile(seen.process_us, 0.5),
            "p99_us": _quantile(seen.process_us, 0.99),
            "invocations": seen.invocations,
        }
        for name, seen in record.aims().items()
    ]


def _memory(record: RunRecord) -> list[dict[str, Any]]:
    return [
        {
            "device": device,
            "ram_bytes": metrics.usage.ram_bytes,
            "ram_limit_bytes": metrics.usage.ram_limit_bytes,
            "flash_bytes": metrics.usage.flash_bytes,
            "flash_limit_bytes": metrics.usage.flash_limit_bytes,
            "arena_bytes": metrics.usage.arena_bytes,
        }
        for device, metrics in sorted(record.metrics.items())
        if metrics.usage is not None
    ]


def _latency_ms(histogram: Histogram) -> dict[str, float | None]:
    return {
        name: None if (us := _quantile(histogram, share)) is None else round(us / 1000, 4)
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))
    }


def _quantile(histogram: Histogram, share: float) -> float | None:
    return round(histogram.quantile(share), 1) if histogram.count else None


# --- the file ---------------------------------------------------------------------------------------


def check_writable(path: Path) -> None:
    """Find out before a run whether its summary can be written after it.

    Raises:
        ConfigError: it cannot, and why.
    """
    if path.is_dir():
        raise _unwritable(path, "it is a folder", "name a file in it")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except FileNotFoundError as error:
        raise _unwritable(path, f"there is no folder {path.parent}", f"mkdir -p {path.parent}") from error
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error), "choose a place where you may write") from error


def write_summary(path: Path, content: Mapping[str, Any]) -> None:
    """Write a summary in one step, so that nobody ever reads half of it.

    Raises:
        ConfigError: it cannot be written there.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as beside:
            whole = Path(beside) / path.name
            whole.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            whole.replace(path)
    except OSError as error:
        raise _unwritable(
            path, error.strerror or str(error), "the run itself ended as its last screen says"
        ) from error


def _unwritable(path: Path, why: str, hint: str) -> ConfigError:
    return ConfigError(
        [Diagnostic("AIF-E0100", f"the summary cannot be written to {path}: {why}", hint=hint)]
    )
