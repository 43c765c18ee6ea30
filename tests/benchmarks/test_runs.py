"""Every contender's run goes through with tiny counts, and a planted fault voids it. No figure is judged."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import micro, p1_throughput, p2_round_trip
from benchmarks.__main__ import main
from benchmarks.broker import BrokerMissing, program
from benchmarks.cell import ADAPTIVE, Cell, Durations, Plant, Task
from benchmarks.contenders import CONTENDERS, dora_node
from benchmarks.harness import Bench, Settings, bench
from benchmarks.referee import Figures
from benchmarks.workload import InvalidRun

pytestmark = pytest.mark.integration
TINY = Durations(warm_up_s=0.0, run_s=0.0, round_trips=5, longest_s=5.0)

STREAMS = [
    Cell("paho_plain"),
    Cell("paho_typed"),
    Cell("paho_tls", broker="tls"),
    Cell("paho_bundled", bundle=16),
    Cell("obvious", size_bytes=16_384),
    Cell("gmqtt"),
    Cell("zenoh"),
    Cell("zenoh_tls"),
    Cell("dora"),
    Cell("aif_paho", bundle=ADAPTIVE, mode="aead"),
    Cell("aif_paho", bundle=256, mode="signed"),
    Cell("aif_paho", bundle=ADAPTIVE, mode="checkpoint"),
    Cell("aif_paho", size_bytes=1_024, bundle=31, mode="signed"),
    Cell("aif_paho", size_bytes=16_384, bundle=3, mode="aead"),
    Cell("aif_fast", bundle=ADAPTIVE, mode="signed"),
]
PINGS = [
    Cell("paho_plain"),
    Cell("paho_waiting", qos=1),
    Cell("obvious", qos=1),
    Cell("gmqtt"),
    Cell("zenoh"),
    Cell("dora"),
    Cell("aif_paho", bundle=ADAPTIVE, mode="aead", qos=1),
    Cell("aif_paho", mode="signed"),
    Cell("aif_paho", mode="checkpoint"),
    Cell("aif_fast", mode="checkpoint", qos=1),
]


def _require_mosquitto() -> None:
    try:
        program()
    except BrokerMissing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(f"THE BENCHMARKS WERE NOT TESTED: {error}")


@pytest.fixture(scope="module")
def running() -> Iterator[Bench]:
    _require_mosquitto()
    with bench(Settings(1, TINY)) as brokers:
        yield brokers


def once(running: Bench, task: Task, cell: Cell, plant: Plant = "") -> Figures:
    """One run of one cell."""
    missing = CONTENDERS[cell.contender].missing()
    if missing or (cell.contender == "dora" and dora_node.program() is None):
        pytest.skip(f"{cell.contender} was not tested: the extra `bench` is not installed")
    return asyncio.run(running.run(task, cell, plant))


@pytest.mark.parametrize("cell", STREAMS, ids=lambda cell: cell.name)
def test_a_stream_is_verified_to_its_last_message(running: Bench, cell: Cell) -> None:
    figures = once(running, "stream", cell)
    assert figures["messages"] > 0
    assert figures["messages_per_s"] > 0


@pytest.mark.parametrize("cell", PINGS, ids=lambda cell: cell.name)
def test_round_trips_are_counted_one_by_one(running: Bench, cell: Cell) -> None:
    figures = once(running, "ping", cell)
    assert figures["trips"] >= TINY.round_trips
    assert 0 < figures["p50_us"] <= figures["p95_us"] <= figures["p99_us"]


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        ("lose", "a message was lost, repeated or swapped"),
        ("repeat", "a message was lost, repeated or swapped"),
        ("swap", "a message was lost, repeated or swapped"),
        ("alter", "the content that was verified is not the content that was sent"),
    ],
)
@pytest.mark.parametrize("cell", [STREAMS[0], STREAMS[9]], ids=lambda cell: cell.name)
def test_a_planted_fault_voids_the_run(running: Bench, cell: Cell, plant: Plant, reason: str) -> None:
    with pytest.raises(InvalidRun, match=reason):
        once(running, "stream", cell, plant)


def test_a_frame_that_gets_lost_voids_the_costs_per_message(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = iter([True])
    receive = micro._Channel.receive

    def sometimes(channel: micro._Channel, frame: bytes) -> None:
        if not next(lost, False):
            receive(channel, frame)

    monkeypatch.setattr(micro._Channel, "receive", sometimes)
    with pytest.raises(InvalidRun, match="aead, 100 B, K=16"):
        micro.seal_row("aead", 100, 16, micro.QUICK)


class TestCommand:
    @pytest.fixture(autouse=True)
    def broker(self) -> None:
        _require_mosquitto()

    def test_a_benchmark_writes_its_metrics(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("benchmarks.__main__.QUICK", TINY)
        cells = [Cell("paho_plain"), Cell("aif_paho", bundle=ADAPTIVE, mode="signed")]
        monkeypatch.setattr(p1_throughput, "cells_of", lambda _size_bytes, **_: cells)
        pings = [
            cells,
            [Cell("aif_paho", bundle=ADAPTIVE, mode="aead", qos=1)],
            [Cell("paho_plain", broker="stock")],
        ]
        monkeypatch.setattr(p2_round_trip, "groups", lambda: pings)
        file = tmp_path / "out.json"
        assert main(["p1", "p2", "--quick", "--noisy", "--sizes", "100", "--json", str(file)]) == 0
        written = json.loads(file.read_text())
        metrics = {metric["name"]: metric for metric in written["metrics"]}
        assert metrics["p1.aif_paho.signed_adaptive_100B_vs_paho"]["goal"] == 12
        assert metrics["p1.aif_paho.signed_adaptive_100B_vs_paho"]["better"] == "higher"
        assert metrics["p2.aif_paho.signed_adaptive_qos0_vs_paho"]["unit"] == "ratio"
        assert metrics["p1.overhead_unbundled"]["value"] == 26
        assert written["environment"]["mosquitto"].startswith("mosquitto version")
        assert written["tables"]["p1"]["void"] == {}
        assert "p2.aif_paho.signed_adaptive_qos0_vs_paho" in capsys.readouterr().out

    def test_a_void_row_is_in_no_figure_and_in_the_exit_status(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("benchmarks.__main__.QUICK", TINY)
        monkeypatch.setattr(
            "benchmarks.__main__.Settings",
            lambda rounds, durations, seed: Settings(rounds, durations, seed, "lose"),
        )
        cells = [Cell("paho_plain"), Cell("paho_tls", broker="tls")]
        monkeypatch.setattr(p1_throughput, "cells_of", lambda _size_bytes, **_: cells)
        file = tmp_path / "out.json"
        assert main(["p1", "--quick", "--noisy", "--sizes", "100", "--json", str(file)]) == 1
        written = json.loads(file.read_text())
        assert set(written["tables"]["p1"]["void"]) == {cell.name for cell in cells}
        assert [metric["name"] for metric in written["metrics"]] == ["p1.overhead_unbundled"]
        assert "INVALID paho_plain, 100 B" in capsys.readouterr().err

    def test_costs_per_message_are_written_by_mode_and_size(self, tmp_path: Path) -> None:
        file = tmp_path / "out.json"
        assert main(["micro", "--quick", "--noisy", "--json", str(file)]) == 0
        written = json.loads(file.read_text())
        assert {metric["name"] for metric in written["metrics"]} == {
            "micro.codec_encode", "micro.codec_decode",
            "micro.signed_k256_100B_seal", "micro.signed_k256_100B_open",
        }  # fmt: skip
        rows = {row["row"]: row for row in written["tables"]["micro"]["sealed"]}
        assert rows["aead, 100 B, K=1"]["overhead_bytes"] == 38  # of the frame 26, of the message 12
        assert rows["signed, 16384 B, K=1"]["seal_us"] > 0

    def test_costs_of_trust_are_written(self, tmp_path: Path) -> None:
        file = tmp_path / "out.json"
        assert main(["trust", "--quick", "--noisy", "--json", str(file)]) == 0
        rows = {row["row"]: row for row in json.loads(file.read_text())["tables"]["trust"]["trust"]}
        assert len(rows) == 9
        assert rows["stamp a message"]["bytes"] == 24
        assert all(row["us"] > 0 for row in rows.values())

    def test_a_loaded_machine_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("benchmarks.environment.load", lambda: 3.25)
        assert main(["p1", "--quick"]) == 2
        assert "the load average is 3.25, above 0.5" in capsys.readouterr().err
