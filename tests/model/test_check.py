"""Every finding about a workflow, word for word: they are what its author reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from aif.model.aim import AIMMetadata, Implementation, Parameter, PlacementHint, Profile, Runtime
from aif.model.aiw import AIWMetadata, Availability, PathLimit
from aif.model.check import Finding, check_workflow, nearest
from aif.model.ports import Direction, Overflow, PortRef
from tests.model.workflows import aim, catalogue, channel, composition, port, sub, workflow

IN, OUT = Direction.INPUT, Direction.OUTPUT
SOURCE = aim("Source", (), (port("out", OUT, rate_hz=50.0),))
PIPE = aim("Pipe", ("in",), ("out",))
SINK = aim("Sink", ("in",))
TUNED = aim(
    "Tuned",
    ("in",),
    parameters=(Parameter("gain", "number", minimum=0.0), Parameter("mode", "string", "fast")),
    implementations=(Implementation("gateway", Runtime.PYTHON, 1), Implementation("mcu", Runtime.TFLM, 1)),
)
LIBRARY = catalogue(SOURCE, PIPE, SINK, TUNED)
ROW = [sub("a", "Source"), sub("b", "Sink")]


def findings(aiw: AIWMetadata, library: Mapping[str, AIMMetadata] = LIBRARY) -> list[Finding]:
    return check_workflow(aiw, library)


def only(aiw: AIWMetadata, library: Mapping[str, AIMMetadata] = LIBRARY) -> Finding:
    (finding,) = findings(aiw, library)
    return finding


def path(source: str, destination: str) -> PathLimit:
    return PathLimit("p", PortRef.parse(source), PortRef.parse(destination), 100.0)


def test_a_sound_workflow_has_no_findings() -> None:
    aiw = workflow(
        [*ROW, sub("c", "Pipe")],
        ["a.out -> b.in", "a.out -> c.in", "c.out -> aiw.result"],
        outputs=("result",),
        paths=(path("a.out", "aiw.result"),),
    )
    assert findings(aiw) == []


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("clasifier", ["classifier", "sink"], "did you mean 'classifier'?"),
        ("x", ["b", "a"], "known: a, b"),
        ("x", [], "nothing of that kind is declared"),
    ],
)
def test_the_nearest_known_word_is_offered(word: str, known: list[str], said: str) -> None:
    assert nearest(word, known) == said


def test_an_unknown_aim() -> None:
    assert only(workflow([sub("a", "Sourc")])) == Finding(
        "AIF-E0202", "no AIM library offers Sourc@1.0", ("use", "a"), hint="did you mean 'Source@1.0'?"
    )


def test_a_channel_from_nowhere() -> None:
    assert only(workflow([sub("b", "Sink")], ["x.out -> b.in"])) == Finding(
        "AIF-E0202", "this workflow has no AIM 'x'", ("channel", "x.out", "b.in"), hint="known: b"
    )


def test_a_port_that_does_not_exist() -> None:
    assert findings(workflow(ROW, ["a.ou -> b.in"]))[0] == Finding(
        "AIF-E0204",
        "a (Source@1.0) has no output port 'ou'",
        ("channel", "a.ou", "b.in"),
        hint="did you mean 'out'?",
    )
    assert findings(workflow(ROW, ["a.out -> b.on"]))[0] == Finding(
        "AIF-E0204", "b (Sink@1.0) has no input port 'on'", ("channel", "a.out", "b.on", "input"),
        hint="known: in",
    )  # fmt: skip
    assert findings(workflow(ROW, ["aiw.x -> b.in"]))[0] == Finding(
        "AIF-E0204", "workflow W has no output port 'x'", ("channel", "aiw.x", "b.in"),
        hint="nothing of that kind is declared",
    )  # fmt: skip


def test_two_channels_between_the_same_ports() -> None:
    assert only(workflow(ROW, ["a.out -> b.in", "a.out -> b.in"])) == Finding(
        "AIF-E0200", "channel a.out -> b.in is declared twice", ("channel", "a.out", "b.in")
    )


def test_two_writers_on_one_input_are_worth_a_word() -> None:
    aiw = workflow([*ROW, sub("c", "Source")], ["a.out -> b.in", "c.out -> b.in"])
    assert only(aiw) == Finding(
        "AIF-W0201", "two writers on b.in: a.out and c.out", ("channel", "c.out", "b.in"),
        notes=("their records are merged in order of arrival",), severity="warning",
    )  # fmt: skip


def test_record_types_that_differ() -> None:
    floats = aim("Floats", (port("in", IN, "float32[3]", payload_bytes=12),))
    finding = only(
        workflow([sub("a", "Source"), sub("b", "Floats")], ["a.out -> b.in"]), LIBRARY | catalogue(floats)
    )
    assert (finding.code, finding.message) == ("AIF-E0203", "record types differ on channel a.out -> b.in")
    assert finding.label == "produces int32 at 50 Hz"
    assert finding.notes[0] == "b.in (Floats@1.0) takes float32[3]"
    assert finding.hint == "put an AIM that converts between them"


def test_a_writer_whose_records_may_be_too_large() -> None:
    big = aim("Big", (), (port("out", OUT, "uint8[]", payload_bytes=2048, rate_hz=1.0),))
    small = aim("Small", (port("in", IN, "uint8[]", payload_bytes=1024),))
    aiw = workflow([sub("a", "Big"), sub("b", "Small")], ["a.out -> b.in"])
    assert only(aiw, catalogue(big, small)) == Finding(
        "AIF-E0203", "records on channel a.out -> b.in may be larger than its reader takes",
        ("channel", "a.out", "b.in"), label="writes up to 2,048 B",
        notes=("b.in takes up to 1,024 B (payload_bytes)",), hint="raise payload_bytes of the input to 2048",
    )  # fmt: skip


def test_a_sensor_cannot_wait_for_a_full_queue() -> None:
    fresh = aim("Fresh", (port("in", IN, overflow=Overflow.BLOCK, max_age_ms=100.0),))
    aiw = workflow([sub("a", "Source"), sub("b", "Fresh")], ["a.out -> b.in"])
    assert only(aiw, catalogue(SOURCE, fresh)) == Finding(
        "AIF-W0202", "b.in blocks when full but is fed by a sensor, which cannot wait",
        ("channel", "a.out", "b.in"), hint="set overflow: drop_oldest or drop_newest on the input",
        severity="warning",
    )  # fmt: skip


def test_a_required_input_and_an_output_that_nothing_feeds() -> None:
    assert findings(workflow([sub("b", "Sink")], outputs=("result",))) == [
        Finding(
            "AIF-E0205", "required input b.in is not connected", ("aim", "b"),
            notes=("Sink@1.0 takes int32 there",), hint="add to b: inputs: {in: <aim>.<port>}",
        ),
        Finding("AIF-E0205", "workflow output result has no source", ("output", "result")),
    ]  # fmt: skip


def test_an_aim_that_nothing_ever_starts() -> None:
    idle = aim("Idle", (port("x", IN, optional=True), port("y", IN, optional=True)))
    assert only(workflow([sub("i", "Idle")]), catalogue(idle)) == Finding(
        "AIF-E0205", "nothing starts i: no input of x, y is connected", ("aim", "i"),
        hint="connect one of them, or give the AIM a period_ms",
    )  # fmt: skip
    paced = aim("Idle", (port("x", IN, optional=True),), period_ms=10.0)
    assert findings(workflow([sub("i", "Idle")]), catalogue(paced)) == []


def test_a_cycle_without_delay() -> None:
    aiw = workflow([sub("a", "Pipe"), sub("b", "Pipe")], ["a.out -> b.in", "b.out -> a.in"])
    finding = only(aiw)
    assert finding.code == "AIF-E0206"
    assert finding.message in ("cycle without delay: a -> b -> a", "cycle without delay: b -> a -> b")
    assert finding.anchor in (("channel", "a.out", "b.in"), ("channel", "b.out", "a.in"))
    assert finding.notes == ("every AIM on it would wait for the others forever",)
    assert (
        finding.hint == "declare a delay on one of its channels: channels: [{output: …, input: …, delay: 1}]"
    )


def test_an_aim_that_feeds_itself() -> None:
    assert only(workflow([sub("a", "Pipe")], ["a.out -> a.in"])).message == "cycle without delay: a -> a"


def test_a_delay_makes_a_cycle_legal() -> None:
    joined = aim("Join", ("in", "back"), ("out",))
    aiw = workflow(
        [sub("s", "Source"), sub("j", "Join")], ["s.out -> j.in", channel("j.out -> j.back", delay_records=1)]
    )
    assert findings(aiw, LIBRARY | catalogue(joined)) == []


TWO_WAYS = aim(
    "TwoWays", ("up", "down"), ("up_out", "down_out"),
    composition=composition(
        [sub("u", "Pipe"), sub("d", "Pipe")],
        ["aiw.up -> u.in", "u.out -> aiw.up_out", "aiw.down -> d.in", "d.out -> aiw.down_out"],
    ),
)  # fmt: skip


def test_two_ways_through_a_composite_are_no_cycle() -> None:
    aiw = workflow(
        [sub("s", "Source"), sub("c", "TwoWays"), sub("p", "Pipe"), sub("t", "Sink")],
        ["s.out -> c.up", "c.up_out -> p.in", "p.out -> c.down", "c.down_out -> t.in"],
    )
    assert findings(aiw, LIBRARY | catalogue(TWO_WAYS)) == []


def test_a_cycle_through_a_composite_is_found() -> None:
    aiw = workflow([sub("c", "TwoWays")], ["c.up_out -> c.down", "c.down_out -> c.up"])
    finding = only(aiw, LIBRARY | catalogue(TWO_WAYS))
    assert finding.code == "AIF-E0206"
    assert set(finding.message.removeprefix("cycle without delay: ").split(" -> ")) == {"c.u", "c.d"}
    assert finding.anchor[0] == "channel"


def test_rates_are_derived_through_composites() -> None:
    window = aim("Window", (port("in", IN, consumes=50.0),), ("out",))
    wrapped = aim(
        "Wrapped", ("in",), (port("out", OUT, rate_hz=1.0),),
        composition=composition([sub("w", "Window")], ["aiw.in -> w.in", "w.out -> aiw.out"]),
    )  # fmt: skip
    library = LIBRARY | catalogue(window, wrapped)
    aiw = workflow(
        [sub("s", "Source"), sub("c", "Wrapped"), sub("t", "Sink")], ["s.out -> c.in", "c.out -> t.in"]
    )
    assert findings(aiw, library) == []
    wrong = aim("Window", (port("in", IN, consumes=50.0),), (port("out", OUT, rate_hz=9.0),))
    assert only(aiw, library | catalogue(wrong)) == Finding(
        "AIF-E0210", "c.w.out declares 9 Hz but 1 Hz follow from what arrives", ("aim", "c"),
        hint="correct rate_hz, consumes or emits",
    )  # fmt: skip


@pytest.mark.parametrize("hint", [PlacementHint(colocate_with=("x",)), PlacementHint(separate_from=("a",))])
def test_affinity_to_what_is_not_there(hint: PlacementHint) -> None:
    aiw = workflow([sub("a", "Source", placement=hint), sub("b", "Sink")], ["a.out -> b.in"])
    other = (*hint.colocate_with, *hint.separate_from)[0]
    assert only(aiw).message == f"placement of a names {other!r}, which is not another AIM of this workflow"
    assert only(aiw).anchor == ("placement", "a")


def test_one_trusted_scope_for_several_aims() -> None:
    aiw = workflow(ROW, ["a.out -> b.in"], profile=Profile.SECURE, trusted_scope="aiw")
    assert only(aiw) == Finding(
        "AIF-E0200", "trusted_scope: aiw allows one AIM at the top level, W has 2", ("trusted_scope",),
        hint="wrap them in one composite AIM, or use trusted_scope: aim",
    )  # fmt: skip


def test_settings_of_an_aim() -> None:
    aiw = workflow(
        [sub("a", "Source"), sub("b", "Tuned", {"gain": -1.0, "gian": 1}, implementation="gatewy")],
        ["a.out -> b.in"],
    )
    assert findings(aiw) == [
        Finding(
            "AIF-E0202", "Tuned@1.0 has no implementation 'gatewy'", ("implementation", "b"),
            hint="did you mean 'gateway'?",
        ),
        Finding(
            "AIF-E0209", "parameter gain of b must be at least 0", ("parameter", "b", "gain"), label="-1.0",
        ),
        Finding(
            "AIF-E0209", "Tuned@1.0 has no parameter 'gian'", ("parameter", "b", "gian"),
            hint="did you mean 'gain'?",
        ),
    ]  # fmt: skip
    assert only(workflow([sub("a", "Source"), sub("b", "Tuned")], ["a.out -> b.in"])) == Finding(
        "AIF-E0209", "b lacks the parameter 'gain' of Tuned@1.0", ("aim", "b")
    )


FORK = aim("Fork", (), (port("x", OUT, rate_hz=1.0), port("y", OUT, rate_hz=1.0)))


@pytest.mark.parametrize(
    ("ends", "code", "message"),
    [
        (("f.z", "b.in"), "AIF-E0204", "path p names unknown port f.z"),
        (("f.x", "b.no"), "AIF-E0204", "path p names unknown port b.no"),
        (("f.y", "b.in"), "AIF-E0205", "path p: nothing flows from f.y to b.in"),
        (("b.in", "f.x"), "AIF-E0205", "path p: nothing flows from b.in to f.x"),
    ],
)
def test_paths_that_lead_nowhere(ends: tuple[str, str], code: str, message: str) -> None:
    aiw = workflow([sub("f", "Fork"), sub("b", "Sink")], ["f.x -> b.in"], paths=(path(*ends),))
    finding = only(aiw, LIBRARY | catalogue(FORK))
    assert (finding.code, finding.message) == (code, message)
    assert finding.anchor[:2] == ("path", "p")


def test_a_path_does_not_lead_out_of_the_workflow_and_in_again() -> None:
    aiw = workflow(
        [sub("a", "Source"), sub("b", "Sink")],
        ["a.out -> aiw.result", "aiw.given -> b.in"],
        inputs=(port("given", IN, rate_hz=1.0),), outputs=("result",), paths=(path("a.out", "b.in"),),
    )  # fmt: skip
    assert only(aiw).message == "path p: nothing flows from a.out to b.in"


def test_a_path_may_end_inside_a_composite() -> None:
    aiw = workflow(
        [sub("s", "Source"), sub("c", "TwoWays"), sub("t", "Sink")],
        ["s.out -> c.up", "s.out -> c.down", "c.up_out -> t.in"],
        paths=(path("s.out", "c.up"), PathLimit("q", PortRef("c", "up_out"), PortRef("t", "in"), 1.0)),
    )
    assert findings(aiw, LIBRARY | catalogue(TWO_WAYS)) == []
    wrong = workflow(
        [sub("s", "Source"), sub("c", "TwoWays"), sub("t", "Sink")],
        ["s.out -> c.up", "s.out -> c.down", "c.up_out -> t.in"],
        paths=(PathLimit("q", PortRef("c", "down_out"), PortRef("t", "in"), 1.0),),
    )
    assert (
        only(wrong, LIBRARY | catalogue(TWO_WAYS)).message == "path q: nothing flows from c.down_out to t.in"
    )


def test_a_standby_that_is_not_there() -> None:
    aiw = workflow(ROW, ["a.out -> b.in"], availability=Availability(standby=("x",)))
    assert only(aiw) == Finding(
        "AIF-E0202", "standby names unknown AIM 'x'", ("availability", "x"), hint="known: a, b"
    )


def test_a_standby_of_an_aim_that_only_one_device_may_run() -> None:
    row = [replace(ROW[0], placement=PlacementHint("d1", site="lab")), *ROW[1:]]
    aiw = workflow(row, ["a.out -> b.in"], availability=Availability(standby=("a", "b")))
    found = only(aiw)
    assert (found.code, found.anchor) == ("AIF-E0200", ("availability", "a"))
    assert found.message == "a is pinned to device d1: no second device may run it"


def test_rates_wait_until_everything_else_is_right() -> None:
    silent = aim("Silent", (), ("out",))
    library = LIBRARY | catalogue(silent)
    assert [f.code for f in findings(workflow([sub("a", "Silent"), sub("b", "Sink")]), library)] == [
        "AIF-E0205"
    ]
    whole = workflow([sub("a", "Silent"), sub("b", "Sink")], ["a.out -> b.in"])
    assert only(whole, library).code == "AIF-E0210"
