"""What makes one invocation: records of an AIM's inputs, put together as its trigger says.

Decides which records belong together and when there will be no more of them; not how the AIM runs.

Invariants: records of an input are used in order, each at most once (but for the memory of LATEST); what can
no longer be used is counted as unmatched; what any input holds is taken with the next invocation, so that
none starves.

Source: MPAI-AIF V3 for periods; triggers and joins are this project's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any

from aif.model.aim import AIMMetadata, Join
from aif.runtime.host.ports import EndOfStream, InputPort, Message, NumberedMessage


class Joiner:
    """Puts the inputs of one AIM instance together.

    Args:
        contract: trigger, period and ports.
        inputs: the connected input ports by name.
        running: while it is clear nothing is taken, so that ages and queue policies go on applying.
        time_us: wall clock, microseconds since the epoch.
    """

    def __init__(
        self,
        contract: AIMMetadata,
        inputs: Mapping[str, InputPort],
        running: asyncio.Event,
        time_us: Callable[[], int],
    ) -> None:
        self._contract, self._inputs = contract, inputs
        self._running, self._time_us = running, time_us
        self._triggers = tuple(name for name in contract.trigger_inputs() if name in inputs)
        self._latest = contract.trigger.join is Join.LATEST
        self._needs = {name: max(1, math.ceil(port.port.consumes)) for name, port in inputs.items()}
        self._held: dict[str, list[Message]] = {name: [] for name in inputs}
        self._last: dict[str, Message] = {}
        self.turn = 0
        """Who the last message of the acknowledged input was; 0 without one."""

    async def next(self) -> tuple[dict[str, Any], int]:
        """Arguments of the next invocation by input name, and the time stamp of what it will emit (µs).

        An input with ``consumes`` above 1 gives a list. One that has nothing gives None; one that is not
        connected is left out.

        Raises:
            EndOfStream: no further invocation can come together; what was left over is counted.
        """
        if self._contract.is_source:
            return {}, self._time_us()
        try:
            taken = await self._trigger()
        except EndOfStream:
            self._give_up()
            raise
        self._add_the_rest(taken)
        for messages in taken.values():
            if isinstance(messages[-1], NumberedMessage):
                self.turn = messages[-1].identity
        stamps = [m.t_us for messages in taken.values() for m in messages if not m.is_empty_turn]
        values = {name: self._argument(name, taken.get(name)) for name in self._inputs}
        return values, max(stamps, default=self._time_us())

    async def _trigger(self) -> dict[str, list[Message]]:
        """The records that start an invocation."""
        trigger = self._contract.trigger
        if self._contract.period_ms is not None:
            if self._inputs and all(port.finished for port in self._inputs.values()):
                raise EndOfStream(self._contract.name)
            return {}
        if not self._triggers:
            raise EndOfStream(f"nothing that starts {self._contract.name} is connected")
        if trigger.any_of:
            return {name: self._take(name) for name in await self._complete(at_least=1)}
        while True:
            await self._complete(at_least=len(self._triggers))
            if trigger.join is not Join.TIMESTAMP or not self._drop_stale():
                return {name: self._take(name) for name in self._triggers}

    async def _complete(self, *, at_least: int) -> list[str]:
        """Wait until so many triggering inputs hold what an invocation needs; all that do.

        Raises:
            EndOfStream: they cannot any more.
        """
        changed = asyncio.Event()
        names = self._triggers
        ports = [self._inputs[name] for name in names]
        for port in ports:
            port.watch(changed)
        try:
            while True:
                await self._running.wait()
                changed.clear()
                complete = [name for name in names if self._fill(name)]
                if len(complete) >= at_least:
                    return complete
                hopeful = [n for n in names if n not in complete and not self._inputs[n].finished]
                if len(complete) + len(hopeful) < at_least:
                    raise EndOfStream(", ".join(n for n in names if n not in complete + hopeful))
                await changed.wait()
        finally:
            for port in ports:
                port.unwatch(changed)

    def _fill(self, name: str) -> bool:
        """Take up what has arrived; whether it is enough for an invocation."""
        port, held, need = self._inputs[name], self._held[name], self._needs[name]
        if need == 1 and held and port.too_old(held[0]):  # while it waited for its partners
            held.clear()
            port.counters.expired += 1
        while len(held) < need and port.ready:
            held.append(port.take())
        return len(held) >= need

    def restart(self) -> None:
        """Forget what waits for company: it is sent again, or lost with what it waited for."""
        for name, held in self._held.items():
            if held and not isinstance(held[0], NumberedMessage):
                self._inputs[name].counters.unmatched += len(held)
            self._held[name] = []

    def _take(self, name: str) -> list[Message]:
        taken, self._held[name] = self._held[name], []
        return taken

    def _drop_stale(self) -> bool:
        """Drop heads whose partners of the same time can no longer come; whether there were any."""
        heads = {name: self._held[name][0] for name in self._triggers}
        newest = max(message.t_us for message in heads.values())
        stale = [n for n, message in heads.items() if message.t_us < newest and not message.is_empty_turn]
        for name in stale:
            self._inputs[name].counters.unmatched += len(self._take(name))
        return bool(stale)

    def _give_up(self) -> None:
        for name, port in self._inputs.items():
            port.counters.unmatched += len(self._take(name))

    def _add_the_rest(self, taken: dict[str, list[Message]]) -> None:
        """Inputs that do not trigger give what they have; under LATEST the newest, which is remembered."""
        for name, port in self._inputs.items():
            if name in taken:
                continue
            if self._latest:
                if port.ready:
                    self._last[name] = port.newest()
                if name in self._last:
                    taken[name] = [self._last[name]]
            elif self._fill(name):
                taken[name] = self._take(name)

    def _argument(self, name: str, messages: list[Message] | None) -> Any:
        if not messages:
            return None
        return messages[0].value if self._needs[name] == 1 else [m.value for m in messages]
