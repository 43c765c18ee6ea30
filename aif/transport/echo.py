"""What an exchange over a broker costs, and whether the broker keeps clients from topics that are not theirs.

Measures with two clients, one of which answers: a client that talks to itself does not see the delay that a
broker without TCP_NODELAY causes (Nagle's algorithm, RFC 896, together with delayed acknowledgements,
RFC 1122 §4.2.3.2). Decides from which difference on that is the likely cause. Prints nothing.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Final

from aif.transport.base import Received, Transport

EXCHANGES: Final = 21
ANSWER_TIMEOUT_S: Final = 10.0
NAGLE_MS: Final = 20.0
"""QoS 1 costs a confirmation each way, far less than this; a delayed acknowledgement costs about 40 ms."""


@dataclass(frozen=True, slots=True)
class Echo:
    """Medians of there and back, in milliseconds; ``open_topics`` are those that should have been refused."""

    qos_0_ms: float
    qos_1_ms: float
    open_topics: tuple[str, ...] = ()

    @property
    def delayed(self) -> bool:
        """Whether small packets are held back somewhere."""
        return self.qos_1_ms - self.qos_0_ms > NAGLE_MS


async def echo(
    asking: Transport, answering: Transport, *, question: str, answer: str, forbidden: str
) -> Echo:
    """Measure, and try a topic that ``asking`` has no right to.

    Args:
        asking: may write ``question`` and read ``answer``.
        answering: may read ``question`` and ``forbidden``, and write ``answer``.
        question: topic.
        answer: topic.
        forbidden: topic that only somebody else may write.

    Raises:
        TimeoutError: an answer did not come within 10 s.
        TransportError: a connection was lost.
    """
    qos_0_ms = await _median_ms(asking, answering, question, answer, 0)
    qos_1_ms = await _median_ms(asking, answering, question, answer, 1)
    seen: list[str] = []
    heard = asyncio.Event()

    def note(received: Received) -> None:
        seen.append(received.topic)
        if received.topic == question:
            heard.set()

    listening = [await answering.subscribe(topic, note, qos=1) for topic in (forbidden, question)]
    await asking.publish(forbidden, b"", qos=1)  # the broker routes in order, so the second comes last
    await asking.publish(question, b"", qos=1)
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        await heard.wait()
    for subscription in listening:
        await subscription.aclose()
    return Echo(qos_0_ms, qos_1_ms, tuple(topic for topic in seen if topic != question))


async def _median_ms(asking: Transport, answering: Transport, question: str, answer: str, qos: int) -> float:
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    there = await answering.subscribe(question, lambda m: answering.send(answer, m.payload, qos=qos), qos=qos)
    back = await asking.subscribe(answer, lambda m: answers.put_nowait(m.payload), qos=qos)
    times_ms = []
    for number in range(EXCHANGES):
        payload, start = number.to_bytes(4), time.perf_counter()
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            asking.send(question, payload, qos=qos)
            while await answers.get() != payload:
                pass
        times_ms.append((time.perf_counter() - start) * 1000)
    await there.aclose()
    await back.aclose()
    return statistics.median(times_ms)
