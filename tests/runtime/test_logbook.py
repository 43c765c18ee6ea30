"""Logs: bounded, without secrets, from any thread, and never a reason to fail."""

from __future__ import annotations

import asyncio
import io
import json
import math
import threading
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.protocol import control
from aif.protocol.control import LogLine
from aif.runtime.logbook import MAX_FACTS, MAX_LINES_PER_S, MAX_TEXT, LogBook
from tests.runtime.virtual_clock import VirtualClock, settle


class Level(IntEnum):
    HIGH = 2


class Unshowable:
    def __str__(self) -> str:
        raise ValueError


def make() -> tuple[LogBook, io.StringIO, VirtualClock, list[LogLine]]:
    stream, clock, heard = io.StringIO(), VirtualClock(), list[LogLine]()
    log = LogBook("left", clock, stream)
    log.forward = heard.append
    return log, stream, clock, heard


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_holds_event_level_origin_time_and_facts() -> None:
    log, stream, clock, heard = make()
    log.warning("queue full", aim="a", count=3, share=0.5, nothing=None, on=True)
    (line,) = lines(stream)
    assert line == {
        "time_us": clock.time_us(), "origin": "left", "level": "warning", "event": "queue full",
        "aim": "a", "count": 3, "share": 0.5, "nothing": None, "on": True,
    }  # fmt: skip
    assert heard[0].facts == {"aim": "a", "count": 3, "share": 0.5, "nothing": None, "on": True}
    log.info("x")
    log.error("y")
    assert [line["level"] for line in lines(stream)] == ["warning", "info", "error"]


@pytest.mark.parametrize(
    "name",
    ["seed", "identity_seed", "SECRET", "password", "passphrase", "private_key", "key", "api_key", "keys",
     "k_epoch", "access_token", "pairing_code"],
)  # fmt: skip
def test_secrets_are_not_written(name: str) -> None:
    log, stream, _, heard = make()
    log.info("event", **{name: "do not show", "nested": {name: "do not show", "fine": 1}})
    assert "do not show" not in stream.getvalue() + str(heard)
    assert lines(stream)[0][name] == "[redacted]"
    assert "'fine': 1" in lines(stream)[0]["nested"]


@pytest.mark.parametrize("name", ["monkey_business", "keyboard", "count"])
def test_harmless_names_are_written(name: str) -> None:
    log, stream, _, _ = make()
    log.info("event", **{name: "shown"})
    assert lines(stream)[0][name] == "shown"


def test_bytes_are_not_written() -> None:
    log, stream, _, _ = make()
    log.info("event", a=b"abc", b=bytearray(2), c=memoryview(b"x"))
    line = lines(stream)[0]
    assert (line["a"], line["b"], line["c"]) == ("[3 bytes]", "[2 bytes]", "[1 bytes]")


def test_a_fact_cannot_pass_for_the_line_s_own_fields_and_is_not_lost() -> None:
    log, stream, clock, _ = make()
    log.info("real", event="forged", level="error", origin="right", time_us=0)
    assert lines(stream)[0] == {
        "time_us": clock.time_us(), "origin": "left", "level": "info", "event": "real",
        "time_us_": 0, "origin_": "right", "level_": "error", "event_": "forged",
    }  # fmt: skip


def test_a_flood_is_cut_and_counted() -> None:
    log, stream, clock, heard = make()
    for n in range(MAX_LINES_PER_S + 30):
        log.info("flood", number=n)
    assert len(lines(stream)) == len(heard) == MAX_LINES_PER_S
    clock.now_ms += 1_000
    log.info("after")
    log.info("calm")
    after, calm = lines(stream)[-2:]
    assert after["suppressed"] == 30
    assert "suppressed" not in calm


def test_a_line_has_a_size() -> None:
    log, stream, _, _ = make()
    log.info("e" * 10_000, text="t" * 10_000, **{f"n{n}": n for n in range(100)})
    line = lines(stream)[0]
    assert len(line["event"]) == len(line["text"]) == MAX_TEXT
    assert len(line) == MAX_FACTS + 4


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters()), st.binary(),
    st.just("\ud800"), st.just(Unshowable()), st.just(Level.HIGH), st.lists(st.floats()),
    st.dictionaries(st.text(), st.floats()), st.just(1 << 70),
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters()), values, max_size=5), st.text(st.characters()))
def test_whatever_is_logged_can_be_written_and_sent(facts: dict[str, Any], event: str) -> None:
    log, stream, _, heard = make()
    log.info(event, **facts)
    (line,) = heard
    assert control.unpack(control.pack(line)) == line
    json.dumps(lines(stream), allow_nan=False)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1 << 63])
def test_numbers_that_no_document_carries_become_text(value: float) -> None:
    log, _, _, heard = make()
    log.info("event", value=value)
    assert heard[0].facts["value"] == str(value)


def test_a_stream_that_has_gone_is_no_reason_to_fail() -> None:
    log, stream, _, heard = make()
    stream.close()
    log.info("event")
    assert len(heard) == 1


def test_a_listener_that_logs_does_not_hear_itself() -> None:
    log, stream, _, _ = make()
    heard: list[str] = []

    def listen(line: LogLine) -> None:
        heard.append(line.event)
        log.warning("cannot send")

    log.forward = listen
    log.info("first")
    log.info("second")
    assert heard == ["first", "second"]
    assert [line["event"] for line in lines(stream)] == ["first", "cannot send", "second", "cannot send"]


def test_a_listener_is_called_on_its_event_loop_whatever_thread_logs() -> None:
    async def journey() -> None:
        log, stream, _, _ = make()
        threads: list[int] = []
        log.forward = lambda _: threads.append(threading.get_ident())
        log.info("here")
        await asyncio.to_thread(log.info, "elsewhere")
        await settle()
        assert threads == [threading.get_ident()] * 2
        assert [line["event"] for line in lines(stream)] == ["here", "elsewhere"]

    asyncio.run(journey())


def test_lines_of_many_threads_stay_whole() -> None:
    log, stream, _, _ = make()
    log.forward = None

    def write() -> None:
        for n in range(5):
            log.info("x" * 500, n=n)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(stream)) == 40
