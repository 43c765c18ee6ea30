"""The Controller's watch over its devices: questions at a steady pace, and at once where one may have gone.

Every sealed question (``Heartbeat``) is answered by the device at once. A device from which nothing came
after several in a row is lost. A last will is a rumour, since whoever may publish can forge it: the device is
asked at once, and only its silence after two questions, each given the time that answers were measured to
take, counts. So a process that was killed is noticed after some 0.2 s, and a device that lives stays.

Decides when a device is lost; how long what may take is decided by ``liveness``, what follows by
``admission``. Devices at work are watched more closely (``close_watch``).

Invariants: the Controller's own absence, because it has no connection or did not run, is nobody's silence; at
most one inquiry per device is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from aif.runtime.clock import Clock
from aif.runtime.devices.close_watch import LATE, CloseWatch
from aif.runtime.devices.links import DeviceLink, Trust
from aif.runtime.devices.liveness import HeartbeatSettings
from aif.runtime.logbook import LogBook

RECONNECTED_S = 6.0
"""After the Controller's own connection was gone, devices have this long to come back too."""

MOST_REPEATS = 5
"""Questions repeated because the Controller did not run, per inquiry."""


class Vigil:
    """Watches all devices of a site."""

    def __init__(
        self,
        settings: HeartbeatSettings,
        *,
        clock: Clock,
        log: LogBook,
        devices: Callable[[], Iterable[DeviceLink]],
        ask: Callable[[DeviceLink, int], None],
        glance: Callable[[DeviceLink, int], None],
        lost: Callable[[DeviceLink, str], None],
        connected: Callable[[], bool],
    ) -> None:
        """Nothing is asked before ``run``.

        Args:
            settings: how closely.
            clock: for waits and the times of answers.
            log: where refuted rumours are told.
            devices: every device that the Controller knows.
            ask: sends a device the question of that number.
            glance: sends one that is no part of the steady pace, and that nothing is measured by.
            lost: is told which device does not answer, and why it is thought so.
            connected: whether the Controller itself reaches the broker.
        """
        self._settings, self._clock, self._log = settings, clock, log
        self._devices, self._ask, self._lost, self._connected = devices, ask, lost, connected
        self._rumours: asyncio.Queue[DeviceLink] = asyncio.Queue()
        self._asked: set[str] = set()
        self._judging_ms = float("-inf")
        self.closely = CloseWatch(
            settings, clock=clock, devices=devices, ask=glance, lost=lost, connected=connected
        )

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._rounds())
            tasks.create_task(self.closely.run())
            while True:
                link = await self._rumours.get()
                tasks.create_task(self._inquire(link))

    def rumour(self, link: DeviceLink) -> None:
        """Somebody says that a device has gone."""
        now_ms = self._clock.monotonic_ms()
        if link.trust is not Trust.TRUSTED or link.device in self._asked:
            return
        if not link.reputation.credible(now_ms):
            return  # silence will tell
        self._asked.add(link.device)
        self._rumours.put_nowait(link)

    def welcome(self, link: DeviceLink) -> None:
        """A device has shown itself unasked, after a new session or connection: its answers are measured."""
        self._ask(link, link.answers.ask(self._clock.monotonic_ms()))

    async def _rounds(self) -> None:
        while True:
            now_ms = self._clock.monotonic_ms()
            if not self._connected():
                self._judging_ms = now_ms + RECONNECTED_S * 1000
            for link in list(self._devices()):
                if link.trust is Trust.TRUSTED:
                    self._look_at(link, now_ms)
            await self._clock.sleep(self._settings.interval_ms / 1000)

    def _look_at(self, link: DeviceLink, now_ms: float) -> None:
        if now_ms < self._judging_ms:
            link.answers.heard()
        elif link.answers.silent >= link.answers.allowed(self._settings):
            link.sign_ms = link.heard_ms
            self._lost(link, f"silent for {(now_ms - link.heard_ms) / 1000:.1f} s")
            return
        self._ask(link, link.answers.ask(now_ms))
        link.answers.wait()

    async def _inquire(self, link: DeviceLink) -> None:
        """Ask a device that may have gone; its answer must be to a question that was asked since."""
        try:
            session, began_ms = link.answers, self._clock.monotonic_ms()
            first = session.number + 1
            tries = repeats = 0
            while tries < self._settings.tries:
                asked_ms, timeout_ms = self._clock.monotonic_ms(), session.timeout_ms
                self._ask(link, session.ask(asked_ms))
                await self._clock.sleep(timeout_ms / 1000)
                now_ms = self._clock.monotonic_ms()
                if link.answers is not session or link.trust is not Trust.TRUSTED:
                    return
                if session.newest >= first:
                    link.reputation.note_refuted(now_ms)
                    self._log.warning(
                        "a rumour was refuted: the device answers", device=link.device,
                        rtt_ms=round(session.rtt_ms or 0.0, 1),
                    )  # fmt: skip
                    return
                if not self._connected() or now_ms < self._judging_ms:
                    return  # silence will tell
                if now_ms - asked_ms > LATE * timeout_ms and repeats < MOST_REPEATS:
                    repeats += 1
                else:
                    tries += 1
            link.sign_ms = began_ms
            self._lost(link, "its connection ended")
        finally:
            self._asked.discard(link.device)
