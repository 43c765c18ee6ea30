# ruff: noqa: E501
# Each row of the tables is one mistake and the exact words said about it; they read best in one line.

from collections.abc import Callable
from pathlib import Path

import pytest

from aif.config import Catalogue, load_catalogue, load_workflow
from aif.errors import ConfigError
from aif.model.aim import PlacementHint, Profile
from aif.model.aiw import Availability, Binding, Objectives, PathLimit
from aif.model.ports import AuthMode, BundleSettings, LocalPolicy, PortRef

Said = Callable[[Callable[[], object]], list[str]]

BASE = """\
schema: 1
aiw: {name: Gestures, version: "1.0", implementer: demo}
aims:
  - {id: imu, use: IMUSource@1.0}
  - {id: extract, use: MotionFeatures@1.0, inputs: {samples: imu.samples}}
  - {id: classify, use: GestureClassifier@1.0, inputs: {features: extract.features}}
  - {id: sink, use: EventSink@1.0, inputs: {event: classify.event}}
outputs: {events: classify.event}
"""


@pytest.fixture
def refused(tmp_path: Path, said: Said, catalogue: Catalogue) -> Callable[[str], list[str]]:
    def run(text: str) -> list[str]:
        (tmp_path / "w.aiw.yaml").write_text(text)
        return said(lambda: load_workflow(tmp_path, catalogue))

    return run


def test_the_gesture_example_is_read_completely(examples: Path, catalogue: Catalogue) -> None:
    loaded = load_workflow(examples / "gesture", catalogue)
    aiw = loaded.metadata
    assert (aiw.reference, aiw.profile, aiw.trusted_scope) == (
        "GestureRecognition@1.0",
        Profile.SECURE,
        "aim",
    )
    assert [str(channel) for channel in loaded.workflow.channels] == [
        "imu.samples -> extract.samples",
        "extract.features -> classifier.features",
        "classifier.event -> sink.event",
        "classifier.event -> aiw.events",
    ]
    assert loaded.workflow.aim("imu").placement == PlacementHint(zone="wrist")
    assert loaded.workflow.aim("extract").placement == PlacementHint(colocate_with=("imu",))
    assert aiw.paths == (
        PathLimit("gesture", PortRef("imu", "samples"), PortRef("sink", "event"), 400, 0.99),
    )
    assert aiw.objectives == Objectives(latency=1, energy=2, traffic=0.5, migration=0.2)
    assert aiw.availability == Availability(0.995, 5000, ("classifier",), "continue")
    assert aiw.outputs[0].port.payload_bytes == 48, "an output is typed by its source"
    assert loaded.warnings == ()


def test_the_speech_translation_example_is_read_completely(examples: Path, catalogue: Catalogue) -> None:
    loaded = load_workflow(examples / "mmc_ust/mmc_ust.aiw.yaml", catalogue)
    assert [(b.port.name, b.port.payload_bytes, b.bind) for b in loaded.metadata.inputs] == [
        ("InputSpeech", 160004, Binding("sensor", "microphone")),
        ("InputText", 1024, None),
        ("InputSelector", 2, None),
        ("RequestedLanguage", 16, None),
    ]
    assert [(b.port.name, b.bind) for b in loaded.metadata.outputs] == [
        ("TranslatedText", None),
        ("TranslatedSpeech", Binding("actuator", "speaker")),
    ]
    assert len(loaded.workflow.channels) == 10


def test_composites_are_expanded(tmp_path: Path, catalogue: Catalogue) -> None:
    text = BASE.replace("  - {id: extract, use: MotionFeatures@1.0, inputs: {samples: imu.samples}}\n", "").replace(
        "GestureClassifier@1.0, inputs: {features: extract.features}", "MotionClassifier@1.0, inputs: {samples: imu.samples}"
    )  # fmt: skip
    (tmp_path / "w.aiw.yaml").write_text(text)
    workflow = load_workflow(tmp_path, catalogue).workflow
    assert [leaf.id for leaf in workflow.aims] == ["imu", "classify.extract", "classify.classify", "sink"]
    assert {str(channel) for channel in workflow.channels} == {
        "imu.samples -> classify.extract.samples",
        "classify.extract.features -> classify.classify.features",
        "classify.classify.event -> sink.event",
        "classify.classify.event -> aiw.events",
    }


