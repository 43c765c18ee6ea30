"""Tables that people read stay whole on a terminal of sixty columns: columns give way, names do not."""

from __future__ import annotations

import pytest

from aif.cli._plan_tables import plain, render_placement
from aif.cli._scan import print_scan
from aif.model.placement import Assignment, LinkUsage, PathLatency, Placement, Usage

NAME = "hall-gateway-07"
PLACED = Placement(
    "W", "1.0", "lab", 1,
    (Assignment("decision", NAME, "gateway", "only one that fits", rejected={"e-1": "has no imu sensor"}),),
    (Usage(NAME, 1024, 2048, 512, 1024, 0.1, 0.8, 1.0),),
    (LinkUsage("radio", (NAME, "edge-1"), 1_000, 2_000),),
    (PathLatency("alarm", 12.0, 100.0),),
)  # fmt: skip


@pytest.mark.parametrize(("width", "why"), [(60, False), (130, True)])
def test_a_plan_keeps_its_names(width: int, why: bool) -> None:
    text = plain(lambda console: render_placement(PLACED, console), width)
    assert max(map(len, text.splitlines()[:-1])) <= width
    assert text.count(NAME) >= 2
    assert "only one that fits" in text
    assert ("has no imu sensor" in text) is why


@pytest.mark.parametrize("width", ["60", "130"])
def test_a_scan_keeps_its_names(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("FORCE_COLOR", "1")
    said = {
        "device_class": "gateway", "board": "gateway-a", "ram_free_bytes": 1024, "ram_bytes": 2048,
        "flash_free_bytes": 0, "flash_bytes": 0, "runtimes": {"python": "3.11.7"}, "sensors": [],
    }  # fmt: skip
    silent = {
        "device": "gw-2",
        "announced": None,
        "usable": False,
        "drained": False,
        "state": "lost",
        "reason": "",
    }
    known = {**silent, "device": NAME, "announced": said, "usable": True, "state": "trusted", "age_s": 3.0}
    print_scan({"devices": [known, silent], "strangers": [], "left_out": 0})
    heading, first, second = capsys.readouterr().out.splitlines()
    assert NAME in first
    assert "1.0 KiB/2.0 KiB" in first
    assert "lost" in second
    assert ("runtimes" in heading) is (width == "130")
