"""One running AIM: its life cycle, what starts an invocation, and what happens when its code fails.

An instance owns one task. A failure of the author's code or of its engine is a failure of this instance
only; it is restarted up to ``restart_limit`` times. When every producer of a required input has finished,
the instance drains what it holds, finishes, and lets its readers know.

Source: MPAI-AIF V2 life cycle and signals; periods, deadlines, restarts and DEGRADED as in V3.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from aif.errors import AIFError, AIMFailed, EndOfData, InvalidRecord
from aif.model.aim import AIMMetadata, Join
from aif.protocol.lifecycle import ALIVE_STATES, AIMStatus, Event, Signal, State, next_state, status_of
from aif.runtime.clock import Clock
from aif.runtime.metrics import AIMMetrics
from aif.runtime.ports import EndOfStream, InputPort, Message, OutputPort, select
from aif.sdk import AIM

MISSES_UNTIL_DEGRADED = 3
"""Consecutive deadline misses after which an AIM is DEGRADED (MPAI-AIF V3)."""

StateListener = Callable[["AIMInstance", State, str], None]


class AIMInstance:
    """A running AIM. ``make`` builds a fresh object of the author's class for every (re)start."""

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
        blocking: bool = False,
    ) -> None:
        self.id = instance_id
        self.contract = contract
        self.inputs, self.outputs = dict(inputs), dict(outputs)
        self.metrics = AIMMetrics()
        self.state = State.IDLE
        self._make = make
        self._clock = clock
        self._on_state, self._on_finished = on_state, on_finished
        self._running = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._misses = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=instance_id) if blocking else None
        self._last: dict[str, Message] = {}

    @property
    def status(self) -> AIMStatus:
        return status_of(self.state)

    # --- signals -----------------------------------------------------------------------------------

    def start(self) -> None:
        self._move(Signal.START)
        self._running.set()
        self._task = asyncio.create_task(self._main(), name=f"aim {self.id}")

    def pause(self) -> None:
        self._move(Signal.PAUSE)
        self._running.clear()

    def resume(self) -> None:
        self._move(Signal.RESUME)
        self._running.set()

    async def stop(self) -> None:
        """End the instance whatever it does; a stopped or failed one stays as it is."""
        if self._task is not None:
            if self.state in ALIVE_STATES or self.state is State.STARTING:
                self._move(Signal.STOP)
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        elif self.state is State.IDLE:
            self._move(Signal.STOP)

    def _move(self, cause: Signal | Event, detail: str = "") -> None:
        self.state = next_state(self.state, cause)
        self._on_state(self, self.state, detail)

    # --- the task ----------------------------------------------------------------------------------

    async def _main(self) -> None:
        try:
            await self._live()
        except asyncio.CancelledError:
            if self.state is State.STOPPING:
                self._move(Event.ENDED)
        except AIFError as error:
            self._move(Event.FAILURE, f"{error.code}: {error}")
        else:
            self._move(Event.FINISHED)
            self._move(Event.ENDED)
        finally:
            if self._executor is not None:
                self._executor.shutdown(wait=False, cancel_futures=True)
            self._on_finished(self)

    async def _live(self) -> None:
        """Run until the end of data; restart after failures as often as the contract allows."""
        while True:
            aim: AIM | None = None
            try:
                aim = self._make()
                await self._settle(aim.setup())
                if self.state is State.STARTING:
                    self._move(Event.STARTED)
                await self._invocations(aim)
            except (EndOfStream, EndOfData):
                return
            except Exception as error:
                self.metrics.failures += 1
                if self.metrics.restarts >= self.contract.restart_limit:
                    if isinstance(error, AIFError):
                        raise
                    raise AIMFailed(f"{self.id} failed: {type(error).__name__}: {error}") from error
                self.metrics.restarts += 1
                self._on_state(self, self.state, f"restart {self.metrics.restarts} after: {error}")
            finally:
                if aim is not None:
                    await self._settle(aim.close())

    async def _invocations(self, aim: AIM) -> None:
        period_s = (self.contract.period_ms or 0.0) / 1000.0
        due = self._clock.monotonic_ms() / 1000.0
        while True:
            await self._running.wait()
            if period_s:
                due += period_s
                await self._clock.sleep(max(0.0, due - self._clock.monotonic_ms() / 1000.0))
            records, t_us = await self._gather() if self.inputs else ({}, self._clock.time_us())
            await self._running.wait()
            await self._invoke(aim, records, t_us)

    async def _invoke(self, aim: AIM, records: Mapping[str, Any], t_us: int) -> None:
        began = self._clock.monotonic_ms()
        if self._executor is not None:
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(self._executor, lambda: aim.process(**records))
        else:
            result = aim.process(**records)
        if inspect.isawaitable(result):
            result = await result
        if not self.inputs:  # a source's record is as old as its reading, which process() waited for
            began = t_now = self._clock.monotonic_ms()
            t_us = self._clock.time_us()
        else:
            t_now = self._clock.monotonic_ms()
        self.metrics.invocations += 1
        self.metrics.process_us.add((t_now - began) * 1000.0)
        self._judge_deadline(t_now - began)
        if isinstance(result, AsyncIterator):
            async for emitted in result:
                await self._emit(emitted, t_us)
        elif isinstance(result, Iterator):
            for emitted in result:
                await self._emit(emitted, t_us)
        else:
            await self._emit(result, t_us)
        # a chain of neighbours that always has work must still let the transport and the signals in
        await asyncio.sleep(0)

    async def _emit(self, records: object, t_us: int) -> None:
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

    def _judge_deadline(self, took_ms: float) -> None:
        if self.contract.deadline_ms is None:
            return
        if took_ms <= self.contract.deadline_ms:
            self._misses = 0
            if self.state is State.DEGRADED:
                self._move(Event.DEADLINES_MET)
            return
        self.metrics.deadlines_missed += 1
        self._misses += 1
        if self._misses == MISSES_UNTIL_DEGRADED and self.state is State.RUNNING:
            self._move(
                Event.DEADLINES_MISSED,
                f"{MISSES_UNTIL_DEGRADED} invocations over {self.contract.deadline_ms:g} ms",
            )

    async def _settle(self, result: object) -> None:
        if inspect.isawaitable(result):
            await result

    # --- putting inputs together -------------------------------------------------------------------

    async def _gather(self) -> tuple[dict[str, Any], int]:
        trigger = self.contract.trigger
        names = trigger.inputs or tuple(p.name for p in self.contract.required_inputs()) or tuple(self.inputs)
        ports = [self.inputs[name] for name in names]
        taken: dict[str, list[Message]]
        if trigger.any_of:
            chosen = await select(ports)
            taken = {names[chosen]: [ports[chosen].take()]}
        elif trigger.join is Join.TIMESTAMP and len(ports) > 1:
            taken = await self._same_time(names, ports)
        elif trigger.join is Join.LATEST:
            taken = {names[0]: await self._records(ports[0])}
        else:
            taken = {name: await self._records(port) for name, port in zip(names, ports, strict=True)}
        self._take_the_rest(taken)
        t_us = max(m.t_us for messages in taken.values() for m in messages)
        values = {name: self._as_argument(name, messages) for name, messages in taken.items()}
        for name in self.inputs.keys() - values.keys():
            values[name] = None
        return values, t_us

    async def _records(self, port: InputPort) -> list[Message]:
        return [await port.read() for _ in range(max(1, math.ceil(port.port.consumes)))]

    async def _same_time(self, names: tuple[str, ...], ports: list[InputPort]) -> dict[str, list[Message]]:
        """Records with one source time stamp; a head whose partner can no longer come is dropped and counted."""
        heads = [await port.read() for port in ports]
        while True:
            newest = max(m.t_us for m in heads)
            stale = [n for n, m in enumerate(heads) if m.t_us < newest]
            if not stale:
                return {name: [message] for name, message in zip(names, heads, strict=True)}
            for n in stale:
                ports[n].counters.unmatched += 1
                heads[n] = await ports[n].read()

    def _take_the_rest(self, taken: dict[str, list[Message]]) -> None:
        """Inputs that do not trigger give what they have: the newest (remembered under LATEST), or nothing."""
        latest = self.contract.trigger.join is Join.LATEST
        for name, port in self.inputs.items():
            if name in taken:
                continue
            if port.ready:
                self._last[name] = port.newest() if latest else port.take()
                taken[name] = [self._last[name]]
            elif latest and name in self._last:
                taken[name] = [self._last[name]]

    def _as_argument(self, name: str, messages: list[Message]) -> Any:
        single = self.contract.input(name).consumes <= 1
        return messages[0].value if single else [m.value for m in messages]

    def port_counters(self) -> dict[str, int]:
        """Losses at the input queues, summed."""
        counters = [port.counters for port in self.inputs.values()]
        return {
            "overflowed": sum(c.overflowed for c in counters),
            "expired": sum(c.expired for c in counters),
            "unmatched": sum(c.unmatched for c in counters),
        }
