"""Input queues and output ports: what arrives, what is dropped and counted, who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aif.errors import PortTimeout
from aif.model.ports import Direction, Overflow, Port
from aif.model.records import PortType, RecordType
from aif.runtime.host.ports import EndOfStream, InputPort, Message, OutputPort, select
from tests.runtime.virtual_clock import VirtualClock, settle

TYPE = PortType(RecordType.parse("int32"))


def make(
    overflow: Overflow = Overflow.BLOCK,
    *,
    depth: int = 2,
    producers: int = 1,
    max_age_ms: float | None = None,
) -> tuple[InputPort, VirtualClock]:
    clock = VirtualClock()
    port = Port("in", Direction.INPUT, TYPE, 4, queue_depth=depth, overflow=overflow, max_age_ms=max_age_ms)
    return InputPort(port, producers=producers, time_us=clock.time_us), clock


def run(journey: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10):
            await journey()

    asyncio.run(limited())


def drain(port: InputPort) -> list[Any]:
    return [port.take().value for _ in range(port.pending)]


@pytest.mark.parametrize(
    ("overflow", "left", "answers"),
    [
        (Overflow.BLOCK, [0, 1], [True, True, False, False]),
        (Overflow.DROP_NEWEST, [0, 1], [True, True, False, False]),
        (Overflow.DROP_OLDEST, [2, 3], [True, True, True, True]),
    ],
)
def test_a_full_queue_keeps_to_its_policy(overflow: Overflow, left: list[int], answers: list[bool]) -> None:
    port, _ = make(overflow)
    assert [port.offer(Message(n, 1)) for n in range(4)] == answers
    assert port.pending == 2
    assert drain(port) == left
    assert (port.counters.received, port.counters.overflowed, port.counters.taken) == (4, 2, 2)


def test_a_neighbour_waits_for_room() -> None:
    async def journey() -> None:
        port, _ = make()
        written: list[int] = []

        async def write() -> None:
            for n in range(5):
                await port.put(Message(n, 1))
                written.append(n)

        writer = asyncio.create_task(write())
        await settle()
        assert written == [0, 1]
        assert port.take().value == 0
        await settle()
        assert written == [0, 1, 2]
        assert port.pending == 2
        values = [(await port.read()).value for _ in range(4)]
        await writer
        assert values == [1, 2, 3, 4]
        assert port.counters.overflowed == 0

    run(journey)


def test_several_waiting_producers_all_get_their_turn() -> None:
    async def journey() -> None:
        port, _ = make(depth=1, producers=3)
        writers = [asyncio.create_task(port.put(Message(n, 1))) for n in range(6)]
        await settle()
        values = []
        for _ in range(6):
            values.append((await port.read()).value)
            assert port.pending <= 1
            await settle()
        assert values == list(range(6))
        assert all(writer.done() for writer in writers)

    run(journey)


def test_a_cancelled_writer_leaves_nothing_and_blocks_nobody() -> None:
    async def journey() -> None:
        port, _ = make(depth=1)
        await port.put(Message(0, 1))
        first = asyncio.create_task(port.put(Message(1, 1)))
        second = asyncio.create_task(port.put(Message(2, 1)))
        await settle()
        first.cancel()
        await settle()
        assert (await port.read()).value == 0
        assert (await port.read()).value == 2
        assert second.done()

    run(journey)


def test_a_reader_that_has_gone_holds_nobody_up() -> None:
    async def journey() -> None:
        port, _ = make(depth=1)
        await port.put(Message(0, 1))
        waiting = [asyncio.create_task(port.put(Message(n, 1))) for n in (1, 2)]
        await settle()
        port.close()
        await asyncio.gather(*waiting)
        await port.put(Message(3, 1))
        assert port.offer(Message(4, 1)) is False
        assert port.pending == 0
        assert (port.counters.discarded, port.counters.received) == (5, 5)

    run(journey)


@pytest.mark.parametrize("overflow", Overflow)
def test_reset_makes_room(overflow: Overflow) -> None:
    async def journey() -> None:
        port, _ = make(overflow)
        port.offer(Message(0, 1))
        port.offer(Message(1, 1))
        waiting = asyncio.create_task(port.put(Message(2, 1)))
        await settle()
        assert port.reset() == 2
        await waiting
        assert port.counters.discarded == 2

    run(journey)


def test_records_that_are_too_old_are_not_read() -> None:
    async def journey() -> None:
        port, clock = make(depth=4, max_age_ms=100.0)
        for age_ms in (300, 101, 100, 50):
            port.offer(Message(age_ms, clock.time_us() - age_ms * 1000))
        assert (await port.read()).value == 100
        await clock.advance(60)
        assert not port.ready
        with pytest.raises(PortTimeout, match="nothing arrived on in within 0 s"):
            await port.read(timeout=0)
        assert (port.counters.expired, port.counters.taken) == (3, 1)

    run(journey)


def test_what_expires_makes_room_for_a_waiting_writer() -> None:
    async def journey() -> None:
        port, clock = make(depth=1, max_age_ms=100.0)
        port.offer(Message(0, clock.time_us()))
        waiting = asyncio.create_task(port.put(Message(1, clock.time_us() + 200_000)))
        await clock.advance(150)
        assert not port.ready
        await waiting
        assert (await port.read()).value == 1

    run(journey)


def test_an_empty_turn_has_no_age() -> None:
    port, _ = make(max_age_ms=1.0)
    port.offer(Message(None, 0))
    assert port.ready
    assert Message(None, 0).is_empty_turn
    assert not Message(0, 0).is_empty_turn
    assert not Message(None, 5).is_empty_turn


def test_the_end_comes_when_every_producer_has_finished_and_all_is_read() -> None:
    async def journey() -> None:
        port, _ = make(producers=2)
        port.offer(Message(0, 1))
        port.finish()
        assert not port.finished
        assert (await port.read()).value == 0
        waiting = asyncio.create_task(port.read())
        await settle()
        assert not waiting.done()
        port.offer(Message(1, 1))
        port.finish()
        assert (await waiting).value == 1
        assert port.finished
        with pytest.raises(EndOfStream, match="in"):
            await port.read()

    run(journey)


def test_the_end_reaches_a_reader_that_waits() -> None:
    async def journey() -> None:
        port, _ = make()
        waiting = asyncio.create_task(port.read())
        await settle()
        port.finish()
        with pytest.raises(EndOfStream):
            await waiting

    run(journey)


def test_a_cancelled_read_loses_no_record() -> None:
    async def journey() -> None:
        port, _ = make()
        waiting = asyncio.create_task(port.read())
        await settle()
        port.offer(Message(0, 1))
        waiting.cancel()
        await settle()
        assert (await port.read()).value == 0

    run(journey)


def test_the_newest_is_what_is_left_of_many() -> None:
    port, _ = make(depth=4)
    for n in range(3):
        port.offer(Message(n, 1))
    assert port.peek().value == 0
    assert port.newest().value == 2
    assert port.pending == 0


def test_select_gives_the_first_port_that_has_a_record() -> None:
    async def journey() -> None:
        ports = [make()[0] for _ in range(3)]
        waiting = asyncio.create_task(select(ports))
        await settle()
        ports[1].offer(Message(0, 1))
        assert await waiting == 1
        assert await select(ports) == 1  # it takes nothing
        ports[1].take()
        with pytest.raises(PortTimeout, match="nothing arrived on in, in, in within 0 s"):
            await select(ports, timeout=0)
        waiting = asyncio.create_task(select(ports))
        await settle()
        for port in ports:
            port.finish()
        with pytest.raises(EndOfStream):
            await waiting

    run(journey)


def test_every_channel_gets_each_record_once() -> None:
    async def journey() -> None:
        output = OutputPort(Port("out", Direction.OUTPUT, TYPE, 4))
        first: list[tuple[list[int], int]] = []
        second: list[tuple[list[int], int]] = []

        async def deliver(to: list[tuple[list[int], int]], values: Sequence[int], t_us: int) -> None:
            to.append(([*values], t_us))

        output.connect(partial(deliver, first))
        output.connect(partial(deliver, second))
        await output.write(5, t_us=7)
        await output.write_many([6], t_us=9)
        assert output.written == 2
        assert first == second == [([5], 7), ([6], 9)]

    run(journey)


class QueueMachine(RuleBasedStateMachine):
    """An input queue against a plain list that obeys the same words."""

    def __init__(self) -> None:
        super().__init__()
        self.port, self.clock = make(Overflow.DROP_OLDEST, depth=3, max_age_ms=100.0)
        self.model: list[Message] = []
        self.lost = 0
        self.offered = 0

    @rule(age_ms=st.integers(0, 150))
    def offer(self, age_ms: int) -> None:
        message = Message(self.offered, self.clock.time_us() - age_ms * 1000)
        self.offered += 1
        if len(self.model) == 3:
            self.model.pop(0)
            self.lost += 1
        self.model.append(message)
        assert self.port.offer(message)

    @rule(milliseconds=st.integers(0, 60))
    def wait(self, milliseconds: int) -> None:
        self.clock.now_ms += milliseconds

    @rule()
    def take(self) -> None:
        while self.model and self.model[0].t_us < self.clock.time_us() - 100_000:
            self.model.pop(0)
            self.lost += 1
        assert self.port.ready is bool(self.model)
        if self.model:
            assert self.port.take() == self.model.pop(0)

    @rule()
    def reset(self) -> None:
        self.lost += len(self.model)
        assert self.port.reset() == len(self.model)
        self.model.clear()

    @invariant()
    def everything_is_accounted_for(self) -> None:
        counters = self.port.counters
        assert self.port.pending == len(self.model) <= 3
        assert counters.overflowed + counters.expired + counters.discarded == self.lost
        assert counters.received == self.offered == self.lost + counters.taken + self.port.pending


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.sampled_from(["put", "read", "cancel the read"]), max_size=40), st.integers(1, 3))
@settings(deadline=None)
def test_no_schedule_of_producers_and_reader_loses_or_repeats(steps: list[str], depth: int) -> None:
    async def journey() -> None:
        port, _ = make(depth=depth)
        writers: list[asyncio.Task[None]] = []
        seen: list[int] = []

        async def read() -> None:
            seen.append((await port.read()).value)

        reader = asyncio.create_task(read())
        for step in steps:
            if step == "put":
                writers.append(asyncio.create_task(port.put(Message(len(writers), 1))))
            elif step == "read" and reader.done():
                reader = asyncio.create_task(read())
            elif step == "cancel the read":
                reader.cancel()
            await settle()
            assert port.pending <= depth
        reader.cancel()
        await settle()
        while port.pending:
            await read()
            await settle()
        assert seen == list(range(len(writers)))
        assert all(writer.done() for writer in writers)

    run(journey)


@pytest.mark.parametrize("overflow", Overflow)
@pytest.mark.parametrize("closed", [False, True])
def test_records_offered_together_are_as_offered_one_by_one(overflow: Overflow, closed: bool) -> None:
    async def journey() -> None:
        (together, _), (alone, _) = make(overflow, depth=4), make(overflow, depth=4)
        if closed:
            together.close()
            alone.close()
        for values in ([1, 2, 3], [4], [5, 6], []):
            together.offer_all(values, 9)
            for value in values:
                alone.offer(Message(value, 9))
        assert together.counters == alone.counters
        assert [together.take() for _ in range(together.pending)] == [
            alone.take() for _ in range(alone.pending)
        ]

    run(journey)
