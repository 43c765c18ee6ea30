"""The summary's arithmetic, its form, and its file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aif.errors import ConfigError
from aif.gateway.summary import check_writable, summary, write_summary
from aif.gateway.summary_view import print_summary
from aif.gateway.wire_tap import WireReport

CHANNEL = "features.out -> classifier.in, anomaly.in"
WIRE = WireReport(messages=40, bytes_=4_000, plaintext=0, missed=0, finds=())

FORM: dict[str, Any] = {
    "workflow": str,
    "state": str,
    "seconds": float,
    "devices": [{"id": str, "pid": int, "class": str, "aims": [str]}],
    "windows": int,
    "accuracy": float,
    "anomaly": {"detection": float, "false_alarm": float, "unseen_windows": int, "known_windows": int},
    "messages": {
        "sealed": int, "verified": int, "rejected": int, "lost": int, "plaintext_on_wire": int,
        "frames_watched": int,
    },
    "control": {},
    "channels": {CHANNEL: {"p50_ms": float, "p99_ms": float, "records": int, "troubles": {}}},
    "acknowledged": {},
    "end_to_end": {"p50_ms": float, "p99_ms": float},
    "models": [
        {"name": str, "version": str, "sha256": str, "device": str, "bytes": int, "arena_bytes": int}
    ],
    "attestation": [{"device": str, "result": str}],
    "placement": {
        "objective": float,
        "proven_gap": float,
        "assignments": [{"aim": str, "device": str, "implementation": str, "reason": str, "rejected": dict}],
    },
    "aims": [{"aim": str, "device": str, "p50_us": float, "p99_us": float, "invocations": int}],
    "memory": [
        {
            "device": str, "ram_bytes": int, "ram_limit_bytes": int, "flash_bytes": int,
            "flash_limit_bytes": int, "arena_bytes": int,
        }
    ],
}  # fmt: skip


def check_form(value: Any, form: Any, place: str = "summary") -> None:
    """The value has exactly the members of the form, in its types."""
    if isinstance(form, dict):
        assert set(value) == set(form), place
        for name, inner in form.items():
            check_form(value[name], inner, f"{place}.{name}")
    elif isinstance(form, list):
        assert value, place
        for number, one in enumerate(value):
            check_form(one, form[0], f"{place}[{number}]")
    else:
        assert type(value) is form, place


def test_the_form_is_the_promised_one_after_a_journey_through_json(story: Any) -> None:
    content = json.loads(json.dumps(summary(story.told(), wire=WIRE), allow_nan=False))
    check_form(content, FORM)


def test_figures_are_those_counted_by_hand(story: Any) -> None:
    content = summary(story.told(), wire=WIRE)
    assert content["workflow"] == "tinyaif/Gestures@1.0"
    assert (content["state"], content["seconds"], content["windows"]) == ("completed", 12.5, 6)
    assert content["accuracy"] == 0.75
    assert content["anomaly"] == {
        "detection": 0.5, "false_alarm": 0.25, "unseen_windows": 2, "known_windows": 4,
    }  # fmt: skip
    assert content["messages"] == {
        "sealed": 9, "verified": 8, "rejected": 1, "lost": 3, "plaintext_on_wire": 0, "frames_watched": 40,
    }  # fmt: skip
    assert content["devices"] == [
        {"id": "mcu-1", "pid": 11, "class": "mcu", "aims": ["features"]},
        {"id": "gw-1", "pid": 12, "class": "gateway", "aims": ["classifier"]},
    ]
    assert content["attestation"] == [
        {"device": "mcu-1", "result": "trusted"},
        {"device": "gw-1", "result": "rejected: wrong firmware"},
    ]
    assert content["memory"][1] == {
        "device": "mcu-1", "ram_bytes": 50, "ram_limit_bytes": 100, "flash_bytes": 300,
        "flash_limit_bytes": 1000, "arena_bytes": 20,
    }  # fmt: skip


def test_latencies_are_milliseconds_within_the_histogram_s_two_per_cent(story: Any) -> None:
    content = summary(story.told(), wire=WIRE)
    assert content["channels"][CHANNEL]["p50_ms"] == pytest.approx(2.0, rel=0.02)
    assert content["channels"][CHANNEL]["p99_ms"] == pytest.approx(64.0, rel=0.02)
    assert content["end_to_end"]["p50_ms"] == pytest.approx(10.0, rel=0.02)
    assert content["end_to_end"]["p99_ms"] == pytest.approx(80.0, rel=0.02)
    spent = {one["aim"]: one["p50_us"] for one in content["aims"]}
    assert spent == {"classifier": pytest.approx(900, rel=0.02), "features": pytest.approx(100, rel=0.02)}


def test_losses_and_refusals_are_told_by_channel_and_cause(story: Any) -> None:
    record = story.told()
    figures = {"records": 5, "lost": 2, "causes": {"frame.tag": 3, "loss.gap": 1, "bad": -1, "dup": "x"}}
    for device in ("gw-1", "mcu-1"):
        record.take(story.event("metrics", device=device, values={"channels": {CHANNEL: figures}}))
    content = summary(record)
    assert content["channels"][CHANNEL]["troubles"] == {"lost": 4, "frame.tag": 6, "loss.gap": 2}
    screen = io.StringIO()
    print_summary(Console(file=screen, width=120), content)
    (line,) = [line for line in screen.getvalue().splitlines() if "frame.tag" in line]
    assert line.endswith(
        "6 not sealed with the channel's key: forged, damaged or put on another channel (frame.tag); "
        "2 gaps: later messages came, these did not (loss.gap); 4 lost"
    )


def test_what_became_of_acknowledged_messages_is_told_once_for_both_ends(story: Any) -> None:
    record = story.told()
    ends = {"gw-1": {"acknowledged": 40, "held": 2, "moved": 8, "resent": 9}, "mcu-1": {"repeated": 1}}
    for device, figures in ends.items():
        record.take(story.event("metrics", device=device, values={"acknowledged": {CHANNEL: figures}}))
    content = summary(record)
    assert content["acknowledged"] == {
        CHANNEL: {"acknowledged": 40, "held": 2, "moved": 8, "resent": 9, "repeated": 1, "abandoned": 0}
    }
    screen = io.StringIO()
    print_summary(Console(file=screen, width=120), content)
    (line,) = [line for line in screen.getvalue().splitlines() if "moved" in line]
    assert line.endswith(": 40 acknowledged, 2 held, 8 moved, 9 resent, 1 repeated")


def test_what_was_not_measured_is_null_and_not_zero(story: Any) -> None:
    content = summary(story.record())
    assert content["accuracy"] is None
    assert content["anomaly"]["detection"] is None
    assert content["messages"]["plaintext_on_wire"] is None
    assert content["messages"]["frames_watched"] is None
    assert content["end_to_end"] == {"p50_ms": None, "p99_ms": None}
    assert content["placement"]["proven_gap"] is None
    assert [one["result"] for one in content["attestation"]] == ["unknown", "unknown"]


def test_plaintext_that_was_found_is_reported(story: Any) -> None:
    found = WireReport(messages=40, bytes_=4_000, plaintext=2, missed=0, finds=())
    assert summary(story.told(), wire=found)["messages"]["plaintext_on_wire"] == 2


def test_numbers_that_json_cannot_hold_become_null(story: Any) -> None:
    record = story.record()
    status = story.status()
    status["status"]["workflows"][0]["placement"] |= {"objective": float("nan"), "proven_gap": float("inf")}
    record.take(status)
    content = json.loads(json.dumps(summary(record), allow_nan=False))
    assert (content["placement"]["objective"], content["placement"]["proven_gap"]) == (None, None)


def test_a_summary_is_written_whole_and_alone(story: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")
    content = summary(story.told(), wire=WIRE)
    write_summary(path, content)
    assert json.loads(path.read_text()) == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_summary_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_summary(path, {"accuracy": float("nan")})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    check_writable(tmp_path / "run.json")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as missing:
        check_writable(tmp_path / "none" / "run.json")
    assert str(missing.value) == (
        f"the summary cannot be written to {tmp_path}/none/run.json: there is no folder {tmp_path}/none"
    )
    assert f"mkdir -p {tmp_path}/none" in missing.value.diagnostics()
    with pytest.raises(ConfigError, match="it is a folder"):
        check_writable(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Not a directory"):
        check_writable(tmp_path / "file" / "run.json")


def test_writing_where_nothing_can_be_written_says_where_and_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none/run\.json: No such file or directory"):
        write_summary(tmp_path / "none" / "run.json", {})
