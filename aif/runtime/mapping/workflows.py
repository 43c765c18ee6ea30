"""A deployed workflow as the Controller sees it, the feed of events about it, and how long it waits for what.

Values and waiting only; what is done with them is decided by ``controller``, ``bringup`` and ``supervisor``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aif.errors import AIFError
from aif.model.aiw import Workflow
from aif.model.degrading import WHOLE, Service
from aif.model.inventory import Inventory
from aif.model.placement import Placement
from aif.model.standby import kept_ready, served_by, standby_of
from aif.protocol.control import Phase, WorkflowStatus
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES, WorkflowState
from aif.runtime.clock import Clock
from aif.runtime.devices.conditions import Spells
from aif.runtime.devices.grants import End
from aif.runtime.library import AIMLibrary
from aif.runtime.mapping.deployer import Plan

EVENTS_KEPT = 10_000
LONGEST_PULSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the Controller waits before it decides, in seconds; no wait of a workflow is without one."""

    connect_s: float = 60.0
    """For a device to be trusted, before anything is sent."""
    prepare_s: float = 120.0
    """For a device to download and load what its document names."""
    trust_s: float = 30.0
    """For new evidence, for channel keys, and for the start: each."""
    repeat_s: float = 2.0
    """Between two attempts of whatever may have been lost on the way."""
    degraded_s: float = 10.0
    """With ``on_degraded: stop``, for a device that is away to come back."""
    end_s: float = 10.0
    """For an AIM to notice that all its producers have ended, before it is stopped."""
    settle_s: float = 4.0
    """For every record to be counted as received or lost, after the last AIM has ended."""
    dwell_s: float = 30.0
    """For an AIM that has moved, before it moves again for the sake of a better plan."""
    stop_s: float = 3.0
    """For a device to confirm that it has dropped a workflow."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The files that a workflow was read from."""

    workflow: Path
    inventory: Path
    aims: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Awaited:
    """The first output at one of some boundary Ports, and the monotonic time (ms) it is counted from."""

    ports: frozenset[str]
    began_ms: float


@dataclass(frozen=True, slots=True)
class WantedMapping:
    """Where a person wants AIMs to be, and who waits for what becomes of it."""

    places: Mapping[str, tuple[str, str]]
    """AIM id to device and implementation."""
    done: asyncio.Future[Any]
    """Gets the ``remapping.Remapped``, or the error."""


