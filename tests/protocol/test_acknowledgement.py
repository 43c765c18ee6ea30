"""Acknowledged channels by their rules alone: identities, outbox, intake and turns under trouble."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.model.delivery import MAX_CARRIED_BYTES, MAX_FAN
from aif.protocol import cbor
from aif.protocol.carried_state import CarriedState, pack_state, unpack_state
from aif.protocol.intake import Intake, Turns, Verdict
from aif.protocol.numbering import (
    NUMBERED_BYTES,
    Acknowledgement,
    Kind,
    Numbered,
    derived_identity,
    origin_identity,
    pack_acknowledgement,
    pack_numbered,
    unpack_acknowledgement,
    unpack_numbered,
)
from aif.protocol.outbox import RESEND_LIMIT_MS, RESEND_MS, Kept, Outbox

IDENTITIES = st.integers(0, (1 << 96) - 1)

# --- forms -----------------------------------------------------------------------------------------


@given(st.sampled_from(Kind), IDENTITIES, IDENTITIES, st.binary(max_size=50))
def test_a_numbered_message_comes_back_as_it_was(kind: Kind, one: int, other: int, record: bytes) -> None:
    previous, identity = sorted((one, other))
    packed = pack_numbered(kind, identity, previous, record)
    assert len(packed) == NUMBERED_BYTES + len(record)
    if previous == identity:
        with pytest.raises(RemoteProtocolError):
            unpack_numbered(memoryview(packed))
    else:
        assert unpack_numbered(memoryview(packed)) == Numbered(kind, identity, previous, record)


@given(IDENTITIES, IDENTITIES, st.booleans(), st.booleans(), st.none() | st.binary(max_size=50))
def test_an_acknowledgement_comes_back_as_it_was(
    done: int, taken: int, again: bool, gone: bool, state: bytes | None
) -> None:
    said = Acknowledgement(done, taken, again, gone, state)
    assert unpack_acknowledgement(pack_acknowledgement(said)) == said


@given(
    st.none() | st.binary(max_size=20),
    st.dictionaries(
        st.binary(min_size=16, max_size=16), st.tuples(IDENTITIES, st.binary(max_size=20)), max_size=3
    ),
)
def test_carried_state_comes_back_as_it_was(
    own: bytes | None, behind: dict[bytes, tuple[int, bytes]]
) -> None:
    assert unpack_state(pack_state(CarriedState(own, behind))) == CarriedState(own, behind)


@pytest.mark.parametrize(
    "plain", [None, [], [1, []], [None, [[b"short", 1, 1, b""]]], [None, [[bytes(16), 1 << 32, 1, b""]]]]
)
def test_carried_state_that_is_none_is_refused(plain: object) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack_state(cbor.encode(plain))


@given(st.binary(max_size=NUMBERED_BYTES + 20))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for read in (
        lambda: unpack_numbered(memoryview(data)),
        lambda: unpack_acknowledgement(data),
        lambda: unpack_state(data),
    ):
        with suppress(RemoteProtocolError):
            read()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytes(NUMBERED_BYTES - 1), id="short"),
        pytest.param(b"\x08" + bytes(NUMBERED_BYTES - 1), id="flag that does not exist"),
        pytest.param(bytes(NUMBERED_BYTES) + b"x", id="state without its flag"),
        pytest.param(b"\x04" + bytes(NUMBERED_BYTES + MAX_CARRIED_BYTES), id="too much state"),
    ],
)
def test_an_acknowledgement_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack_acknowledgement(data)


@given(st.integers(1, 1 << 40), st.integers(1, 50), st.integers(1, 50))
def test_what_turns_give_is_numbered_in_their_order_and_never_twice(count: int, fan: int, more: int) -> None:
    turns = [origin_identity(7, n) for n in range(count, count + 3)]
    first = [derived_identity(turn, fan, index) for turn in turns for index in range(fan)]
    second = [derived_identity(turn, more, index) for turn in first for index in range(more)]
    for given_ in (first, second):
        assert given_ == sorted(set(given_))
        assert all(origin_identity(8, 1) > identity for identity in given_)


def test_numbers_that_do_not_fit_are_refused() -> None:
    origin_identity(1, (1 << 48) - 2)
    with pytest.raises(LocalProtocolError):
        origin_identity(1, 1 << 48)
    with pytest.raises(LocalProtocolError):
        derived_identity(origin_identity(1, (1 << 48) - 2), MAX_FAN * 2, 0)


# --- outbox ----------------------------------------------------------------------------------------


def outbox(count: int, window: int = 8) -> Outbox:
    """With messages 1 to ``count``, all of them sent."""
    box = Outbox(window)
    for number in range(1, count + 1):
        box.add(Kept(number, number, Kind.RECORD, 0, b"record"))
    sendings(box)
    return box


def sendings(box: Outbox, now_ms: float = 0.0) -> list[tuple[int, int]]:
    """(identity, previous) of everything that is due."""
    sent = []
    while (due := box.due()) is not None:
        sent.append((due[0].identity, due[0].previous))
        box.leaves(now_ms)
    return sent


def test_an_outbox_is_full_by_messages_and_by_bytes() -> None:
    assert not outbox(3, window=4).full
    assert outbox(4, window=4).full
    box = Outbox(8, limit_bytes=10)
    box.add(Kept(1, 1, Kind.RECORD, 0, b"more than ten bytes"))
    assert box.full


def test_what_could_not_be_sent_stays_due() -> None:
    box = Outbox(8)
    box.add(Kept(1, 1, Kind.RECORD, 0, b""))
    box.leaves(0.0)
    box.comes_back()
    assert sendings(box) == [(1, 0)]
    assert box.figures.resent == 0


def test_a_new_consumer_gets_the_state_and_everything_after_it() -> None:
    box = outbox(5)
    box.acknowledged(Acknowledgement(3, 4, state=b"state"), 0.0)
    assert sendings(box) == []
    box.start_over(0.0)
    assert sendings(box) == [(3, 0), (4, 3), (5, 4)]
    assert box.figures.resent == 2


def test_a_late_acknowledgement_takes_nothing_back() -> None:
    box = outbox(5)
    box.acknowledged(Acknowledgement(3, 4, state=b"new"), 0.0)
    box.acknowledged(Acknowledgement(1, 2, state=b"old"), 0.0)
    assert len(box) == 2
    box.start_over(0.0)
    due = box.due()
    assert due is not None
    assert bytes(due[0].record) == b"new"


def test_silence_is_answered_with_more_and_more_patience() -> None:
    box = outbox(3)
    box.acknowledged(Acknowledgement(0, 1), 0.0)
    now_ms, waits = 0.0, []
    for _ in range(6):
        began_ms = now_ms
        while not (sent := sendings(box, now_ms)):
            now_ms += 100.0
            box.tick(now_ms)
        waits.append(now_ms - began_ms)
        assert sent == [(2, 1), (3, 2)]
    assert waits[0] == RESEND_MS
    assert waits[-1] == RESEND_LIMIT_MS
    box.acknowledged(Acknowledgement(0, 3), now_ms)  # all has arrived: the oldest asks how far it is
    box.tick(now_ms + RESEND_MS)
    assert sendings(box) == [(1, 0)]


def test_messages_to_a_consumer_that_is_no_more_are_given_up_and_counted() -> None:
    box = outbox(3)
    box.acknowledged(Acknowledgement(1, 3, gone=True), 0.0)
    box.add(Kept(4, 4, Kind.RECORD, 0, b""))
    assert (len(box), box.figures.acknowledged, box.figures.abandoned) == (0, 1, 3)


# --- a chain of three under trouble ----------------------------------------------------------------


@dataclass
class Link:
    """Both ends of a channel, and what is under way between them. Frames get lost, but keep their order."""

    window: int
    outbox: Outbox = field(init=False)
    intake: Intake = field(default_factory=Intake)
    queue: deque[tuple[int, bytes]] = field(default_factory=deque)
    """(identity, record) that the consumer has taken and not begun."""
    state: bytes | None = None
    """That has come for the consumer, which has not taken it up."""
    messages: deque[Numbered] = field(default_factory=deque)
    answers: deque[Acknowledgement] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.window)

    def pump(self, now_ms: float) -> None:
        while (due := self.outbox.due()) is not None:
            self.messages.append(due[0])
            self.outbox.leaves(now_ms)

    def arrive(self, turns: Turns) -> None:
        """Let the consumer with these turns have the next message."""
        message = self.messages.popleft()
        verdict = self.intake.judge(message)
        if verdict is Verdict.MISSING:
            self.answers.append(Acknowledgement(0, self.intake.last, again=True))
        if verdict is not Verdict.TAKE:
            return
        if message.kind is Kind.STATE:
            carried = unpack_state(bytes(message.record))
            self.intake.take(message)
            self.queue.clear()
            if turns.stateful:
                self.state = carried.own
            for channel, (identity, state) in carried.behind.items():
                turns.outboxes[channel[0]].take_over(identity, state)
        elif len(self.queue) < self.window:
            self.intake.take(message)
            self.queue.append((message.identity, bytes(message.record)))

    def answer(self, turns: Turns) -> None:
        done = turns.done()
        behind = {bytes([n]) * 16: box.state for n, box in enumerate(turns.outboxes) if box.state is not None}
        state = pack_state(CarriedState(done.state, behind)) if done.turn else None
        self.answers.append(Acknowledgement(done.turn, self.intake.last, state=state))

    def hear(self, now_ms: float) -> None:
        while self.answers:
            self.outbox.acknowledged(self.answers.popleft(), now_ms)

    def restart(self, turns: Turns) -> None:
        """The consumer fails, and begins anew where it is."""
        self.queue.clear()
        self.state = None
        self.intake.restart(turns.restart())
        self.answers.append(Acknowledgement(0, self.intake.last, again=True))

    def move(self) -> None:
        """Another consumer begins elsewhere."""
        self.queue.clear()
        self.state = None
        self.intake = Intake()
        self.rekey()

    def rekey(self) -> None:
        """What is under way is sealed for nobody any more."""
        self.messages.clear()
        self.answers.clear()
        self.outbox.start_over(0.0)


class Trouble(RuleBasedStateMachine):
    """Source, work and tally; the work gives two records per turn, the tally has state.

    Work and tally are moved without a word and restarted after failures, messages and acknowledgements get
    lost, and what a lost work had sealed may still arrive. Nothing is in the tally's state twice, and in the
    end everything is there.
    """

    stateful_work = False
    """Whether the work counts its turns, so that it must always be at the number of its message."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0.0
        self.count = 0
        self.first, self.second = Link(window=4), Link(window=6)
        self.worked = 0
        self.tally: Counter[int] = Counter()
        self.new_work()
        self.turns = Turns(stateful=True)

    def new_work(self) -> None:
        self.second.outbox = Outbox(self.second.window)
        self.work = Turns(stateful=self.stateful_work)
        self.work.outboxes.append(self.second.outbox)
        self.worked = 0

    def pump(self) -> None:
        self.first.pump(self.now_ms)
        self.second.pump(self.now_ms)

    # --- what happens ------------------------------------------------------------------------------

    @precondition(lambda self: not self.first.outbox.full)
    @rule()
    def source_writes(self) -> None:
        self.count += 1
        identity = origin_identity(1, self.count)
        self.first.outbox.add(Kept(identity, identity, Kind.RECORD, 0, self.count.to_bytes(2, "big")))
        self.pump()

    @precondition(lambda self: self.first.messages)
    @rule(lost=st.booleans())
    def message_to_work(self, lost: bool) -> None:
        if lost:
            self.first.messages.popleft()
        else:
            self.first.arrive(self.work)

    @precondition(lambda self: self.second.messages)
    @rule(lost=st.booleans())
    def message_to_tally(self, lost: bool) -> None:
        if lost:
            self.second.messages.popleft()
        else:
            self.second.arrive(self.turns)

    @precondition(lambda self: self.first.queue and not self.second.outbox.full)
    @rule(fails=st.booleans(), checkpoints=st.booleans())
    def work_turns(self, fails: bool, checkpoints: bool) -> None:
        identity, record = self.first.queue.popleft()
        if self.first.state is not None:
            self.worked, self.first.state = int.from_bytes(self.first.state, "big"), None
        self.work.begin(identity)
        value = int.from_bytes(record, "big")
        self.worked += 1
        if self.stateful_work:
            assert self.worked == value
        for index in range(2):
            made = derived_identity(identity, 2, index)
            given_ = (2 * value + index).to_bytes(2, "big")
            self.second.outbox.add(Kept(made, identity, Kind.RECORD, 0, given_))
            self.pump()
            if fails:  # in the middle of a turn
                self.first.restart(self.work)
                self.worked = 0
                return
        state = checkpoints or not self.first.queue
        self.work.end(self.worked.to_bytes(2, "big") if self.stateful_work and state else None)

    @precondition(lambda self: self.second.queue)
    @rule(fails=st.booleans(), checkpoints=st.booleans())
    def tally_turns(self, fails: bool, checkpoints: bool) -> None:
        identity, record = self.second.queue.popleft()
        self.tally, self.second.state = self.seen, None
        self.turns.begin(identity)
        if fails:
            self.second.restart(self.turns)
            self.tally = Counter()
            return
        self.tally[int.from_bytes(record, "big")] += 1
        state = b"".join(n.to_bytes(2, "big") + c.to_bytes(1, "big") for n, c in self.tally.items())
        self.turns.end(state if checkpoints or not self.second.queue else None)

    @rule()
    def work_answers(self) -> None:
        self.first.answer(self.work)

    @rule()
    def tally_answers(self) -> None:
        self.second.answer(self.turns)

    @precondition(lambda self: self.first.answers or self.second.answers)
    @rule(lost=st.booleans())
    def answers_arrive(self, lost: bool) -> None:
        for link in (self.first, self.second):
            if lost:
                link.answers.clear()
            link.hear(self.now_ms)
        self.pump()

    @rule(ms=st.sampled_from([100.0, 1_000.0, 10_000.0]))
    def time_passes(self, ms: float) -> None:
        self.now_ms += ms
        for link in (self.first, self.second):
            link.outbox.tick(self.now_ms)
        self.pump()

    @rule(straggler=st.booleans(), said=st.booleans())
    def work_moves(self, straggler: bool, said: bool) -> None:
        """What the old work had sent still arrives with ``straggler``, its last words if ``said``."""
        while straggler and self.second.messages:
            self.second.arrive(self.turns)
        if said:
            self.first.hear(self.now_ms)
        self.first.move()
        self.second.rekey()
        self.new_work()
        self.pump()
        self.second.answer(self.turns)  # under its new key

    @rule(said=st.booleans())
    def tally_moves(self, said: bool) -> None:
        if said:
            self.second.hear(self.now_ms)
        self.second.move()
        self.new_tally()
        self.pump()

    def new_tally(self) -> None:
        self.tally, self.turns = Counter(), Turns(stateful=True)

    @rule(said=st.booleans())
    def both_move(self, said: bool) -> None:
        """A device with both of them is lost."""
        if said:
            self.first.hear(self.now_ms)
        self.first.move()
        self.second.move()
        self.new_work()
        self.new_tally()
        self.pump()

    # --- what holds --------------------------------------------------------------------------------

    @property
    def seen(self) -> Counter[int]:
        """What the tally knows, or takes up with its next turn."""
        state = self.second.state
        if state is None:
            return self.tally
        return Counter(
            {int.from_bytes(state[n : n + 2], "big"): state[n + 2] for n in range(0, len(state), 3)}
        )

    @invariant()
    def nothing_is_there_twice(self) -> None:
        assert max(self.seen.values(), default=0) <= 1

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        assert len(self.first.outbox) <= self.first.window
        assert len(self.second.outbox) <= self.second.window + 1

    def teardown(self) -> None:
        """Without further trouble everything comes through."""
        for _ in range(200):
            if not len(self.first.outbox):
                break
            self.time_passes(10_000.0)
            while self.first.messages:
                self.first.arrive(self.work)
            while self.first.queue and not self.second.outbox.full:
                self.work_turns(fails=False, checkpoints=True)
            while self.second.messages:
                self.second.arrive(self.turns)
            while self.second.queue:
                self.tally_turns(fails=False, checkpoints=True)
            self.tally_answers()
            self.answers_arrive(lost=False)
            self.work_answers()
            self.answers_arrive(lost=False)
        assert not len(self.first.outbox)
        assert self.seen == Counter(range(2, 2 * self.count + 2))


class StatefulTrouble(Trouble):
    """The same with a work whose state must fit its messages."""

    stateful_work = True


PACE = settings(max_examples=150, stateful_step_count=60, deadline=None)
Trouble.TestCase.settings = StatefulTrouble.TestCase.settings = PACE
TestTrouble, TestStatefulTrouble = Trouble.TestCase, StatefulTrouble.TestCase
