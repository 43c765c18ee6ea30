"""One AIM instance: triggers and joins, life cycle, failures, restarts, and its end whatever happens."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aif.errors import AIMFailed, EndOfData, InvalidTransition, NotFound
from aif.model.aim import AIMMetadata, Join, Trigger
from aif.model.ports import Direction, Overflow, Port
from aif.model.records import PortType, RecordType
from aif.protocol.lifecycle import AIMStatus, State
from aif.runtime.host.instance import AIMInstance
from aif.runtime.host.ports import Deliver, InputPort, Message, OutputPort
from aif.sdk import AIM
from tests.runtime.virtual_clock import VirtualClock, settle

TYPE = PortType(RecordType.parse("int32"))


def port(name: str, **changes: Any) -> Port:
    return Port(name, Direction.INPUT, TYPE, 4, **{"queue_depth": 100, **changes})


def contract(*inputs: Port, **changes: Any) -> AIMMetadata:
    outputs = (Port("out", Direction.OUTPUT, TYPE, 4),)
    return AIMMetadata("A", "1.0", "demo", inputs=inputs, outputs=outputs, **changes)


class Bench:
    """An instance with its ports, and what was seen of it."""

    def __init__(
        self,
        aim: Callable[[], AIM],
        declared: AIMMetadata,
        *,
        connected: Sequence[str] | None = None,
        producers: int = 1,
        **changes: Any,
    ) -> None:
        self.clock = VirtualClock()
        names = [p.name for p in declared.inputs] if connected is None else connected
        self.inputs = {
            p.name: InputPort(p, producers=producers, time_us=self.clock.time_us)
            for p in declared.inputs
            if p.name in names
        }
        self.out = OutputPort(declared.outputs[0])
        self.emitted: list[Any] = []
        self.stamps: list[int] = []
        self.out.connect(self.collect)
        self.states: list[State] = []
        self.details: list[str] = []
        self.finished = 0
        self.over = asyncio.Event()
        self.instance = AIMInstance(
            "a", declared, aim, self.inputs, {"out": self.out}, clock=self.clock,
            on_state=self.on_state, on_finished=self.on_finished, **changes,
        )  # fmt: skip

    async def collect(self, values: Sequence[Any], t_us: int) -> None:
        self.emitted += values
        self.stamps += [t_us] * len(values)

    def on_state(self, _instance: AIMInstance, state: State, detail: str) -> None:
        self.states.append(state)
        self.details.append(detail)

    def on_finished(self, instance: AIMInstance) -> None:
        assert instance.state in (State.STOPPED, State.FAILED)
        self.finished += 1
        self.over.set()

    @property
    def state(self) -> State:
        return self.instance.state

    def give(self, name: str, *values: Any, t_us: int = 1) -> None:
        for n, value in enumerate(values):
            assert self.inputs[name].offer(Message(value, t_us + n))

    def end(self, *names: str) -> None:
        for name in names or self.inputs:
            self.inputs[name].finish()

    async def to_the_end(self) -> None:
        self.instance.start()
        await self.over.wait()
        await settle()


def status_of(bench: Bench) -> AIMStatus:
    return bench.instance.status


def run(journey: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10):
            await journey()

    asyncio.run(limited())


class Echo(AIM):
    """Emits what it was given, as (a, b) and so on."""

    def process(self, **inputs: Any) -> Mapping[str, Any]:
        return {"out": tuple(inputs[name] for name in sorted(inputs))}


def echoed(
    declared: AIMMetadata, arrivals: Sequence[tuple[str, Any, int]], *, connected: Sequence[str] | None = None
) -> Bench:
    """What comes out when these (port, value, time) arrive and then all inputs end."""
    bench: Bench

    async def journey() -> None:
        nonlocal bench
        bench = Bench(Echo, declared, connected=connected)
        bench.instance.start()
        for name, value, t_us in arrivals:
            bench.give(name, value, t_us=t_us)
            await settle()
        bench.end()
        await bench.over.wait()
        assert bench.state is State.STOPPED, bench.details

    run(journey)
    return bench


# --- triggers and joins ----------------------------------------------------------------------------


def test_records_are_paired_in_order_of_arrival() -> None:
    bench = echoed(
        contract(port("a"), port("b")), [("a", 1, 10), ("a", 2, 20), ("b", 5, 15), ("b", 6, 16), ("a", 3, 30)]
    )
    assert bench.emitted == [(1, 5), (2, 6)]
    assert bench.stamps == [15, 20]
    assert bench.instance.port_counters()["unmatched"] == 1  # the third of a


def test_a_window_comes_as_a_list() -> None:
    bench = echoed(contract(port("a", consumes=3.0, queue_depth=1)), [("a", n, n) for n in range(1, 8)])
    assert bench.emitted == [([1, 2, 3],), ([4, 5, 6],)]
    assert bench.stamps == [3, 6]
    assert bench.instance.port_counters()["unmatched"] == 1


def test_any_input_starts_an_invocation() -> None:
    declared = contract(
        port("a", optional=True), port("b", optional=True), trigger=Trigger(("a", "b"), any_of=True)
    )
    bench = echoed(declared, [("a", 1, 1), ("b", 2, 2), ("a", 3, 3)])
    assert bench.emitted == [(1, None), (None, 2), (3, None)]


def test_of_several_inputs_none_starves() -> None:
    async def journey() -> None:
        declared = contract(port("a"), port("b"), trigger=Trigger(("a", "b"), any_of=True))
        bench = Bench(Echo, declared)
        bench.give("a", *range(4))
        bench.give("b", *range(4))
        bench.end()
        await bench.to_the_end()
        assert bench.emitted == [(n, n) for n in range(4)]

    run(journey)


def test_any_input_waits_for_its_window() -> None:
    declared = contract(
        port("a", consumes=2.0, optional=True),
        port("b", optional=True),
        trigger=Trigger(("a", "b"), any_of=True),
    )
    bench = echoed(declared, [("a", 1, 1), ("b", 2, 2), ("a", 3, 3), ("a", 4, 4)])
    assert bench.emitted == [(None, 2), ([1, 3], None)]
    assert bench.instance.port_counters()["unmatched"] == 1


def test_a_trigger_that_is_not_connected_does_not_hold_up_the_others() -> None:
    declared = contract(
        port("a", optional=True), port("b", optional=True), trigger=Trigger(("a", "b"), any_of=True)
    )
    assert echoed(declared, [("b", 1, 1)], connected=["b"]).emitted == [(1,)]


def test_an_aim_that_nothing_can_start_ends_and_does_not_spin() -> None:
    declared = contract(port("a", optional=True))
    bench = echoed(declared, [], connected=[])
    assert bench.emitted == []
    assert bench.instance.metrics.invocations == 0


def test_records_of_one_time_belong_together() -> None:
    declared = contract(port("a"), port("b"), trigger=Trigger(join=Join.TIMESTAMP))
    arrivals = [("a", 1, 10), ("a", 2, 20), ("b", 5, 20), ("b", 6, 30), ("a", 3, 25), ("a", 4, 30)]
    bench = echoed(declared, arrivals)
    assert bench.emitted == [(2, 5), (4, 6)]
    assert bench.inputs["a"].counters.unmatched == 2
    assert bench.inputs["b"].counters.unmatched == 0


def test_an_empty_turn_goes_with_any_time() -> None:
    declared = contract(port("a"), port("b", max_age_ms=1.0), trigger=Trigger(join=Join.TIMESTAMP))

    async def journey() -> None:
        bench = Bench(Echo, declared)
        now_us = bench.clock.time_us()
        bench.give("b", None, t_us=0)
        bench.give("a", 1, t_us=now_us)
        bench.end()
        await bench.to_the_end()
        assert bench.emitted == [(1, None)]
        assert bench.stamps == [now_us]

    run(journey)


def test_an_invocation_of_empty_turns_is_as_new_as_itself() -> None:
    async def journey() -> None:
        bench = Bench(Echo, contract(port("a")))
        bench.give("a", None, t_us=0)
        bench.end()
        await bench.to_the_end()
        assert bench.stamps == [bench.clock.time_us()]

    run(journey)


def test_the_first_input_sets_the_pace_and_the_others_give_their_newest() -> None:
    declared = contract(port("a"), port("b"), trigger=Trigger(("a", "b"), join=Join.LATEST))
    arrivals = [("a", 1, 1), ("b", 5, 2), ("b", 6, 3), ("a", 2, 4), ("a", 3, 5)]
    bench = echoed(declared, arrivals)
    assert bench.emitted == [(1, None), (2, 6), (3, 6)]


def test_an_optional_input_gives_what_it_has() -> None:
    bench = echoed(
        contract(port("a"), port("b", optional=True)), [("a", 1, 1), ("b", 5, 2), ("a", 2, 3), ("a", 3, 4)]
    )
    assert bench.emitted == [(1, None), (2, 5), (3, None)]


def test_the_end_of_one_required_input_ends_the_instance() -> None:
    async def journey() -> None:
        bench = Bench(Echo, contract(port("b"), port("a")))
        bench.instance.start()
        await settle()
        bench.end("a")  # b goes on, and nobody will ever match it
        await bench.over.wait()
        assert bench.state is State.STOPPED

    run(journey)


def test_several_producers_must_all_have_finished() -> None:
    async def journey() -> None:
        bench = Bench(Echo, contract(port("a")), producers=2)
        bench.instance.start()
        bench.end("a")
        bench.give("a", 1)
        await settle()
        assert bench.emitted == [(1,)]
        assert not bench.over.is_set()
        bench.end("a")
        await settle()
        assert bench.over.is_set()

    run(journey)


def test_a_record_that_grew_too_old_while_it_waited_for_its_partner_is_dropped() -> None:
    async def journey() -> None:
        bench = Bench(Echo, contract(port("a", max_age_ms=100.0), port("b")))
        bench.instance.start()
        bench.give("a", 1, t_us=bench.clock.time_us())
        await bench.clock.advance(200)
        bench.give("b", 5, t_us=bench.clock.time_us())
        bench.give("a", 2, t_us=bench.clock.time_us())
        bench.end()
        await bench.over.wait()
        assert bench.emitted == [(2, 5)]
        assert bench.instance.port_counters()["expired"] == 1

    run(journey)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 20)), max_size=30))
@settings(deadline=None, max_examples=60)
def test_a_join_by_time_pairs_equal_times_once_and_accounts_for_the_rest(
    arrivals: list[tuple[str, int]],
) -> None:
    """Times only grow on each port, as a source's do."""
    latest = {"a": 0, "b": 0}
    times: dict[str, list[int]] = {"a": [], "b": []}
    given_: list[tuple[str, Any, int]] = []
    for name, step in arrivals:
        latest[name] += step
        times[name].append(latest[name])
        given_.append((name, latest[name], latest[name]))
    declared = contract(port("a"), port("b"), trigger=Trigger(join=Join.TIMESTAMP))
    bench = echoed(declared, given_)
    common = sorted(set(times["a"]) & set(times["b"]))
    assert bench.emitted == [(t, t) for t in common]
    lost = {name: p.counters.unmatched + p.counters.discarded for name, p in bench.inputs.items()}
    assert lost == {name: len(times[name]) - len(common) for name in "ab"}