def test_topology_says_the_same_as_inputs(tmp_path: Path, catalogue: Catalogue) -> None:
    with_topology = """\
schema: 1
aiw: {name: Gestures, version: "1.0", implementer: demo}
aims:
  - {id: imu, use: IMUSource@1.0}
  - {id: extract, use: MotionFeatures@1.0}
  - {id: classify, use: GestureClassifier@1.0}
  - {id: sink, use: EventSink@1.0, inputs: {event: classify.event}}
topology:
  - {output: classify.event, input: aiw.events}
  - {output: extract.features, input: classify.features}
  - {output: imu.samples, input: extract.samples}
"""
    (tmp_path / "a.aiw.yaml").write_text(BASE)
    (tmp_path / "b.aiw.yaml").write_text(with_topology)
    first, second = (load_workflow(tmp_path / f"{name}.aiw.yaml", catalogue) for name in "ab")
    assert first.workflow == second.workflow


def test_channel_settings(tmp_path: Path, catalogue: Catalogue) -> None:
    row = "{output: imu.samples, input: extract.samples, auth: signed, qos: 1, bundle: {max_messages: 8, max_delay_ms: 0.01s}}"
    (tmp_path / "w.aiw.yaml").write_text(BASE + f"channels:\n  - {row}\n")
    channel = load_workflow(tmp_path, catalogue).workflow.channels[0]
    assert (channel.auth, channel.qos) == (AuthMode.SIGNED, 1)
    assert channel.bundle == BundleSettings(8, 10.0, 32_768)


