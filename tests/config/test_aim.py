# ruff: noqa: E501
# Each row of the tables is one mistake and the exact words said about it; they read best in one line.

from collections.abc import Callable
from pathlib import Path

import pytest

from aif.config import load_aim
from aif.model.aim import Join, ModelRef, Runtime, SecurityNeed, StorageNeed, Trigger
from aif.model.ports import Overflow
from aif.model.records import Annotation

Said = Callable[[Callable[[], object]], list[str]]

BASE = """\
schema: 1
aim: {name: Clf, version: "1.0", implementer: demo}
types:
  F_t: {type: "int8[4]", scale: 0.5, zero_point: -1}
parameters:
  gain: {type: number, default: 1}
inputs:
  x: {type: F_t}
outputs:
  y: {type: "uint8[]", payload_bytes: 10}
trigger: [x]
implementations:
  - {id: py, runtime: python, entry: "a.b:C", ram_bytes: 1KiB, instructions: 10}
"""


@pytest.fixture
def refused(tmp_path: Path, said: Said) -> Callable[[str, str], list[str]]:
    """What is said about BASE with one text replaced by another."""

    def run(old: str, new: str) -> list[str]:
        assert old in BASE
        (tmp_path / "aim.yaml").write_text(BASE.replace(old, new))
        return said(lambda: load_aim(tmp_path))

    return run


def test_the_example_of_the_format_is_read_completely(examples: Path) -> None:
    aim = load_aim(examples / "aims/gesture_classifier/aim.yaml")
    assert aim.reference == "GestureClassifier@1.0"
    features = aim.input("features")
    assert features.type.annotation == Annotation(0.0471, -12)
    assert (features.payload_bytes, features.queue_depth, features.max_age_ms) == (36, 4, 1500)
    assert features.overflow is Overflow.DROP_OLDEST
    assert aim.output("event").payload_bytes == 48
    assert (aim.deadline_ms, aim.restart_limit) == (200, 3)
    mcu, gateway = aim.implementations
    assert (mcu.runtime, gateway.runtime) == (Runtime.TFLM, Runtime.TFLITE)
    assert (mcu.ram_bytes, mcu.arena_bytes, mcu.flash_bytes) == (9216, 4096, 28672)
    assert mcu.model == ModelRef("gesture", "gesture.tflite", "5f0c6d0e7f4b1a9c3d2e8b7a6950413f2e1d0c9b8a7968574635241302f1e0dc", 4352)  # fmt: skip
    assert [(m.on, m.latency_us, m.energy_uj) for m in mcu.measured] == [
        ("B-L475E-IOT01A", 5200, 180),
        ("mps2-an386", 12400, None),
    ]
    assert mcu.requires.storage == StorageNeed(8192, "internal_flash")
    assert mcu.security is SecurityNeed.ATTESTED
    assert aim.documentation == (("Manual", "https://example.org/gesture"),)


def test_units_become_plain_numbers_and_defaults_apply(tmp_path: Path) -> None:
    (tmp_path / "aim.yaml").write_text(BASE)
    aim = load_aim(tmp_path)
    assert aim.implementations[0].ram_bytes == 1024
    assert aim.input("x").payload_bytes == 4, "a fixed size is computed"
    assert (aim.input("x").queue_depth, aim.input("x").overflow) == (8, Overflow.BLOCK)
    assert aim.trigger == Trigger(("x",))


@pytest.mark.parametrize(
    ("text", "trigger"),
    [
        ("trigger: {any: [x]}", Trigger(("x",), any_of=True)),
        ("trigger: {all: [x], join: timestamp}", Trigger(("x",), join=Join.TIMESTAMP)),
        ("trigger: {join: latest}", Trigger(join=Join.LATEST)),
    ],
)
def test_triggers(tmp_path: Path, text: str, trigger: Trigger) -> None:
    (tmp_path / "aim.yaml").write_text(BASE.replace("trigger: [x]", text))
    assert load_aim(tmp_path / "aim.yaml").trigger == trigger


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("{component: kws}", ModelRef("kws")),
        ("{file: m/kws.tflite, sha256: " + "a" * 64 + ", bytes: 4KiB}", ModelRef("kws", "m/kws.tflite", "a" * 64, 4096)),
        ("{component: k, file: m.tflite, sha256: " + "a" * 64 + ", bytes: 1}", ModelRef("k", "m.tflite", "a" * 64, 1)),
    ],
)  # fmt: skip
def test_a_model_is_a_component_or_one_exact_file(tmp_path: Path, text: str, model: ModelRef) -> None:
    changed = BASE.replace('runtime: python, entry: "a.b:C"', f"runtime: tflite, model: {text}")
    (tmp_path / "aim.yaml").write_text(changed)
    assert load_aim(tmp_path).implementations[0].model == model


def test_trusted_services_are_declared(tmp_path: Path) -> None:
    changed = BASE.replace(
        "instructions: 10", "instructions: 10, requires: {services: [storage, crypto, storage]}"
    )
    (tmp_path / "aim.yaml").write_text(changed)
    assert load_aim(tmp_path).implementations[0].requires.services == ("storage", "crypto")


