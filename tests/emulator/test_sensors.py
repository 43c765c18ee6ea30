from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.authoring.recording import Recording
from aif.emulator.sensors import LONE_PERIOD_US, MAX_SPEED, ReplayReading, ReplaySensor
from aif.errors import EndOfData, ModelError

if TYPE_CHECKING:
    from tests.emulator.conftest import VirtualClock


async def read(sensor: ReplaySensor, count: int) -> list[ReplayReading]:
    return [await sensor.read() for _ in range(count)]


def test_readings_come_in_order_with_what_the_recording_knows(
    recording: Recording, clock: VirtualClock
) -> None:
    readings = asyncio.run(read(ReplaySensor(recording, clock=clock), 4))
    for row, reading in enumerate(readings):
        assert reading.values.dtype == np.int16
        assert reading.values.shape == (100, 6)
        assert (reading.values == recording.samples[row]).all()
    assert [r.t_us for r in readings] == [2_000_000, 3_000_000, 4_000_000, 6_000_000]
    assert [dict(r.annotation) for r in readings] == [
        {"label": "pendulum", "index": 0, "subject": 6, "unseen": False},
        {"label": "row", "index": 1, "subject": 6, "unseen": False},
        {"label": "unseen", "index": 2, "subject": 7, "unseen": True},
        {"label": "pendulum", "index": 3, "subject": 7, "unseen": False},
    ]


def test_a_reader_cannot_change_the_recording(recording: Recording, clock: VirtualClock) -> None:
    (reading,) = asyncio.run(read(ReplaySensor(recording, clock=clock), 1))
    with pytest.raises(ValueError, match="read-only"):
        reading.values[0, 0] = 1


@pytest.mark.parametrize("speed", [1.0, 40.0, 0.5])
def test_the_first_reading_is_due_at_once_and_the_others_as_recorded(
    recording: Recording, clock: VirtualClock, speed: float
) -> None:
    asyncio.run(read(ReplaySensor(recording, clock=clock, speed=speed), 4))
    assert clock.slept_ms == pytest.approx([1_000 / speed, 1_000 / speed, 2_000 / speed])


def test_the_end_is_told_at_once_and_again(recording: Recording, clock: VirtualClock) -> None:
    async def to_the_end() -> None:
        sensor = ReplaySensor(recording, clock=clock)
        await read(sensor, 4)
        before_ms = clock.now_ms
        for _ in range(2):
            with pytest.raises(EndOfData, match="the recording has ended after 4 readings"):
                await sensor.read()
        assert clock.now_ms == before_ms

    asyncio.run(to_the_end())


def test_a_repeated_recording_goes_on_in_time_and_number(recording: Recording, clock: VirtualClock) -> None:
    readings = asyncio.run(read(ReplaySensor(recording, clock=clock, repeat=True), 9))
    # 4 s of recording have 3 spacings, so the first window follows the last after 4/3 s
    lap_us = 4_000_000 + 4_000_000 // 3
    assert [r.annotation["index"] for r in readings] == list(range(9))
    assert [r.t_us - lap_us for r in readings[4:8]] == [2_000_000, 3_000_000, 4_000_000, 6_000_000]
    assert readings[8].t_us == 2_000_000 + 2 * lap_us
    assert [r.annotation["label"] for r in readings[4:8]] == ["pendulum", "row", "unseen", "pendulum"]
    assert clock.slept_ms[3] == pytest.approx(4_000 / 3, abs=0.001)


def test_a_single_reading_repeats_once_a_second(recording: Recording, clock: VirtualClock) -> None:
    one = recording.thinned(1)
    readings = asyncio.run(read(ReplaySensor(one, clock=clock, repeat=True), 3))
    assert [r.t_us - readings[0].t_us for r in readings] == [0, LONE_PERIOD_US, 2 * LONE_PERIOD_US]
    assert clock.slept_ms == pytest.approx([1_000.0, 1_000.0])


def test_a_small_delay_is_made_up_for(recording: Recording, clock: VirtualClock) -> None:
    async def slow() -> None:
        sensor = ReplaySensor(recording, clock=clock)
        await read(sensor, 1)
        clock.now_ms += 1_300.0  # the second reading was due 300 ms ago
        await read(sensor, 2)
        assert clock.slept_ms == pytest.approx([700.0])

    asyncio.run(slow())


def test_a_pause_is_not_followed_by_a_burst(recording: Recording, clock: VirtualClock) -> None:
    async def paused() -> None:
        sensor = ReplaySensor(recording, clock=clock)
        await read(sensor, 1)
        clock.now_ms += 60_000.0
        readings = await read(sensor, 3)
        assert [r.annotation["index"] for r in readings] == [1, 2, 3]
        assert clock.slept_ms == pytest.approx([1_000.0, 2_000.0])

    asyncio.run(paused())


def test_a_cancelled_read_loses_nothing(recording: Recording, clock: VirtualClock) -> None:
    async def cancelled() -> None:
        sensor = ReplaySensor(recording, clock=clock)
        await read(sensor, 1)
        task = asyncio.create_task(sensor.read())
        await asyncio.sleep(0)  # it now waits for the second reading
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (reading,) = await read(sensor, 1)
        assert reading.annotation["index"] == 1

    asyncio.run(cancelled())


def test_two_readers_share_the_readings(recording: Recording, clock: VirtualClock) -> None:
    async def both() -> list[ReplayReading]:
        sensor = ReplaySensor(recording, clock=clock)
        first, second = await asyncio.gather(read(sensor, 2), read(sensor, 2))
        return [*first, *second]

    assert sorted(r.annotation["index"] for r in asyncio.run(both())) == [0, 1, 2, 3]


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf"), 2 * MAX_SPEED, 10**400])
def test_a_speed_that_cannot_be_played_is_refused(
    recording: Recording, clock: VirtualClock, speed: float
) -> None:
    with pytest.raises(ModelError, match=r"a replay speed of .{1,20} is not above 0 and at most 1e\+06"):
        ReplaySensor(recording, clock=clock, speed=speed)


@given(st.lists(st.floats(0.0, 5_000.0), min_size=1, max_size=20))
def test_nothing_comes_early_or_out_of_order_however_the_reader_dawdles(
    clock_type: type[VirtualClock], delays_ms: list[float]
) -> None:
    count = len(delays_ms)
    recording = Recording(
        np.zeros((count, 1, 1), np.int16), np.arange(1, count + 1, dtype=np.uint64) * np.uint64(1_000_000),
        np.zeros(count, np.int8), np.zeros(count, np.int16), ("a",),
    )  # fmt: skip
    clock = clock_type()

    async def play() -> list[tuple[float, int]]:
        sensor, seen = ReplaySensor(recording, clock=clock), []
        for delay_ms in delays_ms:
            reading = await sensor.read()
            seen.append((clock.now_ms, reading.annotation["index"]))
            clock.now_ms += delay_ms
        return seen

    seen = asyncio.run(play())
    assert [index for _, index in seen] == list(range(count))
    for number, (at_ms, _) in enumerate(seen):
        assert at_ms >= seen[0][0] + 1_000.0 * number - 1e-6
    assert replace(recording).samples.flags.writeable  # the sensor locked its own view only
