"""The replay window against a model that remembers every counter."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from aif.protocol.numbers import WINDOW_FRAMES, Cause
from aif.protocol.window import ReplayWindow


class NaiveWindow:
    """Remembers everything: unbounded, obviously right."""

    def __init__(self) -> None:
        self.tags: dict[int, bytes] = {}

    def offer(self, counter: int, tag: bytes) -> Cause | None:
        top = max(self.tags, default=-1)
        if counter <= top - WINDOW_FRAMES:
            return Cause.REPLAY_STALE
        if counter in self.tags:
            return Cause.DUP_REDELIVERY if self.tags[counter] == tag else Cause.REPLAY_WINDOW
        self.tags[counter] = tag
        return None


def offer(window: ReplayWindow, counter: int, tag: bytes) -> Cause | None:
    cause = window.refusal(counter, tag)
    if cause is None:
        window.accept(counter, tag)
    return cause


STEPS = st.lists(
    st.tuples(
        st.one_of(st.integers(-70, 70), st.sampled_from([-65, -64, -63, 0, 1, 63, 64, 65, 2**40])),
        st.sampled_from([b"tag-one!", b"tag-two!"]),
    ),
    max_size=120,
)


@given(STEPS)
def test_decides_like_the_model(steps: list[tuple[int, bytes]]) -> None:
    window, model = ReplayWindow(), NaiveWindow()
    for step, tag in steps:
        counter = max(0, window.top + step)
        assert offer(window, counter, tag) == model.offer(counter, tag)
        if window.top >= 0:
            low = max(0, window.top - 63)
            assert sorted(window.accepted_above(low)) == sorted(c for c in model.tags if c > low)


def test_a_jump_over_the_whole_counter_space_costs_no_memory() -> None:
    window = ReplayWindow()
    assert offer(window, 0, b"a") is None
    assert offer(window, 2**48 - 1, b"b") is None
    assert sys.getsizeof(window.bits) <= sys.getsizeof(2**64)
    assert offer(window, 0, b"a") is Cause.REPLAY_STALE
    assert offer(window, 2**48 - 64, b"c") is None
    assert offer(window, 2**48 - 65, b"d") is Cause.REPLAY_STALE


def test_what_was_settled_never_comes_back() -> None:
    window = ReplayWindow()
    window.accept(9, b"nine")
    window.floor = 6
    assert window.refusal(5, b"five") is Cause.REPLAY_STALE
    assert window.refusal(6, b"six") is None
    assert window.refusal(9, b"nine") is Cause.DUP_REDELIVERY
