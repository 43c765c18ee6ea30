"""``aif plan`` as a user meets it: files in, table or JSON or Mermaid out, one clear screen when it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aif.cli import main as cli
from partitioner.report.written import from_json

WORKFLOW = """\
schema: 1
aiw: {name: GestureRecognition, version: "1.0", implementer: demo}
aims:
  - {id: imu, use: IMUSource@1.0, placement: {zone: wrist}}
  - {id: extract, use: MotionFeatures@1.0, inputs: {samples: imu.samples},
     placement: {colocate_with: [imu], strength: soft}}
  - {id: classifier, use: GestureClassifier@1.0, inputs: {features: extract.features}}
  - {id: sink, use: EventSink@1.0, inputs: {event: classifier.event}, placement: {class: gateway}}
paths: [{id: gesture, from: imu.samples, to: sink.event, deadline_ms: 400, percentile: 0.99}]
objectives: {latency: 1.0, energy: 2.0, traffic: 0.5}
"""

AIMS = {
    "imu_source": """\
schema: 1
aim: {name: IMUSource, version: "1.0", implementer: demo}
outputs: {samples: {type: "{uint64 t_us; int16[6] sample}", rate_hz: 50}}
implementations:
  - {id: mcu, runtime: firmware, source: firmware/aims/imu, ram_bytes: 2048, flash_bytes: 4096,
     instructions: 2000, requires: {sensors: [imu]}}
""",
    "motion_features": """\
schema: 1
aim: {name: MotionFeatures, version: "1.0", implementer: demo}
inputs: {samples: {type: "{uint64 t_us; int16[6] sample}", consumes: 50, queue_depth: 100}}
outputs: {features: {type: "int8[36]"}}
implementations:
  - {id: mcu, runtime: firmware, source: firmware/aims/features, ram_bytes: 6144, flash_bytes: 8192,
     instructions: 400000}
  - {id: gateway, runtime: python, entry: "demo:Features", ram_bytes: 4194304, instructions: 400000}
""",
    "gesture_classifier": """\
schema: 1
aim: {name: GestureClassifier, version: "1.0", implementer: demo}
inputs: {features: {type: "int8[36]", queue_depth: 4, overflow: drop_oldest, max_age_ms: 1500}}
outputs: {event: {type: "{uint64 t_us; string label}", payload_bytes: 48}}
deadline_ms: 200
implementations:
  - {id: mcu, runtime: tflm, arch: [armv7e-m], os: [Zephyr, none], source: firmware/aims/gesture_classifier,
     model: {component: gesture}, ram_bytes: 9216, arena_bytes: 4096, flash_bytes: 28672,
     instructions: 310000,
     measured: [{on: B-L475E-IOT01A, latency_us: 5200, latency_p99_us: 5600, energy_uj: 180, method: board}],
     requires: {storage: {kind: internal_flash, bytes: 8192}}, security: attested}
  - {id: gateway, runtime: tflite, arch: [x86-64, aarch64], os: [Linux], entry: "demo:Classifier",
     model: {component: gesture}, ram_bytes: 41943040,
     measured: [{on: gateway-a, latency_us: 60, method: computer}], security: attested}
""",
    "event_sink": """\
schema: 1
aim: {name: EventSink, version: "1.0", implementer: demo}
inputs: {event: {type: "{uint64 t_us; string label}", payload_bytes: 48}}
implementations:
  - {id: gateway, runtime: python, entry: "demo:Sink", ram_bytes: 1048576, instructions: 5000}
""",
}

INVENTORY = """\
schema: 1
inventory: {name: lab, version: 3}
devices:
  - {id: gw, class: gateway, board: gateway-a, arch: aarch64, os: Linux,
     instructions_per_s: 4000000000, cores: 4, ram_bytes: 1500000000, flash_bytes: 0,
     storage: [{kind: disk, bytes: 16000000000, write_bps: 160000000}],
     energy: {source: mains, active_mw: 4500, idle_mw: 2500, tx_uj_per_byte: 1.0, rx_uj_per_byte: 1.0},
     runtimes: [python, tflite, tflm], attestation: software, site: lab, zone: room}
  - {id: wrist, class: mcu, board: B-L475E-IOT01A, arch: armv7e-m, os: Zephyr,
     dmips: 100, instructions_per_s: 60000000, ram_bytes: 65536, flash_bytes: 655360,
     storage: [{kind: internal_flash, bytes: 131072}, {kind: spiffs, bytes: 4194304}],
     sensors: [{kind: imu, rate_hz: 1660}],
     energy: {source: battery, battery_mwh: 740, active_mw: 36, idle_mw: 1.2,
              tx_uj_per_byte: 5.0, rx_uj_per_byte: 3.0},
     runtimes: [tflm, firmware], attestation: dice, site: lab, zone: wrist}
  - {id: bench, class: mcu, board: mps2-an386, arch: armv7e-m, os: none, instructions_per_s: 25000000,
     ram_bytes: 16384, flash_bytes: 1048576, storage: [{kind: internal_flash, bytes: 262144}],
     energy: {source: mains, active_mw: 40, idle_mw: 5},
     runtimes: [tflm, firmware], attestation: dice, site: lab, zone: room}
links:
  - {id: air, network: [gw, wrist], bandwidth_bps: 6000000, latency_ms: 4, loss: 0.01, mtu_bytes: 1400}
  - {id: serial, between: [gw, bench], bandwidth_bps: 115200, latency_ms: 1, mtu_bytes: 256}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "gesture"
    folder.mkdir()
    (folder / "gesture.aiw.yaml").write_text(WORKFLOW)
    (folder / "inventory.yaml").write_text(INVENTORY)
    for name, text in AIMS.items():
        (tmp_path / "aims" / name).mkdir(parents=True)
        (tmp_path / "aims" / name / "aim.yaml").write_text(text)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "gesture.tflite").write_bytes(bytes(4352))
    return tmp_path


