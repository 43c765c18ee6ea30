"""Topics: builders and parser are inverse, nothing else parses, and filters select what they say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.protocol.topics import (
    Attestation,
    AttestationTopic,
    DataTopic,
    Down,
    DownTopic,
    Enrolment,
    EnrolmentTopic,
    ModelTopic,
    Retained,
    RetainedTopic,
    Topic,
    Up,
    UpTopic,
    attestation_filter,
    down_filter,
    enrolment_filter,
    everything_filter,
    parse,
    retained_filter,
    up_filter,
)

LEVELS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", fullmatch=True)
AIWS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", fullmatch=True)
DEVICES = st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True)
TOPICS: st.SearchStrategy[Topic] = st.one_of(
    st.builds(DataTopic, AIWS, LEVELS, LEVELS, st.none() | LEVELS),
    st.builds(UpTopic, DEVICES, st.sampled_from(Up)),
    st.builds(DownTopic, DEVICES, st.sampled_from(Down)),
    st.builds(RetainedTopic, DEVICES, st.sampled_from(Retained)),
    st.builds(AttestationTopic, DEVICES, st.sampled_from(Attestation)),
    st.builds(EnrolmentTopic, DEVICES, st.sampled_from(Enrolment)),
    st.builds(ModelTopic, st.from_regex(r"[0-9a-f]{16}", fullmatch=True)),
)


@given(TOPICS)
def test_a_built_topic_parses_to_the_same_value(topic: Topic) -> None:
    assert parse(str(topic)) == topic
    assert topic_matches_sub(everything_filter(), str(topic))


@given(st.text(max_size=60) | st.lists(LEVELS, max_size=7).map("/".join))
def test_what_parses_is_written_back_unchanged(text: str) -> None:
    try:
        topic = parse(text)
    except RemoteProtocolError:
        return
    assert str(topic) == text


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        (DataTopic("aiw-demo", "MicIn", "audio"), "aif/ch/aiw-demo/MicIn/audio"),
        (DataTopic("aiw-demo", "MicIn", "audio", "Kws"), "aif/ch/aiw-demo/MicIn/audio/Kws"),
        (UpTopic("mcu-1", Up.HELLO), "aif/dev/mcu-1/up/hello"),
        (DownTopic("mcu-1", Down.DEPLOY), "aif/dev/mcu-1/down/deploy"),
        (RetainedTopic("mcu-1", Retained.STATUS), "aif/dev/mcu-1/status"),
        (AttestationTopic("mcu-1", Attestation.EVIDENCE), "aif/att/mcu-1/evd"),
        (EnrolmentTopic("mcu-1", Enrolment.REQUEST), "aif/enrol/enrol.mcu-1/req"),
        (ModelTopic("0123456789abcdef"), "aif/mdl/0123456789abcdef"),
    ],
)
def test_topics_as_written(topic: Topic, text: str) -> None:
    assert str(topic) == text


BAD_LEVELS = ["", "a/b", "+", "#", "a\0", "a\n", "$SYS", "a b", "é", ".", "x" * 65]


@pytest.mark.parametrize("level", BAD_LEVELS)
def test_no_level_can_hold_more_than_one_level(level: str) -> None:
    makers: list[Any] = [
        lambda: DataTopic(level, "a", "p"),
        lambda: DataTopic("w", level, "p"),
        lambda: DataTopic("w", "a", level),
        lambda: DataTopic("w", "a", "p", level),
        lambda: UpTopic(level, Up.LOG),
        lambda: DownTopic(level, Down.TIME),
        lambda: RetainedTopic(level, Retained.ANNOUNCE),
        lambda: AttestationTopic(level, Attestation.REQUEST),
        lambda: EnrolmentTopic(level, Enrolment.RESPONSE),
        lambda: ModelTopic(level),
        lambda: down_filter(level),
        lambda: up_filter(level),
    ]
    for make in makers:
        with pytest.raises(LocalProtocolError):
            make()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "aif",
        "aif/ch/w/a",
        "aif/ch/w/a/p/c/x",
        "aif/ch/w/a/",
        "/aif/ch/w/a/p",
        "aif/dev/mcu-1/up/other",
        "aif/dev/mcu-1/up/deploy",
        "aif/dev/mcu-1/down/hello",
        "aif/dev/mcu-1/other",
        "aif/dev/MCU/status",
        "aif/dev/+/status",
        "aif/att/mcu-1/rsp",
        "aif/enrol/mcu-1/req",
        "aif/mdl/0123456789ABCDEF",
        "aif/mdl/0123",
        "aif/mdl/0123456789abcdef0",
        "$SYS/broker",
        "aif/ch/" + "w" * 400,
    ],
)
def test_other_topics_are_the_senders_error(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse(text)


def test_filters_select_what_they_say_and_nothing_else() -> None:
    hello, deploy = str(UpTopic("mcu-1", Up.HELLO)), str(DownTopic("mcu-1", Down.DEPLOY))
    status = str(RetainedTopic("mcu-1", Retained.STATUS))
    evidence = str(AttestationTopic("mcu-1", Attestation.EVIDENCE))
    request = str(EnrolmentTopic("mcu-1", Enrolment.REQUEST))
    everything = {hello, deploy, status, evidence, request}
    expected = {
        up_filter(): {hello},
        up_filter("mcu-1"): {hello},
        up_filter("mcu-2"): set(),
        down_filter("mcu-1"): {deploy},
        down_filter("mcu-2"): set(),
        retained_filter(Retained.STATUS): {status},
        retained_filter(Retained.ANNOUNCE, "mcu-1"): set(),
        attestation_filter(Attestation.EVIDENCE): {evidence},
        attestation_filter(Attestation.REQUEST, "mcu-1"): set(),
        enrolment_filter(Enrolment.REQUEST): {request},
        enrolment_filter(Enrolment.REQUEST, "mcu-2"): set(),
        everything_filter(): everything,
    }
    for pattern, selected in expected.items():
        assert {topic for topic in everything if topic_matches_sub(pattern, topic)} == selected, pattern