# --- what process() may be -------------------------------------------------------------------------


class Plain(AIM):
    def process(self, a: int) -> Mapping[str, int]:
        return {"out": a}


class Async(AIM):
    async def process(self, a: int) -> Mapping[str, int]:
        await asyncio.sleep(0)
        return {"out": a}


class Generator(AIM):
    def process(self, a: int) -> Iterator[Mapping[str, int] | None]:
        yield {"out": a}
        yield None
        yield {"out": -a}


class AsyncGenerator(AIM):
    async def process(self, a: int) -> AsyncIterator[Mapping[str, int]]:
        yield {"out": a}
        await asyncio.sleep(0)
        yield {"out": -a}


class Silent(AIM):
    def process(self, a: int) -> None:
        assert a


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize(
    ("aim", "emitted"),
    [
        (Plain, [1, 2]), (Async, [1, 2]), (Generator, [1, -1, 2, -2]),
        (AsyncGenerator, [1, -1, 2, -2]), (Silent, []),
    ],
)  # fmt: skip
def test_process_may_be_plain_async_or_a_generator(
    aim: type[AIM], emitted: list[int], blocking: bool
) -> None:
    async def journey() -> None:
        bench = Bench(aim, contract(port("a")), blocking=blocking)
        bench.give("a", 1, 2)
        bench.end()
        await bench.to_the_end()
        assert bench.emitted == emitted
        assert bench.instance.metrics.invocations == 2
        assert bench.instance.metrics.emitted == len(emitted)
        assert bench.states == [State.STARTING, State.RUNNING, State.STOPPING, State.STOPPED]

    run(journey)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (5, "process.. returned int, not records by output port"),
        ([{"out": 1}], "process.. returned list, not records by output port"),
        ({"no": 1}, "process.. returned a record for 'no'; outputs are: out"),
    ],
)
def test_a_wrong_result_is_told_to_the_author(result: object, reason: str) -> None:
    class Wrong(AIM):
        def process(self, a: int) -> object:
            return result if a else None

    async def journey() -> None:
        bench = Bench(Wrong, contract(port("a")))
        bench.give("a", 1)
        await bench.to_the_end()
        assert bench.state is State.FAILED
        assert "AIF-E0207: a: process() returned" in bench.details[-1]

    run(journey)
    assert reason


