"""MQTT 3.1.1 packets as bytes: what a client writes, and how it takes apart what a broker sends.

Decides layout and which incoming packets are well formed. Does no I/O and knows nothing of connections;
topics and filters are checked before they come here (``filters.py``).

Invariants: never more is kept than one packet of ``max_packet_bytes`` and what came with its end; whatever is
wrong with incoming bytes raises RemoteProtocolError and nothing else.

Source: MQTT 3.1.1 (OASIS) §2.2 (fixed header), §3.1 to §3.14.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import lru_cache

from aif.errors import RemoteProtocolError
from aif.transport.base import LastWill

MAX_LENGTH_BYTES = 4
"""Longest "remaining length" field (§2.2.3)."""

TWO_LENGTH_BYTES = 1 << 14
"""Packets below this need at most two bytes for it."""


class PacketType(IntEnum):
    """High four bits of the first byte (§2.2.1)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


PUBLISH = PacketType.PUBLISH << 4
RETAIN, DUP = 1, 8
PINGREQ = bytes((PacketType.PINGREQ << 4, 0))
DISCONNECT = bytes((PacketType.DISCONNECT << 4, 0))
REFUSED_FILTER = 0x80
"""Return code of a refused filter in SUBACK (§3.9.3)."""

CONNECT_REFUSALS = {
    1: "Unsupported protocol version",
    2: "Client identifier not valid",
    3: "Server unavailable",
    4: "Bad user name or password",
    5: "Not authorized",
}
"""Return codes of CONNACK (§3.2.2.3)."""


def remaining_length(size: int) -> bytes:
    """Seven bits per byte, the least significant first (§2.2.3).

    >>> remaining_length(321).hex()
    'c102'
    """
    if size < 128:
        return bytes((size,))
    encoded = bytearray()
    while True:
        size, low = size >> 7, size & 0x7F
        encoded.append(low | (0x80 if size else 0))
        if not size:
            return bytes(encoded)


def text(value: str) -> bytes:
    """Length and UTF-8 (§1.5.3)."""
    return _counted(value.encode())


def _counted(raw: bytes) -> bytes:
    return len(raw).to_bytes(2, "big") + raw


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + remaining_length(len(body)) + body


def connect(
    client_id: str, keep_alive_s: int, will: LastWill | None, username: str | None, password: str | None
) -> bytes:
    """CONNECT with a clean session (§3.1)."""
    flags, fields = 0x02, [text(client_id)]
    if will is not None:
        flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        fields += [text(will.topic), _counted(will.payload)]
    if username is not None:
        flags |= 0x80
        fields.append(text(username))
        if password is not None:
            flags |= 0x40
            fields.append(text(password))
    head = text("MQTT") + bytes((4, flags)) + keep_alive_s.to_bytes(2, "big")
    return _packet(PacketType.CONNECT << 4, head + b"".join(fields))


def publish(topic: bytes, payload: bytes, *, qos: int, retain: bool, packet_id: int) -> bytes:
    """PUBLISH (§3.3).

    Args:
        topic: as :func:`text` encodes it, so that a sender encodes each topic once.
        payload: the message.
        qos: 0 or 1.
        retain: whether the broker keeps it.
        packet_id: 1 to 65 535 at QoS 1; not sent at QoS 0.
    """
    if qos:
        head = _publish_head(PUBLISH | qos << 1 | retain, topic, 2 + len(payload))
        return head + packet_id.to_bytes(2, "big") + payload
    return _publish_head(PUBLISH | retain, topic, len(payload)) + payload


@lru_cache(maxsize=1_024)
def _publish_head(first: int, topic: bytes, behind_bytes: int) -> bytes:
    """What stands before packet id and payload; kept, because most messages of a topic have one length."""
    return bytes((first,)) + remaining_length(len(topic) + behind_bytes) + topic


def repeated(packet: bytes) -> bytes:
    """The same PUBLISH as a repetition (§3.3.1.1)."""
    return bytes((packet[0] | DUP,)) + packet[1:]


PUBACK_BYTES = 4


def puback(packet_id: int) -> bytes:
    return bytes((PacketType.PUBACK << 4, 2)) + packet_id.to_bytes(2, "big")


