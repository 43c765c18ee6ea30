"""The attacker's own MQTT code: what it splits, reads and writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.adversary.packets import NotMQTT, Publish, Splitter, client_id_of, kind, puback, read_publish

TOPICS = st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), min_size=1, max_size=40)
PUBLISHES = st.builds(
    Publish, TOPICS, st.binary(max_size=300), st.just(1), st.booleans(), st.booleans(), st.integers(1, 65_535)
) | st.builds(Publish, TOPICS, st.binary(max_size=300), st.just(0), st.booleans())


@given(PUBLISHES)
def test_publish_reads_back(publish: Publish) -> None:
    assert read_publish(publish.encode()) == publish


@given(st.lists(PUBLISHES, max_size=5), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_a_stream_splits_the_same_in_any_pieces(publishes: list[Publish], cuts: list[int]) -> None:
    packets = [publish.encode() for publish in publishes]
    stream, splitter, found = b"".join(packets), Splitter(), []
    position = turn = 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        found += splitter.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert found == packets


def test_long_packets_have_long_lengths() -> None:
    publish = Publish("a", bytes(200_000), 1, packet_id=7)
    assert read_publish(publish.encode()) == publish
    assert Splitter().feed(publish.encode()) == [publish.encode()]


def test_a_malformed_length_is_no_packet() -> None:
    with pytest.raises(NotMQTT):
        Splitter().feed(b"\x30\xff\xff\xff\xff\xff")


def test_connect_names_its_client() -> None:
    connect = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x0a\x00\x05ready"
    assert client_id_of(connect) == "ready"
    assert kind(puback(7)) == 4