def test_a_source_stamps_each_record_when_it_was_made() -> None:
    class Ticking(AIM):
        clock: VirtualClock

        async def process(self) -> AsyncIterator[Mapping[str, int]]:
            for n in range(3):
                await self.clock.sleep(1.0)
                yield {"out": n}
            raise EndOfData("done")

    async def journey() -> None:
        bench = Bench(Ticking, contract())
        Ticking.clock = bench.clock
        began_us = bench.clock.time_us()
        bench.instance.start()
        await bench.clock.advance(5_000)
        assert bench.emitted == [0, 1, 2]
        assert [t - began_us for t in bench.stamps] == [1_000_000, 2_000_000, 3_000_000]
        assert bench.state is State.STOPPED

    run(journey)


# --- periods and deadlines -------------------------------------------------------------------------


class Timed(AIM):
    """Takes as long as it is told, on the virtual clock."""

    clock: VirtualClock
    began: list[float]
    durations: Iterator[float]

    async def process(self, **_: Any) -> Mapping[str, int]:
        self.began.append(self.clock.now_ms)
        await self.clock.sleep(next(self.durations) / 1000.0)
        return {"out": len(self.began)}


def timed(declared: AIMMetadata, durations: Sequence[float]) -> Bench:
    def make() -> AIM:
        aim = Timed()
        aim.clock, aim.began, aim.durations = bench.clock, began, iter([*durations, *[0.0] * 1000])
        return aim

    began: list[float] = []
    bench = Bench(make, declared)
    bench.clock.now_ms = 0.0
    bench.began = began  # type: ignore[attr-defined]  # for the tests below
    return bench


