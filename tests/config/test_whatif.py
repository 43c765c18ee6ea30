"""Suppositions about an inventory: applied to the values, checked like a file, refused with what to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aif.config.inventory import load_inventory
from aif.config.whatif import MAX_CHANGES, supposed_inventory
from aif.errors import AIFError, ConfigError
from aif.model.aim import Runtime
from aif.model.inventory import Inventory

INVENTORY = """\
schema: 1
inventory: {name: lab, version: 1}
devices:
  - {id: gw-1, class: gateway, board: g, instructions_per_s: 1000000000, ram_bytes: 128MiB, flash_bytes: 0,
     runtimes: [python], radios: [wifi]}
  - {id: mcu-1, class: mcu, board: m, instructions_per_s: 48000000, ram_bytes: 16KiB, flash_bytes: 256KiB,
     storage: [{kind: internal_flash, bytes: 32KiB}], sensors: [imu, {kind: mic, rate_hz: 16kHz}],
     energy: {source: battery, battery_mwh: 740}, runtimes: [tflm, firmware]}
  - {id: mcu-2, class: mcu, board: m, instructions_per_s: 48000000, ram_bytes: 16KiB, flash_bytes: 256KiB,
     runtimes: [tflm]}
links:
  - {id: radio, network: [gw-1, mcu-1, mcu-2], bandwidth_bps: 250kbps, latency_ms: 4}
  - {between: [gw-1, mcu-1], bandwidth_bps: 1Mbps, latency_ms: 1}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("lab") / "inventory.yaml"
    file.write_text(INVENTORY)
    return file


