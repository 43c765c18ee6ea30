"""What was sent against what arrived, and the words for what a channel noticed."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from aif.model.ports import AuthMode
from aif.protocol.deployment import RemoteChannel
from aif.protocol.events import (
    AuthFailure,
    ChannelEvent,
    ChannelSilent,
    CloneSuspected,
    ForgeriesRefused,
    LossReport,
)
from aif.protocol.numbers import Cause
from aif.runtime.books import ChannelBook, channel_books, log_channel_event, output_books
from aif.runtime.clock import SystemClock
from aif.runtime.logbook import LogBook

CHANNEL = b"channel-id-of-16"
FAN_OUT = RemoteChannel(
    CHANNEL, "aif/ch/w/a/out", "a.out", "left", ("b.in", "c.in", "d.in"), ("right", "far", "far"),
    AuthMode.SIGNED, 0, 64, 1.0, 32_768, 0,
)  # fmt: skip
NAME = "a.out -> b.in, c.in, d.in"


def metrics(verified: int, lost: int) -> dict[str, Any]:
    return {"channels": {NAME: {"verified": verified, "lost": lost}}}


def test_each_consuming_device_has_its_own_book() -> None:
    figures = {"left": {"sent": {NAME: 10}}, "right": metrics(7, 3), "far": metrics(5, 1)}
    far, right = channel_books({CHANNEL: FAN_OUT}, figures)
    assert (far, far.unaccounted) == (ChannelBook(NAME, "far", 10, 5, 1), 4)
    assert (right.device, right.unaccounted) == ("right", 0)


@pytest.mark.parametrize("figures", [{}, {"left": {"sent": [NAME]}}, {"left": {"sent": {NAME: "ten"}}}])
def test_a_device_that_said_nothing_readable_has_sent_nothing(figures: dict[str, dict[str, Any]]) -> None:
    assert [book.unaccounted for book in channel_books({CHANNEL: FAN_OUT}, figures)] == [0, 0]


def test_outputs_are_compared_with_what_came() -> None:
    written: dict[str, dict[str, Any]] = {"left": {"outputs": {"total": 9}}, "right": {"outputs": None}}
    (book,) = output_books({"total": 7, "other": 3}, written)
    assert (book.channel, book.device, book.unaccounted) == ("output total", "controller", 2)
    assert [book.unaccounted for book in output_books({}, written)] == [9]


@pytest.mark.parametrize(
    ("event", "level", "words", "facts"),
    [
        (
            LossReport(CHANNEL, 0, 1, 3, 9, 2, 64, Cause.LOSS_GAP), "warning", "messages lost",
            {"frames": 2, "messages": 64, "reason": "loss.gap"},
        ),
        (
            LossReport(CHANNEL, 0, 1, 3, 2, 0, None, Cause.LOSS_TAIL), "warning",
            "messages lost, how many only their sender knows", {"frames": 0, "reason": "loss.tail"},
        ),
        (ChannelSilent(CHANNEL, 0, 1, 3_210.0), "warning", "channel silent", {"seconds": 3.2}),
        (
            AuthFailure(CHANNEL, 0, 1, 3, 9, Cause.AUTH_UNVERIFIED, stopped=False), "warning",
            "messages taken that cannot be verified", {"reason": "auth.unverified"},
        ),
        (
            AuthFailure(CHANNEL, 0, 1, 3, 9, Cause.AUTH_MISMATCH, stopped=True), "error",
            "sender cannot be verified and is not heard any more", {"reason": "auth.mismatch"},
        ),
        (
            ForgeriesRefused(CHANNEL, 70, over_budget=True), "warning",
            "frames refused: wrong tag or signature", {"frames": 70, "flood": True},
        ),
        (CloneSuspected(CHANNEL, 0, 1, 5), "warning", "two frames under one counter", {"counter": 5}),
    ],
)  # fmt: skip
def test_what_a_channel_noticed_is_said_in_words(
    event: ChannelEvent, level: str, words: str, facts: dict[str, Any]
) -> None:
    stream = io.StringIO()
    log_channel_event(LogBook("here", SystemClock(), stream), event, "a.out")
    line = json.loads(stream.getvalue())
    assert (line["level"], line["event"], line["channel"]) == (level, words, "a.out")
    assert facts.items() <= line.items()