def began(bench: Bench) -> list[float]:
    return list(bench.began)  # type: ignore[attr-defined]


def test_a_period_does_not_drift() -> None:
    async def journey() -> None:
        bench = timed(contract(period_ms=100.0), [30.0] * 20)
        bench.instance.start()
        await bench.clock.advance(1_000)
        await bench.instance.stop()
        assert began(bench) == [100.0 * n for n in range(1, 11)]

    run(journey)


def test_periods_that_were_missed_are_skipped_and_the_beat_is_kept() -> None:
    async def journey() -> None:
        bench = timed(contract(period_ms=100.0), [0.0, 350.0])
        bench.instance.start()
        await bench.clock.advance(1_000)
        await bench.instance.stop()
        assert began(bench) == [100.0, 200.0, 600.0, 700.0, 800.0, 900.0, 1_000.0]

    run(journey)


def test_a_pause_is_not_made_up_for() -> None:
    async def journey() -> None:
        bench = timed(contract(period_ms=100.0), [])
        bench.instance.start()
        await bench.clock.advance(250)
        bench.instance.pause()
        await bench.clock.advance(1_000)
        assert began(bench) == [100.0, 200.0]
        bench.instance.resume()
        await bench.clock.advance(250)
        await bench.instance.stop()
        assert began(bench)[2:] == [1_250.0, 1_300.0, 1_400.0, 1_500.0]

    run(journey)


def test_a_period_takes_what_is_there_and_waits_for_nothing() -> None:
    async def journey() -> None:
        bench = Bench(Echo, contract(port("a"), port("b"), period_ms=100.0))
        bench.instance.start()
        bench.give("a", 1)
        await bench.clock.advance(100)
        bench.give("b", 5)
        await bench.clock.advance(200)
        bench.end()
        await bench.clock.advance(100)
        assert bench.emitted == [(1, None), (None, 5), (None, None)]
        assert bench.state is State.STOPPED

    run(journey)


def test_three_misses_in_a_row_degrade_and_one_hit_restores() -> None:
    async def journey() -> None:
        durations = [60.0, 60.0, 10.0, 60.0, 60.0, 60.0, 60.0, 50.0]
        bench = timed(contract(port("a"), deadline_ms=50.0), durations)
        bench.give("a", *range(8))
        bench.end()
        bench.instance.start()
        await bench.clock.advance(1_000)
        assert bench.instance.metrics.deadlines_missed == 6
        assert bench.states == [
            State.STARTING, State.RUNNING, State.DEGRADED, State.RUNNING, State.STOPPING, State.STOPPED
        ]  # fmt: skip
        assert bench.details[2] == "3 invocations over 50 ms"

    run(journey)


