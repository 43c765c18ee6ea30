"""From a Placement to READY on every device: documents, evidence, keys, in this order.

Wait for trusted devices (for those that would only stand by not long), send signed documents, wait until all
have prepared, attest again under the new mapping, grant channel keys, wait until all are READY. Nothing is
started here, and nothing is taken back: whoever called does that when a step fails.

Invariants: one workflow at a time passes from documents to evidence, because mapping versions only grow on a
device; a device that starts anew in the middle gets its document again or ends the attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from aif.errors import AIFError, StartFailed
from aif.model.inventory import DeviceClass
from aif.protocol import control
from aif.protocol.control import InstalledRelease, Phase
from aif.protocol.numbers import limits_of
from aif.runtime.clock import Clock
from aif.runtime.devices.admission import Admission
from aif.runtime.devices.links import Trust
from aif.runtime.mapping.deployer import Deployer, Plan
from aif.runtime.mapping.rekeying import Rekeying
from aif.runtime.mapping.releases import DeviceFacts, ResolvedModel
from aif.runtime.mapping.workflows import Changes, Patience, RunningWorkflow

ModelResolver = Callable[[str, str], ResolvedModel]


@dataclass(frozen=True, slots=True)
class Means:
    """What it takes to bring up a workflow and to watch over it."""

    admission: Admission
    rekeying: Rekeying
    deployer: Deployer
    changes: Changes
    clock: Clock
    patience: Patience
    next_mapping_version: Callable[[], int]
    hw_class_of: Callable[[str], str]
    resolve_model: ModelResolver
    open_channels: Callable[[Plan], None] = lambda _: None
    """Gives the plan's devices their rights at the broker; may block."""
    changed_mapping: Callable[[RunningWorkflow], None] = lambda _: None
    """Told of every new mapping, before any device is; may raise when it cannot be kept."""


class Absences:
    """Since when devices of a workflow have been without trust."""

    def __init__(self, admission: Admission, clock: Clock) -> None:
        self._admission, self._clock = admission, clock
        self._since_ms: dict[str, float] = {}

    def longer_than(self, devices: Collection[str], seconds: float) -> list[str]:
        """Devices that have been away for more than ``seconds``; call it regularly."""
        now_ms = self._clock.monotonic_ms()
        away = [device for device in devices if not self._admission.trusted(device)]
        self._since_ms = {device: self._since_ms.get(device, now_ms) for device in away}
        return [device for device in away if now_ms - self._since_ms[device] > seconds * 1000]


