"""MQTT 3.1.1 packets as an attacker on the wire needs them: split a byte stream, read and write PUBLISH.

Decides nothing about the protocol's state. Control packet types of which only the number matters have names
here; everything else stays bytes. Source: MQTT 3.1.1 (OASIS Standard), §2.2 and §3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CONNECT, PUBLISH, PUBACK = 1, 3, 4
DISCONNECT: Final = b"\xe0\0"
MAX_LENGTH_BYTES: Final = 4
"""Bytes of the remaining length field (§2.2.3)."""


class NotMQTT(ValueError):  # noqa: N818  # a finding about a stream, named as what it is
    """The stream is not a sequence of MQTT packets."""


class Splitter:
    """Whole packets out of a byte stream that arrives in any pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Packets that are complete now, in order.

        Raises:
            NotMQTT: the length field is malformed.
        """
        self._buffer += data
        packets = []
        while (size := _packet_size(self._buffer)) is not None and size <= len(self._buffer):
            packets.append(bytes(self._buffer[:size]))
            del self._buffer[:size]
        return packets


def _packet_size(buffer: bytearray) -> int | None:
    """Size of the first packet, None while its length field is incomplete."""
    length = 0
    for position in range(MAX_LENGTH_BYTES):
        if len(buffer) < position + 2:
            return None
        byte = buffer[position + 1]
        length |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return position + 2 + length
    raise NotMQTT("malformed remaining length")


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH packet; ``packet_id`` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    duplicate: bool = False
    packet_id: int = 0

    def encode(self) -> bytes:
        topic = self.topic.encode()
        identifier = self.packet_id.to_bytes(2, "big") if self.qos else b""
        body = len(topic).to_bytes(2, "big") + topic + identifier + self.payload
        flags = self.duplicate << 3 | self.qos << 1 | self.retain
        return bytes([PUBLISH << 4 | flags]) + _length(len(body)) + body


def kind(packet: bytes) -> int:
    """Control packet type."""
    return packet[0] >> 4


def read_publish(packet: bytes) -> Publish:
    """A PUBLISH packet as ``Splitter`` gave it."""
    body = _body(packet)
    flags, topic_bytes = packet[0] & 15, int.from_bytes(body[:2], "big")
    qos, at = flags >> 1 & 3, 2 + topic_bytes
    packet_id = int.from_bytes(body[at : at + 2], "big") if qos else 0
    return Publish(
        body[2:at].decode(), body[at + 2 :] if qos else body[at:], qos,
        bool(flags & 1), bool(flags & 8), packet_id,
    )  # fmt: skip


def client_id_of(connect: bytes) -> str:
    """Client id of a CONNECT packet (§3.1)."""
    body = _body(connect)
    at = 2 + int.from_bytes(body[:2], "big") + 4  # protocol name, level, flags, keep-alive
    return body[at + 2 : at + 2 + int.from_bytes(body[at : at + 2], "big")].decode()


def puback(packet_id: int) -> bytes:
    return bytes([PUBACK << 4, 2]) + packet_id.to_bytes(2, "big")


def _body(packet: bytes) -> bytes:
    at = 1
    while packet[at] >= 0x80:
        at += 1
    return packet[at + 1 :]


def _length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, low = size >> 7, size & 0x7F
        out.append(low | (0x80 if size else 0))
        if not size:
            return bytes(out)
