"""A close watch over devices that others wait for: a frozen one is noticed within some 0.3 s.

Devices at work are asked five times as often as others. One that leaves a question unanswered for longer than
usual is suspect, and asked twice as often again. It is lost when it has left so many questions without any
word, for a multiple of the slowest answer of late, that neither work nor chance explains it (``liveness``).
The slowest of all devices counts, since those that share a network or a computer get slow together. And
another device must have answered a question that was asked later: else it may be the Controller or the broker
that is slow. Whoever is given up in error is watched at the steady pace (``vigil``) for a while.

Decides who is asked when. How long what may take is decided by ``liveness``, who is at work by the
Controller.

Invariants: devices that answer are asked ``MOST_PER_S`` questions at most, all together, so that on a large
site each is asked less often; one that is not at work is only asked as a witness, and not judged here; a
round that comes late excuses all devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from aif.runtime.clock import Clock
from aif.runtime.devices.links import DeviceLink, Trust
from aif.runtime.devices.liveness import HeartbeatSettings

MOST_PER_S = 200.0
"""Questions to all devices together. Each costs the Controller about 0.4 ms of a processor."""

WITNESSES = 3
"""Devices that are not at work and are asked when another one is suspect."""

LATE = 2.0
"""A wait that took this many times as long as it should shows that the Controller itself did not run."""


class CloseWatch:
    """Watches the devices at work of a site."""

    def __init__(
        self,
        settings: HeartbeatSettings,
        *,
        clock: Clock,
        devices: Callable[[], Iterable[DeviceLink]],
        ask: Callable[[DeviceLink, int], None],
        lost: Callable[[DeviceLink, str], None],
        connected: Callable[[], bool],
    ) -> None:
        """As ``Vigil``, which runs it; nobody is watched before ``watch``."""
        self._close_ms, self._look_ms = settings.close_ms, settings.close_ms / 2
        self._clock = clock
        self._devices, self._ask, self._lost, self._connected = devices, ask, lost, connected
        self._busy_ms: Mapping[str, float] = {}
        self._next_ms: dict[str, float] = {}

    def watch(self, busy_ms: Mapping[str, float]) -> None:
        """From now on these are at work, each kept busy by its AIMs for so long at a time, as planned."""
        self._busy_ms = busy_ms
        self._next_ms = {device: due_ms for device, due_ms in self._next_ms.items() if device in busy_ms}

    async def run(self) -> None:
        """Watch until cancelled."""
        before_ms = self._clock.monotonic_ms()
        while True:
            await self._clock.sleep(self._look_ms / 1000)
            now_ms = self._clock.monotonic_ms()
            self._look(now_ms, late=now_ms - before_ms > LATE * self._look_ms or not self._connected())
            before_ms = now_ms

    def _look(self, now_ms: float, *, late: bool) -> None:
        if not self._busy_ms:
            return
        trusted = [link for link in self._devices() if link.trust is Trust.TRUSTED]
        if late:
            for link in trusted:
                link.answers.excuse()
        watched = [
            link for link in trusted if link.device in self._busy_ms and not link.reputation.calm(now_ms)
        ]
        spacing_ms = max(self._close_ms, 1000.0 * len(watched) / MOST_PER_S)
        suspects = [link for link in watched if link.answers.suspect(now_ms, self._look_ms)]
        worst_ms = max((link.answers.worst_ms for link in watched), default=0.0)
        for link in suspects:
            slow_ms = max(worst_ms, self._busy_ms[link.device])
            if link.answers.overdue(now_ms, slow_ms) and self._witnessed(link, trusted):
                self._give_up(link, now_ms, slow_ms)
                return  # the next look sees the rest
            self._question(link, now_ms)
        for link in watched:
            if link not in suspects and now_ms >= self._next_ms.get(link.device, 0.0):
                self._next_ms[link.device] = now_ms + spacing_ms - self._look_ms / 2
                self._question(link, now_ms)
        if suspects:
            for link in islice((link for link in trusted if link not in watched), WITNESSES):
                self._question(link, now_ms)

    def _question(self, link: DeviceLink, now_ms: float) -> None:
        self._ask(link, link.answers.ask(now_ms, in_turn=False))

    def _give_up(self, link: DeviceLink, now_ms: float, slow_ms: float) -> None:
        link.sign_ms = link.heard_ms
        link.reputation.note_hasty(now_ms)
        asked = link.answers.pending
        silent_s = (now_ms - link.heard_ms) / 1000
        self._lost(
            link, f"silent for {silent_s:.2f} s, to {asked} questions; answers took at most {slow_ms:.0f} ms"
        )

    @staticmethod
    def _witnessed(link: DeviceLink, trusted: Iterable[DeviceLink]) -> bool:
        """Whether another device has answered what was asked after this one had stopped to answer."""
        since_ms = link.answers.pending_ms
        return any(other is not link and other.answers.witness_ms >= since_ms for other in trusted)
