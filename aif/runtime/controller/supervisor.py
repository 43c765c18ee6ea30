"""Watches over one workflow from START to its end, and decides when and how it ends.

Degraded means that an AIM has failed or that a device is away. What then:

* AIMs of a device that is lost, restarted or drained go to another one, or begin anew there (``healing``).
  Where there is no room for all, optional AIMs are left out. What follows is for AIMs that fit nowhere else.
* A device that comes back in the same boot, or with a new session of its Security Engine, goes on; keys are
  renewed.
* ``on_degraded: stop``: a device that stays away longer than ``Patience.degraded_s`` stops the workflow, with
  the reason; so does one that does not take up its new part.
* ``on_degraded: continue``: the rest goes on, DEGRADED, until its AIMs have ended or a person stops it.
* A failed AIM ends its streams; the rest drains, and the workflow ends as FAILED.
* A device that is not trusted any more, because its evidence was rejected or it was revoked: with
  ``on_degraded: stop`` the workflow fails at once; else the rest gets new keys without it and goes on.
* An AIM whose producers have all ended, but who never heard of it, is stopped after ``Patience.end_s``.

Decides nothing about keys or documents, and takes nothing off a device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from aif.errors import AIMFailed, NotConnected, StartFailed
from aif.protocol.control import ModelKeys, Phase, SignalAIMs
from aif.protocol.lifecycle import ENDED_STATES, Signal, State, WorkflowState
from aif.runtime.agreed import CONTROLLER_SILENCE_S
from aif.runtime.books import ChannelBook, channel_books, figure, output_books
from aif.runtime.devices.grants import MAX_FRAMES, RENEWAL_S
from aif.runtime.devices.links import Trust
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.bringup import Absences, Means, check_devices, emptied
from aif.runtime.mapping.healing import Healing
from aif.runtime.mapping.workflows import RunningWorkflow

KEYS_REPEATED_S = 5.0
"""For this long after a device has a new session its model keys are sent with every look at it."""

_AT_WORK = (State.RUNNING, State.DEGRADED)


class Supervisor:
    """The watch over one workflow."""

    def __init__(
        self,
        running: RunningWorkflow,
        means: Means,
        *,
        healing: Healing,
        log: LogBook,
        move: Callable[[WorkflowState, str], None],
    ) -> None:
        self._running, self._means, self._log, self._move = running, means, log, move
        self._healing = healing
        self._absences = Absences(means.admission, means.clock)
        self._idle: dict[str, tuple[int, float]] = {}
        now_ms = means.clock.monotonic_ms()
        self._renew_ms, self._renew_frames = now_ms + RENEWAL_S * 1000, MAX_FRAMES // 2
        self._signals_ms = now_ms
        self._away: frozenset[str] = frozenset()
        self._sessions: dict[str, bytes] = {}
        self._keys_until_ms: dict[str, float] = {}

    async def run(self) -> tuple[WorkflowState, str]:
        """Start every AIM and watch until the end.

        Returns:
            COMPLETED, or STOPPED with the reason.

        Raises:
            StartFailed: a device did not start its AIMs, or is not trusted any more.
            AIMFailed: it ended, and AIMs had failed on the way.
            NotConnected: it ended without one of its devices.
        """
        running, patience = self._running, self._means.patience
        if running.resumed:
            await self._wait_for_devices()
        else:
            await self._begin()
        while True:
            if await self._healing.heal():
                self._note_sessions(running.devices)
                continue
            stops = running.workflow.metadata.availability.on_degraded == "stop"
            check_devices(running, self._means.admission, rejected_too=stops)
            lost = emptied(running, self._means.admission)
            rest = [d for d in running.devices if d not in lost]
            away = [d for d in rest if not self._means.admission.trusted(d)]
            overdue = self._absences.longer_than(running.devices, patience.degraded_s)
            troubles = self._troubles(away, lost)
            self._show(troubles)
            if (overdue or isinstance(self._healing.failure, StartFailed)) and stops:
                return WorkflowState.STOPPED, "; ".join(troubles)
            present = [d for d in rest if d not in away]
            phases = [running.phase(d) for d in present if d in running.working]
            if {*away, *lost} <= set(overdue) and all(phase is Phase.FINISHED for phase in phases):
                break
            rejected = [d for d in away if self._rejected(d)]
            self._renew(away, lost, rejected)
            self._send_model_keys(present)
            self._repeat_signals(present)
            self._end_orphans(present, rejected)
            await self._means.changes.pulse(1.0)
        if not troubles:
            await self._settle()
            return WorkflowState.COMPLETED, ""
        words = f"{running.aiw_id} ended: {'; '.join(troubles)}"
        raise NotConnected(words) if away or lost else AIMFailed(words, hint="see `aif logs`")

    async def _begin(self) -> None:
        running = self._running
        await self._means.changes.until(
            lambda: running.phases(Phase.RUNNING, Phase.PAUSED, Phase.FINISHED),
            self._means.patience.trust_s, self._not_started,
            act=self._start, repeat_s=self._means.patience.repeat_s,
            check=lambda: check_devices(running, self._means.admission),
        )  # fmt: skip
        self._show([])

    async def _wait_for_devices(self) -> None:
        """They work on, notice that the Controller was silent, and ask for a new session."""
        running, means = self._running, self._means
        deadline_ms = means.clock.monotonic_ms() + (CONTROLLER_SILENCE_S + means.patience.degraded_s) * 1000
        while means.clock.monotonic_ms() < deadline_ms:
            if all(means.admission.trusted(d) and d in running.status for d in running.devices):
                break
            await means.changes.pulse(1.0)
        self._renew_ms = means.clock.monotonic_ms()  # nobody knows how long the old keys are good for

    # --- state -------------------------------------------------------------------------------------

    def _troubles(self, away: list[str], lost: list[str]) -> list[str]:
        """What is wrong now, one sentence each."""
        links = {device: self._means.admission.link(device) for device in away}
        return [
            *(f"AIM {aim} failed: {detail}" for aim, detail in self._failed().items()),
            *(
                f"device {d} is {'not trusted' if self._rejected(d) else 'away'}"
                + (f" ({link.reason})" if link.reason else "")
                for d, link in links.items()
            ),
            *(f"device {device} was stopped or restarted and has lost its AIMs" for device in lost),
            *([str(self._healing.failure)] if isinstance(self._healing.failure, StartFailed) else ()),
        ]

    def _rejected(self, device: str) -> bool:
        return self._means.admission.link(device).trust is Trust.REJECTED

    def _failed(self) -> dict[str, str]:
        reports = (report for status in self._running.status.values() for report in status.aims.items())
        return {aim: report.detail for aim, report in reports if report.state is State.FAILED}

    def _show(self, troubles: list[str]) -> None:
        running = self._running
        state = WorkflowState.PAUSED if running.paused else WorkflowState.RUNNING
        told = [*troubles, *running.does_without()]
        shown = (WorkflowState.DEGRADED if told else state, "; ".join(told))
        if shown != (running.state, running.note):
            self._move(*shown)

    # --- what devices are told ---------------------------------------------------------------------

    def _start(self) -> None:
        for device in self._running.devices:
            if self._running.phase(device) is Phase.READY:
                self._send(device, "", Signal.START)

    def _not_started(self) -> StartFailed:
        late = [d for d in self._running.devices if self._running.phase(d) is Phase.READY]
        return StartFailed(f"{', '.join(late) or 'a device'} did not start in time", hint="see `aif logs`")

    def _send(self, device: str, aim: str, signal: Signal) -> None:
        self._means.admission.send(device, SignalAIMs(self._running.aiw_id, aim, signal))

    def _renew(self, away: list[str], lost: list[str], rejected: list[str]) -> None:
        """New keys in time, before they are used up, for who came back, and without who has left."""
        running, now_ms = self._running, self._means.clock.monotonic_ms()
        back = self._new_session(lost) or self._away - set(away) - set(lost)
        without = frozenset((*lost, *rejected))
        left = without - running.without
        self._away, running.without = frozenset(away), without
        frames = max((figure(m, "messages", "frames") for m in running.metrics.values()), default=0)
        due = now_ms >= self._renew_ms or frames >= self._renew_frames
        if running.plan is None or not (back or left or due):
            return
        self._renew_ms, self._renew_frames = now_ms + RENEWAL_S * 1000, frames + MAX_FRAMES // 2
        self._means.rekeying.renew(running.plan, without=lost, refused=rejected)

    def _new_session(self, lost: list[str]) -> bool:
        """Whether a device was admitted with another session key: its Security Engine was started again."""
        before = dict(self._sessions)
        now = self._note_sessions(d for d in self._running.devices if d not in lost)
        return any(before.get(device, key) != key for device, key in now.items())

    def _note_sessions(self, devices: Iterable[str]) -> dict[str, bytes]:
        links = {device: self._means.admission.link(device) for device in devices}
        now = {d: link.hello.session_public for d, link in links.items() if link.hello is not None}
        self._sessions |= now
        return now

    def _send_model_keys(self, present: list[str]) -> None:
        """Keys of its models for a device whose Security Engine was started anew; said a few times."""
        running, now_ms = self._running, self._means.clock.monotonic_ms()
        for device in present:
            hello = self._means.admission.link(device).hello
            if hello is None or running.plan is None:
                continue
            if running.sessions.get(device) != hello.session_public:
                running.sessions[device] = hello.session_public
                self._keys_until_ms[device] = now_ms + KEYS_REPEATED_S * 1000
            if now_ms < self._keys_until_ms.get(device, 0.0):
                keys = self._means.deployer.content_keys(running.plan, device, hello.session_public)
                if keys:
                    self._means.admission.send(device, ModelKeys(keys))

    def _repeat_signals(self, present: list[str]) -> None:
        """PAUSE and RESUME again, where a device has not followed."""
        running, now_ms = self._running, self._means.clock.monotonic_ms()
        if now_ms < self._signals_ms:
            return
        self._signals_ms = now_ms + self._means.patience.repeat_s * 1000
        for device in present:
            phase, status = running.phase(device), running.status.get(device)
            if running.paused and phase is Phase.RUNNING:
                self._send(device, "", Signal.PAUSE)
            elif not running.paused and phase is Phase.PAUSED:
                self._send(device, "", Signal.RESUME)
            elif status is not None and phase is Phase.RUNNING:
                for aim, report in status.aims.items():
                    if aim in running.paused_aims and report.state in _AT_WORK:
                        self._send(device, aim, Signal.PAUSE)
                    elif aim not in running.paused_aims and report.state is State.PAUSED:
                        self._send(device, aim, Signal.RESUME)

    def _end_orphans(self, present: list[str], lost: list[str]) -> None:
        """Stop AIMs that wait for nobody: all their producers have ended, and the word of it was lost."""
        running, now_ms = self._running, self._means.clock.monotonic_ms()
        status, fed_by = running.status, _feeders(running)
        states = {a: r.state for d, s in status.items() if d not in lost for a, r in s.aims.items()}
        ended = {aim for aim, state in states.items() if state in ENDED_STATES}
        ended |= {aim for device in lost if device in status for aim in status[device].aims}
        for device in present:
            for aim in status[device].aims if device in status else ():
                feeders = fed_by.get(aim, set())
                if not feeders or not feeders <= ended or states[aim] not in _AT_WORK:
                    self._idle.pop(aim, None)
                    continue
                worked = figure(running.metrics.get(device, {}), "aims", aim, "invocations")
                before, since_ms = self._idle.setdefault(aim, (worked, now_ms))
                if worked != before:
                    self._idle[aim] = (worked, now_ms)
                elif now_ms - since_ms > self._means.patience.end_s * 1000:
                    self._log.warning(
                        "AIM stopped: the end of its input was lost", aiw=running.aiw_id, aim=aim
                    )
                    self._idle[aim] = (worked, now_ms)
                    self._send(device, aim, Signal.STOP)

    # --- the end -----------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Wait until each record that was sealed has been counted, and count what nobody else has."""
        deadline_ms = self._means.clock.monotonic_ms() + self._means.patience.settle_s * 1000
        while self._open_books() and self._means.clock.monotonic_ms() < deadline_ms:
            await self._means.changes.pulse()
        for book in self._open_books():
            self._running.unaccounted.setdefault(book.device, {})[book.channel] = book.unaccounted
            self._log.warning(
                "messages lost, and the word of it too", aiw=self._running.aiw_id, channel=book.channel,
                device=book.device, messages=book.unaccounted,
            )  # fmt: skip

    def _open_books(self) -> list[ChannelBook]:
        running = self._running
        if running.resumed:
            return []
        channels = running.plan.channels if running.plan else {}
        moved = running.moved_channels
        books = (
            *channel_books({c: v for c, v in channels.items() if c not in moved}, running.metrics),
            *(output_books(running.outputs, running.metrics) if not (moved or running.recast) else ()),
        )
        return [book for book in books if book.unaccounted]


def _feeders(running: RunningWorkflow) -> Mapping[str, set[str]]:
    """The producers of each AIM; AIMs that a person feeds through a boundary Port are left out."""
    feeders: defaultdict[str, set[str]] = defaultdict(set)
    fed_by_hand = set()
    for channel in running.workflow.channels:
        if channel.source.at_boundary:
            fed_by_hand.add(channel.destination.aim)
        elif not channel.destination.at_boundary:
            feeders[channel.destination.aim].add(channel.source.aim)
    return {aim: producers for aim, producers in feeders.items() if aim not in fed_by_hand}
