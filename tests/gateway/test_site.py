"""A whole site as a person sees it: figures, another Controller, every size of terminal, any answer."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from aif.gateway.rates import Rates
from aif.gateway.site_panels import SitePanels
from aif.gateway.site_record import EVENTS_KEPT, SiteRecord
from aif.gateway.site_view import SiteView, site_json

SIZES = [(130, 40), (80, 24), (200, 60), (40, 10), (12, 4), (1, 1)]
CHANNEL = "features.out -> classifier.in, anomaly.in"
STARTED_US = 1_700_000_000_000_000
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def answer(
    story: Any, *, started_us: int = STARTED_US, seconds: float = 10.0, **changes: Any
) -> dict[str, Any]:
    """A status as a Controller gives it."""
    status: dict[str, Any] = story.status(metrics=story.metrics())["status"]
    (workflow,) = status["workflows"]
    workflow["metrics"]["mcu-1"]["sent"] = {CHANNEL: 7}
    workflow["metrics"]["gw-1"]["channels"][CHANNEL] |= {"lost": 3, "causes": {"loss.gap": 1, "frame.tag": 2}}
    workflow["metrics"]["gw-1"]["aims"]["classifier"]["waiting"] = 4
    workflow["placement"]["usage"] = [
        {"device": "mcu-1", "cpu_share": 0.25, "cpu_limit": 0.8, "ram_bytes": 60, "ram_limit_bytes": 100}
    ]
    workflow["links"] = [
        {"link": "air", "members": ["gw-1", "mcu-1"], "planned_bps": 3_000, "limit_bps": 7_000}
    ]
    status["controller"] = {"started_us": started_us, "time_us": started_us + int(seconds * 1e6)}
    return {**status, **changes}


def line(number: int, event: str = "device lost", level: str = "warning", **facts: Any) -> dict[str, Any]:
    return {
        "type": "log", "number": number, "origin": "controller", "time_us": STARTED_US, "level": level,
        "event": event, "facts": facts,
    }  # fmt: skip


def drawn(view: SiteView, width: int, height: int, *, limited: bool = True) -> list[str]:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=True, width=width, height=height, color_system=None, _environ={}
    )
    console.print(SitePanels(view, limited=limited, keys="q leaves"))
    return [one.rstrip() for one in stream.getvalue().splitlines()]


def test_an_operator_sees_who_is_lost_who_is_drained_and_what_may_help(story: Any) -> None:
    record = SiteRecord(now_s=story.time)
    status = answer(story)
    lost, drained = status["devices"][:2]
    lost["trust"], drained["trust"], drained["drained"] = "lost", "trusted", True
    trouble = line(1, "no place is left", "error", aiw="gesture-1", reason="no placement", hint="+662 B RAM")
    record.take(status, [trouble, line(2, "messages lost", "warning", detail="loss.tail")])
    view = record.view()
    states = {aim.device: aim.state for one in view.workflows for aim in one.aims}
    assert states[lost["device"]] == "lost"
    assert "lost" not in {state for device, state in states.items() if device != lost["device"]}
    screen = drawn(view, 130, 40)
    assert any(
        row.startswith(drained["device"]) and row.endswith("drained: no AIM is put there") for row in screen
    )
    at = next(n for n, row in enumerate(screen) if row.endswith("no place is left: gesture-1; no placement"))
    assert screen[at + 1].strip() == "may help: +662 B RAM"
    assert screen[at + 2].endswith(
        "messages lost: ends that did not come: the sender said that it had sent more"
    )


def test_what_comes_again_and_again_takes_one_line(story: Any) -> None:
    record = SiteRecord(now_s=story.time)
    knocks = [line(n, "hello ignored", device="mcu-2", reason="mcu-2 is revoked") for n in range(1, 100)]
    record.take(answer(story), [*knocks[:50], line(50, device="gw-1"), *knocks[50:]])
    lost, knocked = record.view().events
    assert (lost.words, lost.times) == ("gw-1", 1)
    assert (knocked.event, knocked.times) == ("hello ignored", 99)
    assert any(
        row.endswith("hello ignored: mcu-2; mcu-2 is revoked  99x") for row in drawn(record.view(), 130, 40)
    )
    moved = line(101, "workflow re-mapped", "info", aiw="gesture-1", started_ms=3.0)
    record.take(answer(story), [moved, moved])
    assert len(record.view().events) == 4


def test_every_figure_finds_its_place(story: Any) -> None:
    record = SiteRecord(now_s=story.time)
    moved = line(
        1, "workflow re-mapped", "info", aiw="gesture-1", moves="features: mcu-1 -> gw-1", planned_ms=20.5,
        started_ms=331.0, reason="mcu-1 is lost",
    )  # fmt: skip
    record.take(answer(story), [moved, line(2, "workflow planned", "info", aiw="x", devices="gw-1")])
    view = record.view()
    devices = {one.device: one for one in view.devices}
    assert (devices["mcu-1"].planned_cpu, devices["mcu-1"].planned_ram_bytes) == (0.25, 60)
    assert (devices["mcu-1"].ram_bytes, devices["mcu-1"].ram_limit_bytes) == (50, 100)
    assert (devices["mcu-1"].aims, devices["not-of-this-run"].aims) == (1, 0)
    (workflow,) = view.workflows
    features, classifier = workflow.aims
    assert (features.sealed, features.lost, features.rejected) == (7, 0, 0)
    assert (classifier.sealed, classifier.lost, classifier.rejected) == (0, 3, 2)
    assert (classifier.waiting, classifier.state) == (4, "running")
    assert classifier.p50_us == pytest.approx(900, rel=0.02)
    assert view.events[0].stages_ms == {"planned": 20.5, "started": 331.0}
    text = "\n".join(drawn(view, 130, 40))
    assert "25.0%/80%" in text
    assert "3.0 kbit/s" in text
    assert "workflow re-mapped in 331 ms: gesture-1; features: mcu-1 → gw-1; mcu-1 is lost" in text
    assert "after ms: planned 20, started 331" in text
    assert json.loads(json.dumps(site_json(view), allow_nan=False))["schema"] == 1


def test_what_was_measured_of_devices_stands_beside_them(story: Any) -> None:
    record = SiteRecord(now_s=story.time)
    status = answer(story)
    (first, *_) = status["devices"]
    first |= {
        "trust": "trusted",
        "sensed": {
            "link": {"rtt_p95_ms": 88.2, "slow": True},
            "battery": {"level": 0.09, "state": "reserve"},
        },
    }
    slowly = line(1, "device answers slowly", device=first["device"], rtt_p95_ms=88.2)
    record.take(status, [slowly])
    view = record.view()
    one = next(d for d in view.devices if d.device == first["device"])
    assert (one.rtt_p95_ms, one.slow, one.battery, one.battery_state) == (88.2, True, 0.09, "reserve")
    assert view.events[0].stages_ms == {}
    shown = next(row for row in drawn(view, 160, 40) if row.lstrip().startswith(first["device"]))
    assert "88" in shown
    assert "answers slowly  battery 9%" in shown


def test_rates_are_those_of_the_last_seconds(story: Any) -> None:
    record = SiteRecord(now_s=story.time)
    record.take(answer(story), [])
    later = answer(story)
    later["workflows"][0]["metrics"]["mcu-1"]["aims"]["features"]["invocations"] += 30
    story.time.now_s += 2.0
    record.take(later, [])
    features = record.view().workflows[0].aims[0]
    assert features.rate_hz == pytest.approx(15.0)


def test_a_counter_that_begins_anew_is_no_negative_rate() -> None:
    rates = Rates()
    for now_s, value in ((0.0, 100.0), (1.0, 200.0), (2.0, 10.0), (3.0, 25.0)):
        rates.note(now_s, {"one": value})
        assert rates.per_s("one", now_s) >= 0
    assert rates.per_s("one", 3.0) == pytest.approx(15.0)
    rates.note(4.0, {})
    assert rates.per_s("one", 4.0) == 0.0


def test_another_controller_is_noticed_and_its_lines_are_read_from_the_first(story: Any) -> None:
    record = SiteRecord(now_s=story.time)
    record.take(answer(story), [line(41)])
    assert record.last_line == 41
    record.silent()
    story.time.now_s += 75.0
    silent = record.view()
    assert silent.silent_s == pytest.approx(75.0)
    assert "the Controller does not answer for 01:15; asking again" in drawn(silent, 100, 30)[0]
    again = answer(story, started_us=STARTED_US + 80_000_000, seconds=1.0)
    assert record.forgets_lines(again)
    record.take(again, [line(1, "workflow taken over", "info", aiw="gesture-1", devices="gw-1")])
    view = record.view()
    assert (view.silent_s, view.restarts, record.last_line) == (None, 1, 1)
    assert [one.event for one in view.events[-2:]] == ["Controller was started anew", "workflow taken over"]
    assert "it was started anew 1x" in drawn(view, 130, 30)[0]
    assert not record.forgets_lines(again)


def test_what_is_usual_is_no_event_and_old_events_go(story: Any) -> None:
    record = SiteRecord(now_s=story.time)
    usual = [line(n, "appraisal step", "info", step="x") for n in range(1, 20)]
    record.take(answer(story), usual)
    assert record.view().events == ()
    assert record.last_line == 19
    record.take(answer(story), [line(20 + n, device=f"d{n}") for n in range(3 * EVENTS_KEPT)])
    assert len(record.view().events) == EVENTS_KEPT


def test_what_devices_say_cannot_style_the_screen(story: Any) -> None:
    record = SiteRecord(now_s=story.time)
    status = answer(story)
    status["devices"][1]["reason"] = "[bold red]\x1b[2Jgone[/]" + "x" * 10_000
    record.take(status, [line(1, "\x1b]0;title\x07", reason="[link=evil]click[/link]\n")])
    text = "\n".join(drawn(record.view(), 200, 40))
    assert "\x1b" not in text
    assert "[bold red]·[2Jgone[/]" in text
    assert "[link=evil]click[/link]·" in text


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_fits_every_terminal(story: Any, width: int, height: int) -> None:
    record = SiteRecord(now_s=story.time)
    status = answer(story)
    status["devices"] = [{"device": f"device-{n}", "trust": "trusted"} for n in range(300)]
    (workflow,) = status["workflows"]
    workflow["links"] = [{**workflow["links"][0], "link": f"link-{n}"} for n in range(300)]
    workflow["placement"]["assignments"] = [
        {"aim": f"{'AIM' * 90}-{n}", "device": f"device-{n}", "implementation": "python"} for n in range(300)
    ]
    record.take(status, [line(n, "x" * 300) for n in range(300)])
    for view in (SiteRecord(now_s=story.time).view(), record.view()):
        lines = drawn(view, width, height)
        assert all(cell_len(one) <= width for one in lines)
        if height >= 10:
            assert len(lines) <= height
    unlimited = drawn(record.view(), 200, 10, limited=False)
    assert sum("device-" in one for one in unlimited) >= 600


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_answer_is_taken(data: st.DataObject) -> None:
    names = st.sampled_from(["controller", "devices", "workflows"])
    status = data.draw(st.dictionaries(names, ANYTHING) | ANYTHING)
    workflow = data.draw(
        st.dictionaries(
            st.sampled_from(["placement", "metrics", "links", "devices", "state", "note"]), ANYTHING
        )
    )
    record = SiteRecord(now_s=lambda: 5.0)
    record.forgets_lines(status)
    record.take(status, data.draw(st.lists(ANYTHING, max_size=3)))
    record.take({"workflows": [{**workflow, "aiw": "a-1"}], "devices": [{"device": "d"}]}, [])
    view = record.view()
    json.dumps(site_json(view), allow_nan=False)
    drawn(view, 80, 24)
