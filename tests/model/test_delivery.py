"""Which channels may be acknowledged."""

from __future__ import annotations

from typing import Any

import pytest

from aif.model.aim import MAX_STATE_BYTES, Implementation, Join, Runtime, StateKind, Trigger
from aif.model.aiw import expand
from aif.model.check import check_workflow
from aif.model.delivery import carried_bytes, fan_of
from aif.model.ports import AuthMode, Delivery, Direction, Overflow
from tests.model.workflows import aim, catalogue, channel, port, sub, workflow

ACKNOWLEDGED: dict[str, Any] = {"delivery": Delivery.ACKNOWLEDGED}


def implementation(state_bytes: int = 0, state: StateKind = StateKind.STATELESS) -> Implementation:
    return Implementation("any", Runtime.PYTHON, 1000, state=state, state_bytes=state_bytes)


def source(**settings: Any) -> Any:
    return aim("Source", [], [port("out", Direction.OUTPUT, rate_hz=10.0, **settings)])


def reader(name: str = "Reader", **settings: Any) -> Any:
    return aim(name, [port("number", Direction.INPUT, **settings)], ["out"])


def found(channels: list[Any], *aims: Any, **settings: Any) -> list[str]:
    """What is said about a workflow of one instance of each AIM, named a, b, c and so on."""
    instances = [sub("abcdef"[n], contract.name) for n, contract in enumerate(aims)]
    return [f.message for f in check_workflow(workflow(instances, channels, **settings), catalogue(*aims))]


def test_a_chain_of_aims_with_one_input_each_may_be_acknowledged() -> None:
    channels = [channel("a.out -> b.number", **ACKNOWLEDGED), channel("b.out -> c.number", **ACKNOWLEDGED)]
    assert found(channels, source(), reader(), reader("Other")) == []


@pytest.mark.parametrize(
    ("settings", "reads", "reason"),
    [
        ({"auth": AuthMode.CHECKPOINT}, reader(), "checkpoint mode ends when messages are lost"),
        ({"delay_records": 1}, reader(), "on which messages would wait for themselves"),
        ({}, reader(overflow=Overflow.DROP_OLDEST), "b.number drops messages by itself"),
        ({}, reader(max_age_ms=5.0), "b.number drops messages by itself"),
        (
            {},
            aim("Reader", ["number"], ["out"], period_ms=5.0),
            "not every turn of b is started by number alone",
        ),
    ],
)
def test_a_channel_on_which_messages_would_not_be_the_same_again_is_refused(
    settings: dict[str, Any], reads: Any, reason: str
) -> None:
    messages = found([channel("a.out -> b.number", **ACKNOWLEDGED, **settings)], source(), reads)
    (message,) = [m for m in messages if m.startswith("channel a.out -> b.number cannot be acknowledged: ")]
    assert reason in message


def test_a_second_input_must_not_start_turns() -> None:
    channels = [channel("a.out -> b.number", **ACKNOWLEDGED), channel("a.out -> b.other")]
    (message,) = found(channels, source(), aim("Reader", ["number", "other"]))
    assert "not every turn of b is started by number alone" in message
    alone = Trigger(("number",), join=Join.LATEST)
    assert found(channels, source(), aim("Reader", ["number", "other"], trigger=alone)) == []


def test_two_acknowledged_inputs_of_one_aim_are_refused() -> None:
    channels = [
        channel("a.out -> b.number", **ACKNOWLEDGED), channel("a.out -> b.other", **ACKNOWLEDGED),
    ]  # fmt: skip
    messages = found(channels, source(), aim("Reader", ["number", "other"]))
    assert sum("several acknowledged inputs" in message for message in messages) == 2


def test_two_writers_of_one_input_are_refused() -> None:
    channels = [channel("a.out -> c.number", **ACKNOWLEDGED), channel("b.out -> c.number")]
    second = aim("Second", [], [port("out", Direction.OUTPUT, rate_hz=10.0)])
    messages = found(channels, source(), second, reader())
    assert any("has another writer" in message for message in messages)


def test_the_boundary_acknowledges_nothing() -> None:
    channels = [channel("a.out -> aiw.out", **ACKNOWLEDGED)]
    (message,) = found(channels, source(), outputs=[port("out", Direction.OUTPUT)])
    assert "the workflow's own ports acknowledge nothing" in message


def test_a_way_on_which_one_message_becomes_too_many_is_refused() -> None:
    wide = [aim(f"Wide{n}", ["number"], [port("out", Direction.OUTPUT, emits=4096.0)]) for n in range(2)]
    channels = [
        channel("a.out -> b.number", **ACKNOWLEDGED), channel("b.out -> c.number", **ACKNOWLEDGED),
        channel("c.out -> d.number", **ACKNOWLEDGED),
    ]  # fmt: skip
    (message,) = found(channels, source(), *wide, reader())
    assert "c.out -> d.number" in message
    assert "becomes up to 16,777,216 here" in message


def test_a_turn_gives_what_is_emitted_rounded_up() -> None:
    emitted = [0.0, 0.1, 1.0, 2.5]
    assert [fan_of(port("out", Direction.OUTPUT, emits=n)) for n in emitted] == [1, 1, 1, 3]


def test_state_is_carried_with_that_of_all_aims_behind() -> None:
    stateful = implementation(1000, StateKind.CHECKPOINTABLE)
    aims = (
        source(), aim("Plain", ["number"], ["out"], implementations=(implementation(),)),
        aim("Kept", ["number"], implementations=(stateful,)),
    )  # fmt: skip
    channels = [
        channel("a.out -> b.number", **ACKNOWLEDGED), channel("b.out -> c.number", **ACKNOWLEDGED),
        channel("a.out -> d.number", **ACKNOWLEDGED),
    ]  # fmt: skip
    instances = [sub("a", "Source"), sub("b", "Plain"), sub("c", "Kept"), sub("d", "Plain")]
    carried = carried_bytes(expand(workflow(instances, channels), catalogue(*aims)))
    first, second, third = channels
    assert carried[third] == 0
    assert 1000 < carried[second] < carried[first] < 1200


def test_more_state_than_one_acknowledgement_carries_is_refused() -> None:
    stateful = implementation(MAX_STATE_BYTES, StateKind.CHECKPOINTABLE)
    kept = aim("Kept", ["number"], ["out"], implementations=(stateful,))
    names = [f"b{n}" for n in range(20)]
    ends = ["a", *names]
    channels = [
        channel(f"{one}.out -> {other}.number", **ACKNOWLEDGED)
        for one, other in zip(ends, names, strict=False)
    ]
    instances = [sub("a", "Source"), *(sub(name, "Kept") for name in names)]
    messages = [f.message for f in check_workflow(workflow(instances, channels), catalogue(source(), kept))]
    assert messages
    assert all("have more than 1,048,576 B of state" in message for message in messages)
