"""The bounded queues against a plain model."""

from __future__ import annotations

import threading
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from aif.transport.base import Received
from aif.transport.inbox import Arrival, Inbox
from aif.transport.outbox import Outbox

steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, 1), st.integers(0, 12)),
        st.tuples(st.just("take"), st.integers(1, 4), st.just(0)),
    ),
    max_size=60,
)


@given(steps)
def test_inbox_against_a_model(script: list[tuple[str, int, int]]) -> None:
    inbox, model, dropped, taken = Inbox(max_messages=5, max_bytes=30), deque[Arrival](), 0, 0
    for number, (verb, argument, size) in enumerate(script):
        if verb == "take":
            expected = [model.popleft() for _ in range(min(argument, len(model)))]
            assert inbox.take(argument) == expected
            taken += len(expected)
            continue
        arrival = Arrival(Received("t", bytes(size), argument), packet_id=number)
        model.append(arrival)
        while len(model) > 5 or sum(len(each.message.payload) for each in model) > 30:
            droppable = [each for each in model if each.message.qos == 0]
            model.remove(droppable[0] if droppable else model[-1])
            dropped += 1
        assert inbox.offer(arrival) == (arrival in model)
        assert inbox.dropped == dropped
        assert len(inbox) == len(model)
    offered = sum(verb == "offer" for verb, _, _ in script)
    assert offered == taken + dropped + len(model)


def test_inbox_between_threads() -> None:
    inbox, taken, total = Inbox(max_messages=50, max_bytes=1_000_000), list[int](), 20_000

    def offer() -> None:
        for number in range(total):
            inbox.offer(Arrival(Received("t", b"x", 0), packet_id=number))

    thread = threading.Thread(target=offer)
    thread.start()
    while thread.is_alive() or len(inbox):
        taken.extend(arrival.packet_id for arrival in inbox.take(7))
    thread.join()
    assert taken == sorted(set(taken))
    assert len(taken) + inbox.dropped == total


class Ticket:
    def __init__(self) -> None:
        self.settled, self.lost = False, False

    def is_published(self) -> bool:
        if self.lost:
            raise RuntimeError
        return self.settled

    def wait_for_publish(self, timeout: float | None = None) -> None:
        raise AssertionError(timeout)


def test_outbox_counts_messages_and_bytes() -> None:
    outbox = Outbox(max_messages=2, max_bytes=10)
    first, second = Ticket(), Ticket()
    assert outbox.has_room(10)
    assert not outbox.has_room(11)
    outbox.add(first, 6)
    assert outbox.has_room(4)
    assert not outbox.has_room(5)
    outbox.add(second, 0)
    assert not outbox.has_room(0)
    second.settled = True
    assert not outbox.has_room(0)  # in order: the first is still on its way
    assert outbox.oldest is first
    first.settled = True
    assert outbox.has_room(10)
    assert len(outbox) == 0


def test_outbox_knows_what_was_lost() -> None:
    outbox = Outbox(max_messages=9, max_bytes=90)
    tickets = [Ticket() for _ in range(3)]
    for ticket in tickets:
        outbox.add(ticket, 1)
    tickets[0].settled, tickets[1].lost = True, True
    assert outbox.abandon() == 2
    assert outbox.abandon() == 0
    assert outbox.has_room(90)