def test_misses_are_seen_after_a_pause_too() -> None:
    async def journey() -> None:
        bench = timed(contract(port("a"), deadline_ms=50.0), [60.0] * 5)
        bench.give("a", *range(5))
        bench.instance.start()
        await bench.clock.advance(130)  # the third is under way
        bench.instance.pause()
        await bench.clock.advance(100)
        bench.instance.resume()
        await bench.clock.advance(100)
        assert bench.states[-3:] == [State.PAUSED, State.RUNNING, State.DEGRADED]
        await bench.instance.stop()

    run(journey)


def test_a_generator_is_judged_by_its_work_and_not_by_its_readers() -> None:
    class Slow(AIM):
        clock: VirtualClock

        async def process(self, a: int) -> AsyncIterator[Mapping[str, int]]:
            await self.clock.sleep(0.04)
            yield {"out": a}
            await self.clock.sleep(0.03)

    async def journey() -> None:
        bench = Bench(Slow, contract(port("a"), deadline_ms=50.0))
        Slow.clock = bench.clock
        fast = Bench(Slow, contract(port("a"), deadline_ms=80.0))
        fast.clock = bench.clock
        fast.instance._clock = bench.clock

        async def dawdle(_values: Sequence[Any], _t_us: int) -> None:
            await bench.clock.sleep(10.0)

        for one in (bench, fast):
            one.out.connect(dawdle)
            one.give("a", 1)
            one.end()
            one.instance.start()
        await bench.clock.advance(20_000)
        assert bench.instance.metrics.deadlines_missed == 1
        assert fast.instance.metrics.deadlines_missed == 0

    run(journey)


# --- pause, stop -----------------------------------------------------------------------------------


def test_a_paused_instance_takes_no_record_and_loses_none() -> None:
    async def journey() -> None:
        bench = Bench(Echo, contract(port("a", overflow=Overflow.DROP_OLDEST, queue_depth=2)))
        bench.instance.start()
        await settle()
        bench.instance.pause()
        bench.give("a", 1, 2, 3)
        await settle()
        assert (bench.emitted, bench.inputs["a"].pending) == ([], 2)
        bench.instance.resume()
        await settle()
        assert bench.emitted == [(2,), (3,)]  # the newest, as its policy says
        await bench.instance.stop()

    run(journey)


def test_a_paused_source_stands_still_in_the_middle_of_its_generator() -> None:
    class Endless(AIM):
        clock: VirtualClock

        async def process(self) -> AsyncIterator[Mapping[str, int]]:
            while True:
                await self.clock.sleep(0.1)
                yield {"out": 1}

    async def journey() -> None:
        bench = Bench(Endless, contract())
        Endless.clock = bench.clock
        bench.instance.start()
        await bench.clock.advance(350)
        bench.instance.pause()
        await bench.clock.advance(1_000)
        assert len(bench.emitted) == 4  # the reading that was under way
        bench.instance.resume()
        await bench.clock.advance(300)
        assert len(bench.emitted) == 7
        await bench.instance.stop()
        assert bench.state is State.STOPPED

    run(journey)


def test_signals_in_the_wrong_state_are_refused() -> None:
    async def journey() -> None:
        bench = Bench(Echo, contract(port("a")))
        for signal in (bench.instance.pause, bench.instance.resume):
            with pytest.raises(InvalidTransition):
                signal()
        bench.instance.start()
        with pytest.raises(InvalidTransition):
            bench.instance.start()
        await settle()
        assert status_of(bench) is AIMStatus.ALIVE
        await bench.instance.stop()
        assert status_of(bench) is AIMStatus.DEAD
        with pytest.raises(InvalidTransition):
            bench.instance.start()

    run(journey)


@pytest.mark.parametrize("steps", [0, 1, 2, 50])
def test_a_stop_at_any_moment_ends_once(steps: int) -> None:
    async def journey() -> None:
        bench = Bench(Async, contract(port("a")))
        bench.give("a", *range(20))
        bench.instance.start()
        for _ in range(steps):
            await asyncio.sleep(0)
        await asyncio.gather(bench.instance.stop(), bench.instance.stop())
        await bench.instance.stop()
        assert bench.state is State.STOPPED
        assert bench.finished == 1
        assert not bench.inputs["a"].offer(Message(1, 1))

    run(journey)


