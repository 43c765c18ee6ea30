from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import InvalidTransition
from aif.protocol.lifecycle import (
    ALIVE_STATES,
    TRANSITIONS,
    AIMStatus,
    Event,
    Signal,
    State,
    next_state,
    status_of,
)

CAUSES: list[Signal | Event] = [*Signal, *Event]


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("cause", CAUSES)
def test_the_table_says_all(state: State, cause: Signal | Event) -> None:
    if cause in TRANSITIONS[state]:
        assert next_state(state, cause) is TRANSITIONS[state][cause]
    else:
        with pytest.raises(
            InvalidTransition, match=f"{cause.name} is not possible in state {state}"
        ) as refused:
            next_state(state, cause)
        assert refused.value.hint.startswith("possible: ")


@given(st.lists(st.sampled_from(CAUSES), max_size=30))
def test_whatever_happens_an_end_is_an_end(causes: list[Signal | Event]) -> None:
    state, ended = State.IDLE, False
    for cause in causes:
        try:
            following = next_state(state, cause)
        except InvalidTransition:
            continue
        assert not (ended and following in ALIVE_STATES)
        ended = ended or following in (State.STOPPED, State.FAILED)
        state = following


@pytest.mark.parametrize("state", [s for s in State if s not in (State.STOPPED, State.FAILED)])
def test_from_everywhere_a_stop_leads_to_stopped(state: State) -> None:
    if state is not State.STOPPING:
        state = next_state(state, Signal.STOP)
    assert state in (State.STOPPING, State.STOPPED)
    assert state is State.STOPPED or next_state(state, Event.ENDED) is State.STOPPED


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.RUNNING, AIMStatus.ALIVE), (State.PAUSED, AIMStatus.ALIVE), (State.DEGRADED, AIMStatus.ALIVE),
        (State.IDLE, AIMStatus.DEAD), (State.STARTING, AIMStatus.DEAD), (State.STOPPING, AIMStatus.DEAD),
        (State.STOPPED, AIMStatus.DEAD), (State.FAILED, AIMStatus.DEAD),
    ],
)  # fmt: skip
def test_the_standard_knows_alive_and_dead(state: State, status: AIMStatus) -> None:
    assert status_of(state) is status
