"""What `aif status` says about the channels of a workflow."""

from __future__ import annotations

from aif.cli.status import acknowledged, in_part, sensed, troubles

NAME = "a.out -> b.in"


def test_a_clean_workflow_has_no_troubles() -> None:
    figures = {"channels": {NAME: {"records": 9, "lost": 0, "causes": {}}}}
    assert list(troubles({"metrics": {"left": figures, "right": {}}, "unaccounted": {}})) == []


def test_each_channel_says_how_much_was_lost_or_refused_and_why() -> None:
    figures = {"channels": {NAME: {"lost": 1_200, "causes": {"frame.tag": 3, "loss.gap": 1}}}}
    workflow = {"metrics": {"left": figures}, "unaccounted": {"controller": {"output total": 4}}}
    assert list(troubles(workflow)) == [
        (
            f"{NAME} at left: 1,200 lost; 3 not sealed with the channel's key: forged, damaged or put "
            "on another channel (frame.tag); 1 gaps: later messages came, these did not (loss.gap)"
        ),
        "output total at controller: 4 lost without a word",
    ]


def test_acknowledged_channels_say_what_becomes_of_their_messages() -> None:
    figures = {"acknowledged": {NAME: {"written": 1_200, "acknowledged": 1_190, "held": 10, "resent": 0}}}
    workflow = {"metrics": {"left": figures, "right": {"acknowledged": {NAME: {"taken": 0}}}}}
    assert list(acknowledged(workflow)) == [
        f"{NAME} at left: 1,200 written, 1,190 acknowledged, 10 held",
        f"{NAME} at right: no message yet",
    ]


def test_senders_grants_and_control_channels_have_their_word() -> None:
    figures = {"sending": {NAME: {"grant.exhausted": 2}}, "control": {"grant.time": 3, "of-tomorrow": 1}}
    assert list(troubles({"metrics": {"left": figures}, "unaccounted": {}})) == [
        (
            f"{NAME} from left: 2 messages not sent: the grant is used up and no new one has come "
            "(grant.exhausted)"
        ),
        (
            "control messages and grants at left: 3 grants outside their time; compare the clocks "
            "(grant.time); 1 of-tomorrow"
        ),
    ]


def test_what_was_measured_of_a_device_is_said_where_it_is_not_as_it_should_be() -> None:
    link = {
        "origin": "measured", "age_s": 2.2, "planned_rtt_ms": 20.0, "slow": True, "rtt_p50_ms": 61.5,
        "rtt_p95_ms": 90.0, "loss": 0.125, "answers": 1_200,
    }  # fmt: skip
    said, battery = sensed({"link": link, "battery": {"level": 0.084, "state": "reserve"}})
    assert said == "it answers in 61.5 ms (95 % within 90 ms, 12% lost), planned are 20 ms"
    assert battery == "its battery is nearly empty: 8%"
    assert list(sensed({"link": link | {"slow": False}, "battery": {"level": 0.9, "state": "good"}})) == []
    assert list(sensed({})) == []


def test_what_a_lost_device_said_last_is_not_told_as_if_it_held() -> None:
    part = {"phase": "running", "aims": {"decision": "running"}}
    assert in_part(part, "trusted").split() == ["running", "decision", "running"]
    assert in_part(part, "lost").split() == ["lost", "decision", "was", "running"]