def test_an_instance_that_was_never_started_can_be_stopped() -> None:
    async def journey() -> None:
        bench = Bench(Echo, contract(port("a")), blocking=True)
        await bench.instance.stop()
        assert bench.states == [State.STOPPED]
        assert bench.finished == 1

    run(journey)


def into(port: InputPort) -> Deliver:
    """A channel to a neighbour that waits for room."""

    async def deliver(values: Sequence[Any], t_us: int) -> None:
        for value in values:
            await port.put(Message(value, t_us))

    return deliver


def test_stop_ends_what_waits_for_a_full_queue_downstream() -> None:
    async def journey() -> None:
        bench = Bench(Plain, contract(port("a")))
        full = InputPort(port("x", queue_depth=1), producers=1, time_us=bench.clock.time_us)
        bench.out.connect(into(full))
        bench.give("a", 1, 2, 3)
        bench.instance.start()
        await settle()
        assert (bench.emitted, full.pending) == ([1, 2], 1)
        await bench.instance.stop()
        assert bench.state is State.STOPPED

    run(journey)


def test_a_producer_does_not_wait_for_a_reader_that_failed() -> None:
    class Breaking(AIM):
        def process(self, a: int) -> None:
            raise ZeroDivisionError(a)

    async def journey() -> None:
        reader = Bench(Breaking, contract(port("a", queue_depth=1)))
        writer = Bench(Plain, contract(port("a")))
        writer.out.connect(into(reader.inputs["a"]))
        writer.give("a", *range(1, 11))
        writer.end()
        writer.instance.start()
        await settle()
        assert not writer.finished  # it waits for room
        reader.instance.start()
        await writer.over.wait()
        assert (reader.state, writer.state) == (State.FAILED, State.STOPPED)
        assert reader.instance.port_counters()["discarded"] >= 8

    run(journey)


def test_a_stop_that_is_cancelled_itself_is_cancelled() -> None:
    class Stubborn(AIM):
        release: asyncio.Event

        async def close(self) -> None:
            await self.release.wait()

        def process(self, a: int) -> None:
            assert a

    async def journey() -> None:
        Stubborn.release = asyncio.Event()
        bench = Bench(Stubborn, contract(port("a")))
        bench.instance.start()
        await settle()
        stopping = asyncio.create_task(bench.instance.stop())
        await settle()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        Stubborn.release.set()
        await bench.instance.stop()
        assert bench.state is State.STOPPED

    run(journey)


def test_cancelling_the_task_is_not_swallowed() -> None:
    async def journey() -> None:
        bench = Bench(Echo, contract(port("a")))
        bench.instance.start()
        await settle()
        task = bench.instance._task
        assert task is not None
        task.cancel()
        await settle()
        assert task.cancelled()
        assert bench.state is State.FAILED
        assert bench.details[-1] == "its task was cancelled"
        assert bench.finished == 1

    run(journey)


@pytest.mark.parametrize("kind", ["process", "generator"])
def test_code_that_swallows_its_cancellation_is_stopped_all_the_same(kind: str) -> None:
    class Deaf(AIM):
        async def process(self, a: int) -> Mapping[str, int]:
            with suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
            return {"out": a}

    class DeafGenerator(AIM):
        async def process(self, a: int) -> AsyncIterator[Mapping[str, int]]:
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.get_running_loop().create_future()
                yield {"out": a}

    async def journey() -> None:
        bench = Bench(Deaf if kind == "process" else DeafGenerator, contract(port("a")))
        bench.give("a", 1)
        bench.instance.start()
        await settle()
        await bench.instance.stop()
        assert bench.state is State.STOPPED
        assert bench.emitted == []

    run(journey)


def test_code_that_never_ends_is_given_up() -> None:
    class Endless(AIM):
        free: asyncio.Event

        async def process(self, a: int) -> Mapping[str, int]:
            while not self.free.is_set():
                with suppress(asyncio.CancelledError):
                    await self.free.wait()
            return {"out": a}

    async def journey() -> None:
        Endless.free = asyncio.Event()
        bench = Bench(Endless, contract(port("a")), stop_patience_s=0.01)
        bench.give("a", 1)
        bench.instance.start()
        await settle()
        await bench.instance.stop()
        assert bench.state is State.FAILED
        assert bench.details[-1] == "its code did not end within 0.01 s"
        Endless.free.set()
        await settle()
        assert (bench.finished, bench.emitted) == (1, [])

    run(journey)


# --- failures --------------------------------------------------------------------------------------


