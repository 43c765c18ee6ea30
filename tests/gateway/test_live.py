"""What a terminal, a pipe and a dumb terminal get to see; nothing that a device says can break it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from aif.gateway.live import LiveScreen, PlainScreen, Screen, open_screen
from aif.gateway.panels import Rows, RunPanels
from aif.gateway.run_record import RunRecord
from aif.gateway.summary import summary
from aif.gateway.summary_view import print_summary
from aif.gateway.wire_tap import WireReport

WIRE = WireReport(messages=40, bytes_=4_000, plaintext=0, missed=0, finds=())
SIZES = [(100, 30), (80, 24), (200, 60), (40, 10), (12, 4), (1, 1)]


def terminal(width: int = 100, height: int = 30, *, encoding: str = "utf-8") -> Console:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace", write_through=True)
    return Console(
        file=stream,
        force_terminal=True,
        width=width,
        height=height,
        color_system=None,
        _environ={"TERM": "xterm"},
    )


def printed(console: Console) -> str:
    stream = console.file
    assert isinstance(stream, io.TextIOWrapper)
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode(stream.encoding)


def drawn(record: RunRecord, width: int, height: int) -> list[str]:
    console = terminal(width, height)
    console.print(RunPanels(record, lambda: WIRE))
    return printed(console).splitlines()


def crowd(story: Any) -> RunRecord:
    """Three hundred devices with an AIM each, as many channels, and names without end."""
    record: RunRecord = story.record(devices=(), windows_total=None)
    channels = [{f"{'source' * 40}-{n} -> b": {"records": 10**15}} for n in range(300)]
    one = story.metrics()["mcu-1"]
    status = story.status(
        metrics={f"device-{n}": {**one, "channels": mine} for n, mine in enumerate(channels)}
    )
    status["status"]["workflows"][0]["placement"]["assignments"] = [
        {"aim": f"{'AIM' * 90}-{n}", "device": f"device-{n}", "implementation": "python"} for n in range(300)
    ]
    record.take(status)
    for event in [event for _ in range(10) for event in story.windows()]:
        event["value"] |= {name: f"{event['value'][name]} " * 60 for name in ("predicted", "truth")}
        record.take(event)
    record.take({"type": "log", "level": "warning", "origin": "gw-1", "event": "messages lost"})
    return record


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("state", ["planned", "deploying", "running", "failed", "never heard of"])
def test_every_state_is_drawn_on_every_terminal(story: Any, state: str, width: int, height: int) -> None:
    empty, told, crowded = story.record(), story.told(), crowd(story)
    for record in (empty, told, crowded):
        record.take(story.event("workflow", state=state, note=""))
        lines = drawn(record, width, height)
        assert lines
        assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize(("width", "height"), [(100, 30), (80, 24)])
def test_the_screen_fits_and_holds_what_matters(story: Any, width: int, height: int) -> None:
    for record in (story.told(), crowd(story)):
        record.take(story.event("workflow", state="running", note=""))
        lines = drawn(record, width, height)
        assert len(lines) < height
        assert "running" in lines[0]
        assert "accuracy 75.0%   unseen kinds noticed 50.0%   false alarms 25.0%" in lines[1]
        text = "\n".join(lines)
        for part in ("prediction", "channel", "device", "unseen, missed", "sealed", "rejected", "plaintext"):
            assert part in text


def test_a_small_run_shows_every_figure(story: Any) -> None:
    record = story.told()
    record.take(story.event("workflow", state="running", note=""))
    text = "\n".join(" ".join(line.split()) for line in drawn(record, 100, 30))
    assert "✗ row swing 0.75" in text
    assert "✓ row row 0.75 false alarm" in text
    assert "✓ row raise 0.75 unseen, noticed" in text
    assert (
        "features.out → classifier.in, anomaly.in 4 0.0 1.98 6" in text
    )  # the middle of the bucket that holds 2 ms
    assert "mcu-1 mcu features mcu running 10" in text
    assert "███░░░ 50% 20 B ██░░░░ 30%" in text
    assert "sealed 9 verified 8 rejected 1 lost 3 plaintext on wire 0 of 40 watched" in text


def test_a_deployment_shows_trust_phase_and_download(story: Any) -> None:
    record = story.record()
    record.take(story.status("deploying"))
    record.take(story.event("progress", device="mcu-1", step="download gestures", done=512, total=1024))
    text = "\n".join(" ".join(line.split()) for line in drawn(record, 100, 30))
    assert "1 of 2 devices are trusted" in text
    assert "mcu-1 trusted running download gestures 512 B of 1.0 KiB ██████░░░░░░" in text
    assert "gw-1 rejected running" in text


def test_a_failure_says_why(story: Any) -> None:
    record = story.told()
    record.take(story.event("workflow", state="failed", note="mcu-1: AIF-E0901: arena too small"))
    assert drawn(record, 100, 30)[1] == "mcu-1: AIF-E0901: arena too small"


@pytest.mark.parametrize(
    ("height", "channels", "devices"), [(24, 6, 7), (24, 50, 50), (30, 5, 6), (16, 3, 4)]
)
def test_rows_are_shared_out_within_the_terminal(height: int, channels: int, devices: int) -> None:
    rows = Rows.fitting(height, channels=channels, devices=devices, footer=1)
    used = 2 + 3 + 1 + rows.predictions + rows.channels + rows.devices + (4 if rows.gaps else 0)
    assert used <= height - 1
    assert min(rows.predictions, rows.channels) >= 3
    assert rows.devices >= 1


def test_markup_and_escape_sequences_from_devices_are_only_text(story: Any) -> None:
    record = story.record()
    status = story.status()
    status["status"]["workflows"][0]["placement"]["assignments"][0]["aim"] = "[red]\x1b[31mAIM[/]"
    record.take(status)
    event = story.windows()[0]
    event["value"]["predicted"] = "[bold]row[/nothing]\x1b]0;title\x07"
    record.take(event)
    text = "\n".join(drawn(record, 200, 40))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]·[31mAIM[/]" in text
    assert "[bold]row[/nothing]" in text


def test_a_screen_is_drawn_at_most_four_times_a_second(story: Any) -> None:
    console = terminal()
    record = story.told()
    with LiveScreen(console, now_s=story.time) as screen:
        screen.watch(record, lambda: WIRE)
        screen.update()
        before = len(printed(console))
        for _ in range(24):
            story.time.now_s += 0.01
            screen.update()
        assert len(printed(console)) == before
        story.time.now_s += 0.02
        screen.update()
        assert len(printed(console)) > before


def test_finished_phases_stay_and_a_broken_one_is_marked(story: Any) -> None:
    console = terminal()

    def interrupted() -> None:
        with LiveScreen(console, now_s=story.time) as screen:
            screen.phase("training models")
            story.time.now_s += 3
            screen.progress("gestures", 0.5)
            screen.phase("starting devices")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    text = printed(console)
    assert "✓ training models  3.0 s" in text
    assert "gestures ████████░░░░░░░░" in text
    assert "✗ starting devices  0.0 s" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back


def test_a_live_run_ends_with_its_summary(story: Any) -> None:
    console = terminal()
    record = story.record()
    with open_screen(console, now_s=story.time) as screen:
        assert isinstance(screen, LiveScreen)
        screen.watch(record, lambda: WIRE)
        record.take(story.status("deploying"))
        screen.update()
        story.time.now_s += 2
        record.take(story.status("running"))
        screen.update()
        screen.final(summary(story.told(), wire=WIRE))
    text = printed(console)
    assert "✓ deployed to 2 attested devices  2.0 s" in text
    assert text.index("recognised 75.0% of 4 windows") > text.index("✓ deployed")


def test_a_pipe_gets_one_line_per_change_and_a_status_every_two_seconds(story: Any) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=110)
    record = story.record()
    screen: Screen = open_screen(console, now_s=story.time)
    assert isinstance(screen, PlainScreen)
    with screen:
        screen.phase("training models")
        for fraction in (0.1, 0.5, 1.0):
            screen.progress("gestures", fraction)
        screen.watch(record, lambda: WIRE)
        record.take(story.status("deploying"))
        for done in (100, 1024, 1024):
            record.take(
                story.event("progress", device="mcu-1", step="download gestures", done=done, total=1024)
            )
            screen.update()
        record.take(story.status("running", metrics=story.metrics()))
        for event in story.windows():
            record.take(event)
        for _ in range(32):
            story.time.now_s += 0.125
            screen.update()
        record.take(story.event("workflow", state="failed", note="gw-1 is away"))
        screen.update()
    status = (
        "windows 6/4; accuracy 75.0%, noticed 50.0%, false alarms 25.0%; "
        "sealed 9, verified 8, rejected 1, lost 3; plaintext 0/40"
    )
    assert stream.getvalue().splitlines() == [
        "[   0.0 s] training models",
        "[   0.0 s]   gestures",
        "[   0.0 s] gesture-1 is planned",
        "[   0.0 s] tinyaif/Gestures@1.0 is deploying",
        "[   0.0 s]   mcu-1: download gestures, 1.0 KiB",
        "[   0.1 s] tinyaif/Gestures@1.0 is running",
        f"[   2.0 s] {status}",
        f"[   4.0 s] {status}",
        "[   4.0 s] tinyaif/Gestures@1.0 is failed: gw-1 is away",
    ]


def test_the_summary_says_what_a_user_remembers(story: Any) -> None:
    console = terminal()
    print_summary(console, summary(story.told(), wire=WIRE))
    lines = [" ".join(line.split()) for line in printed(console).splitlines()]
    assert lines[1:8] == [
        "✓ tinyaif/Gestures@1.0 completed: 6 windows on 2 devices in 12.5 s",
        "recognised 75.0% of 4 windows of known kinds; false alarms in 25.0%",
        "noticed 50.0% of 2 windows of a kind never trained on",
        "from sensor to result in 10 ms (p50), 81 ms (p99)",
        "9 messages sealed, 8 verified, rejected 1, lost 3",
        "none of 40 frames on the wire held known plaintext",
        "placement: objective 2.5, proven optimal",
    ]
    assert any(line.startswith("gestures 3 abababababab gw-1 8.8 KiB 2.0 KiB") for line in lines)


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (None, "the wire was not watched"),
        (WireReport(0, 0, 0, 0, ()), "no frame was seen on the wire"),
        (WireReport(40, 1, 2, 0, ()), "2 of 40 frames on the wire held known plaintext"),
    ],
)
def test_the_summary_never_claims_what_was_not_seen(story: Any, wire: WireReport | None, words: str) -> None:
    console = terminal()
    print_summary(console, summary(story.told(), wire=wire))
    assert words in printed(console)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_summaries_of_nothing_and_of_everything_are_printed(story: Any, width: int, height: int) -> None:
    for record in (story.record(), crowd(story)):
        console = terminal(width, height)
        print_summary(console, summary(record))
        assert printed(console)


def test_a_terminal_without_unicode_gets_signs_that_it_knows(story: Any) -> None:
    console = terminal(encoding="ascii")
    record = story.told()
    with LiveScreen(console, now_s=story.time) as screen:
        screen.watch(record, lambda: WIRE)
        screen.final(summary(record, wire=WIRE))
    text = printed(console)
    assert "+ tinyaif/Gestures@1.0 completed" in text
    assert "features.out -> classifier.in" in text


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.text(max_size=12), min_size=1, max_size=3),
    counts=st.lists(odd, min_size=6, max_size=6), value=odd,
    state=st.sampled_from(["deploying", "running"]), size=st.sampled_from(SIZES),
)  # fmt: skip
def test_no_event_can_break_the_screen(
    names: list[str], counts: list[Any], value: Any, state: str, size: tuple[int, int]
) -> None:
    record = RunRecord("gesture-1")
    usage = dict(zip(("ram", "ram_limit", "flash", "flash_limit", "arena"), counts, strict=False))
    figures = {
        "aims": {n: {"process_us": {"3": counts[0]}} for n in names},
        "channels": {n: {"records": counts[1]} for n in names},
        "usage": usage, "messages": {"lost": counts[2]},
    }  # fmt: skip
    workflow = {
        "aiw": "gesture-1", "workflow": names[0], "state": state, "note": counts[3],
        "placement": {"assignments": [{"aim": n, "device": n} for n in names]},
        "devices": {n: {"phase": n, "aims": {n: n}} for n in names}, "metrics": dict.fromkeys(names, figures),
    }  # fmt: skip
    record.take({"type": "status", "status": {"devices": [], "workflows": [workflow]}})
    flags = {"predicted": names[0], "truth": names[-1], "anomaly": True, "unseen": False, "confidence": value}
    record.take({"type": "output", "aiw": "gesture-1", "port": "p", "delay_us": counts[4], "value": flags})
    for name in names:
        step = {"step": name, "done": counts[4], "total": counts[5]}
        record.take({"type": "progress", "aiw": "gesture-1", "device": name, **step})
    drawn(record, *size)
    print_summary(terminal(*size), summary(record))
