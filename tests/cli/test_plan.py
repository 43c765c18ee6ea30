"""``aif plan`` as a user meets it: files in, table or JSON or Mermaid out, one clear screen when it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aif.cli import main as cli
from partitioner.report import from_json

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
     instructions: 310000, measured: [{on: B-L475E-IOT01A, latency_us: 5200, latency_p99_us: 5600, energy_uj: 180, method: board}],
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
  - {id: gw, class: gateway, board: gateway-a, arch: aarch64, os: Linux, instructions_per_s: 4000000000, cores: 4,
     ram_bytes: 1500000000, flash_bytes: 0, storage: [{kind: disk, bytes: 16000000000, write_bps: 160000000}],
     energy: {source: mains, active_mw: 4500, idle_mw: 2500, tx_uj_per_byte: 1.0, rx_uj_per_byte: 1.0},
     runtimes: [python, tflite, tflm], attestation: software, site: lab, zone: room}
  - {id: wrist, class: mcu, board: B-L475E-IOT01A, arch: armv7e-m, os: Zephyr, dmips: 100, instructions_per_s: 60000000,
     ram_bytes: 65536, flash_bytes: 655360,
     storage: [{kind: internal_flash, bytes: 131072}, {kind: spiffs, bytes: 4194304}],
     sensors: [{kind: imu, rate_hz: 1660}],
     energy: {source: battery, battery_mwh: 740, active_mw: 36, idle_mw: 1.2, tx_uj_per_byte: 5.0, rx_uj_per_byte: 3.0},
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