def test_channels_within_a_host_are_plain_unless_their_settings_say_sealed(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    row = "{output: imu.samples, input: extract.samples, local: sealed}"
    (tmp_path / "w.aiw.yaml").write_text(BASE + f"channels:\n  - {row}\n")
    first, *rest = load_workflow(tmp_path, catalogue).workflow.channels
    assert first.local is LocalPolicy.SEALED
    assert {channel.local for channel in rest} == {LocalPolicy.PLAIN}
    (tmp_path / "w.aiw.yaml").write_text(BASE + f"channels:\n  - {row.replace('sealed', 'secret')}\n")
    with pytest.raises(ConfigError, match="local"):
        load_workflow(tmp_path, catalogue)


def test_two_writers_are_a_warning(tmp_path: Path, catalogue: Catalogue) -> None:
    text = BASE.replace("  - {id: sink", "  - {id: imu_b, use: IMUSource@1.0}\n  - {id: sink")
    (tmp_path / "w.aiw.yaml").write_text(text.replace("imu.samples", "[imu.samples, imu_b.samples]"))
    (warning,) = load_workflow(tmp_path, catalogue).warnings
    assert (warning.severity, warning.code) == ("warning", "AIF-W0201")
    assert warning.location is not None
    assert warning.location.line == 5


def test_record_types_are_shown_from_both_sides(tmp_path: Path, catalogue: Catalogue) -> None:
    (tmp_path / "w.aiw.yaml").write_text(BASE.replace("features: extract.features", "features: imu.samples"))
    with pytest.raises(ConfigError) as wrong:
        load_workflow(tmp_path, catalogue)
    shown = (tmp_path / "w.aiw.yaml").as_posix()
    assert wrong.value.diagnostics() == (
        "error[AIF-E0203]: record types differ on channel imu.samples -> classify.features\n"
        f"  --> {shown}:6:67\n"
        "6 |   - {id: classify, use: GestureClassifier@1.0, inputs: {features: imu.samples}}\n"
        "  |                                                                   ^^^^^^^^^^^"
        " produces {uint64 t_us; int16[6] sample} at 50 Hz\n"
        "   = classify.features (GestureClassifier@1.0) takes int8[36] scale=0.0471 zero_point=-12\n"
        "   = record types differ: the source gives {uint64 t_us; int16[6] sample}, the destination takes int8[36]\n"
        "   = help: put an AIM that converts between them"
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("imu.samples", "imu.sample", ["5 [imu.sample] AIF-E0204 imu (IMUSource@1.0) has no output port 'sample' (did you mean 'samples'?)"]),
        ("imu.samples", "imo.samples", ["5 [imo.samples] AIF-E0202 this workflow has no AIM 'imo' (did you mean 'imu'?)"]),
        ("imu.samples", "imu", ["5 [imu] AIF-E0104 samples must be aim.port, such as classifier.event"]),
        ("{samples: imu.samples}", "{sample: imu.samples}", ["5 [extract] AIF-E0205 required input extract.samples is not connected (add to extract: inputs: {samples: <aim>.<port>})", "5 [sample] AIF-E0204 extract (MotionFeatures@1.0) has no input port 'sample' (did you mean 'samples'?)"]),
        ("inputs: {samples: imu.samples}", "input: {samples: imu.samples}", ["5 [input] AIF-E0102 unknown key 'input' (did you mean 'inputs'?)"]),
        ("IMUSource@1.0", "IMUSorce@1.0", ["4 [IMUSorce@1.0] AIF-E0202 no AIM library offers IMUSorce@1.0 (did you mean 'IMUSource@1.0'?)"]),
        ("IMUSource@1.0", "IMUSource", ["4 [IMUSource] AIF-E0104 use must be Name@version, such as EventSink@1.0"]),
        ("id: sink", "id: imu", ["7 [imu] AIF-E0106 two AIMs have the id 'imu'"]),
        ("id: imu,", "id: aiw,", ["4 [aiw] AIF-E0104 'aiw' stands for the workflow's boundary and cannot be the id of an AIM"]),
        ("id: imu,", "id: IMU,", ["4 [IMU] AIF-E0104 id must be an id: a lower-case letter, then lower-case letters, digits or _"]),
        ("IMUSource@1.0}", "IMUSource@1.0, parameters: {rate_hz: 5000}}", ["4 [5000] AIF-E0209 parameter rate_hz of imu must be at most 1660"]),
        ("IMUSource@1.0}", "IMUSource@1.0, parameters: {rate: 5}}", ["4 [5] AIF-E0209 IMUSource@1.0 has no parameter 'rate' (did you mean 'rate_hz'?)"]),
        ("IMUSource@1.0}", "IMUSource@1.0, parameters: {rate_hz: {a: 1}}}", ["4 [rate_hz] AIF-E0104 parameter rate_hz must be a value or a list of numbers"]),
        ("IMUSource@1.0}", "IMUSource@1.0, implementation: gw}", ["4 [gw] AIF-E0202 IMUSource@1.0 has no implementation 'gw' (known: mcu)"]),
        ("IMUSource@1.0}", "IMUSource@1.0, placement: {colocate_with: [extrac]}}", ["4 [placement] AIF-E0202 placement of imu names 'extrac', which is not another AIM of this workflow (did you mean 'extract'?)"]),
        ("IMUSource@1.0}", "IMUSource@1.0, placement: {class: mcuu}}", ["4 [mcuu] AIF-E0104 class must be mcu, gateway, edge or cloud (did you mean 'mcu'?)"]),
        ("outputs: {events: classify.event}", "outputs: {events: {bind: {actuator: led}}}", ["8 [events] AIF-E0205 workflow output events has no source"]),
        ("outputs: {events: classify.event}", "outputs: {events: classify.evnt}", ["8 [classify.evnt] AIF-E0204 classify (GestureClassifier@1.0) has no output port 'evnt' (did you mean 'event'?)"]),
        ("outputs: {events: classify.event}", "topology: [{output: classify.event, input: sink.event}]", ["8 [classify.event] AIF-E0106 channel classify.event -> sink.event is given twice"]),
        ("outputs: {events: classify.event}", "channels: [{output: imu.samples, input: extract.sample}]", ["8 [imu.samples] AIF-E0107 there is no channel imu.samples -> extract.sample to set (did you mean 'imu.samples -> extract.samples'?)"]),
        ("outputs: {events: classify.event}", "paths: [{id: p, from: imu.samples, to: sink.evnt, deadline_ms: 1}]", ["8 [sink.evnt] AIF-E0204 path p names unknown port sink.evnt"]),
        ("outputs: {events: classify.event}", "paths: [{id: p, from: classify.event, to: extract.samples, deadline_ms: 1}]", ["8 [p] AIF-E0205 path p: nothing flows from classify.event to extract.samples"]),
        ("outputs: {events: classify.event}", "paths: [{id: p, from: imu.samples, to: sink.event, deadline_ms: 5MHz}]", ["8 [5MHz] AIF-E0105 deadline_ms must be a time, but '5MHz' is a frequency (units: us, µs, ms, s, min, h)"]),
        ("outputs: {events: classify.event}", "availability: {standby: [clasify]}", ["8 [clasify] AIF-E0202 standby names unknown AIM 'clasify' (did you mean 'classify'?)"]),
        ("outputs: {events: classify.event}", "objectives: {latency: -1}", ["8 [-1] AIF-E0104 latency must be at least 0"]),
        ("outputs: {events: classify.event}", "profile: secure\ntrusted_scope: aiw", ["9 [aiw] AIF-E0200 trusted_scope: aiw allows one AIM at the top level, Gestures has 4 (wrap them in one composite AIM, or use trusted_scope: aim)"]),
        ("outputs: {events: classify.event}", "inputs: {t: {type: string}}", ["8 [t] AIF-E0103 missing key 'payload_bytes' of t (payload_bytes: largest encoded record (bytes))"]),
        ("outputs: {events: classify.event}", "inputs: {t: {type: int8, bind: {sensor: a, actuator: b}}}", ["8 [bind] AIF-E0104 bind must be {sensor: kind} or {actuator: kind}"]),
        ("aims:", "types: {A: int9}\naims:", ["3 [i] AIF-E0201 unknown type 'int9'; did you mean 'int8'? at character 1 of 'int9'"]),
    ],
)  # fmt: skip
def test_one_mistake_is_said_at_its_place_and_without_consequences(
    refused: Callable[[str], list[str]], old: str, new: str, expected: list[str]
) -> None:
    assert old in BASE
    assert refused(BASE.replace(old, new)) == expected


