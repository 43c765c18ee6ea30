"""A campaign ends with a table that can be read and reckoned with, also when it is stopped."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.campaign import Decoder, DecoderDefect, Tally, fuzz
from tests.fuzz.decoders import EXPENSIVE, cheapest_first, repeat
from tests.fuzz.registry import ROOT
from tests.fuzz.table import Result, markdown, to_json, write_reproducer, write_tables


def refusing(data: bytes) -> None:
    if len(data) % 2:
        raise ValueError("odd")
    if data.startswith(b"\0"):
        raise KeyError("zero")


def test_a_tally_knows_what_was_refused_by_class_and_the_slowest_input() -> None:
    decoder = Decoder("example", (b"", b"a", b"\0\0"), lambda: refusing, (ValueError, KeyError))
    tally = fuzz(decoder, batches=range(3), batch_inputs=100)
    assert tally.refused.keys() == {"ValueError", "KeyError"}
    assert tally.accepted + sum(tally.refused.values()) == tally.inputs == 300
    assert tally.slowest_s > 0
    both = tally + Tally(1, 0, 99.0, 0, 0.0, {"ValueError": 1}, b"slow")
    assert both.refused["ValueError"] == tally.refused["ValueError"] + 1
    assert both.slowest == b"slow"


def test_tables_say_what_was_done_and_what_was_not(tmp_path: Path) -> None:
    results = {
        "a": Result(10, Tally(10, 4, 0.001, 0, 0.5, {"ValueError": 5, "KeyError": 1}, b"\xab" * 100)),
        "b": Result(10, Tally(5, 5, 0.0, 0, 0.5)),
        "c": Result(10, Tally(), DecoderDefect("c raised KeyError", b"xyz")),
    }
    rows = markdown(results, 3).splitlines()
    assert rows[0] == "15 inputs to 3 decoders, seed 3, 1 s of CPU time"
    assert rows[4].startswith("| a | 10 | 4 | ValueError 5, KeyError 1 | 1.00 ms: `abab")
    assert rows[4].endswith("(100 B)` | done |")
    assert [row.rsplit("| ", 1)[-1] for row in rows[5:]] == ["not finished |", "DEFECT |"]
    figures = json.loads(to_json(results, 3))["decoders"]
    assert figures["a"]["slowest_input"] == "ab" * 100
    assert figures["c"]["defect"] == "c raised KeyError"
    assert write_tables(tmp_path / "new", results, 3).read_text().splitlines() == rows
    assert write_reproducer(tmp_path, "a: b c", DecoderDefect("", b"xyz")).read_bytes() == b"xyz"


def test_expensive_decoders_come_last() -> None:
    names = cheapest_first([*EXPENSIVE, "bundle", "cbor"])
    assert names[:2] == ["bundle", "cbor"]
    assert tuple(names[2:]) == EXPENSIVE


def test_an_input_is_fed_again() -> None:
    assert repeat("bundle", b"\0\1\0\0") == "bundle accepts it"
    assert repeat("bundle", b"").startswith("bundle refuses it: RemoteProtocolError")


@pytest.mark.integration
def test_a_campaign_that_is_interrupted_leaves_its_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", "100000000", "--decoder", "message"]
    child = subprocess.Popen(
        [*command, "--processes", "1", "--output", str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("1 decoders")
        child.send_signal(signal.SIGINT)
        rest, _ = child.communicate(timeout=60)
    assert child.returncode == 130, rest
    assert re.search(
        r"^\| message \| [\d,]+ \|.*\| not finished \|$", (tmp_path / "fuzz.md").read_text(), re.MULTILINE
    )