class BringUp:
    """One attempt to bring one workflow up."""

    def __init__(self, running: RunningWorkflow, means: Means, *, on_waiting: Callable[[str], None]) -> None:
        self._running, self._means = running, means
        self._absences = Absences(means.admission, means.clock)
        self._on_waiting = on_waiting

    async def run(self, turn: asyncio.Lock) -> None:
        """Every step up to READY.

        Args:
            turn: held from the documents to the evidence, so that mapping versions reach devices in order.

        Raises:
            StartFailed: a device did not come, did not follow in time, or reported why it cannot.
            StoreError: a model is not in the Store, or the Store cannot be asked.
            TransportError: the broker's access rules cannot be changed.
        """
        running, means, patience = self._running, self._means, self._means.patience
        admission, until = means.admission, means.changes.until
        await self._wait_for(running.working, patience.connect_s)
        with suppress(StartFailed):
            await self._wait_for(running.devices, patience.degraded_s)
        running.without_standbys_on({d for d in running.devices if not admission.trusted(d)})
        self._on_waiting("")
        async with turn:
            plan = running.plan = await asyncio.to_thread(self._plan)
            await asyncio.to_thread(means.open_channels, plan)
            await until(
                lambda: running.phases(Phase.PREPARED, Phase.READY),
                patience.prepare_s, lambda: self._behind("prepare its AIMs", Phase.PREPARED, Phase.READY),
                act=lambda: self._send_documents(plan), repeat_s=patience.repeat_s, check=self._check,
            )  # fmt: skip
            note_installed(plan, admission)
            await until(
                lambda: not self._unattested(plan),
                patience.trust_s, lambda: self._behind("be attested under the new mapping"),
                act=lambda: self._attest(plan), repeat_s=patience.repeat_s, check=self._check_boots,
            )  # fmt: skip
        await until(
            lambda: running.phases(Phase.READY),
            patience.trust_s, lambda: self._behind("take its channel keys", Phase.READY),
            act=lambda: self._send_keys(plan), repeat_s=patience.repeat_s,
            check=self._check_boots,
        )  # fmt: skip

    async def _wait_for(self, devices: Collection[str], timeout_s: float) -> None:
        """Until all of these are trusted."""
        await self._means.changes.until(
            lambda: all(self._means.admission.trusted(device) for device in devices),
            timeout_s, self._missing,
            act=lambda: self._on_waiting(self._away()), repeat_s=self._means.patience.repeat_s,
        )  # fmt: skip

    # --- steps -------------------------------------------------------------------------------------

    def _plan(self) -> Plan:
        running, means = self._running, self._means
        return means.deployer.plan(
            running.aiw_id, running.workflow, running.placement, means.next_mapping_version(),
            now_us=means.clock.time_us(), package_digest=running.library.digest,
            resolve_model=means.resolve_model,
            device_facts=lambda device: device_facts(device, running, means),
        )  # fmt: skip

    def _send_documents(self, plan: Plan) -> None:
        for device in plan.documents:
            send_document(device, plan, self._running, self._means)

    def _attest(self, plan: Plan) -> None:
        for device in self._unattested(plan):
            self._means.admission.challenge(device, mapping_version=plan.mapping_version)

    def _send_keys(self, plan: Plan) -> None:
        """New keys, unless some are on their way; a device that was away for a moment gets the next ones."""
        if not self._means.rekeying.pending(plan.aiw_id):
            self._means.rekeying.renew(plan)

    def _unattested(self, plan: Plan) -> list[str]:
        link = self._means.admission.link
        return [d for d in self._running.devices if link(d).attested_mapping != plan.mapping_version]

    # --- what goes wrong ---------------------------------------------------------------------------

    def _check(self) -> None:
        check_devices(self._running, self._means.admission)
        gone = self._absences.longer_than(self._running.devices, self._means.patience.degraded_s)
        if gone:
            reason = self._means.admission.link(gone[0]).reason
            raise StartFailed(
                f"{gone[0]} was lost while {self._running.aiw_id} was deployed: {reason}",
                hint="see that it runs and reaches the broker, then deploy again",
            )

    def _check_boots(self) -> None:
        self._check()
        for device in emptied(self._running, self._means.admission):
            raise StartFailed(
                f"{device} was stopped or restarted while {self._running.aiw_id} was deployed",
                hint="deploy it again",
            )

    def _away(self) -> str:
        """Devices that are missing, in words; empty when none is."""
        links = [self._means.admission.link(device) for device in self._running.devices]
        away = [link for link in links if link.trust is not Trust.TRUSTED]
        words = [
            f"{link.device} is {link.trust}" + (f" ({link.reason})" if link.reason else "") for link in away
        ]
        return f"waits for devices: {'; '.join(words)}" if words else ""

    def _missing(self) -> AIFError:
        return StartFailed(
            f"{self._running.aiw_id} {self._away()}",
            hint="add each with `aif device add` and start it with `aif host` or `aif mcu`",
        )

    def _behind(self, what: str, *phases: Phase) -> AIFError:
        late = [d for d in self._running.devices if not phases or self._running.phase(d) not in phases]
        return StartFailed(f"{', '.join(late)} did not {what} in time", hint="see `aif logs`")


def device_facts(device: str, running: RunningWorkflow, means: Means) -> DeviceFacts:
    """What the deployer must know about a device."""
    installed = tuple(means.admission.link(device).installed.values())
    kind = running.inventory.device(device).device_class
    in_place = kind is DeviceClass.MCU
    return DeviceFacts(means.hw_class_of(device), installed, in_place, limits_of(kind))


def send_document(device: str, plan: Plan, running: RunningWorkflow, means: Means) -> None:
    """Send a device its document and the keys of its models, unless it says that it has it."""
    hello = means.admission.link(device).hello
    if hello is None:
        return
    if running.boots.get(device) != hello.boot_id:
        running.boots[device] = hello.boot_id
        running.status.pop(device, None)
        running.dropped.discard(device)
    if running.phase(device) is None:
        running.sessions[device] = hello.session_public
        keys = means.deployer.content_keys(plan, device, hello.session_public)
        means.admission.send(device, control.Deploy(plan.documents[device], keys))


def note_installed(plan: Plan, admission: Admission) -> None:
    """What the devices of a plan have now."""
    for model in plan.models:
        admission.link(model.device).installed[model.component] = InstalledRelease(
            model.component, model.counter, model.sha256, model.slot, model.ticket_digest
        )


def check_devices(running: RunningWorkflow, admission: Admission, *, rejected_too: bool = True) -> None:
    """Raise what a device reported as its failure, or (``rejected_too``) that one has lost its trust.

    Raises:
        StartFailed: with the device's name and its own words.
    """
    for device in running.devices:
        status, link = running.status.get(device), admission.link(device)
        if running.phase(device) is Phase.FAILED and status is not None and status.failure is not None:
            failure = status.failure
            raise StartFailed(f"{device}: {failure.code}: {failure.message}", hint=failure.hint)
        if rejected_too and link.trust is Trust.REJECTED:
            raise StartFailed(
                f"{device} is not trusted: {link.reason}",
                hint=f"see `aif trust show {device}` for its appraisal",
            )


def emptied(running: RunningWorkflow, admission: Admission) -> list[str]:
    """Devices that have dropped their part by themselves, or started anew since they got their document."""
    return [
        device
        for device, boot in running.boots.items()
        if device in running.dropped
        or ((hello := admission.link(device).hello) is not None and hello.boot_id != boot)
    ]
