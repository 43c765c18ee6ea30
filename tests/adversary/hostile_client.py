"""A client of the broker that should not be there: it listens to everything and sends whatever it likes.

It holds no key of the site unless a test steals one for it (``Member``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from aif.protocol.frame import FrameSealer
from aif.protocol.numbers import HEADER_BYTES, FrameType
from aif.protocol.peer import Peer
from aif.protocol.topics import DataTopic, everything_filter, parse
from aif.transport.base import Received, Transport
from aif.trusted.communication import SecureReceiver

PATIENCE_S: Final = 8.0
FAR_AHEAD: Final = 1 << 20
"""Added to counters of forged frames, so that no window has seen them."""


class HostileClient:
    """Records all of a broker's messages, and injects."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.recorded: list[Received] = []
        self._own: set[tuple[str, bytes]] = set()
        self._heard = asyncio.Event()

    async def start(self) -> None:
        await self.transport.connect()
        await self.transport.subscribe(everything_filter(), self._record, qos=0)

    def _record(self, message: Received) -> None:
        if (message.topic, message.payload) not in self._own:
            self.recorded.append(message)
        self._heard.set()

    # --- listening ----------------------------------------------------------------------------------

    def heard(self, topic: str) -> list[bytes]:
        """Payloads of others on a topic, oldest first."""
        return [message.payload for message in self.recorded if message.topic == topic]

    def data_topics(self) -> list[str]:
        """Topics of data channels that have been seen."""
        found = dict.fromkeys(message.topic for message in self.recorded)
        return [topic for topic in found if isinstance(parse(topic), DataTopic)]

    def data_topic(self, source: str, workflow: str = "") -> str:
        """The newest data channel that leaves an AIM."""
        return next(
            topic
            for topic in reversed(self.data_topics())
            if f"/{source}/" in topic and (not workflow or f"/{workflow}/" in topic)
        )

    async def until(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not enough():
                self._heard.clear()
                await self._heard.wait()

    async def until_heard(self, topic: str, count: int = 1) -> list[bytes]:
        """The next ``count`` payloads on a topic, from now on."""
        before = len(self.heard(topic))
        await self.until(lambda: len(self.heard(topic)) >= before + count)
        return self.heard(topic)[before : before + count]

    # --- injecting ----------------------------------------------------------------------------------

    def send(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self._own.add((topic, payload))
        self.transport.send(topic, payload, qos=qos, retain=retain)

    def flood(self, topic: str, payloads: Iterator[bytes]) -> int:
        """Send all of them as fast as the transport takes them; returns how many."""
        count = 0
        for payload in payloads:
            self.send(topic, payload, qos=0)
            count += 1
        return count


def edited(frame: bytes, position: int, value: int) -> bytes:
    """A frame with one byte replaced."""
    return frame[:position] + bytes([value]) + frame[position + 1 :]


def moved_ahead(frame: bytes) -> bytes:
    """A frame under a counter that nobody has seen."""
    counter = int.from_bytes(frame[4:HEADER_BYTES], "big") + FAR_AHEAD
    return frame[:4] + counter.to_bytes(6, "big") + frame[HEADER_BYTES:]


class Member:
    """A legitimate consumer that turns on its producer: it holds the keys of one channel, and uses them."""

    def __init__(self, stolen: SecureReceiver, own_sign_seed: bytes) -> None:
        """Take the producer's sender key out of a consumer's receiver; its sign key is not there."""
        self._peer: Peer = next(iter(stolen._receiver._peers.values()))
        self._sealer = FrameSealer(
            stolen.channel.channel_id, self._peer.epoch, self._peer.index, self._peer.row.key, own_sign_seed
        )

    def forge(self, kind: FrameType, plaintext: bytes, *, ahead: int = FAR_AHEAD, signed: bool) -> bytes:
        """A frame that opens with the channel's key."""
        body = self._sealer.seal(kind, self._peer.window.top + ahead, plaintext)
        return body + self._sealer.signature(body) if signed else body
