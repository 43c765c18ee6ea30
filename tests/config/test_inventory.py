# ruff: noqa: E501
# Each row of the tables is one mistake and the exact words said about it; they read best in one line.

from collections.abc import Callable
from pathlib import Path

import pytest

from aif.config import load_inventory
from aif.errors import ConfigError
from aif.model.aim import Runtime
from aif.model.inventory import DeviceClass, Energy, Link, Sensor, StorageUnit

Said = Callable[[Callable[[], object]], list[str]]

BASE = """\
schema: 1
inventory: {name: lab, version: 1}
devices:
  - {id: gw, class: gateway, board: pc, instructions_per_s: 4G/s, ram_bytes: 1GiB, flash_bytes: 0, runtimes: [python]}
  - {id: m1, class: mcu, board: m4, dmips: 100, ram_bytes: 64KiB, flash_bytes: 1MiB, runtimes: [tflm]}
links:
  - {id: air, network: [gw, m1], bandwidth_bps: 6Mbps, latency_ms: 4}
"""


@pytest.fixture
def refused(tmp_path: Path, said: Said) -> Callable[[str], list[str]]:
    def run(text: str) -> list[str]:
        (tmp_path / "inventory.yaml").write_text(text)
        return said(lambda: load_inventory(tmp_path))

    return run


def test_the_example_of_the_format_is_read_completely(examples: Path) -> None:
    inventory = load_inventory(examples / "gesture")
    assert (inventory.name, inventory.version) == ("lab", 3)
    gateway, wrist, bench = inventory.devices
    assert (gateway.device_class, gateway.cores, gateway.cpu_limit) == (DeviceClass.GATEWAY, 4, 0.8)
    assert gateway.runtimes == {Runtime.PYTHON, Runtime.TFLITE, Runtime.TFLM}
    assert wrist.storage == (
        StorageUnit("internal_flash", 131072, 320000),
        StorageUnit("spiffs", 4194304, 800000),
    )
    assert wrist.sensors == (Sensor("imu", 1660), Sensor("microphone", 16000), Sensor("temperature"))
    assert wrist.energy == Energy("battery", 740, 36, 1.2, 5.0, 3.0)
    assert (bench.board, bench.os, bench.attestation) == ("mps2-an386", "none", "dice")
    assert inventory.links == (
        Link("air", ("gw", "wrist"), 6_000_000, 4, 0.01, 1400, shared=True),
        Link("serial", ("gw", "bench"), 115_200, 1, 0, 256),
    )


def test_links_have_three_forms_and_a_name_of_their_own(tmp_path: Path) -> None:
    extra = "  - {from: gw, to: m1, bandwidth_bps: 1kbps, latency_ms: 0}\n  - {between: [gw, m1], bandwidth_bps: 1, latency_ms: 1s}\n"
    (tmp_path / "inventory.yaml").write_text(BASE + extra)
    assert load_inventory(tmp_path).links[1:] == (
        Link("gw->m1", ("gw", "m1"), 1000, 0, directed=True),
        Link("gw-m1", ("gw", "m1"), 1, 1000),
    )


def test_how_a_device_is_reached_or_emulated_is_kept_as_given(tmp_path: Path) -> None:
    text = BASE.replace(
        "board: m4,", "board: m4, emulator: {tier: 2, args: [a, {b: on}]}, connect: {url: 'x'},"
    )
    (tmp_path / "inventory.yaml").write_text(text)
    device = load_inventory(tmp_path).device("m1")
    assert device.emulator == {"tier": 2, "args": ["a", {"b": "on"}]}
    assert device.connect == {"url": "x"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("id: m1", "id: gw", "5 [gw] AIF-E0106 device id 'gw' is given twice, on lines 4 and 5 (every device needs an id of its own)"),
        ("[gw, m1]", "[gw, m2]", "7 [m2] AIF-E0107 the link names device 'm2', which the inventory does not hold (known: gw, m1)"),
        ("[gw, m1]", "[gw, gw]", "7 [air] AIF-E0104 air in links names a device twice"),
        ("[gw, m1]", "[gw]", "7 [network] AIF-E0104 network must hold at least 2"),
        ("network: [gw, m1]", "between: [gw, m1], network: [gw, m1]", "7 [air] AIF-E0104 air in links must have one of between: [a, b], network: [...], or from and to"),
        ("network: [gw, m1]", "from: gw", "7 [air] AIF-E0104 air in links has only one of from and to (give both, or between: [a, b] for both directions)"),
        ("dmips: 100, ", "", "5 [m1] AIF-E0104 m1 in devices has no speed (give at least one of instructions_per_s, macs_per_s, dmips)"),
        ("ram_bytes: 64KiB", "ram_bytes: -1", "5 [-1] AIF-E0104 ram_bytes must be at least 0"),
        ("ram_bytes: 64KiB", "ram_bytes: 64kHz", "5 [64kHz] AIF-E0105 ram_bytes must be an amount of data, but '64kHz' is a frequency (units: B, kB, MB, GB, KiB, MiB, GiB)"),
        ("class: mcu", "class: mpu", "5 [mpu] AIF-E0104 class must be mcu, gateway, edge or cloud (did you mean 'mcu'?)"),
        ("runtimes: [tflm]", "runtimes: []", "5 [runtimes] AIF-E0104 runtimes must hold at least 1"),
        ("runtimes: [tflm]", "runtimes: [tfml]", "5 [tfml] AIF-E0104 runtimes[0] must be python, tflite, tflm or firmware (did you mean 'tflm'?)"),
        ("version: 1}", "version: '1'}", "2 ['1'] AIF-E0104 version must be a whole number"),
        ("latency_ms: 4", "latency_ms: 4, loss: 1", "7 [1] AIF-E0104 loss must be less than 1"),
        ("latency_ms: 4", "latency_ms: 4, loss: 120%", "7 [120%] AIF-E0104 loss must be at most 1"),
        ("dmips: 100,", "dmips: 100, energy: {source: battery},", "5 [energy] AIF-E0104 energy runs on battery but lacks battery_mwh (source: battery and battery_mwh belong together)"),
        ("dmips: 100,", "dmips: 100, storage: [{kind: sd, bytes: 1}],", "5 [sd] AIF-E0104 kind must be sdfs, eefs, spiffs, internal_flash or disk (did you mean 'sdfs'?)"),
        ("dmips: 100,", "dmips: 100, cpulimit: 0.5,", "5 [cpulimit] AIF-E0102 unknown key 'cpulimit' (did you mean 'cpu_limit'?)"),
        ("board: m4, ", "", "5 [m1] AIF-E0103 missing key 'board' of m1 in devices (board: name of the hardware, as in measured figures)"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_finding(
    refused: Callable[[str], list[str]], old: str, new: str, expected: str
) -> None:
    assert old in BASE
    found = refused(BASE.replace(old, new, 1))
    assert found[0] == expected
    assert old == "id: m1" or len(found) == 1, "the link then names a device that is not there"


def test_a_duplicate_device_is_shown_with_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "inventory.yaml"
    file.write_text(BASE.replace("id: m1", "id: gw").replace("gw, m1", "gw, gw"))
    with pytest.raises(ConfigError) as wrong:
        load_inventory(file)
    assert wrong.value.findings[0].notes == (f"the first is at {file.as_posix()}:4:10",)