class Breaker(AIM):
    """Raises what it is told, where it is told."""

    made = 0
    closed = 0
    where = "process"
    error: BaseException

    def __init__(self) -> None:
        type(self).made += 1
        self.fail("make")

    def fail(self, where: str) -> None:
        if self.where == where:
            raise self.error

    def setup(self) -> None:
        self.fail("setup")

    def process(self, a: int) -> Mapping[str, int]:
        if a < 0:
            self.fail("process")
        return {"out": a}

    def close(self) -> None:
        type(self).closed += 1
        self.fail("close")


class AsyncBreaker(Breaker):
    async def setup(self) -> None:  # type: ignore[override]
        self.fail("setup")

    async def process(self, a: int) -> Mapping[str, int]:  # type: ignore[override]
        if a < 0:
            self.fail("process")
        return {"out": a}

    async def close(self) -> None:  # type: ignore[override]
        super().close()


class GeneratorBreaker(Breaker):
    def process(self, a: int) -> Iterator[Mapping[str, int]]:  # type: ignore[override]
        yield super().process(a)


KINDS = pytest.mark.parametrize("kind", [Breaker, AsyncBreaker, GeneratorBreaker])


def breaking(kind: type[Breaker], where: str, error: BaseException) -> type[Breaker]:
    return type("Made", (kind,), {"where": where, "error": error, "made": 0, "closed": 0})


@KINDS
@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("where", ["make", "setup", "process", "close"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("by zero"), "AIF-E0808: a failed: ZeroDivisionError: by zero"),
        (NotFound("no model"), "AIF-E0601: no model"),
        (SystemExit(3), "AIF-E0808: a failed: SystemExit: 3"),
    ],
)
def test_whatever_the_author_s_code_raises_fails_this_instance_only(
    kind: type[Breaker], blocking: bool, where: str, error: BaseException, said: str
) -> None:
    async def journey() -> None:
        made = breaking(kind, where, error)
        bench = Bench(made, contract(port("a")), blocking=blocking)
        bench.give("a", 1, -1, 2)
        bench.end()
        await bench.to_the_end()
        assert bench.state is State.FAILED
        assert bench.details[-1] == said
        assert bench.finished == 1
        assert bench.instance.metrics.failures == 1
        assert made.closed == (0 if where == "make" else 1)
        assert bench.emitted == {"make": [], "setup": [], "process": [1], "close": [1, -1, 2]}[where]

    run(journey)


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("error", [StopIteration(5), StopAsyncIteration(), asyncio.CancelledError()])
def test_exceptions_with_a_meaning_of_their_own_cannot_hang_an_instance(
    error: BaseException, blocking: bool
) -> None:
    async def journey() -> None:
        bench = Bench(breaking(Breaker, "process", error), contract(port("a")), blocking=blocking)
        bench.give("a", -1)
        bench.end()
        await bench.to_the_end()
        assert bench.state is State.FAILED
        assert bench.details[-1].startswith("AIF-E0808: a failed: ")

    run(journey)


def test_a_keyboard_interrupt_is_nobody_s_failure() -> None:
    async def journey() -> None:
        bench = Bench(breaking(Breaker, "process", KeyboardInterrupt()), contract(port("a")))
        bench.give("a", -1)
        await bench.to_the_end()

    with pytest.raises(KeyboardInterrupt):
        run(journey)
    gc.collect()  # its task says that nobody took the interrupt, here and not in the middle of another test


@KINDS
@pytest.mark.parametrize("where", ["setup", "process"])
def test_end_of_data_is_an_end_and_no_failure(kind: type[Breaker], where: str) -> None:
    async def journey() -> None:
        made = breaking(kind, where, EndOfData("over"))
        bench = Bench(made, contract(port("a")))
        bench.give("a", 1, -1, 2)
        await bench.to_the_end()
        assert bench.state is State.STOPPED
        assert made.closed == 1
        assert bench.instance.metrics.failures == 0

    run(journey)


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_restarts_are_counted_and_limited(limit: int) -> None:
    async def journey() -> None:
        made = breaking(Breaker, "process", ZeroDivisionError("by zero"))
        bench = Bench(made, contract(port("a"), restart_limit=limit))
        bench.give("a", -1, 1, -1, 2, -1, 3, -1, 4)
        bench.end()
        await bench.to_the_end()
        assert bench.state is State.FAILED
        assert (made.made, made.closed) == (limit + 1, limit + 1)
        assert (bench.instance.metrics.restarts, bench.instance.metrics.failures) == (limit, limit + 1)
        assert bench.emitted == list(range(1, limit + 1))  # what was queued is processed after a restart
        assert [d for d in bench.details if d.startswith("restart")] == [
            f"restart {n} after: by zero" for n in range(1, limit + 1)
        ]

    run(journey)


