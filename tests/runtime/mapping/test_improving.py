"""When a better plan is asked for and proposed: real planner, real conditions, a clock that a test moves."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

from aif.config import load_catalogue
from aif.model.aim import StateKind
from aif.model.inventory import Inventory
from aif.model.placement import Assignment, Placement
from aif.model.ports import Delivery
from aif.runtime.devices.conditions import RETURN_FIRST_MS, RETURN_MOST_MS
from aif.runtime.devices.delays import WINDOW_QUESTIONS
from aif.runtime.devices.sensing import LEAST_PLANNED_MS, Sensing
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.improving import SEARCH_EVERY_S, Improvement, Improving, Sight
from aif.runtime.mapping.planning import Planning
from aif.runtime.mapping.remapping import moves_between
from aif.runtime.mapping.workflows import RunningWorkflow
from tests.partitioner.test_site_improvement import BATTERY, CODE, INVENTORY, PLANNER, chain, measured
from tests.runtime.virtual_clock import VirtualClock

DWELL_S = 30.0
WINDOW_MS = 4_000.0


class Bench:
    """``sense`` on ``near``; ``work`` runs best on ``fast``, and else on ``slow``."""

    def __init__(self, *, work: str = "fast", deadline_ms: float | None = None) -> None:
        self.clock, self.stream = VirtualClock(), io.StringIO()
        log = LogBook("controller", self.clock, self.stream)
        self.sensing = Sensing(log)
        self.inventory: Inventory = measured(INVENTORY, "fast", energy=replace(BATTERY, active_mw=8.0))
        self.sensing.expect(self.inventory)
        assignments = tuple(Assignment(aim, at, "py") for aim, at in (("sense", "near"), ("work", work)))
        placement = Placement("W", "1.0", "three", 1, assignments)
        self.running = RunningWorkflow(
            "W-1", chain(deadline_ms=deadline_ms), placement, self.inventory, AIMLibrary(load_catalogue([]))
        )
        self.absent = self.closed = frozenset[str]()
        self.improving = Improving(
            self.running, Planning(PLANNER, list, self.sensing, lambda inventory: inventory),
            absent=lambda: self.absent, closed=lambda: self.closed,
            dwell_s=DWELL_S, clock=self.clock, log=log,
        )  # fmt: skip
        self.moves: list[tuple[float, str]] = []
        self.rtt_ms, self.level = 2.0, 1.0
        self.noise_ms: Callable[[], float] = lambda: 0.0

    async def look(self) -> Improvement | None:
        """What is proposed once a search that this look begins has ended."""
        proposal = self.improving.look()
        search = self.improving._search
        if search is None or proposal is not None:
            return proposal
        await asyncio.wait({search.task})
        return self.improving.look()

    async def live(self, windows: int) -> None:
        """Time passes; ``fast`` answers as it does, and what is proposed is done."""
        for _ in range(windows):
            for _ in range(WINDOW_QUESTIONS):
                self.clock.now_ms += WINDOW_MS / WINDOW_QUESTIONS
                for name in ("near", "fast", "slow"):
                    self.sensing.asked(name, self.clock.now_ms)
                    self.sensing.answered(name, self.rtt_ms + self.noise_ms() if name == "fast" else 2.0)
            self.sensing.battery("fast", self.level, self.clock.now_ms)
            proposal = await self.look()
            if proposal is not None:
                self.move(proposal)

    def move(self, proposal: Improvement) -> None:
        moves = moves_between(self.running, proposal.mended.placement, ())
        self.running.placement = proposal.mended.placement
        self.improving.moved((move.aim for move in moves), in_haste=False)
        self.moves += [(self.clock.now_ms, str(move)) for move in moves]

    def lose(self, aim: str, destination: str) -> None:
        """The AIM has to move."""
        others = [a for a in self.running.placement.assignments if a.aim != aim]
        placement = Placement("W", "1.0", "three", 1, (*others, Assignment(aim, destination, "py")))
        self.running.placement = placement
        self.improving.moved([aim], in_haste=True)

    def told(self, event: str) -> list[dict[str, str]]:
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]


def run(bench: Bench, journey: Callable[[Bench], Awaitable[None]]) -> None:
    async def whole() -> None:
        try:
            await journey(bench)
        finally:
            bench.improving.close()

    asyncio.run(whole())


AWAY, BACK = "work: fast -> slow", "work: slow -> fast"


def test_nothing_is_asked_while_nothing_changes() -> None:
    async def journey(bench: Bench) -> None:
        await bench.live(100)
        assert bench.moves == []
        assert not bench.told("the plan stays")

    run(Bench(), journey)


def test_a_device_that_appears_is_used_when_that_is_worth_it_and_the_dwell_is_over() -> None:
    async def journey(bench: Bench) -> None:
        bench.absent = frozenset({"fast"})
        await bench.live(1)
        bench.absent = frozenset()
        began_ms = bench.clock.now_ms
        await bench.live(20)
        assert [move for _, move in bench.moves] == [BACK]
        assert bench.moves[0][0] - began_ms >= DWELL_S * 1000 - WINDOW_MS

    run(Bench(work="slow"), journey)


def test_a_device_that_is_closed_or_leaves_promises_nothing() -> None:
    async def journey(bench: Bench) -> None:
        bench.closed = frozenset({"fast"})
        await bench.live(20)
        bench.absent = frozenset({"fast"})
        await bench.live(20)
        assert bench.moves == []
        assert not bench.told("the plan stays")

    run(Bench(work="slow"), journey)
    before = Sight(frozenset("ab"), frozenset())
    assert not Sight(frozenset("a"), frozenset()).promises(before)
    assert Sight(frozenset("ac"), frozenset()).promises(before)
    assert Sight(frozenset("a"), frozenset({"a answers slowly"})).promises(before)
    assert (
        before.since(Sight(frozenset("a"), frozenset({"a is low"}))) == "b can take AIMs; no longer: a is low"
    )


def test_a_plan_that_saves_too_little_is_refused_once_and_told() -> None:
    async def journey(bench: Bench) -> None:
        bench.absent = frozenset({"slow"})
        await bench.live(1)
        bench.absent = frozenset()
        await bench.live(50)
        assert bench.moves == []
        assert [line["reason"] for line in bench.told("the plan stays")] == ["there is none better"]

    run(Bench(), journey)


def test_what_breaks_a_deadline_moves_before_its_dwell() -> None:
    async def journey(bench: Bench) -> None:
        await bench.live(1)
        bench.rtt_ms = 150.0
        await bench.live(4)
        assert [move for _, move in bench.moves] == [AWAY]
        assert bench.clock.now_ms - 1_000_000.0 < DWELL_S * 1000

    run(Bench(deadline_ms=40.0), journey)


def test_after_a_mending_in_haste_a_better_plan_is_looked_for() -> None:
    async def journey(bench: Bench) -> None:
        await bench.live(10)
        bench.lose("work", "slow")
        moved_ms = bench.clock.now_ms
        await bench.live(20)
        assert [move for _, move in bench.moves] == [BACK]
        assert bench.moves[0][0] >= moved_ms + DWELL_S * 1000

    run(Bench(), journey)


def test_a_plan_for_devices_that_have_changed_meanwhile_is_thrown_away() -> None:
    async def journey(bench: Bench) -> None:
        bench.absent = frozenset({"fast"})
        await bench.live(10)
        bench.absent = frozenset()
        assert bench.improving.look() is None
        search = bench.improving._search
        assert search is not None
        await asyncio.wait({search.task})
        bench.absent = frozenset({"fast"})
        assert bench.improving.look() is None
        assert bench.improving.look() is None
        assert bench.improving._search is None
        assert bench.moves == []

    run(Bench(work="slow"), journey)


def test_searches_are_not_begun_one_after_the_other() -> None:
    async def journey(bench: Bench) -> None:
        bench.absent = frozenset({"fast"})
        await bench.live(1)
        begun: list[float] = []
        for n in range(200):
            bench.absent = frozenset({"fast"}) if n % 2 else frozenset()
            bench.clock.now_ms += 1_000.0
            bench.improving.look()
            search = bench.improving._search
            if search is not None:
                begun.append(bench.clock.now_ms)
                await asyncio.wait({search.task})
                bench.absent = frozenset({"near"})
                bench.improving.look()
        assert begun
        assert all(b - a >= SEARCH_EVERY_S * 1000 for a, b in itertools.pairwise(begun))

    run(Bench(work="slow"), journey)


def test_a_link_that_flaps_for_hours_moves_an_aim_a_few_times() -> None:
    """Two minutes slow, two minutes quick, for three hours: 90 moves, if nothing were doubled."""

    async def journey(bench: Bench) -> None:
        for _ in range(45):
            bench.rtt_ms = 300.0
            await bench.live(30)
            bench.rtt_ms = 2.0
            await bench.live(30)
        names = [move for _, move in bench.moves]
        away = 6 + (3 * 3_600_000.0) / RETURN_MOST_MS  # six doublings, and then every half an hour
        assert 2 <= len(names) <= 2 * away
        assert names == [AWAY, BACK] * (len(names) // 2) + [AWAY] * (len(names) % 2)
        times = [at_ms for at_ms, _ in bench.moves]
        assert all(b - a >= DWELL_S * 1000 for a, b in itertools.pairwise(times))

    run(Bench(), journey)


def test_noise_around_the_mark_moves_next_to_nothing() -> None:
    async def journey(bench: Bench) -> None:
        rng = random.Random(11)
        bench.rtt_ms = 1.35 * LEAST_PLANNED_MS
        bench.noise_ms = lambda: rng.uniform(-0.3, 0.3) * bench.rtt_ms + (rng.random() < 0.03) * 1_000.0
        await bench.live(1_000)
        assert len(bench.moves) <= 2

    run(Bench(), journey)


def test_a_battery_that_hovers_at_its_mark_moves_an_aim_once() -> None:
    async def journey(bench: Bench) -> None:
        rng = random.Random(5)
        for _ in range(1_000):
            bench.level = 0.2 + rng.uniform(-0.02, 0.02)
            await bench.live(1)
        assert [move for _, move in bench.moves] == [AWAY]
        bench.level = 1.0
        await bench.live(1_000)
        assert [move for _, move in bench.moves] == [AWAY, BACK]

    run(Bench(), journey)


def test_an_aim_whose_state_would_be_lost_stays_unless_it_has_to_move() -> None:
    stateful = replace(CODE, state=StateKind.CHECKPOINTABLE, state_bytes=10)

    def bench(deadline_ms: float | None, *, acknowledged: bool = False) -> Bench:
        one = Bench(deadline_ms=deadline_ms)
        flow = chain(deadline_ms=deadline_ms, code=stateful)
        if acknowledged:
            (channel,) = flow.channels
            flow = replace(flow, channels=(replace(channel, delivery=Delivery.ACKNOWLEDGED),))
        one.running.workflow = flow
        return one

    async def gets_slow(bench: Bench) -> None:
        bench.rtt_ms = 150.0
        await bench.live(30)

    for one, moved in (
        (bench(None), False), (bench(40.0), True), (bench(None, acknowledged=True), True),
    ):  # fmt: skip
        run(one, gets_slow)
        assert bool(one.moves) is moved


def test_a_device_that_refuses_is_asked_less_and_less_often() -> None:
    async def journey(bench: Bench) -> None:
        bench.absent = frozenset({"fast"})
        await bench.live(20)
        bench.absent = frozenset()
        asked_ms: list[float] = []
        while len(asked_ms) < 4:
            bench.clock.now_ms += 1_000.0
            if await bench.look() is not None:
                asked_ms.append(bench.clock.now_ms)
                bench.improving.refused("fast")
        waited = [b - a for a, b in itertools.pairwise(asked_ms)]
        assert waited == sorted(waited)
        assert waited[0] >= RETURN_FIRST_MS
        assert waited[2] >= 4 * RETURN_FIRST_MS

    run(Bench(work="slow"), journey)


def test_a_plan_beside_another_workflow_is_old_when_that_has_changed() -> None:
    async def journey(bench: Bench) -> None:
        bench.absent = frozenset({"fast"})
        await bench.live(10)
        bench.absent = frozenset()
        assert bench.improving.look() is None
        search = bench.improving._search
        assert search is not None
        await asyncio.wait({search.task})
        bench.improving._search = replace(search, mapping_version=search.mapping_version - 1)
        assert bench.improving.look() is None
        assert bench.improving._search is None

    run(Bench(work="slow"), journey)
