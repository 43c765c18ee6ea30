"""One change of a running workflow's mapping: from what has happened to moved AIMs that work.

Send documents to the devices whose part changes, attest those, give new keys to the channels whose ends have
changed, start what has moved. Everything else goes on meanwhile. A source that has moved starts afresh; what
was on its way to an AIM of a lost device is lost, and counted by nobody but its sender, unless its channel is
acknowledged: then the devices of its producers see to it, and no step here is for them.

Decides the order; when there is a reason to move is decided by ``healing``, where to by the planner.

Invariants: a mapping version reaches a device once; a device that is left out gets no key of a new epoch, and
what it still sends is refused; an attempt that fails may be made again, and then continues where it stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from aif.errors import AIFError, StartFailed
from aif.model.aiw import Workflow
from aif.model.placement import Mended, Placement
from aif.model.ports import PortRef
from aif.model.standby import in_words, served_by, standby_of
from aif.protocol import control
from aif.protocol.control import Phase
from aif.protocol.lifecycle import ENDED_STATES, Signal, State
from aif.runtime.devices.grants import End
from aif.runtime.devices.links import Trust
from aif.runtime.mapping.bringup import Means, device_facts, note_installed, send_document
from aif.runtime.mapping.deployer import Plan
from aif.runtime.mapping.workflows import Awaited, RunningWorkflow

AT_WORK = (Phase.RUNNING, Phase.PAUSED, Phase.FINISHED)
TAKEN = (Phase.PREPARED, Phase.READY, *AT_WORK)


@dataclass(frozen=True, slots=True)
class Change:
    """What has to be different.

    Attributes:
        reason: why, in words.
        lost: devices that nobody reaches, in the workflow or not.
        resting: devices that shall run nothing.
        anew: devices that have lost their AIMs but may have them again.
        began_ms: monotonic time of the first sign.
        noticed_ms: when that became certain; None where nothing had to be noticed.
        spare: whether nothing waits for it, so that it is put off for whatever has to be done first.
    """

    reason: str
    lost: frozenset[str]
    resting: frozenset[str]
    anew: frozenset[str]
    began_ms: float
    noticed_ms: float | None = None
    spare: bool = False

    @property
    def away(self) -> frozenset[str]:
        """Devices that may run nothing."""
        return self.lost | self.resting


@dataclass(frozen=True, slots=True)
class Move:
    """An AIM that goes from one device to another; the same one twice where it begins anew.

    One that is left out goes to no device, and comes back from none.
    """

    aim: str
    source: str
    destination: str

    def __str__(self) -> str:
        name, nowhere = in_words(self.aim), "nowhere" if served_by(self.aim) else "left out"
        if not self.destination:
            return f"{name}: {nowhere}, was on {self.source}"
        return f"{name}: {self.source or nowhere} -> {self.destination}"


@dataclass(frozen=True, slots=True)
class Remapped:
    """What a change came to, with the time of each stage (ms) since it began."""

    reason: str
    moves: tuple[Move, ...]
    mapping_version: int
    stages_ms: Mapping[str, float]


class TargetFailed(StartFailed):
    """A device did not take up what it was given; another one may."""

    def __init__(self, device: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.device = device


class PutOff(StartFailed):
    """A change that nothing waits for is not made now, because a device was lost meanwhile."""


def moves_between(running: RunningWorkflow, after: Placement, anew: Collection[str]) -> tuple[Move, ...]:
    """What changes place, standbys too; what was on a device that begins anew counts as well."""
    old = {a.aim: a.device for a in running.placement.assignments}
    new = {a.aim: a.device for a in after.assignments}
    aims = [leaf.id for leaf in running.whole.aims if leaf.id not in running.over]
    names = (*aims, *map(standby_of, aims))
    moves = (Move(name, old.get(name, ""), new.get(name, "")) for name in names)
    return tuple(m for m in moves if m.source != m.destination or m.source in anew)


def note_over(running: RunningWorkflow, gone: Collection[str]) -> None:
    """AIMs that had ended on devices that are gone need no other place."""
    for device in gone:
        status = running.status.get(device)
        aims = status.aims.items() if status is not None else ()
        running.over |= {aim for aim, report in aims if report.state in ENDED_STATES}


def unheard(running: RunningWorkflow) -> set[str]:
    """AIMs that are over and that producers still wait for, because the last acknowledgement was lost."""
    channels = running.plan.channels.values() if running.plan is not None else ()
    ends = {PortRef.parse(c.destinations[0]).aim for c in channels if c.acknowledged and not c.returns}
    return ends & running.over


def outputs_behind(workflow: Workflow, aims: Collection[str]) -> set[str]:
    """Boundary Ports that something depends on which these AIMs produce."""
    reached, found = {*aims}, set[str]()
    size = -1
    while len(reached) != size:
        size = len(reached)
        for channel in workflow.channels:
            if channel.source.aim in reached:
                (found if channel.destination.at_boundary else reached).add(
                    channel.destination.port if channel.destination.at_boundary else channel.destination.aim
                )
    return found


class Remapping:
    """One attempt to give a running workflow another mapping."""

    def __init__(self, running: RunningWorkflow, means: Means, change: Change) -> None:
        self._running, self._means, self._change = running, means, change
        self._stages_ms: dict[str, float] = {}
        if change.noticed_ms is not None:
            self._stages_ms["noticed"] = round(change.noticed_ms - change.began_ms, 1)

    async def run(self, turn: asyncio.Lock, mended: Mended) -> Remapped:
        """Every step up to the start of what has moved.

        Args:
            turn: held from the documents to the evidence, so that mapping versions reach devices in order.
            mended: where everything goes.

        Raises:
            StartFailed: a device did not follow; it names the device.
            StoreError, TransportError: as ``BringUp.run``.
        """
        running, means, away = self._running, self._means, self._change.away
        moves = moves_between(running, mended.placement, self._change.anew)
        self._stage("planned")
        async with turn:
            before = running.plan
            plan = await asyncio.to_thread(self._documents, mended)
            await asyncio.to_thread(means.open_channels, plan)
            self._adopt(mended, plan, before)
            changed = [d for d in running.devices if running.phase(d) is None]
            await self._until(
                lambda: all(running.phase(d) in TAKEN for d in changed), means.patience.prepare_s, changed,
                "prepare its AIMs", lambda: self._send_documents(plan, changed),
            )  # fmt: skip
            note_installed(plan, means.admission)
            self._stage("deployed")
            await self._until(
                lambda: not self._unattested(plan, changed), means.patience.trust_s, changed,
                "be attested under the new mapping", lambda: self._attest(plan, changed),
            )  # fmt: skip
        self._stage("attested")
        self._renew(plan, away)
        await self._until(
            lambda: all(running.phase(d) in (Phase.READY, *AT_WORK) for d in changed)
            and not means.rekeying.pending(running.aiw_id),
            means.patience.trust_s, changed, "take its channel keys", lambda: self._send_keys(plan, away),
        )  # fmt: skip
        running.unkeyed.clear()
        self._stage("keyed")
        if self._change.noticed_ms is not None:
            ports = outputs_behind(running.workflow, {move.aim for move in moves})
            running.awaited = Awaited(frozenset(ports), self._change.began_ms) if ports else None
        await self._until(
            lambda: not any(self._waiting(d) for d in changed), means.patience.trust_s, changed,
            "start its AIMs", lambda: self._start(changed),
        )  # fmt: skip
        self._stage("started")
        self._withdraw()
        return Remapped(self._change.reason, moves, plan.mapping_version, self._stages_ms)

    # --- steps -------------------------------------------------------------------------------------

    def _documents(self, mended: Mended) -> Plan:
        """Parts that a device has not taken up (an attempt that failed) get a new version too."""
        running, means = self._running, self._means
        behind = {d for d in running.devices if running.phase(d) is None}
        return means.deployer.plan(
            running.aiw_id, running.whole.without(mended.service.left_out), mended.placement,
            means.next_mapping_version(), rate=mended.service.rate,
            now_us=means.clock.time_us(), package_digest=running.library.digest,
            resolve_model=means.resolve_model, previous=running.plan,
            anew={*self._change.anew, *behind},
            over=running.over, device_facts=lambda device: device_facts(device, running, means),
        )  # fmt: skip

    def _adopt(self, mended: Mended, plan: Plan, before: Plan | None) -> None:
        """From here on the workflow is what the new plan says."""
        running, trusted = self._running, self._means.admission.trusted
        suspect = {*self._change.anew, *(d for d in self._change.away if not trusted(d))}
        for channel_id, former in changed_channels(before, plan, suspect).items():
            running.unkeyed[channel_id] = (*running.unkeyed.get(channel_id, ()), *former)
            running.moved_channels.add(channel_id)
        if mended.service != running.service:
            running.serve(mended.service, self._means.clock.monotonic_ms())
        running.placement, running.plan = mended.placement, plan
        running.without = frozenset()
        had_part = running.leaving | frozenset(before.documents if before is not None else ())
        running.leaving = had_part - {*running.devices}  # one that an attempt left that failed may be back
        for device in set(running.status) - set(running.devices):
            del running.status[device]
            running.metrics.pop(device, None)
        for device in set(running.boots) - set(running.devices):
            del running.boots[device]
        self._means.changed_mapping(running)

    def _send_documents(self, plan: Plan, changed: Collection[str]) -> None:
        for device in changed:
            if self._running.phase(device) is None:
                send_document(device, plan, self._running, self._means)

    def _unattested(self, plan: Plan, changed: Collection[str]) -> list[str]:
        link = self._means.admission.link
        return [d for d in changed if link(d).attested_mapping != plan.mapping_version]

    def _attest(self, plan: Plan, changed: Collection[str]) -> None:
        for device in self._unattested(plan, changed):
            self._means.admission.challenge(device, mapping_version=plan.mapping_version)

    def _send_keys(self, plan: Plan, away: Collection[str]) -> None:
        if not self._means.rekeying.pending(plan.aiw_id):
            self._renew(plan, away)

    def _renew(self, plan: Plan, away: Collection[str]) -> None:
        """Who is not trusted has no say any more, even where an AIM of it has ended."""
        refused = [device for device in away if not self._means.admission.trusted(device)]
        self._means.rekeying.renew(plan, only=self._running.unkeyed, without=away, refused=refused)

    def _waiting(self, device: str) -> bool:
        """Whether a device has AIMs that were not started."""
        status = self._running.status.get(device)
        if status is None or self._running.phase(device) not in AT_WORK:
            return True
        return any(report.state is State.IDLE for report in status.aims.values())

    def _start(self, changed: Collection[str]) -> None:
        for device in changed:
            if self._waiting(device):
                message = control.SignalAIMs(self._running.aiw_id, "", Signal.START)
                self._means.admission.send(device, message)

    def _withdraw(self) -> None:
        """Devices that have no part any more drop what they hold; told again when they report it."""
        for device in self._running.leaving:
            self._means.admission.send(device, control.Undeploy(self._running.aiw_id))
        self._running.leaving = frozenset()

    # --- waiting -----------------------------------------------------------------------------------

    def _stage(self, name: str) -> None:
        self._stages_ms[name] = round(self._means.clock.monotonic_ms() - self._change.began_ms, 1)

    async def _until(
        self,
        done: Callable[[], bool],
        timeout_s: float,
        changed: Collection[str],
        what: str,
        act: Callable[[], None],
    ) -> None:
        await self._means.changes.until(
            done, timeout_s, lambda: self._late(changed, what),
            act=act, repeat_s=self._means.patience.repeat_s, check=lambda: self._check(changed),
        )  # fmt: skip

    def _late(self, changed: Collection[str], what: str) -> AIFError:
        late = [d for d in changed if self._running.phase(d) not in AT_WORK] or list(changed)
        return TargetFailed(late[0], f"{', '.join(late)} did not {what} in time", hint="see `aif logs`")

    def _check(self, changed: Collection[str]) -> None:
        """Raise what a device said against its new part, or that it has gone meanwhile."""
        running, link = self._running, self._means.admission.link
        away = [d for d in running.devices if link(d).trust in (Trust.LOST, Trust.REJECTED)]
        if self._change.spare and away:
            raise PutOff(f"{away[0]} is {link(away[0]).trust}, which comes first")
        for device in changed:
            status = running.status.get(device)
            if status is not None and status.failure is not None:
                failure = status.failure
                raise TargetFailed(device, f"{device}: {failure.code}: {failure.message}", hint=failure.hint)
            if not self._means.admission.trusted(device):
                raise TargetFailed(device, f"{device} was lost meanwhile: {link(device).reason}")


def changed_channels(
    before: Plan | None, after: Plan, suspect: Collection[str]
) -> dict[bytes, tuple[End, ...]]:
    """Channels that need new keys because an end is new or has gone, with their senders before.

    So do those with an end on a ``suspect`` device: one that begins anew, or is not trusted any more.
    """
    changed: dict[bytes, tuple[End, ...]] = {}
    for channel_id in after.channels:
        ends = {*after.senders[channel_id], *after.receivers[channel_id]}
        if before is None or channel_id not in before.channels:
            changed[channel_id] = ()
        elif ends != {*before.senders[channel_id], *before.receivers[channel_id]} or any(
            end.device in suspect for end in ends
        ):
            changed[channel_id] = before.senders[channel_id]
    return changed
