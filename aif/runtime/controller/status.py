"""What a person may see of a Controller: its devices, its workflows and their figures, as plain values.

Decides the names under which a User Agent finds each figure. Decides nothing about devices or workflows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES
from aif.runtime.clock import Clock
from aif.runtime.devices.admission import Admission
from aif.runtime.devices.control_channels import troubles
from aif.runtime.devices.links import DeviceLink
from aif.runtime.mapping.workflows import RunningWorkflow


def status(
    admission: Admission,
    workflows: Iterable[RunningWorkflow],
    clock: Clock,
    started_us: int,
    drained: Collection[str] = (),
) -> dict[str, Any]:
    """Everything a screen needs.

    Args:
        admission: knows the devices.
        workflows: those that are told of.
        clock: of the Controller.
        started_us: when it began; tells one Controller from the next.
        drained: devices that shall run nothing.
    """
    now_ms = clock.monotonic_ms()
    links = sorted(admission.links.values(), key=lambda link: link.device)
    return {
        "controller": {"started_us": started_us, "time_us": clock.time_us()},
        "devices": [
            _device(link, admission.gates.refused(link.device) + troubles(link), now_ms)
            | {"sensed": admission.sensing.report(link.device, now_ms), "drained": link.device in drained}
            for link in links
        ],
        "workflows": [_workflow(running) for running in workflows],
    }


def _device(link: DeviceLink, troubles: Mapping[str, int], now_ms: float) -> dict[str, Any]:
    return {
        "device": link.device,
        "trust": str(link.trust),
        "reason": link.reason,
        "appraisal": list(link.verdict.steps) if link.verdict is not None else [],
        "clock_skew_s": round(link.skew_s, 3),
        "troubles": dict(troubles),
        "heard_s": round((now_ms - link.heard_ms) / 1000, 1) if link.heard_ms else None,
    }


def _workflow(running: RunningWorkflow) -> dict[str, Any]:
    placement = running.placement
    failure = running.failure
    return {
        "aiw": running.aiw_id,
        "workflow": running.workflow.metadata.reference,
        "state": str(running.state),
        "ended": running.state in FINAL_WORKFLOW_STATES,
        "note": running.note,
        "left_out": sorted(running.service.left_out),
        "rate": running.service.rate,
        "failure": {"code": failure.code, "message": str(failure), "hint": failure.hint} if failure else None,
        "placement": {
            "objective": placement.objective,
            "bound": placement.bound,
            "proven_gap": placement.gap,
            "seconds": placement.seconds,
            "assignments": [
                {
                    "aim": a.aim,
                    "device": a.device,
                    "implementation": a.implementation,
                    "reason": a.reason,
                    "rejected": dict(a.rejected),
                }
                for a in placement.assignments
            ],
            "usage": [asdict(usage) for usage in placement.usage],
            "paths": [asdict(path) for path in placement.paths],
        },
        "links": _links(running),
        "devices": {
            device: {
                "phase": str(status.phase),
                "aims": {aim: str(report.state) for aim, report in status.aims.items()},
            }
            for device, status in sorted(running.status.items())
        },
        "models": [
            {
                "device": model.device,
                "aim": model.aim,
                "name": model.component,
                "version": model.counter,
                "sha256": model.sha256.hex(),
                "bytes": model.bytes_,
                "arena_bytes": model.arena_bytes,
            }
            for model in (running.plan.models if running.plan else ())
        ],
        "channels": sorted(
            f"{c.source} -> {', '.join(c.destinations)}"
            for c in (running.plan.channels.values() if running.plan else ())
        ),
        "metrics": {device: _json_keys(values) for device, values in running.metrics.items()},
        "unaccounted": running.unaccounted,
    }


def _links(running: RunningWorkflow) -> list[dict[str, Any]]:
    """The inventory's links, and what the plan has them carry; nothing where it knows no way over them."""
    planned = {link.link: link for link in running.placement.links}
    return [
        {
            "link": link.id,
            "members": list(link.members),
            "bandwidth_bps": link.bandwidth_bps,
            "planned_bps": planned[link.id].bps if link.id in planned else 0,
            "limit_bps": planned[link.id].limit_bps if link.id in planned else None,
        }
        for link in running.inventory.links
    ]


def _json_keys(value: Any) -> Any:
    """Histograms have integer keys; JSON has only text."""
    if isinstance(value, Mapping):
        return {str(k): _json_keys(v) for k, v in value.items()}
    return value
