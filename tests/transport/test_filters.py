"""Topics and filters: the standard's examples, paho's matcher as an oracle, and overlap by brute force."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from aif.errors import LocalProtocolError
from aif.transport.filters import (
    MAX_LEVELS,
    MAX_TOPIC_BYTES,
    Entry,
    SubscriptionTable,
    check_filter,
    check_topic,
    matches,
    overlap,
)

LEVELS = ("", "a", "$b")
TOPICS = ["/".join(levels) for size in (1, 2, 3, 4) for levels in itertools.product(LEVELS, repeat=size)]
topics = st.sampled_from(TOPICS[1:])  # the first is empty, which is no topic
filters = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]) or "+",
    st.lists(st.sampled_from(["", "a", "$b", "+"]), max_size=3),
    st.sampled_from([[], ["#"]]),
)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "covered"),
    [  # MQTT 3.1.1 §4.7.1 and §4.7.2, the examples of the text
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/uptime", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/uptime", True),
        ("ACCOUNTS", "Accounts", False),
    ],
)
def test_examples_of_the_standard(topic_filter: str, topic: str, covered: bool) -> None:
    assert matches(topic_filter, topic) is covered


@given(filters, topics)
def test_matches_as_paho_does(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) == topic_matches_sub(topic_filter, topic)


@given(filters, filters)
def test_overlap_means_a_common_topic(one: str, other: str) -> None:
    # the empty text is no topic; counting it makes "+" and "/#" overlap, which errs on the safe side
    common = any(matches(one, topic) and matches(other, topic) for topic in TOPICS)
    assert overlap(one, other) == overlap(other, one) == common


@given(st.lists(filters, max_size=8), topics)
def test_a_topic_has_at_most_one_entry(candidates: list[str], topic: str) -> None:
    table: SubscriptionTable[int] = SubscriptionTable()
    kept: list[Entry[int]] = []
    for number, topic_filter in enumerate(candidates):
        if any(overlap(topic_filter, entry.topic_filter) for entry in kept):
            with pytest.raises(LocalProtocolError, match="overlaps"):
                table.add(topic_filter, 0, number)
        else:
            kept.append(table.add(topic_filter, 0, number))
    assert sorted(entry.value for entry in table) == sorted(entry.value for entry in kept)
    covering = [entry for entry in kept if matches(entry.topic_filter, topic)]
    assert table.match(topic) == (covering[0] if covering else None)
    for entry in kept:
        assert table.remove(entry)
        assert not table.remove(entry)
    assert len(table) == 0


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        ("", "has 0 B"),
        ("a/+", "wildcard"),
        ("a#", "wildcard"),
        ("a\0", "NUL"),
        ("é" * (MAX_TOPIC_BYTES // 2 + 1), f"has {MAX_TOPIC_BYTES + 2} B"),
        ("\ud800", "not UTF-8"),
        ("/" * MAX_LEVELS, f"has {MAX_LEVELS + 1} levels"),
    ],
)
def test_refused_topics(topic: str, why: str) -> None:
    with pytest.raises(LocalProtocolError, match=why):
        check_topic(topic)


@pytest.mark.parametrize(
    ("topic_filter", "why"),
    [
        ("", "has 0 B"),
        ("a/#/b", "# at level 2 is not the last level"),
        ("a/b+", "level 2 mixes a wildcard with text"),
        ("#a", "level 1 mixes a wildcard with text"),
        ("a\0/#", "NUL"),
        ("x" * (MAX_TOPIC_BYTES + 1), f"has {MAX_TOPIC_BYTES + 1} B"),
    ],
)
def test_refused_filters(topic_filter: str, why: str) -> None:
    with pytest.raises(LocalProtocolError, match=why):
        check_filter(topic_filter)


@given(st.text(max_size=80))
def test_any_text_is_accepted_or_refused_properly(text: str) -> None:
    for check in (check_topic, check_filter):
        try:
            check(text)
        except LocalProtocolError:
            continue
        assert len(text.encode()) <= MAX_TOPIC_BYTES
