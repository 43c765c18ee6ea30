"""MQTT topic names and topic filters: what is well formed, what matches, and who gets a message.

Decides which texts may travel as a topic or a filter and which subscription a topic belongs to. Does not
decide what topics exist (``aif.protocol.topics``) and holds no connection.

Invariant: the filters of one connection never overlap, so a topic has at most one handler. MQTT lets a
broker deliver one copy per overlapping filter or a single one [MQTT-3.3.5-1]; Mosquitto sends one, rumqttd
sends several, and a receiver cannot tell a copy from a repeated message.

Source: MQTT 3.1.1 (OASIS) §1.5.3, §4.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from aif.errors import LocalProtocolError

MAX_TOPIC_BYTES = 1_024
"""Longest topic or filter in UTF-8 bytes. The protocol allows 65 535; with this bound topic and header
always fit beside a payload of the allowed size in one packet."""

MAX_LEVELS = 64
"""Most levels (parts between slashes) of a topic or filter."""

T = TypeVar("T")


@lru_cache(maxsize=4_096)
def check_topic(topic: str) -> None:
    """Accept a topic name to publish on (§4.7.3).

    Raises:
        LocalProtocolError: empty, too long, not UTF-8, or with a wildcard or NUL.
    """
    _check_text("topic", topic)
    if "+" in topic or "#" in topic:
        raise LocalProtocolError(
            f"topic {topic!r} contains a wildcard", hint="publish on one topic; only filters take + and #"
        )


def check_filter(topic_filter: str) -> None:
    """Accept a topic filter to subscribe to (§4.7.1): ``+`` fills a level, ``#`` is the last level.

    Raises:
        LocalProtocolError: empty, too long, not UTF-8, or a wildcard in the wrong place.
    """
    _check_text("topic filter", topic_filter)
    levels = topic_filter.split("/")
    for number, level in enumerate(levels, start=1):
        if len(level) > 1 and ("+" in level or "#" in level):
            raise LocalProtocolError(
                f"topic filter {topic_filter!r}: level {number} mixes a wildcard with text",
                hint="+ and # must stand alone between slashes",
            )
        if level == "#" and number != len(levels):
            raise LocalProtocolError(
                f"topic filter {topic_filter!r}: # at level {number} is not the last level",
                hint="use + for a level in the middle",
            )


def _check_text(what: str, text: str) -> None:
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"{what} {text!r} is not UTF-8: {error.reason}") from error
    if not 1 <= size_bytes <= MAX_TOPIC_BYTES:
        raise LocalProtocolError(f"{what} has {size_bytes} B, allowed are 1 to {MAX_TOPIC_BYTES} B")
    if "\0" in text:
        raise LocalProtocolError(f"{what} {text!r} contains NUL")
    if text.count("/") >= MAX_LEVELS:
        raise LocalProtocolError(f"{what} has {text.count('/') + 1} levels, allowed are {MAX_LEVELS}")


def matches(topic_filter: str, topic: str) -> bool:
    """Whether the filter covers the topic (§4.7.1); a leading wildcard does not cover ``$…`` (§4.7.2)."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for index, want in enumerate(wanted):
        if want == "#":
            return True
        if index == len(levels) or want not in {"+", levels[index]}:
            return False
    return len(wanted) == len(levels)


def overlap(one: str, other: str) -> bool:
    """Whether some topic is covered by both filters."""
    if (one[0] in "+#" and other[0] == "$") or (other[0] in "+#" and one[0] == "$"):
        return False
    left, right = one.split("/"), other.split("/")
    for a, b in zip(left, right, strict=False):
        if "#" in (a, b):
            return True
        if a != b and "+" not in (a, b):
            return False
    longer = max(left, right, key=len)[min(len(left), len(right)) :]
    return longer in ([], ["#"])  # "a/#" covers "a" too


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One subscription: its filter, its QoS and what is bound to it."""

    topic_filter: str
    qos: int
    value: T


class SubscriptionTable(Generic[T]):
    """The filters of one connection, none of which overlap."""

    def __init__(self) -> None:
        self._exact: dict[str, Entry[T]] = {}
        self._wild: dict[str, Entry[T]] = {}

    def __len__(self) -> int:
        return len(self._exact) + len(self._wild)

    def __iter__(self) -> Iterator[Entry[T]]:
        yield from self._exact.values()
        yield from self._wild.values()

    def add(self, topic_filter: str, qos: int, value: T) -> Entry[T]:
        """Bind ``value`` to a filter.

        Raises:
            LocalProtocolError: the filter is malformed or overlaps one that is bound already.
        """
        check_filter(topic_filter)
        for entry in self:
            if overlap(topic_filter, entry.topic_filter):
                raise LocalProtocolError(
                    f"topic filter {topic_filter!r} overlaps {entry.topic_filter!r} on the same connection",
                    hint="subscribe once and fan out above the transport, or use a second connection",
                )
        entry = Entry(topic_filter, qos, value)
        (self._wild if "+" in topic_filter or "#" in topic_filter else self._exact)[topic_filter] = entry
        return entry

    def remove(self, entry: Entry[T]) -> bool:
        """Forget a subscription; whether it was still there."""
        for entries in (self._exact, self._wild):
            if entries.get(entry.topic_filter) is entry:
                del entries[entry.topic_filter]
                return True
        return False

    def match(self, topic: str) -> Entry[T] | None:
        """The one subscription that covers the topic."""
        found = self._exact.get(topic)
        if found is None:
            for entry in self._wild.values():
                if matches(entry.topic_filter, topic):
                    return entry
        return found