def run(lab: Path, *options: str) -> int:
    return cli.main(["plan", str(lab / "gesture"), "--aims", str(lab / "aims"), *options])


def test_the_table_says_where_and_why(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lab, "--releases", str(lab / "models")) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "GestureRecognition@1.0 on inventory lab v3" in out
    assert "imu wrist mcu 34 us instructions pinned by zone wrist" in out
    assert "classifier gw gateway 60 us measured cheapest: +" in out
    assert "wrist, bench: pinned to class gateway, this is class mcu" in out
    assert "65.0 MiB of 1.4 GiB" in out
    assert "gesture 11.2 ms 400 ms" in out
    assert "proven optimal" in out


def test_json_is_a_placement_and_output_replaces_the_file(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = lab / "plan.json"
    target.write_text("old")
    assert run(lab, "--format", "json", "--output", str(target), "--seed", "7") == 0
    assert run(lab, "--format", "json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["schema"] == 4
    written, shown = from_json(target.read_text()), from_json(printed.out)
    assert written.assignments == shown.assignments
    assert written.device_of("imu") == "wrist"
    assert printed.err == f"wrote {target}\n"
    assert sorted(p.name for p in lab.iterdir()) == ["aims", "gesture", "models", "plan.json"]


def test_mermaid_shows_devices_and_what_crosses_them(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lab, "--format", "mermaid") == 0
    out = capsys.readouterr().out
    assert out.startswith("flowchart LR\n")
    assert 'subgraph d0["wrist"]' in out
    assert '==>|"features &gt; features"|' in out


def test_a_table_in_a_file_has_no_colours(lab: Path) -> None:
    target = lab / "plan.txt"
    assert run(lab, "--output", str(target)) == 0
    assert "\x1b" not in target.read_text()
    assert "proven optimal" in target.read_text()


def test_an_impossible_plan_is_one_screen_with_exit_code_4(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory = lab / "gesture" / "inventory.yaml"
    inventory.write_text(INVENTORY.replace("latency_ms: 4,", "latency_ms: 500,"))
    assert run(lab) == 4
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error[AIF-E0301]: no placement exists\n")
    assert "   = path gesture must take at most 400.0 ms, the fastest takes 505.6 ms\n" in printed.err
    assert "   = help: this makes it possible: deadline of path gesture 505.6 ms\n" in printed.err


def test_a_plan_that_has_room_at_a_lower_rate_says_so(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract = lab / "aims" / "imu_source" / "aim.yaml"
    contract.write_text(AIMS["imu_source"].replace("instructions: 2000", "instructions: 1200000"))
    workflow = lab / "gesture" / "gesture.aiw.yaml"
    assert run(lab) == 4
    assert "of its rate" not in capsys.readouterr().err
    workflow.write_text(WORKFLOW + "availability: {least_rate: 50%}\n")
    assert run(lab) == 4
    error = capsys.readouterr().err
    assert "there is room for 75% of its rate, which it accepts when a device is lost" in error


def test_a_model_larger_than_any_device_says_by_how_much(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (lab / "models" / "gesture.tflite").write_bytes(bytes(200_000))
    inventory = lab / "gesture" / "inventory.yaml"
    inventory.write_text(INVENTORY.replace("16000000000", "100000"))
    assert run(lab, "--releases", str(lab / "models")) == 4
    error = capsys.readouterr().err
    assert "classifier (GestureClassifier@1.0) can run nowhere" in error
    assert "needs 400,000 B on a storage unit (internal_flash), the largest has 262,144 B" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--broker", "moon"], "inventory lab has no device 'moon'"),
        (["--releases", "nowhere"], "nowhere is not a folder of models"),
        (["--output", "/proc/none/plan.json"], "cannot write /proc/none/plan.json"),
    ],
)
def test_wrong_options_are_explained(
    lab: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lab, *options) == 2
    assert message in capsys.readouterr().err


def test_a_missing_inventory_is_named(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lab, "--inventory", str(lab / "none.yaml")) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_the_broker_makes_messages_travel_further(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lab, "--format", "json", "--broker", "bench") == 0
    by_broker = from_json(capsys.readouterr().out)
    assert run(lab, "--format", "json") == 0
    direct = from_json(capsys.readouterr().out)
    assert by_broker.paths[0].latency_ms > direct.paths[0].latency_ms


@pytest.mark.integration
def test_help_of_the_installed_command_needs_no_solver() -> None:
    code = (
        "import sys; from aif.cli.main import main; main(['plan', '--help']); "
        "assert 'ortools' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--inventory" in done.stdout


def test_a_plan_whose_records_do_not_fit_their_receiver_is_refused(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything fits but the messages: a microcontroller puts 16 KiB together."""
    for name in ("motion_features", "gesture_classifier"):
        contract = lab / "aims" / name / "aim.yaml"
        contract.write_text(
            contract.read_text()
            .replace("int8[36]", "int8[17000]")
            .replace("queue_depth: 4", "queue_depth: 1")
        )
    workflow = lab / "gesture" / "gesture.aiw.yaml"
    text = WORKFLOW.replace("{colocate_with: [imu], strength: soft}", "{device: gw}")
    workflow.write_text(
        text.replace(
            "features: extract.features}}", "features: extract.features},\n     placement: {device: wrist}}"
        ).replace("deadline_ms: 400", "deadline_ms: 4000")
    )
    assert run(lab) == 4
    told = capsys.readouterr().err
    assert told.startswith("error[AIF-E0301]: no placement exists")
    assert "every message of extract.features -> classifier.features has at least 17,012 B" in told
    assert "takes at most 16,384 B" in told
