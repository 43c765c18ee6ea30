"""MQTT 3.1.1 packets: published examples, round trips in any fragmentation, and bytes from anybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import RemoteProtocolError
from aif.transport import packets
from aif.transport.base import LastWill
from aif.transport.packets import PacketReader


class TestLayouts:
    @pytest.mark.parametrize(
        ("size", "encoded"),
        [(0, "00"), (127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001"), (2_097_151, "ffff7f"),
         (2_097_152, "80808001"), (268_435_455, "ffffff7f")],
    )  # fmt: skip
    def test_remaining_length_as_in_table_2_4(self, size: int, encoded: str) -> None:
        assert packets.remaining_length(size).hex() == encoded

    def test_connect(self) -> None:
        plain = packets.connect("me", 30, None, None, None)
        assert plain == bytes.fromhex("100e 0004 4d515454 04 02 001e 0002 6d65".replace(" ", ""))
        full = packets.connect("", 1, LastWill("w", b"gone", qos=1, retain=True), "u", "p")
        assert full[2:] == b"\0\4MQTT\4\xee\0\1\0\0\0\1w\0\4gone\0\1u\0\1p"

    def test_publish_and_its_repetition(self) -> None:
        packet = packets.publish(packets.text("a/b"), b"xy", qos=1, retain=True, packet_id=10)
        assert packet == b"\x33\x09\0\3a/b\0\x0axy"
        assert packets.repeated(packet) == b"\x3b\x09\0\3a/b\0\x0axy"
        assert packets.publish(packets.text("t"), b"", qos=0, retain=False, packet_id=0) == b"\x30\x03\0\1t"

    def test_the_rest(self) -> None:
        assert packets.subscribe(10, [("a/b", 1), ("c/d", 0)]) == b"\x82\x0e\0\x0a\0\3a/b\1\0\3c/d\0"
        assert packets.unsubscribe(10, "a/b") == b"\xa2\x07\0\x0a\0\3a/b"
        assert packets.puback(258) == b"\x40\2\1\2"


messages = st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=300), st.integers(0, 0xFFFF))


class TestReading:
    @given(st.lists(messages, max_size=12), st.lists(st.integers(1, 400), max_size=60))
    def test_any_fragmentation_gives_the_same_packets(
        self, sent: list[tuple[str, bytes, int]], cuts: list[int]
    ) -> None:
        stream = b"".join(
            packets.publish(packets.text(topic), payload, qos=number > 0, retain=False, packet_id=number)
            for topic, payload, number in sent
        )
        reader, got = PacketReader(1_000), list[tuple[str, bytes, int]]()
        while stream:
            cut = cuts.pop() if cuts else len(stream)
            for first, body in reader.feed(stream[:cut]):
                topic, packet_id, payload = packets.split_publish(first, body)
                got.append((topic.decode(), payload, packet_id))
            stream = stream[cut:]
        assert got == sent

    @given(st.lists(st.binary(max_size=40), max_size=8))
    def test_any_bytes_give_packets_or_a_protocol_error(self, chunks: list[bytes]) -> None:
        reader = PacketReader(200)
        try:
            for chunk in chunks:
                for first, body in reader.feed(chunk):
                    assert len(body) <= 200
                    packets.split_publish(first, body)
                    packets.packet_id_of(body)
        except RemoteProtocolError:
            return

    def test_a_packet_that_is_too_large_is_refused_before_it_is_collected(self) -> None:
        reader = PacketReader(1_000)
        assert list(reader.feed(b"\x30\xe8\x07")) == []
        with pytest.raises(RemoteProtocolError, match=r"a packet of 1,001 B, at most 1,000 B"):
            list(PacketReader(1_000).feed(b"\x30\xe9\x07"))

    @pytest.mark.parametrize("head", [b"\x30\xff\xff\xff\xff", b"\x30\x80\x80\x80\x80\x01"])
    def test_a_length_of_five_bytes_is_refused(self, head: bytes) -> None:
        with pytest.raises(RemoteProtocolError, match="more than four bytes"):
            list(PacketReader(1 << 30).feed(head))

    @pytest.mark.parametrize(
        ("first", "body"),
        [
            *((0x30, body) for body in (b"", b"\0", b"\0\2a")),
            *((0x32, body) for body in (b"\0\1a", b"\0\1a\0", b"\0\1a\0\0")),
            *((first, b"\0\1a\0\1") for first in (0x34, 0x36)),
        ],
    )
    def test_a_malformed_publish_is_refused(self, first: int, body: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            packets.split_publish(first, body)

    @pytest.mark.parametrize(("body", "more"), [(b"", 0), (b"\0", 0), (b"\0\1\2", 0), (b"\0\1", 1)])
    def test_a_malformed_acknowledgement_is_refused(self, body: bytes, more: int) -> None:
        with pytest.raises(RemoteProtocolError, match="an acknowledgement has"):
            packets.packet_id_of(body, more=more)