PORT = 'y: {type: "uint8[]", payload_bytes: 10}'
RUN = 'runtime: python, entry: "a.b:C", ram_bytes: 1KiB, instructions: 10}'


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # keys
        ("trigger: [x]", "triger: [x]", "11 [triger] AIF-E0102 unknown key 'triger' (did you mean 'trigger'?)"),
        ("ram_bytes", "ram", "13 [ram] AIF-E0102 unknown key 'ram' (did you mean 'ram_bytes'?)"),
        ("schema: 1\n", "", "1 [aim] AIF-E0103 missing key 'schema' (schema: version of the file format: 1)"),
        ("schema: 1", "schema: 2", "1 [2] AIF-E0104 schema must be 1"),
        (", implementer: demo", "", "2 [aim] AIF-E0103 missing key 'implementer' of aim (implementer: who answers for it)"),
        ("aim: {", "aiw: {", "2 [aiw] AIF-E0109 this is a file with the top key aiw:, not an AIM file (an AIM file starts with schema: 1 and aim:)"),
        # values
        ('version: "1.0"', "version: 1.10", '2 [1.10] AIF-E0104 version must be text (write it in quotes: "1.10")'),
        ("name: Clf", "name: 9 lives", "2 [9 lives] AIF-E0104 name must be a name: a letter, then letters, digits, _ or -"),
        ("instructions: 10", "instructions: many", "13 [many] AIF-E0104 instructions must be a whole number"),
        ("instructions: 10", "instructions: 0", "13 [0] AIF-E0104 instructions must be greater than 0"),
        ("type: F_t}", "type: F_t, queue_depth: 70000}", "8 [70000] AIF-E0104 queue_depth must be at most 65,535"),
        ("type: F_t}", "type: F_t, overflow: drop_old}", "8 [drop_old] AIF-E0104 overflow must be block, drop_oldest or drop_newest (did you mean 'drop_oldest'?)"),
        ("type: F_t}", "type: F_t, optional: on}", "8 [on] AIF-E0104 optional must be true or false"),
        ("trigger: [x]", "deadline_ms:", "11 [deadline_ms] AIF-E0104 deadline_ms has no value"),
        ("trigger: [x]", "deadline_ms: .nan", "11 [.nan] AIF-E0104 deadline_ms must be a finite number"),
        ("trigger: [x]", "deadline_ms: 64KiB", "11 [64KiB] AIF-E0105 deadline_ms must be a time, but '64KiB' is an amount of data (units: us, µs, ms, s, min, h)"),
        ("ram_bytes: 1KiB", "ram_bytes: 0.3B", "13 [0.3B] AIF-E0104 ram_bytes must be a whole number"),
        ("  x: {type: F_t}", "  2x: {type: F_t}", "8 [2x] AIF-E0104 2x must be a name: a letter or _, then letters, digits or _"),
        ('entry: "a.b:C"', "entry: a.b.C", "13 [a.b.C] AIF-E0104 entry must be module:Class, such as aims.event_sink:EventSink"),
        ('entry: "a.b:C"', 'entry: "a.b:C", source: ../../etc', "13 [../../etc] AIF-E0104 source must be a relative path without .."),
        ('entry: "a.b:C"', 'entry: "a.b:C", source: /etc', "13 [/etc] AIF-E0104 source must be a relative path without .."),
        ("instructions: 10", "instructions: 10, requires: {services: [storge]}", "13 [storge] AIF-E0104 services[0] must be storage or crypto (did you mean 'storage'?)"),
        # types
        ('"int8[4]"', '"int8[4"', "4 [\"] AIF-E0201 expected ']', found the end at character 7 of 'int8[4'"),
        ('"int8[4]"', '"int9[4]"', "4 [i] AIF-E0201 ..."),
        ("zero_point: -1", "zero_point: 200", "4 [F_t] AIF-E0200 the zero point of int8 is -128..127, not 200"),
        ("type: F_t}", "type: G_t}", "8 [G] AIF-E0201 unknown type 'G_t'; did you mean 'F_t'? at character 1 of 'G_t'"),
        # payload
        (", payload_bytes: 10", "", "10 [y] AIF-E0103 missing key 'payload_bytes' of y (payload_bytes: largest encoded record (bytes))"),
        ("payload_bytes: 10", "payload_bytes: 3", "10 [3] AIF-E0110 payload_bytes of y is 3, but a record of uint8[] takes 4 B or more"),
        ("type: F_t}", "type: F_t, payload_bytes: 3}", "8 [3] AIF-E0110 payload_bytes of x is 3, but a record of int8[4] takes 4 B"),
        ("payload_bytes: 10", "payload_bytes: 16MiB", "10 [16MiB] AIF-E0104 payload_bytes must be at most 16,777,215"),
        # references and contradictions
        ("trigger: [x]", "trigger: [z]", "11 [z] AIF-E0107 trigger names 'z', which is not an input (known: x)"),
        ("trigger: [x]", "trigger: {all: [x], any: [x]}", "11 [trigger] AIF-E0104 trigger has all and any, of which only one is possible"),
        ("default: 1}", "default: 2, maximum: 1}", "6 [2] AIF-E0104 default of parameter gain must be at most 1"),
        ("default: 1}", "default: fast}", "6 [fast] AIF-E0104 default of parameter gain must be a number"),
        ("default: 1}", "minimum: 2, maximum: 1}", "6 [2] AIF-E0110 minimum of gain is above its maximum"),
        ("instructions: 10}", "instructions: 10, arena_bytes: 2KiB}", "13 [py] AIF-E0104 py in implementations has an arena of 2,048 B in 1,024 B of RAM (ram_bytes includes the arena)"),
        (", instructions: 10}", "}", "13 [py] AIF-E0104 py in implementations has no cost figure (give at least one of instructions, mac_count, measured)"),
        ('entry: "a.b:C", ', "", "13 [py] AIF-E0104 py in implementations runs on python but names no entry (add entry: module:Class)"),
        ("runtime: python", "runtime: tflite", "13 [py] AIF-E0104 py in implementations runs on tflite but names no model (add model: {component: NAME})"),
        ("runtime: python", "runtime: firmware", "13 [py] AIF-E0104 py in implementations lacks flash_bytes, which every MCU must account for (add flash_bytes)"),
        ("instructions: 10}", "instructions: 10, state_bytes: 5}", "13 [py] AIF-E0104 py in implementations is stateless but has state_bytes (set state: checkpointable)"),
        ("instructions: 10}", "measured: [{on: q, latency_us: 1, energy_uj: 1, method: emulator}]}", "13 [{] AIF-E0104 measured[0] gives energy_uj, but an emulator cannot measure energy (remove energy_uj, or measure on the board)"),
        ("ram_bytes", "model: {file: m.tflite}, ram_bytes", "13 [model] AIF-E0104 model has file but lacks sha256 and bytes (pin one exact file with file, sha256 and bytes, or give component alone)"),
        ("implementations:\n  - {id: py, " + RUN, "", "2 [aim] AIF-E0103 Clf@1.0 has neither implementations nor aims (implementations: ways to run it; aims: what a composite AIM is made of)"),
        (PORT, 'y: {type: "uint8[]", payload_bytes: 10, from: a.b}', "10 [a.b] AIF-E0110 output y comes from a.b, but this AIM holds no aims"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_finding(
    refused: Callable[[str, str], list[str]], old: str, new: str, expected: str
) -> None:
    found = refused(old, new)
    if expected.endswith("..."):
        assert found[0].startswith(expected.removesuffix("..."))
    elif old == "ram_bytes" and new == "ram":  # the key is unknown, and the one it should be is missing
        assert found == ["13 [py] AIF-E0103 missing key 'ram_bytes' of py in implementations (ram_bytes: peak RAM of one instance, without port queues (bytes))", expected]  # fmt: skip
    else:
        assert found == [expected]


def test_a_source_must_say_its_rate(tmp_path: Path, said: Said) -> None:
    text = BASE.replace("inputs:\n  x: {type: F_t}\n", "").replace("trigger: [x]\n", "")
    (tmp_path / "aim.yaml").write_text(text)
    assert said(lambda: load_aim(tmp_path)) == [
        "8 [y] AIF-E0210 output y of a source AIM declares no rate (give it rate_hz, or the AIM period_ms)"
    ]
    (tmp_path / "aim.yaml").write_text(text + "period_ms: 20\n")
    assert load_aim(tmp_path).period_ms == 20


def test_all_mistakes_of_a_file_are_found_at_once(tmp_path: Path, said: Said) -> None:
    text = (
        BASE.replace('version: "1.0"', "version: 1")
        .replace("zero_point", "zero_pint")
        .replace("type: F_t}", "type: F_t, queue_depth: 0, overflow: drop}")
        .replace("trigger: [x]", "trigger: [y]\nperiod_ms: 1Hz")
        .replace("default: 1", "default: yes")
    )
    (tmp_path / "aim.yaml").write_text(text)
    assert [line.split()[1] for line in said(lambda: load_aim(tmp_path))] == [
        "[1]", "[zero_pint]", "[yes]", "[0]", "[drop]", "[y]", "[1Hz]",
    ]  # fmt: skip


def test_two_implementations_with_one_id_show_both_places(tmp_path: Path, said: Said) -> None:
    row = BASE.splitlines()[-1]
    (tmp_path / "aim.yaml").write_text(BASE + row + "\n")
    assert said(lambda: load_aim(tmp_path)) == ["14 [py] AIF-E0106 two implementations have the id 'py'"]


def test_a_file_of_another_kind_is_named(examples: Path, said: Said) -> None:
    assert said(lambda: load_aim(examples / "gesture/gesture.aiw.yaml")) == [
        "2 [aiw] AIF-E0109 this is a file with the top key aiw:, not an AIM file (an AIM file starts with schema: 1 and aim:)"
    ]
