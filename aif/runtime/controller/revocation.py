"""Taking a device's trust back while everything runs: broker, registry, keys, in this order.

First the broker serves it no longer, then the registry admits it no longer, then every workflow it was part
of gets new keys without it. A step that fails is reported, and the others are taken all the same.

Decides the order; what a step does is decided where it lives (``withdraw`` for broker and certificates).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aif.errors import AIFError, StopFailed
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES
from aif.runtime.clock import Clock
from aif.runtime.devices.admission import Admission
from aif.runtime.devices.registry import Site
from aif.runtime.mapping.rekeying import Rekeying
from aif.runtime.mapping.workflows import Changes, RunningWorkflow

KEYS_S = 10.0
"""Longest wait for the last member to confirm its new key; the workflow goes on without waiting."""

Withdraw = Callable[[str], str]
"""``withdraw(device)`` takes its rights at the broker and its certificates; returns what became of it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One step that was taken, in words."""

    step: str
    outcome: str
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Revocation:
    """What it takes to revoke a device."""

    site: Site
    withdraw: Withdraw
    admission: Admission
    rekeying: Rekeying
    changes: Changes
    clock: Clock
    workflows: Callable[[], Iterable[RunningWorkflow]]

    async def revoke(self, device: str, reason: str, *, lost: bool = False) -> list[Taken]:
        """Revoke a device, and wait until the other members of its channels have new keys.

        Raises:
            NotFound: no such device.
        """
        started_ms = self.clock.monotonic_ms()
        self.site.device(device)
        taken = [await asyncio.to_thread(withdrawn, self.withdraw, device)]
        now_s = self.clock.time_us() // 1_000_000
        await asyncio.to_thread(self.site.revoke, device, reason, now_s=now_s, lost=lost)
        taken.append(Taken("registry", "hello, evidence and enrolment of the device are refused"))
        affected = [
            running
            for running in self.workflows()
            if device in running.devices and running.state not in FINAL_WORKFLOW_STATES
        ]
        self.admission.exclude(device, f"it was revoked: {reason}")
        try:
            await self.changes.until(
                lambda: all(self._keyed_without(running, device) for running in affected),
                KEYS_S, lambda: StopFailed("a member has not confirmed its new key; see `aif logs`"),
            )  # fmt: skip
        except AIFError as late:
            taken.append(Taken("keys", str(late), ok=False))
        else:
            taken.append(Taken("keys", _words(affected, device, self.clock.monotonic_ms() - started_ms)))
        return taken

    def _keyed_without(self, running: RunningWorkflow, device: str) -> bool:
        if running.state in FINAL_WORKFLOW_STATES:
            return True
        return device in running.without and not self.rekeying.pending(running.aiw_id)


def withdrawn(withdraw: Withdraw, device: str) -> Taken:
    """The first step; an error of it is an outcome."""
    try:
        return Taken("broker", withdraw(device))
    except AIFError as error:
        return Taken("broker", f"{error} ({error.hint})" if error.hint else str(error), ok=False)


def _words(affected: list[RunningWorkflow], device: str, took_ms: float) -> str:
    if not affected:
        return f"{device} had no part in a workflow"
    shown = ", ".join(f"{running.aiw_id} is {running.state}" for running in affected)
    return f"the last member had its new keys after {took_ms:.0f} ms; {shown}"


__all__ = ["Revocation", "Taken", "Withdraw", "withdrawn"]