def test_after_enough_restarts_all_the_rest_is_processed() -> None:
    async def journey() -> None:
        bench = Bench(breaking(Breaker, "process", ZeroDivisionError()), contract(port("a"), restart_limit=2))
        bench.give("a", 1, -1, 2, -1, 3)
        bench.end()
        await bench.to_the_end()
        assert bench.state is State.STOPPED
        assert bench.emitted == [1, 2, 3]

    run(journey)


def test_a_close_that_fails_after_a_failure_does_not_hide_it() -> None:
    class Both(Breaker):
        where = "process"
        error = ZeroDivisionError("first")

        def close(self) -> None:
            raise ValueError("second")

    async def journey() -> None:
        bench = Bench(Both, contract(port("a")))
        bench.give("a", -1)
        await bench.to_the_end()
        assert bench.details[-1] == "AIF-E0808: a failed: ZeroDivisionError: first"

    run(journey)


def test_the_cause_of_a_failure_is_kept() -> None:
    class Kept(AIMInstance):
        error: BaseException | None = None

        async def _live(self) -> None:
            try:
                await super()._live()
            except AIMFailed as error:
                self.error = error
                raise

    async def journey() -> None:
        declared = contract(port("a"))
        source = InputPort(declared.inputs[0], producers=1, time_us=lambda: 0)
        source.offer(Message(-1, 1))
        done = asyncio.Event()
        kept = Kept(
            "a", declared, breaking(Breaker, "process", ZeroDivisionError()), {"a": source},
            {"out": OutputPort(declared.outputs[0])}, clock=VirtualClock(),
            on_state=lambda *_: None, on_finished=lambda _: done.set(),
        )  # fmt: skip
        kept.start()
        await done.wait()
        assert isinstance(kept.error, AIMFailed)
        assert isinstance(kept.error.__cause__, ZeroDivisionError)

    run(journey)


# --- blocking engines ------------------------------------------------------------------------------


class Blocking(AIM):
    """Waits in ``process`` as for another process, and remembers in which thread it was called."""

    def __init__(self) -> None:
        self.threads = [threading.current_thread().name]
        self.entered, self.leave = threading.Event(), threading.Event()

    def setup(self) -> None:
        self.threads.append(threading.current_thread().name)

    def process(self, a: int) -> Mapping[str, int]:
        self.threads.append(threading.current_thread().name)
        self.entered.set()
        assert self.leave.wait(10)
        return {"out": a}

    def close(self) -> None:
        self.threads.append(threading.current_thread().name)


class Making:
    """Makes Blocking AIMs, and tells when one is in ``process``."""

    def __init__(self) -> None:
        self.aim: Blocking
        self.ready = threading.Event()

    def __call__(self) -> AIM:
        self.aim = Blocking()
        self.ready.set()
        return self.aim

    async def in_process(self) -> None:
        await asyncio.to_thread(self.ready.wait, 10)
        await asyncio.to_thread(self.aim.entered.wait, 10)  # the loop turns while process() blocks


def test_a_blocking_engine_does_not_stop_the_event_loop() -> None:
    async def journey() -> None:
        make = Making()
        bench = Bench(make, contract(port("a")), blocking=True)
        bench.give("a", 1)
        bench.end()
        bench.instance.start()
        await make.in_process()
        assert bench.emitted == []
        make.aim.leave.set()
        await bench.over.wait()
        assert bench.emitted == [1]
        assert len(make.aim.threads) == 4
        assert len(set(make.aim.threads)) == 1  # made, set up, called and closed in one thread
        assert make.aim.threads[0] != threading.current_thread().name

    run(journey)


def test_a_stop_waits_for_the_engine_before_it_closes() -> None:
    async def journey() -> None:
        make = Making()
        bench = Bench(make, contract(port("a")), blocking=True)
        bench.give("a", 1)
        bench.instance.start()
        await make.in_process()
        stopping = asyncio.create_task(bench.instance.stop())
        await settle()
        assert not stopping.done()
        assert len(make.aim.threads) == 3  # close() is not called beside process()
        make.aim.leave.set()
        await stopping
        assert len(make.aim.threads) == 4
        assert bench.state is State.STOPPED
        assert bench.emitted == []

    run(journey)