def test_a_cycle_needs_a_delay(
    refused: Callable[[str], list[str]], tmp_path: Path, catalogue: Catalogue
) -> None:
    aims = dict(catalogue)
    text = """\
schema: 1
aiw: {name: Loop, version: "1.0", implementer: demo}
aims:
  - {id: a, use: Step@1.0, inputs: {x: b.y}}
  - {id: b, use: Step@1.0, inputs: {x: a.y}}
"""
    step = tmp_path / "aims/step"
    step.mkdir(parents=True)
    (step / "aim.yaml").write_text("""\
schema: 1
aim: {name: Step, version: "1.0", implementer: demo}
inputs: {x: {type: int32}}
outputs: {y: {type: int32, rate_hz: 10}}
period_ms: 100
implementations: [{id: py, runtime: python, entry: "a.b:C", ram_bytes: 1, instructions: 1}]
""")
    aims.update(load_catalogue([tmp_path / "aims"]))
    (tmp_path / "w.aiw.yaml").write_text(text)
    with pytest.raises(ConfigError, match="cycle without delay: "):
        load_workflow(tmp_path, aims)
    (tmp_path / "w.aiw.yaml").write_text(text + "channels: [{output: b.y, input: a.x, delay: 1}]\n")
    assert load_workflow(tmp_path, aims).workflow.channels[0].delay_records == 1


def test_mistakes_of_every_kind_are_found_at_once(refused: Callable[[str], list[str]]) -> None:
    text = """\
schema: 1
aiw: {name: Bad, version: 1.10, implementer: demo}
types: {A: "int8[", B: {type: "int8[3]", scal: 3}}
inputs: {x: {type: C, payload_bytes: 1}}
aims:
  - {id: imu, use: IMUSource@1.0, placment: {zone: wrist}}
  - {id: both, use: MotionClasifier@1.0, inputs: {samples: imu.samples}}
  - {id: ex, use: MotionFeatures@1.0, inputs: {samples: imu.sample}, parameters: {mod: fast}}
  - {id: clf, use: GestureClassifier@1.0, inputs: {features: imu.samples}}
  - {id: sink, use: EventSink@1.0, inputs: {event: clf.event}, placement: {class: gatway}}
paths: [{id: p, from: imu.samples, to: sink.event, deadline_ms: 64KiB}]
availability: {target: 1.5, standby: [clff]}
"""
    assert [line.split()[:3] for line in refused(text)] == [
        ["2", "[1.10]", "AIF-E0104"],
        ["3", '["]', "AIF-E0201"],
        ["3", "[scal]", "AIF-E0102"],
        ["4", "[C]", "AIF-E0201"],
        ["6", "[placment]", "AIF-E0102"],
        ["7", "[MotionClasifier@1.0]", "AIF-E0202"],
        ["8", "[imu.sample]", "AIF-E0204"],
        ["8", "[fast]", "AIF-E0209"],
        ["9", "[imu.samples]", "AIF-E0203"],
        ["10", "[gatway]", "AIF-E0104"],
        ["11", "[64KiB]", "AIF-E0105"],
        ["12", "[1.5]", "AIF-E0104"],
        ["12", "[clff]", "AIF-E0202"],
    ]


def test_a_folder_must_hold_one_workflow(tmp_path: Path, said: Said, catalogue: Catalogue) -> None:
    empty = tmp_path / "w"
    empty.mkdir()
    assert said(lambda: load_workflow(empty, catalogue))[0].endswith("w holds no *.aiw.yaml file")
    (empty / "a.aiw.yaml").write_text(BASE)
    (empty / "b.aiw.yaml").write_text(BASE)
    assert said(lambda: load_workflow(empty, catalogue))[0].endswith(
        "w holds 2 workflow files (name one of a.aiw.yaml, b.aiw.yaml)"
    )
