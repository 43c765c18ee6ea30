"""Which devices others wait for now, so that their silence is to be noticed soon.

Those that run AIMs of a workflow that runs, under its newest mapping: one that still prepares its part may be
busy. Devices to which a question costs much, as microcontrollers and those on batteries, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aif.protocol.control import Phase
from aif.protocol.lifecycle import WorkflowState
from aif.runtime.mapping.workflows import RunningWorkflow


def at_work(workflows: Iterable[RunningWorkflow], calm: Callable[[str], bool]) -> dict[str, float]:
    """How long (ms) each device at work is planned to be kept busy by one invocation.

    Args:
        workflows: all of the site.
        calm: whether a device is better not asked often.
    """
    found: dict[str, float] = {}
    for running in workflows:
        if running.state not in (WorkflowState.RUNNING, WorkflowState.DEGRADED):
            continue
        here = {device for device in running.devices if running.phase(device) is Phase.RUNNING}
        for assignment in running.placement.assignments:
            device = assignment.device
            if device in here and not calm(device):
                found[device] = max(found.get(device, 0.0), assignment.latency_us / 1000.0)
    return found