def subscribe(packet_id: int, filters: Sequence[tuple[str, int]]) -> bytes:
    """SUBSCRIBE (§3.8)."""
    body = b"".join(text(topic_filter) + bytes((qos,)) for topic_filter, qos in filters)
    return _packet(PacketType.SUBSCRIBE << 4 | 2, packet_id.to_bytes(2, "big") + body)


def unsubscribe(packet_id: int, topic_filter: str) -> bytes:
    """UNSUBSCRIBE (§3.10)."""
    return _packet(PacketType.UNSUBSCRIBE << 4 | 2, packet_id.to_bytes(2, "big") + text(topic_filter))


def packet_id_of(body: bytes, *, more: int = 0) -> int:
    """The packet id in front of an acknowledgement's body.

    Args:
        body: of PUBACK, SUBACK or UNSUBACK.
        more: bytes that must at least follow it; where it is 0, nothing may.

    Raises:
        RemoteProtocolError: another length.
    """
    if len(body) < 2 + more or (not more and len(body) != 2):
        raise RemoteProtocolError(f"an acknowledgement has {len(body)} B")
    return int.from_bytes(body[:2], "big")


def split_publish(first: int, body: bytes) -> tuple[bytes, int, bytes]:
    """Topic, packet id (0 at QoS 0) and payload of an incoming PUBLISH.

    Raises:
        RemoteProtocolError: shorter than it says, QoS 2 or 3, or packet id 0.
    """
    end = 2 + (body[0] << 8 | body[1]) if len(body) >= 2 else 2
    if not first & 6:
        if end > len(body):
            raise RemoteProtocolError("a PUBLISH is shorter than its topic")
        return body[2:end], 0, body[end:]
    packet_id = int.from_bytes(body[end : end + 2], "big")
    if first & 4 or end + 2 > len(body) or not packet_id:
        raise RemoteProtocolError("a PUBLISH has no allowed QoS or no packet id")
    return body[2:end], packet_id, body[end + 2 :]


class PacketReader:
    """Takes the bytes of a connection and gives whole packets."""

    __slots__ = ("_chunks", "_have", "_max_bytes", "_need")

    def __init__(self, max_packet_bytes: int) -> None:
        self._max_bytes = max_packet_bytes
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0

    @property
    def within_packet(self) -> bool:
        """The end of a packet is still to come."""
        return bool(self._chunks)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """First byte and body of every packet that is complete now.

        Must be exhausted before the next call.

        Raises:
            RemoteProtocolError: a packet that is too large, or a malformed length.
        """
        buffer = data
        if self._chunks:  # what came before ended within a packet
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            buffer = b"".join(self._chunks)
            self._chunks = []
        start, size = 0, len(buffer)
        while size - start >= 2:
            length, at = buffer[start + 1], start + 2
            if length & 0x80:
                if size > at and buffer[at] < 0x80 and self._max_bytes >= TWO_LENGTH_BYTES:
                    length += (buffer[at] << 7) - 0x80
                    at += 1
                else:
                    length, at = self._length(buffer, start)
                    if not at:
                        break
            end = at + length
            if end > size:
                break
            yield buffer[start], buffer[at:end]
            start = end
        if rest := buffer[start:]:
            self._chunks, self._have, self._need = [rest], len(rest), self._needed(rest)

    def _length(self, buffer: bytes, start: int) -> tuple[int, int]:
        """Remaining length of the packet at ``start`` and where its body begins; (0, 0) if it is cut off."""
        length = shift = 0
        for at in range(start + 1, min(len(buffer), start + 1 + MAX_LENGTH_BYTES)):
            length |= (buffer[at] & 0x7F) << shift
            shift += 7
            if buffer[at] < 0x80:
                if length > self._max_bytes:
                    raise RemoteProtocolError(f"a packet of {length:,} B, at most {self._max_bytes:,} B")
                return length, at + 1
        if shift == 7 * MAX_LENGTH_BYTES:
            raise RemoteProtocolError("the length of a packet has more than four bytes")
        return 0, 0

    def _needed(self, rest: bytes) -> int:
        """Bytes that must be there before it is worth looking again."""
        if len(rest) < 2:
            return 2
        length, at = self._length(rest, 0)
        return at + length if at else len(rest) + 1
