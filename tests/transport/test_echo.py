"""What is said about a broker: held-back packets and open topics."""

from __future__ import annotations

from typing import Any

import pytest

from aif.transport.echo import NAGLE_MS, Echo, echo

Bench = Any  # tests/transport/conftest.py


async def test_two_clients_over_every_broker(bench: Bench) -> None:
    asking, answering = await bench.open("asking"), await bench.open("answering")
    seen = await echo(asking, answering, question="q", answer="a", forbidden="f")
    assert seen.qos_0_ms > 0
    assert seen.qos_1_ms > 0
    assert seen.open_topics == ("f",)  # none of these has access rules


@pytest.mark.parametrize(("qos_1_ms", "delayed"), [(0.4, False), (NAGLE_MS, False), (44.0, True)])
def test_a_delay_is_named_from_20_ms_on(qos_1_ms: float, delayed: bool) -> None:
    assert Echo(0.0, qos_1_ms).delayed is delayed