def refused(lab: Path, *changes: str, without: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        supposed_inventory(lab, changes, without)
    return caught.value.diagnostics()


def test_without_changes_it_is_the_file(lab: Path) -> None:
    assert supposed_inventory(lab) == load_inventory(lab) == supposed_inventory(lab.parent)


def test_what_devices_say_comes_before_the_file_and_after_what_is_supposed(lab: Path) -> None:
    said = {"mcu-2": {"ram_bytes": 50_000, "flash_bytes": 1_000, "runtimes": ["tflm"], "zone": "mine"}}
    found = supposed_inventory(lab, ["mcu-2.flash=2KiB"], announced=said)
    device = found.device("mcu-2")
    assert (device.ram_bytes, device.flash_bytes, device.zone) == (50_000, 2_048, "")
    assert found.device("mcu-1") == load_inventory(lab).device("mcu-1")
    assert supposed_inventory(lab, announced={}) == load_inventory(lab)


@pytest.mark.parametrize(
    ("change", "read", "value"),
    [
        ("mcu-2.ram=64KiB", lambda i: i.device("mcu-2").ram_bytes, 65536),
        ("mcu-2.ram_bytes = 100", lambda i: i.device("mcu-2").ram_bytes, 100),
        ("mcu-2.clock=64MHz", lambda i: i.device("mcu-2").clock_hz, 64e6),
        ("mcu-2.zone=wrist", lambda i: i.device("mcu-2").zone, "wrist"),
        ("mcu-2.instructions=1000000", lambda i: i.device("mcu-2").instructions_per_s, 1e6),
        ("mcu-1.energy.idle=3mW", lambda i: i.device("mcu-1").energy.idle_mw, 3.0),
        ("mcu-1.energy.battery=1Wh", lambda i: i.device("mcu-1").energy.battery_mwh, 1000.0),
        ("gw-1.energy.tx=2", lambda i: i.device("gw-1").energy.tx_uj_per_byte, 2.0),
        ("mcu-1.energy={source: mains}", lambda i: i.device("mcu-1").energy.source, "mains"),
        ("mcu-1.runtimes+=python", lambda i: Runtime.PYTHON in i.device("mcu-1").runtimes, True),
        ("mcu-1.runtimes=tflm", lambda i: i.device("mcu-1").runtimes, frozenset({Runtime.TFLM})),
        ("mcu-1.sensors-=imu", lambda i: [s.kind for s in i.device("mcu-1").sensors], ["mic"]),
        ("mcu-1.sensors-=[imu, mic]", lambda i: i.device("mcu-1").sensors, ()),
        ("mcu-2.sensors+=mic", lambda i: [s.kind for s in i.device("mcu-2").sensors], ["mic"]),
        ("mcu-1.sensors[mic].rate=8kHz", lambda i: i.device("mcu-1").sensors[1].rate_hz, 8000.0),
        ("mcu-1.storage[internal_flash].bytes=1MiB", lambda i: i.device("mcu-1").storage[0].bytes_, 2**20),
        ("mcu-1.storage[0].bytes=1MiB", lambda i: i.device("mcu-1").storage[0].bytes_, 2**20),
        ("link(radio).latency=20ms", lambda i: i.links[0].latency_ms, 20.0),
        ("link(gw-1,mcu-2).bandwidth=10kbps", lambda i: i.links[0].bandwidth_bps, 10_000.0),
        ("link(gw-1-mcu-1).loss=2%", lambda i: i.links[1].loss, 0.02),
        ("link(radio).network-=mcu-1", lambda i: i.links[0].members, ("gw-1", "mcu-2")),
    ],
)
def test_a_change_is_applied(lab: Path, change: str, read: object, value: object) -> None:
    assert callable(read)
    assert read(supposed_inventory(lab, [change])) == value
    assert lab.read_text() == INVENTORY


@pytest.mark.parametrize(
    ("change", "code", "message", "hint"),
    [
        ("mcu-2.ram=64Kib", "E0105", "ram_bytes has the unknown unit 'Kib'", "did you mean 64KiB?"),
        ("mcu-2.ram=5ms", "E0105", "is a time", "units: B"),
        ("mcu-2.ram=-5", "E0104", "ram_bytes must be greater than or equal to 0", ""),
        ("mcu-2.ram=", "E0104", "ram_bytes must be a valid integer", ""),
        ("mcu-3.ram=1", "E0107", "no device 'mcu-3'", "did you mean"),
        ("mcu-2.rom=1", "E0102", "unknown field 'rom'", "ram_bytes"),
        ("mcu-1.energy.source=mains", "E0104", "runs on mains but has battery_mwh", "belong together"),
        ("mcu-1.energy.sauce=1", "E0102", "unknown field 'sauce'", "did you mean 'source'"),
        ("mcu-1.id=x", "E0104", "an id cannot be changed", "--without"),
        ("mcu-1.cores+=1", "E0101", "cores is no list", "cores=VALUE"),
        ("mcu-1.sensors-=gps", "E0107", "sensors has no 'gps'", "imu"),
        ("mcu-1.storage[spiffs].bytes=1", "E0107", "storage has no 'spiffs'", "internal_flash"),
        ("mcu-1.storage[0]=1", "E0101", "is an entry of a list", "storage[0].bytes=64KiB"),
        ("mcu-1.runtimes=[]", "E0104", "runtimes must", ""),
        ("mcu-1.ram=[", "E0101", "is not a YAML value", ""),
        ("mcu-1.connect.x=1", "E0101", "'x' names nothing", ""),
        ("mcu-1", "E0101", "is not a change", "mcu-2.ram=64KiB"),
        ("link(air).loss=0", "E0107", "no link 'air'", "radio"),
        ("link(gw-1,mcu-1).loss=0", "E0107", "2 links join gw-1 and mcu-1", "link(radio), link(gw-1-mcu-1)"),
        ("link(mcu-2,gw-9).loss=0", "E0107", "no device 'gw-9'", ""),
        ("link(radio).network+=gw-9", "E0107", "a link names device 'gw-9'", "did you mean"),
        ("link(radio).bandwidth=0", "E0104", "bandwidth_bps must be greater than 0", ""),
    ],
)
def test_a_wrong_change_is_explained(lab: Path, change: str, code: str, message: str, hint: str) -> None:
    text = refused(lab, change)
    assert text.startswith(f"error[AIF-{code}]: --what-if {change}: ")
    assert message in text
    assert hint in text.partition("= help:")[2]


def test_every_wrong_change_is_named_at_once(lab: Path) -> None:
    text = refused(lab, "mcu-2.rom=1", "mcu-1.ram=1", "x.y=1", without=("z",))
    assert text.count("error[") == 3
    assert "--without z: the inventory has no device 'z'" in text
    assert "at most 256 changes" in refused(lab, *["mcu-1.ram=1"] * (MAX_CHANGES + 1))


def test_changes_add_up_in_their_order(lab: Path) -> None:
    found = supposed_inventory(
        lab, ["mcu-2.sensors+=gps", "mcu-2.sensors[gps].count=3", "mcu-2.ram=1", "mcu-2.ram=2"]
    )
    assert found.device("mcu-2").sensors[0].count == 3
    assert found.device("mcu-2").ram_bytes == 2


def test_a_device_takes_its_links_along(lab: Path) -> None:
    found = supposed_inventory(lab, [], ["mcu-1"])
    assert [d.id for d in found.devices] == ["gw-1", "mcu-2"]
    assert [link.members for link in found.links] == [("gw-1", "mcu-2")]
    assert supposed_inventory(lab, [], ["mcu-1", "gw-1"]).links == ()


def test_a_link_can_be_cut(lab: Path) -> None:
    assert [link.id for link in supposed_inventory(lab, [], ["link(radio)"]).links] == ["gw-1-mcu-1"]


def test_the_last_device_stays(lab: Path) -> None:
    assert "no device would be left" in refused(lab, without=("gw-1", "mcu-1", "mcu-2"))


FRAGMENTS = st.sampled_from(
    ["mcu-1", "gw-1", "link(radio)", "link(", ".", "ram", "sensors", "energy", "[0]", "=", "+=", "-=",
     "64KiB", "imu", "{}", "[", ": ", "\n", "&a", "*a", "null", "!x", "\x00", "1e999"]
)  # fmt: skip


@given(st.lists(FRAGMENTS, max_size=9).map("".join) | st.text(max_size=40))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_change_or_refused(lab: Path, text: str) -> None:
    for arguments in (((text,), ()), ((), (text,))):
        try:
            found: object = supposed_inventory(lab, *arguments)
        except AIFError as wrong:
            found = wrong.diagnostics()
        assert isinstance(found, Inventory) or str(found).startswith("error[AIF-E01")
