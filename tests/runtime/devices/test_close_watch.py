"""Devices at work are watched closely: frozen ones are noticed soon, slow ones are not given up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

import pytest

from aif.runtime.devices.close_watch import MOST_PER_S, CloseWatch
from aif.runtime.devices.links import DeviceLink, Trust
from aif.runtime.devices.liveness import (
    CALM_FIRST_MS,
    CLOSE_KNOWN,
    CLOSE_QUESTIONS,
    CLOSE_SILENCE_MS,
    CLOSE_TIMES,
    HASTY_MS,
    Answers,
    HeartbeatSettings,
    Reputation,
)
from tests.runtime.virtual_clock import VirtualClock

SETTINGS = HeartbeatSettings()
CLOSE_MS, LOOK_MS = SETTINGS.close_ms, SETTINGS.close_ms / 2


class OwnClock:
    """The Controller's share of the time: it may not run for a while."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock, self.stall_ms = clock, 0.0

    def time_us(self) -> int:
        return self.clock.time_us()

    def monotonic_ms(self) -> float:
        return self.clock.monotonic_ms()

    async def sleep(self, seconds: float) -> None:
        stall_ms, self.stall_ms = self.stall_ms, 0.0
        await self.clock.sleep(seconds + stall_ms / 1000)


class Watched:
    """Devices that answer after a while, or not at all, and what the watch did."""

    def __init__(self, names: tuple[str, ...] = ("a", "b", "c")) -> None:
        self.clock = VirtualClock()
        self.links = {name: DeviceLink(name, trust=Trust.TRUSTED) for name in names}
        self.answers_after_ms: dict[str, Callable[[], float]] = dict.fromkeys(names, lambda: 2.0)
        self.frozen: set[str] = set()
        self.connected = True
        self.asked: dict[str, int] = dict.fromkeys(names, 0)
        self.lost: list[tuple[str, float]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.own_clock = OwnClock(self.clock)
        self.watch = CloseWatch(
            SETTINGS, clock=self.own_clock, devices=self.links.values, ask=self._ask, lost=self._lost,
            connected=lambda: self.connected,
        )  # fmt: skip

    def at_work(self, busy_ms: Mapping[str, float] | None = None) -> None:
        self.watch.watch(dict.fromkeys(self.links, 0.0) if busy_ms is None else busy_ms)

    def _ask(self, link: DeviceLink, number: int) -> None:
        self.asked[link.device] += 1
        if link.device not in self.frozen and self.connected:
            task = asyncio.get_running_loop().create_task(self._answer(link, number))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _answer(self, link: DeviceLink, number: int) -> None:
        await self.clock.sleep(self.answers_after_ms[link.device]() / 1000)
        if link.device not in self.frozen:
            link.heard_ms = self.clock.monotonic_ms()
            link.answers.heard()
            link.answers.answered(number, link.heard_ms)

    def _lost(self, link: DeviceLink, _why: str) -> None:
        link.trust = Trust.LOST
        self.lost.append((link.device, self.clock.monotonic_ms()))


def watch(journey: Callable[[Watched], Awaitable[None]], names: tuple[str, ...] = ("a", "b", "c")) -> None:
    async def run() -> None:
        watched = Watched(names)
        task = asyncio.create_task(watched.watch.run())
        try:
            await journey(watched)
        finally:
            for each in (task, *watched.tasks):
                each.cancel()
            await asyncio.gather(task, *watched.tasks, return_exceptions=True)

    asyncio.run(run())


async def known(watched: Watched) -> None:
    watched.at_work()
    await watched.clock.advance(30 * CLOSE_MS)
    assert all(link.answers.answers >= CLOSE_KNOWN for link in watched.links.values())


def test_a_frozen_device_is_noticed_within_0_35_s() -> None:
    async def journey(watched: Watched) -> None:
        await known(watched)
        for after_ms in (0.0, 10.0, 49.0, 77.0):
            await watched.clock.advance(CLOSE_MS * 20 + after_ms)
            name = next(link.device for link in watched.links.values() if link.trust is Trust.TRUSTED)
            watched.frozen, frozen_ms = {name}, watched.clock.monotonic_ms()
            await watched.clock.advance(CLOSE_SILENCE_MS - 1)
            assert not watched.lost
            await watched.clock.advance(CLOSE_MS + LOOK_MS + 1)
            ((device, lost_ms),) = watched.lost
            assert device == name
            assert lost_ms - frozen_ms <= 350.0
            link = watched.links[name]
            assert link.answers.pending >= CLOSE_QUESTIONS
            watched.frozen.clear()
            watched.lost.clear()
            link.trust, link.reputation, link.answers = Trust.TRUSTED, Reputation(), Answers()

    watch(journey)


def test_a_device_that_only_gets_slow_stays() -> None:
    """Up to the multiple of what was measured, whether it was this device or another one that was slow."""

    async def journey(watched: Watched) -> None:
        await known(watched)
        watched.answers_after_ms["b"] = lambda: 150.0  # all know now how slow answers may be
        await watched.clock.advance(2_000)
        watched.answers_after_ms["b"] = lambda: 2.0
        watched.answers_after_ms["a"] = lambda: CLOSE_TIMES * 150.0 - LOOK_MS
        await watched.clock.advance(10_000)
        assert not watched.lost

    watch(journey)


def test_planned_work_may_keep_a_device_silent() -> None:
    async def journey(watched: Watched) -> None:
        await known(watched)
        watched.at_work({"a": 500.0, "b": 0.0, "c": 0.0})
        watched.answers_after_ms["a"] = lambda: 1_400.0
        await watched.clock.advance(1_450)
        assert not watched.lost

    watch(journey)


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_answers_that_get_lost_now_and_then_are_no_loss_of_a_device(share: float) -> None:
    async def journey(watched: Watched) -> None:
        rng = random.Random(3)
        watched.answers_after_ms["a"] = lambda: 1e9 if rng.random() < share / 10 else 2.0
        await known(watched)
        for part in (1, 2, 4, 6, 8, 10):  # a link does not get that bad all at once
            watched.answers_after_ms["a"] = lambda part=part: (  # type: ignore[misc]
                1e9 if rng.random() < share * part / 10 else 2.0
            )
            await watched.clock.advance(10_000)
        assert not watched.lost
        watched.frozen = {"a"}
        await watched.clock.advance(5_000)
        assert [device for device, _ in watched.lost] == ["a"]

    watch(journey)


def test_nobody_is_given_up_when_all_are_silent() -> None:
    """Then it is the broker, or the Controller's own way."""

    async def journey(watched: Watched) -> None:
        await known(watched)
        watched.frozen = {"a", "b", "c"}
        await watched.clock.advance(10_000)
        assert not watched.lost
        watched.frozen = {"a"}
        await watched.clock.advance(1_000)
        assert [device for device, _ in watched.lost] == ["a"]

    watch(journey)


def test_a_device_alone_at_work_has_witnesses_among_the_others() -> None:
    async def journey(watched: Watched) -> None:
        watched.at_work({"a": 0.0})
        await watched.clock.advance(100 * CLOSE_MS)
        assert watched.asked["b"] == watched.asked["c"] == 0
        watched.frozen = {"a"}
        await watched.clock.advance(CLOSE_MS + CLOSE_SILENCE_MS + 2 * LOOK_MS)
        assert [device for device, _ in watched.lost] == ["a"]
        assert 0 < watched.asked["b"] <= 2 * CLOSE_QUESTIONS

    watch(journey)


def test_the_only_device_of_a_site_is_left_to_the_steady_pace() -> None:
    async def journey(watched: Watched) -> None:
        await known(watched)
        watched.frozen = {"a"}
        await watched.clock.advance(10_000)
        assert not watched.lost

    watch(journey, ("a",))


def test_what_the_controller_misses_is_nobody_s_silence() -> None:
    async def journey(watched: Watched) -> None:
        await known(watched)
        watched.frozen = {"a"}
        await watched.clock.advance(CLOSE_SILENCE_MS - 1)
        watched.own_clock.stall_ms = 5_000.0  # the answers of ``a`` lie there unread
        await watched.clock.advance(5_000 + CLOSE_SILENCE_MS)
        watched.frozen.clear()
        await watched.clock.advance(1_000)
        watched.connected = False
        await watched.clock.advance(5_000)
        watched.connected = True
        await watched.clock.advance(5_000)
        assert not watched.lost

    watch(journey)


def test_devices_that_are_not_at_work_are_not_asked_and_not_judged() -> None:
    async def journey(watched: Watched) -> None:
        await known(watched)
        watched.at_work({"b": 0.0, "c": 0.0})
        before = watched.asked["a"]
        watched.frozen = {"a"}
        await watched.clock.advance(10_000)
        assert watched.asked["a"] == before
        assert not watched.lost

    watch(journey)


@pytest.mark.parametrize("devices", [3, 20, 50])
def test_the_questions_of_a_large_site_are_bounded(devices: int) -> None:
    async def journey(watched: Watched) -> None:
        await known(watched)
        before = sum(watched.asked.values())
        await watched.clock.advance(2_000)
        per_s = (sum(watched.asked.values()) - before) / 2
        assert per_s <= min(MOST_PER_S, devices * 1000 / CLOSE_MS) * 1.1
        assert per_s >= min(MOST_PER_S, devices * 1000 / CLOSE_MS) * 0.6
        watched.frozen = {"d0"}
        await watched.clock.advance(1_000 * devices / MOST_PER_S + CLOSE_SILENCE_MS + 3 * LOOK_MS + CLOSE_MS)
        assert [device for device, _ in watched.lost] == ["d0"]

    watch(journey, tuple(f"d{n}" for n in range(devices)))


def test_a_device_that_was_given_up_in_error_is_watched_calmly_for_longer_each_time() -> None:
    reputation, now_ms, calm_ms = Reputation(), 0.0, CALM_FIRST_MS
    for _ in range(4):
        reputation.note_hasty(now_ms)
        reputation.note_lost(now_ms)
        reputation.note_trusted(now_ms + HASTY_MS / 2)
        assert reputation.calm(now_ms + calm_ms - 1)
        assert not reputation.calm(now_ms + calm_ms)
        now_ms, calm_ms = now_ms + calm_ms, 2 * calm_ms


def test_a_device_that_was_really_away_is_watched_closely_again() -> None:
    reputation = Reputation()
    reputation.note_hasty(0.0)
    reputation.note_lost(0.0)
    reputation.note_trusted(HASTY_MS + 1)
    assert not reputation.calm(HASTY_MS + 1)


@pytest.mark.parametrize(
    ("interval_ms", "close_ms"), [(500.0, 100.0), (50.0, 50.0), (20.0, 20.0), (2_000.0, 400.0)]
)
def test_the_close_pace_follows_the_steady_one(interval_ms: float, close_ms: float) -> None:
    assert HeartbeatSettings(interval_ms=interval_ms).close_ms == close_ms
