"""One running AIM: its life cycle, its invocations, and what happens when its code fails.

An instance owns one task. A failure of the author's code or of its engine is a failure of this instance
only; it is restarted up to ``restart_limit`` times. When every producer of a required input has finished,
the instance drains what it holds, finishes, and lets its readers know.

Invariants: it ends in STOPPED or FAILED, once, whatever the author's code does; ``close()`` of every object
that was made is called; a paused instance takes no record. With ``blocking`` the author's plain code, engine
included, runs in one thread of its own.

Source: MPAI-AIF V2 life cycle and signals; periods, deadlines, restarts and DEGRADED as in V3.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from aif.errors import AIFError, AIMFailed, EndOfData, InvalidRecord
from aif.model.aim import AIMMetadata
from aif.protocol.lifecycle import (
    ALIVE_STATES,
    ENDED_STATES,
    AIMStatus,
    Event,
    Signal,
    State,
    next_state,
    status_of,
)
from aif.runtime.clock import Clock
from aif.runtime.host.acknowledged import AcknowledgedWork
from aif.runtime.host.joining import Joiner
from aif.runtime.host.pace import Pace
from aif.runtime.host.ports import EndOfStream, InputPort, OutputPort
from aif.runtime.metrics import AIMMetrics
from aif.sdk import AIM

MISSES_UNTIL_DEGRADED = 3
"""Consecutive deadline misses after which an AIM is DEGRADED (MPAI-AIF V3)."""

STOP_PATIENCE_S = 10.0
"""Code that ignores its cancellation for this long is left alone, and its instance counts as failed."""

StateListener = Callable[["AIMInstance", State, str], None]

_NO_MORE = object()


class AIMInstance:
    """A running AIM.

    Args:
        instance_id: its id in the workflow.
        contract: what it promises.
        make: builds a fresh object of the author's class for every (re)start; may block.
        inputs: the connected input ports by name.
        outputs: all output ports by name.
        clock: time for periods, deadlines and time stamps.
        on_state: told every change of state, and every restart, with the reason in words.
        on_finished: told once, after the last change of state.
        work: what it does with acknowledged channels, if it has any.
        blocking: whether plain code waits for other processes, so that it must not run on the event loop.
        stop_patience_s: how long ``stop`` waits for code that does not end.
    """

    def __init__(
        self,
        instance_id: str,
        contract: AIMMetadata,
        make: Callable[[], AIM],
        inputs: Mapping[str, InputPort],
        outputs: Mapping[str, OutputPort],
        *,
        clock: Clock,
        on_state: StateListener,
        on_finished: Callable[[AIMInstance], None],
        work: AcknowledgedWork | None = None,
        blocking: bool = False,
        stop_patience_s: float = STOP_PATIENCE_S,
    ) -> None:
        self.id = instance_id
        self.contract = contract
        self.inputs, self.outputs = dict(inputs), dict(outputs)
        self.metrics = AIMMetrics()
        self.state = State.IDLE
        self.pace = Pace(contract, clock)
        self._make, self._work = make, work
        self._clock = clock
        self._on_state, self._on_finished = on_state, on_finished
        self._stop_patience_s = stop_patience_s
        self._running = asyncio.Event()
        self._joiner = Joiner(contract, self.inputs, self._running, clock.time_us)
        self._task: asyncio.Task[None] | None = None
        self._misses = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=instance_id) if blocking else None
        self._over = False

    @property
    def status(self) -> AIMStatus:
        return status_of(self.state)

    # --- signals -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, in a task of its own.

        Raises:
            InvalidTransition: it was started before.
        """
        self._move(Signal.START)
        self._running.set()
        self._task = asyncio.create_task(self._main(), name=f"aim {self.id}")

    def pause(self) -> None:
        """Begin no further invocation; one that runs comes to its end.

        Raises:
            InvalidTransition: it is not running.
        """
        self._move(Signal.PAUSE)
        self._running.clear()

    def resume(self) -> None:
        """Go on after ``pause``.

        Raises:
            InvalidTransition: it is not paused.
        """
        self._move(Signal.RESUME)
        self._running.set()

    async def stop(self) -> None:
        """End the instance whatever it does; a stopped or failed one stays as it is."""
        if self._task is None:
            if self.state is State.IDLE:
                self._move(Signal.STOP)
                self._end()
            return
        if self.state in ALIVE_STATES or self.state is State.STARTING:
            self._move(Signal.STOP)
        if not self._task.cancelling():
            self._task.cancel()
        await asyncio.wait([self._task], timeout=self._stop_patience_s)
        if self._task.done():
            self._conclude(Event.ENDED)  # of a task that was cancelled before its first step
        else:
            self._conclude(Event.FAILURE, f"its code did not end within {self._stop_patience_s:g} s")
        self._end()

    def _move(self, cause: Signal | Event, detail: str = "") -> None:
        self.state = next_state(self.state, cause)
        self._on_state(self, self.state, detail)

    def _conclude(self, cause: Event, detail: str = "") -> None:
        """The last change of state; what comes after it changes nothing."""
        if self.state in ENDED_STATES:
            return
        if cause is Event.ENDED and self.state is not State.STOPPING:
            self._move(Event.FINISHED)
        self._move(cause, detail)

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        for port in self.inputs.values():
            port.close()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        self._on_finished(self)

    # --- the task ----------------------------------------------------------------------------------

    async def _main(self) -> None:
        try:
            await self._live()
            if self._work is not None:
                await self._work.finish()
        except asyncio.CancelledError:
            if self.state is State.STOPPING:  # stop() did it, and waits
                self._conclude(Event.ENDED)
                return
            self._conclude(Event.FAILURE, "its task was cancelled")
            raise
        except AIFError as error:
            self._conclude(Event.FAILURE, f"{error.code}: {error}")
        except BaseException as error:  # an interrupt of the whole program, or a defect here
            self._conclude(Event.FAILURE, f"its task ended with {type(error).__name__}")
            raise
        else:
            self._conclude(Event.ENDED)
        finally:
            self._end()

    async def _live(self) -> None:
        """Run until the end of data; restart after failures as often as the contract allows."""
        while True:
            try:
                await self._live_once()
            except (Exception, SystemExit, asyncio.CancelledError) as error:
                self._refuse_cancelled()
                self.metrics.failures += 1
                if self.metrics.restarts >= self.contract.restart_limit:
                    if isinstance(error, AIFError):
                        raise
                    raise AIMFailed(f"{self.id} failed: {type(error).__name__}: {error}") from error
                self.metrics.restarts += 1
                self._on_state(self, self.state, f"restart {self.metrics.restarts} after: {error}")
                if self._work is not None:
                    self._joiner.restart()
                    self._work.restart()
            else:
                return

    async def _live_once(self) -> None:
        """One object of the author's class, from its making to its ``close()``."""
        aim = await self._call(self._make)
        try:
            await self._settle(aim.setup)
            if self.state is State.STARTING:
                self._move(Event.STARTED)
            await self._invocations(aim)
        except (EndOfStream, EndOfData):
            pass
        except BaseException as failure:
            try:
                await self._settle(aim.close)
            except (Exception, SystemExit) as another:  # noqa: BLE001  # the first failure is the one to tell
                failure.add_note(f"close() failed as well: {another}")
            raise
        await self._settle(aim.close)

    async def _invocations(self, aim: AIM) -> None:
        self.pace.begin()
        while True:
            await self._running.wait()
            if await self.pace.next():
                await self._running.wait()
            records, t_us = await self._joiner.next()
            if self._work is None:
                await self._invoke(aim, records, t_us)
            else:
                await self._take_turn(self._work, aim, records, t_us)
            # a chain of neighbours that always has work must still let the transport and the signals in
            await asyncio.sleep(0)
            self._refuse_cancelled()

    async def _take_turn(
        self, work: AcknowledgedWork, aim: AIM, records: Mapping[str, Any], t_us: int
    ) -> None:
        """An invocation between state that has come from elsewhere and state that may go there."""
        state = work.begin(self._joiner.turn)
        if state is not None:
            await self._call(partial(aim.restore, state))
        await self._invoke(aim, records, t_us)
        work.end(await self._call(aim.checkpoint) if work.wants_state else None)

    async def _invoke(self, aim: AIM, records: Mapping[str, Any], t_us: int) -> None:
        began_ms = self._clock.monotonic_ms()
        result = await self._settle(lambda: aim.process(**records))
        took_ms = self._clock.monotonic_ms() - began_ms
        self.metrics.invocations += 1
        if isinstance(result, AsyncIterator | Iterator):
            took_ms += await self._stream(result, t_us)
            self._judge(took_ms)
        else:
            self._judge(took_ms)
            await self._emit(result, self._stamp(t_us))

    async def _stream(self, results: AsyncIterator[Any] | Iterator[Any], t_us: int) -> float:
        """Emit what a generator yields; returns the milliseconds that it took to make that."""
        took_ms, first = 0.0, True
        try:
            while True:
                if not first:
                    await self.pace.next_of_stream()
                first = False
                began_ms = self._clock.monotonic_ms()
                if isinstance(results, AsyncIterator):
                    emitted = await anext(results, _NO_MORE)
                else:
                    emitted = await self._call(partial(next, results, _NO_MORE))
                took_ms += self._clock.monotonic_ms() - began_ms
                if emitted is _NO_MORE:
                    return took_ms
                await self._emit(emitted, self._stamp(t_us))
                await asyncio.sleep(0)
                self._refuse_cancelled()
                await self._running.wait()
        finally:
            close = getattr(results, "aclose", None) or getattr(results, "close", None)
            if close is not None:
                await self._settle(close)

    def _stamp(self, t_us: int) -> int:
        """A source's record is as old as its reading, which ``process`` has just waited for."""
        return self._clock.time_us() if self.contract.is_source else t_us

    async def _settle(self, function: Callable[[], Any]) -> Any:
        """What the author's function gives, plain or async."""
        result = await self._call(function)
        return await result if inspect.isawaitable(result) else result

    async def _call(self, function: Callable[[], Any]) -> Any:
        if self._executor is None:
            return function()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: _without_stop_iteration(function))

    def _refuse_cancelled(self) -> None:
        """End here when the author's code has swallowed a cancellation.

        Raises:
            CancelledError: somebody asked this task to end.
        """
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError

    async def _emit(self, records: object, t_us: int) -> None:
        self._refuse_cancelled()
        if records is None:
            return
        if not isinstance(records, Mapping):
            raise InvalidRecord(
                f"{self.id}: process() returned {type(records).__name__}, not records by output port",
                hint="return {'port_name': record}",
            )
        for name, value in records.items():
            port = self.outputs.get(name)
            if port is None:
                known = ", ".join(self.outputs) or "none"
                raise InvalidRecord(
                    f"{self.id}: process() returned a record for {name!r}; outputs are: {known}"
                )
            self.metrics.emitted += 1
            await port.write(value, t_us=t_us)

    def _judge(self, took_ms: float) -> None:
        """Measure one invocation against the deadline; a source's waiting is no work."""
        if self.contract.is_source:
            took_ms = 0.0
        self.metrics.process_us.add(took_ms * 1000.0)
        if self.contract.deadline_ms is None:
            return
        if took_ms <= self.contract.deadline_ms:
            self._misses = 0
            if self.state is State.DEGRADED:
                self._move(Event.DEADLINES_MET)
            return
        self.metrics.deadlines_missed += 1
        self._misses += 1
        if self._misses >= MISSES_UNTIL_DEGRADED and self.state is State.RUNNING:
            self._move(
                Event.DEADLINES_MISSED, f"{self._misses} invocations over {self.contract.deadline_ms:g} ms"
            )

    @property
    def waiting(self) -> int:
        """Records at the input queues."""
        return sum(port.pending for port in self.inputs.values())

    def port_counters(self) -> dict[str, int]:
        """Losses at the input queues, summed, by the names of ``PortCounters``."""
        counters = [port.counters for port in self.inputs.values()]
        return {
            "overflowed": sum(c.overflowed for c in counters),
            "expired": sum(c.expired for c in counters),
            "unmatched": sum(c.unmatched for c in counters),
            "discarded": sum(c.discarded for c in counters),
        }


def _without_stop_iteration(function: Callable[[], Any]) -> Any:
    """StopIteration cannot travel out of a thread: the event loop would lose it and wait for ever."""
    try:
        return function()
    except StopIteration as error:
        raise RuntimeError("StopIteration was raised") from error