@dataclass(slots=True)
class RunningWorkflow:
    """One workflow as the Controller sees it."""

    aiw_id: str
    workflow: Workflow
    placement: Placement
    inventory: Inventory
    library: AIMLibrary
    state: WorkflowState = WorkflowState.PLANNED
    plan: Plan | None = None
    status: dict[str, WorkflowStatus] = field(default_factory=dict)
    metrics: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failure: AIFError | None = None
    note: str = ""
    task: asyncio.Task[None] | None = None
    paused: bool = False
    paused_aims: set[str] = field(default_factory=set)
    boots: dict[str, bytes] = field(default_factory=dict)
    """The boot of each device whose AIMs belong to this workflow; another boot has lost them."""
    sessions: dict[str, bytes] = field(default_factory=dict)
    """The session of each device that its model keys were last wrapped for."""
    dropped: set[str] = field(default_factory=set)
    """Devices that confirmed that nothing of this workflow is left on them."""
    leaving: frozenset[str] = frozenset()
    """Devices whose AIMs work until their successors do; only then are they told to drop them."""
    without: frozenset[str] = frozenset()
    """Devices that are left out since the newest keys."""
    whole: Workflow = field(init=False)
    """All of it, at its full rate; ``workflow`` is what runs."""
    service: Service = WHOLE
    """How much of it runs: all, or what there is room for."""
    slowed: Spells = field(default_factory=Spells)
    """How often its rate was lowered in a row, and until when it stays so."""
    recast: bool = False
    """Whether its AIMs have changed while it ran: its outputs are not compared with theirs any more."""
    awaited: Awaited | None = None
    """What is still to be seen of the newest re-mapping after a loss."""
    over: set[str] = field(default_factory=set)
    """AIMs that had ended when their device was lost; they go nowhere."""
    unkeyed: dict[bytes, tuple[End, ...]] = field(default_factory=dict)
    """Channels whose ends have changed and have no new key yet, with their senders before."""
    moved_channels: set[bytes] = field(default_factory=set)
    """Channels of which an end has moved: the figures of both ends do not fit together any more."""
    sources: Sources | None = None
    """None for one that was built in memory: it ends with its Controller."""
    resumed: bool = False
    """Taken over from an earlier Controller, whose counts nobody has."""
    wanted: WantedMapping | None = None
    """What a person has asked for and ``healing`` has not done yet."""
    outputs: Counter[str] = field(default_factory=Counter)
    """Records that came out of each boundary Port."""
    unaccounted: dict[str, dict[str, int]] = field(default_factory=dict)
    """By consuming device and channel: messages that were sent and lost together with every word about it.

    What the Controller itself did not get of the workflow's outputs stands under ``controller``.
    """

    def __post_init__(self) -> None:
        self.whole = self.workflow

    @property
    def ended(self) -> bool:
        return self.state in FINAL_WORKFLOW_STATES

    def serve(self, service: Service, now_ms: float) -> None:
        """From now on so much of it runs."""
        before, self.service = self.service, service
        self.workflow = service.of(self.whole)
        self.recast = self.recast or service.left_out != before.left_out
        if service.rate < before.rate:
            self.slowed.begin(now_ms)
        elif service.rate > before.rate:
            self.slowed.end(now_ms)

    def most_rate(self, now_ms: float) -> float:
        """The highest share of its rate that it may have now; a lowered one stays for a while."""
        return 1.0 if now_ms >= self.slowed.until_ms else self.service.rate

    def does_without(self) -> list[str]:
        """What there is no room for, one sentence each."""
        left_out, rate = ", ".join(sorted(self.service.left_out)), self.service.rate
        return [
            *([f"runs without {left_out}, for which there is no room"] if left_out else ()),
            *([f"runs at {rate:.0%} of its rate, as there is no room for more"] if rate < 1.0 else ()),
        ]

    @property
    def devices(self) -> list[str]:
        """Devices with an AIM or a standby; bound boundary Ports are placed too, but are no part."""
        aims = {leaf.id for leaf in self.workflow.aims} - self.over
        return sorted({a.device for a in self.placement.assignments if (served_by(a.aim) or a.aim) in aims})

    @property
    def working(self) -> set[str]:
        """Devices that run an AIM, and do not only hold standbys."""
        aims = {leaf.id for leaf in self.workflow.aims} - self.over
        return {a.device for a in self.placement.assignments if a.aim in aims}

    def without_standbys_on(self, devices: Collection[str]) -> None:
        """It starts without standbys whose devices did not come; they are added when there is time."""
        kept = (a for a in self.placement.assignments if not (served_by(a.aim) and a.device in devices))
        self.placement = replace(self.placement, assignments=tuple(kept))

    @property
    def unready(self) -> set[str]:
        """AIMs that shall be kept ready twice and are not."""
        placed = {a.aim for a in self.placement.assignments}
        wanted = {leaf.id for leaf in kept_ready(self.workflow)} - self.over
        return {aim for aim in wanted if standby_of(aim) not in placed}

    def phase(self, device: str) -> Phase | None:
        """What the device last said under its newest mapping."""
        status = self.status.get(device)
        if status is None or self.plan is None or status.mapping_version != self.plan.version(device):
            return None
        return status.phase

    def phases(self, *wanted: Phase) -> bool:
        """Every device is in one of these phases, under the current mapping."""
        return all(self.phase(device) in wanted for device in self.devices)


class EventFeed:
    """Fans events out to listeners; one that does not keep up loses the oldest."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[dict[str, Any]]] = set()

    def publish(self, event: dict[str, Any]) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    @contextmanager
    def listening(self) -> Iterator[asyncio.Queue[dict[str, Any]]]:
        """Events from now on, until the block ends."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(EVENTS_KEPT)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)


class Changes:
    """Wakes whoever waits for something about devices or workflows."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()

    async def pulse(self, timeout_s: float = LONGEST_PULSE_S) -> None:
        """Until something changes, at most ``timeout_s``."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    async def until(
        self,
        done: Callable[[], bool],
        timeout_s: float,
        late: Callable[[], AIFError],
        *,
        act: Callable[[], None] = lambda: None,
        repeat_s: float = float("inf"),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Act, and act again every ``repeat_s``, until ``done``: what is lost on the way is sent again.

        Args:
            done: the condition.
            timeout_s: longest wait.
            late: makes the error for a wait that was too long.
            act: sends what leads to the condition.
            repeat_s: time between two acts.
            check: raises when the condition can no longer be met.

        Raises:
            AIFError: what ``check`` raised, or ``late``.
        """
        deadline_ms = self._clock.monotonic_ms() + timeout_s * 1000
        next_act_ms = float("-inf")
        while not done():
            check()
            now_ms = self._clock.monotonic_ms()
            if now_ms >= deadline_ms:
                raise late()
            if now_ms >= next_act_ms:
                act()
                next_act_ms = now_ms + repeat_s * 1000
            await self.pulse()
