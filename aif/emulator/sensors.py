"""Emulated sensors: a recording is played to an AIM as if the sensor measured it now.

Decides: when the next reading is due, what it carries, and when a recording ends.
Does not: read a clock of its own (time is an argument), or know what the sensor measures.

Invariants:
    * Every reading is given exactly once, in order; a read that is cancelled loses none.
    * Readings never come faster than the recording's own spacing divided by ``speed``, except to make up for
      a delay of less than one spacing. A reader that was paused for longer finds the sensor where it left
      it, not a burst.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from aif.authoring.recording import UNSEEN, Recording
from aif.errors import EndOfData, ModelError

MAX_SPEED: Final = 1e6
"""Times faster than real time."""
LONE_PERIOD_US: Final = 1_000_000
"""Time between two repetitions of a recording that holds a single reading, which shows no spacing."""
UNSEEN_LABEL: Final = "unseen"
"""Label in the annotation of a reading whose kind no model was trained on."""


class ReplayClock(Protocol):
    """The time by which readings are due."""

    def monotonic_ms(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


@dataclass(slots=True)
class ReplayReading:
    """One reading.

    Attributes:
        values: int16[T][C], raw samples; cannot be written to.
        t_us: the recording's time of the last sample, growing over repetitions.
        annotation: ``label`` (text, ``unseen`` when no model knows it), ``index`` (count of readings before
            it since the replay began), ``subject`` (number of the person) and ``unseen``.
    """

    values: npt.NDArray[np.int16]
    t_us: int
    annotation: Mapping[str, Any]


class ReplaySensor:
    """Plays one recording. Several readers share its readings, as they would share one sensor.

    Args:
        recording: what to play.
        clock: time and waiting.
        speed: 1 for real time, 40 for forty times as fast; more than 0, at most ``MAX_SPEED``.
        repeat: begin again at the end, for ever.

    Raises:
        ModelError: ``speed`` is out of range.
    """

    def __init__(
        self, recording: Recording, *, clock: ReplayClock, speed: float = 1.0, repeat: bool = False
    ) -> None:
        check_speed(speed)
        self._recording, self._clock, self._speed, self._repeat = recording, clock, speed, repeat
        self._samples = recording.samples.view()
        self._samples.flags.writeable = False
        span_us = int(recording.t_us[-1]) - int(recording.t_us[0])
        self._closing_us = span_us // (len(recording) - 1) if len(recording) > 1 else LONE_PERIOD_US
        self._lap_us = span_us + self._closing_us
        self._next = 0
        self._due_ms: float | None = None
        self._lock = asyncio.Lock()

    async def read(self) -> ReplayReading:
        """The next reading, when it is due.

        Raises:
            EndOfData: the recording has ended and does not repeat.
        """
        async with self._lock:
            count = len(self._recording)
            lap, row = divmod(self._next, count)
            if lap and not self._repeat:
                raise EndOfData(f"the recording has ended after {count:,} readings")
            now_ms = self._clock.monotonic_ms()
            due_ms = now_ms if self._due_ms is None else self._due_ms
            if now_ms < due_ms:
                await self._clock.sleep((due_ms - now_ms) / 1000.0)
            spacing_ms = self._spacing_us(row) / 1000.0 / self._speed
            if now_ms - due_ms > spacing_ms:
                due_ms = now_ms
            self._due_ms = due_ms + spacing_ms
            self._next += 1
            return self._reading(lap, row)

    def _spacing_us(self, row: int) -> int:
        """Time from a row to the one after it; the first row follows the last."""
        times = self._recording.t_us
        return int(times[row + 1]) - int(times[row]) if row + 1 < len(times) else self._closing_us

    def _reading(self, lap: int, row: int) -> ReplayReading:
        recording = self._recording
        label = int(recording.label[row])
        annotation = {
            "label": UNSEEN_LABEL if label == UNSEEN else recording.labels[label],
            "index": lap * len(recording) + row,
            "subject": int(recording.subject[row]),
            "unseen": label == UNSEEN,
        }
        return ReplayReading(self._samples[row], int(recording.t_us[row]) + lap * self._lap_us, annotation)


def check_speed(speed: float) -> None:
    """Raise unless a replay can run at this speed.

    Raises:
        ModelError: not a number above 0 and at most ``MAX_SPEED``.
    """
    if not 0.0 < speed <= MAX_SPEED:  # also refuses NaN
        raise ModelError(
            f"a replay speed of {speed!s:.20} is not above 0 and at most {MAX_SPEED:g}",
            hint="1 is real time, 40 is forty times as fast",
        )
