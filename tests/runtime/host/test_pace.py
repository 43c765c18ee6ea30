"""When an AIM that sets a pace is invoked: at its full rate, at a lower one, and while that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from aif.model.aim import AIMMetadata
from aif.model.ports import Direction, Port
from aif.model.records import PortType, RecordType
from aif.runtime.host.instance import AIMInstance
from aif.runtime.host.ports import OutputPort
from aif.sdk import AIM
from tests.runtime.virtual_clock import VirtualClock

TYPE = PortType(RecordType.parse("int32"))


class Sensing(AIM):
    """Has a reading every 100 ms, as a sensor does that keeps none for later."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock

    async def process(self) -> Any:
        await self.clock.sleep((100.0 - self.clock.now_ms % 100.0) / 1000.0)
        return {"out": 1}


class Streaming(AIM):
    """Gives what it has as fast as it is asked."""

    def process(self) -> Iterator[Any]:
        return iter([{"out": n} for n in range(6)])


class Paced:
    """A source on a virtual clock, and when it gave its records (ms since its start)."""

    def __init__(self, aim: AIM, *, rate: float, **contract: Any) -> None:
        self.clock = VirtualClock()
        if isinstance(aim, Sensing):
            aim.clock = self.clock
        outputs = (Port("out", Direction.OUTPUT, TYPE, 4, rate_hz=contract.pop("rate_hz", 10.0)),)
        declared = AIMMetadata("A", "1.0", "demo", outputs=outputs, **contract)
        self.began_ms, self.given_ms = self.clock.now_ms, list[float]()
        out = OutputPort(outputs[0])
        out.connect(self._given)
        self.instance = AIMInstance(
            "a", declared, lambda: aim, {}, {"out": out},
            clock=self.clock, on_state=lambda *_: None, on_finished=lambda _: None,
        )  # fmt: skip
        self.instance.pace.rate = rate

    async def _given(self, values: Any, _t_us: int) -> None:
        self.given_ms += [self.clock.now_ms - self.began_ms] * len(values)

    async def run(self, milliseconds: float) -> list[float]:
        self.given_ms.clear()
        if self.instance.state.value == "idle":
            self.instance.start()
        await self.clock.advance(milliseconds)
        return list(self.given_ms)


@pytest.mark.parametrize(("rate", "records"), [(1.0, 20), (0.5, 10), (0.25, 5), (0.1, 2)])
def test_a_period_grows_as_the_rate_falls(rate: float, records: int) -> None:
    async def journey() -> None:
        paced = Paced(Streaming(), rate=rate, period_ms=100.0, rate_hz=None)
        given = await paced.run(2_000.0)
        assert len(given) == 6 * records
        await paced.instance.stop()

    asyncio.run(journey())


@pytest.mark.parametrize(("rate", "records"), [(1.0, 20), (0.5, 10), (0.25, 5)])
def test_a_sensor_is_read_less_often(rate: float, records: int) -> None:
    async def journey() -> None:
        paced = Paced(Sensing(VirtualClock()), rate=rate)
        given = await paced.run(2_000.0)
        assert records - 1 <= len(given) <= records
        await paced.instance.stop()

    asyncio.run(journey())


def test_a_stream_of_one_invocation_is_held_back_as_well() -> None:
    async def journey() -> None:
        paced = Paced(Streaming(), rate=0.5)
        assert await paced.run(1_000.0) == [200.0, 400.0, 600.0, 800.0, 1_000.0]
        await paced.instance.stop()

    asyncio.run(journey())


def test_a_rate_that_changes_is_kept_from_the_next_record_on() -> None:
    async def journey() -> None:
        paced = Paced(Streaming(), rate=0.5, period_ms=100.0, rate_hz=None)
        assert set(await paced.run(400.0)) == {200.0, 400.0}
        paced.instance.pace.rate = 1.0
        times = sorted(set(await paced.run(500.0)))
        assert times == [600.0, 700.0, 800.0, 900.0]
        await paced.instance.stop()

    asyncio.run(journey())
