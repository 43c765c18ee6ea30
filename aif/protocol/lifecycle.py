"""Life cycles as tables: which Signal moves an AIM (or a whole workflow) from which state to which.

The same tables are exported to the documentation's diagrams and to the firmware. Nothing here acts.

Source: MPAI-AIF V2 reports only ALIVE and DEAD and knows the signals START, STOP, RESUME, PAUSE; the
finer states are this project's.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from aif.errors import InvalidTransition


class Signal(IntEnum):
    """High-priority messages that overtake queued ones (MPAI_AIM_SIGNAL_*)."""

    START = 1
    STOP = 2
    RESUME = 3
    PAUSE = 4


class AIMStatus(IntEnum):
    """What MPAI_AIFU_AIM_GetStatus reports."""

    ALIVE = 1
    DEAD = 2


class State(StrEnum):
    """State of an AIM instance."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class Event(StrEnum):
    """What happens to an instance besides Signals."""

    STARTED = "started"
    DEADLINES_MISSED = "deadlines_missed"
    DEADLINES_MET = "deadlines_met"
    FINISHED = "finished"
    ENDED = "ended"
    FAILURE = "failure"


ALIVE_STATES = frozenset({State.RUNNING, State.PAUSED, State.DEGRADED})
"""What the standard calls ALIVE; every other state is DEAD."""

ENDED_STATES = frozenset({State.STOPPED, State.FAILED})
"""Nothing leads out of these."""

_ENDING: dict[Signal | Event, State] = {
    Signal.STOP: State.STOPPING,
    Event.FINISHED: State.STOPPING,
    Event.FAILURE: State.FAILED,
}

TRANSITIONS: dict[State, dict[Signal | Event, State]] = {
    State.IDLE: {Signal.START: State.STARTING, Signal.STOP: State.STOPPED, Event.FAILURE: State.FAILED},
    State.STARTING: {Event.STARTED: State.RUNNING, **_ENDING},
    State.RUNNING: {Signal.PAUSE: State.PAUSED, Event.DEADLINES_MISSED: State.DEGRADED, **_ENDING},
    State.DEGRADED: {Signal.PAUSE: State.PAUSED, Event.DEADLINES_MET: State.RUNNING, **_ENDING},
    State.PAUSED: {Signal.RESUME: State.RUNNING, **_ENDING},
    State.STOPPING: {Event.ENDED: State.STOPPED, Event.FAILURE: State.FAILED},
    State.STOPPED: {},
    State.FAILED: {Signal.STOP: State.STOPPED},
}


def next_state(state: State, cause: Signal | Event) -> State:
    """The state after ``cause``.

    Raises:
        InvalidTransition: the table has no such step.
    """
    following = TRANSITIONS[state].get(cause)
    if following is None:
        allowed = ", ".join(c.name for c in TRANSITIONS[state]) or "nothing"
        raise InvalidTransition(f"{cause.name} is not possible in state {state}", hint=f"possible: {allowed}")
    return following


def status_of(state: State) -> AIMStatus:
    return AIMStatus.ALIVE if state in ALIVE_STATES else AIMStatus.DEAD


class WorkflowState(StrEnum):
    """State of one deployed workflow, seen by the Controller."""

    PLANNED = "planned"
    DEPLOYING = "deploying"
    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


FINAL_WORKFLOW_STATES = frozenset({WorkflowState.COMPLETED, WorkflowState.STOPPED, WorkflowState.FAILED})
