"""The watch over devices, on a clock that a test moves: rumours, silence, the Controller's own absence."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable

from aif.runtime.devices.links import DeviceLink, Trust
from aif.runtime.devices.liveness import FIRST_TIMEOUT_MS, LEAST_TIMEOUT_MS, HeartbeatSettings
from aif.runtime.devices.vigil import RECONNECTED_S, Vigil
from aif.runtime.logbook import LogBook
from tests.runtime.virtual_clock import VirtualClock

INTERVAL_MS = 500.0
SETTINGS = HeartbeatSettings(interval_ms=INTERVAL_MS, missed=4, tries=2)


class Watched:
    """A vigil over one device that answers after a while, or not at all."""

    def __init__(self) -> None:
        self.clock, self.log = VirtualClock(), io.StringIO()
        self.link = DeviceLink("left", trust=Trust.TRUSTED)
        self.connected, self.alive, self.answers_after_ms = True, True, 1.0
        self.asked = 0
        self.lost: list[tuple[float, str]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.vigil = Vigil(
            SETTINGS, clock=self.clock, log=LogBook("controller", self.clock, self.log),
            devices=lambda: [self.link], ask=self._ask, glance=self._ask, lost=self._lost,
            connected=lambda: self.connected,
        )  # fmt: skip

    def _ask(self, link: DeviceLink, number: int) -> None:
        self.asked += 1
        if self.alive and self.connected:
            task = asyncio.get_running_loop().create_task(self._answer(link, number))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _answer(self, link: DeviceLink, number: int) -> None:
        await self.clock.sleep(self.answers_after_ms / 1000)
        link.heard_ms = self.clock.monotonic_ms()
        link.answers.heard()
        link.answers.answered(number, link.heard_ms)

    def _lost(self, link: DeviceLink, why: str) -> None:
        link.trust = Trust.LOST
        self.lost.append((self.clock.monotonic_ms(), why))

    def told(self, event: str) -> int:
        return sum(json.loads(line)["event"] == event for line in self.log.getvalue().splitlines())


def watch(journey: Callable[[Watched], Awaitable[None]]) -> None:
    async def run() -> None:
        watched = Watched()
        task = asyncio.create_task(watched.vigil.run())
        try:
            await journey(watched)
        finally:
            for each in (task, *watched.tasks):
                each.cancel()
            await asyncio.gather(task, *watched.tasks, return_exceptions=True)

    asyncio.run(run())


async def known(watched: Watched) -> None:
    """Its answers have been measured, and it has just answered."""
    await watched.clock.advance(20 * INTERVAL_MS + 10)


def test_a_device_that_was_killed_is_lost_after_two_questions() -> None:
    async def journey(watched: Watched) -> None:
        await known(watched)
        watched.alive = False
        rumoured_ms = watched.clock.monotonic_ms()
        watched.vigil.rumour(watched.link)
        await watched.clock.advance(2 * LEAST_TIMEOUT_MS - 1)
        assert not watched.lost
        await watched.clock.advance(2)
        assert watched.lost == [(rumoured_ms + 2 * LEAST_TIMEOUT_MS, "its connection ended")]
        assert watched.link.sign_ms == rumoured_ms

    watch(journey)


def test_a_rumour_about_a_device_that_answers_ends_nothing_and_makes_the_next_count_less() -> None:
    async def journey(watched: Watched) -> None:
        await known(watched)
        for _ in range(1_000):
            watched.vigil.rumour(watched.link)
            await watched.clock.advance(10)
        assert not watched.lost
        assert 3 <= watched.told("a rumour was refuted: the device answers") <= 5

    watch(journey)


def test_an_answer_to_an_earlier_question_refutes_nothing() -> None:
    """Somebody who holds words of a device back may not keep it alive with them."""

    async def journey(watched: Watched) -> None:
        await known(watched)
        watched.answers_after_ms = 20.0
        await watched.clock.advance(INTERVAL_MS - 5)  # a question is under way
        watched.alive = False
        watched.vigil.rumour(watched.link)
        await watched.clock.advance(2 * LEAST_TIMEOUT_MS + 100)
        assert len(watched.lost) == 1

    watch(journey)


def test_silence_alone_takes_several_questions() -> None:
    async def journey(watched: Watched) -> None:
        await known(watched)
        watched.alive = False
        await watched.clock.advance(SETTINGS.missed * INTERVAL_MS)
        assert not watched.lost
        await watched.clock.advance(INTERVAL_MS)
        assert [why for _, why in watched.lost] == ["silent for 2.5 s"]

    watch(journey)


def test_questions_out_of_turn_do_not_shorten_a_device_s_time() -> None:
    async def journey(watched: Watched) -> None:
        await known(watched)
        watched.alive = False
        for _ in range(10):
            watched.vigil.welcome(watched.link)
        await watched.clock.advance(SETTINGS.missed * INTERVAL_MS)
        assert not watched.lost
        await watched.clock.advance(INTERVAL_MS)
        assert len(watched.lost) == 1

    watch(journey)


def test_a_device_that_answers_slowly_may_be_silent_for_longer() -> None:
    async def journey(watched: Watched) -> None:
        watched.answers_after_ms = 900.0
        await watched.clock.advance(40_000)
        watched.alive = False
        await watched.clock.advance(3_000)
        assert not watched.lost
        await watched.clock.advance(3_000)
        assert len(watched.lost) == 1

    watch(journey)


def test_a_device_is_not_lost_while_the_controller_has_no_connection() -> None:
    async def journey(watched: Watched) -> None:
        await known(watched)
        watched.connected = False
        watched.vigil.rumour(watched.link)
        await watched.clock.advance(60_000)
        watched.connected, watched.alive = True, False  # it needs a while to come back, too
        await watched.clock.advance(RECONNECTED_S * 1000 - INTERVAL_MS)
        assert not watched.lost
        await watched.clock.advance((SETTINGS.missed + 2) * INTERVAL_MS)
        assert len(watched.lost) == 1

    watch(journey)


def test_a_new_session_is_not_judged_by_questions_of_the_old_one() -> None:
    async def journey(watched: Watched) -> None:
        watched.alive = False
        watched.vigil.rumour(watched.link)
        await watched.clock.advance(FIRST_TIMEOUT_MS / 2)
        watched.link.answers = type(watched.link.answers)()
        await watched.clock.advance(FIRST_TIMEOUT_MS)
        assert not watched.lost

    watch(journey)
