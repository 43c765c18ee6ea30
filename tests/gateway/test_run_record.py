"""Events of any shape become figures; what they do not hold is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aif.gateway.event_fields import MAX_TEXT
from aif.gateway.run_record import LATEST_KEPT, RunRecord
from aif.gateway.summary import summary

CHANNEL = "features.out -> classifier.in, anomaly.in"


def test_scores_count_known_and_unseen_windows_apart(story: Any) -> None:
    score = story.told().score
    assert (score.accuracy, score.false_alarm, score.detection) == (3 / 4, 1 / 4, 1 / 2)


def test_shares_of_nothing_are_unknown(story: Any) -> None:
    score = story.record().score
    assert (score.accuracy, score.false_alarm, score.detection) == (None, None, None)


def test_a_record_for_two_devices_counts_once_and_its_latencies_twice(story: Any) -> None:
    channel = story.told().channels()[CHANNEL]
    assert channel.records == 4
    assert channel.latency_us.count == 4
    assert channel.latency_us.quantile(0.5) == pytest.approx(2_000, rel=0.02)
    assert channel.latency_us.quantile(1.0) == pytest.approx(64_000, rel=0.02)


def test_reading_the_figures_does_not_change_them(story: Any) -> None:
    record = story.told()
    record.channels()
    assert record.channels()[CHANNEL].latency_us.count == 4


def test_newer_metrics_replace_older_ones(story: Any) -> None:
    record = story.told()
    record.take(story.event("metrics", device="gw-1", values={"messages": {"sealed": 9}}))
    assert record.messages().sealed == 7 + 9


def test_a_metrics_event_without_values_keeps_what_is_known(story: Any) -> None:
    record = story.told()
    record.take(story.event("metrics", device="gw-1"))
    assert record.messages().sealed == 9


def test_events_of_another_workflow_are_left_out(story: Any) -> None:
    record = story.record()
    record.take({**story.windows()[0], "aiw": "another"})
    record.take({"type": "workflow", "aiw": "another", "state": "failed", "note": ""})
    assert (record.windows, record.state) == (0, "planned")


def test_outputs_without_truth_are_windows_but_not_scored(story: Any) -> None:
    record = story.record()
    record.take(story.event("output", port="words", origin_us=1, delay_us=5, value={"text": "hello"}))
    record.take(story.event("output", port="words", origin_us=1, delay_us=5, value=3))
    assert (record.windows, record.score.accuracy) == (2, None)


@pytest.mark.parametrize("member", ["predicted", "truth", "anomaly", "unseen"])
def test_a_window_needs_every_member_in_its_type(story: Any, member: str) -> None:
    record = story.record()
    event = story.windows()[0]
    event["value"][member] = 1
    record.take(event)
    assert (record.windows, record.score.known) == (1, 0)


def test_a_device_that_leaves_keeps_its_verdict(story: Any) -> None:
    record = story.told()
    for trust in ("lost", "unknown", "appraising"):
        record.take({"type": "trust", "device": "mcu-1", "trust": trust, "reason": ""})
    assert record.states["mcu-1"].verdict == "trusted"
    assert record.states["mcu-1"].trust == "appraising"


def test_a_later_rejection_replaces_the_verdict(story: Any) -> None:
    record = story.told()
    record.take({"type": "trust", "device": "mcu-1", "trust": "rejected", "reason": "model changed"})
    assert (record.states["mcu-1"].verdict, record.states["mcu-1"].reason) == ("rejected", "model changed")


def test_devices_of_other_runs_do_not_appear(story: Any) -> None:
    record = story.told()
    assert record.device_ids() == ["mcu-1", "gw-1"]
    assert "not-of-this-run" not in record.states


def test_time_stands_still_after_the_end(story: Any) -> None:
    record = story.told()
    story.time.now_s += 1000
    assert (record.seconds, record.ended) == (12.5, True)


def test_rate_is_that_of_the_last_two_seconds(story: Any) -> None:
    record = story.record()
    for records in (0, 100, 110, 120):
        record.take(
            story.event("metrics", device="gw-1", values={"channels": {"a -> b": {"records": records}}})
        )
        story.time.now_s += 1
    story.time.now_s -= 1
    assert record.rate_hz("a -> b") == pytest.approx(10.0)
    story.time.now_s += 60
    assert record.rate_hz("a -> b") == 0.0
    assert record.rate_hz("never heard of") == 0.0


def test_memory_does_not_grow_with_the_run(story: Any) -> None:
    record = story.record()
    for number in range(5_000):
        story.time.now_s += 0.01
        record.take(story.windows()[0] | {"port": f"port-{number}"})
        record.take(story.event("metrics", device="gw-1", values={"channels": {"a": {"records": number}}}))
    assert len(record.latest) == LATEST_KEPT
    assert len(record._outputs) == 1_000
    assert len(record._rates._seen["channel a"]) < 300


def test_texts_are_short_and_cannot_drive_a_terminal(story: Any) -> None:
    record = story.record()
    event = story.windows()[0]
    event["value"]["predicted"] = "\x1b[2J\x9b31m\u202eevil" + "x" * 10_000
    record.take(event)
    predicted = record.latest[0].predicted
    assert predicted.isprintable()
    assert len(predicted) == MAX_TEXT


@pytest.mark.parametrize(
    "histogram",
    [
        {"-1": 5},
        {"99999": 5},
        {"9" * 5000: 5},
        {"x": 5},
        {"3": -5},
        {"3": True},
        {"3": 2.5},
        {"²": 5},
        [3, 5],
        None,
    ],
)
def test_impossible_buckets_are_left_out(story: Any, histogram: object) -> None:
    record = story.record()
    values = {"channels": {"a": {"records": 1, "latency_us": histogram}}}
    record.take(story.event("metrics", device="gw-1", values=values))
    assert record.channels()["a"].latency_us.count == 0


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = (
    "aiw", "device", "devices", "workflows", "status", "trust", "reason", "state", "note", "phase", "aims",
    "step", "done", "total", "values", "value", "port", "delay_us", "metrics", "placement", "assignments",
    "models", "channels", "messages", "usage", "level", "origin", "event", "predicted", "truth",
    "anomaly", "unseen",
)  # fmt: skip
KINDS = ("status", "workflow", "device", "trust", "progress", "metrics", "output", "log")
nested = st.recursive(
    odd | st.sampled_from(["gesture-1", "mcu-1", "running"]),
    lambda inner: st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5) | st.lists(inner, max_size=3),
    max_leaves=20,
)
events = st.builds(
    lambda kind, members: {"aiw": "gesture-1", **members, "type": kind},
    st.sampled_from(KINDS) | odd,
    st.dictionaries(st.sampled_from(MEMBERS[1:]), nested, max_size=8),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(events | odd, max_size=6))
def test_no_event_can_break_a_record_or_its_summary(shapes: list[Any]) -> None:
    record = RunRecord("gesture-1")
    for event in shapes:
        record.take(event)
    json.dumps(summary(record), allow_nan=False)
